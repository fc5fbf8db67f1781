//! `relugrad verify` run as its user does.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;
use relugrad::Mlp;
use relugrad_io::{Metadata, save, save_over};
use serde_json::Value;
use tempfile::TempDir;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args(arguments);
    command
}

/// A model with these widths in a new directory.
fn model(widths: &[usize]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let network = Mlp::new(widths).build::<f32>(0).unwrap();
    save(&path, &network, &Metadata::new()).unwrap();
    (directory, path)
}

fn verify(model: &Path, more: &[&str]) -> Command {
    let mut command = relugrad(&["verify", model.to_str().unwrap(), "--data", "digits"]);
    command.args(more);
    command
}

#[test]
fn a_trained_model_holds_in_both_precisions() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("result");
    relugrad(&["compare", "--epochs", "2", "--hidden", "8,8"])
        .args(["--penalties", "jacobian", "--pgd-steps", "1"])
        .args(["--attack-samples", "10", "--out", out.to_str().unwrap()])
        .assert()
        .success();
    let model = out.join("models/jacobian-seed0.safetensors");
    let output = verify(&model, &["--samples", "30"]).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(text.contains("f64, 30 samples") && text.contains("f32, 30 samples"));
    assert!(text.contains("cross-Lipschitz = 2K ‖C J‖² ≤ 2K ‖J‖²"));
    assert!(text.contains("not checked: needs a network without biases"));
    assert!(
        text.contains("33 of 36 statements hold, 3 not checked"),
        "{text}"
    );
    assert!(!text.contains("FAILS"));
}

#[test]
fn json_names_every_statement_with_its_cases_and_residuals() {
    let (_directory, model) = model(&[64, 16, 10]);
    let arguments = ["--samples", "20", "--precision", "f64", "--json"];
    let output = verify(&model, &arguments).assert().success();
    let json: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(json["holds"], true);
    let report = &json["reports"][0];
    assert_eq!(
        (&report["precision"], &report["samples"]),
        (&"f64".into(), &20.into())
    );
    let outcomes = report["outcomes"].as_array().unwrap();
    let adjoint = outcomes.iter().find(|o| o["theorem"] == "T4").unwrap();
    assert_eq!(
        (&adjoint["cases"], &adjoint["verdict"]),
        (&20.into(), &"holds".into())
    );
    let (worst, median) = (adjoint["worst"].as_f64(), adjoint["median"].as_f64());
    assert!(median <= worst && worst <= adjoint["tolerance"].as_f64());
    assert_eq!(json["reports"].as_array().unwrap().len(), 1);
}

/// Saves a model of 16 hidden units whose parameters were changed.
fn changed(change: impl Fn(&mut [f32])) -> (TempDir, PathBuf) {
    let (directory, path) = model(&[64, 16, 10]);
    let mut network = Mlp::new(&[64, 16, 10]).build::<f32>(0).unwrap();
    change(network.parameters_mut().values_mut());
    save_over(&path, &network, &Metadata::new()).unwrap();
    (directory, path)
}

#[test]
fn samples_on_a_kink_are_warned_of() {
    // The first unit sees the first pixel only, which is blank in all digits.
    let (_directory, model) = changed(|values| {
        values[..64].fill(0.0);
        values[0] = 1.0;
    });
    verify(&model, &["--samples", "5", "--precision", "f64"])
        .assert()
        .success()
        .stdout(predicate::str::contains("5 of 5 samples are on a kink"));
}

#[test]
fn tiny_weights_raise_no_false_alarm() {
    let (_directory, model) = changed(|values| values.iter_mut().for_each(|v| *v *= 1e-30));
    verify(&model, &["--samples", "5", "--precision", "f64"])
        .assert()
        .success();
}

#[test]
fn what_does_not_fit_is_one_clear_line() {
    let (directory, wide) = model(&[65, 8, 10]);
    verify(&wide, &[])
        .assert()
        .code(1)
        .stderr(predicate::str::contains(
            "the model has 65 inputs but the samples of digits have 64 features",
        ));
    let (_other, few) = model(&[64, 8, 3]);
    verify(&few, &[])
        .assert()
        .code(1)
        .stderr(predicate::str::contains(
            "the model has 3 logits but digits has 10 classes",
        ));
    let missing = directory.path().join("missing.safetensors");
    verify(&missing, &[])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("cannot read").and(predicate::str::contains("missing")));
    let foreign = directory.path().join("foreign.safetensors");
    fs::write(&foreign, b"not a model").unwrap();
    verify(&foreign, &[])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("foreign.safetensors"));
}

#[test]
fn wrong_options_exit_with_2() {
    let (_directory, model) = model(&[64, 8, 10]);
    for wrong in [
        ["--samples", "0"],
        ["--precision", "f16"],
        ["--cure-step", "-1"],
        ["--cure-step", "nan"],
        ["--seed", "x"],
    ] {
        verify(&model, &wrong).assert().code(2);
    }
}

/// Max-pooling over equal pixels ties everywhere; samples are checked beside their ties, and it is
/// said.
#[test]
fn samples_on_ties_of_maxima_are_checked_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let layers = dir.path().join("pool.toml");
    let text = "[[layers]]\nkind = \"conv\"\noutputs = 2\nkernel = 3\npadding = 1\n[[layers]]\nkind = \"relu\"\n\
                [[layers]]\nkind = \"max-pool\"\nkernel = 2\n";
    std::fs::write(&layers, text).unwrap();
    // Images that are bright in a corner and the same everywhere else.
    let pixel = |i: usize, p: usize| match p < 3 {
        true => 0.5 + 0.01 * ((i * 7 + p) % 40) as f64,
        false => 0.25,
    };
    let lines = (0..40).map(|i| {
        let cells: Vec<String> = (0..36).map(|p| pixel(i, p).to_string()).collect();
        format!("{},{}\n", cells.join(","), i % 2)
    });
    let data = dir.path().join("flat.csv");
    std::fs::write(&data, lines.collect::<String>()).unwrap();
    let (data, run) = (data.to_str().unwrap(), dir.path().join("run"));
    let given = ["--data", data, "--shape", "1,6,6"];
    let mut train = Command::cargo_bin("relugrad").unwrap();
    train.args([
        "train",
        "--epochs",
        "1",
        "--model",
        layers.to_str().unwrap(),
        "--out",
        run.to_str().unwrap(),
    ]);
    train.args(given).assert().success();
    let model = run.join("last.safetensors");
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args([
        "verify",
        model.to_str().unwrap(),
        "--dtype",
        "f64",
        "--samples",
        "4",
        "--json",
    ]);
    let found = command.args(given).assert().success();
    let found: serde_json::Value = serde_json::from_slice(&found.get_output().stdout).unwrap();
    let report = &found["reports"][0];
    assert_eq!(
        (&report["moved"], &report["on_kink"]),
        (&4.into(), &0.into()),
        "{report}"
    );
    for outcome in report["outcomes"].as_array().unwrap() {
        if ["T1", "T2", "T61"].contains(&outcome["theorem"].as_str().unwrap()) {
            assert_eq!(
                (&outcome["cases"], &outcome["verdict"]),
                (&4.into(), &"holds".into()),
                "{outcome}"
            );
        }
    }
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args([
        "verify",
        model.to_str().unwrap(),
        "--dtype",
        "f64",
        "--samples",
        "4",
    ]);
    let words = predicates::str::contains("4 of 4 samples had ties of maxima");
    command.args(given).assert().success().stdout(words);
}
