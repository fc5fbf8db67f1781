//! `relugrad evaluate`.

mod arguments;
mod files;
mod page;
mod tables;

use std::io::IsTerminal;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relugrad::{Network, Scalar};
use relugrad_io::OutputFolder;
use relugrad_train::data::Dataset;
use relugrad_train::robustness::{Evaluated, evaluate};

pub(crate) use arguments::Arguments;

use crate::failure::Failure;
use crate::threads::Threads;
use crate::{interrupt, print};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let usage = |error: relugrad_train::Error| Failure::Usage(error.into());
    arguments.evaluation().check().map_err(usage)?;
    let threads = Threads::start(arguments.threads)?;
    interrupt::keep();
    let out = arguments.out.as_ref();
    let mut out = out
        .map(|folder| files::prepare(folder, arguments))
        .transpose()?;
    let data = match arguments.all {
        true => arguments.data.load_all()?,
        false => arguments.data.load()?,
    };
    let model = arguments.model.load()?;
    let network = model.into_network();
    threads.run(|| match arguments.double {
        true => run_in(arguments, &network, &data, out.as_mut()),
        false => {
            let narrow = network.cast::<f32>().map_err(anyhow::Error::from)?;
            run_in(arguments, &narrow, &data, out.as_mut())
        }
    })
}

fn run_in<T: Scalar + ndarray_npy::WritableElement>(
    arguments: &Arguments,
    network: &Network<T>,
    data: &Dataset,
    out: Option<&mut OutputFolder>,
) -> Result<(), Failure> {
    let bar = progress();
    let mut follow = |part: usize, parts: usize| {
        bar.set_length(parts as u64);
        bar.set_position(part as u64);
    };
    let evaluation = arguments.evaluation();
    let found = evaluate(network, data, &evaluation, &mut follow, &interrupt::go_on);
    bar.finish_and_clear();
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
    match report.complete {
        true => Ok(()),
        false => Err(Failure::Interrupted(
            "the parts that are finished are shown".into(),
        )),
    }
}

fn progress() -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(10),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let style = ProgressStyle::with_template("{bar:30} part {pos} of {len}, {eta} left");
    let style = style.expect("the template is well-formed");
    bar.with_style(style.progress_chars("=> "))
}
