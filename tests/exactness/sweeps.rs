//! Jacobians and the sweeps that they are made of.

use ndarray::{Array2, Array3, Axis, s};
use proptest::prelude::*;
use relugrad::{FiniteDifference, Network, Trace};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::difference::holding_step;
use relugrad_tests::graph::array;
use relugrad_tests::matrix::{add, dot, flatten, norm, scaled, times, unit};
use relugrad_tests::recipe::{entries, uniform};
use relugrad_tests::run::property;

fn flat<'a>(values: impl IntoIterator<Item = &'a f64>) -> Vec<f64> {
    values.into_iter().copied().collect()
}

/// The oracle's Jacobians of a batch, flat.
fn expected(case: &Case) -> Vec<f64> {
    let jacobian = |x: &Vec<f64>| flatten(case.graph.at(x).jacobian());
    case.inputs.iter().flat_map(jacobian).collect()
}

#[test]
fn logits_equal_the_oracle() {
    property(Shapes::any().cases(), |case, residual| {
        let logits = case.network().forward(case.batch().view()).unwrap();
        let expected: Vec<f64> = case
            .inputs
            .iter()
            .flat_map(|x| case.graph.logits(x))
            .collect();
        residual.equal_all(
            "logits",
            &flat(&logits),
            &expected,
            case.sizes().0,
            case.roundings(),
        )
    });
}

/// `⟨u, J v⟩ = ⟨Jᵀ u, v⟩`.
#[test]
fn forward_and_backward_sweeps_are_adjoint() {
    property(Shapes::any().cases(), |case, residual| {
        let (network, mut random) = (case.network(), case.random());
        let u = uniform(case.inputs.len(), network.outputs(), 1.0, &mut random);
        let v = uniform(case.inputs.len(), network.inputs(), 1.0, &mut random);
        let trace = network.trace(case.batch().view()).unwrap();
        let (jv, jtu) = (
            trace.jvp(array(&v).view()).unwrap(),
            trace.vjp(array(&u).view()).unwrap(),
        );
        for i in 0..case.inputs.len() {
            let left = dot(&u[i], &jv.row(i).to_vec());
            let right = dot(&jtu.row(i).to_vec(), &v[i]);
            let scale = case.sizes().1 * norm(&u[i]) * norm(&v[i]);
            residual.equal("⟨u, J v⟩", (left, right), scale, case.roundings())?;
        }
        Ok(())
    });
}

#[test]
fn jacobian_by_rows_equals_the_oracle() {
    property(Shapes::any().cases(), |case, residual| {
        let network = case.network();
        let found = network
            .trace(case.batch().view())
            .unwrap()
            .jacobian()
            .unwrap();
        residual.equal_all(
            "J",
            &flat(&found),
            &expected(&case),
            case.sizes().1,
            case.roundings(),
        )
    });
}

#[test]
fn jacobian_by_columns_equals_jacobian_by_rows() {
    property(Shapes::any().cases(), |case, residual| {
        let network = case.network();
        let trace = network.trace(case.batch().view()).unwrap();
        let mut columns = Array3::zeros((case.inputs.len(), network.outputs(), network.inputs()));
        for i in 0..network.inputs() {
            let mut unit = Array2::zeros((case.inputs.len(), network.inputs()));
            unit.column_mut(i).fill(1.0);
            columns
                .index_axis_mut(Axis(2), i)
                .assign(&trace.jvp(unit.view()).unwrap());
        }
        let rows = trace.jacobian().unwrap();
        residual.equal_all(
            "J by columns",
            &flat(&columns),
            &flat(&rows),
            case.sizes().1,
            case.roundings(),
        )
    });
}

/// The Jacobian in blocks of at most `memory` bytes.
fn streamed(trace: &Trace<f64>, network: &Network<f64>, memory: usize) -> Vec<f64> {
    let mut streamed = Array3::from_elem(
        (trace.samples(), network.outputs(), network.inputs()),
        f64::NAN,
    );
    let (k, d) = (network.outputs(), network.inputs());
    let visit = |block: relugrad::JacobianBlock<f64>| {
        // All rows of a sample come from as many sweeps as it has columns, where these are fewer.
        let swept = match block.rows.len() {
            rows if rows == k => k.min(d),
            rows => rows,
        };
        assert!(block.samples.len() * swept * trace.row_bytes() <= memory);
        streamed
            .slice_mut(s![block.samples, block.rows, ..])
            .assign(&block.values);
    };
    trace.for_each_jacobian_block(memory, visit).unwrap();
    flat(&streamed)
}

#[test]
fn jacobian_streamed_under_any_memory_bound_equals_the_oracle() {
    property(
        (Shapes::any().cases(), 1..80_usize),
        |(case, rows), residual| {
            let network = case.network();
            let trace = network.trace(case.batch().view()).unwrap();
            let found = streamed(&trace, &network, rows * trace.row_bytes() + rows);
            residual.equal_all(
                "J in blocks",
                &found,
                &expected(&case),
                case.sizes().1,
                case.roundings(),
            )
        },
    );
}

#[test]
fn gram_matrix_is_the_jacobian_times_its_transpose() {
    property(Shapes::any().cases(), |case, residual| {
        let network = case.network();
        let found = network.trace(case.batch().view()).unwrap().gram().unwrap();
        let gram = |x: &Vec<f64>| {
            let point = case.graph.at(x);
            flatten(&relugrad_tests::matrix::product_transposed(
                point.jacobian(),
                point.jacobian(),
            ))
        };
        let expected: Vec<f64> = case.inputs.iter().flat_map(gram).collect();
        prop_assert!(
            found.outer_iter().all(|g| g == g.t()),
            "G is not exactly symmetric"
        );
        let scale = case.sizes().1.powi(2);
        residual.equal_all("G", &flat(&found), &expected, scale, 2.0 * case.roundings())
    });
}

/// A step `h` such that all samples keep their pattern when any feature moves by up to `2h`.
fn common_step(case: &Case) -> Option<f64> {
    holding_step(0.25, 1e-7, |t| {
        (0..case.graph.inputs()).all(|feature| {
            case.inputs.iter().all(|x| {
                let mut moved = x.clone();
                moved[feature] += t;
                case.graph.pattern(&moved) == case.graph.pattern(x)
            })
        })
    })
}

/// Inside a region central differences have no truncation error: only the rounding of the logits,
/// divided by `h`.
#[test]
fn jacobian_equals_central_differences_inside_a_region() {
    property(Shapes::any().cases(), |case, residual| {
        let step = common_step(&case);
        prop_assume!(step.is_some());
        let (step, network) = (step.unwrap(), case.network());
        let difference = FiniteDifference::central(step).unwrap();
        let found = difference.jacobian(&network, case.batch().view()).unwrap();
        let (f, j) = case.sizes();
        residual.equal_all(
            "J",
            &flat(&found),
            &expected(&case),
            f / step + j,
            2.0 * case.roundings(),
        )
    });
}

/// `f(x + δ) − f(x) = J δ` without remainder while the pattern holds.
#[test]
fn network_is_affine_while_the_pattern_holds() {
    property(Shapes::any().cases(), |case, residual| {
        let (network, mut random) = (case.network(), case.random());
        let jacobian = network
            .trace(case.batch().view())
            .unwrap()
            .jacobian()
            .unwrap();
        for (i, x) in case.inputs.iter().enumerate() {
            let direction = unit(&entries(x.len(), 1.0, &mut random));
            let same = |t: f64| case.graph.pattern(&add(x, t, &direction)) == case.graph.pattern(x);
            let delta = scaled(holding_step(1.0, 1e-9, same).unwrap_or(0.0), &direction);
            let row = |x: &[f64]| {
                network
                    .forward(array(&[x.to_vec()]).view())
                    .unwrap()
                    .row(0)
                    .to_vec()
            };
            let moved = add(&row(&add(x, 1.0, &delta)), -1.0, &row(x));
            let j = relugrad_tests::matrix::rows(&flat(jacobian.index_axis(Axis(0), i)), x.len());
            let (f, size) = case.sizes();
            residual.equal_all(
                "J δ",
                &moved,
                &times(&j, &delta),
                f + size,
                2.0 * case.roundings(),
            )?;
        }
        Ok(())
    });
}
