//! Subgraphs of constants with the results of runtimes (`tests/golden/constants.py`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::*;

/// How far numbers of a type may be apart, relative to the largest or 1: runtimes round every term
/// of a sum.
fn tolerance(element: &str) -> f64 {
    match element {
        "float16" => 4e-3,
        "bfloat16" => 4e-2,
        "float32" => 2e-6,
        "float64" => 1e-13,
        _ => 0.0,
    }
}

pub(super) fn base64(text: &str) -> Vec<u8> {
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

/// How far the case is off, relative to the largest number; an error if it is refused.
fn distance(case: &Value) -> Result<f64> {
    let expected: Vec<f64> = case["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(number)
        .collect();
    let model = onnx_from_bytes(&base64(case["file"].as_str().unwrap()))?;
    let x = ndarray::Array2::zeros((1, model.network().inputs()));
    let found = model.network().forward(x.view()).unwrap();
    assert_eq!(found.len(), expected.len(), "{case}");
    let size = expected.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
    let pairs = found.iter().zip(&expected);
    Ok(pairs.fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / size)
}

pub(super) fn golden() -> Value {
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
