use super::*;

const COMMAND: &str = "train";

fn open(path: &Path, earlier: Earlier) -> OutputFolder {
    OutputFolder::open(path, COMMAND, earlier).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A folder in which the command has made two files.
fn made() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut folder = open(directory.path(), Earlier::Keep);
    folder.begin(&names(&["a", "models/b"]), &[]).unwrap();
    folder
        .write(&[("a", b"one"), ("models/b", b"two")], &mut [])
        .unwrap();
    folder.finish(&mut []).unwrap();
    directory
}

fn listing(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let entries = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn only_what_is_named_stays_behind() {
    let directory = made();
    assert_eq!(listing(directory.path()), ["a", "models", manifest::NAME]);
    assert_eq!(listing(&directory.path().join("models")), ["b"]);
}

#[test]
fn earlier_files_are_kept_replaced_or_gone_on_with() {
    let directory = made();
    let mut folder = open(directory.path(), Earlier::Keep);
    assert_eq!(folder.earlier_file().as_deref(), Some("a"));
    let refused = folder.begin(&names(&["a"]), &[]).unwrap_err();
    assert!(matches!(refused, Error::Exists { .. }));
    drop(folder);
    let mut folder = open(directory.path(), Earlier::Resume);
    folder.begin(&names(&["a"]), &[]).unwrap();
    folder.write(&[("a", b"three")], &mut []).unwrap();
    drop(folder);
    let mut folder = open(directory.path(), Earlier::Replace);
    folder.begin(&names(&["c"]), &[]).unwrap();
    folder.clear(&["a"]).unwrap();
    assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"three");
    assert!(listing(&directory.path().join("models")).is_empty());
}

#[test]
fn another_command_has_files_of_its_own() {
    let directory = made();
    let mut folder = OutputFolder::open(directory.path(), "evaluate", Earlier::Replace).unwrap();
    assert_eq!(folder.earlier_file(), None);
    folder.begin(&names(&["c"]), &[]).unwrap();
    folder.clear(&[]).unwrap();
    folder.write(&[("c", b"four")], &mut []).unwrap();
    assert_eq!(listing(directory.path()).len(), 5);
    let refused = folder.write(&[("a", b"mine")], &mut []).unwrap_err();
    assert!(matches!(refused, Error::Foreign { .. }));
    drop(folder);
    assert!(
        open(directory.path(), Earlier::Keep)
            .earlier_file()
            .is_some()
    );
}

#[test]
fn what_is_foreign_or_changed_is_refused_by_name_and_kept() {
    let refused = |directory: &Path, earlier, name: &str| {
        let error = open(directory, earlier).begin(&names(&["a", "d"]), &[]);
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains(name) && text.contains("move it away"),
            "{text}"
        );
    };
    for earlier in [Earlier::Replace, Earlier::Resume] {
        let directory = made();
        let path = directory.path();
        fs::write(path.join("a"), b"onE").unwrap();
        refused(path, earlier, "a was changed");
        fs::remove_file(path.join("a")).unwrap();
        fs::create_dir(path.join("a")).unwrap();
        refused(path, earlier, "a folder");
        fs::remove_dir(path.join("a")).unwrap();
        fs::write(path.join("d"), b"mine").unwrap();
        refused(path, earlier, "d is a file");
        assert_eq!(fs::read(path.join("d")).unwrap(), b"mine");
    }
}

#[test]
fn what_somebody_puts_there_meanwhile_is_kept() {
    let directory = made();
    let mut folder = open(directory.path(), Earlier::Resume);
    folder.begin(&names(&["a", "d"]), &[]).unwrap();
    fs::write(directory.path().join("d"), b"mine").unwrap();
    assert!(folder.write(&[("d", b"new")], &mut []).is_err());
    assert_eq!(fs::read(directory.path().join("d")).unwrap(), b"mine");
    fs::remove_dir_all(directory.path()).unwrap();
    let lost = folder.write(&[("a", b"new")], &mut []).unwrap_err();
    assert!(matches!(lost, Error::FolderLost { .. }));
}

#[test]
fn an_input_is_not_replaced() {
    let directory = made();
    let input = directory.path().join("models/../a");
    let mut folder = open(directory.path(), Earlier::Replace);
    let refused = folder.begin(&[], &[&input]).unwrap_err();
    assert!(matches!(refused, Error::OutputIsInput { .. }));
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    let directory = made();
    let (path, elsewhere) = (directory.path(), tempfile::tempdir().unwrap());
    fs::remove_dir_all(path.join("models")).unwrap();
    fs::write(elsewhere.path().join("b"), b"two").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), path.join("models")).unwrap();
    let refused = open(path, Earlier::Replace).begin(&[], &[]).unwrap_err();
    assert!(refused.to_string().contains("models is a symbolic link"));
    assert_eq!(listing(elsewhere.path()), ["b"]);
}

/// What a process leaves that died while it wrote, and what only looks like it.
#[test]
fn the_next_process_removes_the_traces_of_a_dead_one_and_no_other_files() {
    let directory = made();
    let path = directory.path();
    let mut folder = open(path, Earlier::Resume);
    folder.begin(&[], &[]).unwrap();
    let lock = fs::read(path.join(lock::NAME)).unwrap();
    drop(folder);
    fs::write(path.join(lock::NAME), lock).unwrap();
    let process = std::process::id();
    let ours = [temporary(process, "a"), temporary(process, manifest::NAME)];
    let foreign = [temporary(process + 1, "a"), ".relugrad-notes".to_owned()];
    for name in ours.iter().chain(&foreign) {
        fs::write(path.join(name), b"half").unwrap();
    }
    fs::write(path.join("models").join(temporary(process, "b")), b"half").unwrap();
    let before = listing(path);
    assert!(open(path, Earlier::Keep).begin(&[], &[]).is_err());
    assert_eq!(listing(path), before);
    open(path, Earlier::Resume).begin(&[], &[]).unwrap();
    let mut expected = names(&["a", "models", manifest::NAME]);
    expected.extend(foreign);
    expected.sort();
    assert_eq!(listing(path), expected);
    assert_eq!(listing(&path.join("models")), ["b"]);
}

/// Killed between manifest and file, either state is ours.
#[test]
fn both_states_around_a_crash_are_ours() {
    let directory = made();
    let path = directory.path();
    let mut folder = open(path, Earlier::Resume);
    folder.begin(&[], &[]).unwrap();
    folder.write(&[("a", b"new")], &mut []).unwrap();
    let during = fs::read(path.join(manifest::NAME)).unwrap();
    folder.finish(&mut []).unwrap();
    drop(folder);
    fs::write(path.join(manifest::NAME), during).unwrap();
    for (bytes, ours) in [(b"one", true), (b"new", true), (b"two", false)] {
        fs::write(path.join("a"), bytes).unwrap();
        assert_eq!(open(path, Earlier::Resume).is_ours("a").unwrap(), ours);
    }
}

/// However often processes die between manifest and file, the file that is there stays known.
#[test]
fn many_crashes_forget_nothing() {
    let directory = made();
    let path = directory.path();
    for new in [b"2", b"3", b"4", b"5"] {
        let mut folder = open(path, Earlier::Resume);
        folder.begin(&names(&["a"]), &[]).unwrap();
        folder.write(&[("a", new)], &mut []).unwrap();
        drop(folder);
        // As if the file had not been written.
        fs::write(path.join("a"), b"one").unwrap();
        assert!(open(path, Earlier::Resume).is_ours("a").unwrap());
    }
}

#[test]
fn a_growing_file_is_known_by_its_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut folder = open(path, Earlier::Keep);
    folder.begin(&names(&["log"]), &[]).unwrap();
    let mut log = folder.grow("log", b"one\n").unwrap();
    // A process may die before it records what it has appended.
    fs::write(path.join("log"), b"one\nt").unwrap();
    assert!(folder.is_ours("log").unwrap());
    fs::write(path.join("log"), b"one\n").unwrap();
    log.append(b"two\n").unwrap();
    folder.write(&[], &mut [&mut log]).unwrap();
    assert_eq!(fs::read(path.join("log")).unwrap(), b"one\ntwo\n");
    log.append(b"three\n").unwrap();
    drop(log);
    assert!(folder.is_ours("log").unwrap());
    let mut log = folder.grow("log", b"one\n").unwrap();
    log.append(b"2\n").unwrap();
    folder.finish(&mut [&mut log]).unwrap();
    drop((log, folder));
    let folder = open(path, Earlier::Replace);
    assert!(folder.is_ours("log").unwrap());
    fs::write(path.join("log"), b"one\n2\nmine\n").unwrap();
    assert!(!folder.is_ours("log").unwrap());
}

#[cfg(unix)]
#[test]
fn a_file_that_was_made_read_only_stays() {
    use std::os::unix::fs::PermissionsExt;
    let directory = made();
    let path = directory.path().join("models/b");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    for earlier in [Earlier::Resume, Earlier::Replace] {
        let mut folder = open(directory.path(), earlier);
        let error = folder.begin(&names(&["a", "models/b"]), &[]).unwrap_err();
        assert!(
            matches!(&error, Error::ReadOnly { path: found } if *found == path),
            "{error}"
        );
    }
    let mut folder = open(directory.path(), Earlier::Resume);
    folder.begin(&names(&["a"]), &[]).unwrap();
    let written = folder.write(&[("a", b"new"), ("models/b", b"new")], &mut []);
    assert!(matches!(written, Err(Error::ReadOnly { .. })));
    assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"one");
    assert_eq!(fs::read(&path).unwrap(), b"two");
}
