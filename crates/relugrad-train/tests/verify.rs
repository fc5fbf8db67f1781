//! The theorems are checked on sound networks, and wrong derivatives are noticed.

use std::collections::BTreeSet;

use ndarray::{Array1, Array2, ArrayView1, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{
    Builder, Gate, Loss, Margins, Mlp, Network, Penalty, Piece, Result, Scalar, Targets,
};
use relugrad_train::data::digits;
use relugrad_train::evaluate::Samples;
use relugrad_train::verify::{Choices, Derivatives, Outcome, Report, Verdict, verify};
use relugrad_train::{Error, Training, train};

fn report<T: Scalar>(
    network: &Network<T>,
    claims: &dyn Derivatives<T>,
    samples: &Samples<T>,
) -> Report {
    verify(network, claims, samples, &Choices::default(), || true).unwrap()
}

fn verdicts(report: &Report, verdict: Verdict) -> BTreeSet<&'static str> {
    let outcomes = report.outcomes.iter();
    let chosen = outcomes.filter(|outcome| outcome.verdict == verdict);
    chosen.map(|outcome| outcome.theorem).collect()
}

/// Digits with labels below `classes`.
fn samples<T: Scalar>(count: usize, classes: usize) -> Samples<T> {
    let all: Samples<T> = Samples::new(&digits());
    let few: Vec<usize> = (0..all.len())
        .filter(|&i| all.truth.labels()[i] < classes)
        .take(count)
        .collect();
    Samples::of(all.images.select(Axis(0), &few), all.truth.select(&few))
}

fn random(widths: &[usize], bias: bool) -> Network<f64> {
    let mlp = Mlp::new(widths).gate(Gate::LeakyRelu { slope: 0.1 });
    mlp.bias(bias).build(3).unwrap()
}

fn trained() -> Network<f32> {
    let data = relugrad_train::data::stratified_split(&digits(), 0.2, 0).unwrap();
    let mut network = Mlp::new(&[64, 24, 24, 10]).build(1).unwrap();
    let training = Training {
        epochs: 5,
        ..Training::new(relugrad::Objective::new(Loss::softmax_cross_entropy()))
    };
    train(&mut network, &data, &training, &mut ()).unwrap();
    network
}

#[test]
fn all_statements_hold_on_a_trained_network_in_both_precisions() {
    let network = trained();
    let wide = report(
        &network.cast::<f64>().unwrap(),
        &network.cast::<f64>().unwrap(),
        &samples(60, 10),
    );
    let narrow = report(&network, &network, &samples(60, 10));
    for report in [&wide, &narrow] {
        assert!(report.holds(), "{:?}", verdicts(report, Verdict::Fails));
        let untested = verdicts(report, Verdict::NotChecked);
        assert_eq!(untested, BTreeSet::from(["T3", "T50", "T51"]));
        assert!(report.complete && report.samples == 60);
    }
    let cases = |report: &Report| report.outcomes.iter().map(|o| o.cases).min();
    assert!(cases(&wide) == Some(0) && wide.outcomes.iter().all(|o| o.cases + o.rejected <= 60));
}

#[test]
fn statements_of_small_scope_hold_where_they_apply() {
    let two = random(&[64, 12, 12, 2], false);
    let found = report(&two, &two, &samples(40, 2));
    assert!(found.holds(), "{:?}", verdicts(&found, Verdict::Fails));
    assert!(verdicts(&found, Verdict::Holds).is_superset(&BTreeSet::from(["T3", "T50"])));
    let one = random(&[64, 12, 1], true);
    let found = report(&one, &one, &samples(40, 2));
    assert!(found.holds(), "{:?}", verdicts(&found, Verdict::Fails));
    assert!(verdicts(&found, Verdict::Holds).contains("T51"));
    let affine = random(&[64, 5], true);
    assert!(report(&affine, &affine, &samples(40, 5)).holds());
}

#[test]
fn samples_on_a_kink_and_saturated_samples_are_counted() {
    let mut network = random(&[64, 12, 10], false);
    let blank = Samples::of(Array2::zeros((3, 64)), &[0, 1, 2]);
    assert_eq!(report(&network, &network, &blank).on_kink, 3);
    for value in network.parameters_mut().values_mut() {
        *value *= 100.0;
    }
    let found = report(&network, &network, &samples(40, 10));
    assert!(found.saturated > 30, "{}", found.saturated);
    let fails = verdicts(&found, Verdict::Fails);
    assert!(fails.is_empty(), "{fails:?}");
}

/// The same network with one weight matrix transposed.
fn transposed(network: &Network<f64>) -> Network<f64> {
    let mut wrong = network.clone();
    let layout = network.parameters().layout();
    let square = layout.iter().find(|info| info.shape() == [12, 12]).unwrap();
    let (from, range) = (network.parameters().values(), square.range());
    for i in 0..12 {
        for j in 0..12 {
            let place = range.start + 12 * i + j;
            wrong.parameters_mut().values_mut()[place] = from[range.start + 12 * j + i];
        }
    }
    wrong
}

/// Every statement that ties values to derivatives, and is decided by most samples.
const TIES: [&str; 4] = ["T1", "T2", "T61", "T63"];

#[test]
fn a_transposed_matrix_is_noticed() {
    let network = random(&[64, 12, 12, 10], true);
    let found = report(&network, &transposed(&network), &samples(40, 10));
    let fails = verdicts(&found, Verdict::Fails);
    assert!(fails.is_superset(&BTreeSet::from(TIES)), "{fails:?}");
}

#[test]
fn a_wrong_sign_in_a_gate_is_noticed() {
    let network = random(&[64, 12, 12, 10], true);
    let mlp = Mlp::new(&[64, 12, 12, 10]).gate(Gate::LeakyRelu { slope: -0.1 });
    let mut wrong: Network<f64> = mlp.build(3).unwrap();
    let values = network.parameters().values();
    wrong.parameters_mut().assign(values).unwrap();
    let fails = verdicts(&report(&network, &wrong, &samples(40, 10)), Verdict::Fails);
    assert!(
        fails.is_superset(&BTreeSet::from(["T1", "T63"])),
        "{fails:?}"
    );
}

/// The engine's claims, but for those of one kind.
struct Scaled<'a> {
    network: &'a Network<f64>,
    kind: &'static str,
    factor: f64,
}

impl Scaled<'_> {
    fn factor(&self, kind: &str) -> f64 {
        if kind == self.kind { self.factor } else { 1.0 }
    }
}

type View<'a> = ArrayView1<'a, f64>;

impl Derivatives<f64> for Scaled<'_> {
    fn jacobian(&self, x: View) -> Result<Array2<f64>> {
        Ok(self.network.jacobian(x)? * self.factor("J"))
    }

    fn jvp(&self, x: View, v: View) -> Result<Array1<f64>> {
        Ok(self.network.jvp(x, v)? * self.factor("jvp"))
    }

    fn vjp(&self, x: View, u: View) -> Result<Array1<f64>> {
        Ok(self.network.vjp(x, u)? * self.factor("vjp"))
    }

    fn input_gradient(&self, x: View, loss: &Loss, y: &Targets<f64>) -> Result<Array1<f64>> {
        let found = self.network.input_gradient(x, loss, y)?;
        Ok(found * self.factor("input gradient"))
    }

    fn hessian_times(&self, x: View, loss: &Loss, v: View) -> Result<Array1<f64>> {
        Ok(self.network.hessian_times(x, loss, v)? * self.factor("hessian"))
    }

    fn hessian_eigenvalues(&self, x: View, loss: &Loss) -> Result<Array1<f64>> {
        let mut values = self.network.hessian_eigenvalues(x, loss)?;
        if self.kind == "eigenvalues" {
            let last = values.len() - 1;
            values[last] = self.factor * values[0];
        }
        Ok(values)
    }

    fn penalty(&self, x: View, loss: &Loss, y: &Targets<f64>, penalty: &Penalty) -> Result<f64> {
        let found = self.network.penalty(x, loss, y, penalty)?;
        Ok(found * self.factor(penalty.name()))
    }

    fn parameter_gradient(&self, x: View, penalty: &Penalty) -> Result<Vec<f64>> {
        let shift = self.factor("parameters") - 1.0;
        let found = self.network.parameter_gradient(x, penalty)?;
        Ok(found.into_iter().map(|g| g + shift * (1.0 + g)).collect())
    }

    fn pieces(&self, x: View, z: View, length: f64) -> Result<Vec<Piece<f64>>> {
        let mut pieces = self.network.pieces(x, z, length)?;
        for piece in &mut pieces {
            piece.end *= self.factor("pieces");
            piece.jacobian *= self.factor("pieces");
        }
        Ok(pieces)
    }

    fn margins(&self, x: View) -> Result<Margins<f64>> {
        let mut margins = self.network.margins(x)?;
        margins.values *= self.factor("margins");
        Ok(margins)
    }
}

/// The statement that notices each kind of error at once.
const NOTICED_BY: [(&str, &str); 23] = [
    ("J", "T1"),
    ("jvp", "T4"),
    ("vjp", "T4"),
    ("input gradient", "T5"),
    ("hessian", "T5"),
    ("eigenvalues", "T37"),
    ("input-gradient", "T46"),
    ("input-gradient-l1", "T16-T25"),
    ("input-gradient-l2", "T16-T25"),
    ("input-gradient-linf", "T16-T25"),
    ("jacobian", "T16-T25"),
    ("jacobian-spectral", "T16-T25"),
    ("jacobian-probabilities", "T16-T25"),
    ("cross-lipschitz", "T42"),
    ("curvature-trace", "T34"),
    ("curvature-frobenius", "T16-T25"),
    ("curvature-spectral", "T38"),
    ("curvature-directional", "T16-T25"),
    ("cure", "T54"),
    ("cure-gradient", "T53"),
    ("parameters", "T60"),
    ("pieces", "T54"),
    ("margins", "T2"),
];

/// The statements that fail if the claims of one kind are wrong by a factor.
fn failing(
    network: &Network<f64>,
    samples: &Samples<f64>,
    kind: &'static str,
    factor: f64,
) -> BTreeSet<&'static str> {
    let claims = Scaled {
        network,
        kind,
        factor,
    };
    verdicts(&report(network, &claims, samples), Verdict::Fails)
}

#[test]
fn an_error_of_a_thousandth_of_any_kind_is_noticed() {
    let network = random(&[64, 12, 12, 10], true);
    let samples = samples(20, 10);
    for (kind, theorem) in NOTICED_BY {
        let fails = failing(&network, &samples, kind, 1.001);
        assert!(fails.contains(theorem), "{kind}: {fails:?}");
    }
}

#[test]
fn every_statement_can_fail() {
    let many = (random(&[64, 12, 12, 10], true), samples(20, 10));
    let two = (random(&[64, 12, 2], false), samples(20, 2));
    let one = (random(&[64, 12, 1], true), samples(20, 2));
    let mut failed = BTreeSet::new();
    for (network, samples) in [&many, &two, &one] {
        for kind in [
            "J",
            "jacobian",
            "input gradient",
            "hessian",
            "eigenvalues",
            "input-gradient",
            "jacobian-nuclear",
            "cross-lipschitz",
            "curvature-trace",
            "curvature-spectral",
            "cure",
            "cure-gradient",
            "parameters",
            "margins",
        ] {
            for factor in [1e-2, 1e2] {
                failed.extend(failing(network, samples, kind, factor));
            }
        }
    }
    let (network, samples) = &many;
    let found = report(network, network, samples);
    let all: BTreeSet<&str> = found.outcomes.iter().map(|o| o.theorem).collect();
    let never: Vec<_> = all.difference(&failed).collect();
    assert!(never.is_empty(), "{never:?}");
}

#[test]
fn the_report_does_not_depend_on_the_number_of_threads() {
    let (network, samples) = (random(&[64, 12, 10], true), samples(20, 10));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        format!(
            "{:?}",
            pool.install(|| report(&network, &network, &samples))
        )
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_stopped_verification_says_so() {
    let (network, samples) = (random(&[64, 12, 10], true), samples(20, 10));
    let found = verify(&network, &network, &samples, &Choices::default(), || false).unwrap();
    assert!(!found.complete && found.samples >= 1 && found.samples < 20);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (network, samples) = (random(&[64, 12, 5], true), samples(20, 10));
    let choices = Choices::default();
    let label = verify(&network, &network, &samples, &choices, || true);
    assert!(matches!(label, Err(Error::Sample { .. })));
    let narrow = random(&[63, 12, 10], true);
    let shape = verify(&narrow, &narrow, &samples, &choices, || true);
    assert!(matches!(shape, Err(Error::Sample { .. })));
    let none = samples.first(0);
    let empty = verify(&network, &network, &none, &choices, || true);
    assert!(matches!(empty, Err(Error::EmptyDataset { .. })));
    let choices = Choices {
        cure_step: 0.0,
        ..choices
    };
    let step = verify(&network, &network, &samples, &choices, || true);
    assert!(matches!(step, Err(Error::OutOfRange { .. })));
}

/// A network that loses digits, with samples: weights over many magnitudes as in controllers, units
/// and logits that nearly coincide, biases that cancel what arrives, few terms, a single layer, a
/// single gate.
fn hard(seed: u64) -> (Network<f64>, Samples<f64>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut width = |largest: usize| random.random_range(1..=largest);
    let (inputs, depth) = (width(6), width(4) - 1);
    let mut widths = vec![inputs];
    widths.extend((0..depth).map(|_| width(6)));
    widths.push(width(5));
    let gates = [
        Gate::Relu,
        Gate::Abs,
        Gate::LeakyRelu { slope: -0.2 },
        Gate::Clip {
            min: -1.0,
            max: 2.0,
        },
    ];
    let gate = gates[random.random_range(0..4)];
    let mlp = Mlp::new(&widths).gate(gate).bias(random.random());
    let mut network: Network<f64> = mlp.build(seed).unwrap();
    let x = Array2::from_shape_simple_fn((2, inputs), || random.random_range(-2.0..2.0_f64));
    let spread = f64::from(random.random_range(0..=4));
    let (coincide, cancel) = (random.random_bool(0.4), random.random_bool(0.4));
    let mut layer = 0;
    for info in network.parameters().layout().to_vec() {
        let values = &mut network.parameters_mut().values_mut()[info.range()];
        if info.shape().len() == 2 {
            layer += 1;
            for value in values.iter_mut() {
                *value *= 10f64.powf(random.random_range(-spread..=spread));
            }
            let columns = info.shape()[1];
            if coincide && values.len() > columns {
                let (first, rest) = values.split_at_mut(columns);
                for (a, b) in first.iter().zip(rest) {
                    *b = a * (1.0 + 1e-8 * random.random_range(-1.0..1.0));
                }
            }
        } else if cancel && layer == 1 {
            let weight = network.parameters().array(0).unwrap().to_owned();
            let weight: Array2<f64> = weight.into_dimensionality().unwrap();
            let arriving = weight.dot(&x.row(0));
            let values = &mut network.parameters_mut().values_mut()[info.range()];
            for (bias, z) in values.iter_mut().zip(&arriving) {
                *bias = -z * (1.0 + 1e-6 * random.random_range(0.0..1.0));
            }
        }
    }
    let classes = widths[depth + 1].max(2);
    let labels: Vec<usize> = (0..2).map(|_| random.random_range(0..classes)).collect();
    (network, Samples::of(x, labels))
}

/// `RELUGRAD_CASES` of them, by default a few.
fn hard_cases() -> u64 {
    let cases = std::env::var("RELUGRAD_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(60)
}

/// The statements that fail on a sound network, with their residuals and tolerances.
fn alarms<T: Scalar>(network: &Network<T>, samples: &Samples<T>) -> Vec<String> {
    let Ok(found) = verify(network, network, samples, &Choices::default(), || true) else {
        return Vec::new();
    };
    let outcomes = found.outcomes.iter();
    let failed = outcomes.filter(|outcome| outcome.verdict == Verdict::Fails);
    let alarm = |outcome: &Outcome| {
        let (worst, tolerance) = (outcome.worst, outcome.tolerance);
        format!("{} {} {worst:e} {tolerance:e}", T::NAME, outcome.theorem)
    };
    failed.map(alarm).collect()
}

/// Seeds at which rounding lets gates switch back and forth at one place in f32 (211), a sample is
/// saturated (182), regions on the way of CURE cancel more than the first (1543, 2256, in f32
/// 2146), the square of a gradient underflows (1133), in f32 a product with the Hessian (7383) or
/// what a sweep carries (35033), and an eigenvalue is what rounding makes of it in f32 (20279).
const SEEN: [u64; 9] = [182, 211, 1133, 1543, 2146, 2256, 7383, 20_279, 35_033];

#[test]
fn networks_that_lose_digits_raise_no_false_alarm() {
    let mut failed: Vec<(u64, Vec<String>)> = Vec::new();
    for seed in (0..hard_cases()).chain(SEEN) {
        let (network, samples) = hard(seed);
        failed.push((seed, alarms(&network, &samples)));
        let network: Network<f32> = network.cast().unwrap();
        failed.push((seed, alarms(&network, &samples.cast())));
    }
    failed.retain(|(_, alarms)| !alarms.is_empty());
    assert!(failed.is_empty(), "{}: {failed:#?}", failed.len());
}

/// Whether a number that a kind of error is about is 0 at all samples, so that a thousandth of it
/// is nothing.
fn vanishes(network: &Network<f64>, samples: &Samples<f64>, kind: &str) -> bool {
    let Ok(penalty) = kind.parse::<Penalty>() else {
        return false;
    };
    let loss = Loss::for_targets(samples.truth.kind(), network.outputs());
    (0..samples.len()).all(|i| {
        let (x, y) = (samples.images.row(i), samples.truth.part(i..i + 1));
        let value = Derivatives::penalty(network, x, &loss, &y, &penalty);
        value.is_ok_and(|value| value == 0.0)
    })
}

/// On networks that lose digits an error of a thousandth is noticed wherever the statement is
/// checked and the number is not itself what cancellation has left.
#[test]
fn an_error_of_a_thousandth_is_noticed_where_digits_are_lost() {
    let mut counts = [(0, 0); NOTICED_BY.len()];
    for seed in 0..24 {
        let (network, samples) = hard(seed);
        let choices = Choices::default();
        let Ok(sound) = verify(&network, &network, &samples, &choices, || true) else {
            continue;
        };
        for ((kind, theorem), (checked, noticed)) in NOTICED_BY.into_iter().zip(&mut counts) {
            let mut outcomes = sound.outcomes.iter();
            let outcome = outcomes.find(|o| o.theorem == theorem).unwrap();
            if outcome.cases == 0 || vanishes(&network, &samples, kind) {
                continue;
            }
            let claims = Scaled {
                network: &network,
                kind,
                factor: 1.001,
            };
            *checked += 1;
            if let Ok(found) = verify(&network, &claims, &samples, &choices, || true) {
                *noticed += usize::from(verdicts(&found, Verdict::Fails).contains(theorem));
            }
        }
    }
    let few = |(checked, noticed): &(usize, usize)| *checked < 5 || 2 * noticed < *checked;
    let unnoticed = NOTICED_BY
        .iter()
        .zip(&counts)
        .filter(|(_, count)| few(count));
    let unnoticed: Vec<_> = unnoticed.collect();
    println!("{counts:?}");
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}

/// What no sample satisfies is not checked, and not all holds.
#[test]
fn statements_without_a_case_are_not_checked() {
    let network = random(&[64, 12, 10], false);
    let blank = Samples::of(Array2::zeros((3, 64)), &[0, 1, 2]);
    let found = report(&network, &network, &blank);
    assert_eq!(found.count(Verdict::Fails), 0);
    assert!(!found.holds());
    let outcome = |theorem| {
        found
            .outcomes
            .iter()
            .find(|o| o.theorem == theorem)
            .unwrap()
    };
    let (kink, two) = (outcome("T61"), outcome("T50"));
    assert!(kink.applies && kink.verdict == Verdict::NotChecked && kink.cases == 0);
    assert_eq!(
        kink.reason,
        Some("its hypotheses hold at no sample, or only to rounding")
    );
    assert!(!two.applies && two.reason == Some("needs exactly two logits"));
}

#[test]
fn a_network_without_parameters_or_layers_is_verified() {
    let mut builder = Builder::<f64>::new();
    let x = builder.input(3).unwrap();
    let network = builder.build(x).unwrap();
    let images = Array2::from_shape_fn((2, 3), |(i, j)| (i * 3 + j) as f64 - 1.0);
    let samples = Samples::of(images, &[0, 2]);
    let found = report(&network, &network, &samples);
    assert_eq!(
        found.count(Verdict::Fails),
        0,
        "{:?}",
        verdicts(&found, Verdict::Fails)
    );
    assert!(verdicts(&found, Verdict::NotChecked).is_superset(&BTreeSet::from(["T59", "T60"])));
}
