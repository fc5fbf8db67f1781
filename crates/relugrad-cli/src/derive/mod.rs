//! `relugrad derive`.

mod arguments;
mod gradients;
mod npy;
mod results;

use std::io::Cursor;
use std::path::Path;

use anyhow::{Result, bail};
use ndarray::{Array2, ArrayD, ArrayView2};
use ndarray_npy::{NpzWriter, WritableElement};
use relugrad::{Loss, Network, Scalar};
use relugrad_io::{Model, printable};
use relugrad_train::data::Truth;
use relugrad_train::evaluate::predicted;

pub(crate) use arguments::Arguments;
use results::Results;

use crate::failure::{Failure, check_output};
use crate::print;
use crate::values::Precision;

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    check_output(&arguments.out, arguments.overwrite, &arguments.inputs())
        .map_err(Failure::Usage)?;
    let threads = arguments.threads.start()?;
    let model = arguments.standardisation.apply(arguments.model.load()?)?;
    for note in model.notes() {
        print::note(format_args!("note: {note}"));
    }
    if !arguments.gradients()?.is_empty() {
        for left in model.left_out() {
            let text = format!("note: no gradient of `{}`: {}", left.name, left.reason);
            print::note(printable(&text));
        }
    }
    let (bytes, summary) = threads.run(|| match arguments.dtype {
        Precision::F64 => derive::<f64>(&model, arguments),
        Precision::F32 => derive::<f32>(&model, arguments),
    })?;
    relugrad_io::write_whole(&arguments.out, &bytes, arguments.overwrite)
        .map_err(anyhow::Error::from)?;
    print::line(summary);
    Ok(())
}

/// The inputs of a run, in the precision of the computation.
struct Request<T> {
    inputs: Array2<T>,
    truth: Truth<T>,
    vector: Option<Array2<T>>,
    cotangent: Option<Array2<T>>,
    loss: Loss,
}

/// The file, and what is in it in a line.
fn derive<T: Scalar + WritableElement>(
    model: &Model,
    arguments: &Arguments,
) -> Result<(Vec<u8>, String), Failure> {
    let network: Network<T> = model.network().cast().map_err(anyhow::Error::from)?;
    let request = Request::<T>::read(&network, arguments)?;
    let mut npz = NpzWriter::new(Cursor::new(Vec::new()));
    let results = Results::compute(&network, &request, arguments)?;
    results.write(&mut npz)?;
    gradients::write(model, &network, &request, arguments, &mut npz)?;
    let bytes = npz.finish().map_err(anyhow::Error::from)?.into_inner();
    let summary = format!(
        "{} inputs of {} features, {} logits: {}",
        request.inputs.nrows(),
        network.inputs(),
        network.outputs(),
        arguments.out.display()
    );
    Ok((bytes, summary))
}

impl<T: Scalar> Request<T> {
    fn read(network: &Network<T>, arguments: &Arguments) -> Result<Request<T>> {
        let inputs = inputs(network, &arguments.input)?;
        let n = inputs.nrows();
        let truth = truth(network, inputs.view(), arguments)?;
        let loss = arguments.loss.of(truth.kind(), network.outputs())?;
        let rows = |path: &Option<_>, width, option| -> Result<Option<Array2<T>>> {
            let path: &Option<std::path::PathBuf> = path;
            path.as_deref()
                .map(|path| rows(path, n, width, option))
                .transpose()
        };
        Ok(Request {
            vector: rows(&arguments.vector, network.inputs(), "--vector")?,
            cotangent: rows(&arguments.cotangent, network.outputs(), "--cotangent")?,
            loss,
            inputs,
            truth,
        })
    }
}

/// The class or the values of each input; by default the predicted class.
fn truth<T: Scalar>(
    network: &Network<T>,
    inputs: ArrayView2<T>,
    arguments: &Arguments,
) -> Result<Truth<T>> {
    let n = inputs.nrows();
    if let Some(path) = &arguments.targets {
        let array = npy::read(path)?;
        let (found, width) = (array.shape().to_vec(), network.outputs());
        let single = found.len() == 1 && width == 1;
        if found[..] != [n, width] && !(single && found[0] == n) {
            bail!(
                "--targets has shape {found:?}, but [{n}, {width}] is needed: a value for each logit"
            );
        }
        return Ok(Truth::Values(cast(array, [n, width], path)?));
    }
    let labels = match &arguments.labels {
        Some(path) => npy::read_labels(path)?,
        None => predicted(network, inputs)?,
    };
    if labels.len() != n {
        bail!("--labels has {} labels for {n} inputs", labels.len());
    }
    Ok(Truth::Classes(labels))
}

/// The inputs as rows.
fn inputs<T: Scalar>(network: &Network<T>, path: &Path) -> Result<Array2<T>> {
    let array = npy::read(path)?;
    let (shape, d) = (network.input_shape(), network.inputs());
    let found = array.shape().to_vec();
    let one = |axes: &[usize]| axes == shape || axes == [d];
    // A model file may have axes of length 1 that the network's shape is without, and a dense
    // network takes images too.
    let product = |axes: &[usize]| axes.iter().try_fold(1usize, |p, &n| p.checked_mul(n));
    let flat = |axes: &[usize]| shape.len() == 1 && product(axes) == Some(d);
    let tight = |axes: &[usize]| {
        axes.iter()
            .copied()
            .filter(|&n| n != 1)
            .collect::<Vec<usize>>()
    };
    let rows = match found.split_first() {
        _ if one(&found) => 1,
        Some((&n, rest))
            if one(rest) || flat(rest) || tight(rest) == tight(shape) && !rest.is_empty() =>
        {
            n
        }
        _ => bail!(
            "{} has shape {found:?}, but inputs of shape {shape:?}, with or without a leading batch axis, are needed",
            path.display()
        ),
    };
    if rows == 0 {
        bail!("{} holds no inputs", path.display());
    }
    cast(array, [rows, d], path)
}

/// One row for all inputs, or one for each.
fn rows<T: Scalar>(path: &Path, n: usize, width: usize, option: &str) -> Result<Array2<T>> {
    let array = npy::read(path)?;
    match *array.shape() {
        [found] if found == width => {
            let row = cast::<T>(array, [1, width], path)?;
            Ok(row
                .broadcast((n, width))
                .expect("one row for all")
                .to_owned())
        }
        [rows, found] if rows == n && found == width => cast(array, [n, width], path),
        ref shape => {
            bail!("{option} has shape {shape:?}, but [{width}] or [{n}, {width}] is needed")
        }
    }
}

fn cast<T: Scalar>(array: ArrayD<f64>, shape: [usize; 2], path: &Path) -> Result<Array2<T>> {
    let values: Vec<T> = array.iter().map(|&v| T::from_f64(v)).collect();
    if values.iter().any(|v| !v.is_finite()) {
        bail!(
            "{} has numbers that are too large for --dtype f32",
            path.display()
        );
    }
    Ok(Array2::from_shape_vec(shape, values)?)
}
