//! Numbers that describe many.

use serde::{Deserialize, Serialize};

/// Quantiles of a quantity over samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The least value.
    pub least: f64,
    /// A quarter of the values is below.
    pub quarter: f64,
    /// Half of the values is below.
    pub median: f64,
    /// Three quarters of the values are below.
    pub three_quarters: f64,
    /// The largest value.
    pub largest: f64,
}

impl Quantiles {
    /// Those of some values, or `None` without any; between two values they are interpolated.
    pub fn of(mut values: Vec<f64>) -> Option<Quantiles> {
        values.sort_by(f64::total_cmp);
        let at = |share| quantile(&values, share);
        Some(Quantiles {
            least: at(0.0)?,
            quarter: at(0.25)?,
            median: at(0.5)?,
            three_quarters: at(0.75)?,
            largest: at(1.0)?,
        })
    }
}

/// A quantile of values in ascending order, interpolated between two of them; `None` without any.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    // The next may be infinite.
    Some(match part == 0.0 {
        true => sorted[low],
        false => (1.0 - part) * sorted[low] + part * sorted[low + 1],
    })
}

/// The middle value, or the mean of the two in the middle; `None` without any.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// Mean, and the standard deviation of a sample if there are two values or more.
pub fn mean_and_deviation(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (
        mean,
        (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated() {
        let found = Quantiles::of(vec![3.0, 1.0, 2.0, 5.0]).unwrap();
        let all = [
            found.least,
            found.quarter,
            found.median,
            found.three_quarters,
            found.largest,
        ];
        assert_eq!(all, [1.0, 1.75, 2.5, 3.5, 5.0]);
        assert_eq!(
            Quantiles::of(vec![f64::INFINITY; 2]).unwrap().median,
            f64::INFINITY
        );
        assert!(Quantiles::of(Vec::new()).is_none());
    }

    #[test]
    fn mean_and_deviation_by_hand() {
        assert_eq!(
            mean_and_deviation(&[1.0, 2.0, 6.0]),
            (3.0, Some(7f64.sqrt()))
        );
        assert_eq!(mean_and_deviation(&[5.0]).1, None);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!((median(vec![]), median(vec![7.0])), (None, Some(7.0)));
    }
}
