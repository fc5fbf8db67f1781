//! Regions, walks and integrals against definitions evaluated another way.

use super::*;
use crate::{
    Builder, FiniteDifference, Gate, JacobianBlock, Loss, Mlp, Objective, Penalty, SWEEP_MEMORY,
    Targets, Window,
};
use approx::assert_abs_diff_eq;
use ndarray::{Array, Array4, array, s};
use std::sync::atomic::{AtomicUsize, Ordering};

fn wave(shape: (usize, usize), step: f64) -> Array2<f64> {
    Array2::from_shape_fn(shape, |(i, j)| ((i * shape.1 + j) as f64 * step).sin())
}

/// Convolution, max-pooling, a clip, a learned slope and a branch around them.
fn mixed() -> Network<f64> {
    let mut builder = Builder::new();
    let x = builder.input_shaped(&[1, 4, 4]).unwrap();
    let kernel = Array4::from_shape_fn((3, 1, 3, 3), |(o, _, i, j)| {
        ((o * 9 + i * 3 + j) as f64 * 1.7).sin()
    });
    let window = Window::new([3, 3]).padding([[1, 1], [1, 1]]);
    let z = builder
        .conv2d(x, kernel, Some(array![0.1, -0.2, 0.05]), window, 1)
        .unwrap();
    let z = builder
        .gate(
            z,
            Gate::Clip {
                min: -0.3,
                max: 0.8,
            },
        )
        .unwrap();
    let z = builder
        .max_pool(z, Window::new([2, 2]).stride([2, 2]))
        .unwrap();
    let z = builder.flatten(z).unwrap();
    let flat = builder.flatten(x).unwrap();
    let skip = builder.dense(flat, wave((12, 16), 0.9), None).unwrap();
    let z = builder.sum(&[z, skip]).unwrap();
    let z = builder.gate(z, Gate::LeakyRelu { slope: -0.2 }).unwrap();
    let z = builder
        .dense(z, wave((9, 12), 2.3), Some(Array::linspace(-0.4, 0.4, 9)))
        .unwrap();
    let z = builder.relu(z).unwrap();
    let f = builder.dense(z, wave((3, 9), 1.1), None).unwrap();
    builder.build(f).unwrap()
}

fn networks() -> Vec<Network<f64>> {
    let plain = Mlp::new(&[16, 30, 25, 3]).build(4).unwrap();
    let abs = Mlp::new(&[16, 12, 12, 12, 3])
        .gate(Gate::Abs)
        .build(5)
        .unwrap();
    vec![plain, abs, mixed()]
}

fn point(step: f64) -> Array1<f64> {
    Array1::from_shape_fn(16, |i| ((i + 1) as f64 * step).cos())
}

/// Whether a hyperplane of the mixed network is the far bound of a clipped unit.
fn beyond_another_bound(network: &Network<f64>, region: &Region<f64>, number: usize) -> bool {
    let (layer, place) = region.distances.place(number);
    let is_clip = |gate: Option<Gate>| matches!(gate, Some(Gate::Clip { .. }));
    if !is_clip(network.nodes[network.gate_node(layer)].gate()) {
        return false;
    }
    let width = region.pattern().width(layer);
    let choice = region.pattern().choice(0, layer, place % width);
    [(0, 2), (1, 0)].contains(&(place / width, choice))
}

#[test]
fn distances_are_margins_over_dual_norms_by_either_sweep() {
    for network in networks() {
        let x = point(0.7);
        let (region, margins) = (
            network.region(x.view()).unwrap(),
            network.margins(x.view()).unwrap(),
        );
        assert_eq!(region.hyperplanes(), margins.values.len());
        for norm in [Norm::L1, Norm::L2, Norm::Linf] {
            let distances = region.distances(norm);
            for (row, (&margin, distance)) in margins.values.iter().zip(distances).enumerate() {
                let size = norm.dual_norm(margins.gradients.row(row).iter().copied());
                let expected = if beyond_another_bound(&network, &region, row) {
                    f64::INFINITY
                } else {
                    distance::ratio(margin, size)
                };
                assert!(distance == expected || (distance / expected - 1.0).abs() < 1e-11);
            }
            let nearest = region.nearest(4, norm);
            assert!(
                nearest
                    .windows(2)
                    .all(|pair| pair[0].distance <= pair[1].distance)
            );
            assert_eq!(nearest[0].distance, region.kink_distances().get(norm));
        }
        let mut row = 0;
        let all = 0..region.hyperplanes();
        region
            .for_each_hyperplane(all, 7 * region.trace.row_bytes(), |plane| {
                assert_abs_diff_eq!(plane.margin, margins.values[row], epsilon = 1e-12);
                assert_abs_diff_eq!(plane.normal, margins.gradients.row(row), epsilon = 1e-12);
                row += 1;
            })
            .unwrap();
        assert_eq!(row, region.hyperplanes());
    }
}

#[test]
fn a_step_across_the_nearest_hyperplane_flips_its_gate() {
    for network in networks() {
        let x = point(0.4);
        let region = network.region(x.view()).unwrap();
        let near = region.nearest(1, Norm::L2)[0];
        let mut normal = None;
        let visit = |plane: Hyperplane<f64>| normal = Some(plane.normal);
        region
            .for_each_hyperplane([near.number], SWEEP_MEMORY, visit)
            .unwrap();
        let normal = normal.unwrap();
        let unit = &normal / normal.dot(&normal).sqrt();
        let at = |factor: f64| {
            let moved = &x - &(&unit * (factor * near.distance));
            let trace = network.trace(moved.view().insert_axis(Axis(0))).unwrap();
            trace.pattern().choice(0, near.kink.layer, near.kink.unit)
        };
        assert_eq!((at(0.999), at(1.001)), (near.kink.from, near.kink.to));
        let crossing = region
            .next_crossing(unit.mapv(|u| -u).view())
            .unwrap()
            .unwrap();
        assert_eq!(crossing.kink, near.kink);
        assert_abs_diff_eq!(crossing.at / near.distance, 1.0, epsilon = 1e-12);
    }
}

#[test]
fn the_affine_map_and_its_rivals_are_those_of_the_network() {
    let network = mixed();
    let x = point(0.3);
    let region = network.region(x.view()).unwrap();
    let (jacobian, offset) = region.affine_map().unwrap();
    let radius = 0.9 * region.kink_distances().l2;
    let moved = &x + &(wave((1, 16), 3.0).row(0).to_owned() * (radius / 4.0));
    let logits = network.forward(moved.view().insert_axis(Axis(0))).unwrap();
    assert_abs_diff_eq!(
        jacobian.dot(&moved) + offset,
        logits.row(0),
        epsilon = 1e-12
    );
    let class = (0..3)
        .max_by(|&a, &b| region.logits()[a].total_cmp(&region.logits()[b]))
        .unwrap();
    let rivals = region.rivals(class, Norm::Linf).unwrap();
    let certified = region.certified_radius(class, Norm::Linf).unwrap();
    assert_eq!(
        certified,
        rivals[0].distance.min(region.kink_distances().linf)
    );
    assert_eq!(
        region
            .certified_radius((class + 1) % 3, Norm::Linf)
            .unwrap(),
        0.0
    );
    assert!(matches!(
        region.rivals(3, Norm::L1),
        Err(Error::Label { .. })
    ));
}

/// Crossings by bisection on patterns of fresh traces.
fn by_bisection(network: &Network<f64>, x: &Array1<f64>, z: &Array1<f64>, length: f64) -> Vec<f64> {
    let pattern = |t: f64| {
        let at = x + &(t * z);
        network
            .trace(at.view().insert_axis(Axis(0)))
            .unwrap()
            .pattern()
            .clone()
    };
    let mut found = Vec::new();
    let mut stack = vec![(0.0, length)];
    while let Some((low, high)) = stack.pop() {
        if pattern(low) == pattern(high) && high - low < 1e-3 {
            continue;
        }
        if high - low < 1e-9 {
            found.push(0.5 * (low + high));
            continue;
        }
        let middle = 0.5 * (low + high);
        stack.push((middle, high));
        stack.push((low, middle));
    }
    found.dedup_by(|a, b| (*a - *b).abs() < 2e-9);
    found
}

#[test]
fn crossings_are_those_that_bisection_finds() {
    for network in networks() {
        let (x, z) = (point(0.2), point(1.9));
        let mut walk = network.walk(x.view(), z.view(), 2.0).unwrap();
        let mut crossings: Vec<f64> = Vec::new();
        while let Some(crossing) = walk.cross().unwrap() {
            crossings.push(crossing.at);
        }
        crossings.dedup_by(|a, b| (*a - *b).abs() < 2e-9);
        let expected = by_bisection(&network, &x, &z, 2.0);
        assert!(crossings.len() > 8);
        assert_eq!(crossings.len(), expected.len());
        assert!(
            crossings
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 2e-9)
        );
    }
}

#[test]
fn thousands_of_crossings_equal_a_fresh_evaluation() {
    let network = Mlp::new(&[16, 1200, 1200, 3]).build::<f64>(1).unwrap();
    let z = point(1.9);
    let x = &point(0.2) - &(30.0 * &z);
    let mut walk = network.walk(x.view(), z.view(), 60.0).unwrap();
    walk.jacobian().unwrap();
    let (mut crossings, mut next, mut checked) = (0, 0, 0);
    while walk.cross().unwrap().is_some() {
        crossings += 1;
        if crossings < next || walk.end() - walk.start() < 1e-6 {
            continue;
        }
        (next, checked) = (crossings + 101, checked + 1);
        let middle = 0.5 * (walk.start() + walk.end());
        let at = (&x + &(middle * &z)).insert_axis(Axis(0));
        let trace = network.trace(at.view()).unwrap();
        assert!(trace.pattern().same_region(0, walk.pattern(), 0));
        let fresh = trace.jacobian().unwrap().index_axis_move(Axis(0), 0);
        assert_abs_diff_eq!(*walk.jacobian().unwrap(), fresh, epsilon = 1e-12);
        let scale = 1.0 + trace.logits().iter().fold(0.0f64, |a, f| a.max(f.abs()));
        assert!(
            walk.logits(middle)
                .unwrap()
                .abs_diff_eq(&trace.logits().row(0), 1e-12 * scale)
        );
    }
    assert!(crossings > 2000 && checked > 15, "{crossings} {checked}");
}

#[test]
fn a_jump_is_the_change_of_the_jacobian() {
    for network in networks() {
        let mut walk = network
            .walk(point(0.2).view(), point(1.9).view(), 2.0)
            .unwrap();
        let mut before = walk.jacobian().unwrap().clone();
        while walk.cross().unwrap().is_some() {
            let jump = walk.jump().unwrap().unwrap();
            let outer = jump
                .output
                .insert_axis(Axis(1))
                .dot(&jump.normal.insert_axis(Axis(0)));
            let fresh = walk.fresh_jacobian().unwrap();
            assert_abs_diff_eq!(&before + &outer, fresh, epsilon = 1e-11);
            before = fresh;
        }
    }
}

#[test]
fn a_direction_inside_a_hyperplane_and_crossings_at_one_point_have_answers() {
    let mut builder = Builder::<f64>::new();
    let x = builder.input(2).unwrap();
    // Two units that switch at x1 = 1, one at x2 = 0 and one at x1 + x2 = 1.
    let weight = array![[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]];
    let z = builder
        .dense(x, weight, Some(array![-1.0, -2.0, 0.0, -1.0]))
        .unwrap();
    let a = builder.relu(z).unwrap();
    let f = builder
        .dense(a, array![[1.0, 1.0, 1.0, 1.0]], None)
        .unwrap();
    let network = builder.build(f).unwrap();
    let kinks = |x: Array1<f64>, z: Array1<f64>| {
        let mut walk = network.walk(x.view(), z.view(), 2.0).unwrap();
        let mut kinks = Vec::new();
        while let Some(crossing) = walk.cross().unwrap() {
            kinks.push((crossing.at, crossing.kink.unit));
        }
        kinks
    };
    assert_eq!(
        kinks(array![0.0, 0.0], array![1.0, 0.0]),
        [(1.0, 0), (1.0, 1), (1.0, 3)]
    );
    assert_eq!(
        kinks(array![1.0, -1.0], array![0.0, 1.0]),
        [(1.0, 2), (1.0, 3)]
    );
    assert_eq!(kinks(array![1.0, 0.0], array![0.0, 0.0]), []);
    let on_kink = network.region(array![1.0, 5.0].view()).unwrap();
    assert_eq!(
        on_kink.kink_distances(),
        KinkDistances {
            l1: 0.0,
            l2: 0.0,
            linf: 0.0
        }
    );
}

#[test]
fn integrals_equal_fine_quadrature() {
    let loss = Loss::softmax_cross_entropy();
    for network in networks() {
        let (x, baseline) = (point(0.2), point(1.9));
        let integral = network
            .integrated_gradients(x.view(), baseline.view(), 1)
            .unwrap();
        let at = |t: f64| (&baseline + &(t * (&x - &baseline))).insert_axis(Axis(0));
        let logit = |t: f64| network.forward(at(t).view()).unwrap()[(0, 1)];
        assert_abs_diff_eq!(integral.sum(), logit(1.0) - logit(0.0), epsilon = 1e-11);
        let steps = 40_000;
        let points = Array2::from_shape_fn((steps, 16), |(i, j)| {
            let t = (i as f64 + 0.5) / steps as f64;
            baseline[j] + t * (x[j] - baseline[j])
        });
        let trace = network.trace(points.view()).unwrap();
        let mut sampled = Array1::zeros(16);
        let mut frobenius = 0.0;
        let visit = |block: JacobianBlock<f64>| {
            sampled += &block.values.slice(s![.., 1, ..]).sum_axis(Axis(0));
            frobenius += block.values.iter().map(|j| j * j).sum::<f64>();
        };
        trace.for_each_jacobian_block(SWEEP_MEMORY, visit).unwrap();
        let sampled = sampled / steps as f64 * (&x - &baseline);
        assert_abs_diff_eq!(integral, sampled, epsilon = 2e-3);
        let (z, targets) = (&x - &baseline, Targets::Classes(&[2]));
        let mean = |penalty: Penalty, length: f64| {
            let (x, z) = (baseline.view(), z.view());
            let mean = network.mean_penalty(x, z, length, &penalty, &loss, &targets);
            mean.unwrap()
        };
        let sampled = frobenius / steps as f64;
        assert_abs_diff_eq!(mean(Penalty::Jacobian, 1.0) / sampled, 1.0, epsilon = 1e-3);
        let objective = Objective::new(loss)
            .with(Penalty::CurvatureFrobenius, 1.0)
            .unwrap();
        let classes = vec![2; steps];
        let sampled = objective
            .value(&network, points.view(), &Targets::Classes(&classes))
            .unwrap();
        let exact = mean(Penalty::CurvatureFrobenius, 1.0);
        assert_abs_diff_eq!(exact / sampled.penalties[0], 1.0, epsilon = 1e-3);
        let here = objective
            .value(&network, at(0.0).view(), &targets)
            .unwrap()
            .penalties[0];
        assert_eq!(mean(Penalty::CurvatureFrobenius, 0.0), here);
    }
}

#[test]
fn kink_curvature_is_the_sum_of_jumps_of_the_input_gradient() {
    let (loss, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[0]));
    for network in networks() {
        let (x, z) = (point(0.2), point(1.9));
        let pieces = network.pieces(x.view(), z.view(), 1.5).unwrap();
        let mut residual = integral::residuals(&loss, &targets, 3).unwrap();
        let jumps = pieces.windows(2).map(|pair| {
            let jump = &pair[1].jacobian - &pair[0].jacobian;
            let r = Array1::from(residual(&pair[0].logits_end));
            jump.t().dot(&r).mapv(|g| g * g).sum().sqrt()
        });
        let expected = jumps.sum::<f64>() / 1.5;
        let found = network
            .kink_curvature(x.view(), z.view(), 1.5, &loss, &targets)
            .unwrap();
        assert_abs_diff_eq!(found / expected, 1.0, epsilon = 1e-10);
    }
}

#[test]
fn an_audit_explains_what_a_difference_reports() {
    let (loss, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[0]));
    for network in networks() {
        let (x, z) = (point(0.2), point(1.9));
        for make in [FiniteDifference::forward, FiniteDifference::central] {
            let audit = |step: f64| {
                let difference = make(step).unwrap();
                difference
                    .audit(&network, &loss, x.view(), &targets, z.view())
                    .unwrap()
            };
            let wide = audit(0.5);
            assert!(wide.kinks > 0 && wide.largest_step < 0.5);
            let explained = &wide.parts.smooth + &wide.parts.kinks;
            assert_abs_diff_eq!(explained, wide.reported_hvp, epsilon = 1e-10);
            let narrow = audit(1e-5f64.min(0.5 * wide.largest_step));
            assert_eq!(narrow.kinks, 0);
            assert!(narrow.parts.kinks.iter().all(|&k| k == 0.0));
            assert_abs_diff_eq!(narrow.reported_hvp, narrow.exact_hvp, epsilon = 1e-3);
            assert_abs_diff_eq!(narrow.reported_slope, narrow.exact_slope, epsilon = 1e-3);
        }
    }
}

#[test]
fn a_slice_tiles_its_window_with_the_regions_of_its_points() {
    for (network, least) in networks().into_iter().zip([100, 60, 60]) {
        let points = [point(0.2), point(0.9), point(1.9)];
        let plane = Plane::through(points.each_ref().map(|p| p.view())).unwrap();
        for (place, x) in [[0.0, 0.0], plane.project(points[1].view()).unwrap()]
            .iter()
            .zip(&points)
        {
            assert!(plane.at(*place).unwrap().abs_diff_eq(x, 1e-12));
        }
        let window = [[-2.0, 5.0], [-1.0, 4.0]];
        let cells = network.slice(&plane, window, 100_000).unwrap();
        assert!(cells.len() > least, "{}", cells.len());
        let area: f64 = cells.iter().map(|cell| cell.polygon.area()).sum();
        assert_abs_diff_eq!(area / 35.0, 1.0, epsilon = 1e-9);
        let mut random =
            Array1::from_shape_fn(600, |i| ((i as f64 + 0.5) * 0.618_033_988_75).fract());
        random.swap(0, 1);
        for i in 0..300 {
            let place = [
                -2.0 + 7.0 * random[i],
                -1.0 + 5.0 * random[(i * 7 + 3) % 600],
            ];
            let x = plane.at(place).unwrap().insert_axis(Axis(0));
            let trace = network.trace(x.view()).unwrap();
            let inside: Vec<&Cell> = cells.iter().filter(|c| c.polygon.contains(place)).collect();
            assert_eq!(inside.len(), 1);
            assert!(trace.pattern().same_region(0, &inside[0].pattern, 0));
            let logits = inside[0]
                .logits
                .iter()
                .map(|[c, a, b]| c + a * place[0] + b * place[1]);
            assert_abs_diff_eq!(
                Array1::from_iter(logits),
                trace.logits().row(0),
                epsilon = 1e-11
            );
            let parts = inside[0].classes();
            let sizes: f64 = parts.iter().map(|(_, part)| part.area()).sum();
            assert_abs_diff_eq!(sizes, inside[0].polygon.area(), epsilon = 1e-12);
            let (class, _) = parts.iter().find(|(_, part)| part.contains(place)).unwrap();
            let largest = trace.logits().iter().fold(f64::MIN, |a, &f| a.max(f));
            assert_eq!(trace.logits()[(0, *class)], largest);
        }
        assert!(matches!(
            network.slice(&plane, window, 20),
            Err(Error::TooManyRegions { limit: 20 })
        ));
        let some = network.slice_while(&plane, window, 20, &|| true).unwrap();
        assert!(some.limited && !some.complete && some.cells.len() == 20);
        for cell in &some.cells {
            assert!(cells.iter().any(|other| other.polygon == cell.polygon));
        }
        let all = network.slice_while(&plane, window, cells.len(), &|| true);
        assert!(all.unwrap().complete);
        let error = network.slice(&plane, window, cells.len() - 1);
        assert!(matches!(error, Err(Error::TooManyRegions { .. })));
        assert!(network.slice(&plane, [[0.0, 0.0], [0.0, 1.0]], 20).is_err());
    }
}

#[test]
fn a_slice_that_is_stopped_keeps_whole_regions() {
    let network = &networks()[0];
    let points = [point(0.2), point(0.9), point(1.9)];
    let plane = Plane::through(points.each_ref().map(|p| p.view())).unwrap();
    let window = [[-2.0, 5.0], [-1.0, 4.0]];
    let all = network.slice(&plane, window, 100_000).unwrap();
    let asked = AtomicUsize::new(0);
    let stopped_after = |questions: usize| {
        asked.store(0, Ordering::SeqCst);
        let go_on = || asked.fetch_add(1, Ordering::SeqCst) < questions;
        let slice = network.slice_while(&plane, window, 100_000, &go_on);
        slice.unwrap()
    };
    let whole = stopped_after(usize::MAX);
    assert!(whole.complete && whole.cells.len() == all.len());
    let questions = asked.load(Ordering::SeqCst);
    assert!(stopped_after(0).cells.is_empty());
    let most = stopped_after(questions - 1);
    assert!(!most.complete && most.cells.len() < all.len());
    for cell in &most.cells {
        assert!(all.iter().any(|other| other.polygon == cell.polygon));
    }
}

#[test]
fn points_on_a_line_span_no_plane() {
    let (a, b) = (point(0.2), point(0.9));
    let c = &a + &((&b - &a) * 2.5);
    assert!(Plane::through([a.view(), b.view(), c.view()]).is_none());
    assert!(Plane::through([a.view(), a.view(), c.view()]).is_none());
}

#[test]
fn duplicate_units_cut_once() {
    let mut builder = Builder::<f64>::new();
    let x = builder.input(2).unwrap();
    let weight = array![[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [0.0, 0.0]];
    let z = builder.dense(x, weight, None).unwrap();
    let a = builder.relu(z).unwrap();
    let f = builder
        .dense(a, array![[1.0, 1.0, 1.0, 1.0]], None)
        .unwrap();
    let network = builder.build(f).unwrap();
    let plane = Plane {
        origin: array![0.0, 0.0],
        directions: [array![1.0, 0.0], array![0.0, 1.0]],
    };
    let cells = network
        .slice(&plane, [[-1.0, 1.0], [-1.0, 1.0]], 10)
        .unwrap();
    let areas: Vec<f64> = cells.iter().map(|cell| cell.polygon.area()).collect();
    assert_eq!(areas, [2.0, 2.0]);
}

#[test]
fn bounds_of_a_clip_that_rounding_makes_one_are_crossed_in_order() {
    // At 1e9 both bounds are 0 to f32, so that both are crossed at t = 1, from above and from
    // below.
    let mut builder = Builder::<f32>::new();
    let x = builder.input(1).unwrap();
    let (min, max) = (-1.0, 2.0);
    let clipped = builder.gate(x, Gate::Clip { min, max }).unwrap();
    let network = builder.build(clipped).unwrap();
    for sign in [1.0, -1.0] {
        let (x, z) = (array![sign * 1e9], array![-sign * 1e9]);
        let pieces = network.pieces(x.view(), z.view(), 2.0).unwrap();
        let slopes: Vec<f32> = pieces.iter().map(|piece| piece.jacobian[(0, 0)]).collect();
        assert_eq!(slopes, [0.0, 1.0, 0.0]);
        assert!(pieces.iter().skip(1).all(|piece| piece.start == 1.0));
    }
}
