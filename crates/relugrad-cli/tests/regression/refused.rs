//! What does not fit is refused by name, with what to take instead.

use super::{printed, refusal, relugrad, table, text, trained, with};

#[test]
fn losses_and_samples_that_do_not_fit_are_told_what_does() {
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let (values, classes) = (with(&table, &["price"]), with(&table, &["class"]));
    let out = dir.path().join("run");
    let train = |options: &[&str]| {
        refusal(&[&["train", "--out", text(&out), "--epochs", "1"], options].concat())
    };
    let real = ["--data", text(&values)];
    for (options, parts) in [
        (
            ["--loss", "softmax-cross-entropy"],
            ["softmax-cross-entropy needs classes", "use squared error"],
        ),
        (
            ["--loss", "logistic"],
            ["logistic needs classes", "use squared error"],
        ),
        (
            ["--loss", "squared-eror"],
            [
                "no loss is called `squared-eror`",
                "did you mean `squared-error`?",
            ],
        ),
        (
            ["--loss", "softmax-cross-entropy(smoothing=0.1)"],
            ["no option `smoothing`", "did you mean `label-smoothing`?"],
        ),
        (
            ["--penalties", "cross-lipschitz"],
            [
                "the penalty cross-lipschitz compares classes",
                "take jacobian",
            ],
        ),
        (
            ["--penalties", "maximum-margin-linf"],
            [
                "the penalty maximum-margin-linf",
                "take region-boundary-linf",
            ],
        ),
        (
            ["--adversarial", "apgd-dlr"],
            [
                "apgd-dlr needs 3 classes, but the samples have values",
                "pgd or apgd-ce",
            ],
        ),
        (
            ["--metric", "accuracy"],
            ["early-stopping.metric is accuracy", "take loss"],
        ),
        (
            ["--target-columns", "prize"],
            ["no target column `prize`", "did you mean `price`?"],
        ),
        (
            ["--label-column", "price"],
            ["different labels", "target-columns"],
        ),
    ] {
        let message = train(&[&real[..], &options].concat());
        assert!(
            parts.iter().all(|part| message.contains(part)),
            "{options:?}: {message}"
        );
    }
    let ten = train(&["--loss", "logistic"]);
    assert!(
        ten.contains("the model has 1 logit but digits has 10 classes"),
        "{ten}"
    );
    let both = train(&[
        "--data",
        text(&table),
        "--label-column",
        "kind",
        "--target-columns",
        "price",
    ]);
    assert!(
        both.contains("label-column and target-columns are both given"),
        "{both}"
    );
    let twice = train(&[
        "--data",
        text(&classes),
        "--weight-column",
        "class",
        "--label-column",
        "class",
    ]);
    assert!(twice.contains("named twice"), "{twice}");
    let idle = train(&["--data", text(&classes), "--targets", "y.npy"]);
    assert!(idle.contains("the option targets does not apply"), "{idle}");
    assert!(!out.join("config.toml").exists());
}

#[test]
fn numbers_that_are_none_are_named_by_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.csv");
    let out = dir.path().join("run");
    for (line, part) in [
        ("0.5,nan,1", "line 3, column 1: `nan` is no finite number"),
        ("0.5,inf,1", "line 3, column 1: `inf` is no finite number"),
        (
            "0.5,1e999,1",
            "line 3, column 1: `1e999` is no finite number",
        ),
        ("0.5,0.5,-1", "line 3, column 2: the weight -1 is negative"),
        ("0.5,0.5,nan", "line 3, column 2: `nan` is no finite number"),
        ("0.5,0.5", "fields"),
    ] {
        std::fs::write(&path, format!("x,y,w\n0.25,0.5,1\n{line}\n")).unwrap();
        let given = [
            "train",
            "--out",
            text(&out),
            "--data",
            text(&path),
            "--weight-column",
            "w",
        ];
        for targets in [&["--target-columns", "y"][..], &[]] {
            let message = refusal(&[&given[..], targets].concat());
            assert!(message.contains(part), "{line}: {message}");
        }
    }
    std::fs::write(&path, "x,y,w\n0.25,0.5,0\n0.5,0.25,0\n").unwrap();
    let message = refusal(&[
        "train",
        "--out",
        text(&out),
        "--data",
        text(&path),
        "--weight-column",
        "w",
    ]);
    assert!(
        message.contains("the weights of bad: their sum is 0"),
        "{message}"
    );
}

#[test]
fn models_and_values_of_other_widths_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let (one, two) = (with(&table, &["price"]), with(&table, &["price", "size"]));
    let model = trained(dir.path(), &one, "1", &[]).join("last.safetensors");
    let columns = ["--data", text(&two), "--target-columns", "price,size"];
    for command in ["evaluate", "verify"] {
        let message = refusal(&[&[command, text(&model)], &columns[..]].concat());
        assert!(
            message.contains("the model has 1 logit but price-size has 2 values"),
            "{message}"
        );
    }
    let classes = with(&table, &["class"]);
    let message = refusal(&[
        "evaluate",
        text(&model),
        "--data",
        text(&classes),
        "--loss",
        "softmax-cross-entropy",
    ]);
    assert!(
        message.contains("the model has 1 logit but class has 2 classes"),
        "{message}"
    );
    let penalty = [
        "evaluate",
        text(&model),
        "--data",
        text(&one),
        "--penalties",
        "cross-lipschitz",
    ];
    assert!(refusal(&penalty).contains("take jacobian"));
    let colour = [
        "regions",
        text(&model),
        "--data",
        text(&one),
        "--slice",
        "0,1,2",
        "--colour",
        "class",
    ];
    assert!(refusal(&colour).contains("--colour class needs classes"));
    let smooth = [
        "verify",
        text(&model),
        "--data",
        text(&one),
        "--loss",
        "squared-eror",
    ];
    relugrad(&smooth).assert().code(2);
    let certify = [
        "compare",
        "--data",
        text(&one),
        "--epochs",
        "1",
        "--hidden",
        "4",
        "--certify",
        "5",
    ];
    assert!(refusal(&certify).contains("certified radii are of classes"));
}

#[test]
fn the_help_tells_of_losses_targets_and_attacks() {
    let train = printed(&["train", "--help"]);
    for part in [
        "--target-columns",
        "--weight-column",
        "--loss",
        "½ ‖f − y‖²",
        "label-smoothing=0",
    ] {
        assert!(train.contains(part), "{part}");
    }
    let evaluate = printed(&["evaluate", "--help"]);
    for entry in relugrad_train::attack::ATTACKS {
        assert!(evaluate.contains(entry.title) && evaluate.contains(entry.meaning));
    }
}
