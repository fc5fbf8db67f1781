//! Threads that compute.

use anyhow::anyhow;

use crate::failure::Failure;

/// The threads of the whole program. A command starts them first: whatever needs threads later finds these, and need not start its
/// own, which could only panic where there are none.
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
