//! Threads that compute.

use anyhow::anyhow;
use clap::{Args, value_parser};

use crate::failure::Failure;

/// How many there are to be.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ThreadOption {
    /// Threads; 0 uses all processors. The results do not depend on it
    #[arg(long, value_name = "N", default_value = "0", value_parser = value_parser!(u16).range(0..=1024))]
    threads: u16,
}

impl ThreadOption {
    /// Starts them.
    pub(crate) fn start(self) -> Result<Threads, Failure> {
        Threads::start(self.threads)
    }
}

/// The threads of the whole program. A command starts them first: whatever needs threads later
/// finds these, and need not start its own, which could only panic where there are none.
pub(crate) struct Threads(());

impl Threads {
    /// Starts so many; 0 for one on each processor.
    pub(crate) fn start(number: u16) -> Result<Threads, Failure> {
        let started = rayon::ThreadPoolBuilder::new()
            .num_threads(number.into())
            .build_global();
        let threads = match number {
            0 => "a thread on each processor".to_owned(),
            number => format!("{number} threads"),
        };
        match started {
            Ok(()) => Ok(Threads(())),
            Err(error) => Err(Failure::Failed(anyhow!(
                "cannot start {threads} ({error}); ask for fewer by --threads"
            ))),
        }
    }

    /// Runs `f` on one of them, where the others are at hand.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|_| f())
    }
}
