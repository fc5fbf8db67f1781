//! Networks of extreme scale: whatever is returned is finite and right, and the rest is a typed
//! error.
//!
//! Weights, biases and inputs are multiplied by powers of two such that the exact answers are those
//! of the plain network times powers of two: with `x → s x`, `W_l → c_l W_l` and
//! `b_l → s c_1 ⋯ c_l b_l` every activation is multiplied by a power of two, and no gate selects
//! otherwise.

use ndarray::{Array1, Array2, Axis};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{
    Builder, Direction, Error, FiniteDifference, Gate, Hinge, Loss, Mlp, Network, Norm, Objective,
    Penalty, Scalar, SweepStrategy, Targets,
};
use relugrad_tests::cases::ROUTES;
use relugrad_tests::run::property;

/// A plain network with a batch, and the powers of two of a scaled one.
#[derive(Clone, Debug)]
struct Scaled {
    plain: Network<f64>,
    inputs: Array2<f64>,
    labels: Vec<usize>,
    /// Of the inputs and of each layer.
    powers: Vec<i32>,
    route: SweepStrategy,
}

/// Powers from −100 to 100; for `balanced` ones their sum is 0, so that the logits are those of the
/// plain network.
fn scaled(balanced: bool) -> impl Strategy<Value = Scaled> {
    let widths = prop::collection::vec(1..=7_usize, 2..=4);
    (widths, 2..=4_usize, 0..4_usize, any::<bool>(), any::<u64>()).prop_map(
        move |(mut widths, outputs, gate, bias, seed)| {
            widths.push(outputs);
            let leaky = Gate::LeakyRelu { slope: -0.3 };
            let gates = [Gate::Relu, Gate::Abs, Gate::PRelu { initial: 0.2 }, leaky];
            let mlp = Mlp::new(&widths).gate(gates[gate]).bias(bias);
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut plain: Network<f64> = mlp.build(seed).unwrap();
            for info in plain.parameters().layout().to_vec() {
                if info.name().ends_with("bias") {
                    let values = &mut plain.parameters_mut().values_mut()[info.range()];
                    values.fill_with(|| random.random_range(-0.5..0.5));
                }
            }
            let batch = random.random_range(1..=3);
            let shape = (batch, widths[0]);
            let inputs = Array2::from_shape_simple_fn(shape, || random.random_range(-2.0..2.0));
            let mut powers: Vec<i32> = widths
                .iter()
                .map(|_| random.random_range(-100..=100))
                .collect();
            if balanced {
                let all: i32 = powers.iter().sum();
                let last = powers.last_mut().unwrap();
                *last = (*last - all).clamp(-120, 120);
                powers[0] -= powers.iter().sum::<i32>();
            }
            Scaled {
                labels: (0..batch)
                    .map(|_| random.random_range(0..outputs))
                    .collect(),
                route: ROUTES[random.random_range(0..ROUTES.len())],
                plain,
                inputs,
                powers,
            }
        },
    )
}

fn power(exponent: i32) -> f64 {
    f64::from(exponent).exp2()
}

impl Scaled {
    /// The exponent of what each parameter is multiplied by, array by array: `c_l`, for biases
    /// `s c_1 ⋯ c_l`.
    fn exponents(&self) -> Vec<i32> {
        let (mut layer, mut along) = (0, self.powers[0]);
        let exponent = |name: &str| {
            if name.ends_with("weight") {
                layer += 1;
                along += self.powers[layer];
                self.powers[layer]
            } else if name.ends_with("bias") {
                along
            } else {
                0
            }
        };
        let layout = self.plain.parameters().layout().iter();
        layout.map(|info| info.name()).map(exponent).collect()
    }

    /// The scaled network and inputs in a type, unless that cannot hold them.
    fn scaled<T: Scalar>(&self) -> Option<(Network<T>, Array2<T>)> {
        let mut network = self.plain.clone();
        for (info, exponent) in self
            .plain
            .parameters()
            .layout()
            .iter()
            .zip(self.exponents())
        {
            let values = &mut network.parameters_mut().values_mut()[info.range()];
            values.iter_mut().for_each(|v| *v *= power(exponent));
        }
        let inputs = &self.inputs * power(self.powers[0]);
        let holds = |v: &f64| *v == 0.0 || v.abs() < 1e37 && v.abs() > 1e-37;
        let single = T::NAME == "f32";
        let all = || network.parameters().values().iter().chain(&inputs);
        let fits = !single || all().all(holds);
        fits.then(|| (network.cast().unwrap(), inputs.mapv(T::from_f64)))
    }

    /// The smallest relative margin of any gate at any sample.
    fn clearance(&self) -> f64 {
        let of = |x: ndarray::ArrayView1<f64>| {
            let values = self.plain.margins(x).unwrap().values;
            let largest = values.iter().fold(0.0, |a: f64, b| a.max(*b));
            values.iter().fold(1.0, |a: f64, b| a.min(b / largest))
        };
        self.inputs.rows().into_iter().map(of).fold(1.0, f64::min)
    }
}

/// A penalty of the plain network, what it becomes for inputs `2^k` times as large, and the degree
/// `p` in the Jacobian: the value of the scaled network is `2^(p j)` times the plain one, `j` being
/// the exponent of its Jacobian.
fn penalties(k: i32, jacobian_alone: bool) -> Vec<(Penalty, Penalty, i32)> {
    let same = |penalty: Penalty, degree| (penalty.clone(), penalty, degree);
    let mut all = vec![
        same(Penalty::Jacobian, 2),
        same(Penalty::JacobianSpectral, 2),
        same(Penalty::JacobianNuclear, 1),
        same(Penalty::JacobianProjected { rows: 2, seed: 1 }, 2),
        same(Penalty::CrossLipschitz, 2),
    ];
    for (norm, radius) in [(Norm::L1, 2.0), (Norm::L2, 1.0), (Norm::Linf, 0.5)] {
        let hinge = |radius| Hinge {
            norm,
            nearest: 3,
            radius,
        };
        for of in [
            Penalty::DecisionBoundary,
            Penalty::RegionBoundary,
            Penalty::MaximumMargin,
        ] {
            all.push((of(hinge(radius)), of(hinge(radius * power(k))), 0));
        }
    }
    if jacobian_alone {
        return all;
    }
    all.extend([
        same(Penalty::InputGradient, 2),
        same(Penalty::InputGradientL2, 1),
        same(Penalty::InputGradientL1, 1),
        same(Penalty::InputGradientLinf, 1),
        same(Penalty::JacobianProbabilities, 2),
        same(Penalty::CurvatureTrace, 2),
        same(Penalty::CurvatureFrobenius, 4),
        same(Penalty::CurvatureSpectral, 2),
        same(Penalty::CurvatureDirectional, 4),
    ]);
    for direction in [Direction::Sign, Direction::Gradient { held: false }] {
        let step = 0.7;
        let cure = |step| Penalty::Cure { step, direction };
        let kinks = |step| Penalty::CureKinks { step, direction };
        all.push((cure(step), cure(step * power(k)), 2));
        all.push((kinks(step), kinks(step * power(k)), 2));
    }
    all
}

/// Value and gradient of a penalty alone; the loss is the squared error to what the logits are, so
/// that it says nothing, or softmax cross-entropy.
fn evaluate<T: Scalar>(
    case: &Scaled,
    (network, inputs): (&Network<T>, &Array2<T>),
    penalty: &Penalty,
) -> relugrad::Result<(f64, Vec<f64>)> {
    let objective = Objective::new(Loss::softmax_cross_entropy())
        .with(penalty.clone(), 1.0)?
        .penalties_only()
        .with_strategy(case.route);
    let targets = Targets::Classes(&case.labels);
    let (evaluation, gradient) = objective.gradient(network, inputs.view(), &targets)?;
    assert!(
        evaluation.value.is_finite() && evaluation.sample_penalties.iter().all(|v| v.is_finite())
    );
    assert!(evaluation.loss.is_finite());
    let gradient: Vec<f64> = gradient.values().iter().map(|g| g.into_f64()).collect();
    assert!(
        gradient.iter().all(|g| g.is_finite()),
        "{penalty}: not finite"
    );
    Ok((evaluation.penalties[0], gradient))
}

fn norm(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    largest
        * values
            .iter()
            .map(|v| (v / largest).powi(2))
            .sum::<f64>()
            .sqrt()
}

/// `value · 2^exponent`, also where the power alone is no number.
fn times_power(value: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    value * power(half) * power(exponent - half)
}

/// How far an array is from another, relative to that one's norm.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(expected)
}

/// Whether two arrays agree relative to their norm, or to the smallest number of full accuracy.
fn agree(found: &[f64], expected: &[f64], (tolerance, smallest): (f64, f64)) -> bool {
    let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    norm(&difference) <= tolerance * norm(expected) + smallest * (expected.len() as f64)
}

/// Evaluations by their outcome.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    right: usize,
    refused: usize,
    ill_conditioned: usize,
    /// Arrays that have lost digits at the ordinary scale.
    lossy: usize,
}

fn check<T: Scalar>(case: &Scaled, jacobian_alone: bool, tally: &mut Tally) -> TestCaseResult {
    let Some((network, inputs)) = case.scaled::<T>() else {
        return Ok(());
    };
    let layers: i32 = case.powers[1..].iter().sum();
    let single = T::NAME == "f32";
    let (tolerance, smallest, largest) = match single {
        true => (
            1e-3,
            2.0 * f64::from(f32::MIN_POSITIVE),
            f64::from(f32::MAX),
        ),
        false => (1e-9, 2.0 * f64::MIN_POSITIVE, f64::MAX),
    };
    // Of the rounded network the scaled one has the very bits.
    let rounded = case.plain.cast::<T>().unwrap();
    let rounded_inputs = case.inputs.mapv(T::from_f64);
    let plain_network = rounded.cast::<f64>().unwrap();
    let plain_inputs = rounded_inputs.mapv(Scalar::into_f64);
    for (plain, penalty, degree) in penalties(case.powers[0], jacobian_alone) {
        let (value, gradient) = evaluate(case, (&plain_network, &plain_inputs), &plain).unwrap();
        // What loses its digits at the ordinary scale cannot be expected to have them at another.
        let ordinary = evaluate(case, (&rounded, &rounded_inputs), &plain).unwrap();
        let strict = 0.1 * tolerance;
        if !(agree(&ordinary.1, &gradient, (strict, 0.0))
            && agree(&[ordinary.0], &[value], (strict, 0.0)))
        {
            tally.ill_conditioned += 1;
            continue;
        }
        let expected_value = times_power(value, degree * layers);
        let layout = case
            .plain
            .parameters()
            .layout()
            .iter()
            .zip(case.exponents());
        let expected: Vec<(Vec<f64>, Vec<usize>)> = layout
            .map(|(info, exponent)| {
                let scale = |&g: &f64| times_power(g, degree * layers - exponent);
                (
                    gradient[info.range()].iter().map(scale).collect(),
                    info.range().collect(),
                )
            })
            .collect();
        let holds = |v: &f64| v.abs() < 0.5 * largest;
        let all = || expected.iter().flat_map(|(array, _)| array);
        match evaluate(case, (&network, &inputs), &penalty) {
            Ok((found_value, found)) => {
                let tiny = (tolerance, f64::MIN_POSITIVE * 1e16);
                prop_assert!(
                    agree(&[found_value], &[expected_value], tiny),
                    "{} {}: value {found_value:e}, not {expected_value:e} {case:?}",
                    T::NAME,
                    penalty
                );
                let whole = norm(&gradient).max(value.abs());
                for (array, places) in &expected {
                    // Of arrays in which all cancels nothing but rounding is left.
                    let of = |all: &[f64]| places.iter().map(|&i| all[i]).collect::<Vec<f64>>();
                    let plain = of(&gradient);
                    if norm(&plain) < 1e-9 * whole {
                        continue;
                    }
                    // Much of an array that is small beside the whole may have cancelled at the
                    // ordinary scale as well.
                    let lost = relative_error(&of(&ordinary.1), &plain);
                    tally.lossy += usize::from(lost > strict);
                    let limits = (tolerance.max(2.0 * lost), smallest);
                    let found = of(&found);
                    prop_assert!(
                        agree(&found, array, limits),
                        "{} {}: gradient {found:?}, not {array:?} {case:?}",
                        T::NAME,
                        penalty
                    );
                }
                tally.right += 1;
            }
            Err(error) => {
                let typed = matches!(
                    error,
                    Error::NotFinite { .. } | Error::Gradient { .. } | Error::Underflow { .. }
                );
                prop_assert!(typed, "{penalty}: {error}");
                // In f32 nothing that it holds is refused, unless even f64 is left on the way.
                let mild = case.powers.iter().map(|p| p.abs()).sum::<i32>() <= 300;
                let logits = case.powers.iter().sum::<i32>().abs() < 100;
                let held = holds(&expected_value) && all().all(holds);
                prop_assert!(
                    !(single && mild && logits && held),
                    "{} of value {expected_value:e} is refused: {error} {case:?}",
                    penalty
                );
                tally.refused += 1;
            }
        }
    }
    Ok(())
}

fn run<T: Scalar>(balanced: bool) {
    let total = std::cell::Cell::new(Tally::default());
    property(scaled(balanced), |case, _| {
        if case.clearance() < 1e-2 {
            return Err(TestCaseError::reject("a sample lies too close to a kink"));
        }
        let mut tally = total.get();
        let checked = check::<T>(&case, !balanced, &mut tally);
        total.set(tally);
        checked
    });
    let tally = total.get();
    println!("{} balanced {balanced}: {tally:?}", T::NAME);
    assert!(tally.right > 10 * tally.ill_conditioned.min(10) && tally.right > 100 * tally.lossy);
}

#[test]
fn extreme_weights_in_single_precision_are_right_or_refused() {
    run::<f32>(true);
}

#[test]
fn extreme_weights_in_double_precision_are_right_or_refused() {
    run::<f64>(true);
}

/// Products of layers that `f32` holds, but not their fourth powers.
#[test]
fn fourth_powers_that_underflow_are_right() {
    let mlp = Mlp::new(&[1, 1, 1, 2]).gate(Gate::PRelu { initial: 0.2 });
    let mut plain: Network<f64> = mlp.bias(false).build(0).unwrap();
    let values = [0.631, 0.2, 0.968, 0.2, 0.09, -1.027];
    plain.parameters_mut().assign(&values).unwrap();
    let case = Scaled {
        plain,
        inputs: ndarray::array![[1.786]],
        labels: vec![0],
        powers: vec![32, -25, 6, -13],
        route: SweepStrategy::FirstLayerGram,
    };
    let mut tally = Tally::default();
    check::<f32>(&case, false, &mut tally).unwrap();
    assert!(tally.right > 20);
}

/// Penalties of the Jacobian, and distances, which do not see how large the logits are.
#[test]
fn extreme_logits_are_right_or_refused() {
    run::<f32>(false);
    run::<f64>(false);
}

/// The loss alone, of logits of any size.
#[test]
fn losses_of_extreme_weights_are_right_or_refused() {
    property(scaled(true), |case, _| {
        let Some((network, inputs)) = case.scaled::<f32>() else {
            return Ok(());
        };
        prop_assume!(case.clearance() > 1e-2);
        let objective = Objective::new(Loss::softmax_cross_entropy());
        let targets = Targets::Classes(&case.labels);
        let plain = objective.gradient(
            &case.plain,
            case.inputs.view(),
            &Targets::Classes(&case.labels),
        );
        let (plain, found) = (
            plain.unwrap(),
            objective.gradient(&network, inputs.view(), &targets),
        );
        let Ok((evaluation, gradient)) = found else {
            return Ok(());
        };
        prop_assert!((evaluation.loss - plain.0.loss).abs() <= 1e-5 * (1.0 + plain.0.loss));
        let layout = case
            .plain
            .parameters()
            .layout()
            .iter()
            .zip(case.exponents());
        for (info, exponent) in layout {
            let expected = plain.1.values()[info.range()].iter();
            let expected: Vec<f64> = expected.map(|&g| times_power(g, -exponent)).collect();
            let found = gradient.values()[info.range()].iter();
            let found: Vec<f64> = found.map(|&g| f64::from(g)).collect();
            prop_assert!(
                agree(&found, &expected, (1e-3, 1e-37)),
                "{found:?} {expected:?}"
            );
        }
        Ok(())
    });
}

/// CURE of samples whose residual is far below all numbers of the network's type.
#[test]
fn cure_of_saturated_samples_steps_along_the_direction_of_the_gradient() {
    let strategy = (
        any::<u64>(),
        prop_oneof![Just(60.0), Just(300.0), Just(3000.0), Just(1e7)],
    );
    property(strategy, |(seed, gain), _| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let network: Network<f64> = Mlp::new(&[4, 6, 3]).build(seed).unwrap();
        let x = Array1::from_shape_simple_fn(4, || random.random_range(-1.0..1.0));
        let f = network
            .forward(x.view().insert_axis(Axis(0)).view())
            .unwrap();
        let f = f.row(0).to_vec();
        let label = (0..3).fold(0, |best, k| if f[k] > f[best] { k } else { best });
        let second = (0..3)
            .filter(|&k| k != label)
            .map(|k| f[k])
            .fold(f64::MIN, f64::max);
        prop_assume!(f[label] - second > 0.3);
        let scaled = with_last_layer(&network, gain / (f[label] - second));
        let gap = |k: usize| gain / (f[label] - second) * (f[k] - second);
        // r up to a factor: exp(f_k − f_second), and their sum for the label.
        let mut r: Vec<f64> = (0..3).map(|k| gap(k).exp()).collect();
        r[label] = -(0..3).filter(|&k| k != label).map(|k| r[k]).sum::<f64>();
        let inputs = x.view().insert_axis(Axis(0)).to_owned();
        let trace = scaled.trace(inputs.view()).unwrap();
        let r = Array2::from_shape_vec((1, 3), r).unwrap();
        let g = trace.vjp(r.view()).unwrap().row(0).to_owned();
        let loss = Loss::softmax_cross_entropy();
        for direction in [Direction::Sign, Direction::Gradient { held: false }] {
            let z = match direction {
                Direction::Sign => g.mapv(f64::signum),
                Direction::Gradient { .. } => g.clone(),
            };
            let z = &z / norm(&z.to_vec());
            let step = 2.0;
            let there = (&x + &(step * &z)).insert_axis(Axis(0));
            let targets = Targets::Classes(&[label]);
            let gradient = |x: &Array2<f64>| {
                let trace = scaled.trace(x.view()).unwrap();
                trace.input_gradient(&loss, &targets).unwrap()
            };
            let change = gradient(&there) - gradient(&inputs);
            let expected = norm(&change.iter().copied().collect::<Vec<_>>()).powi(2);
            let penalty = Penalty::Cure { step, direction };
            let objective = Objective::new(loss).with(penalty, 1.0).unwrap();
            let found = objective
                .value(&scaled, inputs.view(), &targets)
                .unwrap()
                .penalties[0];
            prop_assert!(
                (found - expected).abs() <= 1e-9 * expected + 1e-300,
                "{found:e} {expected:e}"
            );
            let single = scaled.cast::<f32>().unwrap();
            let small = inputs.mapv(|x| x as f32);
            let narrow = objective.gradient(&single, small.view(), &Targets::Classes(&[label]));
            prop_assert!(narrow.is_ok(), "{}", narrow.unwrap_err());
            if gain > 500.0 {
                continue;
            }
            let objective = objective.penalties_only();
            let targets = Targets::Classes(&[label]);
            let exact = objective
                .gradient(&scaled, inputs.view(), &targets)
                .unwrap()
                .1;
            let central = FiniteDifference::central(1e-7).unwrap();
            let difference =
                central.parameter_gradient(&objective, &scaled, inputs.view(), &targets);
            let difference = difference.unwrap();
            let found = agree(exact.values(), difference.values(), (1e-3, 1e-4));
            prop_assert!(
                found || near_kink(&scaled, &there),
                "{exact:?} {difference:?}"
            );
        }
        Ok(())
    });
}

fn near_kink(network: &Network<f64>, x: &Array2<f64>) -> bool {
    let values = network.margins(x.row(0)).unwrap().values;
    values.iter().any(|&v| v < 1e-4)
}

/// The network with the weights of its last layer multiplied.
fn with_last_layer(network: &Network<f64>, factor: f64) -> Network<f64> {
    let mut scaled = network.clone();
    let layout = network.parameters().layout();
    for info in layout.iter().rev().take(2) {
        let values = &mut scaled.parameters_mut().values_mut()[info.range()];
        values.iter_mut().for_each(|v| *v *= factor);
    }
    scaled
}

/// The error of a gradient that overflows names the penalty, the parameter and the sample.
#[test]
fn a_gradient_that_overflows_names_penalty_parameter_and_sample() {
    let mut builder = Builder::<f32>::new();
    let x = builder.input(2).unwrap();
    let z = builder
        .dense(x, ndarray::array![[1e30, 0.0], [0.0, 1e30]], None)
        .unwrap();
    let f = builder
        .dense(z, ndarray::array![[1e-25, 0.0], [0.0, 1e-25]], None)
        .unwrap();
    let network = builder.build(f).unwrap();
    // ∂‖J‖²/∂W₂ = 2 J W₁ᵀ = 2e35; of the input gradient at the first sample nothing, at the second
    // as much.
    let inputs = ndarray::array![[1e-3_f32, 0.0], [-1e-3, 0.0], [1e-3, 0.0]];
    let objective = Objective::new(Loss::softmax_cross_entropy())
        .with(Penalty::Jacobian, 1.0)
        .unwrap()
        .with(Penalty::InputGradient, 1e8)
        .unwrap();
    let targets = Targets::Classes(&[0, 0, 0]);
    let error = objective
        .gradient(&network, inputs.view(), &targets)
        .unwrap_err();
    let Error::Gradient {
        term,
        parameter,
        sample,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (&term[..], &parameter[..], *sample),
        ("input-gradient", "dense1.weight", Some(1))
    );
    assert!(
        error
            .to_string()
            .contains("input-gradient with respect to dense1.weight")
    );
}
