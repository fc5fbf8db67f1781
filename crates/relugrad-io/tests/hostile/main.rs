//! Files that ask for more than they hold, or that are odd: an error that says so, at once and in
//! little memory, or the right network.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::array;
use relugrad_io::{Error, NpzArchive, load_model, load_npy};

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/hostile/cases")
        .join(name)
}

/// What is said about a file, which must be said soon.
fn refused<T>(name: &str, read: impl FnOnce(PathBuf) -> relugrad_io::Result<T>) -> Error {
    let start = Instant::now();
    let error = read(case(name)).err().expect("it was accepted");
    assert!(error.to_string().contains(name), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{name}");
    error
}

#[test]
fn constants_that_are_only_asked_for_are_not_made() {
    let text = refused("const_bomb_100.onnx", load_model).to_string();
    assert!(text.contains("--file-memory SIZE allows more"), "{text}");
    // More memory would not help.
    for name in ["shape0_huge.onnx", "expand0_huge.onnx"] {
        let text = refused(name, load_model).to_string();
        assert!(text.contains("has no entries"), "{text}");
        assert!(!text.contains("--file-memory"), "{text}");
    }
}

#[test]
fn cycles_are_named() {
    let text = refused("identity_cycle2.onnx", load_model).to_string();
    assert!(text.contains("cycle"), "{text}");
}

#[test]
fn headers_of_arrays_are_compared_with_the_file() {
    let text = refused("braces16.npy", load_npy).to_string();
    assert!(text.contains("where a string should be"), "{text}");
    let text = refused("huge1e12.npy", load_npy).to_string();
    assert!(
        text.contains("80 bytes") && text.contains("8000000000080"),
        "{text}"
    );
}

#[test]
fn networks_without_parameters_are_read() {
    for (name, inputs) in [
        ("parameterless_identity.onnx", 3),
        ("g_inputonly.safetensors", 2),
    ] {
        let model = load_model(case(name)).unwrap();
        let network = model.network();
        assert_eq!((network.inputs(), network.outputs()), (inputs, inputs));
        assert_eq!(network.parameters().len(), 0);
        let x = ndarray::Array2::from_shape_fn((1, inputs), |(_, j)| j as f64 - 0.5);
        assert_eq!(network.forward(x.view()).unwrap(), x);
        assert!(model.file_gradients(network.parameters()).is_empty());
    }
}

#[test]
fn nodes_are_sorted_while_reading() {
    let model = load_model(case("unsorted_nodes.onnx")).unwrap();
    let mut expected = NpzArchive::open(case("unsorted_nodes.expected.npz")).unwrap();
    let x = expected.read(&["x"]).unwrap().values;
    let y = expected.read(&["y0"]).unwrap().values;
    let n = x.shape()[0];
    let x = x
        .into_shape_with_order((n, model.network().inputs()))
        .unwrap();
    let found = model.network().forward(x.view()).unwrap();
    let far = found
        .iter()
        .zip(&y)
        .any(|(a, b)| (a - b).abs() > 1e-5 * (1.0 + b.abs()));
    assert!(found.len() == y.len() && !far);
}

#[test]
fn compressed_archives_are_read() {
    let mut archive = NpzArchive::open(case("savez_compressed.npz")).unwrap();
    let (x, y) = (archive.read(&["x"]).unwrap(), archive.read(&["y"]).unwrap());
    assert_eq!(
        (x.values.shape(), y.values.shape()),
        (&[30, 3][..], &[30][..])
    );
    assert!(x.values.iter().any(|&v| v != 0.0));
}

#[test]
fn single_zeros_of_an_nnet_file_mean_no_normalisation() {
    let model = load_model(case("zeros_dialect.nnet")).unwrap();
    // Weight [[1, −1], [0.5, 2]], bias (0.1, −0.2), then (1, 1.5) and 0.3.
    let f = model.network().forward(array![[1.0, 2.0]].view()).unwrap();
    assert!((f[(0, 0)] - (1.5 * 4.3 + 0.3)).abs() < 1e-12, "{f}");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.onnx", "a.safetensors", "a.nnet", "a.npy", "a.npz"] {
        let pipe = folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let error = match name.rsplit_once('.').unwrap().1 {
            "npy" => load_npy(&pipe).err(),
            "npz" => NpzArchive::open(&pipe).err(),
            _ => load_model(&pipe).err(),
        };
        assert!(matches!(
            error,
            Some(Error::NotReadable { kind: "pipe", .. })
        ));
    }
}

#[test]
fn control_characters_are_shown_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a\u{1b}[31m\n.nnet");
    std::fs::write(&path, "1,2,\u{202e}x\u{7},1\n").unwrap();
    let text = load_model(&path).unwrap_err().to_string();
    assert!(
        text.contains("a\\u{1b}[31m\\n.nnet") && text.contains("\\u{202e}x\\u{7}"),
        "{text}"
    );
    assert!(!text.contains(char::is_control));
}
