//! Evaluations of trained networks: the order of the attacks, and certificates below them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{Loss, Mlp, Network, Objective, Penalty};
use relugrad_train::attack::{ApgdCe, Attacker, Norm, Pgd};
use relugrad_train::data::{Dataset, Split, digits, stratified_split};
use relugrad_train::robustness::{Attacked, Evaluated, EvaluationOptions, evaluate};
use relugrad_train::{Adversarial, Training, train};

static DATA: LazyLock<Split> = LazyLock::new(|| stratified_split(&digits(), 0.2, 0).unwrap());

fn trained(penalty: Option<(Penalty, f64)>, adversarial: bool) -> Network<f32> {
    let mut objective = Objective::new(Loss::softmax_cross_entropy());
    if let Some((penalty, lambda)) = penalty {
        objective = objective.with(penalty, lambda).unwrap();
    }
    let training = Training {
        epochs: 20,
        adversarial: adversarial.then(Adversarial::default),
        ..Training::new(objective)
    };
    let mut network = Mlp::new(&[64, 64, 64, 10]).build(0).unwrap();
    train(&mut network, &DATA, &training, &mut ()).unwrap();
    network
}

/// Networks trained plainly, with two penalties, and adversarially.
static NETWORKS: LazyLock<Vec<Network<f32>>> = LazyLock::new(|| {
    vec![
        trained(None, false),
        trained(Some((Penalty::Jacobian, 0.01)), false),
        trained(Some((Penalty::CurvatureFrobenius, 0.1)), false),
        trained(None, true),
    ]
});

fn evaluated(network: &Network<f32>) -> Evaluated<f32> {
    let evaluation = EvaluationOptions {
        linf: vec![0.1, 0.2],
        l2: vec![0.5, 1.0],
        samples: 200,
        certified: 40,
        penalties: vec![Penalty::Jacobian],
        ..EvaluationOptions::default()
    };
    evaluate(network, &DATA.test, &evaluation, &mut (), &|| true).unwrap()
}

/// Auto-PGD ≤ PGD with restarts ≤ PGD ≤ FGSM ≤ clean, and random points mislead the fewest.
#[test]
fn stronger_attacks_mislead_more() {
    for network in NETWORKS.iter() {
        let report = evaluated(network).report;
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        for worst in &report.worst {
            let ball = |a: &&Attacked| {
                let ball = |a: &Attacked| (a.attack.options.norm, a.attack.options.epsilon);
                ball(a) == ball(worst)
            };
            let here: Vec<&Attacked> = report.attacks.iter().filter(ball).collect();
            let counts: Vec<usize> = here
                .iter()
                .map(|a| a.standing.share().unwrap().count)
                .collect();
            let [noise, fgsm, pgd, restarts, ce, dlr] = counts[..] else {
                panic!("{counts:?}");
            };
            let clean = report.attacked_clean.share().unwrap().count;
            assert!(noise <= clean && fgsm <= noise, "{counts:?}");
            assert!(pgd <= fgsm && restarts <= pgd, "{counts:?}");
            assert!(
                ce.min(dlr) <= restarts && worst.standing.share().unwrap().count <= ce.min(dlr),
                "{counts:?}"
            );
        }
    }
}

/// Ten thousand tries to leave the class inside the certified radius of a region, in both norms,
/// and as many points whose pattern must be that of the sample: random points of the sphere,
/// corners of the box, and ends of gradient attacks.
#[test]
fn ten_thousand_tries_contradict_no_region() {
    let (mut random, loss) = (ChaCha8Rng::seed_from_u64(3), Loss::softmax_cross_entropy());
    let mut tries = 0;
    for network in NETWORKS
        .iter()
        .map(|network| network.cast::<f64>().unwrap())
    {
        for sample in 0..50 {
            let x = DATA.test.images().row(sample).mapv(f64::from);
            let region = network.region(x.view()).unwrap();
            let here = network.trace(x.view().insert_axis(Axis(0))).unwrap();
            let logits = here.logits().row(0).to_vec();
            let class = (0..10).fold(0, |best, k| if logits[k] > logits[best] { k } else { best });
            for norm in Norm::ALL {
                let radius = (1.0 - 1e-9) * region.certified_radius(class, norm).unwrap();
                let mut steps =
                    Array2::from_shape_simple_fn((50, 64), || random.random_range(-1.0..1.0));
                for (i, mut step) in steps.rows_mut().into_iter().enumerate() {
                    if norm == Norm::Linf && i % 2 == 0 {
                        step.mapv_inplace(f64::signum);
                    }
                    let size = norm.of(step.as_slice().unwrap());
                    step.mapv_inplace(|s| s * radius / size);
                }
                let attack = Attacker::new(Pgd {}, norm, radius, 10, 1);
                let image = x.view().insert_axis(Axis(0));
                let found = attack
                    .run(&network, &loss, image, &[class], sample)
                    .unwrap();
                steps.row_mut(0).assign(&(&found.adversarial.row(0) - &x));
                let points = &steps + &x;
                let there = network.trace(points.view()).unwrap();
                for (i, f) in there.logits().rows().into_iter().enumerate() {
                    tries += 1;
                    assert!(there.pattern().same_region(i, here.pattern(), 0));
                    assert!((0..10).all(|k| k == class || f[k] < f[class]));
                }
            }
        }
    }
    assert!(tries >= 10_000, "{tries}");
}

/// No attack succeeds within a certified radius, and an exact minimal perturbation is no larger
/// than DeepFool's.
#[test]
fn certificates_are_never_contradicted() {
    for network in NETWORKS.iter() {
        let report = evaluated(network).report;
        let certified: Vec<_> = report
            .samples
            .iter()
            .filter(|s| s.radii.is_some())
            .collect();
        assert_eq!(certified.len(), 40);
        for sample in certified {
            let radii = sample.radii.unwrap();
            for (i, norm) in [Norm::Linf, Norm::L2].into_iter().enumerate() {
                let radii = radii[i];
                assert!(radii.lower > 0.0 && radii.lower.is_finite());
                for (attacked, fooled) in report.attacks.iter().zip(&sample.fooled) {
                    let options = attacked.attack.options;
                    let same = options.norm == norm && sample.is_right();
                    assert!(!(same && *fooled && options.epsilon < radii.lower));
                }
                // Whatever was found is no smaller than what is certain.
                let upper = radii.upper.unwrap();
                assert!(radii.lower <= upper && radii.lower <= radii.kink.min(radii.boundary));
                if radii.proven {
                    assert!(radii.boundary <= radii.kink && upper <= radii.lower * (1.0 + 1e-5));
                }
                let deepfool = sample.deepfool[i].unwrap();
                // A little further, if only f32 sees the change there.
                assert!(upper <= deepfool * (1.0 + 2e-4));
                // DeepFool runs in f32.
                assert!(deepfool >= radii.lower * (1.0 - 1e-4));
            }
            // A strong attack just inside the certified radius fails.
            let x = DATA.test.images().row(sample.index).insert_axis(Axis(0));
            let inside = Attacker::new(ApgdCe {}, Norm::Linf, 0.99 * radii[0].lower, 50, 5);
            let loss = Loss::softmax_cross_entropy();
            let found = inside
                .stand(network, &loss, x, &[sample.class.unwrap().prediction], 0)
                .unwrap();
            assert!(found[0].is_none());
        }
    }
}

#[test]
fn adversarial_examples_are_in_the_ball_and_mislead() {
    let network = &NETWORKS[1];
    let Evaluated {
        report,
        adversarial,
    } = evaluated(network);
    for (worst, examples) in report.worst.iter().zip(&adversarial) {
        let logits = network.forward(examples.view()).unwrap();
        let mut survivors = 0;
        for (i, sample) in report.samples.iter().enumerate() {
            let x = DATA.test.images().row(i);
            let delta = &examples.row(i) - &x;
            let options = worst.attack.options;
            let size = options.norm.of(delta.as_slice().unwrap());
            assert!(size <= options.epsilon * (1.0 + 1e-5));
            assert!(examples.row(i).iter().all(|x| (0.0..=1.0).contains(x)));
            let f = logits.row(i);
            let label = sample.class.unwrap().label;
            let mut others = (0..10).filter(|&k| k != label);
            survivors += usize::from(others.all(|k| f[k] < f[label]));
        }
        assert_eq!(survivors, worst.standing.share().unwrap().count);
    }
}

/// A network whose first layer is dead has no gradient anywhere, and it is said why.
#[test]
fn masked_gradients_are_told_by_their_reason() {
    let mut dead = NETWORKS[0].clone();
    let bias = dead.parameters().layout()[1].range();
    dead.parameters_mut().values_mut()[bias].fill(-1e3);
    let report = evaluated(&dead).report;
    let d = report.diagnosis;
    assert_eq!((d.zero, d.dead, d.samples), (200, 200, 200));
    assert!(
        report
            .warnings
            .iter()
            .any(|w| w.contains("no input gradient"))
    );

    let mut confident = NETWORKS[0].clone();
    confident
        .parameters_mut()
        .values_mut()
        .iter_mut()
        .for_each(|w| *w *= 10.0);
    let d = evaluated(&confident).report.diagnosis;
    assert!(d.saturated > 150 && d.dead == 0, "{d:?}");
}

#[test]
fn an_evaluation_refuses_other_data() {
    let refused = |network: Network<f32>| {
        let evaluation = EvaluationOptions::default();
        evaluate(&network, &DATA.test, &evaluation, &mut (), &|| true).is_err()
    };
    assert!(refused(Mlp::new(&[63, 4, 10]).build(0).unwrap()));
    assert!(refused(Mlp::new(&[64, 4, 9]).build(0).unwrap()));
}

/// Wherever it is stopped, an evaluation keeps what is finished, and that is what the whole
/// evaluation says.
#[test]
fn an_evaluation_that_is_stopped_keeps_the_parts_that_are_finished() {
    let evaluation = EvaluationOptions {
        linf: vec![0.1],
        l2: vec![0.5],
        samples: 40,
        certified: 10,
        pgd_steps: 3,
        pgd_restarts: 2,
        apgd_steps: 4,
        apgd_restarts: 1,
        deepfool_steps: 4,
        penalties: vec![Penalty::Jacobian],
        ..EvaluationOptions::default()
    };
    let asked = AtomicUsize::new(0);
    let stopped_after = |questions: usize| {
        asked.store(0, Ordering::SeqCst);
        let go_on = || asked.fetch_add(1, Ordering::SeqCst) < questions;
        evaluate(&NETWORKS[1], &DATA.test, &evaluation, &mut (), &go_on)
    };
    let whole = stopped_after(usize::MAX).unwrap();
    assert!(whole.report.complete);
    let questions = asked.load(Ordering::SeqCst);
    let mut sizes = Vec::new();
    for stop in (0..questions).step_by(7) {
        let Ok(Evaluated {
            report,
            adversarial,
        }) = stopped_after(stop)
        else {
            // Two batches of all samples, and two groups of those to attack, twice.
            assert!(stop < 6);
            continue;
        };
        assert!(!report.complete && report.warnings[0].starts_with("interrupted: "));
        assert_eq!(report.clean, whole.report.clean);
        let attacks = report.attacks.len();
        assert_eq!(report.attacks[..], whole.report.attacks[..attacks]);
        assert_eq!(report.worst.len(), adversarial.len());
        let norms = report.deepfool.len();
        assert_eq!(report.deepfool[..], whole.report.deepfool[..norms]);
        for (sample, all) in report.samples.iter().zip(&whole.report.samples) {
            assert_eq!(sample.fooled[..], all.fooled[..attacks]);
            // What is certain does not change; what was found does with every attack.
            for (radii, all) in sample
                .radii
                .iter()
                .flatten()
                .zip(all.radii.iter().flatten())
            {
                assert_eq!((radii.lower, radii.proven), (all.lower, all.proven));
                assert!(all.upper <= radii.upper || radii.upper.is_none());
            }
        }
        sizes.push(attacks);
    }
    assert!(
        sizes.is_sorted() && sizes.contains(&0) && sizes.contains(&11),
        "{sizes:?}"
    );
}

/// In two dimensions every point of a fine grid is tried: none changes the class within `lower`,
/// none is nearer than a proven `upper`, and `upper` is no less than the nearest of them but for
/// the width of the grid.
#[test]
fn the_smallest_change_of_class_lies_between_lower_and_upper() {
    let (mut proven, mut bounded) = (0, 0);
    for seed in 0..6 {
        let network = Mlp::new(&[2, 7, 3]).build::<f64>(seed).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let images = Array2::from_shape_simple_fn((8, 2), || random.random_range(0.0..1.0_f32));
        let labels = (0..8).map(|i| i % 3).collect();
        let data = Dataset::new("grid", images, labels, 3, vec![2]).unwrap();
        let evaluation = EvaluationOptions {
            linf: vec![0.3],
            l2: vec![0.3],
            pgd_steps: 10,
            apgd_steps: 10,
            ..EvaluationOptions::default()
        };
        let found = evaluate(&network, &data, &evaluation, &mut (), &|| true);
        for sample in found.unwrap().report.samples {
            let x = data.images().row(sample.index).mapv(f64::from);
            let class = |rows: &Array2<f64>| -> Vec<usize> {
                let logits = network.forward(rows.view()).unwrap();
                let rows = logits.rows().into_iter();
                rows.map(|f| (1..3).fold(0, |best, k| if f[k] > f[best] { k } else { best }))
                    .collect()
            };
            let here = class(&x.view().insert_axis(Axis(0)).to_owned())[0];
            for (i, norm) in [Norm::Linf, Norm::L2].into_iter().enumerate() {
                let radii = sample.radii.unwrap()[i];
                // A grid that fills the ball of the upper bound.
                let reach = radii.upper.unwrap_or(1.0) * 1.05;
                let steps = 101;
                let at = |i: usize| reach * (2.0 * i as f64 / (steps - 1) as f64 - 1.0);
                let points = Array2::from_shape_fn((steps * steps, 2), |(row, column)| {
                    x[column]
                        + at(if column == 0 {
                            row / steps
                        } else {
                            row % steps
                        })
                });
                let changed = class(&points).into_iter().zip(points.rows());
                let changed = changed.filter(|(class, _)| *class != here);
                let sizes = changed.map(|(_, row)| norm.of((&row - &x).as_slice().unwrap()));
                let nearest = sizes.fold(f64::INFINITY, f64::min);
                assert!(nearest >= radii.lower, "{nearest} {radii:?}");
                let Some(upper) = radii.upper else { continue };
                assert!(radii.lower <= upper);
                bounded += 1;
                if radii.proven {
                    proven += 1;
                    assert!(nearest >= upper * (1.0 - 1e-5), "{nearest} {radii:?}");
                    // And it is reached, so the next points of the grid beyond have changed.
                    assert!(nearest <= reach * 1.5, "{nearest} {radii:?}");
                }
            }
        }
    }
    assert!(proven >= 10 && bounded > proven, "{proven} of {bounded}");
}
