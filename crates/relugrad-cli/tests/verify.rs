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
        text.contains("31 of 34 statements hold, 3 not checked"),
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
