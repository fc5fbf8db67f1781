//! Gradients with respect to the arrays of a file, against differences of the loss when the file is
//! changed.

mod drawn;

use relugrad::{Loss, Objective, Penalty, Targets};

use super::*;
use drawn::Drawn;

const STEP: f64 = 1e-5;

/// The floating arrays of the file.
fn arrays(model: &mut ModelProto) -> Vec<&mut TensorProto> {
    let graph = model.graph.as_mut().unwrap();
    let held = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let held = held.filter_map(|attribute| attribute.t.as_mut());
    let all = graph.initializer.iter_mut().chain(held);
    all.filter(|tensor| tensor.data_type == 11).collect()
}

fn objective() -> Objective {
    let objective = Objective::new(Loss::softmax_cross_entropy());
    objective.with(Penalty::Jacobian, 0.3).unwrap()
}

/// The loss and a penalty, and their gradient.
fn evaluate(model: &Model) -> (f64, relugrad::Parameters<f64>) {
    let x = ndarray::array![[0.3, -0.7, 0.5], [-0.4, 0.2, 0.9], [0.8, 0.6, -0.1]];
    let targets = Targets::Classes(&[0, 1, 1]);
    let found = objective().gradient(model.network(), x.view(), &targets);
    let (evaluation, gradient) = found.unwrap();
    (evaluation.value, gradient)
}

fn read(model: &ModelProto) -> Model {
    onnx_from_bytes(&model.encode_to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

/// Compares all entries of all arrays with central differences, and returns how many there were.
fn check(mut proto: ModelProto, what: &str) -> usize {
    let model = read(&proto);
    let (value, gradient) = evaluate(&model);
    let gradients = model.file_gradients(&gradient);
    assert!(
        model.left_out().is_empty(),
        "{what}: {:?}",
        model.left_out()
    );
    let mut count = 0;
    for a in 0..arrays(&mut proto).len() {
        let (name, length) = {
            let array = &arrays(&mut proto)[a];
            (array.name.clone(), array.double_data.len())
        };
        let found = gradients.iter().find(|(n, _)| *n == name);
        let found = &found
            .unwrap_or_else(|| panic!("{what}: no gradient of {name}"))
            .1;
        let found: Vec<f64> = found.iter().copied().collect();
        let scale = found.iter().fold(value.abs(), |m, g| m.max(g.abs()));
        assert_eq!(found.len(), length);
        for (i, &exact) in found.iter().enumerate() {
            let mut at = |move_by: f64| {
                arrays(&mut proto)[a].double_data[i] += move_by;
                evaluate(&read(&proto)).0
            };
            let (above, below) = (at(STEP), at(-2.0 * STEP));
            at(STEP);
            let difference = (above - below) / (2.0 * STEP);
            assert!(
                (exact - difference).abs() < 1e-6 * scale.max(1.0),
                "{what}: entry {i} of {name}: {exact} against {difference}"
            );
            count += 1;
        }
    }
    count
}

#[test]
fn every_array_that_weights_are_computed_from_has_its_gradient() {
    let mut count = 0;
    for seed in 0..24 {
        let mut drawn = Drawn::new(seed);
        let depth = (seed % 4) as usize;
        count += check(drawn.network(depth), &format!("seed {seed}"));
    }
    assert!(count > 2000, "{count}");
}

/// The check sees a derivative that is wrong.
#[test]
#[should_panic(expected = "entry 0 of w")]
fn a_wrong_gradient_is_seen() {
    let mut w = doubles("w", &[3, 2], &[0.5, -0.25, 0.75, 1.0, -0.5, 0.3]);
    // ReLU between its kinks is the identity to differences, so a Round of the weight has steps
    // that they do not see, but a step right at the weight they do.
    let nodes = vec![
        node("Floor", &["w"], "steps"),
        node("Add", &["w", "steps"], "sum"),
        node("MatMul", &["x", "sum"], "y"),
    ];
    w.double_data[0] = 1.0;
    check(model(nodes, vec![w], &[1, 3]), "steps");
}

/// A weight kept in whole numbers has the gradient of the real numbers that it is made, and a shape
/// has none.
#[test]
fn weights_in_whole_numbers_have_the_gradient_of_their_values() {
    let mut flat = integers("w", &[1, -2, 3, 4, 0, 5]);
    let mut cast = node("Cast", &["rows"], "weight");
    cast.attribute = vec![integer("to", 11)];
    let nodes = |weight: &str| vec![node("MatMul", &["x", weight], "y")];
    let mut whole = vec![node("Reshape", &["w", "shape"], "rows"), cast];
    whole.extend(nodes("weight"));
    let shape = integers("shape", &[3, 2]);
    flat.dims = vec![6];
    let found = read(&model(whole, vec![flat, shape], &[1, 3]));
    let real = doubles("v", &[3, 2], &[1.0, -2.0, 3.0, 4.0, 0.0, 5.0]);
    let real = read(&model(nodes("v"), vec![real], &[1, 3]));
    assert!(found.left_out().is_empty(), "{:?}", found.left_out());
    let gradients = |model: &Model| model.file_gradients(&evaluate(model).1);
    let (found, real) = (gradients(&found), gradients(&real));
    assert_eq!((found.len(), &*found[0].0), (1, "w"));
    assert!(found[0].1.iter().eq(real[0].1.iter()));
}

/// What has no gradient is named, with the reason.
#[test]
fn arrays_without_gradient_are_named() {
    let left_out = |nodes: Vec<NodeProto>, tensors: Vec<TensorProto>| {
        let model = read(&model(nodes, tensors, &[1, 2]));
        let gradients = model.file_gradients(model.network().parameters());
        let names: Vec<String> = gradients.into_iter().map(|(name, _)| name).collect();
        let left: Vec<String> = model
            .left_out()
            .iter()
            .map(|l| format!("{}: {}", l.name, l.reason))
            .collect();
        (names, left)
    };
    let weight = || floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let bound = |name: &str, v: f32| floats(name, &[], &[v]);
    let clip = vec![
        node("Clip", &["x", "low", "high"], "c"),
        node("MatMul", &["c", "w"], "y"),
    ];
    let (names, left) = left_out(clip, vec![bound("low", -1.0), bound("high", 1.0), weight()]);
    assert_eq!(names, ["w"]);
    assert_eq!(left.len(), 2);
    assert!(
        left[0].starts_with("low: node `the Clip` (Clip)"),
        "{left:?}"
    );
    // The other use of an array does not make up for the one without gradient.
    let clip = vec![
        node("Clip", &["x", "low", "high"], "c"),
        node("Mul", &["c", "high"], "y"),
    ];
    let (names, left) = left_out(clip, vec![bound("low", -1.0), bound("high", 1.0)]);
    assert!(names.is_empty() && left.len() == 2, "{names:?} {left:?}");
    // Whole numbers change in steps, which add nothing to another use.
    let mut cast = node("Cast", &["w"], "whole");
    cast.attribute = vec![integer("to", 7)];
    let mut back = node("Cast", &["whole"], "steps");
    back.attribute = vec![integer("to", 1)];
    let steps = vec![
        cast.clone(),
        back.clone(),
        node("MatMul", &["x", "steps"], "y"),
    ];
    let (names, left) = left_out(steps, vec![weight()]);
    assert!(
        names.is_empty() && left[0].contains("(Cast) makes steps of it"),
        "{left:?}"
    );
    let both = vec![
        cast,
        back,
        node("Add", &["steps", "w"], "sum"),
        node("MatMul", &["x", "sum"], "y"),
    ];
    let (names, left) = left_out(both, vec![weight()]);
    assert!(names == ["w"] && left.is_empty(), "{names:?} {left:?}");
    // A weight kept in whole numbers with which the graph computes before it casts.
    let mut real = node("Cast", &["sum"], "weight");
    real.attribute = vec![integer("to", 1)];
    let computed = vec![
        node("Add", &["w", "zero"], "sum"),
        real,
        node("MatMul", &["x", "weight"], "y"),
    ];
    let mut kept = integers("w", &[1, 2, 3, 4]);
    kept.dims = vec![2, 2];
    let (names, left) = left_out(computed, vec![kept, integers("zero", &[-1])]);
    assert!(names.is_empty() && left.len() == 2, "{names:?} {left:?}");
    assert!(left[0].starts_with("w: node `the Cast` (Cast)"), "{left:?}");
    // A root has no derivative at 0.
    let root = vec![node("Sqrt", &["r"], "s"), node("Mul", &["x", "s"], "y")];
    let (names, left) = left_out(root, vec![floats("r", &[2], &[0.0, 1.0])]);
    assert!(
        names.is_empty() && left[0].contains("finite derivative"),
        "{left:?}"
    );
}

/// Weights of a stack, of a convolution over volumes, and of a transposed one.
#[test]
fn gradients_go_back_through_folded_and_flipped_weights() {
    let mut count = 0;
    for (operator, dims, weight) in [
        ("MatMul", &[1, 2, 3, 2][..], &[2, 2, 2][..]),
        ("Conv", &[1, 2, 2, 3, 2], &[2, 2, 2, 2, 1]),
        ("Conv", &[2, 2, 3, 2], &[1, 2, 2, 2]),
        ("ConvTranspose", &[1, 2, 3, 2], &[2, 2, 2, 2]),
        ("ConvTranspose", &[1, 2, 2, 1, 2], &[2, 1, 2, 1, 2]),
    ] {
        let width: i64 = dims.iter().product();
        let drawn = |name: &str, dims: &[i64]| {
            let length = dims.iter().product::<i64>() as usize;
            let value = |i: usize| ((i * 7919 + 13) % 97) as f64 / 60.0 - 0.8;
            doubles(name, dims, &(0..length).map(value).collect::<Vec<f64>>())
        };
        let mut spread = node("Reshape", &["h", "shape"], "volume");
        spread.name = "spread".into();
        let mut layer = node(operator, &["volume", "w"], "z");
        layer.name = "layer".into();
        let nodes = vec![
            node("MatMul", &["x", "first"], "h"),
            spread,
            layer,
            node("Relu", &["z"], "r"),
            node("Flatten", &["r"], "f"),
            node("ReduceMean", &["f"], "mean"),
            node("Mul", &["mean", "last"], "y"),
        ];
        let tensors = vec![
            drawn("first", &[3, width]),
            integers("shape", dims),
            drawn("w", weight),
            drawn("last", &[1, 2]),
        ];
        count += check(model(nodes, tensors, &[1, 3]), operator);
    }
    assert!(count > 200, "{count}");
}

/// Weights of which entries are put in other places.
#[test]
fn gradients_go_back_to_the_places_that_entries_come_from() {
    let rows = || {
        let values = [0.5, -0.25, 0.75, 1.0, -0.5, 0.3, 0.2, 0.9, -0.8];
        doubles("w", &[3, 3], &values)
    };
    let index = |name: &str, dims: &[i64], values: &[i64]| {
        let mut index = integers(name, values);
        index.dims = dims.to_vec();
        index
    };
    let new = doubles("n", &[1, 3], &[0.7, -0.6, 0.4]);
    let cases = [
        (node("Trilu", &["w"], "v"), vec![rows()]),
        (
            node("GatherND", &["w", "i"], "v"),
            vec![rows(), index("i", &[3, 1], &[2, -3, 2])],
        ),
        (
            node("ScatterND", &["w", "i", "n"], "v"),
            vec![rows(), index("i", &[1, 1], &[1]), new],
        ),
    ];
    for (made, tensors) in cases {
        let what = made.op_type.clone();
        let nodes = vec![made, node("MatMul", &["x", "v"], "y")];
        assert!(check(model(nodes, tensors, &[1, 3]), &what) >= 9);
    }
}
