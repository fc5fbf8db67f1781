//! The files of an evaluation.

use std::fmt::Write;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ndarray::{Array1, Array2, s};
use ndarray_npy::{NpzWriter, WritableElement};
use relugrad_io::{Earlier, OutputFolder};
use relugrad_train::data::Dataset;
use relugrad_train::robustness::{Report, Sample};

use super::{Arguments, page};

/// All of them.
const FILES: [&str; 4] = [
    "evaluation.html",
    "evaluation.json",
    "samples.csv",
    "adversarial.npz",
];

/// Makes the folder, and sees that all files can be written and that there is no earlier evaluation to be kept, before any
/// work is done.
pub(super) fn prepare(folder: &Path, arguments: &Arguments) -> Result<OutputFolder> {
    let earlier = match arguments.overwrite {
        true => Earlier::Replace,
        false => Earlier::Keep,
    };
    let mut opened = OutputFolder::open(folder, "evaluate", earlier)?;
    if let (Some(file), Earlier::Keep) = (opened.earlier_file(), earlier) {
        bail!(
            "{} already holds an evaluation ({file}); give another directory to --out, or --overwrite",
            folder.display()
        );
    }
    let inputs: Vec<&Path> = arguments
        .model
        .files()
        .chain(arguments.data.files())
        .collect();
    opened.begin(&FILES.map(str::to_owned), &inputs)?;
    Ok(opened)
}

/// Writes each file whole or not at all.
pub(super) fn write<T: WritableElement + Copy>(
    folder: &mut OutputFolder,
    arguments: &Arguments,
    report: &Report,
    adversarial: &[Array2<T>],
    data: &Dataset,
) -> Result<()> {
    let model = arguments.model.path().display().to_string();
    let mut json = serde_json::to_value(report).context("cannot write JSON")?;
    json["model"] = model.clone().into();
    json["version"] = env!("CARGO_PKG_VERSION").into();
    let json = serde_json::to_string_pretty(&json).context("cannot write JSON")? + "\n";
    let contents = [
        page::page(&model, report)?.into_bytes(),
        json.into_bytes(),
        csv(report).into_bytes(),
        archive(report, adversarial, data)?,
    ];
    let files = FILES.into_iter().zip(contents.iter().map(Vec::as_slice));
    Ok(folder.write(&files.collect::<Vec<_>>(), &mut [])?)
}

/// A line for each attacked sample. Names hold no character that needs quoting.
fn csv(report: &Report) -> String {
    let mut csv = "index,label,prediction,margin,loss,gradient_l2".to_owned();
    let mut heading = |text: &str| write!(csv, ",{text}").expect("a String takes all");
    for norm in ["linf", "l2"] {
        for radius in ["kink", "boundary", "lower", "upper", "proven", "deepfool"] {
            heading(&format!("{radius}_{norm}"));
        }
    }
    for attacked in &report.attacks {
        let a = attacked.attack.options;
        let name = attacked.attack.name.to_lowercase().replace('-', "_");
        heading(&format!(
            "{name}_{}_{}_{}",
            a.restarts,
            a.norm.name(),
            a.epsilon
        ));
    }
    for (name, _) in &report.penalties {
        heading(name);
    }
    csv.push('\n');
    for sample in &report.samples {
        csv.push_str(&line(sample));
        csv.push('\n');
    }
    csv
}

fn line(sample: &Sample) -> String {
    let mut cells: Vec<String> = vec![
        sample.index.to_string(),
        sample.label.to_string(),
        sample.prediction.to_string(),
        sample.margin.to_string(),
        sample.loss.to_string(),
        sample.gradient.to_string(),
    ];
    let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
    for i in 0..2 {
        let radii = sample.radii.map(|radii| radii[i]);
        cells.extend([
            number(radii.map(|r| r.kink)),
            number(radii.map(|r| r.boundary)),
            number(radii.map(|r| r.lower)),
            number(radii.and_then(|r| r.upper)),
            radii.map_or(String::new(), |r| u8::from(r.proven).to_string()),
            number(sample.deepfool[i]),
        ]);
    }
    cells.extend(
        sample
            .fooled
            .iter()
            .map(|&fooled| u8::from(fooled).to_string()),
    );
    cells.extend(sample.penalties.iter().map(f64::to_string));
    cells.join(",")
}

/// The attacked samples, their labels, and their adversarial examples of each norm and size.
fn archive<T: WritableElement + Copy>(
    report: &Report,
    adversarial: &[Array2<T>],
    data: &Dataset,
) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let mut archive = NpzWriter::new(&mut bytes);
    let n = report.samples.len();
    let images = data.images().slice(s![..n, ..]);
    archive.add_array("x", &images)?;
    let labels: Array1<i64> = report.samples.iter().map(|s| s.label as i64).collect();
    archive.add_array("labels", &labels)?;
    for (worst, examples) in report.worst.iter().zip(adversarial) {
        let a = worst.attack.options;
        archive.add_array(format!("{}_{}", a.norm.name(), a.epsilon), examples)?;
    }
    archive.finish()?;
    Ok(bytes.into_inner())
}
