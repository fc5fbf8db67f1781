//! Convolutions and pooling over any number of axes, transposed convolutions, products with stacks
//! and resampled axes, with drawn attributes, against numbers computed here.

use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::onnx::values::strides;

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: 7,
        ints: values.iter().map(|&v| v as i64).collect(),
        ..AttributeProto::default()
    }
}

fn int(name: &str, value: usize) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: 2,
        i: value as i64,
        ..AttributeProto::default()
    }
}

fn product(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// The index of an entry of an array of these dimensions.
fn index(dims: &[usize], entry: usize) -> Vec<usize> {
    let place = |(&n, step): (&usize, usize)| entry / step % n;
    dims.iter().zip(strides(dims)).map(place).collect()
}

/// A drawn window over `axes` axes.
struct Drawn {
    spatial: Vec<usize>,
    kernel: Vec<usize>,
    stride: Vec<usize>,
    dilation: Vec<usize>,
    before: Vec<usize>,
    behind: Vec<usize>,
}

impl Drawn {
    fn new(random: &mut ChaCha8Rng, axes: usize) -> Drawn {
        let mut draw = |low: usize, high: usize| -> Vec<usize> {
            (0..axes).map(|_| random.random_range(low..=high)).collect()
        };
        let kernel = draw(1, 3);
        let dilation = draw(1, 2);
        let extent = kernel.iter().zip(&dilation).map(|(k, d)| (k - 1) * d + 1);
        let spatial = extent.zip(draw(0, 3)).map(|(e, more)| e + more).collect();
        let pad = |draw: Vec<usize>| {
            draw.iter()
                .zip(&kernel)
                .map(|(&p, &k)| p.min(k - 1))
                .collect()
        };
        let (before, behind) = (pad(draw(0, 2)), pad(draw(0, 2)));
        let stride = draw(1, 3);
        Drawn {
            spatial,
            kernel,
            stride,
            dilation,
            before,
            behind,
        }
    }

    fn positions(&self) -> Vec<usize> {
        let along = |a: usize| {
            let padded = self.before[a] + self.spatial[a] + self.behind[a];
            (padded - (self.kernel[a] - 1) * self.dilation[a] - 1) / self.stride[a] + 1
        };
        (0..self.kernel.len()).map(along).collect()
    }

    fn attributes(&self) -> Vec<AttributeProto> {
        vec![
            ints("strides", &self.stride),
            ints("dilations", &self.dilation),
            ints("pads", &[&self.before[..], &self.behind].concat()),
        ]
    }

    /// The entry of the spatial axes that a tap meets at a position, if it is inside.
    fn met(&self, position: &[usize], tap: &[usize]) -> Option<usize> {
        let mut entry = 0;
        for (a, &n) in self.spatial.iter().enumerate() {
            let at = position[a] * self.stride[a] + tap[a] * self.dilation[a];
            let at = at.checked_sub(self.before[a]).filter(|&at| at < n)?;
            entry = entry * n + at;
        }
        Some(entry)
    }
}

fn values(random: &mut ChaCha8Rng, count: usize) -> Vec<f64> {
    (0..count)
        .map(|_| f64::from(random.random_range(-8i32..=8)) / 4.0)
        .collect()
}

fn signed(dims: &[usize]) -> Vec<i64> {
    dims.iter().map(|&n| n as i64).collect()
}

/// What a graph of one node gives for one input, taken as it is.
fn run(node: NodeProto, tensors: Vec<TensorProto>, dims: &[usize], x: &[f64]) -> Vec<f64> {
    let bytes = model(vec![node], tensors, &signed(dims)).encode_to_vec();
    let budget = Limits::default().budget(bytes.len() as u64);
    let selection = Selection {
        input_shape: Some(dims.to_vec()),
        ..Selection::default()
    };
    let read = read(bytes.into(), &budget, &selection, &|_, _| unreachable!());
    let network = read
        .unwrap_or_else(|error| panic!("{error}"))
        .into_network();
    let x = Array2::from_shape_vec((1, x.len()), x.to_vec()).unwrap();
    network
        .forward(x.view())
        .unwrap()
        .into_raw_vec_and_offset()
        .0
}

/// Channels and images of a convolution: `[batch, groups, channels and outputs of a group]`.
struct Channels {
    batch: usize,
    groups: usize,
    channels: usize,
    outputs: usize,
}

impl Channels {
    fn new(random: &mut ChaCha8Rng) -> Channels {
        let mut draw = || random.random_range(1..=2);
        Channels {
            batch: draw(),
            groups: draw(),
            channels: draw(),
            outputs: draw(),
        }
    }

    fn dims(&self, of_group: usize, spatial: &[usize]) -> Vec<usize> {
        [&[self.batch, self.groups * of_group], spatial].concat()
    }
}

/// A convolution by its definition; `w: [outputs, channels of a group, taps]`.
fn convolution(x: &[f64], w: &[f64], c: &Channels, window: &Drawn) -> Vec<f64> {
    let (positions, taps) = (window.positions(), product(&window.kernel));
    let (places, places_in) = (product(&positions), product(&window.spatial));
    let mut y = Vec::new();
    for b in 0..c.batch {
        for m in 0..c.groups * c.outputs {
            for p in 0..places {
                let mut sum = 0.0;
                for i in 0..c.channels {
                    let channel = (b * c.groups + m / c.outputs) * c.channels + i;
                    for t in 0..taps {
                        let (position, tap) = (index(&positions, p), index(&window.kernel, t));
                        if let Some(at) = window.met(&position, &tap) {
                            sum += w[(m * c.channels + i) * taps + t] * x[channel * places_in + at];
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 1e-9, "{what}: {f} against {e}");
    }
}

#[test]
fn convolutions_are_those_of_the_definition_and_transposed_ones_their_adjoints() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for round in 0..60 {
        let axes = 1 + round % 4;
        let (c, window) = (Channels::new(&mut random), Drawn::new(&mut random, axes));
        let (dims, positions) = (c.dims(c.channels, &window.spatial), window.positions());
        let taps = product(&window.kernel);
        let shape = [&[c.groups * c.outputs, c.channels], &window.kernel[..]].concat();
        let (x, w) = (
            values(&mut random, product(&dims)),
            values(&mut random, product(&shape)),
        );
        let weight = doubles("w", &signed(&shape), &w);
        let mut conv = node("Conv", &["x", "w"], "y");
        conv.attribute = window.attributes();
        conv.attribute.push(int("group", c.groups));
        let found = run(conv.clone(), vec![weight.clone()], &dims, &x);
        let expected = convolution(&x, &w, &c, &window);
        close(&found, &expected, &format!("round {round}"));

        // ⟨conv x, y⟩ = ⟨x, convT y⟩, whose weight has inputs and outputs the other way round, which
        // is how the file has it.
        let results = c.dims(c.outputs, &positions);
        let y = values(&mut random, product(&results));
        let mut transposed = node("ConvTranspose", &["x", "w"], "y");
        transposed.attribute = conv.attribute;
        let length = |a: usize| {
            let reached = (positions[a] - 1) * window.stride[a]
                + (window.kernel[a] - 1) * window.dilation[a]
                + 1;
            window.before[a] + window.spatial[a] + window.behind[a] - reached
        };
        let added: Vec<usize> = (0..axes).map(length).collect();
        transposed.attribute.push(ints("output_padding", &added));
        let back = run(transposed, vec![weight], &results, &y);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (left, right) = (dot(&expected, &y), dot(&x, &back));
        assert!(
            (left - right).abs() < 1e-8,
            "round {round}: {left} against {right}; {taps} taps"
        );
    }
}

#[test]
fn pooling_is_over_boxes_of_any_number_of_axes() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    for round in 0..80 {
        let axes = 1 + round % 4;
        let op = ["MaxPool", "AveragePool"][round / 4 % 2];
        let including = round % 3 == 0 && op == "AveragePool";
        let window = Drawn::new(&mut random, axes);
        let (batch, channels) = (random.random_range(1..=2), random.random_range(1..=2));
        let dims = [&[batch, channels], &window.spatial[..]].concat();
        let x = values(&mut random, product(&dims));
        let mut pool = node(op, &["x"], "y");
        pool.attribute = window.attributes();
        pool.attribute.push(ints("kernel_shape", &window.kernel));
        if including {
            pool.attribute.push(int("count_include_pad", 1));
        }
        let (positions, taps) = (window.positions(), product(&window.kernel));
        let mut expected = Vec::new();
        for plane in x.chunks(product(&window.spatial)) {
            for p in 0..product(&positions) {
                let met = (0..taps).filter_map(|t| {
                    window
                        .met(&index(&positions, p), &index(&window.kernel, t))
                        .map(|at| plane[at])
                });
                let met: Vec<f64> = met.collect();
                expected.push(match op {
                    "MaxPool" => met.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    _ => met.iter().sum::<f64>() / if including { taps } else { met.len() } as f64,
                });
            }
        }
        let mut proto = model(vec![pool.clone()], Vec::new(), &signed(&dims));
        proto.opset_import[0].version = 19;
        let bytes = proto.encode_to_vec();
        let budget = Limits::default().budget(bytes.len() as u64);
        let selection = Selection {
            input_shape: Some(dims.clone()),
            ..Selection::default()
        };
        let network = read(bytes.into(), &budget, &selection, &|_, _| unreachable!());
        let network = match network {
            Ok(model) => model.into_network(),
            // Dilated windows may lie between the entries.
            Err(error) if expected.iter().any(|v| !v.is_finite()) => {
                assert!(error.to_string().contains("padding"), "{error}");
                continue;
            }
            Err(error) => panic!("round {round}: {error}"),
        };
        let x = Array2::from_shape_vec((1, x.len()), x).unwrap();
        let found = network.forward(x.view()).unwrap();
        close(
            found.as_slice().unwrap(),
            &expected,
            &format!("round {round}, {op}"),
        );
    }
}

#[test]
fn stacks_of_matrices_are_multiplied_one_by_one() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for round in 0..60 {
        let left = round % 2 == 0;
        let [m, k, n] = [0; 3].map(|_| random.random_range(1..=3));
        let stack: Vec<usize> = (0..1 + round % 3)
            .map(|_| random.random_range(1..=3))
            .collect();
        // Each factor may leave out leading axes or repeat others.
        let mut of = |matrix: [usize; 2]| {
            let mut part = |&n: &usize| if random.random_range(0..3) == 0 { 1 } else { n };
            let own: Vec<usize> = stack.iter().map(&mut part).collect();
            let start = random.random_range(0..=own.len());
            [&own[start..], &matrix].concat()
        };
        let dims = [of([m, k]), of([k, n])];
        let (x_dims, w_dims) = if left {
            (&dims[1], &dims[0])
        } else {
            (&dims[0], &dims[1])
        };
        let (x, w) = (
            values(&mut random, product(x_dims)),
            values(&mut random, product(w_dims)),
        );
        let names = if left { ["w", "x"] } else { ["x", "w"] };
        let weight = doubles("w", &signed(w_dims), &w);
        let found = run(node("MatMul", &names, "y"), vec![weight], x_dims, &x);
        let lead = crate::onnx::values::broadcast(
            &dims[0][..dims[0].len() - 2],
            &dims[1][..dims[1].len() - 2],
        );
        let lead = lead.unwrap();
        let places = dims
            .clone()
            .map(|dims| crate::onnx::values::broadcast_places(&dims[..dims.len() - 2], &lead));
        let (a, b) = if left { (&w, &x) } else { (&x, &w) };
        let mut expected = Vec::new();
        for (&at, &bt) in places[0].iter().zip(&places[1]) {
            let (at, bt) = (at as usize * m * k, bt as usize * k * n);
            for i in 0..m * n {
                let (i, j) = (i / n, i % n);
                expected.push((0..k).map(|l| a[at + i * k + l] * b[bt + l * n + j]).sum());
            }
        }
        close(&found, &expected, &format!("round {round}"));
    }
}

#[test]
fn weights_of_resampled_axes_sum_to_one_and_keep_straight_lines() {
    // Where the coordinates are those of pixel centres, linear interpolation and cubic one with
    // Keys' coefficient keep a ramp but for its ends.
    for (mode, n, scale) in [("linear", 6, 2.0f32), ("linear", 5, 1.5), ("cubic", 8, 2.0)] {
        let mut resize = node("Resize", &["x", "", "s"], "y");
        resize.attribute = vec![AttributeProto {
            name: "mode".into(),
            r#type: 3,
            s: mode.into(),
            ..AttributeProto::default()
        }];
        resize.attribute.push(AttributeProto {
            name: "cubic_coeff_a".into(),
            r#type: 1,
            f: -0.5,
            ..AttributeProto::default()
        });
        let ramp: Vec<f64> = (0..n).map(|i| i as f64).collect();
        let found = run(
            resize,
            vec![floats("s", &[3], &[1.0, 1.0, scale])],
            &[1, 1, n],
            &ramp,
        );
        assert_eq!(found.len(), (n as f32 * scale) as usize);
        for (i, found) in found.iter().enumerate() {
            let place = (i as f64 + 0.5) / f64::from(scale) - 0.5;
            if (1.0..=n as f64 - 2.0).contains(&place) {
                assert!(
                    (found - place).abs() < 1e-6,
                    "{mode}: {found} against {place}"
                );
            } else {
                assert!(
                    (found - place).abs() < 0.6,
                    "{mode}: {found} against {place}"
                );
            }
        }
    }
}
