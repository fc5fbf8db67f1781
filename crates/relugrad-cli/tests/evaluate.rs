//! `relugrad evaluate` as its user runs it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args(arguments);
    command
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small trained network, as a checkpoint and as ONNX.
fn models(dir: &Path) -> (PathBuf, PathBuf) {
    let run = dir.join("run");
    relugrad(&[
        "train",
        "--epochs",
        "3",
        "--model",
        "mlp:16",
        "--out",
        path(&run),
    ])
    .assert()
    .success();
    let (native, onnx) = (run.join("best.safetensors"), dir.join("model.onnx"));
    relugrad(&["convert", path(&native), path(&onnx)])
        .assert()
        .success();
    (native, onnx)
}

const QUICK: [&str; 12] = [
    "--samples",
    "40",
    "--certify",
    "5",
    "--linf",
    "0.1",
    "--l2",
    "",
    "--apgd-steps",
    "10",
    "--apgd-restarts",
    "1",
];

#[test]
fn native_and_onnx_models_have_the_same_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let (native, onnx) = models(dir.path());
    let evaluation = |model: &Path| {
        let mut command = relugrad(&["evaluate", path(model), "--json"]);
        let output = command
            .args(QUICK)
            .assert()
            .success()
            .get_output()
            .stdout
            .clone();
        serde_json::from_slice::<serde_json::Value>(&output).unwrap()
    };
    let found = evaluation(&native);
    assert_eq!(found, evaluation(&onnx));
    assert_eq!(found["attacks"].as_array().unwrap().len(), 6);
    assert_eq!(found["attacked_clean"]["samples"], 40);
    let one = relugrad(&["evaluate", path(&native), "--threads", "1", "--json"])
        .args(QUICK)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&one).unwrap(),
        found
    );
}

#[test]
fn the_folder_holds_page_numbers_samples_and_examples() {
    let dir = tempfile::tempdir().unwrap();
    let (native, _) = models(dir.path());
    let out = dir.path().join("out");
    let mut command = relugrad(&["evaluate", path(&native), "--out", path(&out)]);
    let shown = command.args(QUICK).assert().success();
    shown.stdout(
        contains("APGD-DLR")
            .and(contains("certified"))
            .and(contains("DeepFool")),
    );
    let csv = std::fs::read_to_string(out.join("samples.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 41);
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|line| line.split(',').count() == columns));
    assert!(lines[0].starts_with("index,label,prediction,margin"));
    let page = std::fs::read_to_string(out.join("evaluation.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("APGD-CE"));
    let archive = std::fs::File::open(out.join("adversarial.npz")).unwrap();
    let mut archive = ndarray_npy::NpzReader::new(archive).unwrap();
    let examples: ndarray::Array2<f32> = archive.by_name("linf_0.1").unwrap();
    assert_eq!(examples.dim(), (40, 64));
    // The examples are a data set themselves.
    relugrad(&[
        "evaluate",
        path(&native),
        "--data",
        path(&out.join("adversarial.npz")),
        "--all",
    ])
    .args(QUICK)
    .assert()
    .success();
    let again = relugrad(&["evaluate", path(&native), "--out", path(&out)])
        .args(QUICK)
        .assert();
    again.code(1).stderr(contains("already holds"));
}

#[test]
fn bad_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (native, _) = models(dir.path());
    let table = dir.path().join("narrow.csv");
    let lines: Vec<String> = (0..20).map(|i| format!("0.5,{}", i % 2)).collect();
    std::fs::write(&table, lines.join("\n")).unwrap();
    let model = path(&native);
    for (arguments, code, message) in [
        (
            vec![model, "--data", path(&table)],
            1,
            "64 inputs but the samples of narrow have 1 features",
        ),
        (vec![model, "--data", "nowhere"], 1, "there is no `nowhere`"),
        (vec!["nowhere.onnx"], 1, "nowhere.onnx"),
        (vec![model, "--linf", "x"], 2, "at least 0"),
        (vec![model, "--samples", "0"], 2, "at least 1"),
        (vec![model, "--penalties", "jacobain"], 2, "jacobain"),
    ] {
        let mut command = relugrad(&["evaluate"]);
        command
            .args(arguments)
            .assert()
            .code(code)
            .stderr(contains(message));
    }
}
