//! Constants that ONNX files compute: small files with one thing each that was wrong once.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use relugrad_io::{Model, NpzArchive, load_onnx};

fn logits(model: &Model, x: Array2<f64>) -> Vec<f64> {
    let trace = model.network().trace(x.view()).unwrap();
    trace.logits().iter().copied().collect()
}

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(name)
}

#[test]
fn small_files_give_what_runtimes_give() {
    for name in [
        "const_reduceprod_axes1",
        "cast_bool_mask",
        "mul_by_computed",
        "const_concat_weight",
        "max_small_first",
        "matmul_const_const",
        "clip_inf",
        "fp16_weights_cast",
        "concat_constant",
    ] {
        let model = load_onnx(case(&format!("{name}.onnx"))).unwrap_or_else(|e| panic!("{e}"));
        let mut file = NpzArchive::open(case(&format!("{name}.expected.npz"))).unwrap();
        let [x, y] = ["x", "y0"].map(|array| file.read(&[array]).unwrap());
        let [x, y] = [x, y].map(|array| array.values.iter().copied().collect::<Vec<f64>>());
        let inputs = Array2::from_shape_vec(
            (x.len() / model.network().inputs(), model.network().inputs()),
            x,
        );
        for (found, expected) in logits(&model, inputs.unwrap()).iter().zip(&y) {
            assert!(
                (found - expected).abs() < 2e-6,
                "{name}: {found} against {expected}"
            );
        }
    }
}

#[test]
fn weights_that_are_computed_have_gradients() {
    for (name, expected) in [
        ("mul_by_computed", &["g", "n", "V0", "V"][..]),
        ("const_concat_weight", &["Wa", "Wb", "V"]),
        ("fp16_weights_cast", &["W16"]),
        ("concat_constant", &["k", "V"]),
    ] {
        let model = load_onnx(case(&format!("{name}.onnx"))).unwrap();
        let gradients = model.file_gradients(model.network().parameters());
        let mut names: Vec<&str> = gradients.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected, "{name}");
        assert!(model.left_out().is_empty());
    }
}

#[test]
fn scalars_and_empty_axes_are_refused() {
    for (name, text) in [
        ("matmul_scalar", "(MatMul): its constant is a scalar"),
        (
            "slice_negative_step_empty",
            "(ConstantOfShape): its operator has no attribute `axis`",
        ),
    ] {
        let error = load_onnx(case(&format!("{name}.onnx")))
            .unwrap_err()
            .to_string();
        assert!(error.contains(text), "{name}: {error}");
    }
}
