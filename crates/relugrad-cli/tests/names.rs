//! One name for one thing, and what is said of a wrong one.

use std::path::Path;

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command
        .args(arguments)
        .timeout(std::time::Duration::from_secs(120));
    command
}

/// What a command says that succeeds: on its output, and on the standard error.
fn said(arguments: &[&str]) -> (String, String) {
    let output = relugrad(arguments).assert().success();
    let output = output.get_output();
    let own = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (own(&output.stdout), own(&output.stderr))
}

fn refusal(arguments: &[&str]) -> String {
    let output = relugrad(arguments).assert().failure();
    String::from_utf8(output.get_output().stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const COMMANDS: [&str; 11] = [
    "bench",
    "compare",
    "completions",
    "convert",
    "derive",
    "evaluate",
    "inspect",
    "manual",
    "regions",
    "train",
    "verify",
];

#[test]
fn helps_have_the_names_of_now() {
    for (command, names) in [
        (
            "train",
            &[
                "--linf",
                "--l2",
                "--l1",
                "--dtype",
                "--warmup",
                "--ramp",
                "--adversarial",
                "--mean",
                "--box",
            ][..],
        ),
        (
            "compare",
            &[
                "--linf",
                "--l2",
                "--l1",
                "--ramp",
                "--adversarial",
                "--mean",
                "--box",
            ],
        ),
        (
            "evaluate",
            &[
                "--linf", "--l2", "--l1", "--dtype", "--mean", "--std", "--box",
            ],
        ),
        (
            "verify",
            &["--dtype", "--mean", "--std", "--box", "--cure-step"],
        ),
        ("regions", &["--mean", "--std", "--box", "--cure-step"]),
        ("derive", &["--dtype", "--mean", "--std"]),
        ("bench", &["--dtype", "--cure-step"]),
    ] {
        let (help, _) = said(&[command, "--help"]);
        for name in names {
            assert!(help.contains(&format!("{name} <")), "{command} {name}");
        }
        for old in [
            "--double",
            "--precision",
            "--epsilons",
            "--adversarial-epsilon",
            "--step <",
        ] {
            assert!(!help.contains(old), "{command} {old}");
        }
    }
    let (help, _) = said(&["train", "--help"]);
    let help = help.split_whitespace().collect::<Vec<&str>>().join(" ");
    for default in [
        "[default: 30]",
        "[default: 64]",
        "[default: adam]",
        "[default: mlp:128,128]",
        "[default: constant]",
        "[default: 0.1]",
        "[default: f32]",
    ] {
        assert!(help.contains(default), "{default}");
    }
}

#[test]
fn earlier_names_are_understood_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, options: &[&str]| {
        let out = dir.path().join(name);
        let given = [
            "train",
            "--out",
            text(&out),
            "--epochs",
            "1",
            "--model",
            "mlp:4",
        ];
        let (_, told) = said(&[&given[..], options].concat());
        (
            std::fs::read_to_string(out.join("config.toml")).unwrap(),
            told,
        )
    };
    let (old, told) = run(
        "old",
        &[
            "--precision",
            "f64",
            "--adversarial",
            "fgsm",
            "--adversarial-epsilon",
            "1/8",
            "--adversarial-norm",
            "l2",
        ],
    );
    let (new, quiet) = run(
        "new",
        &["--dtype", "f64", "--adversarial", "fgsm", "--l2", "0.125"],
    );
    assert_eq!(old, new);
    assert!(
        told.contains("note: --precision is called --dtype"),
        "{told}"
    );
    assert!(
        told.contains("--adversarial-norm is called --l2 SIZE"),
        "{told}"
    );
    assert!(!quiet.contains("is called"), "{quiet}");
    let (short, _) = run(
        "short",
        &["--adversarial", "pgd=8/255", "--penalties", "none"],
    );
    assert!(
        short.contains("epsilon = 0.03137254901960784") && !short.contains("[[penalties]]"),
        "{short}"
    );
    let model = dir.path().join("new/best.safetensors");
    let quick = [
        "evaluate",
        text(&model),
        "--samples",
        "5",
        "--linf",
        "",
        "--l2",
        "",
        "--certify",
        "0",
        "--penalties",
        "none",
        "--json",
    ];
    let (old, told) = said(&[&quick[..], &["--double"]].concat());
    let (new, _) = said(&[&quick[..], &["--dtype", "f64"]].concat());
    assert_eq!(old, new);
    assert!(
        told.contains("note: --double is called --dtype f64"),
        "{told}"
    );
}

#[test]
fn comparisons_take_sizes_in_every_norm_and_say_where_results_lie() {
    let dir = tempfile::tempdir().unwrap();
    let compare = |name: &str, options: &[&str]| {
        let out = dir.path().join(name);
        let given = [
            "compare",
            "--out",
            text(&out),
            "--epochs",
            "1",
            "--hidden",
            "4",
            "--attack-samples",
            "5",
            "--pgd-steps",
            "2",
        ];
        let (_, told) = said(&[&given[..], options].concat());
        let numbers = std::fs::read_to_string(out.join("results.json")).unwrap();
        (
            told,
            serde_json::from_str::<serde_json::Value>(&numbers).unwrap(),
        )
    };
    let (told, a) = compare(
        "old",
        &[
            "--epsilons",
            "0.1",
            "--warmup",
            "0",
            "--adversarial",
            "0.1",
            "--penalties",
            "jacobian=1/64",
        ],
    );
    for note in [
        "--epsilons is called --linf",
        "--warmup is called --ramp",
        "is written --adversarial pgd=0.1",
    ] {
        assert!(told.contains(note), "{told}");
    }
    let (told, b) = compare(
        "new",
        &[
            "--linf",
            "0.1",
            "--ramp",
            "0",
            "--adversarial",
            "pgd=0.1",
            "--penalties",
            "none,jacobian=1/64",
        ],
    );
    assert_eq!(a["settings"], b["settings"]);
    assert!(told.contains("[2/3] jacobian λ=0.015625, seed 0"), "{told}");
    assert!(told.contains("[3/3] pgd-training ε=0.1, seed 0"), "{told}");
    assert!(
        told.contains("results are in ") && told.contains("report.html"),
        "{told}"
    );
    assert!(
        told.lines()
            .filter(|line| line.starts_with('['))
            .all(|line| line.chars().count() <= 80)
    );
    let (_, c) = compare(
        "none",
        &[
            "--penalties",
            "none",
            "--linf",
            "8/255",
            "--l2",
            "1/2",
            "--l1",
            "2",
        ],
    );
    assert_eq!(c["runs"].as_array().unwrap().len(), 1);
    let attacks = c["settings"]["attacks"].as_array().unwrap().iter();
    let shown = attacks.filter(|attack| attack["headline"] == true);
    let shown: Vec<String> = shown
        .map(|a| format!("{} {}", a["norm"], a["epsilon"]))
        .collect();
    assert_eq!(
        shown,
        ["\"linf\" 0.03137254901960784", "\"l2\" 0.5", "\"l1\" 2.0"]
    );
    let refused = refusal(&["compare", "--adversarial", "fgsm=0.1"]);
    assert!(refused.contains("examples of pgd"), "{refused}");
}

#[test]
fn wrong_names_get_the_near_one_and_wrong_numbers_their_range() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    for (options, words) in [
        (&["--schedule", "cosin"][..], "did you mean `cosine`?"),
        (&["--set", "ramp.name=linaer"], "did you mean `linear`?"),
        (&["--adversarial", "pdg"], "did you mean `pgd`?"),
        (&["--set", "adversarial.method=pdg"], "did you mean `pgd`?"),
        (&["--set", "adversarial.norm=linff"], "did you mean `linf`?"),
        (&["--dtype", "f46"], "did you mean `f64`?"),
        (&["--metric", "acuracy"], "did you mean `accuracy`?"),
        (&["--optimizer", "sgdd"], "did you mean `sgd`?"),
        (&["--penalties", "jacobain"], "did you mean `jacobian`?"),
        (&["--epochs", "-3"], "out of range: it must be at least 1"),
        (&["--seed", "-1"], "out of range: it must be at least 0"),
        (
            &["--lr", "-.5"],
            "out of range: it must be a positive number",
        ),
        (
            &["--clip", "-1/2"],
            "out of range: it must be a positive number",
        ),
        (
            &["--linf", "-8/255"],
            "out of range: it must be a number of at least 0",
        ),
        (&["--threads", "-2"], "-2 is not in 0..=1024"),
    ] {
        let told = refusal(&[&["train", "--out", text(&run)], options].concat());
        assert!(told.contains(words), "{options:?}: {told}");
        assert!(!told.contains("unexpected argument"), "{told}");
    }
    for (command, option) in [
        ("evaluate", "--samples"),
        ("evaluate", "--seed"),
        ("evaluate", "--linf"),
        ("regions", "--measure"),
        ("verify", "--cure-step"),
    ] {
        let told = refusal(&[command, "m.onnx", option, "-1"]);
        assert!(told.contains("out of range"), "{command} {option}: {told}");
    }
    let present = dir.path().join("table.txt");
    std::fs::write(&present, "1,2\n").unwrap();
    let told = refusal(&["train", "--out", text(&run), "--data", text(&present)]);
    assert!(
        told.contains("table.txt is no file of samples by its name")
            && !told.contains("there is no `"),
        "{told}"
    );
    let told = refusal(&["convert", "x.onnx", text(&dir.path().join("none/y.onnx"))]);
    assert!(!told.contains("at path"), "{told}");
}

#[test]
fn every_command_has_completions_and_a_page() {
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef relugrad"),
        ("fish", "complete -c relugrad"),
    ] {
        let (script, _) = said(&["completions", shell]);
        assert!(script.contains(sign));
        assert!(
            COMMANDS.iter().all(|command| script.contains(command)),
            "{shell}"
        );
    }
    relugrad(&["completions", "csh"])
        .assert()
        .code(2)
        .stderr(contains("bash"));
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    said(&["manual", "--out", text(&pages)]);
    for command in COMMANDS {
        let page = std::fs::read_to_string(pages.join(format!("relugrad-{command}.1"))).unwrap();
        assert!(
            page.contains(".TH") && page.contains(".SH SYNOPSIS"),
            "{command}"
        );
        let (printed, _) = said(&["manual", command]);
        assert_eq!(printed, page);
    }
    assert!(pages.join("relugrad.1").exists());
    let again = relugrad(&["manual", "--out", text(&pages)])
        .assert()
        .code(1);
    again.stderr(contains("exists"));
    let unknown = relugrad(&["manual", "tarin"]).assert().code(2);
    unknown.stderr(contains("no command `tarin`").and(contains("train")));
}
