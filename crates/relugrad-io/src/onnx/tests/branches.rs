//! Operators on branches and constants of all dimensions that broadcast, against numbers computed
//! here.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::onnx::values::{broadcast, broadcast_places};

const WIDTH: usize = 32;

/// A value with its numbers.
struct Branch {
    name: String,
    dims: Vec<usize>,
    values: Vec<f64>,
}

/// What an operator makes of two values, and a condition for Where.
fn computed(op: &str, a: &Branch, b: &Branch, condition: &[i32]) -> Option<Vec<f64>> {
    let dims = broadcast(&a.dims, &b.dims)?;
    let [left, right] = [a, b].map(|x| broadcast_places(&x.dims, &dims));
    let pairs = left.iter().zip(&right).enumerate();
    let value = |(i, (&l, &r)): (usize, (&u32, &u32))| {
        let (l, r) = (a.values[l as usize], b.values[r as usize]);
        match op {
            "Add" | "Sum" => l + r,
            "Sub" => l - r,
            "Mul" => l * r,
            "Div" => l / r,
            "Max" => l.max(r),
            "Min" => l.min(r),
            _ if condition[i % condition.len()] != 0 => l,
            _ => r,
        }
    };
    Some(pairs.map(value).collect())
}

#[test]
fn branches_and_constants_broadcast_in_either_order() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let x: Vec<f64> = (0..WIDTH)
        .map(|i| ((i * 37) % 23) as f64 / 8.0 - 1.25)
        .collect();
    let mut counts = [0; 2];
    for round in 0..600 {
        let op = ["Add", "Sum", "Sub", "Mul", "Div", "Max", "Min", "Where"][round % 8];
        let rank = random.random_range(1..4);
        let whole: Vec<usize> = (0..rank).map(|_| random.random_range(1..4)).collect();
        let (mut nodes, mut tensors) = (Vec::new(), Vec::new());
        // Which of both are branches of the network.
        let kinds = match op {
            "Mul" => [[true, false], [false, true]][round / 8 % 2],
            "Div" => [true, false],
            _ => [[true, false], [false, true], [true, true]][round / 8 % 3],
        };
        let branches = [0, 1].map(|side: usize| {
            let mut dims: Vec<usize> = whole
                .iter()
                .map(|&n| if random.random_range(0..3) == 0 { 1 } else { n })
                .collect();
            if random.random_range(0..3) == 0 {
                dims.remove(0);
            }
            let leading = random.random_range(0..2);
            dims.splice(0..0, vec![1; leading]);
            let name = format!("v{side}");
            let count: usize = dims.iter().product();
            let start = random.random_range(0..=WIDTH - count);
            let values = x[start..start + count].to_vec();
            if kinds[side] {
                let target = format!("dims{side}");
                let ends = [
                    ("starts", vec![start]),
                    ("ends", vec![start + count]),
                    ("axes", vec![1]),
                ];
                let inputs: Vec<String> =
                    ends.iter().map(|(end, _)| format!("{end}{side}")).collect();
                for ((_, value), name) in ends.iter().zip(&inputs) {
                    tensors.push(integers(name, &[value[0] as i64]));
                }
                let shape: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
                tensors.push(integers(&target, &shape));
                let flat = format!("flat{side}");
                let inputs: Vec<&str> = ["x"]
                    .into_iter()
                    .chain(inputs.iter().map(String::as_str))
                    .collect();
                nodes.push(node("Slice", &inputs, &flat));
                nodes.push(node("Reshape", &[&flat, &target], &name));
            } else {
                let shape: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
                let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                tensors.push(floats(&name, &shape, &values));
            }
            Branch { name, dims, values }
        });
        let [a, b] = &branches;
        let condition: Vec<i32> = (0..a
            .dims
            .last()
            .copied()
            .unwrap_or(1)
            .max(b.dims.last().copied().unwrap_or(1)))
            .map(|_| random.random_range(0..2))
            .collect();
        let mut inputs = vec![a.name.as_str(), &b.name];
        if op == "Where" {
            let dims = [condition.len() as i64];
            tensors.push(truths("mask", &dims, condition.clone()));
            inputs.insert(0, "mask");
        }
        nodes.push(node(op, &inputs, "y"));
        let expected = computed(op, a, b, &condition).unwrap();
        let proto = model(nodes, tensors, &[1, WIDTH as i64]);
        let what = format!("{op} of {:?} and {:?}, branches {kinds:?}", a.dims, b.dims);
        let read = match onnx_from_bytes(&proto.encode_to_vec()) {
            Ok(read) => read,
            Err(error) => {
                // Constants without a place in the graph's dimensions, or divisions by 0.
                assert!(
                    error.to_string().contains("divides by 0"),
                    "{what}: {error}"
                );
                continue;
            }
        };
        let input = ndarray::Array2::from_shape_vec((1, WIDTH), x.clone()).unwrap();
        let found = read.network().forward(input.view()).unwrap();
        assert_eq!(found.len(), expected.len(), "{what}");
        let far = found
            .iter()
            .zip(&expected)
            .any(|(a, b)| (a - b).abs() > 1e-12);
        assert!(!far, "{what}: {found} against {expected:?}");
        counts[usize::from(kinds == [true, true])] += 1;
    }
    assert!(counts[0] > 200 && counts[1] > 100, "{counts:?}");
}
