//! ONNX files: what is written is what is read, and what is refused says why.

use ndarray::{Array2, ArrayD, IxDyn, array};
use relugrad::{BatchNorm, Builder, Gate, Mlp, Network, NodeId, Window};
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
        &found.jacobian().unwrap().into_dyn(),
        &expected.jacobian().unwrap().into_dyn(),
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
        model.network().cast::<f32>().unwrap().parameters().values(),
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

/// A network of one node behind its input of a shape.
fn one(shape: &[usize], add: impl Fn(&mut Builder<f64>, NodeId) -> NodeId) -> Network<f64> {
    let mut builder = Builder::new();
    let x = builder.input_shaped(shape).unwrap();
    let y = add(&mut builder, x);
    builder.build(y).unwrap()
}

fn read_back(network: &Network<f64>) -> Network<f64> {
    let bytes = onnx_to_bytes(network).unwrap();
    onnx_from_bytes(&bytes).unwrap().into_network()
}

#[test]
fn networks_of_their_input_alone_and_of_scalars_are_written() {
    for shape in [&[][..], &[1], &[3], &[1, 3], &[1, 1, 1], &[2, 1, 3]] {
        assert_same(&read_back(&one(shape, |_, x| x)), &one(shape, |_, x| x));
        let gate = |b: &mut Builder<f64>, x| b.gate(x, Gate::Abs).unwrap();
        assert_same(&read_back(&one(shape, gate)), &one(shape, gate));
    }
}

#[test]
fn names_that_the_writer_would_use_itself_stay_apart() {
    let mut builder = Builder::new();
    let x = builder.input_shaped(&[2, 2]).unwrap();
    let z = builder.dense(x, array![[1.0, 2.0], [3.0, 4.0]], Some(array![0.5, -0.5]));
    let (z, fill) = (z.unwrap(), [Some(3), None, Some(0)]);
    let g = builder.gather(z, &[3], &fill, 0.25).unwrap();
    let a = builder.relu(g).unwrap();
    let f = builder.dense(a, array![[1.0, 2.0, -1.0]], None).unwrap();
    let names = ["dense0/product", "a", "dense0.weight", "a/flat"];
    for (node, name) in [x, g, a, f].into_iter().zip(names) {
        builder.rename(node, name).unwrap();
    }
    let network = builder.build(f).unwrap();
    let model = onnx_from_bytes(&onnx_to_bytes(&network).unwrap()).unwrap();
    assert_same(model.network(), &network);
    let found = model.network().nodes().iter().map(|node| node.name());
    let found: Vec<&str> = found.collect();
    assert!(names.iter().all(|name| found.contains(name)), "{found:?}");
}

/// Numbers that are not learned stay in double precision in a network of `f32`, and a file of `f32`
/// may not hold them.
#[test]
fn what_single_precision_does_not_hold_is_refused_by_name() {
    let scalar = |v: f64| ArrayD::from_elem(IxDyn(&[]), v);
    let norm = |mean: f64, variance: f64| BatchNorm {
        scale: array![1.0],
        shift: array![0.0],
        mean: array![mean],
        variance: array![variance],
        epsilon: 0.0,
    };
    let cases = [
        one(&[1], |b, x| b.scale(x, scalar(1e39), false).unwrap()),
        one(&[1], |b, x| b.shift(x, scalar(-1e39), false).unwrap()),
        one(&[1], |b, x| {
            b.gather(x, &[2], &[Some(0), None], 1e39).unwrap()
        }),
        one(&[1], |b, x| b.batch_norm(x, 0, norm(1e39, 1.0)).unwrap()),
        one(&[1], |b, x| b.batch_norm(x, 0, norm(0.0, 1e39)).unwrap()),
        one(&[1], |b, x| b.batch_norm(x, 0, norm(0.0, 1e-50)).unwrap()),
        one(&[1], |b, x| {
            b.gate(x, Gate::LeakyRelu { slope: 1e39 }).unwrap()
        }),
        one(&[1], |b, x| b.gate(x, clip(0.5, 0.5 + 1e-12)).unwrap()),
    ];
    for network in cases {
        let name = network.nodes()[1].name().to_owned();
        assert_same(&read_back(&network), &network);
        let error = onnx_to_bytes(&network.cast::<f32>().unwrap()).unwrap_err();
        assert!(
            matches!(&error, Error::Unwritable { node, .. } if *node == name),
            "{error}"
        );
        assert!(error.to_string().contains("write it in f64"), "{error}");
    }
}

fn clip(min: f64, max: f64) -> Gate {
    Gate::Clip { min, max }
}

/// Bounds beyond all numbers of a precision are none in it, but are bounds in the wider one.
#[test]
fn a_clip_is_written_with_the_bounds_that_it_has() {
    for (min, max) in [(-1e39, 0.5), (0.5, 1e39), (-1e39, 1e39)] {
        let network = one(&[2], |b, x| b.gate(x, clip(min, max)).unwrap());
        let x = array![[-1e40, 1e40], [-0.25, 0.75]];
        let found = read_back(&network).forward(x.view()).unwrap();
        assert_eq!(found, network.forward(x.view()).unwrap());
        let narrow = network.cast::<f32>().unwrap();
        let read = onnx_from_bytes(&onnx_to_bytes(&narrow).unwrap()).unwrap();
        let x = array![[-3e38_f32, 3e38], [-0.25, 0.75]];
        let read = read.network().cast::<f32>().unwrap();
        let found = read.forward(x.view()).unwrap();
        assert_eq!(found, narrow.forward(x.view()).unwrap());
    }
}

/// Up to version 18 an average has no dilations, and axes of a mean are an attribute; version 19
/// has both in other ways.
#[test]
fn a_dilated_average_is_written_by_newer_operators() {
    let window = Window::new([2, 2])
        .dilation([2, 1])
        .padding([[1, 0], [0, 1]]);
    for count in [false, true] {
        let network = one(&[2, 5, 4], |b, x| {
            let pooled = b.average_pool(x, window, count).unwrap();
            b.mean(pooled, &[1, 2]).unwrap()
        });
        assert_same(&read_back(&network), &network);
    }
}

/// Down a window reaches beyond the padding, across one that begins in the padding behind is
/// dropped: no number of positions that every program finds by rounding up.
#[test]
fn windows_that_programs_count_differently_are_written_by_padding() {
    let mut window = Window::new([2, 2]).stride([2, 3]).ceil(true);
    window.padding = [[0, 0], [1, 1]];
    let image = [1, 5, 5];
    for count in [false, true] {
        let average = one(&image, |b, x| b.average_pool(x, window, count).unwrap());
        assert_eq!(average.nodes()[1].shape(), [1, 3, 2]);
        assert_same(&read_back(&average), &average);
    }
    let maximum = one(&image, |b, x| b.max_pool(x, window).unwrap());
    assert_same(&read_back(&maximum), &maximum);
}
