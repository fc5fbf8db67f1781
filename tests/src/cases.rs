//! Random cases: a network, a batch away from its kinks, a loss and targets that fit.

use ndarray::Array2;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{Loss, Network, Objective, Penalty, SweepStrategy};

use crate::golden::OwnedTargets;
use crate::graph::{Graph, Op, array};
use crate::loss::softmax;
use crate::matrix::{Matrix, add};
use crate::penalty::Derivatives;
use crate::recipe::{Extras, GateChoice, Recipe, entries};

/// A random network with a batch.
#[derive(Clone, Debug)]
pub struct Case {
    /// The network as the oracle sees it.
    pub graph: Graph,
    /// The batch, a row for each sample.
    pub inputs: Matrix,
    /// The loss.
    pub loss: Loss,
    /// The targets as the engine takes them.
    pub owned: OwnedTargets<f64>,
    /// The same as a target vector for each sample.
    pub targets: Matrix,
    /// Seed for whatever else a test needs.
    pub seed: u64,
}

/// How the logits of a case lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Confidence {
    /// As they come.
    Plain,
    /// Large, so that one probability is almost 1.
    Saturated,
    /// Equal at the first sample (if the last layer has biases and is not gated).
    Uniform,
}

/// Kinds of losses that a strategy may draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Losses {
    /// All that fit the number of logits.
    Any,
    /// Softmax cross-entropy with any targets; at least two logits.
    Softmax,
    /// Softmax cross-entropy with labels; at least two logits.
    Label,
    /// Squared error.
    Squared,
}

/// Bounds of random shapes.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// Hidden layers.
    pub depth: std::ops::RangeInclusive<usize>,
    /// Width of hidden layers.
    pub width: std::ops::RangeInclusive<usize>,
    /// Logits.
    pub outputs: std::ops::RangeInclusive<usize>,
    /// Features.
    pub inputs: std::ops::RangeInclusive<usize>,
    /// Samples.
    pub batch: std::ops::RangeInclusive<usize>,
    /// Whether there may be nodes beside the chain, dead and equal units, and extreme logits.
    pub unusual: bool,
    /// Whether there may be layers other than dense ones and gates with two slopes: convolutions,
    /// pooling, maxima, clips, batch normalisation and rearrangements.
    pub every_operation: bool,
    /// Which losses.
    pub losses: Losses,
}

impl Shapes {
    /// Up to five layers of up to 24 units, with everything that a case may have.
    pub fn any() -> Shapes {
        Shapes {
            depth: 0..=4,
            width: 1..=24,
            outputs: 1..=12,
            inputs: 1..=24,
            batch: 1..=5,
            unusual: true,
            every_operation: true,
            losses: Losses::Any,
        }
    }

    /// Two to five layers in a chain without anything unusual, one sample, softmax with a label.
    pub fn plain() -> Shapes {
        Shapes {
            depth: 1..=4,
            width: 1..=24,
            outputs: 2..=12,
            inputs: 1..=24,
            batch: 1..=1,
            unusual: false,
            every_operation: true,
            losses: Losses::Label,
        }
    }

    /// Few enough parameters to take differences in all of them.
    pub fn small() -> Shapes {
        Shapes {
            depth: 1..=2,
            width: 2..=4,
            outputs: 1..=4,
            inputs: 1..=3,
            batch: 1..=2,
            ..Shapes::any()
        }
    }

    /// The strategy for these bounds.
    pub fn cases(self) -> impl Strategy<Value = Case> {
        let (losses, batch) = (self.losses, self.batch.clone());
        let confidence = self.confidence();
        (self.recipes(), batch, confidence, 0..4_usize)
            .prop_map(move |(recipe, batch, confidence, kind)| {
                Case::new(&recipe, batch, confidence, losses, kind)
            })
            .prop_filter("a sample lies too close to a kink", |case| {
                case.distance_from_kinks() > MARGIN
            })
    }

    fn confidence(&self) -> BoxedStrategy<Confidence> {
        use Confidence::{Plain, Saturated, Uniform};
        if !self.unusual {
            return Just(Plain).boxed();
        }
        prop_oneof![4 => Just(Plain), 1 => Just(Saturated), 1 => Just(Uniform)].boxed()
    }

    /// The strategy for recipes.
    pub fn recipes(&self) -> impl Strategy<Value = Recipe> + use<> {
        let least = match self.losses {
            Losses::Softmax | Losses::Label => 2,
            _ => 1,
        };
        let outputs = *self.outputs.start().max(&least)..=*self.outputs.end();
        let hidden = prop::collection::vec(
            (self.width.clone(), gates(self.every_operation)),
            self.depth.clone(),
        );
        let extras = if self.unusual {
            extras().boxed()
        } else {
            Just(Extras::default()).boxed()
        };
        let images = if self.every_operation {
            prop_oneof![2 => Just(0_usize), 1 => 1..=3_usize].boxed()
        } else {
            Just(0).boxed()
        };
        let extras = (extras, images).prop_map(|(extras, images)| Extras { images, ..extras });
        let unusual = if self.unusual {
            prop::bool::weighted(0.2).boxed()
        } else {
            Just(false).boxed()
        };
        let shape = (self.inputs.clone(), hidden, outputs, any::<bool>());
        (shape, extras, unusual, any::<u64>()).prop_map(
            |((inputs, hidden, outputs, bias), extras, unusual, seed)| Recipe {
                inputs,
                hidden,
                outputs,
                bias,
                extras,
                unusual,
                gain: 1.0,
                seed,
            },
        )
    }
}

/// Smallest distance from a kink relative to the terms of the pre-activation.
const MARGIN: f64 = 1e-5;

/// Draws of a sample of which the one farthest from all kinks is taken.
const DRAWS: usize = 8;

fn gates(clip: bool) -> impl Strategy<Value = GateChoice> {
    prop_oneof![
        2 => Just(GateChoice::Relu),
        2 => Just(GateChoice::Leaky),
        2 => Just(GateChoice::Prelu),
        2 => Just(GateChoice::Abs),
        u32::from(clip) => Just(GateChoice::Clip)
    ]
}

fn extras() -> impl Strategy<Value = Extras> {
    let often = || prop::bool::weighted(0.2);
    (often(), often(), often(), often(), often()).prop_map(
        |(gate_on_input, gate_on_output, residual, twice, skip)| Extras {
            gate_on_input,
            gate_on_output,
            residual,
            twice,
            skip,
            images: 0,
        },
    )
}

impl Case {
    /// Draws the case of a recipe; `kind` chooses among the losses and targets that fit.
    pub fn new(
        recipe: &Recipe,
        batch: usize,
        confidence: Confidence,
        losses: Losses,
        kind: usize,
    ) -> Case {
        let mut gain = if confidence == Confidence::Saturated {
            12.0
        } else {
            1.0
        };
        let mut random = ChaCha8Rng::seed_from_u64(!recipe.seed);
        let mut graph = scaled_graph(recipe, gain);
        let mut inputs = Matrix::new();
        for _ in 0..batch {
            inputs.push(draw_input(&graph, &mut random));
        }
        while inputs
            .iter()
            .any(|x| range(&graph.logits(x)) > LARGEST_RANGE)
        {
            gain *= 0.5;
            graph = scaled_graph(recipe, gain);
        }
        if confidence == Confidence::Uniform {
            level(&mut graph, &inputs[0]);
        }
        let loss = choose_loss(losses, kind, recipe.outputs);
        let (owned, targets) =
            draw_targets(&loss, losses, kind, (batch, recipe.outputs), &mut random);
        Case {
            graph,
            inputs,
            loss,
            owned,
            targets,
            seed: recipe.seed.rotate_left(17),
        }
    }

    /// The engine's network.
    pub fn network(&self) -> Network<f64> {
        self.graph.network()
    }

    /// The batch as the engine takes it; `[B, D]`.
    pub fn batch(&self) -> Array2<f64> {
        array(&self.inputs)
    }

    /// A generator for whatever else a test needs.
    pub fn random(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed)
    }

    /// The oracle's derivatives of one sample.
    pub fn derivatives(&self, sample: usize) -> Derivatives {
        Derivatives::at(
            &self.graph,
            &self.loss,
            &self.inputs[sample],
            &self.targets[sample],
        )
    }

    /// The smallest relative margin of all samples.
    pub fn distance_from_kinks(&self) -> f64 {
        let distances = self
            .inputs
            .iter()
            .map(|x| self.graph.distance_from_kinks(x));
        distances.fold(f64::INFINITY, f64::min)
    }

    /// Sizes of logits and Jacobian, see [`Graph::sizes`], the largest over the batch.
    pub fn sizes(&self) -> (f64, f64) {
        let sizes = self.inputs.iter().map(|x| self.graph.sizes(x));
        sizes.fold((0.0, 0.0), |(a, b), (f, j)| (f.max(a), j.max(b)))
    }

    /// Roundings along the longest path through the network, in units of ε.
    pub fn roundings(&self) -> f64 {
        let widths = (0..self.graph.nodes.len()).map(|node| self.graph.width(node) + 2);
        widths.sum::<usize>() as f64 * f64::EPSILON
    }

    /// The route by which the engine is held to theorems at this case; of many cases all are.
    pub fn strategy(&self) -> SweepStrategy {
        strategy(self.seed)
    }

    /// An objective of one penalty with weight 1.
    pub fn objective(&self, penalty: &Penalty, route: SweepStrategy) -> Objective {
        let objective = Objective::new(self.loss).with_strategy(route);
        objective
            .with(penalty.clone(), 1.0)
            .expect("the options are in range")
    }
}

/// Every route that an objective can be told to take.
pub const ROUTES: [SweepStrategy; 4] = [
    SweepStrategy::Fewest,
    SweepStrategy::AllRows,
    SweepStrategy::FirstLayerGram,
    SweepStrategy::FourRussians,
];

/// One of them by a seed.
pub fn strategy(seed: u64) -> SweepStrategy {
    ROUTES[(seed % ROUTES.len() as u64) as usize]
}

/// Largest difference of two logits: beyond it products of a few small probabilities underflow.
const LARGEST_RANGE: f64 = 80.0;

fn range(logits: &[f64]) -> f64 {
    let largest = logits.iter().copied().fold(0.0, f64::max);
    largest - logits.iter().copied().fold(0.0, f64::min)
}

/// The network of a recipe with its last layer multiplied by `gain`.
fn scaled_graph(recipe: &Recipe, gain: f64) -> Graph {
    let recipe = Recipe {
        gain,
        ..recipe.clone()
    };
    recipe.graph()
}

/// The farthest from all kinks of a few draws.
fn draw_input(graph: &Graph, random: &mut ChaCha8Rng) -> Vec<f64> {
    let draws: Vec<Vec<f64>> = (0..DRAWS)
        .map(|_| entries(graph.inputs(), 2.0, random))
        .collect();
    let distance = |x: &Vec<f64>| graph.distance_from_kinks(x);
    let far = |a: &Vec<f64>, b: &Vec<f64>| distance(a).total_cmp(&distance(b));
    draws.into_iter().max_by(far).expect("there are draws")
}

/// Moves the last biases so that the logits at `x` are 0, if the last node is a dense layer with
/// biases.
fn level(graph: &mut Graph, x: &[f64]) {
    let logits = graph.at(x).logits().to_vec();
    if let Some(Op::Dense {
        bias: Some(bias), ..
    }) = graph.nodes.last_mut()
    {
        *bias = add(bias, -1.0, &logits);
    }
}

fn choose_loss(losses: Losses, kind: usize, outputs: usize) -> Loss {
    let smoothed = Loss::SoftmaxCrossEntropy {
        label_smoothing: 0.1,
    };
    match (losses, kind) {
        (Losses::Squared, _) | (Losses::Any, 0) => Loss::SquaredError,
        (Losses::Any, 1 | 2) if outputs == 1 => Loss::Logistic,
        (Losses::Any | Losses::Softmax, 3) => smoothed,
        _ => Loss::softmax_cross_entropy(),
    }
}

fn draw_targets(
    loss: &Loss,
    losses: Losses,
    kind: usize,
    (batch, outputs): (usize, usize),
    random: &mut ChaCha8Rng,
) -> (OwnedTargets<f64>, Matrix) {
    let mut random_rows =
        |size: f64| -> Matrix { (0..batch).map(|_| entries(outputs, size, random)).collect() };
    match loss {
        Loss::SquaredError => {
            let values = random_rows(1.0);
            (OwnedTargets::Values(array(&values)), values)
        }
        Loss::Logistic if kind == 1 => {
            let rows: Matrix = random_rows(0.5).iter().map(|t| vec![t[0] + 0.5]).collect();
            (OwnedTargets::Probabilities(array(&rows)), rows)
        }
        Loss::SoftmaxCrossEntropy {
            label_smoothing: 0.0,
        } if kind == 2 && losses != Losses::Label => {
            let rows: Matrix = random_rows(1.0).iter().map(|t| softmax(t)).collect();
            (OwnedTargets::Probabilities(array(&rows)), rows)
        }
        _ => {
            let classes = if *loss == Loss::Logistic { 2 } else { outputs };
            let labels: Vec<usize> = (0..batch)
                .map(|_| random.random_range(0..classes))
                .collect();
            let rows = labels
                .iter()
                .map(|&y| label_target(loss, y, outputs))
                .collect();
            (OwnedTargets::Classes(labels), rows)
        }
    }
}

/// The target vector of a label.
pub fn label_target(loss: &Loss, label: usize, outputs: usize) -> Vec<f64> {
    match loss {
        Loss::Logistic => vec![label as f64],
        Loss::SoftmaxCrossEntropy { label_smoothing } => {
            let mut row = vec![label_smoothing / outputs as f64; outputs];
            row[label] += 1.0 - label_smoothing;
            row
        }
        _ => (0..outputs).map(|k| f64::from(k == label)).collect(),
    }
}
