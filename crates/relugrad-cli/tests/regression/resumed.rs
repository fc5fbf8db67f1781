//! A regression with a penalty of the Jacobian, killed again and again and resumed to the same
//! bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::{printed, refusal, relugrad, table, text, with};

/// All files of a run but those that hold times or checksums.
fn files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = entries.map(|path| {
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            path,
        )
    });
    let kept = named.filter(|(name, _)| !name.starts_with('.') && !name.contains("manifest"));
    kept.map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_killed_regression_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let data = with(&table(dir.path()), &["price", "weight"]);
    let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(name));
    let given = |out| {
        let given = [
            "train",
            "--out",
            out,
            "--data",
            text(&data),
            "--target-columns",
            "price",
        ];
        let more = [
            "--weight-column",
            "weight",
            "--penalties",
            "jacobian=0.01",
            "--model",
            "mlp:16",
        ];
        let logs = [
            "--checkpoint-steps",
            "3",
            "--log-steps",
            "--batch-size",
            "8",
            "--epochs",
            "60",
        ];
        [&given[..], &more, &logs]
            .concat()
            .iter()
            .map(|&text| text.to_owned())
            .collect::<Vec<String>>()
    };
    let first = given(text(&whole));
    printed(&first.iter().map(String::as_str).collect::<Vec<_>>());
    let binary = assert_cmd::cargo::cargo_bin("relugrad");
    for i in 0..6 {
        let begun = killed.join("last.safetensors").exists();
        let given = match begun {
            true => vec!["train".to_owned(), "--resume".into(), text(&killed).into()],
            false => [given(text(&killed)), vec!["--overwrite".into()]].concat(),
        };
        let child = std::process::Command::new(&binary)
            .args(given)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        std::thread::sleep(Duration::from_millis(60 + 45 * i));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    printed(&["train", "--resume", text(&killed)]);
    assert_eq!(files(&whole), files(&killed));
}

#[test]
fn the_loss_of_a_run_stays() {
    let dir = tempfile::tempdir().unwrap();
    let data = with(&table(dir.path()), &["class"]);
    let run = dir.path().join("run");
    printed(&[
        "train",
        "--out",
        text(&run),
        "--data",
        text(&data),
        "--model",
        "mlp:4",
        "--epochs",
        "1",
    ]);
    for loss in [
        "squared-error",
        "softmax-cross-entropy(label-smoothing=0.5)",
    ] {
        let message = refusal(&[
            "train",
            "--resume",
            text(&run),
            "--epochs",
            "2",
            "--loss",
            loss,
        ]);
        assert!(
            message.contains("cannot change when a training is resumed"),
            "{message}"
        );
    }
    let checkpoint = std::fs::read(run.join("last.safetensors")).unwrap();
    let name = b"\\\"loss\\\":\\\"softmax-cross-entropy\\\"";
    assert!(checkpoint.windows(name.len()).any(|part| part == name));
    relugrad(&["train", "--resume", text(&run), "--epochs", "2"])
        .assert()
        .success();
}
