//! Files that are written whole or not at all.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Writes `bytes` to a temporary file beside `path`, syncs it and renames it to `path`.
///
/// A crash at any moment leaves either the old file or the whole new one. Without `replace`, a file that exists
/// at `path`, even one that appears meanwhile, is kept and [`Error::Exists`] returned. Folders, links, pipes and devices are
/// never replaced, nor are files that are read-only.
///
/// # Errors
/// Those of [`check_output`] without inputs, and [`Error::Write`] with the operating system's reason.
pub fn write_whole(path: &Path, bytes: &[u8], replace: bool) -> Result<()> {
    check_target(path, replace)?;
    put(path, bytes, replace, None)
}

/// Sees that [`write_whole`] can write a file, before any work is done for it; `inputs` are files that the command reads.
///
/// # Errors
/// [`Error::Exists`] without `replace`; [`Error::NotAFile`] and [`Error::ReadOnly`] for what is never replaced;
/// [`Error::OutputIsInput`]; [`Error::Write`] if there is no such folder, or it cannot be written.
pub fn check_output(path: &Path, replace: bool, inputs: &[&Path]) -> Result<()> {
    check_inputs(path, inputs)?;
    check_target(path, replace)?;
    let probe = tempfile::tempfile_in(directory(path));
    probe.map(drop).map_err(|source| failed(path, source))
}

/// Refuses a path that leads to one of the inputs.
pub(crate) fn check_inputs(path: &Path, inputs: &[&Path]) -> Result<()> {
    let whole = resolved(path);
    match inputs.iter().any(|input| resolved(input) == whole) {
        true => Err(Error::OutputIsInput {
            path: path.to_owned(),
        }),
        false => Ok(()),
    }
}

/// Where a path leads, whether there is a file or will be.
fn resolved(path: &Path) -> PathBuf {
    let in_folder = || {
        let folder = directory(path).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let found = path.canonicalize().ok().or_else(in_folder);
    found.unwrap_or_else(|| path.to_owned())
}

fn check_target(path: &Path, replace: bool) -> Result<()> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(path, source)),
    };
    let path = path.to_owned();
    match found.is_file() {
        false => Err(Error::NotAFile {
            path,
            found: kind(&found),
        }),
        true if !replace => Err(Error::Exists { path }),
        true if found.permissions().readonly() => Err(Error::ReadOnly { path }),
        true => Ok(()),
    }
}

/// What is at a path, in words.
pub(crate) fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    if kind.is_file() {
        "a file"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "a pipe or device"
    }
}

/// Writes a file by way of a temporary one, whose name may be given.
pub(crate) fn put(path: &Path, bytes: &[u8], replace: bool, temporary: Option<&str>) -> Result<()> {
    let directory = directory(path);
    let written = written(directory, bytes, temporary).map_err(|source| failed(path, source))?;
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
fn written(directory: &Path, bytes: &[u8], name: Option<&str>) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    match name {
        Some(name) => builder.prefix(name).rand_bytes(0),
        None => builder.prefix(".relugrad-"),
    };
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

pub(crate) fn failed(path: &Path, source: io::Error) -> Error {
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
            Err(Error::NotAFile { .. })
        ));
        assert_eq!(names(directory.path()), ["folder"]);
        assert_eq!(names(&path), ["kept"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_files_that_are_read_only_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (link, file) = (directory.path().join("link"), directory.path().join("file"));
        std::fs::write(&file, b"old").unwrap();
        symlink(&file, &link).unwrap();
        let error = write_whole(&link, b"new", true).unwrap_err();
        assert!(error.to_string().contains("a symbolic link"), "{error}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
        let error = write_whole(&file, b"new", true).unwrap_err();
        assert!(matches!(error, Error::ReadOnly { .. }));
        assert_eq!(std::fs::read(&link).unwrap(), b"old");
    }

    #[test]
    fn outputs_are_checked_before_any_work() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        check_output(&file, false, &[]).unwrap();
        let other = directory.path().join(".").join("file");
        // Two outputs of one name, neither of which is there yet.
        let error = check_output(&file, false, &[&other]).unwrap_err();
        assert!(matches!(error, Error::OutputIsInput { .. }), "{error}");
        std::fs::write(&file, b"old").unwrap();
        for (inputs, replace) in [(&[&*other][..], true), (&[], false)] {
            let error = check_output(&file, replace, inputs).unwrap_err();
            let input = matches!(error, Error::OutputIsInput { .. });
            assert_eq!(input, replace, "{error}");
        }
        check_output(&file, true, &[]).unwrap();
        let nowhere = directory.path().join("no/such");
        assert!(matches!(
            check_output(&nowhere, false, &[]),
            Err(Error::Write { .. })
        ));
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
