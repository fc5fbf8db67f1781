//! Networks of every operation with every attribute in the files that we write: what is read back
//! is the same, and other programs compute the same from them (`tests/golden/README.md`).

mod features;

use std::collections::BTreeSet;
use std::path::Path;

use ndarray::{Array2, ArrayD};
use proptest::prelude::*;
use relugrad::{Network, Scalar};
use relugrad_io::{Metadata, from_bytes, onnx_from_bytes, onnx_to_bytes, to_bytes};
use relugrad_tests::layered::{every_attribute, inputs};
use relugrad_tests::tolerance::distance;
use relugrad_tests::written::SEEDS;
use serde_json::Value;

use features::{FEATURES, features};

/// Relative to the largest entry; sums of a few hundred terms through a dozen operations and back.
const ROUNDING: f64 = 1e-12;

/// Such sums in `f32`, in another order.
const SINGLE: f64 = 2e-5;

/// Entries below this are compared by their distance.
const FLOOR: f64 = 1e-3;

fn flat(array: &ArrayD<f64>) -> Vec<f64> {
    array.iter().copied().collect()
}

fn assert_same(found: &Network<f64>, expected: &Network<f64>, x: &Array2<f64>, what: &str) {
    let numbers = |network: &Network<f64>| {
        let trace = network.trace(x.view()).unwrap();
        let logits = flat(&trace.logits().to_owned().into_dyn());
        (logits, flat(&trace.jacobian().unwrap().into_dyn()))
    };
    let (found, expected) = (numbers(found), numbers(expected));
    let logits = distance(&found.0, &expected.0, FLOOR);
    let jacobians = distance(&found.1, &expected.1, FLOOR);
    assert!(logits <= ROUNDING, "logits {what}: {logits:e}");
    assert!(jacobians <= ROUNDING, "Jacobians {what}: {jacobians:e}");
}

fn onnx(network: &Network<f64>) -> Network<f64> {
    let bytes = onnx_to_bytes(network).unwrap();
    onnx_from_bytes(&bytes).unwrap().into_network()
}

proptest! {
    #![proptest_config(relugrad_tests::run::config())]

    #[test]
    fn what_is_written_is_read_back(seed: u64) {
        let network = every_attribute(seed);
        let x = inputs(&network, seed, 3);
        let native = to_bytes(&network, &Metadata::new()).unwrap();
        let (read, _) = from_bytes::<f64>(&native).unwrap();
        prop_assert_eq!(read.forward(x.view()).unwrap(), network.forward(x.view()).unwrap());
        prop_assert_eq!(to_bytes(&read, &Metadata::new()).unwrap(), native);
        assert_same(&onnx(&network), &network, &x, "of the ONNX file");
        let (folded, _) = network.fold_batch_norm().unwrap();
        assert_same(&onnx(&folded), &network, &x, "folded");
        assert_same(&onnx(&network.max_to_relu().unwrap()), &network, &x, "of ReLUs");
    }
}

/// What another program made of the files of [`SEEDS`].
fn recorded() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/written.json");
    let text = std::fs::read_to_string(path).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    value["cases"].as_array().unwrap().clone()
}

fn matrix(value: &Value) -> Array2<f64> {
    let rows = value.as_array().unwrap().iter();
    let rows: Vec<Vec<f64>> = rows
        .map(|row| serde_json::from_value(row.clone()).unwrap())
        .collect();
    let shape = (rows.len(), rows[0].len());
    Array2::from_shape_vec(shape, rows.concat()).unwrap()
}

/// Bytes, checksum and read-back network of a file, against those that were recorded.
fn assert_recorded<T: Scalar>(case: &Value, precision: &str, bound: f64) {
    let seed = case["seed"].as_u64().unwrap();
    let network = every_attribute(seed).cast::<T>().unwrap();
    let bytes = onnx_to_bytes(&network).unwrap();
    let mut checksum = flate2::Crc::new();
    checksum.update(&bytes);
    let expected = &case[precision];
    assert_eq!(
        u64::from(checksum.sum()),
        expected["crc32"].as_u64().unwrap(),
        "the {precision} file of seed {seed} is another one; record outputs anew by written.py"
    );
    let read = onnx_from_bytes(&bytes).unwrap().into_network();
    let found = read.forward(matrix(&case["inputs"]).view()).unwrap();
    let outputs = matrix(&expected["outputs"]);
    let bound = if expected["by"] == "onnxruntime in f32" {
        SINGLE
    } else {
        bound
    };
    let error = distance(&flat(&found.into_dyn()), &flat(&outputs.into_dyn()), FLOOR);
    assert!(
        error <= bound,
        "{precision} of seed {seed} is off by {error:e}"
    );
}

#[test]
fn other_programs_compute_the_same_in_f64() {
    let cases = recorded();
    let seeds: Vec<u64> = cases.iter().map(|c| c["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, SEEDS);
    cases
        .iter()
        .for_each(|case| assert_recorded::<f64>(case, "f64", ROUNDING));
}

#[test]
fn other_programs_compute_the_same_in_f32() {
    recorded()
        .iter()
        .for_each(|case| assert_recorded::<f32>(case, "f32", SINGLE));
}

#[test]
fn the_recorded_networks_have_every_attribute() {
    let found: BTreeSet<String> = SEEDS
        .iter()
        .flat_map(|&s| features(&every_attribute(s)))
        .collect();
    let missing: Vec<&str> = FEATURES
        .iter()
        .copied()
        .filter(|f| !found.contains(*f))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    let unlisted: Vec<&String> = found
        .iter()
        .filter(|f| !FEATURES.contains(&f.as_str()))
        .collect();
    assert!(unlisted.is_empty(), "{unlisted:?}");
}
