//! Values, Jacobians and margins of every node of a [`Graph`], by explicit products of masked
//! matrices.

use crate::graph::{GateKind, Graph, Op};
use crate::linear::Linear;
use crate::matrix::{
    Matrix, add, dot, flatten, identity, norm, outer, plus, product, scaled, times,
    transposed_times, zeros,
};

/// What every gate selects: for each gate node (in order) and unit, the number of its [`Piece`].
pub type Pattern = Vec<Vec<usize>>;

/// One of the affine functions of which a unit of a gate is made: `slope · z_unit + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// Which unit of the node that the gate reads.
    pub unit: usize,
    /// The slope.
    pub slope: f64,
    /// The offset.
    pub offset: f64,
}

impl Piece {
    fn value(&self, z: &[f64]) -> f64 {
        let linear = self.slope * z[self.unit];
        if self.offset == 0.0 {
            linear
        } else {
            linear + self.offset
        }
    }

    /// The derivative of the piece from that of the node that the gate reads.
    pub fn derivative(&self, below: &Matrix) -> Vec<f64> {
        scaled(self.slope, &below[self.unit])
    }
}

/// A network at one input.
#[derive(Clone, Debug)]
pub struct Point {
    /// Value of every node.
    pub values: Matrix,
    /// Derivative of every node in the input.
    pub jacobians: Vec<Matrix>,
    /// What the gates select.
    pub pattern: Pattern,
}

/// How far a gate is from another piece: `m ≥ 0` where the pattern is the right one.
#[derive(Clone, Debug)]
pub struct Margin {
    /// The gate node, in the order of gates.
    pub gate: usize,
    /// The unit.
    pub unit: usize,
    /// The piece that it selects where the margin is negative.
    pub piece: usize,
    /// `m`: of a gate `z` if active and `−z` if not, of a maximum the winner less another entry.
    pub value: f64,
    /// Its derivative in the input.
    pub gradient: Vec<f64>,
    /// Size of the terms that `m` is a sum of.
    pub scale: f64,
}

impl Point {
    /// The logits.
    pub fn logits(&self) -> &[f64] {
        self.values.last().expect("a network has an output")
    }

    /// The Jacobian `J` of the logits.
    pub fn jacobian(&self) -> &Matrix {
        self.jacobians.last().expect("a network has an output")
    }
}

/// The pieces of each unit of a gate, inactive before active, below before inside before above,
/// entry by entry.
fn pieces(op: &Op, width: usize) -> Vec<Vec<Piece>> {
    let piece = |unit, slope, offset| Piece {
        unit,
        slope,
        offset,
    };
    match op {
        Op::Gate {
            kind: GateKind::Clip(lower, upper),
            ..
        } => {
            let unit = |i| {
                vec![
                    piece(i, 0.0, *lower),
                    piece(i, 1.0, 0.0),
                    piece(i, 0.0, *upper),
                ]
            };
            (0..width).map(unit).collect()
        }
        Op::Gate { kind, .. } => {
            let unit = |i| vec![piece(i, kind.slope(i), 0.0), piece(i, 1.0, 0.0)];
            (0..width).map(unit).collect()
        }
        Op::Max { maximum, .. } => {
            let entries =
                |window: &Vec<usize>| window.iter().map(|&i| piece(i, 1.0, 0.0)).collect();
            maximum.windows(width).iter().map(entries).collect()
        }
        _ => unreachable!("it is a gate"),
    }
}

/// Which piece each unit of a gate selects.
fn choices(op: &Op, z: &[f64]) -> Vec<usize> {
    match op {
        Op::Gate {
            kind: GateKind::Clip(lower, upper),
            ..
        } => {
            let choice = |z: &f64| usize::from(z > lower) + usize::from(z >= upper);
            z.iter().map(choice).collect()
        }
        Op::Gate { .. } => z.iter().map(|&z| usize::from(z > 0.0)).collect(),
        Op::Max { maximum, .. } => {
            let first = |window: &Vec<usize>| {
                let better = |best, i| {
                    if z[window[i]] > z[window[best]] {
                        i
                    } else {
                        best
                    }
                };
                (0..window.len()).fold(0, better)
            };
            maximum.windows(z.len()).iter().map(first).collect()
        }
        _ => unreachable!("it is a gate"),
    }
}

/// `Σ c z_i + offset`, which is positive where the choice of a unit is right, and negative where it
/// takes `piece`.
struct Condition {
    piece: usize,
    terms: Vec<(f64, usize)>,
    offset: f64,
}

/// What a unit's choice rests on.
fn conditions(op: &Op, pieces: &[Piece], choice: usize) -> Vec<Condition> {
    let of_unit = |piece, sign, offset| Condition {
        piece,
        terms: vec![(sign, pieces[0].unit)],
        offset,
    };
    match op {
        Op::Gate {
            kind: GateKind::Clip(lower, upper),
            ..
        } => match choice {
            0 => vec![of_unit(1, -1.0, *lower)],
            1 => vec![of_unit(0, 1.0, -lower), of_unit(2, -1.0, *upper)],
            _ => vec![of_unit(1, 1.0, -upper)],
        },
        Op::Gate { .. } if choice == 1 => vec![of_unit(0, 1.0, 0.0)],
        Op::Gate { .. } => vec![of_unit(1, -1.0, 0.0)],
        _ => {
            let others = (0..pieces.len()).filter(|&other| other != choice);
            let beats = |other: usize| Condition {
                piece: other,
                terms: vec![(1.0, pieces[choice].unit), (-1.0, pieces[other].unit)],
                offset: 0.0,
            };
            others.map(beats).collect()
        }
    }
}

impl Graph {
    /// Runs one input through the network.
    pub fn at(&self, x: &[f64]) -> Point {
        self.run(x, None)
    }

    /// Runs one input through the frozen network, whose gates select `pattern` whatever the input.
    pub fn frozen(&self, x: &[f64], pattern: &Pattern) -> Point {
        self.run(x, Some(pattern))
    }

    fn run(&self, x: &[f64], frozen: Option<&Pattern>) -> Point {
        let (values, pattern) = self.values(x, frozen);
        Point {
            jacobians: self.derivatives(0, &pattern),
            values,
            pattern,
        }
    }

    /// What every gate selects at `x`.
    pub fn pattern(&self, x: &[f64]) -> Pattern {
        self.values(x, None).1
    }

    /// The logits at `x`.
    pub fn logits(&self, x: &[f64]) -> Vec<f64> {
        self.values(x, None)
            .0
            .pop()
            .expect("a network has an output")
    }

    /// The pieces of each unit of the gate at a node.
    pub fn pieces(&self, node: usize) -> Vec<Vec<Piece>> {
        let from = self.nodes[node].selects().expect("it is a gate");
        pieces(&self.nodes[node], self.width(from))
    }

    /// The value of every node, and the pattern unless it is given.
    fn values(&self, x: &[f64], frozen: Option<&Pattern>) -> (Matrix, Pattern) {
        let (mut values, mut pattern) = (Matrix::new(), Pattern::new());
        for (node, op) in self.nodes.iter().enumerate() {
            let value = match op {
                Op::Input(_) => x.to_vec(),
                Op::Dense { from, weight, bias } => {
                    let product = times(weight, &values[*from]);
                    bias.as_ref()
                        .map_or(product.clone(), |b| add(&product, 1.0, b))
                }
                Op::Gate { from, .. } | Op::Max { from, .. } => {
                    let z: &Vec<f64> = &values[*from];
                    let chosen = match frozen {
                        Some(frozen) => frozen[pattern.len()].clone(),
                        None => choices(op, z),
                    };
                    let pairs = self.pieces(node).into_iter().zip(&chosen);
                    let value = pairs
                        .map(|(pieces, &choice)| pieces[choice].value(z))
                        .collect();
                    pattern.push(chosen);
                    value
                }
                Op::Sum(nodes) => {
                    let zero = vec![0.0; values[nodes[0]].len()];
                    nodes
                        .iter()
                        .fold(zero, |sum, &node| add(&sum, 1.0, &values[node]))
                }
                Op::Linear { from, layer } => {
                    layer.values(&from.iter().map(|&node| &values[node]).collect::<Vec<_>>())
                }
            };
            values.push(value);
        }
        (values, pattern)
    }

    /// The derivative of every node of the frozen network in the value of `source`, by products of
    /// matrices.
    fn derivatives(&self, source: usize, pattern: &Pattern) -> Vec<Matrix> {
        let width = self.width(source);
        let mut all: Vec<Matrix> = Vec::new();
        let mut gates = pattern.iter();
        for (i, op) in self.nodes.iter().enumerate() {
            let derivative = match op {
                Op::Input(inputs) => zeros(*inputs, width),
                Op::Dense { from, weight, .. } => product(weight, &all[*from]),
                Op::Gate { from, .. } | Op::Max { from, .. } => {
                    let chosen = gates.next().expect("a layer of choices for each gate");
                    let units = self.pieces(i).into_iter().zip(chosen);
                    units
                        .map(|(pieces, &choice)| pieces[choice].derivative(&all[*from]))
                        .collect()
                }
                Op::Sum(nodes) => {
                    let zero = zeros(self.width(i), width);
                    nodes
                        .iter()
                        .fold(zero, |sum, &node| plus(&sum, 1.0, &all[node]))
                }
                Op::Linear { from, layer } => {
                    let below: Vec<&Matrix> = from.iter().map(|&node| &all[node]).collect();
                    layer.derivatives(&below, width)
                }
            };
            all.push(if i == source {
                identity(width)
            } else {
                derivative
            });
        }
        all
    }

    /// The derivative of the logits in the value of `node`, in the frozen network: `B` of theory,
    /// section 3.
    pub fn sensitivity(&self, node: usize, pattern: &Pattern) -> Matrix {
        self.derivatives(node, pattern)
            .pop()
            .expect("a network has an output")
    }

    /// The derivative of `⟨u, f⟩` in all parameters at a point, node by node: `Bᵀ u` times what the
    /// node reads.
    pub fn logit_pullback(&self, point: &Point, u: &[f64]) -> Vec<f64> {
        let mut gradient = Vec::new();
        let mut gates = point.pattern.iter();
        for (node, op) in self.nodes.iter().enumerate() {
            let above = || transposed_times(&self.sensitivity(node, &point.pattern), u);
            match op {
                Op::Dense { from, bias, .. } => {
                    gradient.extend(flatten(&outer(&above(), &point.values[*from])));
                    gradient.extend(bias.iter().flat_map(|_| above()));
                }
                Op::Gate { from, kind } => {
                    let chosen = gates.next().expect("a layer of choices for each gate");
                    if let GateKind::Prelu(_) = kind {
                        let z = point.values[*from].iter().zip(chosen);
                        let below = z.map(|(&z, &choice)| if choice == 1 { 0.0 } else { z });
                        gradient.extend(above().iter().zip(below).map(|(c, z)| c * z));
                    }
                }
                Op::Max { .. } => _ = gates.next(),
                Op::Linear { from, layer } => {
                    let above = above();
                    let value = |(node, unit): (usize, usize)| point.values[from[node]][unit];
                    let product =
                        |output: usize, input: Option<_>| above[output] * input.map_or(1.0, value);
                    gradient.extend(layer.pullback(product));
                }
                _ => {}
            }
        }
        gradient
    }

    /// The nodes of gates and maxima, in order.
    pub fn gates(&self) -> impl Iterator<Item = usize> + '_ {
        let selects = |&node: &usize| self.nodes[node].selects().is_some();
        (0..self.nodes.len()).filter(selects)
    }

    /// The margins of all gates at a point of this network.
    pub fn margins(&self, point: &Point) -> Vec<Margin> {
        let mut margins = Vec::new();
        for (gate, node) in self.gates().enumerate() {
            let op = &self.nodes[node];
            let from = op.selects().expect("it is a gate");
            let (scales, z, rows) = (
                self.scales(from, point),
                &point.values[from],
                &point.jacobians[from],
            );
            for (unit, pieces) in self.pieces(node).iter().enumerate() {
                for condition in conditions(op, pieces, point.pattern[gate][unit]) {
                    let Condition {
                        piece,
                        terms,
                        offset,
                    } = condition;
                    let zero = vec![0.0; point.values[0].len()];
                    let sizes = terms.iter().map(|(_, i)| scales[*i]).sum::<f64>();
                    margins.push(Margin {
                        gate,
                        unit,
                        piece,
                        value: offset + terms.iter().map(|(c, i)| c * z[*i]).sum::<f64>(),
                        gradient: terms
                            .iter()
                            .fold(zero, |sum, (c, i)| add(&sum, *c, &rows[*i])),
                        scale: offset.abs() + sizes,
                    });
                }
            }
        }
        margins
    }

    /// Size of the terms that each value of a node is a sum of, counting terms of at least the size
    /// of 1.
    fn scales(&self, node: usize, point: &Point) -> Vec<f64> {
        let absolute = |values: &[f64]| values.iter().map(|v| v.abs()).collect::<Vec<f64>>();
        match &self.nodes[node] {
            Op::Dense { from, weight, bias } => {
                let below = absolute(&point.values[*from]);
                let bias = |j: usize| bias.as_ref().map_or(0.0, |bias| bias[j].abs());
                let sums = weight.iter().map(|row| dot(&absolute(row), &below));
                sums.enumerate()
                    .map(|(j, sum)| (sum + bias(j)).max(1e-3))
                    .collect()
            }
            Op::Linear { from, layer } => {
                let below: Vec<&Vec<f64>> = from.iter().map(|&node| &point.values[node]).collect();
                layer
                    .scales(&below)
                    .iter()
                    .map(|scale| scale.max(1e-3))
                    .collect()
            }
            _ => vec![norm(&point.values[node]).max(1e-3); point.values[node].len()],
        }
    }

    /// The smallest margin of all gates relative to its scale; infinite without gates.
    pub fn distance_from_kinks(&self, x: &[f64]) -> f64 {
        let margins = self.margins(&self.at(x));
        let relative = margins.iter().map(|margin| margin.value / margin.scale);
        relative.fold(f64::INFINITY, f64::min)
    }

    /// The graph whose parameters, constants and slopes are the absolute values, with sums for
    /// maxima: its values at `|x|` and its Jacobian bound the sums of absolute values that rounding
    /// errors of this one are proportional to. Fixed slopes are at most 1 here and clips have 0
    /// between their bounds, so all units are to be [active](Self::all_active).
    pub fn absolute(&self) -> Graph {
        let absolute: Vec<f64> = self.parameters().iter().map(|p| p.abs()).collect();
        let mut graph = self.with_parameters(&absolute);
        for node in 0..graph.nodes.len() {
            match &mut graph.nodes[node] {
                Op::Linear { layer, .. } => *layer = layer.absolute(),
                Op::Max { from, maximum } => {
                    let (from, maximum) = (*from, maximum.clone());
                    graph.nodes[node] = Op::Linear {
                        from: vec![from],
                        layer: Linear::sums(&maximum.windows(self.width(from))),
                    };
                }
                _ => {}
            }
        }
        graph
    }

    /// The pattern of a network without maxima in which every unit is active.
    pub fn all_active(&self) -> Pattern {
        let active = |node| vec![1; self.width(node)];
        self.gates().map(active).collect()
    }

    /// Size of the logits and of the Jacobian at `x` counting all terms of all sums with a positive
    /// sign.
    pub fn sizes(&self, x: &[f64]) -> (f64, f64) {
        let absolute: Vec<f64> = x.iter().map(|x| x.abs()).collect();
        let graph = self.absolute();
        let point = graph.frozen(&absolute, &graph.all_active());
        let jacobian: f64 = point.jacobian().iter().map(|row| dot(row, row)).sum();
        (norm(point.logits()), jacobian.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::GateKind;

    #[test]
    fn a_small_network_by_hand() {
        let layers = vec![
            Op::Dense {
                from: 0,
                weight: vec![vec![1.0, -1.0], vec![2.0, 0.0]],
                bias: Some(vec![0.0, -1.0]),
            },
            Op::Gate {
                from: 0,
                kind: GateKind::Leaky(0.5),
            },
            Op::Dense {
                from: 0,
                weight: vec![vec![1.0, 1.0]],
                bias: None,
            },
        ];
        let graph = Graph::chain(2, layers);
        let point = graph.at(&[1.0, 3.0]);
        assert_eq!(point.logits(), [0.0]);
        assert_eq!(point.jacobian(), &[[2.5, -0.5]]);
        assert_eq!(point.pattern, [[0, 1]]);
        assert_eq!(graph.sensitivity(1, &point.pattern), [[0.5, 1.0]]);
        let margins = graph.margins(&point);
        assert_eq!((margins[0].value, margins[1].value), (2.0, 1.0));
        assert_eq!(margins[0].gradient, [-1.0, 1.0]);
    }
}
