//! Models and data as people have them: standardised inputs, other boxes, odd labels, fractions.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use ndarray::{Array1, Array2, Array3};
use ndarray_npy::{NpzReader, NpzWriter, write_npy};
use relugrad::{Mlp, Network};
use relugrad_io::Metadata;
use relugrad_train::data::{Source, Split};
use relugrad_train::evaluate::predicted;
use relugrad_train::{ChannelStatistics, Training, standardised, train};
use serde_json::Value;

fn relugrad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("relugrad").unwrap();
    command
        .args(arguments)
        .timeout(std::time::Duration::from_secs(120));
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a command says that succeeds: on its output, and on the standard error.
fn said(arguments: &[&str]) -> (String, String) {
    let output = relugrad(arguments).assert().success();
    let output = output.get_output();
    let own = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (own(&output.stdout), own(&output.stderr))
}

/// What a command says that is refused.
fn refusal(arguments: &[&str]) -> String {
    let output = relugrad(arguments).assert().failure();
    String::from_utf8(output.get_output().stderr.clone()).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    serde_json::from_str(&said(&arguments).0).unwrap()
}

fn save(network: &Network<f64>, path: PathBuf) -> PathBuf {
    relugrad_io::save(&path, network, &Metadata::new()).unwrap();
    path
}

/// Images of two colours in which the brighter half tells the class.
fn images(folder: &Path) -> PathBuf {
    let pixel = |i: usize, c: usize, p: usize| {
        let noise =
            (((i * 37 + c * 11 + p * 7) as f64 * 12.9898).sin() * 43758.5453).rem_euclid(1.0);
        let bright = (p < 2) == i.is_multiple_of(2);
        (0.4 * noise + if bright { 0.5 } else { 0.1 }) as f32
    };
    let x = Array3::from_shape_fn((120, 2, 4), |(i, c, p)| pixel(i, c, p));
    let x = x.into_shape_with_order((120, 2, 2, 2)).unwrap();
    let y: Array1<i64> = (0..120).map(|i| i % 2).collect();
    let path = folder.join("images.npz");
    let mut archive = NpzWriter::new(std::fs::File::create(&path).unwrap());
    archive.add_array("x", &x).unwrap();
    archive.add_array("y", &y).unwrap();
    archive.finish().unwrap();
    path
}

const MEAN: &str = "0.45,1/2";
const STD: &str = "0.05,0.04";

fn statistics() -> ChannelStatistics {
    let given = ChannelStatistics::given(&[0.45, 0.5], &[0.05, 0.04]);
    given.unwrap().unwrap()
}

/// A network that was trained on standardised images, alone and behind the layer that standardises.
fn normalised(folder: &Path, data: &Path) -> [PathBuf; 2] {
    let split: Split = Source::new(text(data)).load().unwrap();
    let bare = Mlp::new(&[8, 12, 2]).build::<f64>(3).unwrap();
    let mut whole = standardised(&bare, &statistics(), &[2, 2, 2]).unwrap();
    let training = Training {
        epochs: 12,
        learning_rate: 0.01,
        ..Training::default()
    };
    train(&mut whole, &split, &training, &mut ()).unwrap();
    let mut trained = bare;
    let values = whole.parameters().values().to_vec();
    trained
        .parameters_mut()
        .values_mut()
        .copy_from_slice(&values);
    [
        save(&trained, folder.join("bare.safetensors")),
        save(&whole, folder.join("whole.safetensors")),
    ]
}

const QUICK: [&str; 10] = [
    "--linf",
    "8/255",
    "--l2",
    "1/4",
    "--pgd-steps",
    "5",
    "--apgd-steps",
    "5",
    "--certify",
    "5",
];

#[test]
fn a_standardised_model_is_as_good_as_one_that_contains_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let [bare, whole] = normalised(dir.path(), &data);
    let given = ["--mean", MEAN, "--std", STD];
    let evaluate = |model: &Path, more: &[&str]| {
        json(
            &[
                &["evaluate", text(model), "--data", text(&data), "--double"],
                &QUICK[..],
                more,
            ]
            .concat(),
        )
    };
    let (found, expected) = (evaluate(&bare, &given), evaluate(&whole, &[]));
    assert_eq!(found, expected);
    assert!(found["clean"]["share"].as_f64().unwrap() > 0.9, "{found}");
    let (_, hint) = said(
        &[
            &["evaluate", text(&bare), "--data", text(&data)],
            &QUICK[..],
        ]
        .concat(),
    );
    assert!(
        hint.contains("give --mean") || hint.contains("by --mean"),
        "{hint}"
    );
    let (_, quiet) = said(
        &[
            &["evaluate", text(&whole), "--data", text(&data)],
            &QUICK[..],
        ]
        .concat(),
    );
    assert!(!quiet.contains("--mean"), "{quiet}");
    for command in [
        &["regions", "--pairs", "5"][..],
        &["verify", "--samples", "3", "--precision", "f64"],
    ] {
        let of = |model: &Path, more: &[&str]| {
            let mut found = json(&[command, &[text(model), "--data", text(&data)], more].concat());
            found["model"].take();
            found
        };
        assert_eq!(of(&bare, &given), of(&whole, &[]), "{command:?}");
    }
}

#[test]
fn derivatives_are_those_behind_the_first_layer() {
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let [bare, whole] = normalised(dir.path(), &data);
    let input = dir.path().join("x.npy");
    write_npy(
        &input,
        &Array2::from_shape_fn((3, 8), |(i, j)| 0.1 * (i + j) as f64),
    )
    .unwrap();
    let jacobian = |model: &Path, name: &str, more: &[&str]| -> [Array3<f64>; 1] {
        let out = dir.path().join(name);
        let given = [
            "derive",
            text(model),
            "--input",
            text(&input),
            "--out",
            text(&out),
        ];
        said(
            &[
                &given[..],
                &["--parameter-gradients", "loss,jacobian"],
                more,
            ]
            .concat(),
        );
        let mut archive = NpzReader::new(std::fs::File::open(&out).unwrap()).unwrap();
        let _: Array2<f64> = archive.by_name("grad/loss/dense0.weight").unwrap();
        [archive.by_name("jacobian").unwrap()]
    };
    // An input of one axis has no channels: a number for each feature, or one for all.
    let each: Vec<&str> = [["0.45"; 4], ["0.5"; 4]].concat();
    let deviations: Vec<&str> = [["0.05"; 4], ["1/25"; 4]].concat();
    let given = ["--mean", &each.join(","), "--std", &deviations.join(",")];
    assert_eq!(
        jacobian(&bare, "a.npz", &given),
        jacobian(&whole, "b.npz", &[])
    );
}

#[test]
fn trainings_and_comparisons_contain_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let (run, out) = (dir.path().join("run"), dir.path().join("out"));
    let common = [
        "--data",
        text(&data),
        "--epochs",
        "2",
        "--mean",
        MEAN,
        "--std",
        STD,
    ];
    let (_, told) = said(
        &[
            &["train", "--out", text(&run), "--model", "mlp:4"],
            &common[..],
        ]
        .concat(),
    );
    assert!(told.contains("images: 86 training, 10 validation and 24 test samples of 8 features (2x2x2), 2 classes"), "{told}");
    let penalties = [
        "--penalties",
        "jacobian",
        "--hidden",
        "4",
        "--attack-samples",
        "5",
    ];
    let (_, told) = said(
        &[
            &["compare", "--out", text(&out)],
            &penalties[..],
            &common[..],
        ]
        .concat(),
    );
    assert!(
        told.contains("images: 96 training and 24 test samples of 8 features (2x2x2), 2 classes"),
        "{told}"
    );
    let models = [
        run.join("best.safetensors"),
        out.join("models/jacobian-seed0.safetensors"),
    ];
    for model in models {
        let network = relugrad_io::load_model(&model).unwrap().into_network();
        let names: Vec<&str> = network.nodes()[1..3]
            .iter()
            .map(|node| node.operation().name())
            .collect();
        assert_eq!(names, ["shift", "scale"], "{}", model.display());
        assert_eq!(
            network.nodes()[1].constants()[0].values()[0],
            -0.45f32 as f64
        );
    }
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("mean = [0.45, 0.5]"), "{config}");
    let [bare, _] = normalised(dir.path(), &data);
    let started = dir.path().join("started");
    said(
        &[
            &["train", "--out", text(&started), "--start", text(&bare)],
            &common[..],
        ]
        .concat(),
    );
    let network = relugrad_io::load_model(started.join("last.safetensors"))
        .unwrap()
        .into_network();
    assert_eq!(network.nodes()[1].name(), "standardise.mean");
}

/// Inputs of a controller, far outside of `[0, 1]`, with the classes that a network says of them.
fn control(folder: &Path) -> [PathBuf; 2] {
    let network = Mlp::new(&[3, 16, 4]).build::<f64>(11).unwrap();
    let x = Array2::from_shape_fn((30, 3), |(i, j)| {
        ((i * 3 + j) as f64 * 1.7).sin() * 10f64.powi(j as i32) - 3.0
    });
    let x = x.mapv(|x| f64::from(x as f32));
    let y: Array1<i64> = predicted(&network, x.view())
        .unwrap()
        .iter()
        .map(|&y| y as i64)
        .collect();
    let data = folder.join("control.npz");
    let mut archive = NpzWriter::new(std::fs::File::create(&data).unwrap());
    archive.add_array("x", &x).unwrap();
    archive.add_array("y", &y).unwrap();
    archive.finish().unwrap();
    [save(&network, folder.join("control.safetensors")), data]
}

#[test]
fn inputs_outside_the_unit_box_are_taken_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let [model, data] = control(dir.path());
    let given = ["evaluate", text(&model), "--data", text(&data), "--all"];
    let told = refusal(&given);
    assert!(
        told.contains("outside the box [0, 1]") && told.contains("--box data"),
        "{told}"
    );
    for bounds in ["data", "none", "-110,110"] {
        let found = json(&[&given[..], &QUICK, &["--box", bounds]].concat());
        assert_eq!(found["clean"]["count"], 30, "{bounds}");
    }
    let told = refusal(&[&given[..], &["--box", "-1,1"]].concat());
    assert!(
        told.contains("outside the box [-1, 1], and the numbers go from"),
        "{told}"
    );
    let (_, told) = said(&[&given[..], &QUICK, &["--scale", "range"]].concat());
    assert!(
        told.contains("have become 0 to 1") && told.contains("--box data"),
        "{told}"
    );
    for wrong in ["1,-1", "1", "unit", "0,nan"] {
        let told = refusal(&[&given[..], &["--box", wrong]].concat());
        assert!(
            told.contains("two growing numbers such as -1,1, data or none"),
            "{told}"
        );
    }
    let run = dir.path().join("run");
    said(&[
        "train",
        "--out",
        text(&run),
        "--data",
        text(&data),
        "--box",
        "data",
        "--epochs",
        "2",
        "--adversarial",
        "pgd",
    ]);
}

/// Perturbed inputs reach beyond `[0, 1]` where the box does, and never beyond the box.
#[test]
fn attacks_stay_in_the_box() {
    let dir = tempfile::tempdir().unwrap();
    let [model, data] = control(dir.path());
    let examples = |bounds: &str| -> Array2<f64> {
        let out = dir.path().join(bounds);
        let given = [
            "evaluate",
            text(&model),
            "--data",
            text(&data),
            "--all",
            "--double",
            "--box",
            bounds,
        ];
        let sizes = [
            "--linf",
            "20",
            "--l2",
            "",
            "--certify",
            "0",
            "--out",
            text(&out),
        ];
        said(&[&given[..], &sizes].concat());
        let mut archive =
            NpzReader::new(std::fs::File::open(out.join("adversarial.npz")).unwrap()).unwrap();
        archive.by_name("linf_20").unwrap()
    };
    let x: Array2<f32> = NpzReader::new(std::fs::File::open(&data).unwrap())
        .unwrap()
        .by_name::<ndarray::OwnedRepr<f64>, _>("x")
        .unwrap()
        .mapv(|x| x as f32);
    let (inside, free) = (examples("data"), examples("none"));
    let mut beyond = 0;
    for ((column, a), b) in x
        .columns()
        .into_iter()
        .zip(inside.columns())
        .zip(free.columns())
    {
        let low = column.iter().copied().fold(f32::INFINITY, f32::min);
        let high = column.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let holds = |x: &f64| (f64::from(low)..=f64::from(high)).contains(x);
        assert!(a.iter().all(holds));
        beyond += b.iter().filter(|x| !holds(x)).count();
    }
    assert!(beyond > 0);
}

#[test]
fn impossible_statistics_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let [bare, _] = normalised(dir.path(), &data);
    let run = dir.path().join("run");
    for (mean, std, words) in [
        (
            "0.1,0.2,0.3",
            "1",
            "there are 3 numbers in mean for inputs of shape [2, 2, 2]; give 1 for all or 2, one for each channel",
        ),
        (
            "0.1",
            "0.5,0",
            "std of channel 1 is 0; it must be positive and finite",
        ),
        ("0.1", "-0.5", "std of channel 0 is -0.5"),
        ("0.1", "nan", "it must be a number"),
        ("nan,1", "1", "it must be a number"),
        ("x", "1", "it must be a number"),
    ] {
        let given = ["--data", text(&data), "--mean", mean, "--std", std];
        for command in [
            vec!["evaluate", text(&bare)],
            vec!["verify", text(&bare)],
            vec!["train", "--out", text(&run)],
        ] {
            let told = refusal(&[&command[..], &given].concat());
            assert!(told.contains(words), "{command:?}: {told}");
        }
    }
    let told = refusal(&[
        "evaluate",
        text(&bare),
        "--data",
        text(&data),
        "--mean",
        "0.1",
    ]);
    assert!(told.contains("--std"), "{told}");
    let told = refusal(&[
        "train",
        "--out",
        text(&run),
        "--data",
        text(&data),
        "--std",
        "0.1",
    ]);
    assert!(told.contains("std is given without mean"), "{told}");
    assert!(!run.join("config.toml").exists());
}

#[test]
fn labels_with_gaps_and_missing_batches_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("gaps.csv");
    let lines: Vec<String> = (0..60)
        .map(|i| format!("0.{i:02},{}", [1, 2, 7][i % 3]))
        .collect();
    std::fs::write(&table, lines.join("\n")).unwrap();
    let run = dir.path().join("run");
    let (_, told) = said(&[
        "train",
        "--out",
        text(&run),
        "--data",
        text(&table),
        "--epochs",
        "1",
        "--model",
        "mlp:4",
    ]);
    assert!(
        told.contains("3 classes: 0 is the label 1, 1 is 2, 2 is 7"),
        "{told}"
    );
    let model = run.join("best.safetensors");
    let network = relugrad_io::load_model(&model).unwrap().into_network();
    assert_eq!(network.outputs(), 3);
    // A network of ten classes knows the labels by their numbers.
    let wide = save(
        &Mlp::new(&[1, 4, 10]).build(0).unwrap(),
        dir.path().join("wide.safetensors"),
    );
    let out = dir.path().join("out");
    said(
        &[
            &[
                "evaluate",
                text(&wide),
                "--data",
                text(&table),
                "--all",
                "--out",
                text(&out),
            ],
            &QUICK[..],
        ]
        .concat(),
    );
    let csv = std::fs::read_to_string(out.join("samples.csv")).unwrap();
    let labels: Vec<&str> = csv
        .lines()
        .skip(1)
        .take(3)
        .map(|line| line.split(',').nth(1).unwrap())
        .collect();
    assert_eq!(labels, ["1", "2", "7"]);
    let cifar = dir.path().join("cifar");
    std::fs::create_dir(&cifar).unwrap();
    let records: Vec<u8> = (0..40u8)
        .flat_map(|i| [vec![i % 10], vec![i; 3072]].concat())
        .collect();
    for name in ["data_batch_1.bin", "data_batch_3.bin", "test_batch.bin"] {
        std::fs::write(cifar.join(name), &records).unwrap();
    }
    let (_, told) = said(&[
        "compare",
        "--data",
        text(&cifar),
        "--epochs",
        "1",
        "--hidden",
        "2",
        "--penalties",
        "jacobian",
        "--attack-samples",
        "2",
    ]);
    assert!(
        told.contains("without data_batch_2.bin, data_batch_4.bin, data_batch_5.bin"),
        "{told}"
    );
}

#[test]
fn fractions_are_numbers_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let words = "epochs = 1\nmodel = \"mlp:4\"\nlearning-rate = \"1/128\"\nmean = \"1/2\"\nstd = [\"1/4\"]\n[adversarial]\nepsilon = \"8/255\"\n\
                 [optimizer]\nname = \"adamw\"\nweight-decay = \"1/64\"\n[[penalties]]\nname = \"cure\"\nlambda = \"1/8\"\nstep = \"3/2\"\n";
    std::fs::write(&config, words).unwrap();
    let run = dir.path().join("run");
    said(&[
        "train",
        "--out",
        text(&run),
        "--config",
        text(&config),
        "--set",
        "schedule.warmup=1/2",
        "--clip",
        "5/4",
    ]);
    let written = std::fs::read_to_string(run.join("config.toml")).unwrap();
    for line in [
        "learning-rate = 0.0078125",
        "mean = [0.5]",
        "std = [0.25]",
        "epsilon = 0.03137254901960784",
        "weight-decay = 0.015625",
        "lambda = 0.125",
        "step = 1.5",
        "warmup = 0.5",
        "clip = 1.25",
    ] {
        assert!(written.contains(line), "{line}: {written}");
    }
    let model = run.join("best.safetensors");
    let quick = [
        "--samples",
        "5",
        "--l2",
        "",
        "--certify",
        "0",
        "--pgd-steps",
        "2",
        "--apgd-steps",
        "2",
    ];
    let linf =
        |sizes: &str| json(&[&["evaluate", text(&model), "--linf", sizes], &quick[..]].concat());
    assert_eq!(linf("8/255"), linf("0.03137254901960784"));
    for (option, value) in [
        ("--lr", "1/0"),
        ("--clip", "-1/2"),
        ("--lr", "1/2/3"),
        ("--weight-decay", "a/2"),
    ] {
        let told = refusal(&["train", "--out", text(&run), option, value]);
        assert!(
            told.contains("it must be") || told.contains("it is out of range"),
            "{told}"
        );
    }
}
