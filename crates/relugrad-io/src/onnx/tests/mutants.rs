//! Subgraphs of constants with something changed: they are read or refused, at once and without a
//! panic.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::subgraphs::{base64, golden};
use super::*;

/// Mutants of each subgraph; more for a campaign by this variable.
const EACH: &str = "RELUGRAD_MUTANTS_EACH";

const OPERATORS: &[&str] = &[
    "Add",
    "ArgMax",
    "Cast",
    "Clip",
    "Concat",
    "ConstantOfShape",
    "Conv",
    "Div",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "Gemm",
    "MatMul",
    "Max",
    "Mod",
    "Pad",
    "Pow",
    "Range",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "Reshape",
    "Shape",
    "Slice",
    "Split",
    "Squeeze",
    "Sum",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Whole numbers that ask for trouble.
fn odd(random: &mut ChaCha8Rng) -> i64 {
    let some = [
        0,
        1,
        2,
        3,
        5,
        -1,
        -2,
        -3,
        63,
        64,
        65,
        1000,
        1 << 20,
        1 << 24,
        1 << 31,
        1 << 40,
        1 << 62,
        i64::MAX,
        i64::MIN,
        i64::MIN + 1,
    ];
    some[random.random_range(0..some.len())]
}

fn change_tensor(tensor: &mut TensorProto, random: &mut ChaCha8Rng) {
    let count = tensor.int64_data.len().max(tensor.raw_data.len() / 8);
    match random.random_range(0..5) {
        0 if !tensor.dims.is_empty() => {
            let at = random.random_range(0..tensor.dims.len());
            tensor.dims[at] = odd(random);
        }
        1 => tensor
            .dims
            .push([0, 1, 1, odd(random)][random.random_range(0..4)]),
        2 => {
            tensor.dims.pop();
        }
        3 => tensor.data_type = random.random_range(0..18),
        _ if count > 0 => {
            let (at, value) = (random.random_range(0..count), odd(random));
            if tensor.raw_data.is_empty() {
                tensor.int64_data[at] = value;
            } else {
                let mut raw = tensor.raw_data.to_vec();
                raw[8 * at..8 * at + 8].copy_from_slice(&value.to_le_bytes());
                tensor.raw_data = raw.into();
            }
        }
        _ => {}
    }
}

fn change_node(graph: &mut GraphProto, random: &mut ChaCha8Rng) {
    let names: Vec<String> = graph
        .node
        .iter()
        .flat_map(|node| node.output.clone())
        .collect();
    let names: Vec<String> = names
        .into_iter()
        .chain(graph.initializer.iter().map(|t| t.name.clone()))
        .collect();
    let place = random.random_range(0..graph.node.len());
    let node = &mut graph.node[place];
    match random.random_range(0..6) {
        0 => node.op_type = OPERATORS[random.random_range(0..OPERATORS.len())].into(),
        1 if !node.input.is_empty() => {
            let at = random.random_range(0..node.input.len());
            node.input[at] = names[random.random_range(0..names.len())].clone();
        }
        2 => {
            node.input.pop();
        }
        3 => node
            .input
            .push(names[random.random_range(0..names.len())].clone()),
        4 if !node.attribute.is_empty() => {
            let at = random.random_range(0..node.attribute.len());
            let attribute = &mut node.attribute[at];
            attribute.i = odd(random);
            attribute.ints.iter_mut().for_each(|i| *i = odd(random));
            if let Some(tensor) = &mut attribute.t {
                change_tensor(tensor, random);
            }
        }
        _ => {
            let at = random.random_range(0..=node.attribute.len());
            node.attribute.truncate(at);
        }
    }
}

#[test]
fn changed_subgraphs_are_read_or_refused() {
    let each = std::env::var(EACH).map_or(8, |text| text.parse().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (mut read, mut longest) = (0, Duration::ZERO);
    for case in golden()["cases"].as_array().unwrap() {
        let subgraph = ModelProto::decode(&base64(case["file"].as_str().unwrap())[..]).unwrap();
        for _ in 0..each {
            let mut mutant = subgraph.clone();
            for _ in 0..random.random_range(1..4) {
                let graph = mutant.graph.as_mut().unwrap();
                if random.random::<bool>() && !graph.initializer.is_empty() {
                    let at = random.random_range(0..graph.initializer.len());
                    change_tensor(&mut graph.initializer[at], &mut random);
                } else {
                    change_node(graph, &mut random);
                }
            }
            let bytes = mutant.encode_to_vec();
            let start = Instant::now();
            read += usize::from(onnx_from_bytes(&bytes).is_ok());
            longest = longest.max(start.elapsed());
        }
    }
    println!("{read} read, the longest in {longest:?}");
    assert!(read > 0 && longest < Duration::from_secs(10));
}
