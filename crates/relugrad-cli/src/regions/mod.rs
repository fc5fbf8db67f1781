//! `relugrad regions`.

mod arguments;
mod drawing;
mod picture;
mod segment;
mod slice;
mod survey;

use std::path::Path;

use anyhow::{anyhow, bail};
use relugrad_io::write_whole;
use relugrad_train::check_inputs;
use relugrad_train::data::{Dataset, Truth};

pub(crate) use arguments::Arguments;
pub(crate) use slice::class_picture;

use crate::failure::{Failure, check_output};
use crate::report::short;
use crate::{interrupt, print};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let counts = [
        ("--slice", &arguments.slice, 3),
        ("--segment", &arguments.segment, 2),
    ];
    for (option, numbers, expected) in counts {
        if !numbers.is_empty() && numbers.len() != expected {
            let problem = anyhow!(
                "{option} takes {expected} numbers of samples, not {}",
                numbers.len()
            );
            return Err(Failure::Usage(problem));
        }
    }
    let mut named = arguments.inputs();
    for path in [&arguments.svg, &arguments.polygons].into_iter().flatten() {
        if leads_to(path, &named) {
            return Err(Failure::Usage(anyhow!(
                "{} is named twice; give each file a name of its own",
                path.display()
            )));
        }
        check_output(path, arguments.overwrite, &[])?;
        named.push(path);
    }
    let threads = arguments.threads.start()?;
    let (network, data) = arguments.data.load(&arguments.model, false)?;
    check_inputs(&network, &data)?;
    threads.run(|| arguments.data.hint(&network, &data))?;
    interrupt::keep();
    threads.run(|| {
        if !arguments.segment.is_empty() {
            segment::run(arguments, &network, &data)
        } else if !arguments.slice.is_empty() || arguments.slice_file.is_some() {
            slice::run(arguments, &network, &data)
        } else {
            survey::run(arguments, &network, &data)
        }
    })
}

/// Whether a path is that of one of these files, in whatever spelling.
fn leads_to(path: &Path, files: &[&Path]) -> bool {
    let checked = relugrad_io::check_output(path, true, files);
    matches!(checked, Err(relugrad_io::Error::OutputIsInput { .. }))
}

/// What is to be said of a sample, in words.
fn answer(truth: &Truth<f64>) -> String {
    match truth {
        Truth::Classes(labels) => format!("label {}", labels[0]),
        Truth::Values(values) => {
            let values: Vec<String> = values.iter().map(|&value| short(value)).collect();
            format!("values {}", values.join(", "))
        }
    }
}

/// A sample of the data in double precision, and its label or values.
fn sample(data: &Dataset, number: usize) -> anyhow::Result<(ndarray::Array1<f64>, Truth<f64>)> {
    if number >= data.samples() {
        bail!(
            "there is no sample {number}: {} has the test samples 0 to {}",
            data.name(),
            data.samples() - 1
        );
    }
    Ok((
        data.images().row(number).mapv(f64::from),
        data.truth().select(&[number]),
    ))
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, overwrite: bool) -> Result<(), Failure> {
    write_whole(path, text.as_bytes(), overwrite).map_err(anyhow::Error::from)?;
    print::note(format_args!("{} is written", path.display()));
    Ok(())
}
