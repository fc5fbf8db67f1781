//! `relugrad compare` in shards: joined, they are what one process writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use predicates::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

/// Options for ten runs in about a second.
const QUICK: &str = "--epochs 1 --hidden 4 --pgd-steps 1 --pgd-restarts 1 --attack-samples 20 \
    --penalties jacobian=0.01:0.1,cure --adversarial 0.1 --seeds 2";

fn relugrad(arguments: &str) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.arg("compare").args(arguments.split_whitespace());
    command
}

fn shard(options: &str, number: usize, of: usize, out: &Path) -> Command {
    let mut command = relugrad(options);
    command.arg("--shard").arg(format!("{number}/{of}"));
    command.arg("--out").arg(out);
    command
}

fn merge(folders: &[&Path], out: &Path) -> Command {
    let mut command = relugrad("--merge");
    command.args(folders).arg("--out").arg(out);
    command
}

/// All files below a folder but the shards' and the lists of files, without the times of steps: the
/// only numbers of a comparison that differ when it is made twice.
fn timeless(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !name.starts_with("shard-") {
                folders.push(path);
            } else if path.is_file() && name != "relugrad-manifest.json" {
                let bytes = masked(&name, fs::read(&path).unwrap());
                files.insert(path.strip_prefix(folder).unwrap().to_owned(), bytes);
            }
        }
    }
    assert!(!files.is_empty());
    files
}

fn masked(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    let between = |text: &str, begin: &str, end: char| {
        let mut parts = text.split(begin);
        let mut masked = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            masked += begin;
            masked += &part[part.find(end).unwrap()..];
        }
        masked
    };
    match name {
        "results.json" => {
            let text = String::from_utf8(bytes).unwrap();
            between(&text, "\"step_milliseconds\": ", '\n').into_bytes()
        }
        "report.html" => {
            let text = String::from_utf8(bytes).unwrap();
            let cells = text.split("<td class=\"\">");
            let cells = cells.map(|cell| match cell.split_once("×</td>") {
                Some((time, rest)) if time.parse::<f64>().is_ok() => format!("×</td>{rest}"),
                _ => cell.to_owned(),
            });
            cells
                .collect::<Vec<_>>()
                .join("<td class=\"\">")
                .into_bytes()
        }
        _ => bytes,
    }
}

fn output(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

fn whole(options: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut command = relugrad(options);
    command.arg("--out").arg(directory.path()).output().unwrap();
    directory
}

#[test]
fn every_division_is_joined_into_what_one_process_writes() {
    let whole = whole(QUICK);
    let expected = timeless(whole.path());
    assert_eq!(expected.len(), 3 + 10);
    for of in [1, 2, 3, 7, 12] {
        let out = tempfile::tempdir().unwrap();
        // In any order, with any number of threads.
        for number in (1..=of).rev() {
            let mut command = shard(QUICK, number, of, out.path());
            let threads = (number % 3 + 1).to_string();
            let own = (10 + of - number) / of;
            let said = match own {
                0 => "it has none of the 10 runs".to_owned(),
                _ => format!("is done: {own} of the 10 runs are in"),
            };
            let done = command.args(["--threads", &threads]).assert().success();
            done.stdout(
                predicate::str::contains(said).and(predicate::str::contains("compare --merge ")),
            );
        }
        let merged = out.path().join("merged");
        merge(&[out.path()], &merged).assert().success();
        let mut found = timeless(&merged);
        let threads = |text: &[u8], threads: usize| {
            let text = String::from_utf8(text.to_vec()).unwrap();
            assert!(text.contains(&format!("\"threads\": {threads}")), "{of}");
            let lines = text.lines().filter(|line| !line.contains("\"threads\""));
            lines.collect::<Vec<_>>().join("\n")
        };
        let results = Path::new("results.json");
        let processors = std::thread::available_parallelism().unwrap().get();
        assert_eq!(
            threads(&found[results], (1..=of).map(|n| n % 3 + 1).max().unwrap()),
            threads(&expected[results], processors)
        );
        for name in [results, Path::new("report.html")] {
            found.remove(name);
        }
        let rest = expected
            .iter()
            .filter(|(name, _)| found.contains_key(*name));
        assert_eq!(rest.clone().count(), 1 + 10);
        assert!(rest.into_iter().all(|(name, bytes)| found[name] == *bytes));
    }
}

/// With equal numbers of threads every byte is the same, also in the folder of the shards, and also
/// what is printed.
#[test]
fn the_page_and_the_table_are_the_same_too() {
    let whole = whole(QUICK);
    let out = tempfile::tempdir().unwrap();
    for number in 1..=3 {
        shard(QUICK, number, 3, out.path()).assert().success();
    }
    let (table, _) = output(&mut merge(&[out.path()], out.path()));
    assert!(timeless(out.path()) == timeless(whole.path()));
    assert!(
        table.contains("pgd-training") && table.contains("1.00×"),
        "{table}"
    );
    let manifest = |folder: &Path| fs::read_to_string(folder.join("relugrad-manifest.json"));
    let lines = |folder: &Path| manifest(folder).unwrap().lines().count();
    assert_eq!(lines(out.path()), lines(whole.path()));
    // What is there stays unless asked, and the shards are never replaced.
    let again = merge(&[out.path()], out.path()).assert().code(1);
    again.stderr(predicate::str::contains("--overwrite"));
    merge(&[out.path()], out.path())
        .arg("--overwrite")
        .assert()
        .success();
    let own = out.path().join("shard-1-of-3");
    let mut over = merge(&[out.path()], &own);
    over.arg("--overwrite").assert().code(1);
    assert!(timeless(out.path()) == timeless(whole.path()));
    // A merged comparison is a comparison: nothing is left to go on with.
    let mut resumed = relugrad(QUICK);
    resumed.arg("--resume").arg("--out").arg(out.path());
    resumed
        .assert()
        .success()
        .stderr(predicate::str::contains("[").not());
}

#[test]
fn runs_that_diverge_are_joined_like_others() {
    let options =
        format!("{QUICK} --optimizer sgd --lr 0.1 --warmup 0 --penalties jacobian=1000:0.001");
    let options = options.replacen("--penalties jacobian=0.01:0.1,cure ", "", 1);
    let whole = whole(&options);
    let out = tempfile::tempdir().unwrap();
    for number in 1..=4 {
        shard(&options, number, 4, out.path()).assert().success();
    }
    let merged = out.path().join("merged");
    merge(&[out.path()], &merged)
        .assert()
        .code(1)
        .stderr(predicate::str::contains("2 of 8 runs diverged"));
    assert!(timeless(&merged) == timeless(whole.path()));
}

#[test]
fn several_comparisons_are_divided_as_one() {
    let options = QUICK.replace("--hidden 4", "--model mlp:4 --model mlp:5");
    let options = options
        .replace("=0.01:0.1,cure", "")
        .replace("--seeds 2", "--seeds 1");
    let whole = whole(&options);
    let out = tempfile::tempdir().unwrap();
    let merged = out.path().join("merged");
    for number in [1, 3, 4] {
        shard(&options, number, 4, out.path()).assert().success();
    }
    let missing = merge(&[out.path()], &merged).assert().code(1);
    missing.stderr(predicate::str::contains("2 of the 6 runs are missing"));
    shard(&options, 2, 4, out.path()).assert().success();
    // Two of the shards have two runs, the others one.
    let runs = |number: usize| {
        let folder = out.path().join(format!("shard-{number}-of-4"));
        let of = |name: &str| {
            results(&folder.join(name))["runs"]
                .as_array()
                .unwrap()
                .len()
        };
        of("digits-mlp-4") + of("digits-mlp-5")
    };
    assert_eq!([1, 2, 3, 4].map(runs), [2, 2, 1, 1]);
    merge(&[out.path()], &merged).assert().success().stdout(
        predicate::str::contains("digits mlp:4").and(predicate::str::contains("digits mlp:5")),
    );
    assert!(timeless(&merged) == timeless(whole.path()));
    for number in 1..=4 {
        let folder = out.path().join(format!("shard-{number}-of-4/digits-mlp-5"));
        fs::remove_dir_all(folder).unwrap();
    }
    let refused = merge(&[out.path()], &out.path().join("other"))
        .assert()
        .code(1);
    refused.stderr(predicate::str::contains("a command with 6 runs"));
}

fn results(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("results.json")).unwrap()).unwrap()
}

fn spawn(options: &str, number: usize, of: usize, out: &Path) -> Child {
    Process::new(assert_cmd::cargo::cargo_bin("relugrad"))
        .arg("compare")
        .args(options.split_whitespace())
        .args(["--shard", &format!("{number}/{of}"), "--resume", "--out"])
        .arg(out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_shard_is_named_and_goes_on() {
    let options = QUICK.replace("--epochs 1 ", "--epochs 20 ");
    let whole = whole(&options);
    let (out, merged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut killed = spawn(&options, 1, 2, out.path());
    let folder = out.path().join("shard-1-of-2");
    let begun = || folder.join("models/none-seed0.safetensors").exists();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !begun() {
        assert!(Instant::now() < deadline, "no run was finished");
        std::thread::sleep(Duration::from_millis(2));
    }
    // Another process of the same shard is refused and hurts nobody.
    let second = shard(&options, 1, 2, out.path()).arg("--resume").assert();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = results(&folder);
    let done = before["runs"].as_array().unwrap().len();
    if done < 5 {
        second.code(1).stderr(predicate::str::contains("in use"));
    }
    shard(&options, 2, 2, out.path()).assert().success();
    if done < 5 {
        let problem = format!("{} of the 10 runs are missing", 5 - done);
        let command = format!("--shard 1/2 --out {} --resume", out.path().display());
        let refused = merge(&[out.path()], merged.path()).assert().code(1);
        refused.stderr(predicate::str::contains(problem).and(predicate::str::contains(command)));
        let kept = shard(&options, 1, 2, out.path()).assert().code(1);
        kept.stderr(predicate::str::contains("--resume"));
        let go_on = shard(&options, 1, 2, out.path()).arg("--resume").assert();
        go_on
            .success()
            .stderr(predicate::str::contains(format!("[{}/5]", done + 1)));
    }
    merge(&[out.path()], merged.path()).assert().success();
    assert!(timeless(merged.path()) == timeless(whole.path()));
}

/// Folders apart, as on machines that share none.
struct Apart(TempDir);

impl Apart {
    fn new(of: usize) -> Apart {
        let apart = Apart(tempfile::tempdir().unwrap());
        for number in 1..=of {
            shard(QUICK, number, of, &apart.out(number))
                .assert()
                .success();
        }
        apart
    }

    fn out(&self, number: usize) -> PathBuf {
        self.0.path().join(format!("machine {number}"))
    }

    fn merged(&self, numbers: &[usize], more: &[&Path]) -> (bool, String) {
        let outs: Vec<PathBuf> = numbers.iter().map(|&number| self.out(number)).collect();
        let folders: Vec<&Path> = outs
            .iter()
            .map(PathBuf::as_path)
            .chain(more.iter().copied())
            .collect();
        let output = merge(&folders, &self.0.path().join("merged"))
            .output()
            .unwrap();
        let made = self.0.path().join("merged/results.json").exists();
        assert_eq!(made, output.status.success());
        (made, String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn what_does_not_fit_together_is_refused_by_name() {
    let apart = Apart::new(3);
    let refused = |numbers: &[usize], more: &[&Path], words: &[&str]| {
        let (made, said) = apart.merged(numbers, more);
        assert!(
            !made && words.iter().all(|word| said.contains(word)),
            "{said}"
        );
    };
    refused(
        &[1, 3],
        &[],
        &[
            "3 of the 10",
            "--shard 2/3",
            "jacobian 0.1, seed 0; none, seed 1",
        ],
    );
    refused(&[2], &[], &["7 of the 10", "--shard 1/3", "--shard 3/3"]);
    let nowhere = apart.0.path().join("nowhere");
    refused(&[1, 2, 3], &[&nowhere], &["nowhere"]);
    fs::create_dir(&nowhere).unwrap();
    refused(&[1, 2, 3], &[&nowhere], &["nowhere", "no shard"]);
    let whole = whole(QUICK);
    refused(&[1, 2, 3], &[whole.path()], &["a whole comparison"]);
    for (change, key) in [
        ("--lr 0.1", "learning_rate"),
        ("--cure-step 0.5", "penalties"),
        ("--first-seed 5", "seeds"),
        ("--test-fraction 0.5", "data_checksums"),
        ("--epsilons 0.3", "attacks"),
    ] {
        let other = tempfile::tempdir().unwrap();
        let options = format!("{QUICK} {change}");
        shard(&options, 2, 3, other.path()).assert().success();
        refused(&[1, 3], &[other.path()], &["another comparison", key]);
        // Nor can it be gone on with.
        let resumed = shard(QUICK, 2, 3, other.path())
            .arg("--resume")
            .assert()
            .code(1);
        resumed.stderr(predicate::str::contains("other settings"));
    }
    // The same folder twice, and once more from within, is the same folder.
    let within = apart.out(1).join("shard-1-of-3");
    assert!(apart.merged(&[1, 2, 3, 2], &[&within]).0);
}

#[test]
fn copies_count_once_and_other_results_of_one_run_are_refused() {
    let apart = Apart::new(2);
    // Some of the runs again, and divided otherwise.
    let again = tempfile::tempdir().unwrap();
    for number in [1, 4] {
        shard(QUICK, number, 5, again.path()).assert().success();
    }
    let path = again.path().join("shard-4-of-5");
    let text = fs::read_to_string(path.join("results.json")).unwrap();
    let changed = text.replacen("\"clean_accuracy\": 0.", "\"clean_accuracy\": 0.0", 1);
    assert_ne!(text, changed);
    relist(&path, &changed);
    let (made, said) = apart.merged(&[1, 2], &[again.path()]);
    assert!(
        !made && said.contains("different results of one run"),
        "{said}"
    );
    assert!(said.contains("shard-4-of-5"), "{said}");
    relist(&path, &text);
    let whole = whole(QUICK);
    assert!(apart.merged(&[1, 2], &[again.path()]).0);
    assert!(timeless(&apart.0.path().join("merged")) == timeless(whole.path()));
}

/// Writes results as if their process had, with the list of files.
fn relist(folder: &Path, results: &str) {
    fs::write(folder.join("results.json"), results).unwrap();
    let path = folder.join("relugrad-manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["files"]["compare"]["results.json"] = serde_json::json!([{
        "bytes": results.len(),
        "crc32c": format!("{:08x}", crc32c(results.as_bytes())),
    }]);
    fs::write(path, manifest.to_string()).unwrap();
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _: u32| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1));
    !bytes
        .iter()
        .fold(!0, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), step))
}

#[test]
fn damaged_files_are_named_and_nothing_is_written() {
    let apart = Apart::new(2);
    let folder = apart.out(2).join("shard-2-of-2");
    let files = [
        "results.json",
        "models/none-seed1.safetensors",
        "relugrad-manifest.json",
    ];
    for file in files {
        let path = folder.join(file);
        let bytes = fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 4;
        let damages = [
            Some(flipped),
            Some(bytes[..bytes.len() / 2].to_vec()),
            Some(Vec::new()),
            None,
        ];
        for damage in damages {
            match &damage {
                Some(damage) => fs::write(&path, damage).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let (made, said) = apart.merged(&[1, 2], &[]);
            assert!(!made && said.lines().count() == 1, "{said}");
            let shown = folder.display().to_string();
            let shown = if damage.is_none() && file == "results.json" {
                "machine 2"
            } else {
                &shown
            };
            assert!(said.contains(shown), "{said}");
            fs::write(&path, &bytes).unwrap();
        }
    }
    assert!(apart.merged(&[1, 2], &[]).0);
}

#[test]
fn wrong_usage_says_what_would_be_right() {
    let cases = [
        ("--shard 0/3 --out x", "counted from 1"),
        ("--shard 4/3 --out x", "the last is 3/3"),
        ("--shard 3 --out x", "such as 3/20"),
        ("--shard a/b --out x", "such as 3/20"),
        ("--shard 1/2", "--out"),
        ("--shard 1/2 --merge x --out x", "cannot be used with"),
        ("--merge x --seeds 2", "cannot be used with"),
        ("--merge x --data digits", "cannot be used with"),
        ("--merge x --out y --resume", "cannot be used with"),
        ("--merge x --epochs 3", "leave that option out"),
        ("--merge x --test-fraction 0.5", "leave that option out"),
        ("--merge", "--merge"),
        ("--adversarial 0.1,0.1", "compared twice"),
    ];
    for (arguments, message) in cases {
        let refused = relugrad(arguments).assert().code(2);
        refused.stderr(predicate::str::contains(message));
    }
}
