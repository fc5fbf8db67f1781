//! Constants that ONNX files compute: subgraphs with the results of runtimes (`tests/golden/constants.py`), and small files
//! with one thing each that was wrong once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use relugrad_io::{Error, Model, NpzArchive, load_onnx, onnx_from_bytes};
use serde_json::Value;

/// How far numbers of a type may be apart, relative to the largest or 1: runtimes round every term of a sum.
fn tolerance(element: &str) -> f64 {
    match element {
        "float16" => 4e-3,
        "bfloat16" => 4e-2,
        "float32" => 2e-6,
        "float64" => 1e-13,
        _ => 0.0,
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |c: u8| DIGITS.iter().position(|&d| d == c).unwrap() as u32;
    let text: Vec<u32> = text.bytes().filter(|&c| c != b'=').map(digit).collect();
    let bytes = text.chunks(4).flat_map(|four| {
        let bits = (0..4).fold(0, |bits, i| bits << 6 | four.get(i).copied().unwrap_or(0));
        bits.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}

fn number(value: &Value) -> f64 {
    let text = value.as_str().map(|text| text.parse().unwrap());
    text.unwrap_or_else(|| value.as_f64().unwrap())
}

fn logits(model: &Model, x: Array2<f64>) -> Vec<f64> {
    let trace = model.network().trace(x.view()).unwrap();
    trace.logits().iter().copied().collect()
}

/// How far the case is off, relative to the largest number; an error if it is refused.
fn distance(case: &Value) -> Result<f64, Error> {
    let expected: Vec<f64> = case["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(number)
        .collect();
    let model = onnx_from_bytes(&base64(case["file"].as_str().unwrap()))?;
    let found = logits(&model, Array2::zeros((1, model.network().inputs())));
    assert_eq!(found.len(), expected.len(), "{case}");
    let size = expected.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
    let pairs = found.iter().zip(&expected);
    Ok(pairs.fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / size)
}

fn golden() -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/constants/subgraphs.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// All are as the runtime says, or refused by name; which are is listed here.
#[test]
fn subgraphs_are_folded_as_runtimes_do() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 300, "all cases are there");
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for (i, case) in cases.iter().enumerate() {
        let types = ["type", "coarsest"].map(|key| case[key].as_str().unwrap());
        let bound = match tolerance(types[0]) {
            0.0 => 0.0,
            bound => bound.max(tolerance(types[1])),
        };
        let empty = case["values"].as_array().unwrap().is_empty();
        match distance(case) {
            Ok(error) => assert!(
                error <= bound && !empty,
                "case {i} is off by {error:e}: {case}"
            ),
            Err(Error::OnnxNode { problem, .. })
                if empty && problem.contains("without entries") => {}
            Err(Error::OnnxNode {
                operator, problem, ..
            }) => {
                *refused.entry(format!("{operator}: {problem}")).or_default() += 1;
            }
            Err(other) => panic!("case {i}: {other}"),
        }
    }
    let expected = [
        "ReduceL2: its input is constant with numbers of type int32, of which it cannot be computed in advance",
        "ReduceLogSumExp: its input is constant with numbers of type int64, of which it cannot be computed in advance",
        "Split: its axis of length 1 does not fall into 3 equal parts",
        "Split: its axis of length 4 does not fall into 3 equal parts",
    ];
    let expected: BTreeMap<String, usize> = expected.map(|text| (text.to_owned(), 1)).into();
    assert_eq!(refused, expected);
}

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(name)
}

#[test]
fn small_files_give_what_runtimes_give() {
    for name in [
        "const_reduceprod_axes1",
        "cast_bool_mask",
        "mul_by_computed",
        "const_concat_weight",
        "max_small_first",
        "matmul_const_const",
        "clip_inf",
        "fp16_weights_cast",
        "concat_constant",
    ] {
        let model = load_onnx(case(&format!("{name}.onnx"))).unwrap_or_else(|e| panic!("{e}"));
        let mut file = NpzArchive::open(case(&format!("{name}.expected.npz"))).unwrap();
        let [x, y] = ["x", "y0"].map(|array| file.read(&[array]).unwrap());
        let [x, y] = [x, y].map(|array| array.values.iter().copied().collect::<Vec<f64>>());
        let inputs = Array2::from_shape_vec(
            (x.len() / model.network().inputs(), model.network().inputs()),
            x,
        );
        for (found, expected) in logits(&model, inputs.unwrap()).iter().zip(&y) {
            assert!(
                (found - expected).abs() < 2e-6,
                "{name}: {found} against {expected}"
            );
        }
    }
}

#[test]
fn weights_that_are_computed_have_gradients() {
    for (name, expected) in [
        ("mul_by_computed", &["g", "n", "V0", "V"][..]),
        ("const_concat_weight", &["Wa", "Wb", "V"]),
        ("fp16_weights_cast", &["W16"]),
        ("concat_constant", &["k", "V"]),
    ] {
        let model = load_onnx(case(&format!("{name}.onnx"))).unwrap();
        let gradients = model.file_gradients(model.network().parameters());
        let mut names: Vec<&str> = gradients.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected, "{name}");
        assert!(model.left_out().is_empty());
    }
}

#[test]
fn scalars_and_empty_axes_are_refused() {
    for (name, text) in [
        ("matmul_scalar", "(MatMul): its constant is a scalar"),
        ("slice_negative_step_empty", "(Pad): its pads []"),
    ] {
        let error = load_onnx(case(&format!("{name}.onnx")))
            .unwrap_err()
            .to_string();
        assert!(error.contains(text), "{name}: {error}");
    }
}
