//! `relugrad evaluate`.

mod arguments;
mod files;
mod page;
mod tables;

use anyhow::Context;
use relugrad::{Network, Scalar};
use relugrad_io::OutputFolder;
use relugrad_train::data::Dataset;
use relugrad_train::robustness::{Evaluated, EvaluationOptions, evaluate};

pub(crate) use arguments::Arguments;

use crate::failure::Failure;
use crate::progress::Progress;
use crate::values::Precision;
use crate::{interrupt, print};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let usage = |error: relugrad_train::Error| Failure::Usage(error.into());
    let evaluation = arguments.evaluation()?;
    evaluation.check().map_err(usage)?;
    let threads = arguments.threads.start()?;
    interrupt::keep();
    let out = arguments.out.as_ref();
    let mut out = out
        .map(|folder| files::prepare(folder, arguments))
        .transpose()?;
    let (network, data) = arguments.data.load(&arguments.model, arguments.all)?;
    threads.run(|| arguments.data.hint(&network, &data))?;
    threads.run(|| match arguments.dtype {
        Precision::F64 => run_in(arguments, &evaluation, &network, &data, out.as_mut()),
        Precision::F32 => {
            let narrow = network.cast::<f32>().map_err(anyhow::Error::from)?;
            run_in(arguments, &evaluation, &narrow, &data, out.as_mut())
        }
    })
}

fn run_in<T: Scalar + ndarray_npy::WritableElement>(
    arguments: &Arguments,
    evaluation: &EvaluationOptions,
    network: &Network<T>,
    data: &Dataset,
    out: Option<&mut OutputFolder>,
) -> Result<(), Failure> {
    let mut progress = Progress::new(
        "evaluating, parts that are done",
        "part {pos} of {len}, {eta} left",
    );
    let found = evaluate(network, data, evaluation, &mut progress, &interrupt::go_on);
    progress.finish();
    let Evaluated {
        report,
        adversarial,
    } = found?;
    if let Some(folder) = out {
        files::write(folder, arguments, &report, &adversarial, data)?;
    }
    print::line(match arguments.json {
        true => serde_json::to_string(&report).context("cannot write JSON")?,
        false => tables::text(&report),
    });
    if let Some(folder) = &arguments.out {
        print::note(format_args!(
            "results are in {}: {}",
            folder.display(),
            files::FILES.join(", ")
        ));
    }
    match report.complete {
        true => Ok(()),
        false => Err(Failure::Interrupted(
            "the parts that are finished are shown".into(),
        )),
    }
}
