//! A campaign of damaged files, in a process of its own under a limit of memory, so that aborts and
//! endless loops are found as well.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use peak_alloc::PeakAlloc;
use relugrad_fuzz::{Finding, Format, Report, mutated, run, seeds};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How long a mutant may keep the process busy before it is ended.
const ENDLESS: Duration = Duration::from_secs(30);

/// Read damaged files of a format, and tell what must not be
#[derive(Debug, Parser)]
struct Arguments {
    /// The format
    format: Format,

    /// How many mutants
    #[arg(long, default_value = "2000000")]
    count: u64,

    /// The number of the first one
    #[arg(long, default_value = "0")]
    first: u64,

    /// Seed of the mutants
    #[arg(long, default_value = "1")]
    seed: u64,

    /// Read this mutant alone, in this process
    #[arg(long)]
    only: Option<u64>,

    /// Write the mutant of --only to a file
    #[arg(long, requires = "only")]
    write: Option<PathBuf>,

    /// Be the process that reads, and note the number of each mutant here
    #[arg(long, hide = true)]
    progress: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(number) = arguments.only {
        return only(&arguments, number);
    }
    if let Some(progress) = &arguments.progress {
        return read(&arguments, progress);
    }
    let report = campaign(&arguments)?;
    for finding in report.findings.iter().take(50) {
        println!("mutant {}: {}", finding.number, finding.what);
    }
    println!(
        "{}: {} mutants, {} accepted, {} refused, {} findings, at most {:.0?} and {} MiB",
        arguments.format.name(),
        arguments.count,
        report.accepted,
        report.refused,
        report.findings.len(),
        report.slowest,
        report.largest >> 20
    );
    Ok(match report.findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn only(arguments: &Arguments, number: u64) -> Result<ExitCode> {
    let seeds = seeds(arguments.format);
    let (name, bytes) = mutated(arguments.format, &seeds, arguments.seed, number);
    if let Some(path) = &arguments.write {
        fs::write(path, &bytes)?;
    }
    let folder = tempfile::tempdir()?;
    let accepted = arguments.format.read(name, &bytes, folder.path());
    println!("made of {name}, {} bytes: accepted {accepted}", bytes.len());
    Ok(ExitCode::SUCCESS)
}

/// Starts processes that read, one after another where they end early.
fn campaign(arguments: &Arguments) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let progress = folder.path().join("progress");
    let end = arguments.first + arguments.count;
    let mut report = Report::default();
    let mut first = arguments.first;
    while first < end {
        fs::write(&progress, first.to_le_bytes())?;
        let mut child = start(arguments, first, end - first, &progress)?;
        let output = watched(&mut child, &progress)?;
        match serde_json::from_str::<(u64, u64, f64, usize, Vec<(u64, String)>)>(&output) {
            Ok((accepted, refused, seconds, largest, findings)) => {
                report.accepted += accepted;
                report.refused += refused;
                report.slowest = report.slowest.max(Duration::from_secs_f64(seconds));
                report.largest = report.largest.max(largest);
                let finding = |(number, what)| Finding { number, what };
                report.findings.extend(findings.into_iter().map(finding));
                return Ok(report);
            }
            Err(_) => {
                let number = noted(&progress)?;
                let what = format!("ended the process: {}", output.trim());
                println!("mutant {number}: {what}");
                report.findings.push(Finding { number, what });
                first = number + 1;
            }
        }
    }
    Ok(report)
}

fn start(arguments: &Arguments, first: u64, count: u64, progress: &Path) -> Result<Child> {
    // Two GiB of addresses, of which reading a file takes a quarter at most.
    let script = "ulimit -v 2097152; ulimit -c 0; exec \"$@\"";
    Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe()?)
        .arg(arguments.format.name())
        .args(["--seed", &arguments.seed.to_string()])
        .args(["--first", &first.to_string()])
        .args(["--count", &count.to_string()])
        .arg("--progress")
        .arg(progress)
        .env("RAYON_NUM_THREADS", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the reading process")
}

/// What the process prints at its end; it is ended if it makes no progress.
fn watched(child: &mut Child, progress: &Path) -> Result<String> {
    let mut seen = (noted(progress)?, Instant::now());
    loop {
        if let Some(status) = child.try_wait()? {
            let mut output = String::new();
            let out = child.stdout.as_mut().context("it has an output")?;
            std::io::Read::read_to_string(out, &mut output)?;
            return Ok(match status.success() {
                true => output,
                false => status.to_string(),
            });
        }
        let number = noted(progress)?;
        if number != seen.0 {
            seen = (number, Instant::now());
        } else if seen.1.elapsed() > ENDLESS {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn noted(progress: &Path) -> Result<u64> {
    let bytes = fs::read(progress)?;
    let number = bytes.first_chunk().context("a number of eight bytes")?;
    Ok(u64::from_le_bytes(*number))
}

/// Reads mutants, and prints what became of them as one line of JSON.
fn read(arguments: &Arguments, progress: &Path) -> Result<ExitCode> {
    std::panic::set_hook(Box::new(|_| {}));
    let file = File::options().write(true).open(progress)?;
    let folder = tempfile::tempdir()?;
    let numbers = arguments.first..arguments.first + arguments.count;
    let note = |number: u64| {
        // What cannot be noted is only missing in a message.
        let _ = file.write_all_at(&number.to_le_bytes(), 0);
    };
    let report = run(
        arguments.format,
        arguments.seed,
        numbers,
        folder.path(),
        &MEMORY,
        note,
    );
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.number, f.what.clone()))
        .collect();
    let line = serde_json::to_string(&(
        report.accepted,
        report.refused,
        report.slowest.as_secs_f64(),
        report.largest,
        findings,
    ))?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(ExitCode::SUCCESS)
}
