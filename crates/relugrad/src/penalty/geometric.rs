//! Penalties on the hyperplanes where gates switch, around the sample or on the way from it. They
//! have a stage of their own in the engine, since hyperplanes are more than a sample's derivatives.

use super::catalogue::{CatalogueEntry, PenaltyOption};
use super::cure::{HELD, STEP, step_options};
use super::{Described, Direction, OptionValue, Penalty, Promises};
use crate::error::{Error, Result, check_non_negative};
use crate::norm::Norm;

/// How distances to hyperplanes are made a penalty, `(1/k) Σ_{j ≤ k} max(0, 1 − d_j/γ)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hinge {
    /// The norm of the distances.
    pub norm: Norm,
    /// How many hyperplanes `k ≥ 1` count, the nearest ones; all if there are fewer.
    pub nearest: usize,
    /// The distance `γ > 0` from which on there is no penalty, in input units.
    pub radius: f64,
}

impl Hinge {
    /// The value at a distance.
    pub(crate) fn value(&self, distance: f64) -> f64 {
        (1.0 - distance / self.radius).max(0.0)
    }
}

/// A penalty on hyperplanes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Geometric {
    /// The part of CURE that jumps.
    Kinks { step: f64, direction: Direction },
    /// The hyperplanes of the sample's region.
    Region(Hinge),
    /// The hyperplanes where the decision changes.
    Decision(Hinge),
    /// Both.
    Margin(Hinge),
}

impl Hinge {
    /// Its entry among the three of a kind.
    pub(super) fn entry(&self, entries: &'static [CatalogueEntry; 3]) -> &'static CatalogueEntry {
        match self.norm {
            Norm::L1 => &entries[0],
            Norm::L2 => &entries[1],
            Norm::Linf => &entries[2],
        }
    }
}

/// The entry of the part of CURE that jumps.
pub(super) fn kinks(direction: Direction) -> &'static CatalogueEntry {
    match direction {
        Direction::Sign => &KINKS,
        Direction::Gradient { .. } => &GRADIENT_KINKS,
    }
}

impl Described for Geometric {
    fn name(&self) -> &str {
        let entry = match self {
            Geometric::Kinks { direction, .. } => kinks(*direction),
            Geometric::Region(hinge) => hinge.entry(&REGION),
            Geometric::Decision(hinge) => hinge.entry(&DECISION),
            Geometric::Margin(hinge) => hinge.entry(&MARGIN),
        };
        entry.name
    }

    fn instead_of_classes(&self) -> Option<&'static str> {
        match self {
            Geometric::Kinks { .. } | Geometric::Region(_) => None,
            Geometric::Decision(_) | Geometric::Margin(_) => {
                Some("region-boundary-linf, -l2 or -l1")
            }
        }
    }

    fn options(&self) -> Vec<(&'static str, OptionValue)> {
        match self {
            Geometric::Kinks { step, direction } => step_options(*step, *direction),
            Geometric::Region(hinge) | Geometric::Decision(hinge) | Geometric::Margin(hinge) => {
                vec![
                    ("nearest", OptionValue::Count(hinge.nearest as u64)),
                    ("radius", OptionValue::Number(hinge.radius)),
                ]
            }
        }
    }

    fn promises(&self) -> Promises {
        Promises::logit_differences()
    }

    fn check(&self) -> Result<()> {
        let hinge = match self {
            Geometric::Kinks { step, .. } => {
                return check_non_negative(&format!("step of {}", self.name()), *step);
            }
            Geometric::Region(hinge) | Geometric::Decision(hinge) | Geometric::Margin(hinge) => {
                hinge
            }
        };
        if !(hinge.radius.is_finite() && hinge.radius > 0.0) {
            return Err(Error::OutOfRange {
                option: format!("radius of {}", self.name()),
                value: hinge.radius,
                expected: "finite and positive",
            });
        }
        match hinge.nearest {
            0 => Err(Error::OutOfRange {
                option: format!("nearest of {}", self.name()),
                value: 0.0,
                expected: "at least 1",
            }),
            _ => Ok(()),
        }
    }
}

pub(super) static KINKS: CatalogueEntry = CatalogueEntry {
    name: "cure-kinks",
    formula: "‖Σ (J_{i+1} − J_i)ᵀ r(t_i)‖²",
    meaning: "the part of CURE's change of the gradient that jumps where units switch on the way, along the sign",
    weight: 0.3,
    options: &[STEP],
    make: |options| Penalty::CureKinks {
        step: options.number("step"),
        direction: Direction::Sign,
    },
};

pub(super) static GRADIENT_KINKS: CatalogueEntry = CatalogueEntry {
    name: "cure-gradient-kinks",
    formula: "‖Σ (J_{i+1} − J_i)ᵀ r(t_i)‖²",
    meaning: "the part of CURE's change of the gradient that jumps where units switch on the way, along the gradient",
    weight: 0.3,
    options: &[STEP, HELD],
    make: |options| Penalty::CureKinks {
        step: options.number("step"),
        direction: Direction::Gradient {
            held: options.flag("held"),
        },
    },
};

const NEAREST: PenaltyOption = PenaltyOption {
    name: "nearest",
    default: OptionValue::Count(50),
    range: "at least 1",
    words: &[],
    meaning: "how many hyperplanes count, the nearest ones",
};

/// The option `radius`, whose default depends on the norm.
const fn radius(default: f64) -> PenaltyOption {
    PenaltyOption {
        name: "radius",
        default: OptionValue::Number(default),
        range: "finite and positive, in input units",
        words: &[],
        meaning: "distance γ from which on there is no penalty",
    }
}

const L1: &[PenaltyOption] = &[NEAREST, radius(2.0)];
const L2: &[PenaltyOption] = &[NEAREST, radius(0.5)];
const LINF: &[PenaltyOption] = &[NEAREST, radius(0.1)];

/// The three entries of a kind, by norm.
macro_rules! hinges {
    ($entries:ident, $variant:ident, $names:expr, $formula:expr, $meaning:expr) => {
        pub(super) static $entries: [CatalogueEntry; 3] = [
            hinges!($variant, $names[0], L1, Norm::L1, $formula, $meaning),
            hinges!($variant, $names[1], L2, Norm::L2, $formula, $meaning),
            hinges!($variant, $names[2], LINF, Norm::Linf, $formula, $meaning),
        ];
    };
    ($variant:ident, $name:expr, $options:expr, $norm:expr, $formula:expr, $meaning:expr) => {
        CatalogueEntry {
            name: $name,
            formula: $formula,
            meaning: $meaning,
            weight: 1.0,
            options: $options,
            make: |options| {
                Penalty::$variant(Hinge {
                    norm: $norm,
                    nearest: usize::try_from(options.count("nearest")).unwrap_or(usize::MAX),
                    radius: options.number("radius"),
                })
            },
        }
    };
}

hinges!(
    REGION,
    RegionBoundary,
    [
        "region-boundary-l1",
        "region-boundary-l2",
        "region-boundary-linf"
    ],
    "1/k Σ max(0, 1 − d_j/γ)",
    "how near the k nearest hyperplanes are at which a unit switches; 0 if all are further than γ"
);

hinges!(
    DECISION,
    DecisionBoundary,
    [
        "decision-boundary-l1",
        "decision-boundary-l2",
        "decision-boundary-linf"
    ],
    "1/k Σ max(0, 1 − d_j/γ)",
    "how near the k nearest hyperplanes are at which the class would change; 0 if all are further than γ"
);

hinges!(
    MARGIN,
    MaximumMargin,
    [
        "maximum-margin-l1",
        "maximum-margin-l2",
        "maximum-margin-linf"
    ],
    "1/k Σ max(0, 1 − d_j/γ), twice",
    "the sum of region-boundary and decision-boundary: the maximum margin regularizer"
);
