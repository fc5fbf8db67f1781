//! Short commands that write to folders, and what they leave there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

pub(crate) fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("relugrad"));
    command.args(arguments);
    command
}

pub(crate) fn output(arguments: &[&str]) -> Output {
    relugrad(arguments).output().unwrap()
}

/// Runs a command that must succeed.
pub(crate) fn done(arguments: &[&str]) {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", error(&output));
}

/// Runs a command that must be refused, and returns its reason.
pub(crate) fn refused(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{arguments:?}: {}",
        error(&output)
    );
    error(&output)
}

pub(crate) fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A table of sixty samples in two classes.
pub(crate) fn table(folder: &Path) -> PathBuf {
    let line = |i: usize| format!("{},{},{}", (i * 7) % 10, (i * 3) % 10, (i * 7) % 10 / 5);
    let lines: Vec<String> = (0..60).map(line).collect();
    let path = folder.join("two.csv");
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

/// The options of a short training on it.
pub(crate) fn train(data: &Path) -> Vec<String> {
    let options = [
        "train", "--model", "mlp:4", "--epochs", "2", "--scale", "range", "--data",
    ];
    let options = options.into_iter().chain([text(data)]);
    options.map(str::to_owned).collect()
}

pub(crate) fn compare(data: &Path) -> Vec<String> {
    let mut options = train(data);
    options[0] = "compare".into();
    let more = [
        "--attack-samples",
        "5",
        "--pgd-steps",
        "1",
        "--penalties",
        "jacobian",
    ];
    options.extend(more.map(str::to_owned));
    options
}

pub(crate) fn evaluate(data: &Path, model: &Path) -> Vec<String> {
    let options = [
        "evaluate",
        text(model),
        "--scale",
        "range",
        "--data",
        text(data),
        "--linf",
        "0.1",
    ];
    let more = [
        "--l2",
        "",
        "--samples",
        "5",
        "--apgd-steps",
        "2",
        "--pgd-steps",
        "2",
        "--certify",
        "1",
    ];
    options.into_iter().chain(more).map(str::to_owned).collect()
}

pub(crate) fn with<'a>(options: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    options
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect()
}

/// The bytes of all files in a folder, by their names.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap();
                    found.insert(text(name).to_owned(), fs::read(&path).unwrap());
                }
            }
        }
    }
    found
}

/// Whether a lock or a temporary file of ours is left.
pub(crate) fn traces(folder: &Path) -> Vec<String> {
    let names = contents(folder).into_keys();
    names
        .filter(|name| name.contains(".relugrad-") && !name.contains("foreign"))
        .collect()
}

pub(crate) fn wait_for(path: &Path, child: &mut Child) {
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
}
