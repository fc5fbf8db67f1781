//! Files that are written whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Writes `bytes` to a temporary file beside `path`, syncs it and renames it to `path`.
///
/// A crash at any moment leaves either the old file or the whole new one. Without `replace`, a file that exists
/// at `path`, even one that appears meanwhile, is kept and [`Error::Exists`] returned.
///
/// # Errors
/// [`Error::Exists`], and [`Error::Write`] with the operating system's reason.
pub fn write_whole(path: &Path, bytes: &[u8], replace: bool) -> Result<()> {
    if !replace && path.symlink_metadata().is_ok() {
        return Err(exists(path));
    }
    let directory = directory(path);
    let written = written(directory, bytes).map_err(|source| failed(path, source))?;
    let renamed = match replace {
        true => written.persist(path),
        false => written.persist_noclobber(path),
    };
    match renamed.map_err(|refused| refused.error) {
        Ok(_) => sync_directory(directory).map_err(|source| failed(path, source)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(source) => Err(failed(path, source)),
    }
}

/// A temporary file with these bytes, safely on the disk.
fn written(directory: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".relugrad-");
    readable_by_others(&mut builder);
    let mut file = builder.tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Temporary files are private; this one becomes an ordinary file, whose permissions the umask decides.
#[cfg(unix)]
fn readable_by_others(builder: &mut tempfile::Builder) {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(0o666));
}

#[cfg(not(unix))]
fn readable_by_others(_: &mut tempfile::Builder) {}

/// Makes the new name itself survive a loss of power.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn exists(path: &Path) -> Error {
    Error::Exists {
        path: path.to_owned(),
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().unwrap();
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries
            .map(name)
            .map(|n| n.into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_only_on_request_and_nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write_whole(&path, b"one", false).unwrap();
        assert!(matches!(
            write_whole(&path, b"two", false),
            Err(Error::Exists { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write_whole(&path, b"three", true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three");
        assert_eq!(names(directory.path()), ["a"]);
    }

    #[test]
    fn a_refused_rename_keeps_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("folder");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("kept"), b"kept").unwrap();
        assert!(matches!(
            write_whole(&path, b"new", true),
            Err(Error::Write { .. })
        ));
        assert_eq!(names(directory.path()), ["folder"]);
        assert_eq!(names(&path), ["kept"]);
    }

    #[test]
    fn a_missing_folder_is_an_error_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("no/such/model.safetensors");
        let error = write_whole(&path, b"x", false).unwrap_err();
        assert!(error.to_string().contains("model.safetensors"));
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(directory(Path::new("model")), Path::new("."));
        assert_eq!(directory(Path::new("a/model")), Path::new("a"));
    }
}
