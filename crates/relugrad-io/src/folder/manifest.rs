//! Which files of a folder relugrad has made.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::lock;
use crate::error::{Error, Result};
use crate::file::unreadable;
use crate::whole_file::kind;

/// The manifest's own name.
pub(super) const NAME: &str = "relugrad-manifest.json";

/// What a manifest says of itself.
const ABOUT: &str = "files that relugrad has made here; it replaces or removes no other ones, and these only if asked to";

/// The files that each command has made, with what they hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    about: String,
    /// By command and name; a name has `/` between folders.
    pub(super) files: BTreeMap<String, BTreeMap<String, Vec<State>>>,
}

/// What a file of ours may hold: before a file is written, its new state stands here beside the one
/// before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) bytes: u64,
    pub(super) crc32c: String,
    /// Whether more may follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) growing: bool,
}

impl Default for Manifest {
    fn default() -> Manifest {
        Manifest {
            about: ABOUT.into(),
            files: BTreeMap::new(),
        }
    }
}

impl Manifest {
    /// Reads the manifest of a folder; an empty one if there is none.
    pub(super) fn load(folder: &Path, command: &'static str) -> Result<Manifest> {
        let path = folder.join(NAME);
        let bytes = match read(&path, command)? {
            Some(bytes) => bytes,
            None => return Ok(Manifest::default()),
        };
        let damaged = |reason: String| Error::Manifest {
            path: path.clone(),
            reason,
        };
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut names = manifest.files.values().flat_map(BTreeMap::keys);
        match names.find(|name| !inside(name)) {
            None => Ok(manifest),
            Some(name) => Err(damaged(format!("`{name}` is no file of the folder"))),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("strings and numbers are JSON");
        json.push(b'\n');
        json
    }

    /// What a command's file may hold; `None` if the command has not made it.
    pub(super) fn states(&self, command: &str, name: &str) -> Option<&[State]> {
        let states = self.files.get(command)?.get(name)?;
        Some(states)
    }

    pub(super) fn entry(&mut self, command: &str, name: &str) -> &mut Vec<State> {
        let files = self.files.entry(command.to_owned()).or_default();
        files.entry(name.to_owned()).or_default()
    }

    /// The names of a command's files.
    pub(super) fn names(&self, command: &str) -> Vec<String> {
        let files = self.files.get(command);
        files
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect()
    }
}

/// Whether a name leads to a file in the folder that may be one of a command's.
fn inside(name: &str) -> bool {
    let path = Path::new(name);
    let normal = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    normal && !name.is_empty() && ![NAME, lock::NAME].contains(&name)
}

impl State {
    pub(super) fn of(bytes: &[u8]) -> State {
        State {
            bytes: bytes.len() as u64,
            crc32c: hexadecimal(crc32c::crc32c(bytes)),
            growing: false,
        }
    }

    /// Whether a file holds this.
    pub(super) fn fits(&self, path: &Path) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length < self.bytes || length > self.bytes && !self.growing {
            return Ok(false);
        }
        let (mut left, mut checksum) = (self.bytes, 0);
        let mut block = vec![0; 1 << 16];
        while left > 0 {
            let wanted = left.min(block.len() as u64) as usize;
            let read = file.read(&mut block[..wanted])?;
            if read == 0 {
                return Ok(false);
            }
            checksum = crc32c::crc32c_append(checksum, &block[..read]);
            left -= read as u64;
        }
        Ok(hexadecimal(checksum) == self.crc32c)
    }
}

pub(super) fn hexadecimal(checksum: u32) -> String {
    format!("{checksum:08x}")
}

/// The bytes of an ordinary file, `None` if nothing is there; a command does not read through
/// links, nor from pipes.
pub(super) fn read(path: &Path, command: &'static str) -> Result<Option<Vec<u8>>> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(found) if !found.is_file() => {
            return Err(Error::Foreign {
                path: path.to_owned(),
                found: kind(&found),
                command,
            });
        }
        _ => {}
    }
    std::fs::read(path).map(Some).map_err(unreadable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_fits_its_bytes_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut state = State::of(b"one");
        let fits = |state: &State, bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            state.fits(&path).unwrap()
        };
        assert!(fits(&state, b"one"));
        for other in [&b"two"[..], b"on", b"one more", b""] {
            assert!(!fits(&state, other));
        }
        state.growing = true;
        assert!(fits(&state, b"one more") && fits(&state, b"one"));
        assert!(!fits(&state, b"two more") && !fits(&state, b"on"));
    }

    #[test]
    fn what_is_written_is_read_and_names_stay_in_the_folder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        assert_eq!(
            Manifest::load(directory.path(), "train").unwrap(),
            Manifest::default()
        );
        let mut manifest = Manifest::default();
        manifest.entry("train", "a/b").push(State::of(b"x"));
        std::fs::write(&path, manifest.to_json()).unwrap();
        assert_eq!(Manifest::load(directory.path(), "train").unwrap(), manifest);
        for name in ["../a", "/a", "", NAME, lock::NAME] {
            let mut bad = manifest.clone();
            bad.entry("train", name).push(State::of(b"x"));
            std::fs::write(&path, bad.to_json()).unwrap();
            let error = Manifest::load(directory.path(), "train").unwrap_err();
            assert!(matches!(error, Error::Manifest { .. }), "{name}");
        }
        std::fs::write(&path, "{}").unwrap();
        assert!(Manifest::load(directory.path(), "train").is_err());
    }
}
