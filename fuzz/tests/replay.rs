//! The corpus and fresh mutants of every format, under the limits of time and memory that hold for
//! every file.

use peak_alloc::PeakAlloc;
use relugrad_fuzz::{Format, Report, run, seeds};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Fresh mutants of a format.
const MUTANTS: u64 = 20_000;

/// Another seed than that of the campaigns, so that their mutants are not read again.
const SEED: u64 = 20;

/// One test for all formats, since memory is counted for the whole program.
#[test]
fn damaged_files_are_refused_or_are_what_they_say() {
    std::panic::set_hook(Box::new(|_| {}));
    let reports = Format::all().iter().map(|&format| (format, read(format)));
    let reports: Vec<(Format, Report)> = reports.collect();
    drop(std::panic::take_hook());
    for (format, report) in &reports {
        let name = format.name();
        println!(
            "{name}: {} accepted, {} refused",
            report.accepted, report.refused
        );
        assert!(report.findings.is_empty(), "{name}: {:?}", report.findings);
        // Both ends of every reader are reached; few mutants have a checkpoint's checksum.
        let enough = if format == &Format::Checkpoint {
            5
        } else {
            200
        };
        assert!(
            report.refused > enough && report.accepted > enough,
            "{name}: {report:?}"
        );
    }
}

fn read(format: Format) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let mut corpus = Report::default();
    for (number, seed) in seeds(format).iter().enumerate() {
        let (name, bytes) = (&seed.name, &seed.bytes);
        corpus.add(number as u64, format, name, bytes, folder.path(), &MEMORY);
    }
    assert!(corpus.findings.is_empty(), "{format:?}: {corpus:?}");
    run(format, SEED, 0..MUTANTS, folder.path(), &MEMORY, |_| ())
}
