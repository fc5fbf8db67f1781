//! What an evaluation of an objective is made of, counted before it is run.

use super::Objective;
use super::gram::ContractionOrder;
use super::plan::SeedBasis;
use crate::gram::FirstLayer;
use crate::network::{Network, Node};
use crate::scalar::Scalar;
use crate::trace::Trace;

/// One part of an evaluation: so many multiply-adds, as if every unit were active.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// What is done.
    pub name: String,
    /// Rows per sample.
    pub rows: usize,
    /// Multiply-adds in affine layers for the whole batch.
    pub multiply_adds: u64,
}

impl Objective {
    /// The parts of a value with its parameter gradient on the batch of a trace, in the order in
    /// which they run.
    ///
    /// The multiply-adds are those of dense layers and convolutions in the order that is taken,
    /// which depends on the share of active units, but counted as if all were active; gates that
    /// are off spare some of them. Gates, losses and `K×K` matrices are not counted, nor are
    /// penalties on hyperplanes, whose work depends on where the samples are.
    pub fn work<T: Scalar>(&self, trace: &Trace<T>) -> Vec<Stage> {
        let (network, samples) = (trace.network(), trace.samples());
        let linearized = trace.part(trace.all());
        let (all, first, last) = network_costs(network);
        let plan = self.plan(network.outputs());
        let mut stages = Vec::new();
        let mut add = |name: &str, rows: usize, per_row: u64| {
            stages.push(Stage {
                name: name.to_owned(),
                rows,
                multiply_adds: per_row * (rows * samples) as u64,
            });
        };
        add("forward pass", 1, all);
        let pairs = &self.doors.pair;
        if !pairs.is_empty() || self.gradient_terms(plan).next().is_some() {
            add("input gradient", 1, all);
            for (_, pair) in pairs {
                let name = pair.name();
                let two = format!("second point of {name}: forward pass and input gradient");
                add(&two, 1, 2 * all);
                let spared = if pair.is_held() { first } else { 0 };
                let four = format!("second point of {name}: tangents and gradients");
                add(&four, 1, 4 * all - spared);
            }
            let shared = self.shared_first(plan, network).map_or(0, |_| first);
            let tangents = "tangents of the input gradient's penalties";
            add(tangents, 1, all - shared);
            add("their weight gradient", 1, all - shared);
        }
        if !self.gram_terms(plan).is_empty() {
            let rows = plan.basis.rows(network.outputs());
            let spared = match plan.basis {
                SeedBasis::Random(_) => 0,
                SeedBasis::Identity | SeedBasis::Centred => last,
            };
            let order = ContractionOrder::of(self.strategy, network, &linearized, rows);
            let through = if order.first.is_some() { first } else { 0 };
            let of_node = |node: &Node| node.multiply_adds() as u64;
            let behind = network.nodes()[order.others(network).end..].iter();
            let ends = behind.map(of_node).sum::<u64>();
            let rest = all - through - ends;
            add(
                "cotangents of the Jacobian's rows",
                rows,
                all - spared - through,
            );
            add("tangents of the Jacobian's rows", rows, rest);
            add("weight gradient of the Gram penalties", rows, rest);
            let mut add = |name: &str, multiply_adds: u64| {
                stages.push(Stage {
                    name: name.to_owned(),
                    rows,
                    multiply_adds,
                });
            };
            if let Some(first) = order.first {
                let multiply_adds = first.multiply_adds(rows * samples);
                add("first layer through its own Gram matrix", multiply_adds);
            }
            if let Some(last) = order.last {
                let multiply_adds = last.multiply_adds(samples, rows);
                add(
                    "last layers through sums over subsets of samples",
                    multiply_adds,
                );
            }
        }
        for terms in self.row_sweeps(network.outputs()) {
            let (_, penalty) = terms[0];
            let combined = penalty.combines(network.outputs());
            let rows = combined.unwrap_or(network.outputs());
            let spared = if combined.is_some() { 0 } else { last };
            let mut add = |part: &str, rows: usize, per_row: u64| {
                stages.push(Stage {
                    name: match terms.len() {
                        1 => format!("{part} of {}", penalty.name()),
                        _ => format!("{part} of the penalties of all rows"),
                    },
                    rows,
                    multiply_adds: per_row * (rows * samples) as u64,
                });
            };
            if penalty.moves() {
                add("second point: all passes", 1, 5 * all - first);
            }
            add("cotangents", rows, all - spared);
            add("tangents", rows, all);
            add("weight gradient", rows, all);
        }
        let mut add = |name: &str, per_row: u64| {
            stages.push(Stage {
                name: name.to_owned(),
                rows: 1,
                multiply_adds: per_row * samples as u64,
            });
        };
        add("backward pass of the loss", all - first);
        add("its weight gradient", all);
        stages
    }
}

impl<T: Scalar> Trace<'_, T> {
    /// The parts of Gram matrices `V J Jᵀ Vᵀ` of `rows` shared rows, as [`gram`](Self::gram) takes
    /// them, counted like [`Objective::work`].
    pub fn gram_work(&self, rows: usize) -> Vec<Stage> {
        let samples = self.samples();
        let (all, first_layer, last) = network_costs(self.network());
        let cotangents = |per_row: u64| Stage {
            name: "cotangents of the Jacobian's rows".to_owned(),
            rows,
            multiply_adds: per_row * (rows * samples) as u64,
        };
        let products = |name: &str, multiply_adds: u64| Stage {
            name: name.to_owned(),
            rows,
            multiply_adds,
        };
        match FirstLayer::for_values(&self.part(self.all()), rows) {
            Some(first) => vec![
                cotangents(all - last - first_layer),
                products(
                    "first layer through half of its own Gram matrix",
                    first.value_multiply_adds(samples, rows),
                ),
            ],
            None => {
                let products_of_rows = (rows * rows * samples * self.network().inputs()) as u64;
                vec![
                    cotangents(all - last),
                    products("products of the Jacobian's rows", products_of_rows),
                ]
            }
        }
    }
}

/// Multiply-adds of a row: in all layers, in those that read the input, in the last one if it is
/// dense.
fn network_costs<T: Scalar>(network: &Network<T>) -> (u64, u64, u64) {
    let nodes = network.nodes();
    let all = nodes.iter().map(|node| node.multiply_adds() as u64).sum();
    let on_input = |input: &usize| !nodes[*input].depends_on_parameters;
    let reading = nodes.iter().filter(|node| node.inputs.iter().any(on_input));
    let first = reading.map(|node| node.multiply_adds() as u64).sum();
    let last = network.output();
    let dense = matches!(last.map, crate::network::map::Map::Dense(_)) && nodes.len() > 2;
    (
        all,
        first,
        if dense {
            last.multiply_adds() as u64
        } else {
            0
        },
    )
}

#[cfg(test)]
mod tests {
    use crate::{Direction, Loss, Mlp, Objective, Penalty, SweepStrategy, Trace};
    use ndarray::Array2;

    /// What `f` makes of a trace of five samples.
    fn traced<R>(widths: &[usize], f: impl FnOnce(&Trace<f64>) -> R) -> R {
        let network = Mlp::new(widths).build::<f64>(0).unwrap();
        let inputs = Array2::from_shape_fn((5, widths[0]), |(i, j)| ((3 * i + j) as f64).sin());
        f(&network.trace(inputs.view()).unwrap())
    }

    fn total(objective: &Objective) -> u64 {
        let stages = traced(&[8, 12, 3], |trace| objective.work(trace));
        stages.iter().map(|stage| stage.multiply_adds).sum()
    }

    #[test]
    fn stages_are_counted_by_hand() {
        let plain = Objective::new(Loss::softmax_cross_entropy());
        // 132 weights, 36 of them behind the first layer.
        assert_eq!(total(&plain), 5 * (132 + 36 + 132));
        let gradient = plain.clone().with(Penalty::InputGradient, 1.0).unwrap();
        assert_eq!(total(&gradient), total(&plain) + 5 * 3 * 132);
        // All paths pass the first layer, whose tangents at both points are opposite.
        let cure = |strategy| {
            let objective = plain
                .clone()
                .with(
                    Penalty::Cure {
                        step: 0.5,
                        direction: Direction::Sign,
                    },
                    1.0,
                )
                .unwrap();
            total(&objective.with_strategy(strategy)) - total(&plain)
        };
        assert_eq!(cure(SweepStrategy::AllRows), 5 * (9 * 132 - 96));
        assert_eq!(cure(SweepStrategy::Fewest), 5 * (9 * 132 - 3 * 96));
        let jacobian = plain
            .clone()
            .with(Penalty::Jacobian, 1.0)
            .unwrap()
            .with_strategy(SweepStrategy::AllRows);
        // The seeds are the identity, so the last layer's cotangents are for nothing.
        assert_eq!(total(&jacobian), total(&plain) + 5 * 3 * (96 + 132 + 132));
        let centred = plain.clone().with(Penalty::CurvatureTrace, 1.0).unwrap();
        let rows = traced(&[8, 12, 3], |trace| centred.work(trace)[1].rows);
        assert_eq!(rows, 2);
        let parts = |widths: &[usize]| {
            let parts = traced(widths, |trace| trace.gram_work(2));
            [parts[0].multiply_adds, parts[1].multiply_adds]
        };
        assert_eq!(parts(&[8, 12, 3]), [5 * 2 * 96, 5 * 4 * 8]);
        let half = 4 * 4 * 900 / 2 + 5 * 2 * 4 * 4 / 2 + 5 * 4 * 4;
        assert_eq!(parts(&[900, 4, 3]), [0, half]);
        let gram = jacobian.with_strategy(SweepStrategy::FirstLayerGram);
        let first = 12 * 12 * 8 / 2 + 15 * 12 * 12 * 3 / 2 + 12 * 12 * 8;
        assert_eq!(total(&gram), total(&plain) + 5 * 3 * (36 + 36) + first);
    }
}
