//! One process at a time in a folder.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file::unreadable;
use crate::whole_file::{failed, kind};

/// The file whose lock, held by the operating system for as long as the process lives, is the
/// truth; what it says is for people.
pub(super) const NAME: &str = ".relugrad-lock";

/// No file of ours is longer.
const LONGEST: u64 = 4096;

/// How long a process may take to say who it is once it has the lock.
const GRACE: Duration = Duration::from_millis(200);

/// Who writes to a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Holder {
    /// The command, such as `relugrad train`.
    command: String,
    pub(super) process: u32,
    host: String,
    since: String,
    /// When the process began, in the clock ticks of Linux, which tells it from a later one of the
    /// same number.
    #[serde(default)]
    started: Option<u64>,
}

impl Holder {
    fn new(command: &str) -> Holder {
        let process = std::process::id();
        Holder {
            command: format!("relugrad {command}"),
            process,
            host: host(),
            since: format_rfc3339_seconds(SystemTime::now()).to_string(),
            started: started(process),
        }
    }

    /// Whether the process lives, as far as can be told; asked only where the operating system has
    /// no locks.
    fn lives(&self) -> bool {
        self.host != host() || self.started.is_none() || started(self.process) == self.started
    }

    fn describe(&self) -> String {
        let Holder {
            command,
            process,
            host,
            since,
            ..
        } = self;
        format!("`{command}`, process {process} on {host}, since {since}")
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    /// The process that had the lock and died without giving it back, until its traces are removed.
    dead: Option<Holder>,
    /// Whether a lock of a dead process was found, whose traces are still there.
    stale: bool,
    /// Folders that were made for it, the innermost first; they go again if they stay empty.
    made: Vec<PathBuf>,
}

impl Lock {
    /// Makes the folder if necessary and takes its lock.
    pub(super) fn take(folder: &Path, command: &'static str) -> Result<Lock> {
        let made = make(folder)?;
        let path = folder.join(NAME);
        let begun = SystemTime::now();
        loop {
            let existed = ordinary(&path, command)?;
            let options = File::options().read(true).write(true).clone();
            let opened = options.clone().create(true).truncate(false).open(&path);
            let mut file = opened.map_err(|source| failed(&path, source))?;
            let held = match file.try_lock() {
                Ok(()) => false,
                Err(TryLockError::WouldBlock) => true,
                Err(TryLockError::Error(_)) => read(&mut file, &path, command)?
                    .as_ref()
                    .is_some_and(Holder::lives),
            };
            let holder = read(&mut file, &path, command)?;
            if held {
                let waited = begun.elapsed().unwrap_or(GRACE);
                if holder.is_none() && waited < GRACE {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                return Err(Error::Locked {
                    folder: folder.to_owned(),
                    lock: path,
                    holder: holder.map_or("another process".into(), |h| h.describe()),
                });
            }
            // Its last owner may have removed it between opening and locking.
            if same(&file, &path) {
                return Ok(Lock {
                    folder: folder.to_owned(),
                    path,
                    file,
                    stale: existed,
                    dead: holder,
                    made,
                });
            }
        }
    }

    /// The process that died with this lock.
    pub(super) fn dead(&self) -> Option<&Holder> {
        self.dead.as_ref()
    }

    /// Says who has it, once the traces of a dead process are removed.
    pub(super) fn sign(&mut self, command: &str) -> Result<()> {
        let text = serde_json::to_string(&Holder::new(command)).expect("strings are JSON") + "\n";
        let mut write = || -> io::Result<()> {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|source| failed(&self.path, source))?;
        (self.dead, self.stale) = (None, false);
        Ok(())
    }

    /// Whether it still is the lock of its folder.
    pub(super) fn check(&self) -> Result<()> {
        match same(&self.file, &self.path) {
            true => Ok(()),
            false => Err(Error::FolderLost {
                folder: self.folder.clone(),
            }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A command that was refused leaves a dead process's lock as it was.
        if self.stale {
            return;
        }
        if same(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// Makes a folder; returns those that were not there, the innermost first.
fn make(folder: &Path) -> Result<Vec<PathBuf>> {
    let missing = |path: &&Path| *path != Path::new("") && path.symlink_metadata().is_err();
    let made = folder.ancestors().take_while(missing).map(Path::to_owned);
    let made: Vec<PathBuf> = made.collect();
    match fs::create_dir_all(folder) {
        Ok(()) => Ok(made),
        Err(source) => {
            // Some of them may have been made.
            made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
            Err(Error::MakeFolder {
                path: folder.to_owned(),
                source,
            })
        }
    }
}

/// Whether there is a file; anything else is not ours.
fn ordinary(path: &Path, command: &'static str) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => Ok(true),
        Ok(found) => Err(Error::Foreign {
            path: path.to_owned(),
            found: kind(&found),
            command,
        }),
        Err(_) => Ok(false),
    }
}

/// What a lock says. It is empty for the moment between making it and writing to it.
fn read(file: &mut File, path: &Path, command: &'static str) -> Result<Option<Holder>> {
    let mut text = Vec::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(LONGEST).read_to_end(&mut text));
    read.map_err(unreadable(path))?;
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|_| Error::Foreign {
            path: path.to_owned(),
            found: "a file",
            command,
        })
}

/// Whether a path still leads to an open file.
#[cfg(unix)]
fn same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let opened = file.metadata().map(identity).ok();
    opened.is_some() && path.symlink_metadata().map(identity).ok() == opened
}

#[cfg(not(unix))]
fn same(_: &File, path: &Path) -> bool {
    path.exists()
}

/// The name of this machine.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or("this machine".into(), |name| name.trim().to_owned())
}

/// When a process began; `None` if there is no such process, or no way to know.
fn started(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The command's name, in brackets, may hold anything; the start is field 22.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Lock::take(directory.path(), "train").unwrap();
        first.sign("train").unwrap();
        let error = Lock::take(directory.path(), "compare").unwrap_err();
        let text = error.to_string();
        let process = std::process::id().to_string();
        assert!(text.contains(&process) && text.contains("relugrad train"));
        let (_, since) = text.split_once("since ").unwrap();
        assert!(
            since.starts_with("20") && since[..20].ends_with('Z'),
            "{text}"
        );
        drop(first);
        assert!(directory.path().read_dir().unwrap().next().is_none());
        Lock::take(directory.path(), "compare").unwrap();
    }

    #[test]
    fn a_dead_process_does_not_block_and_is_remembered_until_its_traces_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let holder = Holder {
            process: 7,
            ..Holder::new("train")
        };
        let text = serde_json::to_string(&holder).unwrap();
        fs::write(&path, &text).unwrap();
        let lock = Lock::take(directory.path(), "train").unwrap();
        assert_eq!(lock.dead(), Some(&holder));
        drop(lock);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let mut lock = Lock::take(directory.path(), "train").unwrap();
        lock.sign("train").unwrap();
        drop(lock);
        assert!(!path.exists());
        // Killed between making the file and writing to it.
        fs::write(&path, "").unwrap();
        assert!(Lock::take(directory.path(), "train").is_ok());
    }

    #[test]
    fn a_file_that_only_has_the_name_of_a_lock_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        fs::write(&path, "my notes").unwrap();
        let error = Lock::take(directory.path(), "train").unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"my notes");
    }

    #[test]
    fn folders_that_were_made_for_nothing_go_again() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("a/b");
        let mut lock = Lock::take(&folder, "train").unwrap();
        lock.sign("train").unwrap();
        drop(lock);
        assert!(!directory.path().join("a").exists());
        let lock = Lock::take(&folder, "train").unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(lock.check(), Err(Error::FolderLost { .. })));
        // The folder is made before its part is found to be impossible.
        let impossible = directory.path().join("new").join("n".repeat(300));
        let error = Lock::take(&impossible, "train").unwrap_err();
        assert!(matches!(error, Error::MakeFolder { .. }), "{error}");
        assert!(!directory.path().join("new").exists());
    }

    #[test]
    fn a_number_that_another_process_has_now_is_no_life() {
        let mut holder = Holder::new("train");
        assert!(holder.lives());
        holder.started = holder.started.map(|ticks| ticks + 1);
        assert_eq!(holder.lives(), holder.started.is_none());
        holder.host = "elsewhere".into();
        assert!(holder.lives());
    }
}
