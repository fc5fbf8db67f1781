//! CURE: the change of the input gradient over a finite step.

use super::catalogue::{CatalogueEntry, PenaltyOption};
use super::pair::{PairAdjoint, PairPenalty, PairPoint};
use super::{Described, GradientAdjoint, GradientPoint, OptionValue, Penalty, Promises};
use crate::buffer::Buffer;
use crate::error::{Result, check_non_negative};
use crate::norm::Norm;
use crate::scalar::Scalar;

/// The option `step` of all penalties along a segment.
pub(super) const STEP: PenaltyOption = PenaltyOption {
    name: "step",
    default: OptionValue::Number(1.5),
    range: "a finite number of at least 0, in input units",
    words: &[],
    meaning: "length h of the step",
};

/// The option `held` of penalties along the gradient.
pub(super) const HELD: PenaltyOption = PenaltyOption {
    name: "held",
    default: OptionValue::Flag(false),
    range: "true or false",
    words: &[],
    meaning: "whether the parameter gradient takes the direction for a constant, as published codes do",
};

/// The options of a penalty along a segment.
pub(super) fn step_options(step: f64, direction: Direction) -> Vec<(&'static str, OptionValue)> {
    let mut options = vec![("step", OptionValue::Number(step))];
    if let Direction::Gradient { held } = direction {
        options.push(("held", OptionValue::Flag(held)));
    }
    options
}

pub(super) static SIGN: CatalogueEntry = CatalogueEntry {
    name: "cure",
    formula: "‖∇ₓℓ(x+hz) − ∇ₓℓ(x)‖²",
    meaning: "change of the gradient over a finite step h along the sign of the gradient; it sees kinks that H does not",
    weight: 0.1,
    options: &[STEP],
    make: |options| Penalty::Cure {
        step: options.number("step"),
        direction: Direction::Sign,
    },
};

pub(super) static GRADIENT: CatalogueEntry = CatalogueEntry {
    name: "cure-gradient",
    formula: "‖∇ₓℓ(x+hz) − ∇ₓℓ(x)‖²",
    meaning: "change of the gradient over a finite step h along the gradient; it sees kinks that H does not",
    weight: 0.3,
    options: &[STEP, HELD],
    make: |options| Penalty::Cure {
        step: options.number("step"),
        direction: Direction::Gradient {
            held: options.flag("held"),
        },
    },
};

/// The entry of CURE along a direction.
pub(super) fn entry(direction: Direction) -> &'static CatalogueEntry {
    match direction {
        Direction::Sign => &SIGN,
        Direction::Gradient { .. } => &GRADIENT,
    }
}

/// `‖g' − g‖²`; `∂/∂g' = −∂/∂g = 2 (g' − g)`.
#[derive(Debug)]
pub(super) struct Cure {
    pub(super) step: f64,
    pub(super) direction: Direction,
}

impl Described for Cure {
    fn name(&self) -> &str {
        entry(self.direction).name
    }

    fn options(&self) -> Vec<(&'static str, OptionValue)> {
        step_options(self.step, self.direction)
    }

    fn promises(&self) -> Promises {
        Promises::logit_differences()
    }

    fn check(&self) -> Result<()> {
        check_non_negative(&format!("step of {}", self.name()), self.step)
    }
}

impl PairPenalty for Cure {
    fn displace(&self, at: &GradientPoint, displacement: &mut [f64]) {
        self.direction.write(at.magnified().0, displacement);
        displacement.iter_mut().for_each(|z| *z *= self.step);
    }

    fn evaluate(&self, at: &PairPoint, adjoint: Option<&mut PairAdjoint>) -> Result<f64> {
        if let Some(adjoint) = adjoint {
            adjoint.add_own_change(2.0, at);
        }
        Ok(at.squared_change())
    }

    fn is_held(&self) -> bool {
        self.direction.is_constant()
    }

    fn pull_back(&self, at: &GradientPoint, derivative: &[f64], adjoint: &mut GradientAdjoint) {
        let (g, _) = at.magnified();
        let (mut z, mut bar) = (Buffer::zeros(g.len()), Buffer::zeros(g.len()));
        self.direction.write(g, &mut z);
        let z_bar = Buffer::of(derivative.iter().map(|x| self.step * x));
        self.direction.pull_back(g, &z, &z_bar, &mut bar);
        adjoint.add_objective(&bar);
    }

    fn is_function_of_change(&self) -> bool {
        true
    }
}

/// The unit vector `z` along which CURE takes its step, as a function of the input gradient `g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `z = sign(g)/‖sign(g)‖₂`, as published. It is locally constant in the parameters.
    Sign,
    /// `z = g/‖g‖₂`.
    Gradient {
        /// Whether the parameter gradient takes `z` for a constant, as published codes do, instead
        /// of being the exact derivative of the penalty.
        held: bool,
    },
}

impl Direction {
    /// Whether `z` is constant in the parameters, or taken to be.
    pub(crate) fn is_constant(self) -> bool {
        self != Direction::Gradient { held: false }
    }

    /// `z` for one sample; 0 if `g = 0`.
    pub(crate) fn write<T: Scalar>(self, g: &[T], z: &mut [T]) {
        let unit = match self {
            Direction::Sign => {
                let count = g.iter().filter(|&&g| g != T::ZERO).count();
                T::ONE / T::from_f64((count.max(1) as f64).sqrt())
            }
            Direction::Gradient { .. } => {
                let norm = Norm::L2.of(g);
                let norm = T::from_f64(if norm > 0.0 { norm } else { 1.0 });
                return z.iter_mut().zip(g).for_each(|(z, &g)| *z = g / norm);
            }
        };
        for (z, &g) in z.iter_mut().zip(g) {
            let negative = if g < T::ZERO { -unit } else { T::ZERO };
            *z = if g > T::ZERO { unit } else { negative };
        }
    }

    /// Adds to `bar` what a derivative `z_bar` in `z` means for `g`: `(I − z zᵀ) z̄ / ‖g‖` for
    /// `z = g/‖g‖` unless it is held, otherwise 0.
    pub(crate) fn pull_back<T: Scalar>(self, g: &[T], z: &[T], z_bar: &[T], bar: &mut [T]) {
        let norm = Norm::L2.of(g);
        if self.is_constant() || norm == 0.0 {
            return;
        }
        let along: f64 = z
            .iter()
            .zip(z_bar)
            .map(|(z, b)| z.into_f64() * b.into_f64())
            .sum();
        for (bar, (&z, &z_bar)) in bar.iter_mut().zip(z.iter().zip(z_bar)) {
            *bar += (z_bar - T::from_f64(along) * z) / T::from_f64(norm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_unit_vectors_or_zero() {
        let mut z = [0.0; 3];
        Direction::Sign.write(&[-2.0, 0.0, 1e-300], &mut z);
        let half = 0.5f64.sqrt();
        assert!((z[0] + half).abs() < 1e-15 && z[1] == 0.0 && (z[2] - half).abs() < 1e-15);
        Direction::Gradient { held: true }.write(&[3.0, 0.0, -4.0], &mut z);
        assert_eq!(z, [0.6, 0.0, -0.8]);
        Direction::Sign.write(&[0.0, 0.0, 0.0], &mut z);
        assert_eq!(z, [0.0; 3]);
    }
}
