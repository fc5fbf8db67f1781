//! Interrupts: SIGINT (Ctrl-C), SIGTERM and SIGHUP, which all say the same. A SIGHUP that was
//! ignored when the program began stays ignored, as `nohup` wants it.
//!
//! While a command has nothing to keep, the first one ends the program. Once it has ([`keep`]), the
//! first one asks it to stop at the next step and to keep what is finished, and a later one ends
//! the program at once. Nothing is half-written then, since files are written whole; what was
//! finished since the last file was written is lost.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::print;

/// Whether the command keeps what is finished.
static KEEPS: AtomicBool = AtomicBool::new(false);

/// When the command was asked to stop.
static ASKED: OnceLock<Instant> = OnceLock::new();

/// Signals so soon after the first are the same wish: `timeout` signals a process and then its
/// group, a terminal that is closed all processes and then their leader.
const SAME_WISH: Duration = Duration::from_millis(200);

/// How long the program waits for its own words before it quits; nobody may be reading them.
const PATIENCE: Duration = Duration::from_millis(50);

/// The exit code of a program that was interrupted.
pub(crate) const EXIT_CODE: u8 = 130;

/// Begins to listen.
#[cfg(unix)]
pub(crate) fn listen() -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    let heard = [SIGINT, SIGTERM, SIGHUP];
    let heard = heard
        .into_iter()
        .filter(|&signal| signal != SIGHUP || !is_ignored(signal));
    let mut signals = Signals::new(heard).context("cannot listen to signals")?;
    let listening = std::thread::Builder::new().spawn(move || {
        for _ in signals.forever() {
            handle();
        }
    });
    listening.map(drop).context("cannot start a thread")
}

/// Begins to listen.
#[cfg(not(unix))]
pub(crate) fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(handle).context("cannot listen to Ctrl-C")
}

/// Whether this process ignores a signal, as far as the operating system tells.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// From here on the command looks at [`go_on`] and keeps what is finished.
pub(crate) fn keep() {
    KEEPS.store(true, Ordering::SeqCst);
}

/// Whether nobody has asked the command to stop.
pub(crate) fn go_on() -> bool {
    ASKED.get().is_none()
}

fn handle() {
    if !KEEPS.load(Ordering::SeqCst) {
        say(match print::any() {
            true => "interrupted: what is printed is finished",
            false => "interrupted: nothing was finished",
        });
        std::process::exit(EXIT_CODE.into());
    }
    match ASKED.get() {
        None => {
            // First the word, for a command may end at once and have the last one.
            say("stopping after this step; what is finished will be kept (again to quit at once)");
            let _ = ASKED.set(Instant::now());
        }
        Some(first) if first.elapsed() < SAME_WISH => {}
        Some(_) => std::process::exit(EXIT_CODE.into()),
    }
}

/// Prints on the standard error, but does not wait for a reader.
fn say(text: &'static str) {
    let (done, printed) = mpsc::channel();
    let printing = move || {
        print::note(format_args!("\n{text}"));
        let _ = done.send(());
    };
    // Without another thread there is no word.
    if std::thread::Builder::new().spawn(printing).is_ok() {
        let _ = printed.recv_timeout(PATIENCE);
    }
}
