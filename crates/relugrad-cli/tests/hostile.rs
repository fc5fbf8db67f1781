//! Files that would keep the program waiting, or that ask for more than there is: what the user is
//! told.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ndarray::array;
use relugrad::Builder;
use tempfile::TempDir;

/// Runs the program with 2 GB of address space, in a folder; it must be done soon.
fn relugrad(folder: &Path, line: &str) -> Output {
    let start = Instant::now();
    let program = env!("CARGO_BIN_EXE_relugrad");
    let script = format!("ulimit -v 2000000; exec '{program}' {line}");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{line}");
    output
}

/// What it says when it refuses.
fn refused(folder: &Path, line: &str) -> String {
    let output = relugrad(folder, line);
    let said = String::from_utf8(output.stderr).unwrap();
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 2)), "{line}: {code:?} {said}");
    assert!(said.starts_with("error: "), "{said}");
    said
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_pipe_is_refused_wherever_a_file_is_expected() {
    let folder = folder();
    let path = folder.path();
    for name in [
        "p.onnx",
        "p.safetensors",
        "p.nnet",
        "p.npy",
        "p.npz",
        "p.csv",
        "p.csv.gz",
        "p.toml",
        "results.json",
        "test_batch.bin",
        "data_batch_1.bin",
        "train-images-idx3-ubyte",
    ] {
        let made = Command::new("mkfifo").arg(path.join(name)).status();
        assert!(made.unwrap().success());
    }
    fs::create_dir(path.join("idx")).unwrap();
    fs::rename(
        path.join("train-images-idx3-ubyte"),
        path.join("idx/train-images-idx3-ubyte"),
    )
    .unwrap();
    for line in [
        "inspect p.onnx",
        "inspect p.safetensors",
        "inspect p.nnet",
        "inspect p.safetensors --model p.toml --input-shape 4",
        "train --data p.csv --out a --epochs 1",
        "train --data p.csv.gz --out a --epochs 1",
        "train --data p.npz --out a --epochs 1",
        "train --data p.npy --labels p.npy --out a --epochs 1",
        "train --data . --out a --epochs 1",
        "train --data idx --out a --epochs 1",
        "train --config p.toml --out a",
        "train --model p.toml --out a --epochs 1",
        "train --start p.safetensors --out a --epochs 1",
    ] {
        let said = refused(path, line);
        assert!(said.contains("is a pipe"), "{line}: {said}");
    }
}

#[test]
fn a_layer_that_does_not_fit_is_named_with_the_option_that_allows_more() {
    let folder = folder();
    let case = "tests/hostile_cases/conv_outputs_2_31.toml";
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join(case);
    fs::copy(case, folder.path().join("conv.toml")).unwrap();
    for model in ["conv.toml", "mlp:2147483648", "mlp:18446744073709551615"] {
        let line = format!("train --model {model} --epochs 1 --out a");
        let said = refused(folder.path(), &line);
        assert!(
            said.contains("layer 1, with ") && said.contains("--file-memory SIZE allows more"),
            "{said}"
        );
    }
    let line = "train --model mlp:4000 --epochs 1 --out a --file-memory 1MB";
    let said = refused(folder.path(), line);
    assert!(said.contains("of the 976.6 KiB"), "{said}");
}

#[test]
fn what_a_file_may_take_can_be_raised() {
    let folder = folder();
    let lines = "0.5,0\n0.25,1\n".repeat(20);
    fs::write(folder.path().join("a.csv"), lines).unwrap();
    let line = "train --data a.csv --model mlp:2 --epochs 1 --out a";
    let said = refused(folder.path(), &format!("{line} --file-memory 1KB"));
    assert!(
        said.contains("a.csv: ") && said.contains("--file-memory SIZE allows more"),
        "{said}"
    );
    let output = relugrad(folder.path(), &format!("{line} --file-memory 1MB"));
    assert!(output.status.success(), "{output:?}");
}

/// A header that is longer than any should be is read if that is allowed.
#[test]
fn a_long_header_is_read_on_request() {
    let folder = folder();
    let dictionary = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2), }";
    let header = dictionary.to_owned() + &" ".repeat(70_000 - dictionary.len());
    let length = (header.len() as u32).to_le_bytes();
    let bytes = [
        b"\x93NUMPY\x02\x00",
        &length[..],
        header.as_bytes(),
        &[1, 2],
    ]
    .concat();
    fs::write(folder.path().join("x.npy"), bytes).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = model.join("../relugrad-io/tests/hostile/cases/g_inputonly.safetensors");
    let line = format!("derive '{}' --input x.npy --out y.npz", model.display());
    let said = refused(folder.path(), &line);
    assert!(
        said.contains("x.npy: the header has 70000 bytes") && said.contains("--file-memory SIZE"),
        "{said}"
    );
    let output = relugrad(folder.path(), &format!("{line} --file-memory 1MB"));
    assert!(output.status.success(), "{output:?}");
}

/// Two gigabytes of addresses have no room for the stacks of so many.
#[test]
fn threads_that_cannot_be_started_name_the_option() {
    let folder = folder();
    for line in ["train --out a", "verify none.onnx", "bench"] {
        let said = refused(folder.path(), &format!("{line} --threads 1024"));
        assert!(
            said.contains("cannot start 1024 threads")
                && said.contains("ask for fewer by --threads"),
            "{said}"
        );
    }
    assert!(!folder.path().join("a").exists());
}

#[test]
fn values_of_options_are_shown_without_being_obeyed() {
    let folder = folder();
    for line in [
        "train --epochs='\u{1b}[31m5' --out a",
        "compare --penalties '\u{1b}[31m5'",
        "bench '\u{1b}[31m5'",
    ] {
        let said = refused(folder.path(), line);
        assert!(said.contains("\\u{1b}[31m5"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
}

#[test]
fn names_are_shown_without_being_obeyed() {
    let folder = folder();
    let text = "\u{1b}]0;x\u{7}\u{202e}1\n".repeat(3);
    fs::write(folder.path().join("a.csv"), text + "1,2,3\n").unwrap();
    let said = refused(
        folder.path(),
        "train --data a.csv --out a --label-column '\u{1b}[2J'",
    );
    assert!(!said.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{said}");
}

/// A sum of many gates of long names, as a model file; a dense layer of the name `dense` before it.
fn wide_sum(path: &Path, gates: usize, dense: &str) {
    let mut builder = Builder::new();
    let x = builder.input(1).unwrap();
    let z = builder.dense(x, array![[1.0]], None).unwrap();
    builder.rename(z, dense).unwrap();
    let gates: Vec<_> = (0..gates).map(|_| builder.relu(z).unwrap()).collect();
    let sum = builder.sum(&gates).unwrap();
    let network = builder.build(sum).unwrap();
    relugrad_io::save(path, &network, &relugrad_io::Metadata::new()).unwrap();
}

#[test]
fn tables_are_no_wider_than_a_line() {
    let folder = folder();
    let name = "d".repeat(50_000);
    wide_sum(&folder.path().join("a.safetensors"), 1000, &name);
    let output = relugrad(folder.path(), "inspect a.safetensors");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.len() < 1_000_000, "{} bytes", text.len());
    assert!(text.contains("relu0, relu1, relu2, relu3, … (996 more)"));
    assert!(text.contains("ddd… (49940 more)"));
}

#[test]
fn names_that_an_archive_cannot_hold_are_refused() {
    let folder = folder();
    let path = folder.path();
    ndarray_npy::write_npy(path.join("x.npy"), &array![[1.0]]).unwrap();
    let line =
        "derive a.safetensors --input x.npy --out o.npz --overwrite --parameter-gradients loss";
    for (name, problem) in [
        (
            "d".repeat(65_515),
            "65532 bytes, and an archive allows 65531",
        ),
        ("d".repeat(100_000), "bytes, and an archive allows"),
        ("a\0b".into(), "a NUL"),
        ("../../etc/x".into(), "`..`"),
    ] {
        wide_sum(&path.join("a.safetensors"), 1, &name);
        let said = refused(path, line);
        assert!(said.contains(problem) && said.len() < 400, "{said}");
        assert!(!path.join("o.npz").exists());
        fs::remove_file(path.join("a.safetensors")).unwrap();
    }
    wide_sum(&path.join("a.safetensors"), 1, &"d".repeat(65_514));
    let output = relugrad(path, line);
    assert!(output.status.success(), "{output:?}");
}
