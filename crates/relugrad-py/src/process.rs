//! Threads, and processes that have been forked from ones that had some.

use std::ffi::OsString;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The process that has the threads.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Work of the engine, during which other Python threads go on.
///
/// # Errors
/// `RuntimeError` in a process that was forked after work had begun: threads are not forked with
/// it, so that it would wait for ever.
pub(crate) fn work<R: Send>(py: Python<'_>, run: impl FnOnce() -> R + Send) -> PyResult<R> {
    let here = process::id();
    let owner = OWNER.load(Ordering::Relaxed);
    if owner == 0 {
        OWNER.store(here, Ordering::Relaxed);
    } else if owner != here {
        return Err(PyRuntimeError::new_err(
            "this process was forked from one in which relugrad had threads, which a fork leaves behind; \
             start processes by multiprocessing.get_context(\"spawn\"), or fork before the first use of relugrad",
        ));
    }
    Ok(py.detach(run))
}

/// Sets the number of threads that share the work of one call, by default one for each processor or
/// what `RAYON_NUM_THREADS` says. Results have the same bits for any number of threads.
///
/// Raises RuntimeError once work has begun: threads are started once.
#[pyfunction]
pub(crate) fn set_num_threads(threads: usize) -> PyResult<()> {
    if threads == 0 {
        return Err(crate::error::Error::new_err(
            "at least 1 thread is needed, not 0",
        ));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(|_| {
        PyRuntimeError::new_err(format!(
            "relugrad has {} threads since its first use; set their number before, or by RAYON_NUM_THREADS",
            rayon::current_num_threads()
        ))
    })
}

/// The number of threads that share the work of one call.
#[pyfunction]
pub(crate) fn num_threads() -> usize {
    rayon::current_num_threads()
}

/// Runs the `relugrad` command with these arguments, of which the first is the program's name, and
/// returns its exit code.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| relugrad_cli::main(arguments))
}
