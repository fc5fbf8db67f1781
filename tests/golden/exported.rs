//! Networks that another program exported to ONNX, with what general automatic differentiation says
//! of them (`tests/golden/README.md`).

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use relugrad::{Loss, Objective, Penalty, Scalar, Targets};
use relugrad_io::{Model, load_onnx};
use relugrad_tests::tolerance::distance;
use serde_json::Value;

/// Relative to the largest entry of what is compared.
const TOLERANCE: f64 = 1e-12;

struct Case {
    name: String,
    value: Value,
    model: Model,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/onnx")
}

fn cases() -> Vec<Case> {
    let entries = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries
        .filter(|p| p.extension().unwrap() == "json")
        .collect();
    paths.sort();
    let case = |path: PathBuf| Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        value: serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap(),
        model: load_onnx(path.with_extension("onnx")).unwrap_or_else(|error| panic!("{error}")),
    };
    paths.into_iter().map(case).collect()
}

fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

impl Case {
    fn matrix<T: Scalar>(&self, key: &str) -> Array2<T> {
        let rows = self.value[key].as_array().unwrap().len();
        let values: Vec<T> = flat(&self.value[key])
            .into_iter()
            .map(T::from_f64)
            .collect();
        Array2::from_shape_vec((rows, values.len() / rows), values).unwrap()
    }

    fn labels(&self) -> Vec<usize> {
        flat(&self.value["labels"])
            .into_iter()
            .map(|y| y as usize)
            .collect()
    }

    /// Compares numbers that were computed in a precision of unit roundoff `epsilon`.
    fn check<'a, T: Scalar>(
        &self,
        epsilon: f64,
        what: &str,
        found: impl IntoIterator<Item = &'a T>,
    ) {
        let found: Vec<f64> = found.into_iter().map(|v| v.into_f64()).collect();
        let expected = flat(&self.value["expected"][what]);
        let bound = TOLERANCE * (epsilon / f64::EPSILON);
        let error = distance(&found, &expected, 0.0);
        assert!(
            error <= bound,
            "{what} of {} is off by {error:e}",
            self.name
        );
    }
}

fn derivatives<T: Scalar>(case: &Case) {
    let epsilon = T::EPSILON.into_f64();
    let network = case.model.network().cast::<T>().unwrap();
    let labels = case.labels();
    let (loss, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&labels));
    let trace = network.trace(case.matrix("inputs").view()).unwrap();
    case.check(epsilon, "logits", trace.logits());
    case.check(epsilon, "loss", &trace.losses(&loss, &targets).unwrap());
    case.check(epsilon, "jacobian", &trace.jacobian().unwrap());
    case.check(
        epsilon,
        "jvp",
        &trace.jvp(case.matrix("tangent").view()).unwrap(),
    );
    case.check(
        epsilon,
        "vjp",
        &trace.vjp(case.matrix("cotangent").view()).unwrap(),
    );
    case.check(
        epsilon,
        "input_gradient",
        &trace.input_gradient(&loss, &targets).unwrap(),
    );
    let curvature = trace.curvature(&loss).unwrap();
    case.check(
        epsilon,
        "hvp",
        &curvature.apply(case.matrix("tangent").view()).unwrap(),
    );
    case.check(
        epsilon,
        "hessian_eigenvalues",
        &curvature.eigenpairs().unwrap().values,
    );
}

#[test]
fn derivatives_in_f64() {
    let cases = cases();
    assert!(cases.len() >= 21, "all files are there");
    cases.iter().for_each(derivatives::<f64>);
}

#[test]
fn derivatives_in_f32() {
    cases().iter().for_each(derivatives::<f32>);
}

/// Values and gradients of the loss and of penalties, the gradients in the names and layouts of the
/// file.
#[test]
fn penalties_and_their_gradients() {
    for case in cases() {
        let (inputs, labels) = (case.matrix::<f64>("inputs"), case.labels());
        let targets = Targets::Classes(&labels);
        let penalties = case.value["expected"]["penalties"].as_object().unwrap();
        for (name, expected) in penalties {
            let (scale, objective) = objective(name);
            let found = objective.gradient(case.model.network(), inputs.view(), &targets);
            let (evaluation, total) = found.unwrap();
            let values = match name.as_str() {
                "loss" => evaluation.sample_losses,
                _ => evaluation.sample_penalties.row(0).to_vec(),
            };
            let error = distance(&values, &flat(&expected["values"]), 0.0);
            assert!(
                error <= TOLERANCE,
                "{name} of {} is off by {error:e}",
                case.name
            );
            let found = case.model.file_gradients(&total);
            let loss = &penalties["loss"]["gradient"];
            for (initializer, gradient) in expected["gradient"].as_object().unwrap() {
                let (_, found) = found.iter().find(|(n, _)| n == initializer).unwrap();
                let own = flat(gradient).into_iter().zip(flat(&loss[initializer]));
                let sum: Vec<f64> = own.map(|(own, loss)| own + scale * loss).collect();
                let found: Vec<f64> = found.iter().copied().collect();
                let error = distance(&found, &sum, 1e-3);
                let what = format!("gradient of {name} of {} in {initializer}", case.name);
                assert!(error <= TOLERANCE, "the {what} is off by {error:e}");
            }
        }
    }
}

/// The objective that is a penalty plus this often the loss.
fn objective(name: &str) -> (f64, Objective) {
    let objective = Objective::new(Loss::softmax_cross_entropy());
    if name == "loss" {
        return (0.0, objective);
    }
    let penalty: Penalty = name.parse().unwrap();
    (1.0, objective.with(penalty, 1.0).unwrap())
}

/// What was dropped is said.
#[test]
fn a_final_softmax_is_reported() {
    for case in cases() {
        let notes = case.model.notes();
        assert_eq!(notes.is_empty(), case.name != "softmax", "{notes:?}");
    }
}
