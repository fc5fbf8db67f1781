//! Words about work that takes long, said by a thread of their own: the work need not know.
//!
//! Nothing is said in the first two seconds. Then a terminal shows what is done and for how long, and
//! everywhere else a line says it now and then.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{print, threads};

/// What takes less is not worth a word.
const PATIENCE: Duration = Duration::from_secs(2);

/// From one line to the next.
const INTERVAL: Duration = Duration::from_secs(10);

/// How often a terminal is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// What is done, until it is dropped.
pub(crate) struct Waiting {
    state: Arc<Mutex<State>>,
    ended: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    what: String,
    began: Instant,
    /// When something was last said, by whomever.
    said: Option<Instant>,
}

impl Waiting {
    /// Begins to wait for something, such as `reading mnist/`.
    pub(crate) fn new(what: impl Into<String>) -> Waiting {
        Waiting::on(what.into(), std::io::stderr().is_terminal())
    }

    /// The same where a bar is shown on a terminal: lines elsewhere alone.
    pub(crate) fn beside_a_bar(what: impl Into<String>) -> Option<Waiting> {
        let terminal = std::io::stderr().is_terminal();
        (!terminal).then(|| Waiting::on(what.into(), false))
    }

    fn on(what: String, terminal: bool) -> Waiting {
        let state = Arc::new(Mutex::new(State {
            what,
            began: Instant::now(),
            said: None,
        }));
        let (ended, end) = mpsc::channel::<()>();
        let own = Arc::clone(&state);
        let tell = move || {
            let mut shown = None;
            while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                match terminal {
                    true => draw(&held(&own), &mut shown),
                    false => say(&mut held(&own)),
                }
            }
            shown.iter().for_each(ProgressBar::finish_and_clear);
        };
        Waiting {
            // Without a thread nothing is said, and the work goes on.
            thread: threads::aside(tell).ok(),
            ended: Some(ended),
            state,
        }
    }

    /// Changes what is done.
    pub(crate) fn set(&self, what: impl Into<String>) {
        held(&self.state).what = what.into();
    }

    /// Remembers that something else has just been said.
    pub(crate) fn said(&self) {
        held(&self.state).said = Some(Instant::now());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.ended = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn held(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn say(state: &mut State) {
    let due = match state.said {
        None => state.began.elapsed() >= PATIENCE,
        Some(said) => said.elapsed() >= INTERVAL,
    };
    if due && !state.what.is_empty() {
        let seconds = state.began.elapsed().as_secs();
        print::note(format_args!("{}, {seconds} s", state.what));
        state.said = Some(Instant::now());
    }
}

fn draw(state: &State, shown: &mut Option<ProgressBar>) {
    if state.began.elapsed() < PATIENCE {
        return;
    }
    let bar = shown.get_or_insert_with(|| {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.with_elapsed(state.began.elapsed())
            .with_style(style.expect("the template is well-formed"))
    });
    bar.set_message(state.what.clone());
    bar.tick();
}
