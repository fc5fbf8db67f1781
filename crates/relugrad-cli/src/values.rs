//! Numbers in options, with a word on what they must be.

pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("it must be a whole number of at least 1".into()),
    }
}

fn number(text: &str, valid: fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if valid(value) => Ok(value),
        _ => Err(format!("it must be {expected}")),
    }
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    number(text, |x| x.is_finite() && x > 0.0, "a positive number")
}

pub(crate) fn non_negative(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| x.is_finite() && x >= 0.0,
        "a number of at least 0",
    )
}

pub(crate) fn share(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0 && x < 1.0, "a number between 0 and 1")
}
