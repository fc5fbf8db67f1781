//! Files that are written whole or not at all.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// How temporary files begin, which stand beside the files that they become.
pub(crate) const TEMPORARY: &str = ".relugrad-";

/// Random characters that follow.
const RANDOM: usize = 6;

/// Characters of the file's own name that end the name of its temporary one.
const LONGEST_END: usize = 60;

/// Writes `bytes` to a temporary file beside `path`, syncs it and renames it to `path`.
///
/// A crash at any moment leaves either the old file or the whole new one. Without `replace`, a file
/// that exists at `path`, even one that appears meanwhile, is kept and [`Error::Exists`] returned.
/// Folders, links, pipes and devices are never replaced, nor are files that are read-only. What a
/// process has left that was killed while it wrote the same file is removed.
///
/// # Errors
/// Those of [`check_output`] without inputs, and [`Error::Write`] with the operating system's
/// reason.
pub fn write_whole(path: &Path, bytes: &[u8], replace: bool) -> Result<()> {
    check_target(path, replace)?;
    put(path, bytes, replace, None)
}

/// Sees that [`write_whole`] can write a file, before any work is done for it; `inputs` are files
/// that the command reads.
///
/// # Errors
/// [`Error::Exists`] without `replace`; [`Error::NotAFile`] and [`Error::ReadOnly`] for what is
/// never replaced; [`Error::OutputIsInput`]; [`Error::Write`] if there is no such folder, or it
/// cannot be written.
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
    let made = match temporary {
        Some(name) => builder().prefix(name).rand_bytes(0).tempfile_in(directory),
        None => locked(directory, path),
    };
    let written = made.and_then(|file| filled(file, bytes));
    let written = written.map_err(|source| failed(path, source))?;
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

/// The temporary file with these bytes, safely on the disk.
fn filled(mut file: NamedTempFile, bytes: &[u8]) -> io::Result<NamedTempFile> {
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// A temporary file for a path, in place of those of processes that died. It is locked, so that
/// others can tell that its process lives.
fn locked(directory: &Path, path: &Path) -> io::Result<NamedTempFile> {
    let end = end(path);
    remove_traces(directory, &end);
    loop {
        let file = builder()
            .prefix(TEMPORARY)
            .suffix(&end)
            .rand_bytes(RANDOM)
            .tempfile_in(directory)?;
        // Another process may have come between making it and locking it. Where there are no locks,
        // nobody removes it.
        let taken = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        if !taken && file.path().symlink_metadata().is_ok() {
            return Ok(file);
        }
    }
}

/// Removes the temporary files with this end whose processes have died: nobody has locked them.
fn remove_traces(directory: &Path, end: &str) {
    let Ok(entries) = directory.read_dir() else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ordinary = || entry.file_type().is_ok_and(|kind| kind.is_file());
        let free = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if is_temporary(&name.to_string_lossy(), end) && ordinary() && free() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a name is one of our temporary files' with this end.
fn is_temporary(name: &str, end: &str) -> bool {
    let middle = name
        .strip_prefix(TEMPORARY)
        .and_then(|rest| rest.strip_suffix(end));
    middle.is_some_and(|random| {
        random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// How the names of a file's temporary ones end.
fn end(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ['-']
        .into_iter()
        .chain(name.chars().take(LONGEST_END))
        .collect()
}

/// Makes temporary files, which are private unless they are to become ordinary ones, whose
/// permissions the umask decides.
fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder
}

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
        source: without_temporary(source),
    }
}

/// The operating system's reason without the name of a temporary file, which says nothing to whoever
/// named another.
fn without_temporary(error: io::Error) -> io::Error {
    if error.get_ref().is_none() {
        return error;
    }
    let (kind, text) = (error.kind(), error.to_string());
    // The library ends its reason so, and gives nothing of it but the text.
    match text.rsplit_once(" at path ") {
        Some((reason, _)) => io::Error::new(kind, reason),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none").join("m.npz");
        for refused in [
            check_output(&missing, false, &[]),
            write_whole(&missing, b"", false),
        ] {
            let Err(Error::Write { source, .. }) = refused else {
                panic!("it cannot be written");
            };
            assert!(!source.to_string().contains("at path"), "{source}");
            assert_eq!(source.kind(), io::ErrorKind::NotFound);
        }
    }

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
    fn what_a_dead_process_has_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.svg");
        let make = |name: &str| std::fs::write(directory.path().join(name), b"part").unwrap();
        let others = [
            ".relugrad-123456-b.svg",
            ".relugrad-12345-a.svg",
            ".relugrad-123-56-a.svg",
            ".relugrad-123456a.svg",
            "relugrad-123456-a.svg",
        ];
        others.iter().for_each(|name| make(name));
        make(".relugrad-aB3456-a.svg");
        // One that is being written by somebody else.
        let living = locked(directory.path(), &path).unwrap();
        let name = living.path().file_name().unwrap().to_str().unwrap();
        assert!(is_temporary(name, "-a.svg"), "{name}");
        write_whole(&path, b"whole", false).unwrap();
        let mut expected = [&others[..], &[name, "a.svg"]].concat();
        expected.sort_unstable();
        assert_eq!(names(directory.path()), expected);
        write_whole(&directory.path().join("é".repeat(100)), b"whole", false).unwrap();
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
