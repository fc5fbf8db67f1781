//! Signals to running commands: one, two at once, and those of `timeout`.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use relugrad::Mlp;
use relugrad_io::{Metadata, save};
use serde_json::Value;
use tempfile::TempDir;

/// A command that takes minutes, and what it prints when it has finished some of it.
struct Case {
    line: &'static str,
    shows: &'static str,
}

const LONG: [Case; 6] = [
    Case {
        line: "evaluate @model.safetensors --pgd-steps 1000 --pgd-restarts 500 --apgd-steps 2000 --apgd-restarts 500",
        shows: "warning: interrupted: ",
    },
    Case {
        line: "evaluate @model.safetensors --pgd-steps 1000 --pgd-restarts 500 --apgd-steps 2000 --apgd-restarts 500 --json",
        shows: "\"complete\":false",
    },
    Case {
        line: "regions @model.safetensors --measure 400 --pairs 100000",
        shows: "warning: interrupted",
    },
    Case {
        line: "regions @wider.safetensors --slice 0,1,2 --margin 3 --limit 100000000",
        shows: "; interrupted, ",
    },
    Case {
        line: "verify @wide.safetensors",
        shows: "warning: interrupted",
    },
    Case {
        line: "compare --seeds 1000 --epochs 1 --hidden 4 --pgd-steps 1 --attack-samples 5 --penalties jacobian",
        shows: "regularizer",
    },
];

fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, widths) in [
        ("model", [64, 60, 60, 60, 10]),
        ("wide", [64, 150, 150, 150, 10]),
        ("wider", [64, 800, 800, 800, 10]),
    ] {
        let path = directory.path().join(format!("{name}.safetensors"));
        let network = Mlp::new(&widths).build::<f32>(0).unwrap();
        save(path, &network, &Metadata::new()).unwrap();
    }
    directory
}

fn words(line: &str, directory: &Path) -> Vec<PathBuf> {
    let word = |word: &str| match word.strip_prefix('@') {
        Some(name) => directory.join(name),
        None => word.into(),
    };
    line.split(' ').map(word).collect()
}

fn start(line: &str, directory: &Path) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("relugrad"))
        .args(words(line, directory))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends a signal as often as it is named.
fn signal(child: &Child, signals: &[&str]) {
    for name in signals {
        let pid = child.id().to_string();
        let sent = Command::new("kill").args([name, &*pid]).status();
        assert!(sent.unwrap().success());
    }
}

/// What a child prints, and how long it took to end; it is killed if it does not.
fn ended(mut child: Child) -> (Output, Duration) {
    let asked = Instant::now();
    while child.try_wait().unwrap().is_none() && asked.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(10));
    }
    let took = asked.elapsed();
    drop(child.kill());
    (child.wait_with_output().unwrap(), took)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Interrupts a command, each time later, until it has finished some of its work.
fn interrupted(line: &str, directory: &Path, signals: &[&str]) -> Output {
    let mut delay = Duration::from_millis(400);
    loop {
        let child = start(line, directory);
        sleep(delay);
        signal(&child, signals);
        let (output, took) = ended(child);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{line}: {stderr}");
        assert!(took < Duration::from_secs(30), "{line}: {took:?}");
        assert!(
            stderr.lines().last().unwrap().starts_with("interrupted: "),
            "{line}: {stderr}"
        );
        let nothing = ["nothing was finished", "0 of the planned"];
        if !nothing.iter().any(|nothing| stderr.contains(nothing)) {
            return output;
        }
        assert!(delay < Duration::from_secs(60), "{line} finishes nothing");
        delay *= 2;
    }
}

#[test]
fn one_signal_keeps_and_shows_what_is_finished() {
    let directory = directory();
    for Case { line, shows } in LONG {
        let output = interrupted(line, directory.path(), &["-INT"]);
        assert!(text(&output.stdout).contains(shows), "{line}: {output:?}");
    }
}

/// `timeout` signals a process and then its group.
#[test]
fn two_signals_at_once_are_one_wish() {
    let directory = directory();
    for pair in [["-INT", "-INT"], ["-TERM", "-HUP"]] {
        let Case { line, shows } = &LONG[3];
        let output = interrupted(line, directory.path(), &pair);
        assert!(text(&output.stdout).contains(shows), "{pair:?}: {output:?}");
    }
}

#[test]
fn timeout_of_coreutils_gets_what_is_finished() {
    let directory = directory();
    let Case { line, shows } = &LONG[2];
    let mut seconds = 1;
    loop {
        let output = Command::new("timeout")
            .args(["--preserve-status", "-s", "INT", &seconds.to_string()])
            .arg(assert_cmd::cargo::cargo_bin("relugrad"))
            .args(words(line, directory.path()))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(130));
        if text(&output.stdout).contains(shows) {
            return;
        }
        assert!(seconds < 60, "{output:?}");
        seconds *= 2;
    }
}

/// Half a second after the first signal another one is the order to quit, even in the midst of a
/// step.
#[test]
fn a_later_signal_quits_at_once() {
    let directory = directory();
    // A step of all samples with a penalty that takes long.
    let line = "train --batch-size 100000 --epochs 1000 --model mlp:300,300,300 --penalties maximum-margin-linf=1 --out @run";
    let child = start(line, directory.path());
    sleep(Duration::from_millis(1500));
    signal(&child, &["-INT"]);
    sleep(Duration::from_millis(500));
    signal(&child, &["-INT"]);
    let (output, took) = ended(child);
    assert_eq!(output.status.code(), Some(130));
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// What has nothing to keep ends at once and says so, whatever it is doing.
#[test]
fn commands_with_nothing_to_keep_say_so() {
    let directory = directory();
    let bytes = 64 * 4000;
    let x = ndarray::Array2::<f64>::zeros((bytes / 64, 64));
    ndarray_npy::write_npy(directory.path().join("x.npy"), &x).unwrap();
    for line in [
        "derive @wide.safetensors --input @x.npy --skip jacobian --parameter-gradients jacobian,curvature-spectral --out @d.npz",
        "bench --net 784-500-500-10 --workload finite-difference-jacobian --repeat 100000",
    ] {
        let child = start(line, directory.path());
        sleep(Duration::from_millis(300));
        signal(&child, &["-TERM", "-TERM"]);
        let (output, took) = ended(child);
        assert_eq!(output.status.code(), Some(130), "{line}");
        assert_eq!(
            text(&output.stderr).trim(),
            "interrupted: nothing was finished",
            "{line}"
        );
        assert!(took < Duration::from_secs(10), "{line}: {took:?}");
    }
    assert!(!directory.path().join("d.npz").exists());
}

#[test]
fn the_files_of_an_interrupted_evaluation_say_so() {
    let directory = directory();
    let line = format!("{} --out @evaluation --overwrite", LONG[0].line);
    interrupted(&line, directory.path(), &["-INT"]);
    let read = |name: &str| {
        let path = directory.path().join("evaluation").join(name);
        std::fs::read_to_string(path).unwrap()
    };
    let json: Value = serde_json::from_str(&read("evaluation.json")).unwrap();
    assert_eq!(json["complete"], false);
    assert!(read("evaluation.html").contains("<p class=\"warning\">interrupted: "));
    // A column for each attack that is finished, and no other.
    let samples = read("samples.csv");
    let header = samples.lines().next().unwrap();
    let attacks = json["attacks"].as_array().unwrap();
    let columns = ["noise_", "fgsm_", "pgd_", "apgd_"];
    let columns = header
        .split(',')
        .filter(|name| columns.iter().any(|c| name.starts_with(c)));
    assert_eq!(columns.count(), attacks.len());
}

#[test]
fn the_picture_of_an_interrupted_slice_says_so() {
    let directory = directory();
    let line = format!(
        "{} --svg @slice.svg --polygons @slice.json --overwrite",
        LONG[3].line
    );
    let output = interrupted(&line, directory.path(), &["-INT"]);
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(read("slice.svg").contains("interrupted"));
    let json: Value = serde_json::from_str(&read("slice.json")).unwrap();
    assert_eq!(json["complete"], false);
    let regions = json["cells"].as_array().unwrap().len();
    assert!(text(&output.stdout).starts_with(&format!("{regions} regions ")));
}

/// As under `nohup`: what was ignored when the program began stays ignored, and only that.
#[test]
fn a_hangup_that_is_ignored_stays_so() {
    let directory = directory();
    let begin = |script: &str| {
        let program = assert_cmd::cargo::cargo_bin("relugrad");
        let mut command = Command::new("sh");
        command
            .args(["-c", script, program.to_str().unwrap()])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    for (script, signals, code) in [
        (
            "trap '' HUP; exec $0 train --out a --epochs 60",
            &["-HUP"][..],
            0,
        ),
        (
            // The tests themselves may have been started by nohup.
            "exec env --default-signal=HUP $0 train --out b --epochs 6000",
            &["-HUP"],
            130,
        ),
        (
            "trap '' HUP; exec $0 train --out c --epochs 6000",
            &["-TERM"],
            130,
        ),
    ] {
        let child = begin(script);
        let folder = script.split(' ').skip_while(|word| *word != "--out").nth(1);
        let last = directory
            .path()
            .join(folder.unwrap())
            .join("last.safetensors");
        let begun = Instant::now();
        while !last.exists() && begun.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(2));
        }
        signal(&child, signals);
        let (output, _) = ended(child);
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
    }
}
