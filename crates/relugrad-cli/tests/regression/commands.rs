//! Every command on values, on one logit, and with weights.

use super::{json, printed, table, text, trained, with};
use approx::assert_abs_diff_eq;

#[test]
fn a_regression_is_trained_from_a_table_and_told_by_its_errors() {
    let dir = tempfile::tempdir().unwrap();
    let data = with(&table(dir.path()), &["price"]);
    let out = dir.path().join("run");
    let common = [
        "train",
        "--data",
        text(&data),
        "--model",
        "mlp:16,16",
        "--lr",
        "0.01",
    ];
    let options = [
        "--epochs",
        "40",
        "--out",
        text(&out),
        "--target-columns",
        "price",
        "--tensorboard",
        "--json",
    ];
    let found = json(&[&common[..], &options].concat());
    let test = &found["best_test"];
    assert!(test["r2"].as_f64().unwrap() > 0.97, "{found}");
    let (mse, loss) = (
        test["mse"].as_f64().unwrap(),
        test["loss"].as_f64().unwrap(),
    );
    assert!((loss / (0.5 * mse) - 1.0).abs() < 1e-5, "{found}");
    assert!(test.get("accuracy").is_none() && found["doubts"].as_array().unwrap().is_empty());
    let metrics = std::fs::read_to_string(out.join("metrics.csv")).unwrap();
    let heading = metrics.lines().next().unwrap();
    assert_eq!(
        heading,
        "epoch,step,learning_rate,train_loss,train_mse,train_r2,validation_loss,validation_mse,validation_r2,best"
    );
    // The best checkpoint is that of the least loss on the validation samples.
    let lines = metrics
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>());
    let epochs: Vec<(f64, bool)> = lines
        .map(|cells| (cells[6].parse().unwrap(), cells[9] == "1"))
        .collect();
    let least = epochs
        .iter()
        .map(|epoch| epoch.0)
        .fold(f64::INFINITY, f64::min);
    assert_eq!(epochs.iter().rfind(|epoch| epoch.1).unwrap().0, least);
    let events = std::fs::read_dir(&out).unwrap().flatten();
    let mut events = events.filter(|file| file.file_name().to_string_lossy().starts_with("events"));
    let events = std::fs::read(events.next().unwrap().path()).unwrap();
    for tag in ["mse/train", "r2/validation"] {
        assert!(events.windows(tag.len()).any(|part| part == tag.as_bytes()));
    }
    // What is said is what is chosen, but for the options that the file keeps.
    let said = dir.path().join("said");
    let options = [
        "--epochs",
        "40",
        "--out",
        text(&said),
        "--loss",
        "squared-error",
        "--json",
    ];
    let again = json(&[&common[..], &options].concat());
    assert_eq!(again["best_test"], *test);
    let plain = printed(&["train", "--resume", text(&said), "--epochs", "41"]);
    assert!(
        plain.contains("test MSE ") && plain.contains(", R² 0.9"),
        "{plain}"
    );
}

#[test]
fn arrays_are_the_same_as_the_table() {
    use ndarray::{Array1, Array2};
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let both = with(&table, &["price", "size"]);
    let content = std::fs::read_to_string(&both).unwrap();
    let cells = content.lines().skip(1).flat_map(|line| line.split(','));
    let numbers: Vec<f64> = cells.map(|cell| cell.parse().unwrap()).collect();
    let all = Array2::from_shape_vec((160, 5), numbers).unwrap();
    let (x, y) = (
        all.select(ndarray::Axis(1), &[0, 1, 2]),
        all.select(ndarray::Axis(1), &[3, 4]),
    );
    let [npy, targets, npz] = ["x.npy", "y.npy", "both.npz"].map(|name| dir.path().join(name));
    ndarray_npy::write_npy(&npy, &x).unwrap();
    ndarray_npy::write_npy(&targets, &y).unwrap();
    let mut archive = ndarray_npy::NpzWriter::new(std::fs::File::create(&npz).unwrap());
    archive.add_array("x", &x).unwrap();
    archive.add_array("y", &y).unwrap();
    archive
        .add_array("weights", &Array1::from_elem(160, 2.0))
        .unwrap();
    archive.finish().unwrap();
    let train = |name: &str, options: &[&str]| {
        let out = dir.path().join(name);
        let common = [
            "train",
            "--out",
            text(&out),
            "--model",
            "mlp:8",
            "--epochs",
            "3",
            "--json",
        ];
        json(&[&common[..], options].concat())["last_test"].clone()
    };
    let from_table = train(
        "a",
        &["--data", text(&both), "--target-columns", "price,size"],
    );
    let from_array = train("b", &["--data", text(&npy), "--targets", text(&targets)]);
    let from_archive = train("c", &["--data", text(&npz)]);
    assert_eq!(from_table, from_array);
    // Equal weights change nothing but roundings.
    for key in ["loss", "mse", "r2"] {
        let [a, b] = [&from_table, &from_archive].map(|found| found[key].as_f64().unwrap());
        assert!((a - b).abs() < 1e-4 * a.abs(), "{key}: {a} {b}");
    }
}

#[test]
fn every_command_takes_a_regression() {
    let dir = tempfile::tempdir().unwrap();
    let data = with(&table(dir.path()), &["price"]);
    let data = ["--data", text(&data), "--target-columns", "price"];
    let run = trained(
        dir.path(),
        std::path::Path::new(data[1]),
        "40",
        &["--penalties", "jacobian=0.001"],
    );
    let model = run.join("best.safetensors");
    let of_model = |command: &[&str], options: &[&str]| {
        let given = [command, &[text(&model)], &data, options].concat();
        printed(&given)
    };
    let quick = [
        "--linf",
        "0.05,0.1",
        "--l2",
        "",
        "--pgd-restarts",
        "2",
        "--apgd-steps",
        "20",
    ];
    let shown = of_model(&["evaluate"], &quick);
    for part in [
        "MSE",
        "R²",
        "left out: the attack apgd-dlr needs 3 classes",
        "left out: DeepFool",
        "left out: certificates",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let out = dir.path().join("evaluation");
    let more = [&quick[..], &["--json", "--out", text(&out)]].concat();
    let found: serde_json::Value = serde_json::from_str(&of_model(&["evaluate"], &more)).unwrap();
    let names = |attack: &serde_json::Value| attack["name"].as_str().unwrap().to_owned();
    let attacks = found["attacks"].as_array().unwrap();
    let names: Vec<String> = attacks.iter().map(|a| names(&a["attack"])).collect();
    assert_eq!(names[..5], ["noise", "FGSM", "PGD", "PGD", "APGD-CE"]);
    let loss = |attack: &serde_json::Value| attack["fit"]["loss"].as_f64().unwrap();
    let clean = found["attacked_clean"]["loss"].as_f64().unwrap();
    for ball in attacks.chunks(5) {
        assert!(
            clean <= loss(&ball[0]) && loss(&ball[0]) < loss(&ball[2]),
            "{found}"
        );
        assert!(loss(&ball[2]) <= loss(&ball[3]));
    }
    let worst = found["worst"].as_array().unwrap();
    assert!(loss(&worst[0]) >= loss(&attacks[4]) && loss(&worst[1]) > loss(&worst[0]));
    let samples = std::fs::read_to_string(out.join("samples.csv")).unwrap();
    assert!(samples.starts_with("index,squared_error,loss,gradient_l2,loss_noise_2_linf_0.05,"));
    let adversarial = out.join("adversarial.npz");
    let again = [
        "evaluate",
        text(&model),
        "--data",
        text(&adversarial),
        "--all",
        "--json",
    ];
    assert!(
        json(&[&again[..], &quick].concat())["clean"]["mse"]
            .as_f64()
            .is_some()
    );

    let verified = of_model(&["verify"], &["--samples", "20", "--precision", "f64"]);
    assert!(
        verified.contains("not checked: is about the logistic loss"),
        "{verified}"
    );
    assert!(!verified.contains("FAILS"), "{verified}");
    let regions = of_model(
        &["regions"],
        &["--samples", "20", "--measure", "5", "--pairs", "5"],
    );
    assert!(
        regions.contains("nearest kink") && !regions.contains("boundary"),
        "{regions}"
    );
    let svg = dir.path().join("picture.svg");
    let slice = of_model(&["regions"], &["--slice", "0,1,2", "--svg", text(&svg)]);
    assert!(
        slice.contains("colours from") && slice.contains("(values "),
        "{slice}"
    );
    let segment = of_model(
        &["regions"],
        &["--segment", "0,1", "--overwrite", "--svg", text(&svg)],
    );
    assert!(
        segment.contains("kinks in") && !segment.contains("classes"),
        "{segment}"
    );
}

#[test]
fn derivatives_are_those_of_the_squared_error() {
    use ndarray::{Array1, Array2, Array3, array};
    let dir = tempfile::tempdir().unwrap();
    let data = with(&table(dir.path()), &["price"]);
    let model = trained(dir.path(), &data, "2", &[]).join("last.safetensors");
    let [x, y, out] = ["x.npy", "y.npy", "out.npz"].map(|name| dir.path().join(name));
    ndarray_npy::write_npy(&x, &array![[0.1, 0.5, 0.9], [0.7, 0.2, 0.4]]).unwrap();
    ndarray_npy::write_npy(&y, &array![0.5, -0.25]).unwrap();
    let given = [
        "derive",
        text(&model),
        "--input",
        text(&x),
        "--targets",
        text(&y),
        "--out",
        text(&out),
    ];
    printed(&[&given[..], &["--parameter-gradients", "loss,jacobian"]].concat());
    let mut npz = ndarray_npy::NpzReader::new(std::fs::File::open(&out).unwrap()).unwrap();
    let f: Array2<f64> = npz.by_name("logits").unwrap();
    let j: Array3<f64> = npz.by_name("jacobian").unwrap();
    let g: Array2<f64> = npz.by_name("input_gradient").unwrap();
    let loss: Array1<f64> = npz.by_name("loss").unwrap();
    for (i, y) in [0.5, -0.25].into_iter().enumerate() {
        let r = f[(i, 0)] - y;
        assert_abs_diff_eq!(loss[i], 0.5 * r * r, epsilon = 1e-12);
        for d in 0..3 {
            assert_abs_diff_eq!(g[(i, d)], r * j[(i, 0, d)], epsilon = 1e-12);
        }
    }
}

#[test]
fn a_comparison_of_a_regression_has_errors_in_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let data = with(&table(dir.path()), &["price"]);
    let out = dir.path().join("result");
    let common = [
        "compare",
        "--data",
        text(&data),
        "--hidden",
        "12",
        "--lr",
        "0.01",
    ];
    let common = [
        &common[..],
        &[
            "--pgd-steps",
            "5",
            "--pgd-restarts",
            "1",
            "--adversarial",
            "0.05",
        ],
    ]
    .concat();
    let shown = printed(
        &[
            &common[..],
            &[
                "--epochs",
                "8",
                "--penalties",
                "jacobian=0.01,cure",
                "--out",
                text(&out),
            ],
        ]
        .concat(),
    );
    for part in ["MSE", "R²", "jacobian", "cure", "pgd-training"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains('%'), "{shown}");
    let results = std::fs::read_to_string(out.join("results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["settings"]["loss"], "squared-error");
    for run in results["runs"].as_array().unwrap() {
        let evaluation = &run["evaluation"];
        let number = |key: &str| evaluation[key].as_f64().unwrap();
        let robust = |key: &str, i: usize| evaluation[key][i].as_f64().unwrap();
        assert!(number("attacked_clean_mse") < robust("robust_mse", 0));
        // Of one value the loss is half the error.
        assert!((robust("robust_loss", 0) / (0.5 * robust("robust_mse", 0)) - 1.0).abs() < 1e-5);
        assert!(
            robust("robust_r2", 0) < number("clean_r2")
                && evaluation.get("clean_accuracy").is_none()
        );
    }
    let curves = std::fs::read_to_string(out.join("curves.csv")).unwrap();
    assert!(curves.starts_with(
        "regularizer,lambda,seed,epoch,train_loss,train_mse,train_r2,train_penalty,test_loss"
    ));
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("Error under attack") && !page.contains("Accuracy under attack"));
    // By default what needs classes is left out.
    let all = printed(&[&common[..], &["--epochs", "1"]].concat());
    assert!(
        all.contains("input-") && !all.contains("lipschitz"),
        "{all}"
    );
}

#[test]
fn two_classes_with_one_logit_go_through_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let data = with(&table(dir.path()), &["kind"]);
    let given = ["--data", text(&data), "--label-column", "kind"];
    let run = trained(
        dir.path(),
        &data,
        "40",
        &[&given[2..], &["--loss", "logistic"]].concat(),
    );
    let model = run.join("best.safetensors");
    assert!(printed(&["inspect", text(&model)]).contains("1 logits"));
    let of_model = |command: &str, options: &[&str]| {
        printed(&[&[command, text(&model)], &given[..], options].concat())
    };
    let quick = [
        "--linf",
        "0.02",
        "--l2",
        "0.05",
        "--apgd-steps",
        "10",
        "--certify",
        "20",
        "--json",
    ];
    let found: serde_json::Value = serde_json::from_str(&of_model("evaluate", &quick)).unwrap();
    let share = |value: &serde_json::Value| value["share"].as_f64().unwrap();
    assert!(share(&found["clean"]) > 0.85, "{found}");
    assert_eq!(found["deepfool"].as_array().unwrap().len(), 2);
    for certificate in found["certificates"].as_array().unwrap() {
        let same = |worst: &&serde_json::Value| worst["attack"]["norm"] == certificate[0];
        let worst = found["worst"]
            .as_array()
            .unwrap()
            .iter()
            .find(same)
            .unwrap();
        assert!(
            share(&certificate[2]) <= share(&worst["accuracy"]) + 0.2,
            "{found}"
        );
    }
    assert!(
        found["left_out"][0]
            .as_str()
            .unwrap()
            .contains("apgd-dlr needs 3 classes")
    );
    let verified = of_model("verify", &["--samples", "20", "--precision", "f64"]);
    assert!(
        verified.contains("T51") && !verified.contains("FAILS"),
        "{verified}"
    );
    let regions = of_model(
        "regions",
        &["--samples", "20", "--measure", "5", "--pairs", "5"],
    );
    assert!(regions.contains("decision boundary"), "{regions}");
    let slice = of_model("regions", &["--slice", "0,1,2"]);
    assert!(slice.contains("classes by area: "), "{slice}");
    let options = [
        "--hidden",
        "12",
        "--epochs",
        "2",
        "--pgd-steps",
        "3",
        "--loss",
        "logistic",
    ];
    let compared = printed(
        &[
            &["compare"],
            &given[..],
            &options,
            &["--penalties", "jacobian,cure"],
        ]
        .concat(),
    );
    assert!(compared.contains("clean %"), "{compared}");
}

#[test]
fn label_smoothing_is_an_option_of_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let data = with(&table(dir.path()), &["class"]);
    let out = |name: &str| dir.path().join(name);
    let train = |name: &str, options: &[&str]| {
        let folder = out(name);
        let common = [
            "train",
            "--data",
            text(&data),
            "--model",
            "mlp:8",
            "--epochs",
            "2",
            "--json",
            "--out",
            text(&folder),
        ];
        json(&[&common[..], options].concat())["last_test"].clone()
    };
    let plain = train("plain", &[]);
    let smooth = train(
        "smooth",
        &["--loss", "softmax-cross-entropy(label-smoothing=0.2)"],
    );
    assert!(plain["accuracy"].as_f64().is_some() && plain["loss"] != smooth["loss"]);
    let settings = std::fs::read_to_string(out("smooth").join("config.toml")).unwrap();
    assert!(
        settings.contains("[loss]\nname = \"softmax-cross-entropy\"\nlabel-smoothing = 0.2\n"),
        "{settings}"
    );
    let config = dir.path().join("smooth.toml");
    std::fs::write(&config, settings).unwrap();
    assert_eq!(train("again", &["--config", text(&config)]), smooth);
    // Squared error of classes is that of their unit vectors.
    assert!(
        train("square", &["--loss", "squared-error"])["accuracy"]
            .as_f64()
            .is_some()
    );
}

#[test]
fn weights_count_as_repeated_lines_do() {
    let dir = tempfile::tempdir().unwrap();
    let line = |i: usize| format!("{},{}", super::noise(2 * i), super::noise(2 * i + 1) - 0.5);
    let (mut weighted, mut repeated) = ("x,w,y\n".to_owned(), "x,y\n".to_owned());
    for i in 0..40 {
        let (line, count) = (line(i), i % 4);
        weighted += &format!("{}\n", line.replace(',', &format!(",{count},")));
        repeated += &format!("{line}\n").repeat(count);
    }
    let [a, b] = ["weighted.csv", "repeated.csv"].map(|name| dir.path().join(name));
    std::fs::write(&a, weighted).unwrap();
    std::fs::write(&b, repeated).unwrap();
    let model = trained(dir.path(), &b, "2", &[]).join("last.safetensors");
    let evaluate = |options: &[&str]| {
        let common = [
            "evaluate",
            text(&model),
            "--all",
            "--linf",
            "0.1",
            "--l2",
            "",
            "--apgd-steps",
            "5",
            "--json",
        ];
        json(&[&common[..], options].concat())
    };
    let found = evaluate(&["--data", text(&a), "--weight-column", "w"]);
    let expected = evaluate(&["--data", text(&b)]);
    for key in ["loss", "mse", "r2"] {
        let [found, expected] = [&found, &expected].map(|all| all["clean"][key].as_f64().unwrap());
        assert!(
            (found - expected).abs() < 1e-6 * expected.abs(),
            "{key}: {found} {expected}"
        );
    }
    let out = dir.path().join("weighted");
    let options = [
        "--data",
        text(&a),
        "--weight-column",
        "w",
        "--out",
        text(&out),
        "--epochs",
        "30",
        "--lr",
        "0.01",
    ];
    printed(&[&["train", "--model", "mlp:8"], &options[..]].concat());
}
