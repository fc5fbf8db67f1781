//! What a training or comparison may be gone on with, and what not.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args(arguments);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A table whose samples depend on a number.
fn table(folder: &Path, shift: usize) -> PathBuf {
    let line = |i: usize| {
        format!(
            "{},{},{}",
            (i * 7 + shift) % 10,
            (i * 3) % 10,
            (i * 7) % 10 / 5
        )
    };
    let lines: Vec<String> = (0..60).map(line).collect();
    let path = folder.join("two.csv");
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

/// A short training in a folder.
fn train(folder: &Path, more: &[&str]) {
    train_for(folder, "4", more);
}

fn train_for(folder: &Path, epochs: &str, more: &[&str]) {
    let data = table(folder.parent().unwrap(), 0);
    let options = [
        "train",
        "--model",
        "mlp:6",
        "--log-steps",
        "--scale",
        "range",
        "--data",
        text(&data),
    ];
    let mut command = relugrad(&options);
    command.args([
        "--epochs",
        epochs,
        "--batch-size",
        "8",
        "--optimizer",
        "sgd",
        "--out",
        text(folder),
    ]);
    command.args(more).assert().success();
}

fn resume(folder: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    relugrad(&["train", "--resume", text(folder)])
        .args(more)
        .assert()
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

fn edit(folder: &Path, before: &str, after: &str) {
    let path = folder.join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(before), "{text}");
    fs::write(path, text.replace(before, after)).unwrap();
}

/// Every key that changes the training is refused when it was edited, by name and with what to do.
#[test]
fn an_edited_configuration_is_refused_unless_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    train(
        &run,
        &[
            "--penalties",
            "jacobian=0.01",
            "--warmup",
            "0.5",
            "--clip",
            "2",
        ],
    );
    let (config, last) = (read(&run, "config.toml"), read(&run, "last.safetensors"));
    for (before, after, key) in [
        (
            "learning-rate = 0.001",
            "learning-rate = 0.01",
            "learning-rate",
        ),
        ("momentum = 0.9", "momentum = 0.8", "optimizer.momentum"),
        ("lazy = 1", "lazy = 2", "lazy"),
        ("clip = 2.0", "clip = 3.0", "clip"),
        ("warmup = 0.5", "warmup = 0.25", "schedule.warmup"),
        ("lambda = 0.01", "lambda = 0.02", "penalties"),
        ("epochs = 4", "epochs = 5", "epochs"),
        ("seed = 0", "seed = 1", "seed"),
        ("batch-size = 8", "batch-size = 16", "batch-size"),
        ("mlp:6", "mlp:7", "other layers"),
    ] {
        edit(&run, before, after);
        let edited = read(&run, "config.toml");
        resume(&run, &[]).code(1).stderr(contains(key));
        assert!(read(&run, "config.toml") == edited && read(&run, "last.safetensors") == last);
        fs::write(run.join("config.toml"), &config).unwrap();
    }
    resume(&run, &[]).success();
    assert!(read(&run, "config.toml") == config && read(&run, "last.safetensors") == last);
    for fixed in ["seed=3", "batch-size=4", "model=mlp:3", "precision=f64"] {
        resume(&run, &["--set", fixed])
            .code(1)
            .stderr(contains("cannot change"));
    }
    resume(&run, &["--epochs", "3"])
        .code(1)
        .stderr(contains("4 epochs are done"));
    assert!(read(&run, "config.toml") == config && read(&run, "last.safetensors") == last);
}

/// What is said is done from there on, recorded, and gives the same bytes again.
#[test]
fn values_that_are_said_are_taken_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let runs = ["a", "b"].map(|name| dir.path().join(name));
    for (i, run) in runs.iter().enumerate() {
        train(run, &[]);
        // Whether the file was edited as well makes no difference.
        if i == 1 {
            edit(run, "learning-rate = 0.001", "learning-rate = 0.01");
            edit(run, "epochs = 4", "epochs = 6");
            resume(run, &["--epochs", "6"])
                .code(1)
                .stderr(contains("learning-rate is 0.01 instead of 0.001"));
        }
        resume(
            run,
            &[
                "--epochs",
                "6",
                "--set",
                "learning-rate=0.01",
                "--set",
                "optimizer.momentum=0.5",
            ],
        )
        .success();
        resume(run, &[]).success();
    }
    let config = String::from_utf8(read(&runs[0], "config.toml")).unwrap();
    assert!(
        config.contains("key = \"learning-rate\"") && config.contains("before = 0.001"),
        "{config}"
    );
    assert!(config.contains("epochs = 6") && config.contains("learning-rate = 0.01"));
    for name in [
        "last.safetensors",
        "best.safetensors",
        "metrics.jsonl",
        "metrics.csv",
        "config.toml",
    ] {
        assert!(read(&runs[0], name) == read(&runs[1], name), "{name}");
    }
    let lines = String::from_utf8(read(&runs[0], "metrics.csv")).unwrap();
    let rates: Vec<&str> = lines
        .lines()
        .map(|line| line.split(',').nth(2).unwrap())
        .collect();
    assert_eq!(
        rates[1..],
        ["0.001", "0.001", "0.001", "0.001", "0.01", "0.01"]
    );
    // A new run from this configuration has no such history.
    let (new, config) = (dir.path().join("new"), runs[0].join("config.toml"));
    let again = relugrad(&["train", "--config", text(&config), "--out", text(&new)]).assert();
    again
        .success()
        .stderr(contains("last values from the start"));
    assert!(
        !String::from_utf8(read(&new, "config.toml"))
            .unwrap()
            .contains("changes")
    );
}

/// Comments in the configuration are nobody's to remove.
#[test]
fn a_configuration_in_own_words_stays() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    train(&run, &[]);
    edit(
        &run,
        "learning-rate = 0.001",
        "# mine\nlearning-rate = 0.001",
    );
    resume(&run, &[]).success();
    let commented = read(&run, "config.toml");
    resume(&run, &["--epochs", "6"])
        .code(1)
        .stderr(contains("words of your own"));
    assert!(read(&run, "config.toml") == commented);
    edit(&run, "epochs = 4", "epochs = 6");
    let commented = read(&run, "config.toml");
    resume(&run, &["--epochs", "6"])
        .success()
        .stdout(contains("epoch 6"));
    resume(&run, &[]).success();
    assert!(read(&run, "config.toml") == commented);
}

/// With a schedule that does not depend on the end, a longer run and one that was made longer have
/// the same parameters.
#[test]
fn a_finished_run_is_made_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (short, long) = (dir.path().join("short"), dir.path().join("long"));
    train(&short, &[]);
    train_for(&long, "7", &[]);
    resume(&short, &["--epochs", "7"])
        .success()
        .stdout(contains("epoch 7"));
    assert!(read(&short, "metrics.csv") == read(&long, "metrics.csv"));
    let weights = |folder: &Path| {
        let (network, _) = relugrad_io::load::<f32>(folder.join("last.safetensors")).unwrap();
        network.parameters().values().to_vec()
    };
    assert_eq!(weights(&short), weights(&long));
    // One that gave up needs more patience, too.
    let patient = dir.path().join("patient");
    train_for(&patient, "50", &["--patience", "1", "--lr", "1e-9"]);
    resume(&patient, &["--epochs", "60"])
        .code(1)
        .stderr(contains("early-stopping.patience"));
    resume(&patient, &["--epochs", "60", "--patience", "3"]).success();
}

#[test]
fn a_best_checkpoint_of_another_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (run, other) = (dir.path().join("run"), dir.path().join("other"));
    train(&run, &[]);
    train(&other, &["--seed", "9"]);
    let own = read(&run, "best.safetensors");
    fs::copy(other.join("best.safetensors"), run.join("best.safetensors")).unwrap();
    resume(&run, &["--epochs", "6"])
        .code(1)
        .stderr(contains("best.safetensors").and(contains("another training")));
    fs::remove_file(run.join("best.safetensors")).unwrap();
    resume(&run, &["--epochs", "6"])
        .code(1)
        .stderr(contains("missing"));
    fs::write(run.join("best.safetensors"), own).unwrap();
    resume(&run, &["--epochs", "6"]).success();
}

/// Whatever happens to a byte of the lines, the lines of epochs come back, and of those of steps
/// one is lost at most.
#[test]
fn one_damaged_byte_costs_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    train(&run, &[]);
    let whole = read(&run, "metrics.jsonl");
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for (place, byte) in [(10, 0xff), (whole.len() / 2, 0), (whole.len() - 5, b'x')] {
        let mut damaged = whole.clone();
        damaged[place] = byte;
        fs::write(run.join("metrics.jsonl"), &damaged).unwrap();
        resume(&run, &[]).success();
        let left = read(&run, "metrics.jsonl");
        let left: Vec<&[u8]> = left.split_inclusive(|byte| *byte == b'\n').collect();
        let lost = lines.iter().filter(|line| !left.contains(line)).count();
        assert!(lost <= 1 && left.iter().all(|line| lines.contains(line)));
        fs::write(run.join("metrics.jsonl"), &whole).unwrap();
    }
    fs::write(run.join("metrics.jsonl"), "my notes\n").unwrap();
    resume(&run, &[])
        .code(1)
        .stderr(contains("metrics.jsonl was changed"));
    assert_eq!(read(&run, "metrics.jsonl"), b"my notes\n");
}

/// Whichever sample is another one, of those for training, validation or testing.
#[test]
fn every_other_sample_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    train(&run, &[]);
    let data = table(dir.path(), 0);
    let whole = fs::read_to_string(&data).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for i in 0..lines.len() {
        let (_, rest) = lines[i].split_once(',').unwrap();
        let other = format!("4.5,{rest}");
        let changed = [&lines[..i], &[&*other], &lines[i + 1..]].concat();
        fs::write(&data, changed.join("\n")).unwrap();
        resume(&run, &["--epochs", "6"])
            .code(1)
            .stderr(contains("samples").and(contains("the last checkpoint").not()));
    }
    fs::write(&data, whole).unwrap();
    resume(&run, &["--epochs", "6"]).success();
}

#[test]
fn what_is_no_run_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("file"), "mine").unwrap();
    for (name, found) in [
        ("folder", "has no config.toml"),
        ("file", "is no folder"),
        ("nowhere", "is not there"),
    ] {
        resume(&path(name), &[])
            .code(1)
            .stderr(contains(found).and(contains("begin one by --out")));
    }
    assert!(path("folder").read_dir().unwrap().next().is_none());
    assert!(!path("nowhere").exists());
}

/// A value that nothing would be trained with is not recorded; one that cannot be is wrong usage.
#[test]
fn values_that_come_to_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    train(&run, &[]);
    let before = (read(&run, "config.toml"), read(&run, "last.safetensors"));
    for value in ["learning-rate=0.5", "optimizer.momentum=0.5", "clip=1.0"] {
        resume(&run, &["--set", value])
            .code(1)
            .stderr(contains("give more by --epochs").and(contains("the last checkpoint").not()));
    }
    for wrong in [
        "learning_rate=0.5",
        "optimizer.beta9=1",
        "learning-rate=-1.0",
    ] {
        resume(&run, &["--set", wrong])
            .code(2)
            .stderr(contains("--help"));
    }
    assert!((read(&run, "config.toml"), read(&run, "last.safetensors")) == before);
    resume(&run, &["--epochs", "9", "--set", "learning-rate=0.5"]).success();
}

#[cfg(unix)]
#[test]
fn a_file_that_was_made_read_only_stays() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    train(&run, &[]);
    for name in ["last.safetensors", "best.safetensors", "metrics.csv"] {
        let (path, before) = (run.join(name), read(&run, name));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        resume(&run, &["--epochs", "6"])
            .code(1)
            .stderr(contains(format!("{name} is read-only")));
        assert!(read(&run, name) == before);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    resume(&run, &["--epochs", "6"]).success();
}

/// Data of the same size but other contents are noticed.
#[test]
fn other_contents_of_the_data_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (run, result) = (dir.path().join("run"), dir.path().join("result"));
    train(&run, &[]);
    let data = table(dir.path(), 0);
    let compare = || {
        let mut command = relugrad(&[
            "compare",
            "--data",
            text(&data),
            "--scale",
            "range",
            "--epochs",
            "1",
        ]);
        command.args([
            "--model",
            "mlp:4",
            "--pgd-steps",
            "1",
            "--attack-samples",
            "5",
        ]);
        command.args([
            "--penalties",
            "jacobian",
            "--resume",
            "--out",
            text(&result),
        ]);
        command
    };
    compare().assert().success();
    compare().assert().success();
    let before = read(&result, "results.json");
    table(dir.path(), 1);
    compare()
        .assert()
        .code(1)
        .stderr(contains("data_checksums"));
    assert!(read(&result, "results.json") == before);
    resume(&run, &["--epochs", "6"])
        .code(1)
        .stderr(contains("other samples"));
}
