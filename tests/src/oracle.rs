//! Values, Jacobians and margins of every node of a [`Graph`], by explicit products of masked matrices.

use crate::graph::{GateKind, Graph, Op};
use crate::matrix::{
    Matrix, add, dot, flatten, identity, norm, outer, plus, product, scaled, times,
    transposed_times, zeros,
};

/// What every gate selects: for each gate node (in order), which units are active.
pub type Pattern = Vec<Vec<bool>>;

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

/// How far a gate is from its kink: `m ≥ 0` where the pattern is the right one.
#[derive(Clone, Debug)]
pub struct Margin {
    /// The gate node, in the order of gates.
    pub gate: usize,
    /// The unit.
    pub unit: usize,
    /// `m`, `z` if active and `−z` if not.
    pub value: f64,
    /// Its derivative in the input.
    pub gradient: Vec<f64>,
    /// Size of the terms that `z` is a sum of.
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

/// The slope of each unit of a gate.
fn slopes<'a>(kind: &'a GateKind, active: &'a [bool]) -> impl Iterator<Item = f64> + 'a {
    let slope = |(unit, &active): (usize, &bool)| if active { 1.0 } else { kind.slope(unit) };
    active.iter().enumerate().map(slope)
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

    /// The value of every node, and the pattern unless it is given.
    fn values(&self, x: &[f64], frozen: Option<&Pattern>) -> (Matrix, Pattern) {
        let (mut values, mut pattern) = (Matrix::new(), Pattern::new());
        for op in &self.nodes {
            let value = match op {
                Op::Input(_) => x.to_vec(),
                Op::Dense { from, weight, bias } => {
                    let product = times(weight, &values[*from]);
                    bias.as_ref()
                        .map_or(product.clone(), |b| add(&product, 1.0, b))
                }
                Op::Gate { from, kind } => {
                    let z: &Vec<f64> = &values[*from];
                    let active = match frozen {
                        Some(frozen) => frozen[pattern.len()].clone(),
                        None => z.iter().map(|&z| z > 0.0).collect(),
                    };
                    let pairs = z.iter().zip(slopes(kind, &active));
                    let value = pairs.map(|(z, slope)| slope * z).collect();
                    pattern.push(active);
                    value
                }
                Op::Sum(nodes) => {
                    let zero = vec![0.0; values[nodes[0]].len()];
                    nodes
                        .iter()
                        .fold(zero, |sum, &node| add(&sum, 1.0, &values[node]))
                }
            };
            values.push(value);
        }
        (values, pattern)
    }

    /// The derivative of every node of the frozen network in the value of `source`, by products of matrices.
    fn derivatives(&self, source: usize, pattern: &Pattern) -> Vec<Matrix> {
        let width = self.width(source);
        let mut all: Vec<Matrix> = Vec::new();
        let mut gates = pattern.iter();
        for (i, op) in self.nodes.iter().enumerate() {
            let derivative = match op {
                Op::Input(inputs) => zeros(*inputs, width),
                Op::Dense { from, weight, .. } => product(weight, &all[*from]),
                Op::Gate { from, kind } => {
                    let active = gates.next().expect("a layer of bits for each gate");
                    let rows = all[*from].iter().zip(slopes(kind, active));
                    rows.map(|(row, slope)| scaled(slope, row)).collect()
                }
                Op::Sum(nodes) => {
                    let zero = zeros(self.width(i), width);
                    nodes
                        .iter()
                        .fold(zero, |sum, &node| plus(&sum, 1.0, &all[node]))
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

    /// The derivative of the logits in the value of `node`, in the frozen network: `B` of theory, section 3.
    pub fn sensitivity(&self, node: usize, pattern: &Pattern) -> Matrix {
        self.derivatives(node, pattern)
            .pop()
            .expect("a network has an output")
    }

    /// The derivative of `⟨u, f⟩` in all parameters at a point, node by node: `Bᵀ u` times what the node reads.
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
                    let active = gates.next().expect("a layer of bits for each gate");
                    if let GateKind::Prelu(_) = kind {
                        let z = point.values[*from].iter().zip(active);
                        let below = z.map(|(&z, &active)| if active { 0.0 } else { z });
                        gradient.extend(above().iter().zip(below).map(|(c, z)| c * z));
                    }
                }
                _ => {}
            }
        }
        gradient
    }

    /// The margins of all gates at a point of this network.
    pub fn margins(&self, point: &Point) -> Vec<Margin> {
        let mut margins = Vec::new();
        let gates = self.nodes.iter().filter_map(|op| match op {
            Op::Gate { from, .. } => Some(*from),
            _ => None,
        });
        for (gate, from) in gates.enumerate() {
            let scales = self.scales(from, point);
            for (unit, &z) in point.values[from].iter().enumerate() {
                let sign = if point.pattern[gate][unit] { 1.0 } else { -1.0 };
                margins.push(Margin {
                    gate,
                    unit,
                    value: sign * z,
                    gradient: scaled(sign, &point.jacobians[from][unit]),
                    scale: scales[unit],
                });
            }
        }
        margins
    }

    /// Size of the terms that each value of a node is a sum of, counting terms of at least the size of 1.
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
            _ => vec![norm(&point.values[node]).max(1e-3); point.values[node].len()],
        }
    }

    /// The smallest margin of all gates relative to its scale; infinite without gates.
    pub fn distance_from_kinks(&self, x: &[f64]) -> f64 {
        let margins = self.margins(&self.at(x));
        let relative = margins.iter().map(|margin| margin.value / margin.scale);
        relative.fold(f64::INFINITY, f64::min)
    }

    /// The graph whose parameters and slopes are the absolute values: its values at `|x|` and its Jacobian bound
    /// the sums of absolute values that rounding errors of this one are proportional to. Fixed slopes are at most 1
    /// here, so [`sizes`](Self::sizes) takes all units for active.
    pub fn absolute(&self) -> Graph {
        let absolute: Vec<f64> = self.parameters().iter().map(|p| p.abs()).collect();
        self.with_parameters(&absolute)
    }

    /// Size of the logits and of the Jacobian at `x` counting all terms of all sums with a positive sign.
    pub fn sizes(&self, x: &[f64]) -> (f64, f64) {
        let absolute: Vec<f64> = x.iter().map(|x| x.abs()).collect();
        let graph = self.absolute();
        let gates = |op: &Op| matches!(op, Op::Gate { .. });
        let widths = graph.nodes.iter().enumerate().filter(|(_, op)| gates(op));
        let active: Pattern = widths.map(|(i, _)| vec![true; graph.width(i)]).collect();
        let point = graph.frozen(&absolute, &active);
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
        assert_eq!(point.pattern, [[false, true]]);
        assert_eq!(graph.sensitivity(1, &point.pattern), [[0.5, 1.0]]);
        let margins = graph.margins(&point);
        assert_eq!((margins[0].value, margins[1].value), (2.0, 1.0));
        assert_eq!(margins[0].gradient, [-1.0, 1.0]);
    }
}
