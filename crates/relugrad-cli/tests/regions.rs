//! `relugrad regions` as its user runs it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args(arguments);
    command
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small trained network.
fn model(dir: &Path) -> PathBuf {
    let run = dir.join("run");
    let train = ["train", "--epochs", "2", "--model", "mlp:24,24", "--out"];
    relugrad(&train).arg(path(&run)).assert().success();
    run.join("best.safetensors")
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Twice the area of a polygon.
fn doubled_area(polygon: &Value) -> f64 {
    let corners: Vec<[f64; 2]> = serde_json::from_value(polygon["corners"].clone()).unwrap();
    let next = corners.iter().cycle().skip(1);
    let pairs = corners.iter().zip(next);
    pairs.map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum()
}

#[test]
fn a_survey_tells_regions_distances_and_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let arguments = [
        "regions",
        path(&model),
        "--samples",
        "60",
        "--measure",
        "10",
        "--pairs",
        "5",
    ];
    relugrad(&arguments)
        .assert()
        .success()
        .stdout(contains("digits: 60 samples in "))
        .stdout(contains("certified radius, linf"))
        .stdout(contains("the kinks' share is"))
        .stdout(contains("kinks between samples of different classes"));
    let run = |threads: &str| {
        let output = relugrad(&arguments)
            .args(["--json", "--threads", threads])
            .output()
            .unwrap();
        output.stdout
    };
    assert_eq!(run("1"), run("3"));
    let report: Value = serde_json::from_slice(&run("1")).unwrap();
    assert_eq!(
        (&report["samples"], &report["measured"]),
        (&60.into(), &10.into())
    );
    let distances = report["distances"][2].as_object().unwrap();
    assert!(distances["certified"]["largest"].as_f64() <= distances["kink"]["largest"].as_f64());
}

#[test]
fn a_slice_is_drawn_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let (svg, polygons) = (dir.path().join("slice.svg"), dir.path().join("slice.json"));
    let slice = |colour: &str, more: &[&str]| {
        let mut command = relugrad(&[
            "regions",
            path(&model),
            "--slice",
            "0,1,2",
            "--colour",
            colour,
        ]);
        command
            .args(["--svg", path(&svg), "--polygons", path(&polygons)])
            .args(more);
        command.assert()
    };
    slice("class", &[])
        .success()
        .stdout(contains("in the plane through sample 0"));
    let all = json(&polygons);
    let cells = all["cells"].as_array().unwrap();
    assert_eq!(all["regions"].as_u64().unwrap() as usize, cells.len());
    let area: f64 = cells
        .iter()
        .map(|cell| 0.5 * doubled_area(&cell["polygon"]))
        .sum();
    let parts = cells
        .iter()
        .flat_map(|cell| cell["classes"].as_array().unwrap());
    let by_class: f64 = parts.map(|part| 0.5 * doubled_area(&part["polygon"])).sum();
    let window: [[f64; 2]; 2] = serde_json::from_value(all["window"].clone()).unwrap();
    let whole: f64 = window.iter().map(|[low, high]| high - low).product();
    assert!((area / whole - 1.0).abs() < 1e-9 && (by_class / whole - 1.0).abs() < 1e-9);
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    assert!(picture.contains("decision boundary"));

    slice("jacobian", &[])
        .failure()
        .code(1)
        .stderr(contains("exists"));
    assert_eq!(std::fs::read_to_string(&svg).unwrap(), picture);
    for colour in ["jacobian", "input-gradient", "curvature"] {
        slice(colour, &["--overwrite", "--threads", "2"])
            .success()
            .stdout(contains("colours from"));
        assert!(json(&polygons)["cells"][0]["value"].as_f64().unwrap() > 0.0);
    }
    slice("class", &["--overwrite", "--limit", "5"])
        .failure()
        .code(1)
        .stdout(contains("5 regions in the plane").and(contains("of the window are covered")))
        .stderr(contains("more than 5 regions").and(contains("allow more by --limit")));
    let some = json(&polygons);
    assert_eq!(some["complete"], false);
    assert_eq!(some["cells"].as_array().unwrap().len(), 5);
}

#[test]
fn a_slice_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let file = dir.path().join("plane.npy");
    let rows = ndarray::Array2::from_shape_fn((3, 64), |(i, j)| ((i * 64 + j) as f64).sin().abs());
    ndarray_npy::write_npy(&file, &rows).unwrap();
    let slice = [
        "regions",
        path(&model),
        "--slice-file",
        path(&file),
        "--json",
    ];
    let run = |more: &[&str]| -> Value {
        let output = relugrad(&slice).args(more).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(
        run(&["--extent", "0.5"])["window"],
        serde_json::json!([[-0.5, 0.5], [-0.5, 0.5]])
    );
    assert_eq!(run(&[])["points"].as_array().unwrap().len(), 3);
    ndarray_npy::write_npy(&file, &rows.slice(ndarray::s![..2, ..]).to_owned()).unwrap();
    relugrad(&slice)
        .assert()
        .failure()
        .stderr(contains("three inputs of 64 features"));
}

#[test]
fn a_segment_is_followed_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let (svg, points) = (
        dir.path().join("segment.svg"),
        dir.path().join("segment.json"),
    );
    relugrad(&["regions", path(&model), "--segment", "0,5"])
        .args(["--svg", path(&svg), "--polygons", path(&points)])
        .assert()
        .success()
        .stdout(contains("from sample 0"))
        .stdout(contains("% at kinks"));
    let all = json(&points);
    let (stretches, jumps) = (
        all["stretches"].as_array().unwrap(),
        all["jumps"].as_array().unwrap(),
    );
    assert_eq!(stretches.len(), jumps.len() + 1);
    for (pair, jump) in stretches.windows(2).zip(jumps) {
        let last = pair[0]["points"].as_array().unwrap().last().unwrap();
        let first = &pair[1]["points"][0];
        assert_eq!((&last[0], &first[0]), (&jump["at"], &jump["at"]));
        let change = first[2].as_f64().unwrap() - last[2].as_f64().unwrap();
        assert!((change - jump["jump"].as_f64().unwrap()).abs() < 1e-12);
    }
    assert!(
        std::fs::read_to_string(&svg)
            .unwrap()
            .contains("loss of label")
    );
}

#[test]
fn wrong_requests_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let fails = |arguments: &[&str], code: i32, message: &str| {
        let mut command = relugrad(&["regions", path(&model)]);
        command
            .args(arguments)
            .assert()
            .code(code)
            .stderr(contains(message));
    };
    fails(
        &["--slice", "0,1"],
        2,
        "--slice takes 3 numbers of samples, not 2",
    );
    fails(&["--slice", "0,1,100000"], 1, "there is no sample 100000");
    fails(&["--slice", "0,0,1"], 1, "lie on a line");
    fails(
        &["--slice", "0,1,2", "--segment", "0,1"],
        2,
        "cannot be used with",
    );
    fails(&["--svg", "a.svg"], 2, "required");
    for other in ["a.svg", "./a.svg"] {
        let twice = ["--slice", "0,1,2", "--svg", "a.svg", "--polygons", other];
        fails(&twice, 2, "named twice");
    }
    fails(
        &["--slice", "0,1,2", "--colour", "beauty"],
        2,
        "possible values",
    );
    fails(&["--samples", "0"], 2, "samples");
    relugrad(&["regions", "missing.onnx"])
        .assert()
        .code(1)
        .stderr(contains("missing.onnx"));
}
