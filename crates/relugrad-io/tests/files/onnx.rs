//! ONNX files: what is written is what is read, and what is refused says why.

use ndarray::Array2;
use relugrad::{Gate, Mlp, Network};
use relugrad_io::{Error, Metadata, from_bytes, onnx_from_bytes, onnx_to_bytes, to_bytes};

use crate::models::images;

/// Inputs that are not special.
fn inputs(network: &Network<f64>) -> Array2<f64> {
    let d = network.inputs();
    Array2::from_shape_fn((3, d), |(i, j)| {
        (((i * d + j) * 37) % 101) as f64 / 50.0 - 1.0
    })
}

fn assert_same(found: &Network<f64>, expected: &Network<f64>) {
    let x = inputs(expected);
    let (found, expected) = (
        found.trace(x.view()).unwrap(),
        expected.trace(x.view()).unwrap(),
    );
    let far = |a: &ndarray::ArrayD<f64>, b: &ndarray::ArrayD<f64>| {
        (a - b).iter().fold(0.0, |m: f64, d| m.max(d.abs()))
    };
    let logits = far(
        &found.logits().to_owned().into_dyn(),
        &expected.logits().to_owned().into_dyn(),
    );
    let jacobians = far(
        &found.jacobian().into_dyn(),
        &expected.jacobian().into_dyn(),
    );
    assert!(
        logits < 1e-12 && jacobians < 1e-12,
        "{logits:e}, {jacobians:e}"
    );
}

#[test]
fn the_native_format_keeps_every_operation_on_images() {
    for seed in 0..5 {
        let network = images(seed);
        let (read, _) = from_bytes::<f64>(&to_bytes(&network, &Metadata::new()).unwrap()).unwrap();
        assert_eq!(read.parameters(), network.parameters());
        for (a, b) in read.nodes().iter().zip(network.nodes()) {
            assert_eq!(
                (a.name(), a.shape(), a.constants()),
                (b.name(), b.shape(), b.constants())
            );
            if !matches!(b.gate(), Some(Gate::PRelu { .. })) {
                assert_eq!(a.operation(), b.operation());
            }
        }
        assert_same(&read, &network);
    }
}

#[test]
fn onnx_keeps_every_operation() {
    for seed in 0..5 {
        let network = images(seed);
        let model = onnx_from_bytes(&onnx_to_bytes(&network).unwrap()).unwrap();
        assert_same(model.network(), &network);
    }
    for gate in [
        Gate::Relu,
        Gate::Abs,
        Gate::PRelu { initial: 0.3 },
        Gate::LeakyRelu { slope: 0.25 },
    ] {
        let network = Mlp::new(&[4, 6, 3]).gate(gate).build::<f64>(1).unwrap();
        let model = onnx_from_bytes(&onnx_to_bytes(&network).unwrap()).unwrap();
        assert_same(model.network(), &network);
        // Gradients come back in the names and layouts that were written.
        let gradient = model.file_gradients(model.network().parameters());
        for (name, array) in network.parameters().iter() {
            let (_, found) = gradient.iter().find(|(n, _)| n == name).unwrap();
            assert_eq!(found, array);
        }
    }
}

#[test]
fn single_precision_is_kept() {
    let network = Mlp::new(&[4, 6, 3]).build::<f32>(1).unwrap();
    let model = onnx_from_bytes(&onnx_to_bytes(&network).unwrap()).unwrap();
    assert_eq!(
        model.network().cast::<f32>().parameters().values(),
        network.parameters().values()
    );
}

/// A file cut anywhere is refused, or read without what came last, but never a panic.
#[test]
fn a_file_cut_anywhere_does_not_panic() {
    let bytes = onnx_to_bytes(&images(1)).unwrap();
    for end in 0..bytes.len() {
        let _ = onnx_from_bytes(&bytes[..end]);
    }
}

#[test]
fn what_is_no_model_is_refused() {
    assert!(matches!(
        onnx_from_bytes(b"not a model"),
        Err(Error::NotOnnx { .. })
    ));
    assert!(matches!(onnx_from_bytes(b""), Err(Error::NotOnnx { .. })));
}
