//! Random layers on images for the networks of [`Recipe`](crate::recipe::Recipe)s.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use relugrad::{Operation, Window};

use crate::graph::{Graph, Maximum, Op};
use crate::linear::{Layer, Linear};
use crate::recipe::{GateChoice, entries, gate};

/// Units that a layer may have: the oracle multiplies explicit matrices.
const WIDEST: usize = 48;

/// Reads a node as an image of random shape and adds an affine layer or a maximum, and sometimes a
/// gate behind it.
pub fn step(graph: &mut Graph, node: usize, random: &mut ChaCha8Rng) -> usize {
    let shape = image(graph.width(node), random);
    let added = if random.random_range(0..4) == 0 {
        maximum(graph, node, shape, random)
    } else {
        linear(graph, node, shape, random)
    };
    let gates = [
        None,
        Some(GateChoice::Relu),
        Some(GateChoice::Leaky),
        Some(GateChoice::Clip),
    ];
    let choice = *gates.choose(random).expect("there are gates");
    choice.map_or(added, |choice| gate(graph, added, choice, random))
}

/// A shape with so many entries.
fn image(width: usize, random: &mut ChaCha8Rng) -> [usize; 3] {
    let divisor = |n: usize, random: &mut ChaCha8Rng| {
        let all: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
        *all.choose(random).expect("1 divides")
    };
    let channels = divisor(width, random);
    let height = divisor(width / channels, random);
    [channels, height, width / channels / height]
}

/// A window of a few taps that fits.
fn window(shape: [usize; 3], random: &mut ChaCha8Rng) -> Window {
    let kernel = [shape[1].min(3), shape[2].min(3)].map(|side| random.random_range(1..=side));
    let padding = kernel.map(|k| [random.random_range(0..k), random.random_range(0..k)]);
    let mut dilation = [1, 1];
    for axis in 0..2 {
        if 2 * (kernel[axis] - 1) < shape[axis + 1] {
            dilation[axis] = random.random_range(1..=2);
        }
    }
    let stride = [random.random_range(1..=2), random.random_range(1..=2)];
    Window::new(kernel)
        .padding(padding)
        .stride(stride)
        .dilation(dilation)
}

fn maximum(graph: &mut Graph, from: usize, shape: [usize; 3], random: &mut ChaCha8Rng) -> usize {
    let width = graph.width(from);
    let pieces = (2..=4).find(|pieces| width.is_multiple_of(*pieces));
    let maximum = match pieces {
        Some(pieces) if random.random() => Maximum::Maxout(pieces),
        _ => Maximum::Pool(shape, window(shape, random)),
    };
    graph.push(Op::Max { from, maximum })
}

fn linear(graph: &mut Graph, node: usize, shape: [usize; 3], random: &mut ChaCha8Rng) -> usize {
    let (from, layer) = match random.random_range(0..10) {
        0 if graph.width(node) + graph.inputs() <= WIDEST => {
            let vector = |node: usize| [graph.width(node), 1, 1];
            let shapes = vec![vector(0), vector(node)];
            (
                vec![0, node],
                Layer::of(Operation::Concat { axis: 0 }, shapes),
            )
        }
        1 if 2 * graph.width(node) <= WIDEST => {
            let axis = random.random_range(0..3);
            let shapes = vec![shape; 2];
            (vec![node; 2], Layer::of(Operation::Concat { axis }, shapes))
        }
        2 => (vec![node], average(shape, random)),
        3 => (vec![node], normalisation(shape, random)),
        4 => (vec![node], scale_shift(shape, random)),
        5 | 6 => (vec![node], rearrangement(shape, random)),
        _ => (vec![node], convolution(shape, random)),
    };
    let size = match &layer {
        Layer::Operation { outputs: 1.., .. } => 1.0,
        _ => 1.5,
    };
    let parameters = entries(layer.parameters(), size, random);
    let layer = Linear::new(layer, parameters);
    graph.push(Op::Linear { from, layer })
}

fn convolution(shape: [usize; 3], random: &mut ChaCha8Rng) -> Layer {
    let groups = if shape[0].is_multiple_of(2) {
        random.random_range(1..=2)
    } else {
        1
    };
    let most = (WIDEST / (shape[1] * shape[2])).clamp(1, 2);
    let outputs = groups * random.random_range(1..=most);
    let operation = Operation::Conv2d {
        window: window(shape, random),
        groups,
        bias: random.random(),
    };
    Layer::Operation {
        operation,
        shapes: vec![shape],
        outputs,
        constants: Vec::new(),
    }
}

fn average(shape: [usize; 3], random: &mut ChaCha8Rng) -> Layer {
    if random.random_range(0..4) == 0 {
        return Layer::of(Operation::Mean { axes: vec![1, 2] }, vec![shape]);
    }
    let pool = Operation::AveragePool {
        window: window(shape, random),
        count_padding: random.random(),
    };
    Layer::of(pool, vec![shape])
}

fn normalisation(shape: [usize; 3], random: &mut ChaCha8Rng) -> Layer {
    let axis = random.random_range(0..3);
    let variance = entries(shape[axis], 1.0, random);
    let mean = entries(shape[axis], 0.5, random);
    let epsilon = 0.1;
    Layer::Operation {
        operation: Operation::BatchNorm { axis, epsilon },
        shapes: vec![shape],
        outputs: 0,
        constants: vec![mean, variance.iter().map(|v| v.abs()).collect()],
    }
}

fn scale_shift(shape: [usize; 3], random: &mut ChaCha8Rng) -> Layer {
    let learned = random.random();
    let factor = if learned {
        vec![0.0; shape[0]]
    } else {
        entries(shape[0], 1.5, random)
    };
    Layer::ScaleShift {
        shape,
        factor,
        summand: random.random_range(-0.5..0.5),
        learned,
    }
}

fn rearrangement(shape: [usize; 3], random: &mut ChaCha8Rng) -> Layer {
    let axis = random.random_range(0..3);
    let last = shape[axis] - 1;
    match random.random_range(0..3) {
        0 => {
            let orders = [[2, 1, 0], [1, 2, 0], [0, 2, 1]];
            let axes = *orders.choose(random).expect("there are orders");
            let axes = axes.to_vec();
            Layer::of(Operation::Transpose { axes }, vec![shape])
        }
        1 => {
            let ranges = [
                (last, -1, last / 2 + 1),
                (0, 2, last / 2 + 1),
                (last, -1, last + 1),
            ];
            let range = *ranges.choose(random).expect("there are ranges");
            Layer::Slice { shape, axis, range }
        }
        _ => Layer::Pad {
            shape,
            axis,
            margins: [random.random_range(0..2), 1],
            value: random.random_range(-0.5..0.5),
        },
    }
}
