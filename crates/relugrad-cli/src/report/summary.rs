//! Runs of one regularizer taken together.

use relugrad_train::compare::{Comparison, Run};

/// The runs of a regularizer with one weight, one for each seed.
pub(super) struct Group<'c> {
    pub(super) regularizer: &'c str,
    pub(super) lambda: f64,
    pub(super) runs: Vec<&'c Run>,
}

/// Mean and, for more than one value, sample standard deviation (`n − 1`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Statistic {
    pub(super) mean: f64,
    pub(super) deviation: Option<f64>,
}

/// The groups in the order in which they were trained.
pub(super) fn groups(comparison: &Comparison) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for run in &comparison.runs {
        let same = |g: &&mut Group| g.regularizer == run.regularizer && g.lambda == run.lambda;
        match groups.iter_mut().find(same) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group {
                regularizer: &run.regularizer,
                lambda: run.lambda,
                runs: vec![run],
            }),
        }
    }
    groups
}

impl Group<'_> {
    /// A number of every run, taken together.
    pub(super) fn statistic(&self, value: impl Fn(&Run) -> f64) -> Statistic {
        Statistic::new(&self.runs.iter().map(|run| value(run)).collect::<Vec<f64>>())
    }

    /// The mean over the runs at each epoch that all of them have.
    pub(super) fn curve(&self, value: impl Fn(&Run, usize) -> f64) -> Vec<(f64, f64)> {
        let epochs = self
            .runs
            .iter()
            .map(|run| run.curve.len())
            .min()
            .unwrap_or(0);
        let mean = |i: usize| self.statistic(|run| value(run, i)).mean;
        (0..epochs).map(|i| ((i + 1) as f64, mean(i))).collect()
    }
}

impl Statistic {
    fn new(values: &[f64]) -> Statistic {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Statistic {
            mean,
            deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
        }
    }
}

/// Time of a step relative to plain training with the same seed; NaN without such a run.
pub(super) fn relative_time(comparison: &Comparison, run: &Run) -> f64 {
    let plain = |other: &&Run| other.regularizer == "none" && other.seed == run.seed;
    let plain = comparison.runs.iter().find(plain);
    plain.map_or(f64::NAN, |plain| {
        run.step_milliseconds / plain.step_milliseconds
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn mean_and_deviation_by_hand() {
        let found = Statistic::new(&[1.0, 2.0, 6.0]);
        assert_eq!((found.mean, found.deviation), (3.0, Some(7f64.sqrt())));
        assert_eq!(Statistic::new(&[5.0]).deviation, None);
    }

    #[test]
    fn seeds_of_a_regularizer_are_one_group() {
        let comparison = fixture::comparison(&[0, 1, 2]);
        let groups = groups(&comparison);
        assert_eq!(groups.len(), 2);
        assert_eq!(
            (groups[1].regularizer, groups[1].runs.len()),
            ("jacobian", 3)
        );
        assert_eq!(
            groups[0].curve(|run, i| run.curve[i].train_loss),
            [(1.0, 1.0), (2.0, 0.5)]
        );
        assert_eq!(relative_time(&comparison, groups[1].runs[2]), 1.5);
    }
}
