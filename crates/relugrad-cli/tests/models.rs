//! `relugrad inspect`, `convert` and `derive` on exported networks.

use approx::assert_abs_diff_eq;
use std::fs::File;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use ndarray::{Array1, Array2, Array4, ArrayD};
use ndarray_npy::{NpzReader, write_npy};
use tempfile::TempDir;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args(arguments);
    command
}

fn exported(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/onnx");
    folder.join(format!("{name}.onnx")).display().to_string()
}

/// A folder with inputs for `lenet`, and the path of a file in it.
fn folder() -> (TempDir, impl Fn(&str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let place: PathBuf = folder.path().to_owned();
    let path = move |name: &str| place.join(name).display().to_string();
    let x = Array4::from_shape_fn((3, 1, 8, 8), |(n, _, i, j)| {
        ((n * 64 + i * 8 + j) % 13) as f32 / 13.0
    });
    write_npy(path("x.npy"), &x).unwrap();
    write_npy(path("v.npy"), &Array1::from_elem(64, 0.5)).unwrap();
    write_npy(path("u.npy"), &Array2::from_elem((3, 3), 1.0)).unwrap();
    write_npy(path("y.npy"), &Array1::from(vec![0i64, 1, 2])).unwrap();
    (folder, path)
}

/// What a failing command says, with its exit code.
fn failure(arguments: &[&str], code: i32) -> String {
    let output = relugrad(arguments)
        .assert()
        .failure()
        .code(code)
        .get_output()
        .clone();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn derive_writes_every_array_under_its_name() {
    let (_folder, path) = folder();
    let (model, x, out) = (exported("lenet"), path("x.npy"), path("o.npz"));
    let (v, u, y) = (path("v.npy"), path("u.npy"), path("y.npy"));
    let all = [
        "derive",
        &model,
        "--input",
        &x,
        "--vector",
        &v,
        "--cotangent",
        &u,
        "--labels",
        &y,
        "--out",
        &out,
    ];
    relugrad(&all)
        .args(["--parameter-gradients", "loss,jacobian"])
        .assert()
        .success();
    let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
    let names = npz.names().unwrap();
    for name in [
        "logits",
        "loss",
        "jacobian",
        "jvp",
        "vjp",
        "input_gradient",
        "hvp",
        "jacobian_frobenius_squared",
        "jacobian_spectral",
        "cross_lipschitz",
        "hessian_trace",
        "hessian_frobenius",
        "hessian_spectral",
        "hessian_eigenvalues",
        "near_kink",
        "value/loss",
        "grad/jacobian/0.weight",
    ] {
        assert!(
            names.iter().any(|n| n.trim_end_matches(".npy") == name),
            "{name} in {names:?}"
        );
    }
    let mut shape = |name: &str| {
        npz.by_name::<ndarray::OwnedRepr<f64>, ndarray::IxDyn>(name)
            .unwrap()
            .shape()
            .to_vec()
    };
    assert_eq!(shape("jacobian"), [3, 3, 64]);
    assert_eq!(shape("grad/loss/0.weight"), [3, 1, 3, 3]);
    assert_eq!(shape("value/jacobian"), [0usize; 0]);
    // A second run does not overwrite the first.
    assert!(failure(&all, 2).contains("exists already"));
}

#[test]
fn groups_of_inputs_do_not_change_the_result() {
    let (_folder, path) = folder();
    let (model, x) = (exported("lenet"), path("x.npy"));
    let read = |memory: &str, name: &str| -> ArrayD<f64> {
        let out = path(&format!("{memory}.npz"));
        relugrad(&[
            "derive",
            &model,
            "--input",
            &x,
            "--memory",
            memory,
            "--out",
            &out,
            "--overwrite",
        ])
        .args(["--parameter-gradients", "curvature-trace"])
        .assert()
        .success();
        NpzReader::new(File::open(out).unwrap())
            .unwrap()
            .by_name(name)
            .unwrap()
    };
    assert_eq!(read("1", "jacobian"), read("512", "jacobian"));
    assert_eq!(
        read("1", "hessian_eigenvalues"),
        read("512", "hessian_eigenvalues")
    );
}

#[test]
fn derive_says_what_does_not_fit() {
    let (_folder, path) = folder();
    let (model, x, out) = (exported("lenet"), path("x.npy"), path("o.npz"));
    let derive =
        |more: &[&str], code| failure(&[&["derive", &model, "--out", &out], more].concat(), code);
    let v = path("v.npy");
    assert!(derive(&["--input", &path("y.npy")], 1).contains("inputs of shape [1, 8, 8]"));
    assert!(derive(&["--input", &path("missing.npy")], 1).contains("missing.npy"));
    assert!(derive(&["--input", &x, "--cotangent", &v], 1).contains("--cotangent has shape [64]"));
    assert!(derive(&["--input", &x, "--labels", &v], 1).contains("whole numbers"));
    assert!(
        derive(&["--input", &x, "--parameter-gradients", "jacobain"], 2)
            .contains("did you mean `jacobian`?")
    );
    write_npy(path("nan.npy"), &Array1::from_elem(64, f64::NAN)).unwrap();
    assert!(derive(&["--input", &path("nan.npy")], 1).contains("must be finite"));
    assert!(!Path::new(&out).exists());
}

#[test]
fn derive_keeps_within_its_memory_with_more_logits_than_inputs() {
    let (_folder, path) = folder();
    let network = relugrad::Mlp::new(&[2, 16, 10_000]).build::<f32>(0);
    let (model, x, out) = (path("wide.safetensors"), path("xy.npy"), path("o.npz"));
    relugrad_io::save(&model, &network.unwrap(), &Default::default()).unwrap();
    write_npy(&x, &Array2::from_elem((3, 2), 0.5)).unwrap();
    let derive = |more: &str| {
        let binary = assert_cmd::cargo::cargo_bin("relugrad");
        let program = format!(
            "ulimit -v 1000000; exec {} derive {model} --input {x} --memory 64 --threads 2 --out {out} --overwrite {more}",
            binary.display()
        );
        Command::new("sh").args(["-c", &program]).assert()
    };
    // One matrix of K×K numbers would take 800 MB.
    derive("--parameter-gradients loss,cure").success();
    let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
    let jacobian: ndarray::Array3<f64> = npz.by_name("jacobian").unwrap();
    assert_eq!(jacobian.dim(), (3, 10_000, 2));
    let found: Array1<f64> = npz.by_name("jacobian_frobenius_squared").unwrap();
    let expected = (&jacobian * &jacobian).sum() / 3.0;
    assert_abs_diff_eq!(found[0], expected, epsilon = 1e-12 * expected);
    let refused = derive("--parameter-gradients jacobian").code(2);
    let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(
        message.contains("`jacobian` needs") && message.contains("raise --memory"),
        "{message}"
    );
}

#[test]
fn inspect_shows_layers_and_notes() {
    let assert = relugrad(&["inspect", &exported("softmax"), "--json"])
        .assert()
        .success();
    let json: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(json["parameters"], 64);
    assert_eq!(json["layers"][1]["operation"], "dense");
    assert!(json["notes"][0].as_str().unwrap().contains("Softmax"));
    relugrad(&["inspect", &exported("residual_before")])
        .assert()
        .success()
        .stdout(predicates::str::contains(
            "16 inputs, 3 logits, 185 parameters, 96 gates, 1344 multiply-adds",
        ));
}

#[test]
fn convert_there_and_back_keeps_the_logits() {
    let (_folder, path) = folder();
    let (native, back) = (path("m.safetensors"), path("m.onnx"));
    relugrad(&["convert", &exported("lenet"), &native])
        .assert()
        .success();
    relugrad(&[
        "convert",
        &native,
        &back,
        "--max-pool-to-relu",
        "--fold-batch-norm",
    ])
    .assert()
    .success();
    let logits = |model: &str, name: &str| -> ArrayD<f64> {
        let out = path(name);
        relugrad(&["derive", model, "--input", &path("x.npy"), "--out", &out])
            .assert()
            .success();
        NpzReader::new(File::open(out).unwrap())
            .unwrap()
            .by_name("logits")
            .unwrap()
    };
    let (a, b) = (logits(&exported("lenet"), "a.npz"), logits(&back, "b.npz"));
    assert!((a - b).iter().all(|d| d.abs() < 1e-13));
    assert!(failure(&["convert", &native, &back], 2).contains("exists already"));
    assert!(failure(&["convert", &native, &path("m.nnet")], 2).contains("not written"));
    assert!(failure(&["convert", &native, &path("m.pt")], 2).contains("ending"));
}

/// The weights of a sequence alone, as PyTorch saves them, need a description of the network.
#[test]
fn weights_alone_are_read_with_a_description() {
    let (_folder, path) = folder();
    let tensors = [
        ("0.weight", vec![4, 64]),
        ("0.bias", vec![4]),
        ("2.weight", vec![3, 4]),
        ("2.bias", vec![3]),
    ];
    let (mut header, mut data) = (Vec::new(), Vec::<u8>::new());
    for (name, shape) in &tensors {
        let start = data.len();
        let count: usize = shape.iter().product();
        data.extend((0..count).flat_map(|i| (i as f32 / 100.0).to_le_bytes()));
        let end = data.len();
        header.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", header.join(","));
    let bytes = [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        &data,
    ]
    .concat();
    std::fs::write(path("state.safetensors"), bytes).unwrap();
    let (state, out) = (path("state.safetensors"), path("o.npz"));
    assert!(failure(&["inspect", &state], 1).contains("--model"));
    let described = ["--model", "mlp:4", "--input-shape", "64"];
    relugrad(&["inspect", &state])
        .args(described)
        .assert()
        .success();
    let derive = ["derive", &state, "--input", &path("x.npy"), "--out", &out];
    relugrad(&derive)
        .args(described)
        .args(["--parameter-gradients", "loss"])
        .assert()
        .success();
    let mut npz = NpzReader::new(File::open(out).unwrap()).unwrap();
    let gradient: ArrayD<f64> = npz.by_name("grad/loss/0.weight").unwrap();
    assert_eq!(gradient.shape(), [4, 64]);
    let wrong = ["inspect", &state, "--model", "mlp:5", "--input-shape", "64"];
    assert!(failure(&wrong, 1).contains("`0.weight` has shape [4, 64]"));
}

/// Models that other programs made, with their outputs by onnxruntime, and what `convert` makes of
/// them.
#[test]
fn converted_models_compute_what_onnxruntime_does() {
    let (_folder, path) = folder();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for name in ["avgpool_dilated", "softmax_then_reshape"] {
        let model = cases.join(format!("{name}.onnx")).display().to_string();
        let mut npz =
            NpzReader::new(File::open(cases.join(format!("{name}.expected.npz"))).unwrap())
                .unwrap();
        let x: ArrayD<f32> = npz.by_name("x").unwrap();
        let expected: ArrayD<f32> = npz.by_name("y0").unwrap();
        write_npy(path("x.npy"), &x).unwrap();
        for (format, options) in [
            ("onnx", &[][..]),
            ("onnx", &["--dtype", "f32"]),
            ("onnx", &["--fold-batch-norm", "--max-pool-to-relu"]),
            ("safetensors", &[]),
        ] {
            let (written, out) = (path(&format!("{name}.{format}")), path("y.npz"));
            let convert = ["convert", &model, &written, "--overwrite"];
            relugrad(&convert).args(options).assert().success();
            let derive = ["derive", &written, "--input", &path("x.npy"), "--out", &out];
            relugrad(&derive).arg("--overwrite").assert().success();
            let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
            let mut logits: ArrayD<f64> = npz.by_name("logits").unwrap();
            if name.starts_with("softmax") {
                logits.mapv_inplace(f64::exp);
                logits /= logits.sum();
            }
            let far = logits
                .iter()
                .zip(&expected)
                .map(|(a, &b)| (a - f64::from(b)).abs());
            assert!(
                far.fold(0.0, f64::max) < 1e-6,
                "{name} as {format} {options:?}"
            );
        }
    }
}

#[test]
fn a_model_without_parameters_is_converted() {
    let (_folder, path) = folder();
    let model =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/parameterless_identity.onnx");
    let model = model.display().to_string();
    write_npy(path("x.npy"), &Array1::from(vec![0.5, -2.0, 0.0])).unwrap();
    for name in ["m.onnx", "m.safetensors"] {
        relugrad(&["convert", &model, &path(name)])
            .assert()
            .success();
        let (written, out) = (path(name), path("y.npz"));
        relugrad(&[
            "derive",
            &written,
            "--input",
            &path("x.npy"),
            "--out",
            &out,
            "--overwrite",
        ])
        .assert()
        .success();
        let mut npz = NpzReader::new(File::open(&out).unwrap()).unwrap();
        let logits: Array2<f64> = npz.by_name("logits").unwrap();
        assert_eq!(logits, ndarray::array![[0.5, -2.0, 0.0]]);
    }
}

/// What single precision does to numbers is said, and what it cannot hold is refused.
#[test]
fn convert_says_what_single_precision_changes() {
    let (_folder, path) = folder();
    let description = r#"[[layers]]
kind = "clip"
min = 0.1
max = 1e39
"#;
    std::fs::write(path("clip.toml"), description).unwrap();
    let model = |values: &[f64]| {
        let header = r#"{"0.weight":{"dtype":"F64","shape":[1,2],"data_offsets":[0,16]},"0.bias":{"dtype":"F64","shape":[1],"data_offsets":[16,24]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        std::fs::write(path("state.safetensors"), bytes).unwrap();
        let state = path("state.safetensors");
        let mut command = relugrad(&["convert", &state, &path("m.onnx"), "--overwrite"]);
        command.args([
            "--model",
            &path("clip.toml"),
            "--input-shape",
            "2",
            "--dtype",
            "f32",
        ]);
        command.assert()
    };
    let output = model(&[0.5, 1e-50, 0.1])
        .success()
        .get_output()
        .stdout
        .clone();
    let said = String::from_utf8(output).unwrap();
    assert!(
        said.contains("4 numbers were rounded to f32, 1 of them to 0"),
        "{said}"
    );
    let output = model(&[0.5, 1e50, 0.1])
        .failure()
        .code(1)
        .get_output()
        .stderr
        .clone();
    let said = String::from_utf8(output).unwrap();
    assert!(
        said.contains("dense0.weight") && said.contains("1e50"),
        "{said}"
    );
}

/// Weights that the file computes count as what they are computed from, and what has no gradient is
/// named.
#[test]
fn derive_goes_back_to_the_arrays_of_the_file() {
    let (_folder, path) = folder();
    write_npy(path("four.npy"), &Array2::from_elem((2, 4), 0.5)).unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../relugrad-io/tests/cases");
    let derive = |name: &str| {
        let (model, out) = (
            cases.join(format!("{name}.onnx")),
            path(&format!("{name}.npz")),
        );
        let output = relugrad(&[
            "derive",
            &model.display().to_string(),
            "--input",
            &path("four.npy"),
        ])
        .args(["--parameter-gradients", "loss", "--out", &out])
        .assert()
        .success()
        .get_output()
        .clone();
        let names = NpzReader::new(File::open(&out).unwrap())
            .unwrap()
            .names()
            .unwrap();
        let gradients = names
            .into_iter()
            .filter_map(|n| Some(n.strip_prefix("grad/loss/")?.to_owned()));
        let mut gradients: Vec<String> = gradients.collect();
        gradients.sort_unstable();
        (gradients, String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(derive("const_concat_weight").0, ["V", "Wa", "Wb"]);
    let (gradients, notes) = derive("mul_by_computed");
    assert_eq!(gradients, ["V", "V0", "g", "n"]);
    assert_eq!(notes, "");
    let (gradients, notes) = derive("clip_inf");
    assert_eq!(gradients, ["V"]);
    assert!(
        notes.starts_with("note: no gradient of `c`: node "),
        "{notes}"
    );
}

/// A file of the library's tests.
fn case(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../relugrad-io/tests/cases");
    folder.join(name).display().to_string()
}

#[test]
fn options_choose_the_map_of_a_graph() {
    let model = case("two_outputs.onnx");
    let said = failure(&["inspect", &model], 1);
    assert!(said.contains(r#"["y", "h"]; --output NAME"#), "{said}");
    let said = failure(&["inspect", &model, "--output", "z"], 1);
    assert!(said.contains("called `z`"), "{said}");
    for (output, logits) in [("y", "3 logits"), ("h", "5 logits")] {
        let options = [
            "--output",
            output,
            "--input-name",
            "x",
            "--input-shape",
            "4",
        ];
        let mut command = relugrad(&[&["inspect", &model], &options[..]].concat());
        let shown = command.assert().success().get_output().stdout.clone();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains(logits), "{shown}");
    }
    for (option, value, text) in [
        ("--constant", "x", "and a number or the path"),
        ("--constant", "x=inf", "finite number or the path"),
        ("--constant", "=1", "the input's name"),
    ] {
        let said = failure(&["inspect", &model, option, value], 2);
        assert!(said.contains(text), "{said}");
    }
    let said = failure(
        &["inspect", &model, "--constant", "w=1", "--output", "y"],
        1,
    );
    assert!(said.contains("no input `w`"), "{said}");
    let said = failure(&["inspect", &model, "--constant", "x=none.npy"], 1);
    assert!(said.contains("none.npy"), "{said}");
    let (_folder, path) = folder();
    relugrad(&["convert", &model, &path("m.safetensors"), "--output", "y"])
        .assert()
        .success();
    let said = failure(&["inspect", &path("m.safetensors"), "--output", "y"], 1);
    assert!(said.contains("one input and one output"), "{said}");
}

#[test]
fn convert_keeps_the_precision_of_the_source_as_far_as_runtimes_have_it() {
    let (_folder, path) = folder();
    let output = path("m.onnx");
    let size = |model: &str, options: &[&str]| {
        let convert = ["convert", model, &output, "--overwrite"];
        let mut command = relugrad(&[&convert, options].concat());
        let said = command.assert().success().get_output().stdout.clone();
        let size = std::fs::metadata(&output).unwrap().len();
        (String::from_utf8(said).unwrap(), size)
    };
    // Weights of f32 are written as such.
    let (said, single) = size(&exported("single_precision"), &[]);
    assert!(!said.contains("f32"), "{said}");
    let (_, double) = size(&exported("single_precision"), &["--dtype", "f64"]);
    assert!(double > single, "{double} and {single}");
    // Those of f64 too, unless there is a convolution.
    for (name, noted) in [("lenet", true), ("dense", false)] {
        let native = path(&format!("{name}.safetensors"));
        relugrad(&["convert", &exported(name), &native, "--dtype", "f64"])
            .assert()
            .success();
        let (said, usual) = size(&native, &[]);
        assert_eq!(
            said.contains("onnxruntime has no convolution"),
            noted,
            "{said}"
        );
        let (_, double) = size(&native, &["--dtype", "f64"]);
        assert_eq!(usual < double, noted);
    }
}

#[test]
fn folders_are_models_and_pickled_files_none() {
    let (folder, path) = folder();
    let said = failure(&["inspect", &path("weights.pt")], 1);
    assert!(said.contains("weights_only=True"), "{said}");
    let place = folder.path().display().to_string();
    let said = failure(&["inspect", &place], 1);
    assert!(said.contains("without a best.safetensors"), "{said}");
    relugrad(&["convert", &exported("dense"), &path("best.safetensors")])
        .assert()
        .success();
    relugrad(&["inspect", &place]).assert().success();
}
