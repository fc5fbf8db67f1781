//! PGD and DeepFool on the golden cases of an independent program, `attacks.py`.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use relugrad::{Builder, Loss, Network};
use relugrad_train::attack::{Attacker, DeepFool, Norm, Pgd};
use serde_json::Value;

/// Relative difference that the rounding of some tens of steps explains.
const TOLERANCE: f64 = 1e-10;

fn numbers(value: &Value) -> Vec<f64> {
    let entries = value.as_array().expect("an array").iter();
    entries
        .map(|entry| entry.as_f64().expect("a number"))
        .collect()
}

fn network(case: &Value) -> Network<f64> {
    let mut builder = Builder::new();
    let widths = numbers(&case["widths"]);
    let mut node = builder.input(widths[0] as usize).unwrap();
    let layers = case["weights"].as_array().unwrap().len();
    for i in 0..layers {
        let rows = case["weights"][i].as_array().unwrap();
        let entries: Vec<f64> = rows.iter().flat_map(numbers).collect();
        let shape = (rows.len(), entries.len() / rows.len());
        let weight = Array2::from_shape_vec(shape, entries).unwrap();
        let bias = Array1::from(numbers(&case["biases"][i]));
        node = builder.dense(node, weight, Some(bias)).unwrap();
        if i + 1 < layers {
            node = builder.relu(node).unwrap();
        }
    }
    builder.build(node).unwrap()
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= TOLERANCE * (1.0 + e.abs()),
            "{what}: {f} but {e}"
        );
    }
}

/// Calls `check` with every network, sample `[1, D]`, label, norm, and what is expected of it; the
/// number of calls.
fn each(mut check: impl FnMut(&Network<f64>, &Array2<f64>, usize, Norm, &Value, usize)) -> usize {
    let file: Value = serde_json::from_str(include_str!("attacks.json")).unwrap();
    let mut calls = 0;
    for case in file["cases"].as_array().unwrap() {
        let network = network(case);
        let steps = case["steps"].as_u64().unwrap() as usize;
        for sample in case["samples"].as_array().unwrap() {
            let x = Array1::from(numbers(&sample["x"])).insert_axis(Axis(0));
            let label = sample["label"].as_u64().unwrap() as usize;
            for norm in [Norm::Linf, Norm::L2] {
                check(&network, &x, label, norm, &sample[norm.name()], steps);
                calls += 1;
            }
        }
    }
    calls
}

#[test]
fn pgd_agrees() {
    let loss = Loss::softmax_cross_entropy();
    let calls = each(|network, x, label, norm, expected, steps| {
        let epsilon = expected["epsilon"].as_f64().unwrap();
        let mut attack = Attacker::new(Pgd {}, norm, epsilon, steps, 1);
        attack.options.random_start = false;
        let found = attack.run(network, &loss, x.view(), &[label], 0).unwrap();
        let expected = &expected["pgd"];
        assert_eq!(found.fooled[0], expected["fooled"].as_bool().unwrap());
        close(&found.losses, &[expected["loss"].as_f64().unwrap()], "loss");
        let row: ArrayView1<f64> = found.adversarial.row(0);
        close(
            &row.to_vec(),
            &numbers(&expected["adversarial"]),
            "adversarial",
        );
        let examples = attack.stand(network, &loss, x.view(), &[label], 0).unwrap();
        assert_eq!(examples[0].is_some(), found.fooled[0]);
    });
    assert_eq!(calls, 72);
}

#[test]
fn deepfool_agrees() {
    let mut found_some = 0;
    each(|network, x, _, norm, expected, _| {
        let plain = DeepFool {
            exact: false,
            ..DeepFool::new(norm)
        };
        let found = plain.run(network, x.view()).unwrap().remove(0);
        let expected = &expected["deepfool"];
        let Some(found) = found else {
            return assert!(expected.is_null());
        };
        assert_eq!(found.steps as u64, expected["steps"].as_u64().unwrap());
        close(&found.delta, &numbers(&expected["delta"]), "perturbation");
        // The exact line search goes the same way, and not as far.
        let exact = DeepFool::new(norm)
            .run(network, x.view())
            .unwrap()
            .remove(0);
        assert!(exact.unwrap().norm <= found.norm);
        found_some += 1;
    });
    assert!(found_some > 60, "{found_some}");
}
