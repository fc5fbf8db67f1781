//! What is written is what is read.

use relugrad::{Gate, Mlp, Network, Scalar};
use relugrad_io::{Error, Metadata, from_bytes, load, save, save_over, to_bytes};

use crate::models::every_operation;

fn strings() -> Metadata {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    Metadata::from([pair("seed", "7"), pair("", "\u{0}\n\"ü{}"), pair("b", "")])
}

/// Names, operations, edges, widths and fixed slopes.
fn graph<T: Scalar>(network: &Network<T>) -> Vec<String> {
    let node = |node: &relugrad::Node| {
        let inputs: Vec<usize> = node.inputs().map(|input| input.index()).collect();
        let slope = match node.gate() {
            Some(Gate::LeakyRelu { slope }) => slope.to_bits(),
            _ => 0,
        };
        let (name, operation, width) = (node.name(), node.operation(), node.width());
        format!("{name} {operation} {inputs:?} {width} {slope}")
    };
    network.nodes().iter().map(node).collect()
}

/// `-0.0` and `0.0` have different bits but are equal, so bits are compared.
fn bits<T: Scalar>(network: &Network<T>) -> Vec<u64> {
    let values = network.parameters().values().iter();
    values.map(|value| value.into_f64().to_bits()).collect()
}

fn assert_same<T: Scalar>(found: &Network<T>, expected: &Network<T>) {
    assert_eq!(graph(found), graph(expected));
    assert_eq!(found.parameters().layout(), expected.parameters().layout());
    assert_eq!(bits(found), bits(expected));
}

fn round_trip<T: Scalar>() {
    for seed in 0..20 {
        let network = every_operation::<T>(seed);
        let bytes = to_bytes(&network, &strings()).unwrap();
        let (read, metadata) = from_bytes::<T>(&bytes).unwrap();
        assert_same(&read, &network);
        assert_eq!(metadata, strings());
        assert_eq!(to_bytes(&read, &metadata).unwrap(), bytes);
    }
}

#[test]
fn every_operation_keeps_every_bit_in_f32() {
    round_trip::<f32>();
}

#[test]
fn every_operation_keeps_every_bit_in_f64() {
    round_trip::<f64>();
}

#[test]
fn mlps_of_every_gate_compute_the_same_after_a_round_trip() {
    let gates = [
        Gate::Relu,
        Gate::LeakyRelu { slope: 0.3 - 0.1 },
        Gate::PRelu { initial: 0.25 },
        Gate::Abs,
    ];
    for gate in gates {
        let network = Mlp::new(&[4, 70, 3]).gate(gate).build::<f64>(3).unwrap();
        let bytes = to_bytes(&network, &Metadata::new()).unwrap();
        let (read, metadata) = from_bytes::<f64>(&bytes).unwrap();
        let x = ndarray::array![[0.5, -1.0, 2.0, 0.0], [-0.25, 3.0, 1.0, 1e-3]];
        assert_eq!(
            read.forward(x.view()).unwrap(),
            network.forward(x.view()).unwrap()
        );
        assert!(metadata.is_empty());
    }
}

#[test]
fn a_single_precision_file_is_exact_in_double_precision() {
    let network = every_operation::<f32>(1);
    let bytes = to_bytes(&network, &Metadata::new()).unwrap();
    let (read, _) = from_bytes::<f64>(&bytes).unwrap();
    assert_same(&read, &network.cast().unwrap());
}

#[test]
fn a_double_precision_file_is_rounded_to_single_precision() {
    let network = Mlp::new(&[3, 5, 2]).build::<f64>(1).unwrap();
    let bytes = to_bytes(&network, &Metadata::new()).unwrap();
    let (read, _) = from_bytes::<f32>(&bytes).unwrap();
    assert_same(&read, &network.cast().unwrap());
    assert_ne!(bits(&read), bits(&network));
}

#[test]
fn the_data_is_aligned() {
    let bytes = to_bytes(&every_operation::<f64>(0), &strings()).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    assert_eq!(header % 8, 0);
}

#[test]
fn saved_files_are_replaced_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (first, second) = (every_operation::<f32>(0), every_operation::<f32>(1));
    save(&path, &first, &strings()).unwrap();
    let refused = save(&path, &second, &Metadata::new());
    assert!(matches!(refused, Err(Error::Exists { .. })));
    let (read, metadata) = load::<f32>(&path).unwrap();
    assert_same(&read, &first);
    assert_eq!(metadata, strings());
    save_over(&path, &second, &Metadata::new()).unwrap();
    assert_same(&load::<f32>(&path).unwrap().0, &second);
}

#[test]
fn a_network_that_cannot_be_saved_leaves_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut network = every_operation::<f32>(0);
    save(&path, &network, &Metadata::new()).unwrap();
    let before = std::fs::read(&path).unwrap();
    network.parameters_mut().values_mut()[4] = f32::NAN;
    let error = save_over(&path, &network, &Metadata::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("model.safetensors: entry [1, 1]")
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
