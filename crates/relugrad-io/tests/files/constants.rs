//! Constants that ONNX files compute: small files with one thing each that was wrong once.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use relugrad_io::{Model, NpzArchive, Selection, load_onnx, load_onnx_with};

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
        "convtranspose",
        "resize_nearest",
        "matmul_stack",
        "hardsigmoid",
    ] {
        let model = load_onnx(case(&format!("{name}.onnx"))).unwrap_or_else(|e| panic!("{e}"));
        compare(&model, name, "y0");
    }
}

/// Compares the logits of a case with the array of what a runtime gives.
fn compare(model: &Model, name: &str, array: &str) {
    let mut file = NpzArchive::open(case(&format!("{name}.expected.npz"))).unwrap();
    let [x, y] = ["x", array].map(|array| file.read(&[array]).unwrap());
    let [x, y] = [x, y].map(|array| array.values.iter().copied().collect::<Vec<f64>>());
    let width = model.network().inputs();
    let inputs = Array2::from_shape_vec((x.len() / width, width), x).unwrap();
    let found = logits(model, inputs);
    assert_eq!(found.len(), y.len());
    for (found, expected) in found.iter().zip(&y) {
        assert!(
            (found - expected).abs() < 2e-6,
            "{name}: {found} against {expected}"
        );
    }
}

#[test]
fn each_of_two_outputs_can_be_the_logits() {
    let name = "two_outputs";
    let error = load_onnx(case("two_outputs.onnx")).unwrap_err().to_string();
    assert!(error.contains(r#"["y", "h"]"#), "{error}");
    for (output, array) in [("y", "y0"), ("h", "y1")] {
        let selection = Selection {
            output: Some(output.into()),
            ..Selection::default()
        };
        let model = load_onnx_with(case("two_outputs.onnx"), &selection).unwrap();
        compare(&model, name, array);
    }
}

#[test]
fn a_first_axis_may_be_none_of_a_batch() {
    let model = load_onnx(case("matrix_input_no_batch.onnx")).unwrap();
    assert_eq!(model.network().input_shape(), [4, 3]);
    compare(&model, "matrix_input_no_batch", "y0");
}

#[test]
fn operators_of_version_6_are_read() {
    let model = load_onnx(case("opset6_gemm_relu.onnx")).unwrap();
    let weights = model.network().parameters().layout().iter();
    let shapes: Vec<&[usize]> = weights.map(|info| info.shape()).collect();
    assert_eq!(shapes, [&[3, 4][..], &[3]]);
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
