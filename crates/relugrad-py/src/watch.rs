//! Long work, which Ctrl-C ends and a callable hears of.

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use relugrad_train::compare::Comparison;
use relugrad_train::{Event, Observer};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::process::work;

/// How often Python is asked for signals.
const PATIENCE: Duration = Duration::from_millis(50);

/// Events that may wait for Python.
const ROOM: usize = 16;

/// What work asks, and tells.
pub(crate) struct Watch<'a> {
    going: &'a AtomicBool,
    events: SyncSender<Value>,
}

impl Watch<'_> {
    /// Whether nobody has asked the work to stop.
    pub(crate) fn go_on(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }

    /// Tells that so many of the parts are done.
    pub(crate) fn part(&self, done: usize, parts: usize) {
        self.tell(json!({ "kind": "part", "done": done, "parts": parts }));
    }

    fn tell(&self, event: Value) {
        // Nobody may be listening any more.
        let _ = self.events.send(event);
    }
}

impl Observer for &Watch<'_> {
    fn on(&mut self, event: Event<'_>) -> ControlFlow<()> {
        self.tell(as_json(event));
        match self.go_on() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

fn as_json(event: Event<'_>) -> Value {
    let with = |kind: &str, report: Value| {
        let mut event = report;
        event["kind"] = kind.into();
        event
    };
    let runs = |comparison: &Comparison| comparison.runs.len() + comparison.diverged.len();
    match event {
        Event::Ready => json!({ "kind": "ready" }),
        Event::Samples(parts) => json!({
            "kind": "samples",
            "train": parts.train.samples(),
            "validation": parts.validation.as_ref().map(|part| part.samples()),
            "test": parts.test.samples(),
            "sample": parts.train.kind_in_words(),
            "labels": parts.train.reading().labels,
        }),
        Event::Step(report) => with("step", json!(report)),
        Event::Epoch(report) => with("epoch", json!(report)),
        Event::Part { done, parts } => json!({ "kind": "part", "done": done, "parts": parts }),
        Event::Run {
            index,
            runs,
            regularizer,
            lambda,
            seed,
        } => json!({
            "kind": "run", "index": index, "runs": runs, "regularizer": regularizer, "lambda": lambda, "seed": seed,
        }),
        Event::Finished(comparison, _) => json!({ "kind": "finished", "done": runs(comparison) }),
        Event::Diverged(comparison) => json!({ "kind": "diverged", "done": runs(comparison) }),
    }
}

/// Does long work on a thread of its own, while this one listens to signals and calls `on_event`
/// with each event, a dict with its `kind`. An exception of either, such as `KeyboardInterrupt`,
/// asks the work to stop, and is raised once it has.
pub(crate) fn watched<R: Send>(
    py: Python<'_>,
    on_event: Option<&Bound<'_, PyAny>>,
    run: impl FnOnce(&Watch<'_>) -> R + Send,
) -> PyResult<R> {
    let on_event = on_event
        .filter(|call| !call.is_none())
        .map(|call| call.clone().unbind());
    let (failed, result) = work(py, || {
        let going = AtomicBool::new(true);
        let (events, heard) = mpsc::sync_channel(ROOM);
        let watch = Watch {
            going: &going,
            events,
        };
        thread::scope(|scope| {
            // The watch ends with the work, and by that the listening.
            let working = scope.spawn(move || run(&watch));
            let failed = listen(&heard, on_event.as_ref(), &going);
            (failed, working.join())
        })
    })?;
    match (failed, result) {
        (_, Err(panic)) => resume_unwind(panic),
        (Some(error), _) => Err(error),
        (None, Ok(result)) => Ok(result),
    }
}

fn listen(
    events: &Receiver<Value>,
    on_event: Option<&Py<PyAny>>,
    going: &AtomicBool,
) -> Option<PyErr> {
    let mut failed: Option<PyErr> = None;
    let mut last = Instant::now();
    loop {
        let event = events.recv_timeout(PATIENCE);
        match (event, on_event, &failed) {
            (Err(RecvTimeoutError::Disconnected), ..) => return failed,
            (Ok(event), Some(call), None) => {
                failed = Python::attach(|py| call.call1(py, (to_python(py, &event)?,))).err();
            }
            _ => {}
        }
        if failed.is_none() && last.elapsed() >= PATIENCE {
            last = Instant::now();
            failed = Python::attach(|py| py.check_signals()).err();
        }
        if failed.is_some() {
            going.store(false, Ordering::Relaxed);
        }
    }
}

/// A record as dicts, lists, texts and numbers of Python.
pub(crate) fn to_python(py: Python<'_>, record: &impl Serialize) -> PyResult<Py<PyAny>> {
    let text = serde_json::to_string(record).map_err(|error| Error::new_err(error.to_string()))?;
    Ok(py.import("json")?.call_method1("loads", (text,))?.unbind())
}
