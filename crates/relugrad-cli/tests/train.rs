//! `relugrad train` as its user runs it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use assert_cmd::Command as Checked;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn relugrad() -> Checked {
    Checked::cargo_bin("relugrad").unwrap()
}

/// A small run with everything that has a state.
const OPTIONS: [&str; 28] = [
    "--epochs",
    "12",
    "--model",
    "mlp:48,48",
    "--batch-size",
    "32",
    "--penalties",
    "jacobian=0.01,jacobian-projected=0.01",
    "--formula",
    "flat: norm1(g) + eps*sum(rownorms1(J)) @ 0.001, eps=0.1",
    "--schedule",
    "one-cycle",
    "--ramp",
    "1.5",
    "--lazy",
    "2",
    "--optimizer",
    "adamw",
    "--adversarial",
    "fgsm",
    "--shift",
    "1",
    "--checkpoint-steps",
    "7",
    "--log-steps",
    "--clip",
    "1.0",
    "--tensorboard",
];

/// The files whose bytes do not depend on time.
const FILES: [&str; 5] = [
    "config.toml",
    "last.safetensors",
    "best.safetensors",
    "metrics.jsonl",
    "metrics.csv",
];

fn start(folder: &Path, resume: bool) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("relugrad"));
    command
        .arg("train")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match resume {
        true => command.arg("--resume").arg(folder),
        false => command.arg("--out").arg(folder).args(OPTIONS),
    };
    command
}

/// Killed at twenty random moments and resumed each time, a training ends with the same bytes as
/// one that was not.
#[test]
fn a_killed_training_ends_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    assert!(start(&whole, false).status().unwrap().success());
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut kills = 0;
    for attempt in 0.. {
        assert!(attempt < 200, "{kills} kills");
        let resume = killed.join("config.toml").exists();
        let mut child = start(&killed, resume).spawn().unwrap();
        let finishing = kills == 20;
        if !finishing {
            std::thread::sleep(Duration::from_millis(random.random_range(1..150)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                kills += 1;
            }
        }
        let status = child.wait().unwrap();
        if status.success() {
            if finishing {
                break;
            }
            // It was done before it could be killed often enough, so it begins again.
            std::fs::remove_dir_all(&killed).unwrap();
        }
    }
    for file in FILES {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(&whole) == read(&killed), "{file}");
    }
    let left = std::fs::read_dir(&killed).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.starts_with('.')));
}

fn short(folder: &Path) -> Checked {
    let mut command = relugrad();
    command.args(["train", "--epochs", "2", "--model", "mlp:8"]);
    command.arg("--out").arg(folder);
    command
}

#[test]
fn options_override_the_file_and_the_whole_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (run, file) = (dir.path().join("run"), dir.path().join("my.toml"));
    let text = "epochs = 7\nseed = 3\n[optimizer]\nname = \"sgd\"\nmomentum = 0.5\n[data]\ntest-fraction = 0.3\n";
    std::fs::write(&file, text).unwrap();
    short(&run)
        .args(["--optimizer", "adam", "--set", "schedule.name=cosine"])
        .arg("--config")
        .arg(&file)
        .assert()
        .success()
        .stdout(contains("best").and(contains("last")));
    let written: toml::Table = std::fs::read_to_string(run.join("config.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(written["epochs"].as_integer(), Some(2));
    assert_eq!(written["seed"].as_integer(), Some(3));
    assert_eq!(written["optimizer"]["name"].as_str(), Some("adam"));
    assert_eq!(written["schedule"]["name"].as_str(), Some("cosine"));
    assert_eq!(written["data"]["test-fraction"].as_float(), Some(0.3));
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2);
    relugrad()
        .arg("inspect")
        .arg(run.join("best.safetensors"))
        .assert()
        .success();
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    short(&run).assert().success();
    let before = std::fs::read(run.join("last.safetensors")).unwrap();
    let refused = short(&run).assert().code(1);
    refused.stderr(contains("already holds a training"));
    assert!(std::fs::read(run.join("last.safetensors")).unwrap() == before);
    short(&run)
        .args(["--overwrite", "--seed", "1"])
        .assert()
        .success();
    assert!(std::fs::read(run.join("last.safetensors")).unwrap() != before);
}

#[test]
fn wrong_options_are_named_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    for (options, message) in [
        (["--set", "lerning-rate=1"], "did you mean `learning-rate`"),
        (
            ["--set", "optimizer.momentun=1"],
            "did you mean `optimizer.momentum`",
        ),
        (["--schedule", "cosin"], "cosin"),
        (["--momentum", "0.5"], "momentum"),
        (["--optimizer", "adma"], "adma"),
        (["--lr", "-1"], "positive"),
        (["--penalties", "jacobain"], "jacobain"),
        (["--set", "epochs"], "KEY=VALUE"),
        (["--validation-fraction", "1"], "validation-fraction"),
    ] {
        short(&run)
            .args(options)
            .assert()
            .code(2)
            .stderr(contains(message));
        assert!(!run.exists(), "{options:?}");
    }
    short(&run).args(["--resume", "x"]).assert().code(2);
    relugrad()
        .arg("train")
        .assert()
        .code(2)
        .stderr(contains("--out"));
}

#[test]
fn damaged_and_missing_checkpoints_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    short(&run).assert().success();
    let last = run.join("last.safetensors");
    let mut bytes = std::fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&last, &bytes).unwrap();
    let resume = || {
        let mut command = relugrad();
        command.arg("train").arg("--resume").arg(&run);
        command
    };
    resume().assert().code(1).stderr(contains("checksum"));
    // Without a checkpoint the training begins anew, as it was configured.
    std::fs::remove_file(&last).unwrap();
    resume().assert().success();
    assert!(last.exists());
    let config = run.join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("mlp:8", "mlp:9")).unwrap();
    resume().assert().code(1).stderr(contains("other layers"));
    std::fs::remove_file(&config).unwrap();
    resume().assert().code(1).stderr(contains("config.toml"));
}

#[test]
fn data_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("t.csv");
    let lines: Vec<String> = (0..40)
        .map(|i| format!("{},{},{}", i % 7, i % 5, i % 2))
        .collect();
    std::fs::write(&table, lines.join("\n")).unwrap();
    let data = table.to_str().unwrap();
    let run = dir.path().join("run");
    short(&run)
        .args(["--data", data])
        .assert()
        .code(1)
        .stderr(contains("scale"));
    short(&run)
        .args(["--data", data, "--scale", "range", "--shift", "1"])
        .assert()
        .code(1)
        .stderr(contains("no images"));
    short(&run)
        .args(["--data", data, "--scale", "range"])
        .assert()
        .success();
}

#[test]
fn a_training_that_diverges_keeps_its_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    short(&run)
        .args([
            "--optimizer",
            "sgd",
            "--lr",
            "100",
            "--penalties",
            "jacobian=1",
        ])
        .args(["--checkpoint-steps", "1"])
        .assert()
        .code(1)
        .stderr(contains("smaller learning rate").and(contains("last.safetensors")));
    relugrad()
        .arg("inspect")
        .arg(run.join("last.safetensors"))
        .assert()
        .success();
}

/// A penalty that leaves nothing but a constant ends in a word on it, and exit code 0 all the same.
#[test]
fn a_training_that_learns_nothing_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, penalty: &str| {
        let mut command = short(&dir.path().join(name));
        command.args(["--lr", "0.01", "--penalties", penalty]);
        command.arg("--json").assert().success()
    };
    let chance = "warning: the test accuracy of the last network, ";
    let useless = run("useless", "jacobian=10000").stderr(contains(chance));
    let json: serde_json::Value = serde_json::from_slice(&useless.get_output().stdout).unwrap();
    assert_eq!(json["doubts"][0]["kind"], "at-chance");
    let useful = run("useful", "jacobian=0.001");
    useful
        .stderr(contains("warning").not())
        .stdout(contains("\"doubts\":[]"));
}

#[test]
fn a_training_whose_loss_explodes_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = short(&dir.path().join("run"));
    command
        .args(["--optimizer", "sgd", "--lr", "100"])
        .assert()
        .success()
        .stderr(contains("warning: the training loss grew from "));
}

/// Ctrl-C saves a checkpoint at the step that was reached, and the training goes on from there to
/// the same bytes.
#[cfg(unix)]
#[test]
fn an_interrupt_saves_a_checkpoint_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, part) = (dir.path().join("whole"), dir.path().join("part"));
    let options = ["--epochs", "40", "--model", "mlp:32", "--log-steps"];
    let train = |folder: &Path| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("relugrad"));
        command.args(["train", "--out"]).arg(folder).args(options);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    assert!(train(&whole).status().unwrap().success());
    let mut child = train(&part).spawn().unwrap();
    while !part.join("last.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--resume"));
    relugrad()
        .args(["train", "--resume"])
        .arg(&part)
        .assert()
        .success();
    for file in FILES {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(&whole) == read(&part), "{file}");
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    let train = |threads: &str| {
        let run = dir.path().join(threads);
        let mut command = short(&run);
        command.args(["--threads", threads, "--adversarial", "pgd", "--shift", "1"]);
        command.args(["--penalties", "cure", "--precision", "f64", "--standardise"]);
        command.assert().success();
        std::fs::read(run.join("last.safetensors")).unwrap()
    };
    let one = train("1");
    assert!(one == train("2") && one == train("5"));
}
