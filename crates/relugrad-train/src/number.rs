//! Numbers as people write them.

/// A finite number such as `0.1`, `1e-3` or the fraction `8/255`.
pub fn parse_number(text: &str) -> Option<f64> {
    let part = |text: &str| text.trim().parse::<f64>().ok();
    let number = match text.split_once('/') {
        None => part(text)?,
        Some((above, below)) => part(above)? / part(below)?,
    };
    number.is_finite().then_some(number)
}

/// Several of them with commas between.
pub fn parse_numbers(text: &str) -> Option<Vec<f64>> {
    text.split(',').map(parse_number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_numbers() {
        for (text, number) in [
            ("8/255", 8.0 / 255.0),
            (" -1 / 4 ", -0.25),
            ("1e-3/2", 5e-4),
            ("0.25", 0.25),
        ] {
            assert_eq!(parse_number(text), Some(number), "{text}");
        }
        for wrong in [
            "", "/", "1/0", "1/2/3", "8/", "/255", "nan", "inf", "1/inf/", "a/b",
        ] {
            assert_eq!(parse_number(wrong), None, "{wrong}");
        }
        assert_eq!(parse_numbers("1,1/4"), Some(vec![1.0, 0.25]));
        assert_eq!(parse_numbers("1,"), None);
    }
}
