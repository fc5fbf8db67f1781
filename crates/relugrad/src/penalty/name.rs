//! The penalties' names, which are the same in options, files and tables.

use std::fmt;
use std::str::FromStr;

use super::{Direction, Hinge, Penalty};
use crate::error::{Error, Result};
use crate::region::Metric;

/// The step of CURE when none is given, in input units.
const CURE_STEP: f64 = 1.5;

/// How many hyperplanes count when nothing is said.
const NEAREST: usize = 50;

/// How alike a name must be to be suggested; 1 is equal.
const ALIKE: f64 = 0.75;

impl Penalty {
    /// Every penalty on the derivatives at a sample, with its default options.
    pub fn all() -> Vec<Penalty> {
        use Penalty::*;
        let cure = |direction| Cure {
            step: CURE_STEP,
            direction,
        };
        vec![
            InputGradient,
            InputGradientL2,
            InputGradientL1,
            InputGradientLinf,
            Jacobian,
            JacobianSpectral,
            JacobianNuclear,
            JacobianProjected { rows: 1, seed: 0 },
            JacobianProbabilities,
            CrossLipschitz,
            CurvatureTrace,
            CurvatureFrobenius,
            CurvatureSpectral,
            CurvatureDirectional,
            cure(Direction::Sign),
            cure(Direction::Gradient { held: false }),
        ]
    }

    /// Every penalty on the hyperplanes around a sample, with its default options. They cost much more than the others, and
    /// are in no list of all.
    pub fn geometric() -> Vec<Penalty> {
        let hinge = |metric, radius| Hinge {
            metric,
            nearest: NEAREST,
            radius,
        };
        let kinks = |direction| Penalty::CureKinks {
            step: CURE_STEP,
            direction,
        };
        let (l1, l2, linf) = (
            hinge(Metric::L1, 2.0),
            hinge(Metric::L2, 0.5),
            hinge(Metric::Linf, 0.1),
        );
        vec![
            kinks(Direction::Sign),
            kinks(Direction::Gradient { held: false }),
            Penalty::RegionBoundary(l1),
            Penalty::RegionBoundary(l2),
            Penalty::RegionBoundary(linf),
            Penalty::DecisionBoundary(l1),
            Penalty::DecisionBoundary(l2),
            Penalty::DecisionBoundary(linf),
            Penalty::MaximumMargin(l1),
            Penalty::MaximumMargin(l2),
            Penalty::MaximumMargin(linf),
        ]
    }

    /// Its name, such as `curvature-trace`.
    pub fn name(&self) -> &'static str {
        match self {
            Penalty::InputGradient => "input-gradient",
            Penalty::InputGradientL2 => "input-gradient-l2",
            Penalty::InputGradientL1 => "input-gradient-l1",
            Penalty::InputGradientLinf => "input-gradient-linf",
            Penalty::Jacobian => "jacobian",
            Penalty::JacobianSpectral => "jacobian-spectral",
            Penalty::JacobianNuclear => "jacobian-nuclear",
            Penalty::JacobianProjected { .. } => "jacobian-projected",
            Penalty::JacobianProbabilities => "jacobian-probabilities",
            Penalty::CrossLipschitz => "cross-lipschitz",
            Penalty::CurvatureTrace => "curvature-trace",
            Penalty::CurvatureFrobenius => "curvature-frobenius",
            Penalty::CurvatureSpectral => "curvature-spectral",
            Penalty::CurvatureDirectional => "curvature-directional",
            Penalty::Cure { direction, .. } => match direction {
                Direction::Sign => "cure",
                Direction::Gradient { .. } => "cure-gradient",
            },
            Penalty::CureKinks { direction, .. } => match direction {
                Direction::Sign => "cure-kinks",
                Direction::Gradient { .. } => "cure-gradient-kinks",
            },
            Penalty::RegionBoundary(hinge) => match hinge.metric {
                Metric::L1 => "region-boundary-l1",
                Metric::L2 => "region-boundary-l2",
                Metric::Linf => "region-boundary-linf",
            },
            Penalty::DecisionBoundary(hinge) => match hinge.metric {
                Metric::L1 => "decision-boundary-l1",
                Metric::L2 => "decision-boundary-l2",
                Metric::Linf => "decision-boundary-linf",
            },
            Penalty::MaximumMargin(hinge) => match hinge.metric {
                Metric::L1 => "maximum-margin-l1",
                Metric::L2 => "maximum-margin-l2",
                Metric::Linf => "maximum-margin-linf",
            },
        }
    }
}

impl fmt::Display for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Penalty {
    type Err = Error;

    /// The penalty of that name with its default options: `m = 1` and seed 0 for `jacobian-projected`, `h = 1.5`
    /// for `cure` and `cure-kinks` (`z = sign(g)/‖sign(g)‖`) and `cure-gradient` and `cure-gradient-kinks` (`z = g/‖g‖`),
    /// the 50 nearest hyperplanes and a radius of 2 in ℓ1, 0.5 in ℓ2 and 0.1 in ℓ∞ for boundaries and the margin.
    fn from_str(name: &str) -> Result<Penalty> {
        let mut all = Penalty::all();
        all.extend(Penalty::geometric());
        if let Some(found) = all.iter().position(|penalty| penalty.name() == name) {
            return Ok(all.swap_remove(found));
        }
        let alike = |penalty: &Penalty| strsim::jaro_winkler(penalty.name(), name);
        let best = all.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
        Err(Error::UnknownPenalty {
            name: name.to_owned(),
            nearest: best.filter(|p| alike(p) >= ALIKE).map(Penalty::name),
            known: all.iter().map(Penalty::name).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for penalty in [Penalty::all(), Penalty::geometric()].concat() {
            assert_eq!(penalty.name().parse::<Penalty>().unwrap(), penalty);
        }
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_near_one() {
        let message = |name: &str| name.parse::<Penalty>().unwrap_err().to_string();
        assert_eq!(
            message("jacobain"),
            "no penalty is called `jacobain`; did you mean `jacobian`?"
        );
        assert!(message("zzz").contains("the names are input-gradient, "));
    }
}
