//! Printing: the only place that writes to the standard output and the standard error.
//!
//! Nothing here ends the work. A standard output that takes no more is remembered until the command
//! is done, so files are written whatever becomes of the text; a standard error that takes no more
//! is let go.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why the standard output takes no more.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Whether a line has been printed.
static PRINTED: AtomicBool = AtomicBool::new(false);

/// Prints a line, or several, to the standard output.
pub(crate) fn line(text: impl Display) {
    if is_lost() {
        return;
    }
    let mut out = io::stdout().lock();
    let text = format!("{}\n", Shown(text));
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => PRINTED.store(true, Ordering::SeqCst),
        Err(error) => lose(error),
    }
}

/// Prints what a program reads, as it is.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        lose(error);
    }
}

/// Prints a line to the standard error, for whoever can see it.
pub(crate) fn note(text: impl Display) {
    let text = format!("{}\n", Shown(text));
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A text as it is shown: what a file may have put into it, a terminal does not obey.
struct Shown<T>(T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = self.0.to_string();
        let mut lines = text.split('\n').map(relugrad_io::printable);
        f.write_str(&lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| write!(f, "\n{line}"))
    }
}

/// The beginning of a text that is longer than a line should be, and how many characters more it
/// has.
pub(crate) fn abridged(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut places = text.char_indices().skip(SHOWN);
    match (places.next(), places.count()) {
        // An ellipsis would be no shorter.
        (None, _) | (_, ..16) => text.to_owned(),
        (Some((end, _)), more) => format!("{}… ({} more)", &text[..end], more + 1),
    }
}

/// Whether the standard output takes no more.
pub(crate) fn is_lost() -> bool {
    LOST.get().is_some()
}

/// Whether a line has been printed.
pub(crate) fn any() -> bool {
    PRINTED.load(Ordering::SeqCst)
}

/// Says on the standard error that output was lost. A reader that has seen enough, as `head` has,
/// is not told of.
pub(crate) fn tell_lost() -> bool {
    let error = LOST.get();
    let error = error.filter(|error| error.kind() != ErrorKind::BrokenPipe);
    if let Some(error) = error {
        note(format_args!(
            "error: cannot write to the standard output: {error}"
        ));
    }
    error.is_some()
}

/// Prints a help, a version, or what is wrong with the options; whether it arrived.
pub(crate) fn clap(message: &clap::Error) -> bool {
    let text = message.render().to_string();
    let shown = Shown(&text).to_string();
    let printed = match (shown == text, message.use_stderr()) {
        (true, _) => message.print(),
        (false, true) => io::stderr().write_all(shown.as_bytes()),
        (false, false) => io::stdout().write_all(shown.as_bytes()),
    };
    let printed = printed.and_then(|()| io::stdout().flush());
    if let (Err(error), false) = (printed, message.use_stderr()) {
        lose(error);
    }
    !tell_lost()
}

/// Remembers why the standard output takes no more; the first reason counts.
fn lose(error: io::Error) {
    let _ = LOST.set(error);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_texts_are_abridged() {
        let text = |n: usize| "ß".repeat(n);
        assert_eq!(abridged(&text(76)), text(76));
        assert_eq!(abridged(&text(77)), format!("{}… (17 more)", text(60)));
        assert_eq!(
            abridged(&text(70_000)),
            format!("{}… (69940 more)", text(60))
        );
    }

    #[test]
    fn lines_stay_lines_and_escapes_are_shown() {
        let text = Shown("one\n\ttwo \u{1b}[2J\u{202e}\n");
        assert_eq!(text.to_string(), "one\n\ttwo \\u{1b}[2J\\u{202e}\n");
    }
}
