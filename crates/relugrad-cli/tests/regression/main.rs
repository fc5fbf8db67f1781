//! Values instead of classes, one logit instead of two, and weights, as a user meets them.

mod commands;
mod refused;
mod resumed;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

pub(crate) fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command
        .args(arguments)
        .timeout(std::time::Duration::from_secs(120));
    command
}

/// What a command prints that must succeed.
pub(crate) fn printed(arguments: &[&str]) -> String {
    let output = relugrad(arguments)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    String::from_utf8(output).unwrap()
}

/// What a command prints as JSON.
pub(crate) fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).unwrap()
}

/// What a command that must fail says.
pub(crate) fn refusal(arguments: &[&str]) -> String {
    let output = relugrad(arguments)
        .assert()
        .failure()
        .get_output()
        .stderr
        .clone();
    String::from_utf8(output).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Numbers in `[0, 1)` that look random.
fn noise(i: usize) -> f64 {
    (((i as f64 + 1.0) * 12.9898).sin() * 43_758.545_3).rem_euclid(1.0)
}

/// A table of 160 lines: features `a`, `b`, `c`; a smooth value, a kinked one, a class by words and
/// by number, and a weight.
pub(crate) fn table(folder: &Path) -> PathBuf {
    let mut text = "a,b,price,c,size,kind,class,weight\n".to_owned();
    for i in 0..160 {
        let [a, b, c] = [3 * i, 3 * i + 1, 3 * i + 2].map(noise);
        let (price, size) = (1.5 * a - b + 0.3, (c - a).abs() - 2.0);
        let positive = a + b > 2.0 * c;
        let (kind, class) = if positive { ("cat", 1) } else { ("bird", 0) };
        let weight = f64::from(i % 3 != 0) * (1.0 + a);
        writeln!(text, "{a},{b},{price},{c},{size},{kind},{class},{weight}").unwrap();
    }
    let path = folder.join("things.csv");
    std::fs::write(&path, text).unwrap();
    path
}

/// The table with the features and some other columns, which come last.
pub(crate) fn with(path: &Path, kept: &[&str]) -> PathBuf {
    let text = std::fs::read_to_string(path).unwrap();
    let names: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
    let places: Vec<usize> = ["a", "b", "c"]
        .iter()
        .chain(kept)
        .map(|name| place(name))
        .collect();
    let line = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let kept: Vec<&str> = places.iter().map(|&i| cells[i]).collect();
        kept.join(",") + "\n"
    };
    let other = path.with_file_name(format!("{}.csv", kept.join("-")));
    std::fs::write(&other, text.lines().map(line).collect::<String>()).unwrap();
    other
}

/// Trains a small network for some epochs and returns its folder.
pub(crate) fn trained(folder: &Path, data: &Path, epochs: &str, options: &[&str]) -> PathBuf {
    let out = folder.join("run");
    let given = [
        "train",
        "--out",
        text(&out),
        "--data",
        text(data),
        "--model",
        "mlp:16,16",
    ];
    printed(&[&given[..], &["--lr", "0.01", "--epochs", epochs], options].concat());
    out
}
