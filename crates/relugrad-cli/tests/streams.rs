//! Closed and full standard output and standard error, for every command.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use ndarray::Array2;
use relugrad::Mlp;
use relugrad_io::{Metadata, save};
use tempfile::TempDir;

/// A command line, and the files that it writes.
struct Case {
    arguments: Vec<String>,
    files: Vec<PathBuf>,
}

/// Every command with options that make it quick, in a new directory that holds a model.
fn cases() -> (TempDir, Vec<Case>) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let network = Mlp::new(&[64, 6, 10]).build::<f32>(0).unwrap();
    save(at("model.safetensors"), &network, &Metadata::new()).unwrap();
    ndarray_npy::write_npy(at("x.npy"), &Array2::<f64>::zeros((2, 64))).unwrap();
    let case = |line: &str, files: &[&str]| Case {
        arguments: line
            .split(' ')
            .map(|word| match word.strip_prefix('@') {
                Some(name) => at(name).to_str().unwrap().to_owned(),
                None => word.to_owned(),
            })
            .collect(),
        files: files.iter().map(|name| at(name)).collect(),
    };
    let cases = vec![
        case("bench --net 8-4-2 --batch 2 --repeat 1", &[]),
        case(
            "compare --epochs 1 --hidden 4 --pgd-steps 1 --attack-samples 5 --penalties jacobian --out @result",
            &[
                "result/results.json",
                "result/report.html",
                "result/models/jacobian-seed0.safetensors",
            ],
        ),
        case("convert @model.safetensors @model.onnx", &["model.onnx"]),
        case(
            "derive @model.safetensors --input @x.npy --out @derived.npz",
            &["derived.npz"],
        ),
        case(
            "evaluate @model.safetensors --samples 3 --linf 0.1 --l2 0.5 --pgd-steps 1 --apgd-steps 1 --out @evaluation",
            &["evaluation/evaluation.json", "evaluation/samples.csv"],
        ),
        case("inspect @model.safetensors", &[]),
        case(
            "regions @model.safetensors --samples 5 --measure 2 --pairs 2",
            &[],
        ),
        case(
            "regions @model.safetensors --slice 0,1,2 --svg @slice.svg",
            &["slice.svg"],
        ),
        case(
            "regions @model.safetensors --segment 0,1 --svg @segment.svg",
            &["segment.svg"],
        ),
        case(
            "train --epochs 1 --model mlp:4 --out @run",
            &["run/last.safetensors", "run/metrics.csv"],
        ),
        case("verify @model.safetensors --samples 2", &[]),
    ];
    (directory, cases)
}

fn relugrad(arguments: &[String]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("relugrad"));
    command.args(arguments);
    command
}

/// A command whose streams the shell redirects.
fn redirected(arguments: &[String], how: &str) -> Command {
    let mut command = Command::new("sh");
    let program = assert_cmd::cargo::cargo_bin("relugrad");
    let script = format!("exec \"$@\" {how}");
    command.args(["-c", &script, "sh"]).arg(program);
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn exist(case: &Case) {
    for file in &case.files {
        assert!(file.exists(), "{:?}: {}", case.arguments, file.display());
    }
}

/// Runs every command with redirected streams; the code that it must end with, and what else must
/// hold.
fn all(how: &str, code: i32, check: impl Fn(&Output)) {
    let (_directory, cases) = cases();
    for case in cases {
        let output = redirected(&case.arguments, how).output().unwrap();
        let stderr = text(&output.stderr);
        let said = format!("{:?} {how}: {stderr}", case.arguments);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(!stderr.contains("panicked"), "{said}");
        exist(&case);
        check(&output);
    }
}

#[test]
fn a_full_output_is_a_failure_that_loses_no_file() {
    all("> /dev/full", 1, |output| {
        let stderr = text(&output.stderr);
        let last = stderr.lines().last().unwrap();
        assert!(last.starts_with("error: cannot write to the standard output: "));
    });
}

#[test]
fn with_both_full_the_exit_code_tells() {
    all("> /dev/full 2> /dev/full", 1, |_| {});
}

#[test]
fn closed_streams_are_not_missed() {
    all(">&- 2>&-", 0, |_| {});
}

#[test]
fn a_full_standard_error_is_not_missed() {
    all("2> /dev/full", 0, |output| {
        // `convert` alone has nothing to say but the name of its file.
        assert!(!output.stdout.is_empty());
    });
}

/// Runs a command whose standard output nobody reads.
fn unread(arguments: &[String]) -> (Option<i32>, String) {
    let mut child = relugrad(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().unwrap();
    pipe.read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stderr)
}

#[test]
fn a_reader_that_leaves_is_not_an_error() {
    let (_directory, cases) = cases();
    for case in cases {
        let (code, stderr) = unread(&case.arguments);
        assert_eq!(code, Some(0), "{:?}: {stderr}", case.arguments);
        assert!(!stderr.contains("panicked") && !stderr.contains("error"));
        exist(&case);
    }
}

#[test]
fn a_listener_that_leaves_is_not_an_error() {
    let (_directory, cases) = cases();
    for case in cases {
        let mut child = relugrad(&case.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stderr.take());
        assert!(child.wait().unwrap().success(), "{:?}", case.arguments);
        exist(&case);
    }
}

#[test]
fn failures_keep_their_exit_codes_without_a_listener() {
    let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let cases = [
        ("inspect nowhere.onnx", 1),
        ("compare --epochs 0", 2),
        ("nonsense", 2),
        ("train --epochs 1 --lr 1 --set nonsense=1 --out nowhere", 2),
    ];
    for (line, code) in cases {
        for how in ["2> /dev/full", "2>&-", "> /dev/full 2> /dev/full"] {
            let status = redirected(&words(line), how).status().unwrap();
            assert_eq!(status.code(), Some(code), "{line} {how}");
        }
    }
}

#[test]
fn help_and_version_are_output_too() {
    for line in ["--help", "--version", "compare --help"] {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let full = redirected(&arguments, "> /dev/full").output().unwrap();
        assert_eq!(full.status.code(), Some(1), "{line}");
        assert!(text(&full.stderr).starts_with("error: cannot write"));
        assert_eq!(unread(&arguments), (Some(0), String::new()), "{line}");
        let closed = redirected(&arguments, ">&-").status().unwrap();
        assert_eq!(closed.code(), Some(0), "{line}");
    }
}
