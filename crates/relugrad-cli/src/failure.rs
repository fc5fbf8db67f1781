//! How a command ends.

use std::path::Path;

use anyhow::anyhow;

use crate::{interrupt, print};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The options are wrong; exit code 2.
    Usage(anyhow::Error),
    /// Something failed; exit code 1.
    Failed(anyhow::Error),
    /// The user interrupted it; exit code 130. The text says what was finished.
    Interrupted(String),
}

/// Says on the standard error why a command did not succeed, and returns its exit code. One that
/// did all the same failed if what it printed got lost.
pub(crate) fn exit_code(outcome: Result<(), Failure>) -> u8 {
    let lost = print::tell_lost();
    match outcome {
        Ok(()) if lost => 1,
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}

impl Failure {
    fn report(&self) -> u8 {
        match self {
            Failure::Usage(error) => {
                print::note(format_args!(
                    "error: {error:#}\n\nFor more information, try '--help'."
                ));
                2
            }
            Failure::Failed(error) => {
                print::note(format_args!("error: {error:#}"));
                1
            }
            Failure::Interrupted(finished) => {
                print::note(format_args!("interrupted: {finished}"));
                interrupt::EXIT_CODE
            }
        }
    }

    /// An interrupt before there was anything to keep.
    pub(crate) fn nothing_finished() -> Failure {
        Failure::Interrupted("nothing was finished".into())
    }
}

/// Refuses a file that cannot be written or must be kept, before any work is done for it.
pub(crate) fn check_output(path: &Path, overwrite: bool, inputs: &[&Path]) -> anyhow::Result<()> {
    relugrad_io::check_output(path, overwrite, inputs).map_err(|error| {
        if let relugrad_io::Error::Exists { path } = error {
            return anyhow!(
                "{} exists already; choose another name or add --overwrite",
                path.display()
            );
        }
        error.into()
    })
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Failed(error)
    }
}

impl From<relugrad_train::Error> for Failure {
    fn from(error: relugrad_train::Error) -> Failure {
        use relugrad_train::Error;
        if matches!(error, Error::Engine(relugrad::Error::Stopped)) {
            return Failure::nothing_finished();
        }
        if let Error::Given(error) = error {
            return Failure::Usage((*error).into());
        }
        Failure::Failed(error.into())
    }
}
