//! Runs of one regularizer taken together.

use relugrad_train::compare::{Comparison, Diverged, Run};
use relugrad_train::statistics::mean_and_deviation;

use super::measure::Measure;

/// The runs of a regularizer with one weight, one for each seed.
pub(super) struct Group<'c> {
    pub(super) regularizer: &'c str,
    pub(super) lambda: f64,
    pub(super) runs: Vec<&'c Run>,
    /// Those without numbers.
    pub(super) diverged: Vec<&'c Diverged>,
}

/// Mean and, for more than one value, sample standard deviation (`n − 1`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Statistic {
    pub(super) mean: f64,
    pub(super) deviation: Option<f64>,
}

/// A run, or what is left of it.
enum Ended<'c> {
    Finished(&'c Run),
    Diverged(&'c Diverged),
}

/// All runs in the order in which they were trained.
fn ended(comparison: &Comparison) -> impl Iterator<Item = Ended<'_>> {
    let (mut runs, mut diverged) = (
        comparison.runs.iter(),
        comparison.diverged.iter().peekable(),
    );
    (0..).map_while(
        move |number| match diverged.next_if(|run| run.number == number) {
            Some(run) => Some(Ended::Diverged(run)),
            None => runs.next().map(Ended::Finished),
        },
    )
}

/// The groups in the order in which they were trained.
pub(super) fn groups(comparison: &Comparison) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for ended in ended(comparison) {
        let (regularizer, lambda) = match ended {
            Ended::Finished(run) => (&run.regularizer, run.lambda),
            Ended::Diverged(run) => (&run.regularizer, run.lambda),
        };
        let same = |g: &Group| g.regularizer == regularizer && g.lambda == lambda;
        let place = groups.iter().position(same).unwrap_or(groups.len());
        if place == groups.len() {
            groups.push(Group {
                regularizer,
                lambda,
                runs: Vec::new(),
                diverged: Vec::new(),
            });
        }
        match ended {
            Ended::Finished(run) => groups[place].runs.push(run),
            Ended::Diverged(run) => groups[place].diverged.push(run),
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
        let (mean, deviation) = mean_and_deviation(values);
        Statistic { mean, deviation }
    }
}

/// For each regularizer the group that is most robust against the first attack of the table, in the
/// order of training; none of those of which all runs have diverged.
pub(super) fn representatives<'g, 'c>(
    comparison: &Comparison,
    groups: &'g [Group<'c>],
) -> Vec<&'g Group<'c>> {
    let attack = comparison.settings.attacks.iter().position(|a| a.headline);
    let measure = Measure::of(comparison);
    let robust = |group: &Group| match attack {
        Some(i) => group.statistic(|run| measure.robust(run, i)).mean,
        None => 0.0,
    };
    let mut best: Vec<&Group> = Vec::new();
    for group in groups.iter().filter(|group| !group.runs.is_empty()) {
        match best.iter_mut().find(|b| b.regularizer == group.regularizer) {
            Some(before) if measure.is_better(robust(group), robust(before)) => *before = group,
            Some(_) => {}
            None => best.push(group),
        }
    }
    best
}

/// Spearman's rank correlation of two lists of equal length, with mean ranks for equal values; NaN
/// if one is constant.
pub(super) fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum()
    };
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

/// The place of each value among all, from 0.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |v: &f64| {
        let below = values.iter().filter(|other| *other < v).count();
        let equal = values.iter().filter(|other| *other == v).count();
        below as f64 + (equal as f64 - 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// How well each measured penalty predicts robustness: Spearman's rank correlation of its mean with
/// accuracy or error under an attack, over all runs, the strongest first.
pub(super) fn predictors(comparison: &Comparison, attack: usize) -> Vec<(String, f64)> {
    let runs = &comparison.runs;
    let robust: Vec<f64> = runs
        .iter()
        .map(|r| r.evaluation.quality.robust()[attack])
        .collect();
    let penalties = runs
        .first()
        .map_or(&[][..], |run| &run.evaluation.penalties);
    let correlation = |i: usize| {
        let means: Vec<f64> = runs
            .iter()
            .map(|r| r.evaluation.penalties[i].mean)
            .collect();
        rank_correlation(&means, &robust)
    };
    let named = penalties.iter().enumerate();
    let mut found: Vec<(String, f64)> = named
        .map(|(i, penalty)| (penalty.name.clone(), correlation(i)))
        .collect();
    found.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    found
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
    use approx::assert_abs_diff_eq;
    use relugrad_train::compare::Measures;

    #[test]
    fn rank_correlations_by_hand() {
        assert_eq!(rank_correlation(&[1.0, 5.0, 9.0], &[0.1, 0.2, 7.0]), 1.0);
        assert_eq!(rank_correlation(&[1.0, 5.0, 9.0], &[3.0, 2.0, 1.0]), -1.0);
        // Ranks 0, 1.5, 1.5, 3 and 0, 1, 2, 3: 4.5/√(4.5 · 5).
        let tied = rank_correlation(&[1.0, 2.0, 2.0, 4.0], &[1.0, 2.0, 3.0, 4.0]);
        assert_abs_diff_eq!(tied, 4.5 / 22.5f64.sqrt(), epsilon = 1e-15);
        assert!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
    }

    #[test]
    fn the_best_predictor_is_the_first() {
        let comparison = fixture::comparison(&[0, 1]);
        let found = predictors(&comparison, 1);
        assert_eq!(found[0].0, "jacobian");
        assert!(found[0].1 < -0.8);
    }

    #[test]
    fn the_most_robust_weight_represents_a_regularizer() {
        let mut comparison = fixture::comparison(&[0]);
        let mut other = comparison.runs[1].clone();
        other.lambda = 0.1;
        if let Measures::Classes {
            robust_accuracy, ..
        } = &mut other.evaluation.quality
        {
            robust_accuracy[1] += 0.1;
        }
        comparison.runs.push(other);
        let groups = groups(&comparison);
        let best = representatives(&comparison, &groups);
        assert_eq!((groups.len(), best.len(), best[1].lambda), (3, 2, 0.1));
    }

    #[test]
    fn runs_that_diverged_are_in_their_place_and_in_no_mean() {
        let mut comparison = fixture::comparison(&[0, 1]);
        fixture::diverge(&mut comparison, 3);
        fixture::diverge(&mut comparison, 0);
        let groups = groups(&comparison);
        let found: Vec<(&str, usize, usize)> = groups
            .iter()
            .map(|g| (g.regularizer, g.runs.len(), g.diverged.len()))
            .collect();
        assert_eq!(found, [("none", 1, 1), ("jacobian", 1, 1)]);
        assert_eq!(groups[0].diverged[0].seed, 0);
        assert_eq!(groups[1].diverged[0].seed, 1);
        let clean = |group: &Group| group.statistic(|run| run.evaluation.quality.clean());
        assert_eq!(clean(&groups[0]), Statistic::new(&[0.77]));
        fixture::diverge(&mut comparison, 2);
        let groups = super::groups(&comparison);
        let best = representatives(&comparison, &groups);
        assert_eq!(
            (groups.len(), best.len(), best[0].regularizer),
            (2, 1, "jacobian")
        );
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
            groups[0].curve(|run, i| run.curve[i].train.loss),
            [(1.0, 1.0), (2.0, 0.5)]
        );
        assert_eq!(relative_time(&comparison, groups[1].runs[2]), 1.5);
    }
}
