//! Whatever is asked of a network of any scale, the answer is finite or a typed error.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{
    Cotangents, Error, FiniteDifference, Loss, Network, Norm, Objective, PathSums, Penalty, Plane,
    Result, SWEEP_MEMORY, Scalar, Seeds, Tangents, Targets, Trace, gradient_change,
};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::run::property;

/// What was asked, and what came of it.
#[derive(Debug, Default)]
struct Questions {
    answered: usize,
    refused: usize,
    /// Of those that may be infinite, such as the distance to a kink that does not exist.
    infinite: usize,
}

impl Questions {
    fn ask<A>(
        &mut self,
        what: &str,
        found: Result<A>,
        numbers: impl Fn(&A) -> Vec<f64>,
    ) -> Option<A> {
        match found {
            Ok(answer) => {
                for number in numbers(&answer) {
                    assert!(number.is_finite(), "{what} is {number}");
                }
                self.answered += 1;
                Some(answer)
            }
            Err(Error::NotFinite { .. } | Error::Gradient { .. } | Error::Underflow { .. }) => {
                self.refused += 1;
                None
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// A question whose answer may be infinite by what it means, but is no NaN.
    fn distances(&mut self, what: &str, found: Result<Vec<f64>>) {
        let found = self.ask(what, found, |_| Vec::new()).unwrap_or_default();
        assert!(found.iter().all(|d| !d.is_nan()), "{what} is NaN");
        self.infinite += found.iter().filter(|d| d.is_infinite()).count();
    }
}

fn wide<'v, T: Scalar>(values: impl IntoIterator<Item = &'v T>) -> Vec<f64> {
    values.into_iter().map(|v| v.into_f64()).collect()
}

/// The network and batch of a case with every parameter array and the inputs multiplied by a power
/// of two of their own.
fn extreme<T: Scalar>(case: &Case, reach: i32) -> Option<(Network<T>, Array2<T>)> {
    let (mut network, mut inputs) = (case.network(), case.batch());
    let mut random = case.random();
    let mut power = || f64::from(random.random_range(-reach..=reach)).exp2();
    for info in network.parameters().layout().to_vec() {
        let factor = power();
        let values = &mut network.parameters_mut().values_mut()[info.range()];
        values.iter_mut().for_each(|v| *v *= factor);
    }
    inputs *= power();
    let narrow = inputs.mapv(T::from_f64);
    Some((network.cast().ok()?, narrow))
}

fn of_trace<T: Scalar>(asked: &mut Questions, trace: &Trace<T>, loss: &Loss, targets: &Targets<T>) {
    let network = trace.network();
    let (b, k, d) = (trace.samples(), network.outputs(), network.inputs());
    asked.ask("jacobian", trace.jacobian(), |j| wide(j));
    asked.ask("gram", trace.gram(), |g| wide(g));
    for memory in [trace.row_bytes(), SWEEP_MEMORY] {
        let mut seen = Vec::new();
        let visited =
            trace.for_each_jacobian_block(memory, |block| seen.extend(wide(block.values)));
        asked.ask("blocks of the Jacobian", visited, |()| Vec::new());
        assert!(seen.iter().all(|v| v.is_finite()));
    }
    let (ones, along) = (Array2::from_elem((b, k), T::ONE), trace.inputs().to_owned());
    asked.ask("jvp", trace.jvp(along.view()), |v| wide(v));
    asked.ask("vjp", trace.vjp(ones.view()), |v| wide(v));
    asked.ask("parameter_vjp", trace.parameter_vjp(ones.view()), |p| {
        wide(p.values())
    });
    asked.ask("losses", trace.losses(loss, targets), |l| l.to_vec());
    asked.ask("input_gradient", trace.input_gradient(loss, targets), |g| {
        wide(g)
    });
    let (mut c, mut t) = (Cotangents::default(), Tangents::default());
    let rows = along.view().insert_axis(Axis(1));
    let seeds = Seeds::PerSample(ones.view().insert_axis(Axis(1)));
    let both = trace
        .cotangents_into(seeds, &mut c)
        .and(trace.tangents_into(rows, &mut t));
    let both = asked.ask("rows", both, |()| Vec::new());
    assert!(
        c.at_input()
            .iter()
            .chain(t.at_output())
            .all(|v| v.is_finite())
    );
    if both.is_some() {
        asked.ask("weight_gradient", trace.weight_gradient(&c, &t), |p| {
            wide(p.values())
        });
    }
    let curvature = trace.curvature(loss).unwrap();
    asked.ask("H v", curvature.apply(along.view()), |v| wide(v));
    asked.ask("trace of H", curvature.hessian_trace(), |v| v.to_vec());
    asked.ask("norm of H", curvature.frobenius_norm(), |v| v.to_vec());
    asked.ask("largest eigenvalue of H", curvature.spectral_norm(), |v| {
        v.to_vec()
    });
    asked.ask("eigenpairs of H", curvature.eigenpairs(), |pairs| {
        [wide(&pairs.values), wide(&pairs.vectors)].concat()
    });
    if d < 8 {
        asked.ask("H", curvature.to_dense(), |h| wide(h));
    }
}

fn of_region<T: Scalar>(asked: &mut Questions, network: &Network<T>, x: ArrayView1<T>) {
    asked.ask("margins", network.margins(x), |m| {
        [wide(&m.values), wide(&m.gradients)].concat()
    });
    asked.ask("path sums", network.path_sums(x), |s: &PathSums| {
        [wide(&s.logits), wide(&s.margins), wide(&s.jacobian)].concat()
    });
    asked.ask(
        "near kinks",
        network.near_kinks(x.insert_axis(Axis(0))),
        |_| Vec::new(),
    );
    let Some(region) = asked.ask("region", network.region(x), |_| Vec::new()) else {
        return;
    };
    asked.ask("affine map", region.affine_map(), |(j, c)| {
        [wide(j), wide(c)].concat()
    });
    let mut seen = Vec::new();
    let visited = region.for_each_hyperplane(0..region.hyperplanes(), SWEEP_MEMORY, |plane| {
        seen.push(plane.margin.into_f64());
        seen.extend(wide(&plane.normal));
    });
    asked.ask("hyperplanes", visited, |()| Vec::new());
    assert!(seen.iter().all(|v| v.is_finite()));
    for norm in Norm::ALL {
        let near: Vec<f64> = region
            .nearest(5, norm)
            .iter()
            .map(|near| near.distance)
            .collect();
        assert!(near.iter().all(|d| d.is_finite()));
        let certain = region.certain_kink_distances().get(norm);
        asked.distances("distances", Ok(region.distances(norm)));
        asked.distances(
            "kinks",
            Ok(vec![region.kink_distances().get(norm), certain]),
        );
        let rivals = region.rivals(0, norm);
        asked.distances(
            "rivals",
            rivals.map(|r| r.iter().map(|r| r.distance).collect()),
        );
        asked.distances("radius", region.certified_radius(0, norm).map(|r| vec![r]));
        asked.ask("dual norm", norm.dual(wide(x).into_iter()), |&norm| {
            vec![norm]
        });
    }
    let ahead = region.next_crossing(x);
    asked.ask("next crossing", ahead, |c| c.iter().map(|c| c.at).collect());
}

/// What lies along the segment to another point and in a plane through it.
fn of_segment<T: Scalar>(
    asked: &mut Questions,
    network: &Network<T>,
    (x, z): (ArrayView1<T>, ArrayView1<T>),
    (loss, targets): (&Loss, &Targets<T>),
) {
    let pieces = asked.ask("pieces", network.pieces(x, z, 1.0), |pieces| {
        let numbers = pieces.iter().map(|p| {
            let ends = [
                wide(&p.logits_start),
                wide(&p.logits_end),
                vec![p.start, p.end],
            ]
            .concat();
            [wide(&p.jacobian), ends].concat()
        });
        numbers.flatten().collect()
    });
    if let Some(pieces) = pieces {
        asked.ask("change", gradient_change(&pieces, loss, targets), |c| {
            [wide(&c.smooth), wide(&c.kinks)].concat()
        });
    }
    if let Some(mut walk) = asked.ask("walk", network.walk(x, z, 1.0), |w| wide(w.logit_rates())) {
        while let Some(Some(_)) = asked.ask("crossing", walk.cross(), |_| Vec::new()) {
            asked.ask("jump", walk.jump(), |jump| {
                let jump = jump.as_ref().unwrap();
                [wide(&jump.output), wide(&jump.normal)].concat()
            });
            assert!(walk.logit_rates().iter().all(|v| v.is_finite()));
        }
        asked.ask("logits", walk.logits(walk.start()), |f| wide(f));
    }
    let attributions = network.integrated_gradients(x, z, 0);
    asked.ask("integrated gradients", attributions, |g| wide(g));
    asked.ask(
        "kink curvature",
        network.kink_curvature(x, z, 1.0, loss, targets),
        |&k| vec![k],
    );
    let mean = network.mean_penalty(x, z, 1.0, &Penalty::Jacobian, loss, targets);
    asked.ask("mean penalty", mean, |&mean| vec![mean]);
}

fn of_plane<T: Scalar>(asked: &mut Questions, network: &Network<T>, plane: &Plane<T>, side: f64) {
    asked.ask("point", plane.at([side, -side]), |x| wide(x));
    asked.ask(
        "place",
        plane.project(plane.directions[0].view()),
        |place| place.to_vec(),
    );
    match network.slice(plane, [[-side, side], [0.0, side]], 300) {
        Err(Error::TooManyRegions { .. } | Error::OutOfRange { .. }) => {}
        found => {
            asked.ask("slice", found, |cells| {
                let numbers = cells.iter().map(|cell| {
                    let corners = cell.polygon.corners.as_flattened();
                    let sizes = [cell.polygon.area(), cell.polygon.middle()[0]];
                    [cell.logits.as_flattened(), corners, &sizes].concat()
                });
                numbers.flatten().collect()
            });
        }
    }
}

fn of_differences<T: Scalar>(
    asked: &mut Questions,
    network: &Network<T>,
    x: &Array2<T>,
    (loss, targets): (&Loss, &Targets<T>),
) {
    for step in [1e-30, 1e-3] {
        let central = FiniteDifference::central(step).unwrap();
        asked.ask("quotients", central.jacobian(network, x.view()), |j| {
            wide(j)
        });
        let gradient = central.input_gradient(network, loss, x.view(), targets);
        asked.ask("quotients of the loss", gradient, |g| wide(g));
        let hessian = central.hessian(network, loss, x.view(), targets);
        asked.ask("quotients of the gradient", hessian, |h| wide(h));
        let product = central.hvp(network, loss, x.view(), targets, x.view());
        asked.ask("quotient of the gradient", product, |h| wide(h));
        let objective = Objective::new(*loss);
        let direction = Array1::from_vec(network.parameters().values().to_vec());
        let slope = central.along(&objective, network, x.view(), targets, &direction);
        asked.ask("quotient of the objective", slope, |s| vec![s.into_f64()]);
    }
}

fn of_audit<T: Scalar>(
    asked: &mut Questions,
    network: &Network<T>,
    x: ArrayView1<T>,
    (loss, targets): (&Loss, &Targets<T>),
) {
    for difference in [
        FiniteDifference::forward(1e-2),
        FiniteDifference::central(1e-40),
    ] {
        let audit = difference.unwrap().audit(network, loss, x, targets, x);
        asked.ask("audit", audit, |a| {
            assert!(!a.largest_step.is_nan());
            let parts = [wide(&a.parts.smooth), wide(&a.parts.kinks)].concat();
            let slopes = vec![a.reported_slope, a.exact_slope];
            [slopes, wide(&a.reported_hvp), wide(&a.exact_hvp), parts].concat()
        });
    }
}

fn check<T: Scalar>(asked: &mut Questions, case: &Case, reach: i32) {
    let Some((network, inputs)) = extreme::<T>(case, reach) else {
        return;
    };
    let labels = vec![0; inputs.nrows()];
    let (loss, targets) = (&case.loss, Targets::Classes(&labels));
    let traced = network.trace(inputs.view());
    let Some(trace) = asked.ask("trace", traced, |trace| wide(trace.logits())) else {
        return;
    };
    of_trace(asked, &trace, loss, &targets);
    let (one, single) = (
        Targets::Classes(&labels[..1]),
        inputs.slice(ndarray::s![..1, ..]),
    );
    let single = single.to_owned();
    let x = single.row(0);
    of_region(asked, &network, x);
    let mut random = ChaCha8Rng::seed_from_u64(case.seed);
    let scale = inputs
        .iter()
        .fold(0.0, |a: f64, v| a.max(v.into_f64().abs()));
    let mut draw = || {
        Array1::from_shape_simple_fn(x.len(), || {
            T::from_f64(scale * random.random_range(-2.0..2.0))
        })
    };
    let (z, w) = (draw(), draw());
    of_segment(asked, &network, (x, z.view()), (loss, &one));
    let directions = [
        z.mapv(|z| z / T::from_f64(scale)),
        w.mapv(|w| w / T::from_f64(scale)),
    ];
    let plane = Plane {
        origin: x.to_owned(),
        directions,
    };
    if scale > 0.0 && plane.directions.iter().flatten().all(|v| v.is_finite()) {
        of_plane(asked, &network, &plane, scale);
    }
    of_differences(asked, &network, &single, (loss, &one));
    of_audit(asked, &network, x, (loss, &one));
    let penalties = Penalty::all().into_iter().chain(Penalty::geometric());
    for penalty in penalties.take(4) {
        let objective = Objective::new(*loss).with(penalty, 1.0).unwrap();
        if let Ok((evaluation, gradient)) = objective.gradient(&network, inputs.view(), &targets) {
            assert!(
                evaluation.value.is_finite() && gradient.values().iter().all(|g| g.is_finite())
            );
        }
    }
}

fn run<T: Scalar>(largest: i32) {
    let shapes = Shapes {
        width: 1..=6,
        outputs: 1..=4,
        inputs: 1..=9,
        batch: 1..=3,
        ..Shapes::any()
    };
    let asked = std::cell::RefCell::new(Questions::default());
    property((shapes.cases(), 0..=largest), |(case, reach), _| {
        check::<T>(&mut asked.borrow_mut(), &case, reach);
        Ok(())
    });
    let asked = asked.into_inner();
    println!("{}: {asked:?}", T::NAME);
    assert!(asked.answered > 1000 && asked.refused > 100, "{asked:?}");
}

#[test]
fn answers_in_double_precision_are_finite_at_any_scale() {
    run::<f64>(1000);
}

#[test]
fn answers_in_single_precision_are_finite_at_any_scale() {
    run::<f32>(120);
}
