//! How learning rate and penalty weights change in the course of a training.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Result, check_range};

/// The factor of the learning rate after a share `t` of the training, from 0 at its first step to 1
/// at its end.
///
/// Before it, over the first `warmup` epochs, the factor also grows linearly from 0: the step `s`,
/// counted from 0, of `w` steps of warm-up has the factor `(s + 1)/w`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Schedule {
    /// The curve after the warm-up.
    pub name: Curve,
    /// Epochs of linear growth from 0.
    pub warmup: f64,
    /// For `step`: epochs after which the rate is multiplied by `factor`, again and again.
    pub every: f64,
    /// For `step`: the factor.
    pub factor: f64,
    /// For `cosine` and `one-cycle`: the last factor.
    pub last: f64,
    /// For `one-cycle`: the share of the training in which the rate grows, from `1/25`.
    pub rise: f64,
}

/// The curve of a [`Schedule`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// 1.
    #[default]
    Constant,
    /// `factor` to the power of the number of `every` epochs gone by.
    Step,
    /// `last + (1 − last)(1 + cos πt)/2` (Loshchilov & Hutter 2017, without restarts).
    Cosine,
    /// From `1/25` to 1 by half a cosine, then to `last` by another (Smith & Topin 2019).
    OneCycle,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule {
            name: Curve::Constant,
            warmup: 0.0,
            every: 10.0,
            factor: 0.1,
            last: 0.0,
            rise: 0.3,
        }
    }
}

/// Where a one-cycle schedule begins, as in its authors' library.
const CYCLE_START: f64 = 1.0 / 25.0;

/// Half a cosine from `from` at 0 to `to` at 1.
fn cosine(from: f64, to: f64, t: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * t).cos())
}

/// A place in a training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The step, from 0.
    pub(crate) step: u64,
    /// Steps in an epoch.
    pub(crate) per_epoch: u64,
    /// Steps in all epochs.
    pub(crate) steps: u64,
}

impl Place {
    fn epochs(self) -> f64 {
        self.step as f64 / self.per_epoch as f64
    }

    fn share(self) -> f64 {
        self.step as f64 / (self.steps.max(2) - 1) as f64
    }
}

impl Schedule {
    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange).
    pub fn check(&self) -> Result<()> {
        let at_least_0 = |x: f64| x >= 0.0 && x.is_finite();
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let inner = |x: f64| x > 0.0 && x < 1.0;
        let (warmup, every) = (self.warmup, self.every);
        check_range(
            "warmup of the schedule",
            warmup,
            at_least_0(warmup),
            "at least 0",
        )?;
        check_range("every of the schedule", every, positive(every), "positive")?;
        let factor = self.factor;
        let fits = factor > 0.0 && share(factor);
        check_range("factor of the schedule", factor, fits, "in (0, 1]")?;
        check_range(
            "last of the schedule",
            self.last,
            share(self.last),
            "in [0, 1]",
        )?;
        check_range(
            "rise of the schedule",
            self.rise,
            inner(self.rise),
            "between 0 and 1",
        )
    }

    /// The factor of the learning rate.
    pub(crate) fn factor(&self, at: Place) -> f64 {
        let warmup = self.warmup * at.per_epoch as f64;
        let growing = if warmup > 0.0 {
            ((at.step + 1) as f64 / warmup).min(1.0)
        } else {
            1.0
        };
        growing * self.curve(at)
    }

    fn curve(&self, at: Place) -> f64 {
        let t = at.share();
        match self.name {
            Curve::Constant => 1.0,
            Curve::Step => self.factor.powf((at.epochs() / self.every).floor()),
            Curve::Cosine => cosine(1.0, self.last, t),
            Curve::OneCycle if t < self.rise => cosine(CYCLE_START, 1.0, t / self.rise),
            Curve::OneCycle => cosine(1.0, self.last, (t - self.rise) / (1.0 - self.rise)),
        }
    }
}

/// The factor of all penalties' weights in the course of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ramp {
    /// How it grows.
    pub name: RampCurve,
    /// Epochs after which it is 1; 0 for 1 from the start.
    pub epochs: f64,
}

/// The curve of a [`Ramp`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RampCurve {
    /// 1 from the start.
    Constant,
    /// From 0 in a straight line.
    #[default]
    Linear,
    /// From 0 by half a cosine.
    Cosine,
}

impl Ramp {
    /// Growth in a straight line over so many epochs.
    pub fn linear(epochs: f64) -> Ramp {
        Ramp {
            name: RampCurve::Linear,
            epochs,
        }
    }

    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange).
    pub fn check(&self) -> Result<()> {
        let valid = self.epochs >= 0.0 && self.epochs.is_finite();
        check_range("epochs of the ramp", self.epochs, valid, "at least 0")
    }

    pub(crate) fn factor(&self, at: Place) -> f64 {
        let steps = self.epochs * at.per_epoch as f64;
        if steps <= 0.0 {
            return 1.0;
        }
        let t = (at.step as f64 / steps).min(1.0);
        match self.name {
            RampCurve::Constant => 1.0,
            RampCurve::Linear => t,
            RampCurve::Cosine => cosine(0.0, 1.0, t),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    fn at(step: u64) -> Place {
        Place {
            step,
            per_epoch: 10,
            steps: 101,
        }
    }

    fn factors(schedule: Schedule, steps: &[u64]) -> Vec<f64> {
        let round = |x: f64| (x * 1e6).round() / 1e6;
        steps
            .iter()
            .map(|&s| round(schedule.factor(at(s))))
            .collect()
    }

    #[test]
    fn curves_by_hand() {
        let schedule = |name| Schedule {
            name,
            ..Schedule::default()
        };
        assert_eq!(factors(schedule(Curve::Constant), &[0, 100]), [1.0, 1.0]);
        let step = Schedule {
            every: 3.0,
            factor: 0.5,
            ..schedule(Curve::Step)
        };
        assert_eq!(
            factors(step, &[0, 29, 30, 60, 99]),
            [1.0, 1.0, 0.5, 0.25, 0.125]
        );
        let cosine = Schedule {
            last: 0.2,
            ..schedule(Curve::Cosine)
        };
        assert_eq!(factors(cosine, &[0, 50, 100]), [1.0, 0.6, 0.2]);
        let cycle = Schedule {
            rise: 0.25,
            ..schedule(Curve::OneCycle)
        };
        assert_eq!(factors(cycle, &[0, 25, 100]), [0.04, 1.0, 0.0]);
    }

    #[test]
    fn warm_up_multiplies_and_reaches_one() {
        let warm = Schedule {
            warmup: 0.5,
            ..Schedule::default()
        };
        assert_eq!(factors(warm, &[0, 1, 4, 5]), [0.2, 0.4, 1.0, 1.0]);
    }

    #[test]
    fn ramps_by_hand() {
        let ramp = |name| Ramp { name, epochs: 2.0 };
        let factor = |name, step| ramp(name).factor(at(step));
        assert_eq!(factor(RampCurve::Linear, 0), 0.0);
        assert_eq!(factor(RampCurve::Linear, 5), 0.25);
        assert_abs_diff_eq!(factor(RampCurve::Cosine, 10), 0.5, epsilon = 1e-12);
        assert_eq!(factor(RampCurve::Constant, 0), 1.0);
        assert_eq!(factor(RampCurve::Linear, 77), 1.0);
        assert_eq!(Ramp::default().factor(at(0)), 1.0);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for bad in [
            Schedule {
                warmup: -1.0,
                ..Schedule::default()
            },
            Schedule {
                every: 0.0,
                ..Schedule::default()
            },
            Schedule {
                factor: 2.0,
                ..Schedule::default()
            },
            Schedule {
                last: f64::NAN,
                ..Schedule::default()
            },
            Schedule {
                rise: 1.0,
                ..Schedule::default()
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(Ramp::linear(f64::INFINITY).check().is_err());
    }
}
