//! Means of whole numbers beyond their type, padding that wraps around, empty axes.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// What `x + f(constants)` adds to `x`, a row of `width`.
fn added(nodes: Vec<NodeProto>, tensors: Vec<TensorProto>, width: usize) -> Vec<f64> {
    let model = model(nodes, tensors, &[1, width as i64]);
    let network = onnx_from_bytes(&model.encode_to_vec())
        .unwrap()
        .into_network();
    let x = ndarray::Array2::zeros((1, width));
    network
        .forward(x.view())
        .unwrap()
        .into_raw_vec_and_offset()
        .0
}

fn to_double(mut cast: NodeProto) -> NodeProto {
    cast.attribute = vec![integer("to", 11)];
    cast
}

#[test]
fn a_mean_of_whole_numbers_does_not_wrap_its_sum() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for (data_type, least, largest) in [(3, -128, 127), (2, 0, 255), (6, i32::MIN, i32::MAX)] {
        for _ in 0..20 {
            let n = random.random_range(2..20);
            let values: Vec<i32> = (0..n)
                .map(|_| random.random_range(least..=largest))
                .collect();
            // Towards one end, so that sums leave the type.
            let values: Vec<i32> = values.iter().map(|v| v / 8 + largest / 8 * 7).collect();
            let sum: i64 = values.iter().map(|&v| i64::from(v)).sum();
            let tensor = TensorProto {
                dims: vec![n],
                data_type,
                int32_data: values,
                name: "c".into(),
                ..TensorProto::default()
            };
            let nodes = vec![
                node("ReduceMean", &["c"], "m"),
                to_double(node("Cast", &["m"], "f")),
                node("Add", &["x", "f"], "y"),
            ];
            let found = added(nodes, vec![tensor], 1);
            assert_eq!(found[0], (sum / n) as f64, "type {data_type}");
        }
    }
}

/// What is cut off by negative pads comes back nowhere.
#[test]
fn padding_that_wraps_cuts_first() {
    for n in 1..5i64 {
        for before in -n..4 {
            for after in -n..4 {
                let kept: Vec<i64> = (1..=n)
                    .filter(|i| *i > -before && *i <= n + after.min(0))
                    .collect();
                if kept.is_empty() {
                    continue;
                }
                let length = n + before + after;
                let shift = before.max(0);
                let expected = (0..length)
                    .map(|i| kept[(i - shift).rem_euclid(kept.len() as i64) as usize] as f64);
                let expected: Vec<f64> = expected.collect();
                let values: Vec<f32> = (1..=n).map(|v| v as f32).collect();
                let mut pad = node("Pad", &["c", "p"], "w");
                pad.attribute = vec![AttributeProto {
                    name: "mode".into(),
                    s: b"wrap".to_vec(),
                    r#type: 3,
                    ..AttributeProto::default()
                }];
                let tensors = vec![floats("c", &[n], &values), integers("p", &[before, after])];
                let nodes = vec![pad, node("Add", &["x", "w"], "y")];
                let found = added(nodes, tensors, length as usize);
                assert_eq!(found, expected, "{n} {before} {after}");
            }
        }
    }
}

#[test]
fn a_step_backward_on_an_empty_axis_gives_nothing() {
    let mut concat = node("Concat", &["s", "c"], "w");
    concat.attribute = vec![integer("axis", 0)];
    let nodes = vec![
        node("ConstantOfShape", &["n"], "e"),
        node("Slice", &["e", "start", "end", "axis", "step"], "s"),
        concat,
        node("Add", &["x", "w"], "y"),
    ];
    let one = |name, value| integers(name, &[value]);
    let tensors = vec![
        one("n", 0),
        one("start", -1),
        one("end", i64::MIN),
        one("axis", 0),
        one("step", -1),
        floats("c", &[2], &[3.0, 4.0]),
    ];
    assert_eq!(added(nodes, tensors, 2), [3.0, 4.0]);
}
