//! Folders that cannot be written to, and those of earlier versions.

use std::fs;

use crate::commands::*;

#[test]
fn a_folder_that_cannot_be_is_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    for command in [train(&data), compare(&data)] {
        for out in [file.clone(), file.join("below")] {
            let reason = refused(&with(&command, &["--out", text(&out)]));
            assert!(
                reason.contains("--out") && reason.contains(text(&out)),
                "{reason}"
            );
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    // What fails before it begins leaves no folder.
    let out = dir.path().join("new/run");
    let reason = refused(&["train", "--data", "nowhere", "--out", text(&out)]);
    assert!(
        reason.contains("nowhere") && !dir.path().join("new").exists(),
        "{reason}"
    );
}

/// A folder of an earlier version, which has no manifest, is known by its checkpoints and numbers.
#[test]
fn folders_without_manifest_are_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    for (command, file) in [
        (train(&data), "last.safetensors"),
        (compare(&data), "results.json"),
    ] {
        let folder = dir.path().join(&command[0]);
        let out = ["--out", text(&folder)];
        done(&with(&command, &out));
        let before = fs::read(folder.join(file)).unwrap();
        let forget = || fs::remove_file(folder.join("relugrad-manifest.json")).unwrap();
        forget();
        let reason = refused(&with(&command, &out));
        assert!(
            reason.contains("already holds") && reason.contains("--resume"),
            "{reason}"
        );
        match &*command[0] {
            "train" => done(&["train", "--resume", text(&folder)]),
            _ => done(&with(&command, &[out[0], out[1], "--resume"])),
        }
        assert!(fs::read(folder.join(file)).unwrap() == before);
        forget();
        done(&with(&command, &[out[0], out[1], "--overwrite"]));
    }
}

/// The checkpoint of an earlier run is none of a run that did not begin.
#[test]
fn the_last_checkpoint_is_named_only_where_it_is_the_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let run = dir.path().join("run");
    let out = ["--out", text(&run), "--overwrite"];
    done(&with(&train(&data), &out));
    let reason = refused(&["train", "--data", "nowhere", out[0], out[1], out[2]]);
    assert!(!reason.contains("the last checkpoint"), "{reason}");
    let diverges = ["--lr", "1e30", "--optimizer", "sgd"];
    let options = with(&train(&data), &diverges).join("\n");
    let options: Vec<&str> = options.lines().chain(out).collect();
    let reason = refused(&options);
    assert!(
        reason.contains("diverged at step") && reason.contains("there is no checkpoint"),
        "{reason}"
    );
}
