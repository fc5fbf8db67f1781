//! Models of extreme weights, of no weights, and samples near several boundaries, run as their user
//! does.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use ndarray::{ArrayD, array};
use ndarray_npy::NpzReader;
use predicates::prelude::*;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command
        .args(arguments)
        .timeout(std::time::Duration::from_secs(60));
    command
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/extremes")
        .join(name)
}

fn derive(model: &Path, input: &Path, out: &Path) -> Command {
    let mut command = relugrad(&["derive"]);
    command
        .arg(model)
        .arg("--input")
        .arg(input)
        .arg("--out")
        .arg(out);
    command
}

fn read(path: &Path, name: &str) -> ArrayD<f64> {
    let mut archive = NpzReader::new(std::fs::File::open(path).unwrap()).unwrap();
    archive.by_name(name).unwrap()
}

fn read_single(path: &Path, name: &str) -> ArrayD<f64> {
    let mut archive = NpzReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let array: ArrayD<f32> = archive.by_name(name).unwrap();
    array.mapv(f64::from)
}

/// The distance to a decision boundary of layers that undo each other's scale has a finite
/// gradient, which f32 finds too.
#[test]
fn a_gradient_that_is_finite_in_f64_is_found_in_f32() {
    let directory = tempfile::tempdir().unwrap();
    let run = |dtype: &str| {
        let out = directory.path().join(format!("{dtype}.npz"));
        derive(
            &file("nonfinite_gradient_f32.onnx"),
            &file("nonfinite_x.npy"),
            &out,
        )
        .arg("--labels")
        .arg(file("nonfinite_y.npy"))
        .args(["--dtype", dtype, "--parameter-gradients"])
        .arg("decision-boundary-l2")
        .assert()
        .success();
        out
    };
    let (double, single) = (run("f64"), run("f32"));
    for parameter in ["w0", "b0", "w1", "b1", "w2", "b2"] {
        let name = format!("grad/decision-boundary-l2/{parameter}");
        let (expected, found) = (read(&double, &name), read_single(&single, &name));
        let size = expected.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
        assert!(found.iter().all(|v| v.is_finite()), "{parameter}: {found}");
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * size;
        assert!(found.iter().zip(&expected).all(close), "{found} {expected}");
    }
}

/// An overflow that no type of numbers spares names penalty, parameter and sample, and writes
/// nothing.
#[test]
fn a_gradient_that_overflows_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model.safetensors");
    let mut network = relugrad::Mlp::new(&[2, 3, 2])
        .bias(false)
        .build::<f32>(0)
        .unwrap();
    for value in network.parameters_mut().values_mut() {
        *value *= 1e13;
    }
    relugrad_io::save(&model, &network, &relugrad_io::Metadata::new()).unwrap();
    let input = directory.path().join("x.npy");
    ndarray_npy::write_npy(&input, &array![[1e-3, 2e-3], [-2e-3, 1e-3]]).unwrap();
    let out = directory.path().join("out.npz");
    derive(&model, &input, &out)
        .args([
            "--dtype",
            "f32",
            "--skip",
            "jacobian,cross_lipschitz,hessian_trace",
        ])
        .args([
            "--skip",
            "hessian_frobenius,hessian_spectral,hessian_eigenvalues",
        ])
        .args(["--skip", "jacobian_frobenius_squared,jacobian_spectral"])
        .args(["--parameter-gradients", "jacobian"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains(
            "the gradient of jacobian with respect to dense",
        ))
        .stderr(predicate::str::contains("at sample 0"));
    assert!(!out.exists());
}

#[test]
fn models_without_parameters_have_empty_gradients() {
    let directory = tempfile::tempdir().unwrap();
    let samples = |d: usize| {
        let path = directory.path().join(format!("x{d}.npy"));
        let x = ndarray::Array2::from_shape_fn((20, d), |(i, j)| ((i + j) % 3) as f64 / 2.0);
        ndarray_npy::write_npy(&path, &x).unwrap();
        path
    };
    let labels = directory.path().join("y.npy");
    let classes = ndarray::Array1::from_shape_fn(20, |i| (i % 2) as i64);
    ndarray_npy::write_npy(&labels, &classes).unwrap();
    for (model, d) in [
        ("parameterless_identity.onnx", 3),
        ("g_inputonly.safetensors", 2),
    ] {
        let (model, x) = (file(model), samples(d));
        let out = directory.path().join(format!("out{d}.npz"));
        derive(&model, &x, &out)
            .args([
                "--parameter-gradients",
                "loss,jacobian,cure,maximum-margin-l2",
            ])
            .assert()
            .success();
        assert_eq!(read(&out, "value/jacobian").sum(), d as f64);
        let data = |command: &str| {
            let mut command = relugrad(&[command]);
            command
                .arg(&model)
                .arg("--data")
                .arg(&x)
                .arg("--labels")
                .arg(&labels);
            command
        };
        data("verify")
            .assert()
            .success()
            .stdout(predicate::str::contains("not checked"));
        relugrad(&[
            "bench",
            "--batch",
            "4",
            "--workload",
            "plain-step,jacobian-step,cure-step",
        ])
        .arg("--net")
        .arg(&model)
        .assert()
        .success();
        let run = directory.path().join(format!("run{d}"));
        relugrad(&["train", "--epochs", "1", "--data"])
            .arg(&x)
            .arg("--labels")
            .arg(&labels)
            .arg("--start")
            .arg(&model)
            .arg("--out")
            .arg(&run)
            .assert()
            .code(1)
            .stderr(predicate::str::contains("nothing to train"));
    }
}

/// Samples whose nearest change of class lies beyond a kink: 0.434, 0.441 and 0.422 in ℓ2 are
/// known.
#[test]
fn a_known_change_of_class_lies_above_the_lower_bound() {
    let directory = tempfile::tempdir().unwrap();
    relugrad(&[
        "evaluate",
        "--all",
        "--double",
        "--pgd-steps",
        "10",
        "--apgd-steps",
        "20",
    ])
    .arg(file("minimal_radius.onnx"))
    .arg("--data")
    .arg(file("minimal_radius_samples.npz"))
    .arg("--out")
    .arg(directory.path().join("out"))
    .assert()
    .success();
    let text = std::fs::read_to_string(directory.path().join("out/samples.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let headings = lines.next().unwrap();
    assert!(!text.contains("minimal"));
    let column = |name: &str| {
        headings
            .iter()
            .position(|heading| *heading == name)
            .unwrap()
    };
    let mut samples: Vec<Vec<&str>> = lines.collect();
    samples.sort_by_key(|cells| cells[0].parse::<usize>().unwrap());
    assert_eq!(samples.len(), 3);
    let mut smallest = f64::INFINITY;
    for cells in &samples {
        let number = |name: &str| cells[column(name)].parse::<f64>().unwrap();
        assert!(number("lower_l2") <= number("upper_l2"));
        assert!(number("lower_linf") <= number("upper_linf"));
        assert!(number("lower_l2") <= 0.4415);
        smallest = smallest.min(number("upper_l2"));
        let proven = cells[column("proven_l2")] == "1";
        assert!(!proven || number("upper_l2") <= number("lower_l2") * (1.0 + 1e-5));
    }
    assert!(smallest < 0.46, "{smallest}");
}
