//! Nothing of the user's is deleted or overwritten, whatever is in the folder and whoever else works there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("relugrad"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    relugrad(arguments).output().unwrap()
}

/// Runs a command that must succeed.
fn done(arguments: &[&str]) {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", error(&output));
}

/// Runs a command that must be refused, and returns its reason.
fn refused(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{arguments:?}: {}",
        error(&output)
    );
    error(&output)
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A table of sixty samples in two classes.
fn table(folder: &Path) -> PathBuf {
    let line = |i: usize| format!("{},{},{}", (i * 7) % 10, (i * 3) % 10, (i * 7) % 10 / 5);
    let lines: Vec<String> = (0..60).map(line).collect();
    let path = folder.join("two.csv");
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

/// The options of a short training on it.
fn train(data: &Path) -> Vec<String> {
    let options = [
        "train", "--model", "mlp:4", "--epochs", "2", "--scale", "range", "--data",
    ];
    let options = options.into_iter().chain([text(data)]);
    options.map(str::to_owned).collect()
}

fn compare(data: &Path) -> Vec<String> {
    let mut options = train(data);
    options[0] = "compare".into();
    let more = [
        "--attack-samples",
        "5",
        "--pgd-steps",
        "1",
        "--penalties",
        "jacobian",
    ];
    options.extend(more.map(str::to_owned));
    options
}

fn evaluate(data: &Path, model: &Path) -> Vec<String> {
    let options = [
        "evaluate",
        text(model),
        "--scale",
        "range",
        "--data",
        text(data),
        "--linf",
        "0.1",
    ];
    let more = [
        "--l2",
        "",
        "--samples",
        "5",
        "--apgd-steps",
        "2",
        "--pgd-steps",
        "2",
        "--certify",
        "1",
    ];
    options.into_iter().chain(more).map(str::to_owned).collect()
}

fn with<'a>(options: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    options
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect()
}

/// The bytes of all files in a folder, by their names.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap();
                    found.insert(text(name).to_owned(), fs::read(&path).unwrap());
                }
            }
        }
    }
    found
}

/// Whether a lock or a temporary file of ours is left.
fn traces(folder: &Path) -> Vec<String> {
    let names = contents(folder).into_keys();
    names
        .filter(|name| name.contains(".relugrad-") && !name.contains("foreign"))
        .collect()
}

/// Names that the commands write, and some that they do not.
const NAMES: [&str; 20] = [
    "config.toml",
    "last.safetensors",
    "best.safetensors",
    "metrics.jsonl",
    "metrics.csv",
    "results.json",
    "report.html",
    "curves.csv",
    "models/none-seed0.safetensors",
    "models/jacobian-seed0.safetensors",
    "models/foreign.safetensors",
    "evaluation.html",
    "evaluation.json",
    "samples.csv",
    "adversarial.npz",
    "relugrad-manifest.json",
    ".relugrad-lock",
    ".relugrad-foreign",
    "models/.relugrad-foreign-none-seed0.safetensors",
    "events.out.tfevents.foreign",
];

/// Whatever files there are before, and whatever was run there before, no foreign file is ever changed; and a command that is
/// refused changes nothing at all.
#[test]
fn foreign_files_stay_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let run = dir.path().join("run");
    done(&with(&train(&data), &["--out", text(&run)]));
    let commands = [
        train(&data),
        compare(&data),
        evaluate(&data, &run.join("best.safetensors")),
    ];
    let mut random = ChaCha8Rng::seed_from_u64(24);
    let mut refusals = 0;
    for case in 0..36 {
        let folder = dir.path().join(format!("case{case}"));
        let command = &commands[case % 3];
        if case % 2 == 1 {
            done(&with(command, &["--out", text(&folder)]));
        }
        fs::create_dir_all(folder.join("models")).unwrap();
        let mut foreign = BTreeMap::new();
        for _ in 0..random.random_range(1..4) {
            let name = *NAMES.choose(&mut random).unwrap();
            let bytes: Vec<u8> = (0..random.random_range(1..40))
                .map(|_| random.random())
                .collect();
            fs::write(folder.join(name), &bytes).unwrap();
            foreign.insert(name.to_owned(), bytes);
        }
        let before = contents(&folder);
        for flag in ["", "--overwrite", "--resume"] {
            let out = text(&folder);
            let arguments = match (flag, &*command[0]) {
                ("--resume", "train") => vec!["train", "--resume", out],
                ("--resume", "evaluate") => continue,
                ("", _) => with(command, &["--out", out]),
                _ => with(command, &["--out", out, flag]),
            };
            let output = output(&arguments);
            let after = contents(&folder);
            for (name, bytes) in &foreign {
                assert!(
                    after.get(name) == Some(bytes),
                    "{case}: {name} after {arguments:?}"
                );
            }
            if output.status.success() {
                break;
            }
            refusals += 1;
            assert_eq!(output.status.code(), Some(1), "{}", error(&output));
            assert!(
                after == before,
                "{case}: {arguments:?} changed something: {}",
                error(&output)
            );
        }
    }
    assert!(refusals > 20);
}

#[test]
fn what_is_foreign_or_changed_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    for (name, command) in [
        ("config.toml", train(&data)),
        ("metrics.csv", train(&data)),
        ("models/none-seed0.safetensors", compare(&data)),
        ("models/mine.safetensors", compare(&data)),
        ("report.html", compare(&data)),
    ] {
        let folder = dir.path().join(name.replace('/', "-"));
        fs::create_dir_all(folder.join("models")).unwrap();
        fs::write(folder.join(name), "mine").unwrap();
        let reason = refused(&with(&command, &["--out", text(&folder)]));
        assert!(
            reason.contains(name) && reason.contains("move it away"),
            "{reason}"
        );
        fs::remove_file(folder.join(name)).unwrap();
        done(&with(&command, &["--out", text(&folder)]));
        if name.contains("mine") {
            continue;
        }
        let mut edited = fs::read(folder.join(name)).unwrap();
        edited.extend(b"\n");
        fs::write(folder.join(name), &edited).unwrap();
        let reason = refused(&with(&command, &["--out", text(&folder), "--overwrite"]));
        assert!(
            reason.contains(name) && reason.contains("was changed since"),
            "{reason}"
        );
        assert!(fs::read(folder.join(name)).unwrap() == edited);
    }
}

/// Foreign models beside those of an earlier comparison stay, and its own go.
#[test]
fn only_listed_models_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let folder = dir.path().join("result");
    let out = ["--out", text(&folder)];
    done(&with(&compare(&data), &out));
    fs::write(folder.join("models/mine.safetensors"), "mine").unwrap();
    let mut other = compare(&data);
    *other.last_mut().unwrap() = "cure".into();
    done(&with(&other, &[out[0], out[1], "--overwrite"]));
    let left = contents(&folder.join("models"));
    let names: Vec<&String> = left.keys().collect();
    assert_eq!(
        names,
        [
            "cure-seed0.safetensors",
            "mine.safetensors",
            "none-seed0.safetensors"
        ]
    );
}

#[test]
fn a_given_configuration_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let folder = dir.path().join("run");
    fs::create_dir(&folder).unwrap();
    let config = folder.join("config.toml");
    let mine = "# mine\nepochs = 1\n";
    fs::write(&config, mine).unwrap();
    let options = train(&data);
    let given = ["--out", text(&folder), "--config", text(&config)];
    for flags in [&[][..], &["--overwrite"]] {
        let reason = refused(&[&with(&options, &given), flags].concat());
        assert!(reason.contains("config.toml"), "{reason}");
        assert_eq!(fs::read_to_string(&config).unwrap(), mine);
        assert_eq!(contents(&folder).len(), 1);
    }
    // The configuration that a run has written may begin it again, and is not written again.
    fs::remove_file(&config).unwrap();
    done(&with(&options, &["--out", text(&folder)]));
    let written = fs::metadata(&config).unwrap().modified().unwrap();
    let again = [
        "train",
        "--out",
        text(&folder),
        "--config",
        text(&config),
        "--overwrite",
    ];
    done(&again);
    assert_eq!(fs::metadata(&config).unwrap().modified().unwrap(), written);
    let reason = refused(&[&again[..], &["--seed", "7"]].concat());
    assert!(reason.contains("is read by this command"), "{reason}");
}

#[test]
fn inputs_are_not_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let (run, found) = (dir.path().join("run"), dir.path().join("found"));
    done(&with(&train(&data), &["--out", text(&run)]));
    let last = run.join("last.safetensors");
    let start = ["--start", text(&last), "--out", text(&run), "--overwrite"];
    let options = ["train", "--data", text(&data), "--scale", "range"];
    let reason = refused(&[&options[..], &start].concat());
    assert!(
        reason.contains("last.safetensors is read by this command"),
        "{reason}"
    );
    done(&with(&evaluate(&data, &last), &["--out", text(&found)]));
    let examples = found.join("adversarial.npz");
    let mut own = evaluate(&data, &last);
    *own.iter_mut().find(|o| *o == text(&data)).unwrap() = text(&examples).into();
    let reason = refused(&with(
        &own,
        &["--out", text(&found), "--overwrite", "--all"],
    ));
    assert!(
        reason.contains("adversarial.npz is read by this command"),
        "{reason}"
    );
    let model = dir.path().join("model.safetensors");
    fs::copy(&last, &model).unwrap();
    let before = fs::read(&model).unwrap();
    let same = output(&["convert", text(&model), text(&model), "--overwrite"]);
    assert_eq!(same.status.code(), Some(2));
    assert!(error(&same).contains("is read by this command"));
    assert!(fs::read(&model).unwrap() == before);
}

/// Files of other kinds are never replaced, whatever is allowed.
#[cfg(unix)]
#[test]
fn links_folders_and_devices_are_not_replaced() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let run = dir.path().join("run");
    done(&with(&train(&data), &["--out", text(&run)]));
    let (last, link) = (run.join("last.safetensors"), dir.path().join("link.onnx"));
    symlink(dir.path().join("elsewhere"), &link).unwrap();
    let output = output(&["convert", text(&last), text(&link), "--overwrite"]);
    assert!(
        error(&output).contains("link.onnx is a symbolic link"),
        "{}",
        error(&output)
    );
    let folder = dir.path().join("folder.onnx");
    fs::create_dir(&folder).unwrap();
    let output = relugrad(&["convert", text(&last), text(&folder), "--overwrite"])
        .output()
        .unwrap();
    assert!(
        error(&output).contains("folder.onnx is a folder"),
        "{}",
        error(&output)
    );
    let table = run.join("metrics.csv");
    fs::remove_file(&table).unwrap();
    symlink(dir.path().join("elsewhere"), &table).unwrap();
    for arguments in [
        &["train", "--resume", text(&run)][..],
        &with(&train(&data), &["--out", text(&run), "--overwrite"]),
    ] {
        let reason = refused(arguments);
        assert!(
            reason.contains("metrics.csv is a symbolic link"),
            "{reason}"
        );
    }
    assert!(table.is_symlink());
}

/// Twenty times another process wants to go on with a run that is under way: each is told who is there, and the run ends as if
/// nobody had been.
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
        if child.try_wait().unwrap().is_some() {
            break;
        }
        let reason = error(&second);
        assert_eq!(second.status.code(), Some(1), "{reason}");
        assert!(
            reason.contains("is in use by `relugrad train`") && reason.contains(&process),
            "{reason}"
        );
        assert!(
            reason.contains(".relugrad-lock") && reason.contains(" UTC"),
            "{reason}"
        );
        trials += 1;
    }
    assert!(trials >= 20, "{trials}");
    assert!(child.wait().unwrap().success());
    assert!(begin(&whole).wait().unwrap().success());
    assert!(contents(&whole) == contents(&beside));
}

fn wait_for(path: &Path, child: &mut Child) {
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Comparisons and trainings that are killed at random moments and gone on with end like those that were not; of the dead
/// processes nothing is left, and what somebody else has put there is.
#[test]
fn kills_leave_no_traces_and_take_nothing_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut compare = compare(&data);
    compare.extend(["--seeds", "12"].map(str::to_owned));
    let mut train = train(&data);
    train.extend(["--epochs=60", "--tensorboard", "--log-steps"].map(str::to_owned));
    train.retain(|option| option != "--epochs" && option != "2");
    for command in [compare, train] {
        let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
        done(&with(&command, &["--out", text(&whole)]));
        let names = [
            ".relugrad-foreign",
            "models/.relugrad-foreign",
            "notes.txt",
            ".relugrad-1-foreign",
        ];
        let mut kills = 0;
        loop {
            assert!(kills < 400);
            let resume = killed.join("config.toml").exists();
            let mut arguments = with(&command, &["--out", text(&killed), "--resume"]);
            if command[0] == "train" {
                arguments.pop();
                if resume {
                    arguments = vec!["train", "--resume", text(&killed)];
                }
            }
            let mut child = relugrad(&arguments);
            let mut child = child
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            if kills < 15 {
                std::thread::sleep(Duration::from_millis(random.random_range(5..60)));
                child.kill().unwrap();
                kills += 1;
            }
            let output = child.wait_with_output().unwrap();
            if killed.is_dir() {
                fs::create_dir_all(killed.join("models")).unwrap();
                for name in names {
                    fs::write(killed.join(name), name).unwrap();
                }
            }
            if output.status.success() && kills >= 15 {
                break;
            }
            assert_ne!(output.status.code(), Some(1), "{}", error(&output));
        }
        assert_eq!(traces(&killed), [""; 0]);
        let (expected, mut found) = (contents(&whole), contents(&killed));
        for name in names {
            assert!(
                found.remove(name).as_deref() == Some(name.as_bytes()),
                "{name}"
            );
        }
        // What depends on the clock: times of steps, events, and what the manifest says of them.
        let timed = |name: &&String| {
            let own = ["results.json", "report.html", "relugrad-manifest.json"];
            !own.contains(&name.as_str()) && !name.starts_with("events.")
        };
        let names = |all: &BTreeMap<String, Vec<u8>>| {
            all.keys().filter(timed).cloned().collect::<Vec<String>>()
        };
        assert_eq!(names(&expected), names(&found));
        for name in names(&expected) {
            assert!(expected[&name] == found[&name], "{name}");
        }
        fs::remove_dir_all(&whole).unwrap();
        fs::remove_dir_all(&killed).unwrap();
    }
}

/// What a run that was killed before its first checkpoint has left is replaced on request.
#[test]
fn a_run_without_checkpoint_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let data = table(dir.path());
    let run = dir.path().join("run");
    let options = [
        "train",
        "--model",
        "mlp:64,64",
        "--batch-size",
        "1",
        "--log-steps",
        "--tensorboard",
        "--out",
        text(&run),
    ];
    let mut child = relugrad(&options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = run.join("metrics.jsonl");
    while fs::metadata(&lines).map_or(0, |found| found.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mine = fs::read(&lines).unwrap();
    fs::write(&lines, "mine").unwrap();
    let again = with(&train(&data), &["--out", text(&run)]).join("\n");
    let again: Vec<&str> = again.lines().chain(["--overwrite"]).collect();
    assert!(refused(&again).contains("metrics.jsonl was changed"));
    fs::write(&lines, mine).unwrap();
    done(&again);
    assert_eq!(traces(&run), [""; 0]);
    assert!(
        !contents(&run)
            .keys()
            .any(|name| name.starts_with("events."))
    );
}

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
