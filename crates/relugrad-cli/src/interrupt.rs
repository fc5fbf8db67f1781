//! Ctrl-C and termination: the first stops at the next step, the second at once.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

static STOP: AtomicBool = AtomicBool::new(false);

/// Begins to listen.
pub(crate) fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!(
            "\nstopping after this step; what is finished will be kept (again to quit at once)"
        );
    })
    .context("cannot listen to Ctrl-C")
}

/// Whether to stop.
pub(crate) fn requested() -> bool {
    STOP.load(Ordering::SeqCst)
}
