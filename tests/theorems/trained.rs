//! The statements on trained networks and images of digits (`docs/theory.md`).
//!
//! Those that have a function of their own run on every image here; all that say something about a
//! single network run through `relugrad_train::verify`, which has formulas and scales of its own.
//! T25, T53 and T54 run there alone: the scale of rounding that their properties use grows with the
//! product of the layers' norms, and would reject every image of a trained network, because its
//! input gradients are small against it.

use std::sync::LazyLock;

use ndarray::Axis;
use relugrad::{Loss, Mlp, Network, Objective};
use relugrad_tests::cases::{Case, label_target};
use relugrad_tests::golden::OwnedTargets;
use relugrad_tests::graph::{GateKind, Graph, Op};
use relugrad_tests::matrix::rows;
use relugrad_tests::run::each;
use relugrad_train::data::{Dataset, Split, digits, stratified_split};
use relugrad_train::evaluate::Samples;
use relugrad_train::verify::{Choices, Report, verify};
use relugrad_train::{Training, train};

use crate::{centring, certificates, curvature, gram_table, input_gradient, sweeps};

const LOSS: Loss = Loss::SoftmaxCrossEntropy {
    label_smoothing: 0.0,
};

/// Images nearer to a kink than this, relative to the sizes on the way, are left out.
const MARGIN: f64 = 1e-7;

/// A trained network as the oracle and the engine see it, and test images.
struct Trained {
    network: Network<f64>,
    samples: Samples<f64>,
    cases: Vec<Case>,
}

/// All ten digits.
static TEN: LazyLock<Trained> = LazyLock::new(|| Trained::new(10, 0.2, 8));

/// Zeros and ones, of which there are fewer.
static TWO: LazyLock<Trained> = LazyLock::new(|| Trained::new(2, 0.8, 60));

impl Trained {
    fn new(classes: usize, test_share: f64, epochs: usize) -> Trained {
        let data = stratified_split(&first_classes(classes), test_share, 0).unwrap();
        let widths = [64, 24, 24, classes];
        let network = trained(&widths, &data, epochs).cast::<f64>().unwrap();
        let samples: Samples<f64> = Samples::new(&data.test);
        let graph = graph(&network, &widths);
        let all = samples
            .images
            .rows()
            .into_iter()
            .zip(samples.truth.labels());
        let cases = all.enumerate().map(|(seed, (x, &label))| Case {
            graph: graph.clone(),
            inputs: vec![x.to_vec()],
            loss: LOSS,
            owned: OwnedTargets::Classes(vec![label]),
            targets: vec![label_target(&LOSS, label, classes)],
            seed: seed as u64,
        });
        let clear = cases.filter(|case| case.distance_from_kinks() > MARGIN);
        Trained {
            network,
            cases: clear.collect(),
            samples,
        }
    }
}

/// The digits below `classes`.
fn first_classes(classes: usize) -> Dataset {
    let all = digits();
    let chosen: Vec<usize> = (0..all.samples())
        .filter(|&i| all.labels()[i] < classes)
        .collect();
    let labels = chosen.iter().map(|&i| all.labels()[i]).collect();
    let images = all.images().select(Axis(0), &chosen);
    Dataset::new("digits", images, labels, classes, vec![1, 8, 8]).unwrap()
}

fn trained(widths: &[usize], data: &Split, epochs: usize) -> Network<f32> {
    let mut network = Mlp::new(widths).build::<f32>(0).unwrap();
    let training = Training {
        epochs,
        ..Training::new(Objective::new(LOSS))
    };
    let history = train(&mut network, data, &training, &mut ()).unwrap();
    let last = history.epochs.last().unwrap();
    assert!(
        last.validation.unwrap().quality.accuracy() > Some(0.9),
        "it has learned"
    );
    network
}

/// The same layers for the oracle.
fn graph(network: &Network<f64>, widths: &[usize]) -> Graph {
    let (mut layers, mut place) = (Vec::new(), 0);
    let mut take = |count: usize| {
        place += count;
        network.parameters().values()[place - count..place].to_vec()
    };
    for (layer, pair) in widths.windows(2).enumerate() {
        if layer > 0 {
            layers.push(Op::Gate {
                from: 0,
                kind: GateKind::Relu,
            });
        }
        layers.push(Op::Dense {
            from: 0,
            weight: rows(&take(pair[0] * pair[1]), pair[0]),
            bias: Some(take(pair[1])),
        });
    }
    let graph = Graph::chain(widths[0], layers);
    let same = graph.network().parameters().values() == network.parameters().values();
    assert!(same, "the parameters lie as expected");
    graph
}

/// A test that runs a statement on every image of a trained network.
macro_rules! on_images {
    ($($name:ident: $trained:ident, $check:path;)*) => {
        $(
            #[test]
            fn $name() {
                let name = concat!(module_path!(), "::", stringify!($name));
                each(name, &$trained.cases, $check);
            }
        )*
    };
}

on_images! {
    t4_forward_and_backward_sweeps_are_adjoint: TEN, sweeps::t4;
    t16_input_gradient_penalty_is_r_gram_r: TEN, gram_table::t16;
    t17_jacobian_frobenius_penalty_is_trace_of_gram: TEN, gram_table::t17;
    t18_jacobian_spectral_penalty_is_largest_eigenvalue_of_gram: TEN, gram_table::t18;
    t19_jacobian_nuclear_penalty_is_sum_of_root_eigenvalues_of_gram: TEN, gram_table::t19;
    t20_probability_jacobian_penalty_is_trace_of_s_gram_s: TEN, gram_table::t20;
    t21_cross_lipschitz_penalty_is_centred_trace: TEN, gram_table::t21;
    t22_trace_curvature_is_trace_of_s_gram: TEN, gram_table::t22;
    t23_frobenius_curvature_is_trace_of_s_gram_s_gram: TEN, gram_table::t23;
    t24_curvature_spectral_norm_is_largest_eigenvalue_of_l_gram_l: TEN, gram_table::t24;
    t28_input_curvature_eigenpairs_come_from_the_small_matrix: TEN, curvature::t28;
    t33_trace_curvature_is_the_expected_input_gradient: TEN, curvature::t33;
    t34_trace_curvature_is_confidence_weighted_cross_lipschitz: TEN, curvature::t34;
    t36_trace_curvature_is_bounded_by_cross_lipschitz: TEN, curvature::t36;
    t38_curvature_norms_are_ordered: TEN, curvature::t38;
    t39_largest_curvature_is_at_most_half_the_centred_spectral_norm: TEN, curvature::t39;
    t41_curvature_is_the_fisher_metric_of_the_prediction: TEN, curvature::t41;
    t42_cross_lipschitz_is_the_centred_jacobian_penalty: TEN, centring::t42;
    t43_cross_lipschitz_is_minimised_over_a_common_row: TEN, centring::t43;
    t46_input_gradient_plus_trace_curvature_is_the_mean_logit_difference: TEN, input_gradient::t46;
    t47_input_gradient_is_bounded_by_logit_differences: TEN, input_gradient::t47;
    t48_input_gradient_is_bounded_by_residual_and_centred_jacobian: TEN, input_gradient::t48;
    t49_curvature_dominates_the_odds_weighted_input_gradient: TEN, input_gradient::t49;
    t50_with_two_classes_every_penalty_is_one_number: TWO, input_gradient::t50;
    t63_loss_is_its_tangent_plus_a_divergence_inside_the_region: TEN, certificates::t63;
    t64_local_worst_case_is_bounded_by_gradient_and_largest_curvature: TEN, certificates::t64;
    t65_curvature_at_the_centre_bounds_the_worst_case_with_a_correction: TEN, certificates::t65;
}

fn verified(trained: &Trained, claims: &Network<f64>) -> Report {
    let (network, samples) = (&trained.network, &trained.samples);
    verify(network, claims, samples, &Choices::default(), || true).unwrap()
}

#[test]
fn every_statement_that_verify_knows_holds() {
    for trained in [&*TEN, &*TWO] {
        let report = verified(trained, &trained.network);
        assert!(report.holds(), "{:?}", report.outcomes);
        let tested = report.outcomes.iter().filter(|o| o.reason.is_none());
        let few: Vec<_> = tested.filter(|o| o.cases < 256).collect();
        assert!(few.is_empty(), "{few:?}");
    }
}

/// The derivatives of the network before it was trained do not belong to it.
#[test]
fn counter_every_statement_that_verify_knows_holds() {
    let other = Mlp::new(&[64, 24, 24, 10]).build::<f64>(0).unwrap();
    assert!(!verified(&TEN, &other).holds());
}
