//! Equal inputs give equal bits: for any number of threads, and in workspaces that have been used
//! before.

use ndarray::{Array2, array};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::ThreadPoolBuilder;
use relugrad::{
    Builder, Direction, Evaluation, Gate, Loss, Mlp, Network, Objective, Penalty, Targets,
    Workspace,
};
use relugrad_tests::cases::{Case, ROUTES, Shapes};
use relugrad_tests::run::property;

/// Everything that is asked of a batch, as bits.
#[derive(Debug, PartialEq)]
struct Answers {
    bits: Vec<u64>,
    evaluation: Evaluation,
}

fn bits<'a>(values: impl IntoIterator<Item = &'a f64>) -> Vec<u64> {
    values.into_iter().map(|value| value.to_bits()).collect()
}

/// A batch through which the parallel paths of every product, gate and head are taken.
struct Large {
    network: Network<f64>,
    inputs: Array2<f64>,
    labels: Vec<usize>,
}

fn large(seed: u64, samples: usize) -> Large {
    let mlp = Mlp::new(&[130, 200, 130, 10]).gate(Gate::PRelu { initial: 0.1 });
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    Large {
        network: mlp.build(seed).unwrap(),
        inputs: Array2::from_shape_simple_fn((samples, 130), || random.random_range(-1.0..1.0)),
        labels: (0..samples).map(|i| i % 10).collect(),
    }
}

fn objective(penalties: Vec<Penalty>) -> Objective {
    let start = Objective::new(Loss::softmax_cross_entropy());
    let add = |objective: Objective, penalty: Penalty| objective.with(penalty, 0.1).unwrap();
    penalties.into_iter().fold(start, add)
}

fn answers(case: &Large, objective: &Objective) -> Answers {
    let (loss, targets) = (
        Loss::softmax_cross_entropy(),
        Targets::Classes(&case.labels),
    );
    let trace = case.network.trace(case.inputs.view()).unwrap();
    let mut all = bits(&trace.jacobian().unwrap());
    all.extend(bits(trace.logits()));
    all.extend(bits(&trace.gram().unwrap()));
    all.extend(bits(&trace.input_gradient(&loss, &targets).unwrap()));
    let curvature = trace.curvature(&loss).unwrap();
    all.extend(bits(&curvature.apply(case.inputs.view()).unwrap()));
    let pairs = curvature.eigenpairs().unwrap();
    all.extend(bits(&pairs.values).into_iter().chain(bits(&pairs.vectors)));
    let (evaluation, gradient) = objective
        .gradient(&case.network, case.inputs.view(), &targets)
        .unwrap();
    all.extend(bits(gradient.values()));
    Answers {
        bits: all,
        evaluation,
    }
}

fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(work)
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for (seed, samples) in [(1, 70), (2, 129)] {
        let case = large(seed, samples);
        for penalties in [
            Penalty::all(),
            vec![Penalty::InputGradient],
            vec![Penalty::CurvatureFrobenius],
            Penalty::geometric(),
        ] {
            let objective = objective(penalties);
            let one = on_threads(1, || answers(&case, &objective));
            for threads in [2, 5] {
                assert!(
                    on_threads(threads, || answers(&case, &objective)) == one,
                    "{threads} threads"
                );
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads_in_single_precision() {
    let case = large(3, 70);
    let (network, inputs): (Network<f32>, _) =
        (case.network.cast().unwrap(), case.inputs.mapv(|x| x as f32));
    let objective = objective([Penalty::all(), Penalty::geometric()].concat());
    let run = || {
        let found = objective.gradient(&network, inputs.view(), &Targets::Classes(&case.labels));
        let (evaluation, gradient) = found.unwrap();
        (evaluation, gradient.values().to_vec())
    };
    let one = on_threads(1, run);
    assert!(on_threads(2, run) == one && on_threads(5, run) == one);
}

/// Evaluates a case in a workspace and returns the bits of everything in it.
fn evaluate(case: &Case, objective: &Objective, workspace: &mut Workspace<f64>) -> Answers {
    let network = case.network();
    objective
        .gradient_into(&network, case.batch().view(), &case.owned.view(), workspace)
        .unwrap();
    let gradient = workspace.gradient().unwrap();
    let mut all = bits(gradient.values());
    all.extend(bits(workspace.logits().unwrap().as_slice().unwrap()));
    Answers {
        bits: all,
        evaluation: workspace.evaluation().unwrap().clone(),
    }
}

#[test]
fn a_used_workspace_gives_the_bits_of_a_fresh_one() {
    let penalties = [Penalty::all(), Penalty::geometric()].concat();
    let without_outputs =
        |p: &Penalty| !matches!(p, Penalty::DecisionBoundary(_) | Penalty::MaximumMargin(_));
    let penalties = penalties
        .into_iter()
        .filter(without_outputs)
        .collect::<Vec<_>>();
    let penalties = prop::sample::subsequence(penalties, 0..=6);
    let strategy = (Shapes::any().cases(), Shapes::any().cases(), penalties);
    property(strategy, |(first, second, penalties), _| {
        let build = |case: &Case| {
            let add = |objective: Objective, p: &Penalty| objective.with(p.clone(), 0.5).unwrap();
            penalties.iter().fold(Objective::new(case.loss), add)
        };
        let mut used = Workspace::new();
        evaluate(&first, &build(&first), &mut used);
        let found = evaluate(&second, &build(&second), &mut used);
        let fresh = evaluate(&second, &build(&second), &mut Workspace::new());
        prop_assert!(found == fresh);
        prop_assert!(evaluate(&second, &build(&second), &mut used) == fresh);
        Ok(())
    });
}

/// The value alone, after a gradient in the same workspace, is the value that came with the
/// gradient.
#[test]
fn value_and_gradient_report_the_same_terms() {
    let direction = Direction::Gradient { held: false };
    let penalties = [
        Penalty::InputGradient,
        Penalty::Cure {
            step: 0.5,
            direction,
        },
        Penalty::InputGradientL1,
    ];
    property(Shapes::any().cases(), |case, _| {
        let add = |objective: Objective, p: &Penalty| objective.with(p.clone(), 0.5).unwrap();
        let objective = penalties.iter().fold(Objective::new(case.loss), add);
        let (network, mut workspace) = (case.network(), Workspace::new());
        let with = evaluate(&case, &objective, &mut workspace).evaluation;
        objective
            .value_into(
                &network,
                case.batch().view(),
                &case.owned.view(),
                &mut workspace,
            )
            .unwrap();
        let pairs = with
            .penalties
            .iter()
            .zip(&workspace.evaluation().unwrap().penalties);
        for (with, without) in pairs {
            prop_assert!((with - without).abs() <= 1e-12 * with.abs());
        }
        Ok(())
    });
}

/// A workspace shows the results of its last evaluation and of no other.
#[test]
fn a_workspace_forgets_what_is_no_longer_its_own() {
    let (first, second) = (
        Mlp::new(&[3, 5, 4]).build::<f64>(0).unwrap(),
        Mlp::new(&[2, 7, 3]).build::<f64>(1).unwrap(),
    );
    let inputs = |d: usize| Array2::from_shape_fn((2, d), |(i, j)| (i + 2 * j) as f64 - 1.5);
    let objective = objective(vec![Penalty::Jacobian]);
    let targets = Targets::Classes(&[0, 2]);
    let mut workspace = Workspace::new();
    assert!(workspace.evaluation().is_none() && workspace.gradient().is_none());
    assert!(workspace.logits().is_none());
    let gradient = |network: &Network<f64>, workspace: &mut Workspace<f64>| {
        let inputs = inputs(network.inputs());
        objective.gradient_into(network, inputs.view(), &targets, workspace)
    };
    gradient(&first, &mut workspace).unwrap();
    assert_eq!(
        workspace.gradient().unwrap().len(),
        first.parameters().len()
    );
    assert_eq!(workspace.logits().unwrap().dim(), (2, 4));
    // The value of another network has no gradient.
    let value = objective.value_into(&second, inputs(2).view(), &targets, &mut workspace);
    value.unwrap();
    assert!(workspace.gradient().is_none() && workspace.evaluation().is_some());
    let logits = second.forward(inputs(2).view()).unwrap();
    assert_eq!(workspace.logits().unwrap(), logits);
    // Nor does a failed evaluation show the last one's.
    gradient(&first, &mut workspace).unwrap();
    let wrong = objective.gradient_into(&first, inputs(2).view(), &targets, &mut workspace);
    assert!(wrong.is_err() && workspace.gradient().is_none());
    assert!(workspace.evaluation().is_none() && workspace.logits().is_none());
    gradient(&second, &mut workspace).unwrap();
    assert_eq!(
        workspace.gradient().unwrap().len(),
        second.parameters().len()
    );
}

/// A network without parameters has an empty gradient and the usual values.
#[test]
fn networks_without_parameters_have_empty_gradients() {
    let plain = |flatten: bool| {
        let mut builder = Builder::<f64>::new();
        let x = builder.input(3).unwrap();
        let f = if flatten {
            builder.flatten(x).unwrap()
        } else {
            x
        };
        builder.build(f).unwrap()
    };
    let gated = || {
        let mut builder = Builder::<f64>::new();
        let x = builder.input(3).unwrap();
        let f = builder.relu(x).unwrap();
        builder.build(f).unwrap()
    };
    let inputs = array![[1.0, 2.0, -0.5], [0.3, 0.2, 0.1]];
    for network in [plain(false), plain(true), gated()] {
        for penalty in [Penalty::all(), Penalty::geometric()].concat() {
            for route in ROUTES {
                let objective = Objective::new(Loss::softmax_cross_entropy())
                    .with(penalty.clone(), 1.0)
                    .unwrap()
                    .with_strategy(route);
                let targets = Targets::Classes(&[0, 2]);
                let found = objective.gradient(&network, inputs.view(), &targets);
                let (evaluation, gradient) = found.unwrap();
                assert!(
                    gradient.is_empty() && evaluation.value.is_finite(),
                    "{penalty}"
                );
            }
        }
        let loss = Objective::new(Loss::softmax_cross_entropy());
        let found = loss.gradient(&network, inputs.view(), &Targets::Classes(&[0, 2]));
        assert!(found.unwrap().1.is_empty());
    }
}
