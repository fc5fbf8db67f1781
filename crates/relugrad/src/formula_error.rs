//! What is wrong with a formula, and where.

use std::fmt;
use std::ops::Range;

/// How many characters of a line are shown around the place.
const WINDOW: usize = 72;

/// A place in a text and what is wrong there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) place: Range<usize>,
    pub(crate) problem: String,
}

impl Fault {
    pub(crate) fn new(place: Range<usize>, problem: impl Into<String>) -> Fault {
        Fault {
            place,
            problem: problem.into(),
        }
    }
}

/// A formula that is none: what is wrong, and where in its text.
///
/// It is shown with the line of the text and carets under the place.
#[derive(Clone, Debug, PartialEq)]
pub struct FormulaError {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) fault: Fault,
}

impl FormulaError {
    /// The name of the formula.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of the formula.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where in the text: a range of bytes.
    pub fn place(&self) -> Range<usize> {
        let Range { start, end } = self.fault.place;
        let length = self.text.len();
        start.min(length)..end.min(length)
    }

    /// What is wrong there, and what would be right.
    pub fn problem(&self) -> &str {
        &self.fault.problem
    }
}

impl std::error::Error for FormulaError {}

impl fmt::Display for FormulaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "formula {}: {}", self.name, self.fault.problem)?;
        if self.text.trim().is_empty() {
            return Ok(());
        }
        let (line, carets) = marked(&self.text, &self.fault.place);
        write!(f, "\n  {line}\n  {carets}")
    }
}

/// The part of a text around a place, and carets under it.
fn marked(text: &str, place: &Range<usize>) -> (String, String) {
    let start = boundary(text, place.start);
    let end = boundary(text, place.end.max(start));
    let begin = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let stop = text[start..].find('\n').map_or(text.len(), |n| start + n);
    let shown = |part: &str| -> Vec<char> { part.chars().map(printable).collect() };
    let (mut before, mut after) = (shown(&text[begin..start]), shown(&text[start..stop]));
    let marked = text[start..end.min(stop).max(start)].chars().count().max(1);
    if before.len() > WINDOW / 2 {
        before = [vec!['…'], before[before.len() - WINDOW / 2..].to_vec()].concat();
    }
    let room = WINDOW.saturating_sub(before.len()).max(1);
    if after.len() > room {
        after.truncate(room);
        after.push('…');
    }
    let carets = " ".repeat(before.len()) + &"^".repeat(marked.min(room));
    (before.into_iter().chain(after).collect(), carets)
}

/// The last place up to this one that is between two characters.
fn boundary(text: &str, place: usize) -> usize {
    let mut places = (0..=place.min(text.len())).rev();
    places.find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

/// A terminal is to show the text, not to obey it.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, place: Range<usize>) -> String {
        let error = FormulaError {
            name: "margin".into(),
            text: text.into(),
            fault: Fault::new(place, "is wrong"),
        };
        error.to_string()
    }

    #[test]
    fn carets_are_under_the_place() {
        assert_eq!(
            shown("tr(G) + f", 8..9),
            "formula margin: is wrong\n  tr(G) + f\n          ^"
        );
        assert_eq!(
            shown("1 +\n\ttr(ε)\n+ 2", 8..10),
            "formula margin: is wrong\n   tr(ε)\n      ^"
        );
        assert_eq!(shown("", 0..0), "formula margin: is wrong");
        assert!(shown("\u{1b}[31m", 0..1).contains("\u{fffd}[31m"));
    }

    #[test]
    fn of_a_long_text_only_a_part_is_shown() {
        let text = "1 + ".repeat(100);
        let shown = shown(&text, 200..201);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 80));
        assert!(lines[1].starts_with("  …") && lines[1].ends_with('…'));
        let place = lines[2].find('^').unwrap();
        assert_eq!(lines[1].chars().nth(place), Some('1'));
    }
}
