//! Folders that receive the results of a command: one process at a time, and no file of anybody
//! else's is touched.

mod growing;
mod lock;
mod manifest;
mod reading;

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file::unreadable;
use crate::whole_file::{TEMPORARY, check_inputs, failed, kind, put};
pub use growing::GrowingFile;
use lock::Lock;
use manifest::{Manifest, State};
pub use reading::read_result;

/// What a command may do with the files that it has made in a folder before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing.
    Keep,
    /// Remove and replace them.
    Replace,
    /// Replace them as it goes on from there.
    Resume,
}

/// A folder that receives the results of a command.
///
/// A manifest in the folder, `relugrad-manifest.json`, lists the files that each command has made,
/// with length and checksum. A file is replaced or removed only if this command has made it, nobody
/// has changed it since, and [`Earlier`] allows it. Files are written whole or not at all; the
/// manifest learns of them first, so that after a crash it knows both what may have been there and
/// what may have come.
///
/// From [`open`](Self::open) until it is dropped a lock keeps other processes away. A process that
/// dies leaves a lock that keeps nobody away, and perhaps temporary files, which the next one
/// removes.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    command: &'static str,
    earlier: Earlier,
    manifest: Manifest,
    lock: Lock,
}

impl OutputFolder {
    /// Makes the folder if necessary, and locks it for a command. Nothing else is changed.
    ///
    /// # Errors
    /// [`Error::MakeFolder`]; [`Error::Locked`] with the process that writes there;
    /// [`Error::Foreign`] and [`Error::Manifest`] for files under the names of lock and manifest
    /// that are none.
    pub fn open(
        path: impl Into<PathBuf>,
        command: &'static str,
        earlier: Earlier,
    ) -> Result<OutputFolder> {
        let path = path.into();
        let lock = Lock::take(&path, command)?;
        let manifest = Manifest::load(&path, command)?;
        Ok(OutputFolder {
            path,
            command,
            earlier,
            manifest,
            lock,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file that this command has made here before and that is still there, if any.
    pub fn earlier_file(&self) -> Option<String> {
        let mut names = self.manifest.names(self.command).into_iter();
        names.find(|name| self.path.join(name).symlink_metadata().is_ok())
    }

    /// Whether this command has made a file here and nobody has changed it.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn is_ours(&self, name: &str) -> Result<bool> {
        Ok(self.state(name)?.is_some())
    }

    /// What a file holds, if it is one that this command has made and nobody has changed.
    fn state(&self, name: &str) -> Result<Option<State>> {
        let path = self.path.join(name);
        let ordinary = path.symlink_metadata().is_ok_and(|found| found.is_file());
        let states = self.manifest.states(self.command, name).unwrap_or_default();
        for state in states.iter().filter(|_| ordinary) {
            if state.fits(&path).map_err(unreadable(&path))? {
                return Ok(Some(state.clone()));
            }
        }
        Ok(None)
    }

    /// Whether the manifest lists any file of this command.
    pub fn is_listed(&self) -> bool {
        self.manifest.files.contains_key(self.command)
    }

    /// The bytes of a file, `None` if nothing is there.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Foreign`] for what is no ordinary file.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        manifest::read(&self.path.join(name), self.command)
    }

    /// Takes a file as it is for one that this command has made, because its content says so.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn adopt(&mut self, name: &str) -> Result<()> {
        if let Some(bytes) = self.read(name)? {
            *self.manifest.entry(self.command, name) = vec![State::of(&bytes)];
        }
        Ok(())
    }

    /// Sees that files of these names can be written, before any work is done, and removes what a
    /// dead process has left.
    ///
    /// # Errors
    /// [`Error::Exists`] for earlier files that must be kept; [`Error::OutputIsInput`] if one of
    /// the `inputs` of the command would be replaced; [`Error::Foreign`] for what this command has
    /// not made; [`Error::Changed`] for what has been changed since; [`Error::ReadOnly`]. Nothing
    /// is changed then.
    pub fn begin(&mut self, names: &[String], inputs: &[&Path]) -> Result<()> {
        if let (Earlier::Keep, Some(file)) = (self.earlier, self.earlier_file()) {
            return Err(Error::Exists {
                path: self.path.join(file),
            });
        }
        let mut names = names.to_vec();
        if self.earlier == Earlier::Replace {
            names.extend(self.manifest.names(self.command));
        }
        let outputs: Vec<PathBuf> = names.iter().map(|name| self.path.join(name)).collect();
        for output in &outputs {
            check_inputs(output, inputs)?;
        }
        for name in &names {
            self.check(name)?;
        }
        self.remove_traces()?;
        self.lock.sign(self.command)
    }

    /// What the file of a name holds, if there is one; anything but a file of ours is refused.
    fn check(&self, name: &str) -> Result<Option<State>> {
        let above = Path::new(name).ancestors().skip(1);
        for folder in above.filter(|folder| *folder != Path::new("")) {
            let path = self.path.join(folder);
            if let Ok(found) = path.symlink_metadata()
                && !found.is_dir()
            {
                return Err(self.foreign(path, kind(&found)));
            }
        }
        let path = self.path.join(name);
        let Ok(found) = path.symlink_metadata() else {
            return Ok(None);
        };
        let listed = self.manifest.states(self.command, name).is_some();
        if !found.is_file() || !listed {
            return Err(self.foreign(path, kind(&found)));
        }
        match self.state(name)? {
            Some(_) if found.permissions().readonly() => Err(Error::ReadOnly { path }),
            Some(state) => Ok(Some(state)),
            None => Err(Error::Changed {
                path,
                command: self.command,
            }),
        }
    }

    fn foreign(&self, path: PathBuf, found: &'static str) -> Error {
        Error::Foreign {
            path,
            found,
            command: self.command,
        }
    }

    /// Removes the temporary files of a process that died: those with its number and the name of a
    /// file that it may have written.
    fn remove_traces(&self) -> Result<()> {
        let Some(dead) = self.lock.dead() else {
            return Ok(());
        };
        let names = self.manifest.files.values().flat_map(|files| files.keys());
        let own = manifest::NAME.to_owned();
        for name in names.chain([&own]) {
            let path = self
                .path
                .join(name)
                .with_file_name(temporary(dead.process, name));
            if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
                fs::remove_file(&path).map_err(|source| failed(&path, source))?;
            }
        }
        Ok(())
    }

    /// Removes the files that this command has made, all but some that are to stay.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::Changed`], [`Error::ReadOnly`], and [`Error::Write`].
    pub fn clear(&mut self, staying: &[&str]) -> Result<()> {
        self.lock.check()?;
        let names = self.manifest.names(self.command);
        let leaving = names.iter().filter(|name| !staying.contains(&&***name));
        for name in leaving {
            let path = self.path.join(name);
            if path.symlink_metadata().is_ok() {
                self.check(name)?;
                fs::remove_file(&path).map_err(|source| failed(&path, source))?;
            }
            if let Some(files) = self.manifest.files.get_mut(self.command) {
                files.remove(name);
            }
        }
        self.save()
    }

    /// Writes files, each whole or not at all, in this order, and what has been appended to others.
    ///
    /// # Errors
    /// [`Error::FolderLost`]; [`Error::Foreign`], [`Error::Changed`] and [`Error::ReadOnly`] for
    /// what somebody has done there meanwhile; [`Error::Write`].
    pub fn write(
        &mut self,
        files: &[(&str, &[u8])],
        growing: &mut [&mut GrowingFile],
    ) -> Result<()> {
        self.lock.check()?;
        for file in growing {
            let state = file.settle(true)?;
            *self.manifest.entry(self.command, &file.name) = vec![state];
        }
        self.replace(files, false)
    }

    fn replace(&mut self, files: &[(&str, &[u8])], growing: bool) -> Result<()> {
        let present = files.iter().map(|(name, _)| self.check(name));
        let present: Vec<Option<State>> = present.collect::<Result<_>>()?;
        let new = |bytes| State {
            growing,
            ..State::of(bytes)
        };
        for ((name, bytes), present) in files.iter().zip(&present) {
            let new = new(bytes);
            let before = present.iter().filter(|present| **present != new);
            let states = before.cloned().chain([new.clone()]).collect();
            *self.manifest.entry(self.command, name) = states;
        }
        self.save()?;
        for (name, bytes) in files {
            // Once more: those before it may have taken a while.
            let present = self.check(name)?.is_some();
            self.put(name, bytes, present)?;
            *self.manifest.entry(self.command, name) = vec![new(bytes)];
        }
        Ok(())
    }

    /// Makes a file that is appended to after what it holds `earlier`.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn grow(&mut self, name: &str, earlier: &[u8]) -> Result<GrowingFile> {
        self.lock.check()?;
        self.replace(&[(name, earlier)], true)?;
        GrowingFile::open(&self.path.join(name), name, earlier)
    }

    /// Records what the files hold at the end.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn finish(&mut self, growing: &mut [&mut GrowingFile]) -> Result<()> {
        self.lock.check()?;
        for file in growing {
            let state = file.settle(false)?;
            *self.manifest.entry(self.command, &file.name) = vec![state];
        }
        self.save()
    }

    fn save(&self) -> Result<()> {
        let json = self.manifest.to_json();
        self.put(manifest::NAME, &json, true)
    }

    fn put(&self, name: &str, bytes: &[u8], replace: bool) -> Result<()> {
        let path = self.path.join(name);
        if let Some(folder) = path.parent().filter(|folder| *folder != self.path) {
            fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        }
        let temporary = temporary(std::process::id(), name);
        let written = put(&path, bytes, replace, Some(&temporary));
        // Why it could not be written, if the folder has gone meanwhile.
        written.map_err(|error| self.lock.check().err().unwrap_or(error))
    }
}

/// The name of the temporary file beside a file, while a process writes it.
fn temporary(process: u32, name: &str) -> String {
    let file = Path::new(name).file_name().unwrap_or_default();
    format!("{TEMPORARY}{process}-{}", file.to_string_lossy())
}

#[cfg(test)]
mod tests;
