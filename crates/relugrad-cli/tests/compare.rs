//! `relugrad compare` run as its user does.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use predicates::prelude::*;
use serde_json::Value;

/// Options for a comparison of about a second.
const QUICK: [&str; 9] = [
    "compare",
    "--epochs",
    "2",
    "--hidden",
    "8",
    "--pgd-steps",
    "2",
    "--attack-samples",
    "50",
];

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.args(arguments);
    command
}

fn quick(arguments: &[&str]) -> Command {
    let mut command = relugrad(&QUICK);
    command.args(arguments);
    command
}

fn path(directory: &Path) -> &str {
    directory.to_str().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = quick(arguments)
        .arg("--json")
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn the_results_hold_the_options_of_the_penalties() {
    let results = json(&[
        "--penalties",
        "cure,jacobian-projected",
        "--cure-step",
        "0.5",
    ]);
    let penalties = results["settings"]["penalties"].as_array().unwrap();
    assert_eq!(penalties[0]["step"], 0.5);
    assert_eq!(penalties[1]["rows"], 1);
    assert!(penalties[1].get("step").is_none());
    let evaluation = &results["runs"][0]["evaluation"];
    assert!(evaluation["attacked_clean_accuracy"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_table_has_a_row_for_each_regularizer() {
    let output = quick(&["--penalties", "jacobian,cure=0.5"])
        .assert()
        .success();
    let table = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    for name in ["none", "jacobian", "cure"] {
        assert!(
            table
                .lines()
                .any(|line| line.trim_start().starts_with(name)),
            "{table}"
        );
    }
    assert!(table.contains("0.5") && table.contains("1.00×"), "{table}");
}

#[test]
fn out_receives_report_numbers_curves_and_models() {
    let directory = tempfile::tempdir().unwrap();
    let out = path(directory.path());
    quick(&["--penalties", "jacobian", "--out", out])
        .assert()
        .success();
    let read = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
    assert!(read("report.html").contains("<svg"));
    assert_eq!(read("curves.csv").lines().count(), 1 + 2 * 2);
    let results: Value = serde_json::from_str(&read("results.json")).unwrap();
    assert_eq!(results["complete"], true);
    assert_eq!(results["runs"].as_array().unwrap().len(), 2);
    for name in ["none", "jacobian"] {
        let file = directory
            .path()
            .join(format!("models/{name}-seed0.safetensors"));
        let (network, _) = relugrad_io::load::<f32>(&file).unwrap();
        assert_eq!((network.inputs(), network.outputs()), (64, 10));
    }
    // The same directory is refused, and left as it is, until it may be replaced.
    let before = read("results.json");
    let refused = quick(&["--penalties", "cure", "--out", out])
        .assert()
        .code(1);
    refused.stderr(predicate::str::contains("--overwrite"));
    assert_eq!(read("results.json"), before);
    quick(&["--penalties", "cure", "--out", out, "--overwrite"])
        .assert()
        .success();
    assert!(
        !directory
            .path()
            .join("models/jacobian-seed0.safetensors")
            .exists()
    );
    assert!(read("results.json").contains("\"cure\""));
}

/// Results without what depends on the clock and the number of threads.
fn timeless(mut results: Value) -> Value {
    for run in results["runs"].as_array_mut().unwrap() {
        run["step_milliseconds"] = Value::Null;
    }
    results["settings"]["threads"] = Value::Null;
    results
}

#[test]
fn equal_seeds_give_equal_results_for_any_number_of_threads() {
    let run = |threads: &str| {
        timeless(json(&[
            "--penalties",
            "curvature-trace",
            "--threads",
            threads,
        ]))
    };
    let one = run("1");
    assert_eq!(one, run("2"));
    assert_eq!(one, run("5"));
    assert_ne!(
        one,
        timeless(json(&[
            "--penalties",
            "curvature-trace",
            "--first-seed",
            "1"
        ]))
    );
}

#[test]
fn several_seeds_show_mean_and_deviation() {
    let arguments = ["--penalties", "input-gradient", "--seeds", "2"];
    quick(&arguments)
        .assert()
        .success()
        .stdout(predicate::str::contains("±"));
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_to_do() {
    let cases: [(&[&str], &str); 18] = [
        (&["--penalties", "jacobain"], "did you mean `jacobian`?"),
        (&["--penalties", "jacobian=-1"], "at least 0"),
        (&["--penalties", "jacobian=x"], "at least 0"),
        (&["--penalties", "jacobian,jacobian=1"], "twice"),
        (&["--hidden", "8,0"], "at least 1"),
        (&["--epochs", "0"], "at least 1"),
        (&["--epsilons", "-0.1"], "at least 0"),
        (&["--cure-step", "nan"], "at least 0"),
        (&["--lr", "0"], "positive"),
        (&["--optimizer", "adma"], "did you mean `adam`"),
        (&["--test-fraction", "1"], "between 0 and 1"),
        (&["--overwrite"], "--out"),
        (&["--unknown"], "--unknown"),
        (&["--hidden", "9999999999999999"], "of memory"),
        (
            &[
                "--penalties",
                "jacobian-projected",
                "--projections",
                "99999999999",
            ],
            "65536",
        ),
        (&["--seeds", "99999999999"], "10000"),
        (
            &["--first-seed", "18446744073709551614", "--seeds", "3"],
            "18446744073709551615 is the last",
        ),
        (&["--threads", "99999"], "1024"),
    ];
    for (arguments, message) in cases {
        let arguments: Vec<&str> = ["compare"].iter().chain(arguments).copied().collect();
        let output = relugrad(&arguments).assert().code(2);
        output.stderr(predicate::str::contains(message));
    }
}

#[test]
fn help_teaches() {
    let help = relugrad(&["compare", "--help"]).assert().success();
    help.stdout(predicate::str::contains("Examples:").and(predicate::str::contains("--penalties")));
}

#[test]
fn missing_or_foreign_data_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nowhere");
    let output = quick(&["--data", path(&missing)]).assert().code(1);
    output.stderr(predicate::str::contains("nowhere"));
    let output = quick(&["--data", path(directory.path())]).assert().code(1);
    output.stderr(predicate::str::contains("train-images-idx3-ubyte"));
    for name in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"] {
        fs::write(directory.path().join(name), b"not an IDX file").unwrap();
    }
    let output = quick(&["--data", path(directory.path())]).assert().code(1);
    output.stderr(predicate::str::contains("IDX"));
}

#[test]
fn an_out_that_cannot_be_a_directory_is_refused_before_training() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    File::create(&file).unwrap();
    let output = quick(&["--out", path(&file.join("below"))])
        .assert()
        .code(1);
    output.stderr(predicate::str::contains("--out").and(predicate::str::contains("[1/").not()));
}

/// Two classes of 4×4 images with the bright half on the left or on the right.
fn write_idx(directory: &Path) {
    for (part, count) in [("train", 40u32), ("t10k", 20)] {
        let labels: Vec<u8> = (0..count as usize).map(|i| (i % 2) as u8).collect();
        let bright = |label: u8, pixel: usize| {
            if (pixel % 4 < 2) == (label == 0) {
                200
            } else {
                20
            }
        };
        let pixels: Vec<u8> = labels
            .iter()
            .flat_map(|&y| (0..16).map(move |p| bright(y, p) + p as u8))
            .collect();
        let mut images = Vec::new();
        for word in [0x803, count, 4, 4] {
            images.extend(word.to_be_bytes());
        }
        images.extend(pixels);
        let mut file = Vec::new();
        for word in [0x801, count] {
            file.extend(word.to_be_bytes());
        }
        file.extend(labels);
        fs::write(directory.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        fs::write(directory.join(format!("{part}-labels-idx1-ubyte")), file).unwrap();
    }
}

#[test]
fn idx_files_work_like_the_digits() {
    let directory = tempfile::tempdir().unwrap();
    write_idx(directory.path());
    let data = path(directory.path());
    let results = json(&[
        "--data",
        data,
        "--penalties",
        "jacobian",
        "--batch-size",
        "4",
    ]);
    assert_eq!(results["settings"]["model"], "mlp:8");
    assert_eq!(results["settings"]["test_samples"], 20);
}

#[test]
fn an_interrupt_keeps_what_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("result");
    let mut child = Process::new(assert_cmd::cargo::cargo_bin("relugrad"))
        .args([
            "compare",
            "--epochs",
            "40",
            "--pgd-steps",
            "2",
            "--attack-samples",
            "50",
        ])
        .args([
            "--penalties",
            "jacobian",
            "--seeds",
            "50",
            "--out",
            path(&out),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !out.join("models/none-seed0.safetensors").exists() {
        assert!(Instant::now() < deadline, "no run was finished");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(
        Process::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let results = fs::read_to_string(out.join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["complete"], false);
    let runs = results["runs"].as_array().unwrap().len();
    let models = fs::read_dir(out.join("models")).unwrap().count();
    assert!((1..100).contains(&runs) && runs == models);
    assert!(
        fs::read_to_string(out.join("report.html"))
            .unwrap()
            .contains("interrupted")
    );
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let mut child = Process::new(assert_cmd::cargo::cargo_bin("relugrad"))
        .args(QUICK)
        .args(["--penalties", "jacobian"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut stderr).unwrap();
    assert!(
        child.wait().unwrap().success() && !stderr.contains("panicked"),
        "{stderr}"
    );
}

/// The results of a comparison without what depends on time.
fn numbers(directory: &Path) -> Value {
    let text = fs::read_to_string(directory.join("results.json")).unwrap();
    let mut results: Value = serde_json::from_str(&text).unwrap();
    for run in results["runs"].as_array_mut().unwrap() {
        run["step_milliseconds"] = 0.into();
    }
    results
}

#[test]
fn an_interrupted_comparison_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, part) = (dir.path().join("whole"), dir.path().join("part"));
    let options = [
        "--penalties",
        "jacobian=0.01:0.1",
        "--adversarial",
        "0.1",
        "--seeds",
        "2",
    ];
    let run = |out: &Path, more: &[&str]| {
        let mut command = quick(&options);
        command.args(["--out", path(out)]).args(more);
        command
    };
    run(&whole, &[]).assert().success();
    for name in [
        "jacobian-0.01-seed0",
        "jacobian-0.1-seed1",
        "pgd-training-seed0",
        "none-seed1",
    ] {
        assert!(
            whole.join(format!("models/{name}.safetensors")).exists(),
            "{name}"
        );
    }
    // What an interrupt after three runs leaves.
    fs::create_dir_all(part.join("models")).unwrap();
    let mut results = numbers(&whole);
    results["runs"].as_array_mut().unwrap().truncate(3);
    results["complete"] = false.into();
    fs::write(part.join("results.json"), results.to_string()).unwrap();
    run(&part, &[])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("--resume"));
    let other = run(&part, &["--resume", "--lr", "0.1"]).assert().code(1);
    other.stderr(
        predicate::str::contains("other settings (").and(predicate::str::contains("learning_rate")),
    );
    run(&part, &["--resume"])
        .assert()
        .success()
        .stderr(predicate::str::contains("[4/8]"));
    assert_eq!(numbers(&part), numbers(&whole));
    fs::write(part.join("results.json"), "{\"runs\"").unwrap();
    run(&part, &["--resume"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("no result"));
}

/// One weight is so large that the training diverges at once; everything else goes on.
#[test]
fn a_run_that_diverges_does_not_end_the_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, part) = (dir.path().join("whole"), dir.path().join("part"));
    let run = |out: &Path, more: &[&str]| {
        let options =
            "--optimizer sgd --lr 0.1 --warmup 0 --penalties jacobian=1000:0.001 --seeds 2";
        let options: Vec<&str> = options.split(' ').collect();
        let mut command = quick(&options);
        command.args(["--out", path(out)]).args(more);
        command
    };
    let output = run(&whole, &[]).assert().code(1);
    let (stdout, stderr) = (&output.get_output().stdout, &output.get_output().stderr);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (table, said) = (text(stdout), text(stderr));
    assert_eq!(
        said.lines().last(),
        Some("error: 2 of 6 runs diverged; the table says which, and where")
    );
    for seed in [0, 1] {
        let line = format!("jacobian λ 1000, seed {seed}, diverged at step ");
        // What is not finite may have a long name, and the line is broken.
        let words: Vec<&str> = table.split_whitespace().collect();
        assert!(words.join(" ").contains(line.trim_end()), "{table}");
    }
    assert!(table.contains("±") && table.contains("0.001"), "{table}");
    let results = numbers(&whole);
    assert_eq!(results["complete"], true);
    assert_eq!(results["runs"].as_array().unwrap().len(), 4);
    let diverged = results["diverged"].as_array().unwrap();
    assert_eq!(diverged.len(), 2);
    assert_eq!(
        (&diverged[1]["seed"], &diverged[1]["number"]),
        (&1.into(), &4.into())
    );
    let step = diverged[0]["step"].as_u64().unwrap();
    assert!(step >= 1 && diverged[0]["epoch"].as_u64().unwrap() >= 1);
    assert!(diverged[0]["quantity"].is_string());
    let models = fs::read_dir(whole.join("models")).unwrap().count();
    assert_eq!(models, 4);
    let page = fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(page.contains("2 of 6 runs diverged") && page.contains("<svg"));

    // Interrupted after the run that diverged, it goes on with the others alone.
    fs::create_dir_all(part.join("models")).unwrap();
    let mut earlier = results.clone();
    earlier["runs"].as_array_mut().unwrap().truncate(1);
    earlier["diverged"].as_array_mut().unwrap().truncate(1);
    earlier["complete"] = false.into();
    fs::write(part.join("results.json"), earlier.to_string()).unwrap();
    let resumed = run(&part, &["--resume"]).assert().code(1);
    let said = text(&resumed.get_output().stderr);
    assert!(said.contains("[3/6]") && !said.contains("[2/6]"), "{said}");
    assert_eq!(numbers(&part), results);
}

#[test]
fn several_data_and_models_have_a_directory_each() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("two.csv");
    let line = |i: usize| format!("{},{},{}", (i * 7) % 10, (i * 3) % 10, (i * 7) % 10 / 5);
    let lines: Vec<String> = (0..200).map(line).collect();
    fs::write(&table, lines.join("\n")).unwrap();
    let config = dir.path().join("how.toml");
    fs::write(
        &config,
        "epochs = 2\n[schedule]\nname = \"cosine\"\n[optimizer]\nname = \"sgd\"\n",
    )
    .unwrap();
    let out = dir.path().join("out");
    relugrad(&[
        "compare",
        "--model",
        "mlp:4",
        "--model",
        "mlp:5,5",
        "--attack-samples",
        "20",
    ])
    .args([
        "--data",
        path(&table),
        "--scale",
        "range",
        "--penalties",
        "jacobian",
    ])
    .args([
        "--config",
        path(&config),
        "--pgd-steps",
        "2",
        "--out",
        path(&out),
    ])
    .assert()
    .success()
    .stdout(predicate::str::contains("two mlp:4").and(predicate::str::contains("two mlp:5,5")));
    let results = numbers(&out.join("two-mlp-5-5"));
    assert_eq!(results["settings"]["optimizer"], "sgd");
    assert_eq!(results["settings"]["epochs"], 2);
    assert!(out.join("two-mlp-4/report.html").exists());
}
