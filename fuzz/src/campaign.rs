//! Many mutants of a format, one after the other.

use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::mutation::mutant;
use crate::{Format, Seed};

/// The longest that a file may take.
const LONGEST: Duration = Duration::from_secs(1);

/// The most memory that it may take.
const MOST_MEMORY: usize = 256 << 20;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The number of the mutant.
    pub number: u64,
    /// What it did.
    pub what: String,
}

/// What became of the mutants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// How many were accepted.
    pub accepted: u64,
    /// How many were refused with an error.
    pub refused: u64,
    /// The longest time that one took.
    pub slowest: Duration,
    /// The most memory that one took, in bytes.
    pub largest: usize,
    /// What must not be.
    pub findings: Vec<Finding>,
}

/// Mutant `number` of a format, and the name of the file that it was made of.
pub fn mutated(format: Format, seeds: &[Seed], seed: u64, number: u64) -> (&str, Vec<u8>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(number);
    mutant(format, seeds, &mut random)
}

/// Reads these mutants of a format; `at` is told each number before.
///
/// `memory` must be the program's allocator, for the memory to be seen.
pub fn run(
    format: Format,
    seed: u64,
    numbers: Range<u64>,
    folder: &Path,
    memory: &PeakAlloc,
    mut at: impl FnMut(u64),
) -> Report {
    let seeds = crate::seeds(format);
    let mut report = Report::default();
    for number in numbers {
        at(number);
        let (name, bytes) = mutated(format, &seeds, seed, number);
        report.add(number, format, name, &bytes, folder, memory);
    }
    report
}

impl Report {
    /// Reads one file.
    pub fn add(
        &mut self,
        number: u64,
        format: Format,
        name: &str,
        bytes: &[u8],
        folder: &Path,
        memory: &PeakAlloc,
    ) {
        let before = memory.current_usage();
        memory.reset_peak_usage();
        let mut time = Duration::MAX;
        let mut outcome = Ok(false);
        // What is slow because others run is fast at another time.
        for _ in 0..5 {
            let start = Instant::now();
            outcome = panic::catch_unwind(AssertUnwindSafe(|| format.read(name, bytes, folder)));
            time = time.min(start.elapsed());
            if time < LONGEST {
                break;
            }
        }
        let most = memory.peak_usage().saturating_sub(before);
        self.slowest = self.slowest.max(time);
        self.largest = self.largest.max(most);
        let mut find = |what: String| self.findings.push(Finding { number, what });
        if time >= LONGEST {
            find(format!("took {time:.1?}"));
        }
        if most > MOST_MEMORY {
            find(format!("took {} MiB", most >> 20));
        }
        match outcome {
            Ok(true) => self.accepted += 1,
            Ok(false) => self.refused += 1,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                find(format!("panic: {}", text.unwrap_or_default()));
            }
        }
    }
}
