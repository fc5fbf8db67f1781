//! `relugrad bench`.

mod arguments;
mod explain;
mod problem;
mod workload;

use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use relugrad::Scalar;
use relugrad_train::statistics::quantile;
use serde_json::json;

pub(crate) use arguments::Arguments;
use arguments::Workload;
use problem::Problem;
use workload::Runner;

use crate::failure::Failure;
use crate::print;
use crate::values::Precision;

/// Counts what is allocated, so that the memory that a workload needs can be told.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs before the timed ones that make all buffers.
const FIRST_RUNS: usize = 2;

/// How long further runs go on before the timed ones: caches fill, and the system gives every
/// thread a processor of its own.
const WARM_UP: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let threads = arguments.threads.start()?;
    threads.run(|| match arguments.dtype {
        Precision::F64 => bench::<f64>(arguments),
        Precision::F32 => bench::<f32>(arguments),
    })
}

/// What was measured of a workload.
struct Measurement {
    workload: Workload,
    /// In milliseconds, in rising order.
    times: Vec<f64>,
    /// Floating-point operations of a run if every unit were active.
    operations: u64,
    /// The most memory that was in use beyond the network and the data.
    bytes: usize,
    /// The most that a run allocated when its buffers had been made.
    bytes_per_run: usize,
}

fn bench<T: Scalar>(arguments: &Arguments) -> Result<(), Failure> {
    let workloads = arguments.workloads()?;
    let problem = Problem::<T>::new(arguments)?;
    let mut header = (!arguments.json).then(header);
    for workload in workloads {
        if print::is_lost() {
            break;
        }
        let mut runner = Runner::new(workload, &problem, arguments)?;
        let stages = explain::stages(workload, runner.objective(), &problem)?;
        let operations = explain::operations(&stages);
        let measured = measure(&mut runner, (workload, operations), arguments.repeat)?;
        if arguments.json {
            let check = arguments.check.then(|| runner.check());
            print::line(measured.json(&arguments.net, check));
            continue;
        }
        // The header comes with the first result: what is printed is finished.
        header.take().into_iter().for_each(print::line);
        print::line(measured.line());
        if arguments.explain {
            print::line(explain::text(&stages, &problem, measured.quantile(0.5))?);
        }
    }
    Ok(())
}

fn header() -> String {
    let columns = ["median ms", "min ms", "GFLOP", "GFLOP/s", "MiB"];
    let columns = columns.map(|column| format!("{column:>11}"));
    format!("{:26}{}", "workload", columns.concat())
}

fn measure<T: Scalar>(
    runner: &mut Runner<T>,
    (workload, operations): (Workload, u64),
    repeat: usize,
) -> Result<Measurement, Failure> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    for _ in 0..FIRST_RUNS {
        runner.run()?;
    }
    let bytes = MEMORY.peak_usage().saturating_sub(before);
    let start = Instant::now();
    while start.elapsed() < WARM_UP {
        runner.run()?;
    }
    let mut times = Vec::with_capacity(repeat);
    let warm = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    for _ in 0..repeat {
        let start = Instant::now();
        runner.run()?;
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(Measurement {
        workload,
        times,
        operations,
        bytes,
        bytes_per_run: MEMORY.peak_usage().saturating_sub(warm),
    })
}

impl Measurement {
    fn quantile(&self, share: f64) -> f64 {
        quantile(&self.times, share).expect("it was measured")
    }

    fn json(&self, net: &str, check: Option<(Option<f64>, f64, f64)>) -> serde_json::Value {
        let mut line = json!({
            "workload": self.workload.to_string(),
            "net": net,
            "median_ms": self.quantile(0.5),
            "min_ms": self.times[0],
            "iqr": self.quantile(0.75) - self.quantile(0.25),
            "flops": self.operations,
            "bytes": self.bytes,
            "bytes_per_run": self.bytes_per_run,
        });
        if let Some(check) = check {
            line["check"] = json!(check);
        }
        line
    }

    fn line(&self) -> String {
        let median = self.quantile(0.5);
        let operations = self.operations as f64 / 1e9;
        format!(
            "{:26}{median:>11.3}{:>11.3}{operations:>11.3}{:>11.1}{:>11.1}",
            self.workload,
            self.times[0],
            operations / median * 1e3,
            self.bytes as f64 / (1 << 20) as f64,
        )
    }
}
