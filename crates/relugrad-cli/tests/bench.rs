//! `relugrad bench` as its users run it.

use approx::assert_abs_diff_eq;
use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command.arg("bench").args(arguments);
    command
}

/// The lines of JSON of a run that succeeds.
fn lines(arguments: &[&str]) -> Vec<Value> {
    let output = bench(arguments)
        .arg("--json")
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let text = String::from_utf8(output).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a run that fails prints to the standard error.
fn failure(arguments: &[&str]) -> String {
    let output = bench(arguments)
        .assert()
        .failure()
        .get_output()
        .stderr
        .clone();
    String::from_utf8(output).unwrap()
}

const ALL: &str = "plain-step,input-gradient-step,jacobian,jacobian-step,cross-lipschitz-step,hvp,hessian-frobenius,\
                   hessian-frobenius-step,cure-step,all-penalties-step,finite-difference-jacobian";

#[test]
fn every_workload_is_timed_and_counted() {
    let found = lines(&[
        "--net",
        "8-12-3",
        "--batch",
        "5",
        "--repeat",
        "2",
        "--workload",
        ALL,
    ]);
    let names: Vec<&str> = found
        .iter()
        .map(|line| line["workload"].as_str().unwrap())
        .collect();
    assert_eq!(names.join(","), ALL);
    for line in &found {
        assert_eq!(line["net"], "8-12-3");
        for number in ["median_ms", "min_ms", "flops", "bytes"] {
            assert!(line[number].as_f64().unwrap() > 0.0, "{line}");
        }
        assert!(line["iqr"].as_f64().unwrap() >= 0.0);
        assert!(line.get("check").is_none());
    }
    // Forward pass, backward pass of the second layer, and weight gradients.
    assert_eq!(found[0]["flops"], 2 * 5 * (132 + 36 + 132));
}

#[test]
fn equal_bits_for_any_number_of_threads_on_a_large_network() {
    let run = |threads: &str| {
        let sizes = [
            "--net",
            "300-400-200-10",
            "--batch",
            "40",
            "--repeat",
            "1",
            "--check",
        ];
        lines(
            &[
                &sizes[..],
                &["--threads", threads, "--workload", &ALL[..ALL.len() - 27]],
            ]
            .concat(),
        )
        .iter()
        .map(|line| line["check"].to_string())
        .collect::<Vec<_>>()
    };
    assert_eq!(run("1"), run("2"));
    assert_eq!(run("2"), run("3"));
}

fn raw(folder: &TempDir, name: &str, bytes: Vec<u8>) {
    std::fs::write(folder.path().join(name), bytes).unwrap();
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A linear network of two features and two logits, one sample.
fn weights() -> TempDir {
    let folder = TempDir::new().unwrap();
    raw(&folder, "w0.bin", floats(&[1.0, 2.0, 3.0, 4.0]));
    raw(&folder, "b0.bin", floats(&[0.0, 0.5]));
    raw(&folder, "x.bin", floats(&[1.0, -1.0]));
    raw(&folder, "y.bin", 1_i64.to_le_bytes().to_vec());
    folder
}

fn with(folder: &TempDir) -> Vec<String> {
    let folder = folder.path().to_str().unwrap();
    let arguments = [
        "--net",
        "2-2",
        "--batch",
        "1",
        "--repeat",
        "1",
        "--workload",
        "jacobian",
        "--weights",
        folder,
    ];
    arguments.map(str::to_owned).to_vec()
}

#[test]
fn raw_weights_give_the_jacobian_that_they_should() {
    let folder = weights();
    let arguments = with(&folder);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--check", "--dtype", "f64"]);
    let check = &lines(&arguments)[0]["check"];
    assert!(check[0].is_null());
    let sum: f64 = (0..4)
        .map(|i| (i + 1) as f64 * (0.7 * i as f64).cos())
        .sum();
    assert_abs_diff_eq!(check[1].as_f64().unwrap(), 30_f64.sqrt(), epsilon = 1e-12);
    assert_abs_diff_eq!(check[2].as_f64().unwrap(), sum, epsilon = 1e-12);
}

#[test]
fn bad_input_is_named() {
    let short = weights();
    raw(&short, "w0.bin", floats(&[1.0]));
    let nan = weights();
    raw(&nan, "x.bin", floats(&[1.0, f32::NAN]));
    let label = weights();
    raw(&label, "y.bin", 2_i64.to_le_bytes().to_vec());
    let missing = weights();
    std::fs::remove_file(missing.path().join("b0.bin")).unwrap();
    let cases = [
        (
            short,
            "w0.bin has 4 bytes, but 4 numbers of 4 bytes are needed",
        ),
        (nan, "x.bin: entry 1 is NaN"),
        (label, "y.bin: labels must be less than 2"),
        (missing, "cannot read"),
    ];
    for (folder, expected) in cases {
        let arguments = with(&folder);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let message = failure(&arguments);
        assert!(message.contains(expected), "{message}");
    }
    let missing = failure(&["--net", "missing.onnx"]);
    assert!(missing.contains("`missing.onnx` is neither a file nor a network"));
    assert!(failure(&["--lambda", "-1"]).contains("at least 0"));
    assert!(failure(&["--step", "-2"]).contains("positive"));
    assert!(failure(&["--net", "4-0-2"]).contains("error"));
    assert!(failure(&["--workload", "jacobain"]).contains("jacobian"));
    assert!(failure(&["--check"]).contains("--json"));
}

#[test]
fn explanations_name_stages_activity_and_rate() {
    let output = bench(&[
        "--net",
        "8-12-3",
        "--batch",
        "5",
        "--repeat",
        "1",
        "--explain",
    ])
    .assert()
    .success()
    .get_output()
    .stdout
    .clone();
    let text = String::from_utf8(output).unwrap();
    for part in [
        "forward pass",
        "cotangents of the Jacobian's rows",
        "of the gates of relu0 are active",
        "of this machine's",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_warm_step_allocates_nothing() {
    for net in ["64-128-128-10", "784-64-32-10", "lenet"] {
        let workloads = "plain-step,input-gradient-step,jacobian-step,cure-step,\
                         cross-lipschitz-step,hessian-frobenius-step,all-penalties-step";
        let (batch, repeat, threads) = (["--batch", "8"], ["--repeat", "3"], ["--threads", "1"]);
        let mut arguments = vec!["--net", net, "--workload", workloads];
        arguments.extend([batch, repeat, threads].concat());
        for line in lines(&arguments) {
            assert_eq!(line["bytes_per_run"], 0, "{net}: {line}");
        }
    }
}
