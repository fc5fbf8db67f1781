//! How a command ends when it does not succeed.

use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The options are wrong; exit code 2.
    Usage(anyhow::Error),
    /// Something failed; exit code 1.
    Failed(anyhow::Error),
    /// The user interrupted it; exit code 130.
    Interrupted,
    /// Nobody reads the output any more; exit code 0, as for a pipe into `head`.
    OutputClosed,
}

impl Failure {
    /// Prints one line to the standard error and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Failure::Usage(error) => {
                eprintln!("error: {error:#}\n\nFor more information, try '--help'.");
                ExitCode::from(2)
            }
            Failure::Failed(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
            Failure::Interrupted => ExitCode::from(130),
            Failure::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Failed(error)
    }
}

impl From<relugrad_train::Error> for Failure {
    fn from(error: relugrad_train::Error) -> Failure {
        Failure::Failed(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(error.into()),
        }
    }
}
