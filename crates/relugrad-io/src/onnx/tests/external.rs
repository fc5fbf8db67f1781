//! Tensors whose numbers are in files beside the model.

use std::fs::{self, File};
use std::path::Path;

use super::*;
use crate::onnx::proto::StringStringEntryProto;

/// A Gemm whose weight `[2, 1]` is where the keys and values say, and perhaps a constant of so many
/// entries.
fn write(folder: &Path, entries: &[(&str, &str)], filled: Option<i64>) {
    let mut weight = floats("w", &[2, 1], &[]);
    weight.data_location = 1;
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
        key: key.into(),
        value: value.into(),
    };
    weight.external_data = entries.iter().map(entry).collect();
    let mut nodes = vec![node("MatMul", &["x", "w"], "z")];
    if filled.is_some() {
        nodes.push(node("ConstantOfShape", &["n"], "c"));
        nodes.push(node("ReduceSum", &["c"], "s"));
        nodes.push(node("Add", &["z", "s"], "y"));
    }
    let tensors = vec![weight, integers("n", &[filled.unwrap_or(1)])];
    let bytes = model(nodes, tensors, &[1, 2]).encode_to_vec();
    fs::write(folder.join("m.onnx"), bytes).unwrap();
}

fn read(folder: &Path) -> Result<Vec<f64>> {
    let model = load_onnx(folder.join("m.onnx"))?;
    Ok(model.network().parameters().values().to_vec())
}

fn refused(folder: &Path, entries: &[(&str, &str)], filled: Option<i64>) -> String {
    write(folder, entries, filled);
    read(folder).unwrap_err().to_string()
}

fn numbers(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn no_more_is_read_of_a_long_file_than_the_dimensions_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let long = path.join("long.bin");
    fs::write(&long, numbers(&[1.0, 2.0, 3.0])).unwrap();
    File::options()
        .write(true)
        .open(long)
        .unwrap()
        .set_len(1 << 38)
        .unwrap();
    for (entries, expected) in [
        (&[("location", "long.bin")][..], [1.0, 2.0]),
        (&[("location", "long.bin"), ("offset", "4")], [2.0, 3.0]),
        (&[("location", "./long.bin"), ("length", "8")], [1.0, 2.0]),
    ] {
        write(path, entries, None);
        assert_eq!(read(path).unwrap(), expected);
    }
    // Nor does it allow anything that was not allowed.
    let error = refused(path, &[("location", "long.bin")], Some(1 << 29));
    assert!(error.contains("--file-memory SIZE allows more"), "{error}");
    let error = refused(path, &[("location", "long.bin"), ("length", "12")], None);
    assert!(
        error.contains("`w`") && error.contains("ask for 8 bytes"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_is_said_with_the_tensor_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("short.bin"), numbers(&[1.0])).unwrap();
    for (entries, problem) in [
        (&[][..], "in which file"),
        (&[("location", "")], "in which file"),
        (
            &[("location", "none.bin")],
            "`none.bin`, which cannot be read: No such file",
        ),
        (&[("location", ".")], "folder"),
        (
            &[("location", "short.bin")],
            "`short.bin` of 4 bytes ends before its 8 bytes",
        ),
        (&[("location", "../m.onnx")], "not in the model's folder"),
        (
            &[("location", "short.bin"), ("location", "b")],
            "location of its numbers twice",
        ),
        (&[("location", "short.bin"), ("offset", "x")], "no number"),
        (
            &[
                ("location", "short.bin"),
                ("offset", "18446744073709551615"),
            ],
            "ends before",
        ),
    ] {
        let error = refused(path, entries, None);
        assert!(error.contains("`w`") && error.contains(problem), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_within_the_folder_and_beside_a_linked_model() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let [store, here] = ["store", "here"].map(|name| folder.path().join(name));
    for folder in [&store, &here] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(store.join("blob"), numbers(&[1.0, 2.0])).unwrap();
    symlink("../store/blob", here.join("w.bin")).unwrap();
    let error = refused(&here, &[("location", "w.bin")], None);
    assert!(
        error.contains("is a link to") && error.contains("`w`"),
        "{error}"
    );
    // The model is in the store too.
    fs::rename(here.join("m.onnx"), store.join("m")).unwrap();
    symlink("../store/m", here.join("m.onnx")).unwrap();
    assert_eq!(read(&here).unwrap(), [1.0, 2.0]);
    fs::write(store.join("again"), numbers(&[3.0, 4.0])).unwrap();
    write(&store, &[("location", "inner")], None);
    symlink("again", store.join("inner")).unwrap();
    assert_eq!(read(&store).unwrap(), [3.0, 4.0]);
}
