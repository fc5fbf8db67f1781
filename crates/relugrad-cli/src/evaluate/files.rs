//! The files of an evaluation.

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
pub(super) const FILES: [&str; 4] = [
    "evaluation.html",
    "evaluation.json",
    "samples.csv",
    "adversarial.npz",
];

/// Makes the folder, and sees that all files can be written and that there is no earlier evaluation
/// to be kept, before any work is done.
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
        csv(report)?.into_bytes(),
        archive(report, adversarial, data)?,
    ];
    let files = FILES.into_iter().zip(contents.iter().map(Vec::as_slice));
    Ok(folder.write(&files.collect::<Vec<_>>(), &mut [])?)
}

/// A line for each attacked sample.
fn csv(report: &Report) -> Result<String> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let regression = report.clean.share().is_none();
    let own: &[&str] = match regression {
        true => &["squared_error"],
        false => &["label", "prediction", "margin"],
    };
    let mut heading = vec!["index".to_owned()];
    heading.extend(
        own.iter()
            .chain(&["loss", "gradient_l2"])
            .map(|&name| name.to_owned()),
    );
    if !regression {
        for norm in ["linf", "l2"] {
            for radius in ["kink", "boundary", "lower", "upper", "proven", "deepfool"] {
                heading.push(format!("{radius}_{norm}"));
            }
        }
    }
    for attacked in &report.attacks {
        let (a, loss) = (
            attacked.attack.options,
            if regression { "loss_" } else { "" },
        );
        let name = attacked.attack.name.to_lowercase().replace('-', "_");
        heading.push(format!(
            "{loss}{name}_{}_{}_{}",
            a.restarts,
            a.norm.name(),
            a.epsilon
        ));
    }
    heading.extend(report.penalties.iter().map(|(name, _)| name.clone()));
    csv.write_record(heading)?;
    for sample in &report.samples {
        csv.write_record(cells(sample))?;
    }
    Ok(String::from_utf8(csv.into_inner()?)?)
}

fn cells(sample: &Sample) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
    let mut cells = vec![sample.index.to_string()];
    if let Some(class) = sample.class {
        cells.extend([class.label.to_string(), class.prediction.to_string()]);
        cells.push(class.margin.to_string());
    }
    cells.extend(sample.squared_error.map(|error| error.to_string()));
    cells.extend([sample.loss.to_string(), sample.gradient.to_string()]);
    if sample.class.is_none() {
        cells.extend(
            sample
                .losses
                .iter()
                .chain(&sample.penalties)
                .map(f64::to_string),
        );
        return cells;
    }
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
    let fooled = sample.fooled.iter();
    cells.extend(fooled.map(|&fooled| u8::from(fooled).to_string()));
    cells.extend(sample.penalties.iter().map(f64::to_string));
    cells
}

/// The attacked samples, their labels or values, and their adversarial examples of each norm and
/// size.
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
    match data.values() {
        Some(values) => archive.add_array("targets", &values.slice(s![..n, ..]))?,
        None => {
            let labels: Array1<i64> = data.labels()[..n].iter().map(|&y| y as i64).collect();
            archive.add_array("labels", &labels)?;
        }
    }
    for (worst, examples) in report.worst.iter().zip(adversarial) {
        let a = worst.attack.options;
        archive.add_array(format!("{}_{}", a.norm.name(), a.epsilon), examples)?;
    }
    archive.finish()?;
    Ok(bytes.into_inner())
}
