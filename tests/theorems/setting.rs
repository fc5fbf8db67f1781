//! One sample of a case with everything that the statements are about.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use relugrad::{Loss, Penalty};
use relugrad_tests::cases::{Case, Losses, Shapes, label_target};
use relugrad_tests::golden::OwnedTargets;
use relugrad_tests::graph::{Graph, Op};
use relugrad_tests::loss::evaluate;
use relugrad_tests::matrix::{
    Matrix, eigen, frobenius, norm, product, product_transposed, rows, transpose,
};
use relugrad_tests::recipe::{entries, uniform};

/// One sample; `J`, `g`, `H` are the engine's, the derivatives of the loss the oracle's.
pub(crate) struct Setting {
    pub(crate) case: Case,
    pub(crate) k: usize,
    pub(crate) d: usize,
    pub(crate) f: Vec<f64>,
    pub(crate) t: Vec<f64>,
    pub(crate) p: Vec<f64>,
    pub(crate) r: Vec<f64>,
    pub(crate) s: Matrix,
    pub(crate) j: Matrix,
    pub(crate) gram: Matrix,
    pub(crate) g: Vec<f64>,
    pub(crate) h: Matrix,
    /// Sizes of `J`, `r` and `S` with all terms positive, to which rounding is proportional.
    pub(crate) a: f64,
    pub(crate) r_size: f64,
    pub(crate) s_size: f64,
    /// Roundings along the longest path, times ε.
    pub(crate) units: f64,
}

impl Setting {
    /// The first sample of a case.
    pub(crate) fn new(case: &Case) -> Setting {
        let network = case.network();
        let batch = case.batch();
        let trace = network.trace(batch.view()).unwrap();
        let (k, d) = (network.outputs(), network.inputs());
        let first = |values: Vec<f64>, count: usize| values[..count].to_vec();
        let f = trace.logits().row(0).to_vec();
        let t = case.targets[0].clone();
        let loss = evaluate(&case.loss, &f, &t);
        let h = trace.curvature(&case.loss).unwrap().to_dense().unwrap();
        let (size, a) = case.sizes();
        let s_norm = frobenius(&loss.hessian);
        Setting {
            j: rows(
                &first(trace.jacobian().unwrap().into_iter().collect(), k * d),
                d,
            ),
            gram: rows(
                &first(trace.gram().unwrap().into_iter().collect(), k * k),
                k,
            ),
            g: trace
                .input_gradient(&case.loss, &case.owned.view())
                .unwrap()
                .row(0)
                .to_vec(),
            h: rows(&first(h.into_iter().collect(), d * d), d),
            a,
            r_size: norm(&loss.residual) + s_norm * size,
            s_size: s_norm * (1.0 + 2.0 * size),
            units: 16.0 * case.roundings(),
            p: loss.probabilities,
            r: loss.residual,
            s: loss.hessian,
            case: case.clone(),
            k,
            d,
            f,
            t,
        }
    }

    /// The engine's value of a penalty at the first sample, by the route of the case.
    pub(crate) fn value(&self, penalty: &Penalty) -> f64 {
        let case = &self.case;
        let objective = case.objective(penalty, case.strategy());
        let found = objective.value(&case.network(), case.batch().view(), &case.owned.view());
        found.unwrap().sample_penalties[(0, 0)]
    }

    /// The label, the class with target 1.
    pub(crate) fn label(&self) -> usize {
        self.t
            .iter()
            .position(|&t| t == 1.0)
            .expect("the target is a label")
    }

    /// Whether the Jacobian is not lost in the rounding of its terms: `‖J‖_F > 10⁻³` of their size.
    pub(crate) fn generic(&self) -> bool {
        frobenius(&self.j) > 1e-3 * self.a
    }

    /// Size of `tr H`.
    pub(crate) fn h_size(&self) -> f64 {
        self.a * self.a * self.s_size
    }

    /// The inputs of the first sample.
    pub(crate) fn x(&self) -> &[f64] {
        &self.case.inputs[0]
    }
}

/// Softmax cross-entropy with a label on chains of layers that end in a dense one.
pub(crate) fn chains() -> impl Strategy<Value = Case> {
    Shapes::plain().cases()
}

/// The same on chains of dense layers and gates with two slopes alone.
pub(crate) fn dense_chains() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        every_operation: false,
        ..Shapes::plain()
    };
    shapes.cases()
}

/// Softmax cross-entropy with a label on any graph.
pub(crate) fn labels() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        losses: Losses::Label,
        batch: 1..=1,
        ..Shapes::any()
    };
    shapes.cases()
}

/// The same with any target distribution and any graph.
pub(crate) fn softmax() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        losses: Losses::Softmax,
        batch: 1..=1,
        ..Shapes::any()
    };
    shapes.cases()
}

/// Any loss and any graph.
pub(crate) fn any_loss() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        batch: 1..=1,
        ..Shapes::any()
    };
    shapes.cases()
}

/// Squared error on chains, at least two logits.
pub(crate) fn squared() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        losses: Losses::Squared,
        ..Shapes::plain()
    };
    shapes.cases()
}

/// Softmax with labels, at least three logits and three features.
pub(crate) fn three_classes() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        outputs: 3..=12,
        inputs: 3..=24,
        ..Shapes::plain()
    };
    shapes.cases()
}

/// An affine network with Jacobian `j` and, at the origin, logits `f`; softmax cross-entropy with a
/// label.
pub(crate) fn affine(j: &Matrix, f: &[f64], label: usize) -> Case {
    affine_with(Loss::softmax_cross_entropy(), j, f, label)
}

/// [`affine`] with another loss.
pub(crate) fn affine_with(loss: Loss, j: &Matrix, f: &[f64], label: usize) -> Case {
    let layer = Op::Dense {
        from: 0,
        weight: j.clone(),
        bias: Some(f.to_vec()),
    };
    Case {
        graph: Graph::chain(j[0].len(), vec![layer]),
        inputs: vec![vec![0.0; j[0].len()]],
        loss,
        owned: OwnedTargets::Classes(vec![label]),
        targets: vec![label_target(&loss, label, f.len())],
        seed: 0,
    }
}

/// A Jacobian, logits and a label, drawn directly, for constructions that a network would hide.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    pub(crate) k: usize,
    pub(crate) d: usize,
    pub(crate) label: usize,
    pub(crate) seed: u64,
}

impl Draw {
    /// Its generator.
    pub(crate) fn random(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed)
    }

    /// A Jacobian and logits.
    pub(crate) fn numbers(&self) -> (Matrix, Vec<f64>) {
        let mut random = self.random();
        let j = uniform(self.k, self.d, 1.0, &mut random);
        (j, entries(self.k, 2.0, &mut random))
    }
}

/// Draws with at least `least` logits and features.
pub(crate) fn draws(least: usize) -> impl Strategy<Value = Draw> {
    let shape = (
        least..=8_usize,
        least..=10_usize,
        any::<prop::sample::Index>(),
        any::<u64>(),
    );
    shape.prop_map(|(k, d, label, seed)| Draw {
        k,
        d,
        label: label.index(k),
        seed,
    })
}

/// A random orthogonal matrix.
pub(crate) fn orthogonal(size: usize, random: &mut ChaCha8Rng) -> Matrix {
    let m = uniform(size, size, 1.0, random);
    let symmetric = product(&m, &transpose(&m));
    eigen(&symmetric).1
}

/// A random symmetric matrix.
pub(crate) fn symmetric(size: usize, random: &mut ChaCha8Rng) -> Matrix {
    let m = uniform(size, size, 1.0, random);
    relugrad_tests::matrix::plus(&m, 1.0, &transpose(&m))
}

/// `J Jᵀ`.
pub(crate) fn gram_of(j: &Matrix) -> Matrix {
    product_transposed(j, j)
}
