//! Random networks of every operation: every path gives the same numbers, in memory, in files,
//! rewritten, on any number of threads.

use ndarray::{Array2, ArrayD, s};
use rayon::ThreadPoolBuilder;
use relugrad::{
    Direction, JacobianBlock, Loss, Network, Objective, Penalty, SweepStrategy, Targets,
};
use relugrad_io::{Metadata, from_bytes, onnx_from_bytes, onnx_to_bytes, to_bytes};
use relugrad_tests::layered::{inputs, network};

const CASES: u64 = 200;

/// Relative to the largest entry; sums of a few hundred terms through ten operations and back.
const ROUNDING: f64 = 1e-11;

fn far(a: &ArrayD<f64>, b: &ArrayD<f64>) -> f64 {
    let size = b.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    (a - b).iter().fold(0.0, |m: f64, d| m.max(d.abs())) / size
}

fn assert_same(found: &Network<f64>, expected: &Network<f64>, x: &Array2<f64>, what: &str) {
    let (found, expected) = (
        found.trace(x.view()).unwrap(),
        expected.trace(x.view()).unwrap(),
    );
    let logits = |trace: &relugrad::Trace<f64>| trace.logits().to_owned().into_dyn();
    assert!(
        far(&logits(&found), &logits(&expected)) < ROUNDING,
        "logits {what}"
    );
    let jacobians = far(
        &found.jacobian().unwrap().into_dyn(),
        &expected.jacobian().unwrap().into_dyn(),
    );
    assert!(jacobians < ROUNDING, "Jacobians {what}: {jacobians:e}");
}

#[test]
fn files_and_rewriting_change_nothing() {
    for seed in 0..CASES {
        let network = network(seed);
        let x = inputs(&network, seed, 3);
        let native = from_bytes(&to_bytes(&network, &Metadata::new()).unwrap())
            .unwrap()
            .0;
        assert_same(
            &native,
            &network,
            &x,
            &format!("of the native file of {seed}"),
        );
        let onnx = onnx_from_bytes(&onnx_to_bytes(&network).unwrap()).unwrap();
        assert_same(
            onnx.network(),
            &network,
            &x,
            &format!("of the ONNX file of {seed}"),
        );
        let (folded, _) = network.fold_batch_norm().unwrap();
        assert_same(&folded, &network, &x, &format!("folded of {seed}"));
        let relus = network.max_to_relu().unwrap();
        // Where a maximum is tied its ReLUs are on a kink, and the conventions of the two differ.
        if network
            .near_kinks(x.view())
            .unwrap()
            .iter()
            .all(|&count| count == 0)
        {
            assert_same(&relus, &network, &x, &format!("in ReLUs of {seed}"));
        }
    }
}

#[test]
fn jacobians_by_rows_and_gram_matrices_are_those_of_the_whole() {
    for seed in 0..CASES {
        let network = network(seed);
        let x = inputs(&network, seed, 3);
        let trace = network.trace(x.view()).unwrap();
        let whole = trace.jacobian().unwrap();
        let mut streamed = whole.clone() * 0.0;
        let visit = |block: JacobianBlock<f64>| {
            let place = s![block.samples, block.rows, ..];
            streamed.slice_mut(place).assign(&block.values);
        };
        trace
            .for_each_jacobian_block(trace.row_bytes(), visit)
            .unwrap();
        assert!(
            far(&streamed.into_dyn(), &whole.clone().into_dyn()) < ROUNDING,
            "network {seed}"
        );
        let grams = trace.gram().unwrap();
        for (j, g) in whole.outer_iter().zip(grams.outer_iter()) {
            let expected = j.dot(&j.t()).into_dyn();
            assert!(
                far(&g.to_owned().into_dyn(), &expected) < ROUNDING,
                "network {seed}"
            );
        }
        let single = network.cast::<f32>().unwrap();
        let x = x.mapv(|v| v as f32);
        let logits = single.forward(x.view()).unwrap().mapv(f64::from).into_dyn();
        assert!(
            far(&logits, &trace.logits().to_owned().into_dyn()) < 1e-3,
            "network {seed}"
        );
    }
}

#[test]
fn all_rows_and_the_fewest_give_the_same_gradients() {
    let loss = Loss::softmax_cross_entropy();
    for seed in 0..CASES {
        let network = network(seed);
        let x = inputs(&network, seed, 2);
        for penalty in [
            Penalty::CrossLipschitz,
            Penalty::CurvatureFrobenius,
            Penalty::InputGradient,
        ] {
            let gradient = |route| {
                let objective = Objective::new(loss)
                    .with_strategy(route)
                    .with(penalty.clone(), 1.0)
                    .unwrap();
                let found = objective.gradient(&network, x.view(), &Targets::Classes(&[0, 1]));
                ArrayD::from_shape_vec(
                    vec![network.parameters().len()],
                    found.unwrap().1.values().to_vec(),
                )
                .unwrap()
            };
            for route in [
                SweepStrategy::Fewest,
                SweepStrategy::FirstLayerGram,
                SweepStrategy::FourRussians,
            ] {
                let difference = far(&gradient(SweepStrategy::AllRows), &gradient(route));
                assert!(difference < 1e-10, "{penalty} of {seed}: {difference:e}");
            }
        }
    }
}

#[test]
fn equal_bits_for_any_number_of_threads() {
    let cure = Penalty::Cure {
        step: 0.5,
        direction: Direction::Sign,
    };
    let objective = Objective::new(Loss::softmax_cross_entropy());
    let objective = objective
        .with(Penalty::Jacobian, 0.1)
        .unwrap()
        .with(cure, 0.1)
        .unwrap();
    for seed in 0..CASES / 10 {
        let network = network(seed);
        let samples = 400;
        let x = inputs(&network, seed, samples);
        let labels: Vec<usize> = (0..samples).map(|i| i % 2).collect();
        let bits = |threads: usize| {
            let pool = ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let found =
                pool.install(|| objective.gradient(&network, x.view(), &Targets::Classes(&labels)));
            let values = found.unwrap().1;
            values
                .values()
                .iter()
                .map(|v| v.to_bits())
                .collect::<Vec<u64>>()
        };
        assert_eq!(bits(1), bits(3), "network {seed}");
    }
}
