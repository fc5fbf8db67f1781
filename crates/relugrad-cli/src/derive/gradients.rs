//! Values and parameter gradients of the loss and of penalties, as means over all inputs.

use std::io::{Seek, Write};

use ndarray::{Array0, s};
use ndarray_npy::{NpzWriter, WritableElement};
use relugrad::{Network, Objective, Scalar, Workspace};
use relugrad_io::Model;

use super::{Arguments, Request};
use crate::failure::Failure;
use crate::print::abridged;

/// Adds `value/NAME` and `grad/NAME/PARAMETER` for every name that was asked for.
pub(super) fn write<T: Scalar + WritableElement, W: Write + Seek>(
    model: &Model,
    network: &Network<T>,
    request: &Request<T>,
    arguments: &Arguments,
    npz: &mut NpzWriter<W>,
) -> Result<(), Failure> {
    let names = arguments.gradients()?;
    check_entries(model, &names)?;
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(Failure::Usage(anyhow::anyhow!(
                "--parameter-gradients names `{name}` twice"
            )));
        }
        let objective = arguments.objective(name, request.loss)?;
        let n = request.inputs.nrows();
        let size = group_size(name, &objective, network, arguments.memory)?.min(n);
        let mut workspace = Workspace::new();
        let zeros = network.parameters().zeros_like().cast::<f64>();
        let zeros = zeros.map_err(anyhow::Error::from)?;
        let (mut value, mut sum) = (0.0, zeros);
        for start in (0..n).step_by(size) {
            let end = n.min(start + size);
            let x = request.inputs.slice(s![start..end, ..]);
            let targets = request.truth.part(start..end);
            let computed = objective.gradient_into(network, x, &targets, &mut workspace);
            let renumbered = computed.map_err(|error| error.renumbered(|i| start + i));
            renumbered.map_err(anyhow::Error::from)?;
            let share = (end - start) as f64 / n as f64;
            let evaluation = workspace.evaluation().expect("it was just computed");
            value += share * evaluation.value;
            let gradient = workspace.gradient().expect("it was just computed");
            let pairs = sum.values_mut().iter_mut().zip(gradient.values());
            pairs.for_each(|(sum, g)| *sum += share * g.into_f64());
        }
        let value = T::from_f64(value);
        if !value.is_finite() {
            return Err(Failure::Failed(anyhow::anyhow!(
                "the value of {name} is too large for --dtype {}; take f64",
                T::NAME
            )));
        }
        let value = Array0::from_elem((), value);
        npz.add_array(format!("value/{name}"), &value)
            .map_err(anyhow::Error::from)?;
        for (parameter, gradient) in model.file_gradients(&sum) {
            let gradient = gradient.mapv(T::from_f64);
            let key = entry(name, &parameter);
            npz.add_array(key, &gradient).map_err(anyhow::Error::from)?;
        }
    }
    Ok(())
}

/// What the gradient of a parameter is called in the file.
fn entry(name: &str, parameter: &str) -> String {
    format!("grad/{name}/{parameter}")
}

/// Refuses names of parameters under which no program would find their gradients again.
fn check_entries(model: &Model, names: &[String]) -> anyhow::Result<()> {
    let Some(longest) = names.iter().max_by_key(|name| name.len()) else {
        return Ok(());
    };
    for parameter in model.file_arrays() {
        if let Some(problem) = not_an_entry(&entry(longest, parameter)) {
            anyhow::bail!(
                "the gradient of `{}` cannot be written: its name {problem}; rename it in the model",
                abridged(parameter)
            );
        }
    }
    Ok(())
}

/// Why an archive cannot hold an array under this name, if it cannot.
fn not_an_entry(name: &str) -> Option<String> {
    const ENDING: &str = ".npy";
    let longest = usize::from(u16::MAX) - ENDING.len();
    if name.len() > longest {
        return Some(format!(
            "makes an entry of {} bytes, and an archive allows {longest}",
            name.len()
        ));
    }
    if name.contains('\0') {
        return Some("holds a NUL, at which readers end it".into());
    }
    let up = name.split(['/', '\\']).any(|part| part == "..");
    up.then(|| "leads out of the archive by `..`".into())
}

/// How many inputs the memory is enough for, in MiB: two sweeps with a row for each logit and a
/// dozen `K×K` matrices where the penalty is one of the Gram matrix, else a few rows.
fn group_size<T: Scalar>(
    name: &str,
    objective: &Objective,
    network: &Network<T>,
    memory: u32,
) -> Result<usize, Failure> {
    let width: usize = network.nodes().iter().map(|node| node.width()).sum();
    let mut terms = objective.terms().iter();
    let k = match terms.any(|term| term.penalty.is_function_of_gram()) {
        true => network.outputs(),
        false => 1,
    };
    let bytes = width * size_of::<T>() * (2 * k + 4) + 12 * k * k * size_of::<f64>();
    match ((memory as usize) << 20) / bytes {
        0 => Err(Failure::Usage(anyhow::anyhow!(
            "the parameter gradient of `{name}` needs {} MiB for one input; raise --memory to that",
            bytes.div_ceil(1 << 20)
        ))),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_names_that_readers_understand() {
        for good in ["grad/loss/w", "grad/loss//model/a..b", &"a".repeat(65_531)] {
            assert_eq!(not_an_entry(good), None);
        }
        for bad in [
            "a\0b",
            "grad/loss/../x",
            "a\\..\\b",
            "..",
            &"a".repeat(65_532),
        ] {
            assert!(not_an_entry(bad).is_some());
        }
    }
}
