//! What processes leave that were killed.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::commands::*;

/// Comparisons and trainings that are killed at random moments and gone on with end like those that
/// were not; of the dead processes nothing is left, and what somebody else has put there is.
#[test]
fn kills_leave_no_traces_and_take_nothing_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut compare = compare(&data);
    compare.extend(["--seeds", "12"].map(str::to_owned));
    let mut train = train(&data);
    train.extend(["--epochs=60", "--tensorboard", "--log-steps"].map(str::to_owned));
    train.retain(|option| option != "--epochs" && option != "2");
    for command in [compare, train] {
        let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
        done(&with(&command, &["--out", text(&whole)]));
        let names = [
            ".relugrad-foreign",
            "models/.relugrad-foreign",
            "notes.txt",
            ".relugrad-1-foreign",
        ];
        let mut kills = 0;
        loop {
            assert!(kills < 400);
            let resume = killed.join("config.toml").exists();
            let mut arguments = with(&command, &["--out", text(&killed), "--resume"]);
            if command[0] == "train" {
                arguments.pop();
                if resume {
                    arguments = vec!["train", "--resume", text(&killed)];
                }
            }
            let mut child = relugrad(&arguments);
            let mut child = child
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            if kills < 15 {
                std::thread::sleep(Duration::from_millis(random.random_range(5..60)));
                child.kill().unwrap();
                kills += 1;
            }
            let output = child.wait_with_output().unwrap();
            if killed.is_dir() {
                fs::create_dir_all(killed.join("models")).unwrap();
                for name in names {
                    fs::write(killed.join(name), name).unwrap();
                }
            }
            if output.status.success() && kills >= 15 {
                break;
            }
            assert_ne!(output.status.code(), Some(1), "{}", error(&output));
        }
        assert_eq!(traces(&killed), [""; 0]);
        let (expected, mut found) = (contents(&whole), contents(&killed));
        for name in names {
            assert!(
                found.remove(name).as_deref() == Some(name.as_bytes()),
                "{name}"
            );
        }
        // What depends on the clock: times of steps, events, and what the manifest says of them.
        let timed = |name: &&String| {
            let own = ["results.json", "report.html", "relugrad-manifest.json"];
            !own.contains(&name.as_str()) && !name.starts_with("events.")
        };
        let names = |all: &BTreeMap<String, Vec<u8>>| {
            all.keys().filter(timed).cloned().collect::<Vec<String>>()
        };
        assert_eq!(names(&expected), names(&found));
        for name in names(&expected) {
            assert!(expected[&name] == found[&name], "{name}");
        }
        fs::remove_dir_all(&whole).unwrap();
        fs::remove_dir_all(&killed).unwrap();
    }
}

/// What a run that was killed before its first checkpoint has left is replaced on request.
#[test]
fn a_run_without_checkpoint_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let run = dir.path().join("run");
    let options = [
        "train",
        "--model",
        "mlp:64,64",
        "--batch-size",
        "1",
        "--log-steps",
        "--tensorboard",
        "--out",
        text(&run),
    ];
    let mut child = relugrad(&options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = run.join("metrics.jsonl");
    while fs::metadata(&lines).map_or(0, |found| found.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mine = fs::read(&lines).unwrap();
    fs::write(&lines, "mine").unwrap();
    let again = with(&train(&data), &["--out", text(&run)]).join("\n");
    let again: Vec<&str> = again.lines().chain(["--overwrite"]).collect();
    assert!(refused(&again).contains("metrics.jsonl was changed"));
    fs::write(&lines, mine).unwrap();
    done(&again);
    assert_eq!(traces(&run), [""; 0]);
    assert!(
        !contents(&run)
            .keys()
            .any(|name| name.starts_with("events."))
    );
}
