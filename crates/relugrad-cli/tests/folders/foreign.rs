//! Files of somebody else's, or that somebody has changed.

use std::collections::BTreeMap;
use std::fs;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::commands::*;

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

/// Whatever files there are before, and whatever was run there before, no foreign file is ever
/// changed; and a command that is refused changes nothing at all.
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
