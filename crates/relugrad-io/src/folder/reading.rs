//! Reading results that another process has made.

use std::path::Path;

use super::manifest::{self, Manifest, State};
use crate::error::{Error, Result};

/// How often a file is read that does not fit its list: its process may be writing both.
const ATTEMPTS: usize = 3;

/// Reads a file that a command has made in a folder. Nothing is locked or changed, so the folder may
/// be read-only and may be written to meanwhile.
///
/// # Errors
/// [`Error::NotAsWritten`] if the file is missing, is not in the folder's manifest or is not what
/// that says; [`Error::Manifest`], [`Error::Foreign`], [`Error::Read`].
pub fn read_result(folder: &Path, command: &'static str, name: &str) -> Result<Vec<u8>> {
    let mut found = "";
    for _ in 0..ATTEMPTS {
        let manifest = Manifest::load(folder, command)?;
        let states = manifest.states(command, name);
        found = match (manifest::read(&folder.join(name), command)?, states) {
            (None, _) => "is missing",
            (_, None) => "is not listed in the folder's relugrad-manifest.json",
            (Some(bytes), Some(states)) => match states.contains(&State::of(&bytes)) {
                true => return Ok(bytes),
                false => "is damaged or was changed, as relugrad-manifest.json tells",
            },
        };
    }
    Err(Error::NotAsWritten {
        path: folder.join(name),
        found,
        command,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::folder::{Earlier, OutputFolder};

    #[test]
    fn only_what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let read = |name: &str| read_result(path, "compare", name);
        {
            let mut folder = OutputFolder::open(path, "compare", Earlier::Keep).unwrap();
            let names = ["a".to_owned(), "b/c".to_owned()];
            folder.begin(&names, &[]).unwrap();
            let files: [(&str, &[u8]); 2] = [("a", b"one"), ("b/c", b"two")];
            folder.write(&files, &mut []).unwrap();
            // Whoever has the lock keeps no reader away.
            assert_eq!(read("a").unwrap(), b"one");
        }
        assert_eq!(read("b/c").unwrap(), b"two");
        fs::write(path.join("d"), b"three").unwrap();
        let problem = |name: &str| read(name).unwrap_err().to_string();
        assert!(problem("d").contains("not listed"));
        assert!(problem("e").contains("is missing"));
        for damaged in [&b"on"[..], b"onf", b"one more", b""] {
            fs::write(path.join("a"), damaged).unwrap();
            assert!(problem("a").contains("damaged"));
        }
        fs::remove_file(path.join("relugrad-manifest.json")).unwrap();
        assert!(problem("b/c").contains("not listed"));
    }
}
