//! Other processes in the same folder.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::commands::*;

/// Twenty times another process wants to go on with a run that is under way: each is told who is
/// there, and the run ends as if nobody had been.
#[test]
fn a_run_under_way_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = [
        "train",
        "--epochs",
        "40",
        "--model",
        "mlp:32",
        "--log-steps",
        "--checkpoint-steps",
        "5",
    ];
    let (whole, beside) = (dir.path().join("whole"), dir.path().join("beside"));
    let begin = |folder: &Path| {
        let mut command = relugrad(&options);
        command
            .args(["--out", text(folder)])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut child = begin(&beside);
    wait_for(&beside.join("last.safetensors"), &mut child);
    let process = format!("process {}", child.id());
    let mut trials = 0;
    while child.try_wait().unwrap().is_none() {
        let second = match trials % 3 {
            0 => output(&["train", "--resume", text(&beside)]),
            1 => output(&["train", "--out", text(&beside)]),
            _ => output(&["evaluate", text(&whole), "--out", text(&beside)]),
        };
        let reason = error(&second);
        if !reason.contains("is in use") {
            // Between giving its lock back and its end a process has nothing more to do.
            std::thread::sleep(Duration::from_millis(200));
        }
        if child.try_wait().unwrap().is_some() {
            break;
        }
        assert_eq!(second.status.code(), Some(1), "{reason}");
        assert!(
            reason.contains("is in use by `relugrad train`") && reason.contains(&process),
            "{reason}"
        );
        assert!(
            reason.contains(".relugrad-lock") && reason.contains("since 20"),
            "{reason}"
        );
        trials += 1;
    }
    assert!(trials >= 20, "{trials}");
    assert!(child.wait().unwrap().success());
    assert!(begin(&whole).wait().unwrap().success());
    assert!(contents(&whole) == contents(&beside));
}

#[test]
fn a_folder_that_is_deleted_meanwhile_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let options = [
        "train",
        "--epochs",
        "4000",
        "--model",
        "mlp:8",
        "--out",
        text(&run),
    ];
    let mut child = relugrad(&options)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&run.join("last.safetensors"), &mut child);
    while fs::remove_dir_all(&run).is_err() {}
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains(text(&run)), "{}", error(&output));
    assert!(!run.exists());
}
