//! Files that are read: regular ones, of no more than a sensible length.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::limits::{Budget, Limits};

/// What is too long if a file is.
const FILE: &str = "the file";

/// The longest file that is read into memory, unless more is allowed.
const LONGEST: u64 = 8 << 30;

/// The longest file of settings.
const LONGEST_TEXT: u64 = 16 << 20;

/// How much of a file is looked at before the rest is read.
const BEGINNING: u64 = 1 << 16;

/// Opens a file and tells its length.
///
/// A pipe or a device is refused, for it may keep the program waiting or never end.
///
/// # Errors
/// [`Error::Read`], [`Error::NotReadable`].
pub fn open_file(path: impl AsRef<Path>) -> Result<(File, u64)> {
    let path = path.as_ref();
    // Opening a pipe waits for its writer, so the kind of file comes first.
    let about = fs::metadata(path).map_err(unreadable(path))?;
    if !about.is_file() {
        return Err(Error::NotReadable {
            path: path.to_owned(),
            kind: kind(about.file_type()),
        });
    }
    let file = File::open(path).map_err(unreadable(path))?;
    Ok((file, about.len()))
}

/// What the operating system says of a file that it does not let us read.
pub(crate) fn unreadable(path: &Path) -> impl Fn(io::Error) -> Error {
    |source| Error::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(unix)]
fn kind(found: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match found {
        found if found.is_dir() => "folder",
        found if found.is_fifo() => "pipe",
        found if found.is_socket() => "socket",
        _ => "device",
    }
}

#[cfg(not(unix))]
fn kind(found: FileType) -> &'static str {
    if found.is_dir() { "folder" } else { "device" }
}

/// The bytes of a file whose beginning looks right for its length, and what it may take.
pub(crate) fn read_file(
    path: &Path,
    looks_right: impl FnOnce(&[u8], u64) -> Result<()>,
) -> Result<(Vec<u8>, Budget)> {
    let limits = Limits::of_process();
    let (mut file, length) = open_file(path)?;
    limits
        .check_length(FILE, length, LONGEST)
        .map_err(|e| e.in_file(path))?;
    let mut bytes = Vec::new();
    read_part(&mut file, BEGINNING, &mut bytes, path)?;
    looks_right(&bytes, length).map_err(|problem| problem.in_file(path))?;
    // One byte more than there were, should the file grow meanwhile.
    read_part(
        &mut file,
        (length + 1).saturating_sub(BEGINNING),
        &mut bytes,
        path,
    )?;
    let budget = limits.budget(bytes.len() as u64);
    Ok((bytes, budget))
}

fn read_part(file: &mut File, length: u64, bytes: &mut Vec<u8>, path: &Path) -> Result<()> {
    let read = file.take(length).read_to_end(bytes);
    read.map(drop).map_err(unreadable(path))
}

/// The text of a file of settings or results.
///
/// # Errors
/// [`Error::Read`], [`Error::NotReadable`]; [`Error::TooLongToRead`] within [`Error::InFile`] for
/// more than 16 MiB.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let (file, length) = open_file(path)?;
    Limits::of_process()
        .check_length(FILE, length, LONGEST_TEXT)
        .map_err(|e| e.in_file(path))?;
    let mut text = String::new();
    let read = file.take(length).read_to_string(&mut text);
    read.map_err(unreadable(path))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_named_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| open_file(path).unwrap_err().to_string();
        assert!(refused(folder.path()).contains("is a folder"));
        #[cfg(unix)]
        {
            assert!(refused(Path::new("/dev/zero")).contains("is a device"));
            let socket = folder.path().join("socket");
            let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            assert!(refused(&socket).contains("is a socket"));
            let pipe = folder.path().join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.unwrap().success());
            assert!(refused(&pipe).contains("is a pipe"));
        }
        assert!(matches!(
            open_file(folder.path().join("none")),
            Err(Error::Read { .. })
        ));
    }

    #[test]
    fn long_files_are_refused_before_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = read_file(&path, |_, _| Ok(())).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the file has 1099511627776 bytes")
        );
        let error = read_text(&path).unwrap_err().to_string();
        assert!(error.contains("16777216") && error.contains("--file-memory"));
        // A sparse file within the limit is refused by its beginning.
        File::create(&path).unwrap().set_len(7 << 30).unwrap();
        let looks_right = |bytes: &[u8], _| match bytes.first() {
            Some(0) => Err(Error::NoChecksum),
            _ => Ok(()),
        };
        assert!(read_file(&path, looks_right).is_err());
    }
}
