//! Penalties written as formulas, in every command that takes penalties.

use std::fs;
use std::path::Path;

use approx::assert_relative_eq;
use assert_cmd::Command;
use ndarray::{Array0, Array2, ArrayD, Ix0};
use ndarray_npy::{NpzReader, write_npy};
use predicates::prelude::*;
use predicates::str::contains;
use relugrad::Mlp;
use relugrad_io::{Metadata, save};
use serde_json::Value;

/// A formula that takes the rows of the Jacobian.
const ROWS: &str =
    "margin: lse(f - one*dot(y, f) + eps*rownorms1(J - one*(y^T*J))) @ 0.01:0.1, eps=0.1";

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> String {
    let output = relugrad(arguments).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A model for the digits in a folder.
fn model(folder: &Path) -> String {
    let path = folder.join("model.safetensors");
    let network = Mlp::new(&[64, 12, 10]).build::<f32>(0).unwrap();
    save(&path, &network, &Metadata::new()).unwrap();
    text(&path).to_owned()
}

/// Written on the command line, kept in the configuration, and trained again from that.
#[test]
fn a_training_keeps_its_formulas() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    relugrad(&[
        "train",
        "--epochs",
        "1",
        "--model",
        "mlp:8",
        "--out",
        text(&first),
    ])
    .args(["--penalties", "jacobian=0.01"])
    .args(["--formula", "flat:norm2( g )+b*tr(S*G) @ 0.5, b=2"])
    .assert()
    .success();
    let config = fs::read_to_string(first.join("config.toml")).unwrap();
    for part in [
        "name = \"flat\"",
        "lambda = 0.5",
        "formula = \"norm2(g) + b*tr(S*G)\"",
        "b = 2.0",
        "name = \"jacobian\"",
    ] {
        assert!(config.contains(part), "{part}: {config}");
    }
    let file = first.join("config.toml");
    relugrad(&["train", "--config", text(&file), "--out", text(&second)])
        .assert()
        .success();
    for name in ["last.safetensors", "metrics.jsonl", "config.toml"] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert!(read(&first) == read(&second), "{name}");
    }
    relugrad(&["train", "--resume", text(&first), "--epochs", "2"])
        .args(["--formula", "flat: norm2(g)"])
        .assert()
        .failure()
        .stderr(contains("penalties"));
    relugrad(&["train", "--resume", text(&first), "--epochs", "2"])
        .assert()
        .success();
}

#[test]
fn a_configuration_has_formulas_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.toml");
    let train = |penalty: &str| {
        fs::write(
            &file,
            format!("epochs = 1\nmodel = \"mlp:8\"\n[[penalties]]\n{penalty}\n"),
        )
        .unwrap();
        let out = dir.path().join("run");
        relugrad(&[
            "train",
            "--overwrite",
            "--config",
            text(&file),
            "--out",
            text(&out),
        ])
        .assert()
    };
    train("name = \"own\"\nweight = 0.1\nformula = \"a*tr(G)\"\nconstants = { a = 0.5 }").success();
    for (penalty, words) in [
        (
            "name = \"own\"\nweight = 0.1\nformula = \"a*tr(G)\"",
            "no name `a`",
        ),
        ("name = \"own\"\nweight = 0.1\nformula = \"tr(J)\"", "^^^^^"),
        (
            "name = \"own\"\nweight = 0.1\nformula = \"tr(G)\"\nstep = 1.0",
            "constants",
        ),
        (
            "name = \"jacobian\"\nweight = 0.1\nconstants = { a = 0.5 }",
            "no formula",
        ),
        (
            "name = \"jacobian\"\nweight = 0.1\nformula = \"tr(G)\"",
            "built-in",
        ),
        (
            "name = \"own\"\nweight = 0.1\nformulae = \"tr(G)\"",
            "formula",
        ),
        (
            "name = \"own\"\nlambda = 0.1\nweight = 0.1\nformula = \"tr(G)\"",
            "lambda",
        ),
    ] {
        train(penalty).failure().stderr(contains(words));
    }
}

/// Two weights of a formula beside a built-in penalty: interrupted and resumed, and in shards.
#[test]
fn a_comparison_takes_formulas() {
    let dir = tempfile::tempdir().unwrap();
    let quick = |more: &[&str]| {
        let mut command = relugrad(&[
            "compare",
            "--epochs",
            "1",
            "--hidden",
            "6",
            "--formula",
            ROWS,
        ]);
        command.args([
            "--penalties",
            "jacobian",
            "--pgd-steps",
            "1",
            "--attack-samples",
            "10",
        ]);
        command.args(more).assert().success();
    };
    let results = |folder: &Path| -> Value {
        let text = fs::read_to_string(folder.join("results.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let [whole, parts, merged] = ["whole", "parts", "merged"].map(|name| dir.path().join(name));
    quick(&["--out", text(&whole)]);
    quick(&["--out", text(&whole), "--resume"]);
    for shard in ["1/2", "2/2"] {
        quick(&["--out", text(&parts), "--resume", "--shard", shard]);
    }
    relugrad(&["compare", "--merge", text(&parts), "--out", text(&merged)])
        .assert()
        .success();
    let (one, other) = (results(&whole), results(&merged));
    let penalty = &one["settings"]["penalties"][1];
    assert_eq!(penalty["name"], "margin");
    assert_eq!(penalty["lambda"], 0.01);
    assert_eq!(penalty["constants"]["eps"], 0.1);
    assert!(
        penalty["formula"]
            .as_str()
            .unwrap()
            .starts_with("lse(f - one*dot(y, f)")
    );
    let evaluations = |results: &Value| -> Vec<Value> {
        let runs = results["runs"].as_array().unwrap().iter();
        runs.map(|run| run["evaluation"].clone()).collect()
    };
    assert_eq!(evaluations(&one).len(), 4);
    assert_eq!(evaluations(&one), evaluations(&other));
    let report = fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(report.contains("rownorms1(J - one*(y^T*J))"));
    relugrad(&[
        "compare",
        "--epochs",
        "1",
        "--hidden",
        "6",
        "--resume",
        "--out",
        text(&whole),
    ])
    .args([
        "--penalties",
        "jacobian",
        "--pgd-steps",
        "1",
        "--attack-samples",
        "10",
    ])
    .args(["--formula", &ROWS.replace("eps=0.1", "eps=0.2")])
    .assert()
    .failure()
    .stderr(contains("of other settings (penalties)"));
}

#[test]
fn evaluations_and_gradients_take_formulas() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let evaluated = output(&[
        "evaluate",
        &model,
        "--data",
        "digits",
        "--samples",
        "5",
        "--certify",
        "0",
        "--linf",
        "0.1",
        "--l2",
        "",
        "--pgd-steps",
        "1",
        "--apgd-steps",
        "1",
        "--penalties",
        "jacobian",
        "--formula",
        "own: tr(J*J^T)",
        "--json",
    ]);
    let evaluated: Value = serde_json::from_str(&evaluated).unwrap();
    let penalties = &evaluated["penalties"];
    assert_eq!(penalties[1][0], "own");
    let mean = |i: usize| penalties[i][1].as_f64().unwrap();
    assert_relative_eq!(mean(0), mean(1), max_relative = 1e-6);

    let (x, out) = (dir.path().join("x.npy"), dir.path().join("o.npz"));
    write_npy(
        &x,
        &Array2::from_shape_fn((3, 64), |(i, j)| ((i + j) % 7) as f32 / 7.0),
    )
    .unwrap();
    output(&[
        "derive",
        &model,
        "--input",
        text(&x),
        "--out",
        text(&out),
        "--parameter-gradients",
        "jacobian",
        "--formula",
        "own: norm2(J)^2",
    ]);
    let mut npz = NpzReader::new(fs::File::open(&out).unwrap()).unwrap();
    let names = npz.names().unwrap();
    let value = |npz: &mut NpzReader<fs::File>, name: &str| -> f64 {
        let array: Array0<f64> = npz.by_name::<ndarray::OwnedRepr<f64>, Ix0>(name).unwrap();
        array.into_scalar()
    };
    let (one, other) = (
        value(&mut npz, "value/jacobian"),
        value(&mut npz, "value/own"),
    );
    assert_relative_eq!(one, other, max_relative = 1e-12);
    for name in names
        .iter()
        .filter(|name| name.starts_with("grad/jacobian/"))
    {
        let one: ArrayD<f64> = npz.by_name(name).unwrap();
        let other: ArrayD<f64> = npz.by_name(&name.replace("jacobian", "own")).unwrap();
        for (one, other) in one.iter().zip(&other) {
            assert_relative_eq!(one, other, max_relative = 1e-9, epsilon = 1e-12);
        }
    }
}

#[test]
fn verify_finds_out_what_holds_of_a_formula() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let verify = |formula: &str| {
        output(&[
            "verify",
            &model,
            "--data",
            "digits",
            "--samples",
            "6",
            "--formula",
            formula,
        ])
    };
    let found = verify("own: 2*K*tr(C*G)");
    for line in [
        "own(2*K*tr(C*G))",
        "holds       the parameter gradient agrees with differences",
        "holds       a common function added to all logits changes nothing",
        "sees        the Gram matrix",
        "yes         it is homogeneous in the Jacobian (of degree 2)",
        "yes         it does not depend on the logits",
        "yes         it is never negative",
        "yes         its gradient is 0 in biases (in all of them)",
    ] {
        assert!(found.contains(line), "{line}: {found}");
    }
    let found = verify("dot(f, f) - norm1(J)");
    for line in [
        "no          a common function added to all logits changes nothing",
        "no          it is homogeneous in the Jacobian",
        "no          it is never negative",
        "no          its gradient is 0 in biases (in none of them)",
        "sees        the Jacobian",
    ] {
        assert!(found.contains(line), "{line}: {found}");
    }
    let json = output(&[
        "verify",
        &model,
        "--samples",
        "2",
        "--json",
        "--formula",
        "norm1(g)*loss",
    ]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["holds"], true);
    assert_eq!(json["sees"], "input gradient");
}

#[test]
fn a_step_with_a_formula_is_timed() {
    let found = output(&[
        "bench",
        "--net",
        "8-12-3",
        "--batch",
        "5",
        "--repeat",
        "2",
        "--workload",
        "jacobian-step",
        "--formula",
        "tr(G)",
        "--json",
        "--check",
    ]);
    let lines: Vec<Value> = found
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[1]["workload"], "formula-step");
    let norm = |i: usize| lines[i]["check"][1].as_f64().unwrap();
    assert_relative_eq!(norm(0), norm(1), max_relative = 1e-5);
    relugrad(&["bench", "--workload", "formula-step"])
        .assert()
        .code(2)
        .stderr(contains("give --formula"));
}

#[test]
fn what_is_wrong_is_told_before_anything_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (formula, words) in [
        // A number goes with anything, so this is a vector.
        ("tr(G) + f", "is [K] but a penalty is a number"),
        (
            "own: norm2(f + J)",
            "own: + needs equal shapes: `f` is [K] and `J` is [K, D]\n  norm2(f + J)\n        ^^^^^",
        ),
        ("own: tr(Gram)", "there is no name `Gram`"),
        ("own: eps*tr(G) @ 1", "there is no name `eps`"),
        ("own: eigmax(S*G)", "symmetric"),
        ("own: K^2", "does not depend on the network"),
        (
            "own: norm2(f - y) @ 1, eps=2",
            "`eps` is given but not used",
        ),
        ("own: norm2(y*J)", "write ^T behind the first"),
    ] {
        for command in ["train", "compare"] {
            relugrad(&[
                command,
                "--epochs",
                "1",
                "--out",
                text(&out),
                "--formula",
                formula,
            ])
            .assert()
            .code(2)
            .stderr(contains(words));
            assert!(!out.exists());
        }
    }
    for command in ["train", "compare"] {
        relugrad(&[command, "--epochs", "1", "--out", text(&out)])
            .args(["--formula", "own: tr(G) + log(relu(dot(y, f)))"])
            .assert()
            .failure()
            .stderr(
                contains("the term `log(relu(dot(y, f)))` of formula own is not finite at [")
                    .and(contains("epoch").not()),
            );
    }
    relugrad(&["compare", "--formula", "tr(G)", "--formula", "tr(S*G)"])
        .assert()
        .code(2)
        .stderr(contains("--formula names `formula` twice"));
    relugrad(&["train", "--help"])
        .assert()
        .success()
        .stdout(contains("rownorms1(J - one*(y^T*J))").and(contains("input gradient, J^T*r")));
}
