//! Names of files and of what is in them, as they are shown.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The text without what a terminal or a browser obeys: control characters and marks of the
/// direction of writing stand there escaped.
///
/// ```
/// assert_eq!(relugrad_io::printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(obeyed) {
        return text.into();
    }
    Printable(text).to_string().into()
}

/// Whether a character does something besides being shown. A tab only moves.
fn obeyed(c: char) -> bool {
    c.is_control() && c != '\t'
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What is shown, with [`printable`]'s escapes.
pub(crate) struct Printable<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match obeyed(c) {
            true => write!(self.0, "{}", c.escape_default()),
            false => self.0.write_char(c),
        })
    }
}

/// A number of bytes in words.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        match self.0 {
            u64::MAX => write!(f, "more than 16 EiB"),
            bytes if bytes < 1024 => write!(f, "{bytes} bytes"),
            bytes => {
                let power = bytes.ilog2() / 10;
                let number = bytes as f64 / (1u64 << (10 * power)) as f64;
                let rounded = (number * 10.0).round() / 10.0;
                write!(f, "{rounded} {}", UNITS[power as usize - 1])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_obeyed_is_escaped() {
        assert!(matches!(printable("größe 層 \\n `x`"), Cow::Borrowed(_)));
        assert_eq!(
            printable("a\nb\r\u{202e}c\u{9b}"),
            "a\\nb\\r\\u{202e}c\\u{9b}"
        );
    }
}
