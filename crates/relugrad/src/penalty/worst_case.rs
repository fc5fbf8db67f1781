//! Bounds on the loss in a ball, from the affine map of the region: what the worst perturbation of
//! the linearised network would do to it.

use ndarray::{Array1, ArrayView1};

use super::catalogue::{ALL, CatalogueEntry, PenaltyOption};
use super::rows::{JacobianAdjoint, JacobianPenalty, JacobianPoint};
use super::{Described, GradientPoint, LogitPoint, OptionValue, Penalty, Promises};
use crate::buffer::Buffer;
use crate::error::{Error, Result, check_non_negative};
use crate::norm::{Norm, sign};

const EPSILON: PenaltyOption = PenaltyOption {
    name: "epsilon",
    default: OptionValue::Number(0.1),
    range: "a finite number of at least 0, in input units",
    words: &[],
    meaning: "radius ε of the ball",
};

const NORM: PenaltyOption = PenaltyOption {
    name: "norm",
    default: OptionValue::word("linf"),
    range: "l1, l2 or linf",
    words: &["l1", "l2", "linf"],
    meaning: "norm of the ball",
};

/// The norm that an option names.
fn norm(word: Option<&str>) -> Norm {
    let mut all = Norm::ALL.into_iter();
    let named = all.find(|norm| Some(norm.name()) == word);
    named.expect("it is one of the words of the option")
}

pub(super) static WORST_CASE: CatalogueEntry = CatalogueEntry {
    name: "worst-case",
    formula: "log Σ p_k exp(ε‖J_k − J_y‖•)",
    meaning: "how much the linearised network's loss can grow in a ball; with weight 1 the loss becomes its worst case",
    weight: 1.0,
    options: &[
        EPSILON,
        NORM,
        PenaltyOption {
            name: "rivals",
            default: OptionValue::word(ALL),
            range: "all, or from 1 to the number of classes less 1",
            words: &[ALL],
            meaning: "how many of the likeliest other classes count with their rows of J",
        },
        PenaltyOption {
            name: "step",
            default: OptionValue::Number(0.0),
            range: "in [0, 1)",
            words: &[],
            meaning: "share of ε that is first gone along the steepest ascent of the loss; the ball of the rest lies there",
        },
        PenaltyOption {
            name: "unclipped",
            default: OptionValue::Flag(false),
            range: "true or false",
            words: &[],
            meaning: "whether that step may lead out of [0, 1]",
        },
    ],
    make: |options| {
        Penalty::WorstCase(Ball {
            epsilon: options.number("epsilon"),
            norm: norm(options.word("norm")),
            rivals: options
                .word("rivals")
                .is_none()
                .then(|| usize::try_from(options.count("rivals")).unwrap_or(usize::MAX)),
            step: options.number("step"),
            unclipped: options.flag("unclipped"),
        })
    },
};

pub(super) static QUADRATIC: CatalogueEntry = CatalogueEntry {
    name: "worst-case-quadratic",
    formula: "ε‖g‖• + ε²/8 max ‖J_j − J_k‖•²",
    meaning: "bound on the growth of the loss in a ball by its input gradient and the Lipschitz constants of pairs of logits",
    weight: 1.0,
    options: &[EPSILON, NORM],
    make: |options| Penalty::WorstCaseQuadratic {
        epsilon: options.number("epsilon"),
        norm: norm(options.word("norm")),
    },
};

/// The ball of [`Penalty::WorstCase`], and what of the network counts in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball {
    /// Its radius `ε ≥ 0`, in input units.
    pub epsilon: f64,
    /// Its norm.
    pub norm: Norm,
    /// How many of the likeliest other classes count with their rows of `J`; all `K − 1` if there
    /// is no number.
    pub rivals: Option<usize>,
    /// The share `s` of `ε`, `0 ≤ s < 1`, that is first gone along the steepest ascent of the loss.
    pub step: f64,
    /// Whether that step may lead out of `[0, 1]`; otherwise no coordinate is moved further out.
    pub unclipped: bool,
}

impl Ball {
    /// The ball of a radius in a norm, with all rivals and no step.
    pub fn new(norm: Norm, epsilon: f64) -> Ball {
        Ball {
            epsilon,
            norm,
            rivals: None,
            step: 0.0,
            unclipped: false,
        }
    }

    /// The rivals that count with their rows: the likeliest ones, the first of equal ones.
    fn chosen(&self, at: &LogitPoint) -> Vec<usize> {
        let (f, y) = (at.logits(), at.label());
        let mut others: Vec<usize> = (0..f.len()).filter(|&k| k != y).collect();
        if f.len() == 1 {
            others.clear();
        }
        if let Some(count) = self.rivals {
            others.sort_by(|&a, &b| f[b].total_cmp(&f[a]));
            others.truncate(count);
        }
        others
    }
}

impl Described for Ball {
    fn name(&self) -> &str {
        WORST_CASE.name
    }

    fn options(&self) -> Vec<(&'static str, OptionValue)> {
        let rivals = self.rivals.map(|count| OptionValue::Count(count as u64));
        vec![
            ("epsilon", OptionValue::Number(self.epsilon)),
            ("norm", OptionValue::word(self.norm.name())),
            ("rivals", rivals.unwrap_or(OptionValue::word(ALL))),
            ("step", OptionValue::Number(self.step)),
            ("unclipped", OptionValue::Flag(self.unclipped)),
        ]
    }

    fn promises(&self) -> Promises {
        Promises::logit_differences()
    }

    fn instead_of_classes(&self) -> Option<&'static str> {
        Some("input-gradient-l1, -l2 or -linf")
    }

    fn check(&self) -> Result<()> {
        check_non_negative("epsilon of worst-case", self.epsilon)?;
        let refused = |option: &str, value, expected| {
            Err(Error::OutOfRange {
                option: format!("{option} of worst-case"),
                value,
                expected,
            })
        };
        if !(0.0..1.0).contains(&self.step) {
            return refused("step", self.step, "in [0, 1)");
        }
        match self.rivals {
            Some(0) => refused("rivals", 0.0, WORST_CASE.options[2].range),
            _ => Ok(()),
        }
    }

    fn check_outputs(&self, outputs: usize) -> Result<()> {
        match self.rivals {
            Some(rivals) if outputs > 1 && rivals >= outputs => Err(Error::PenaltyOption {
                penalty: WORST_CASE.name.to_owned(),
                problem: format!(
                    "rivals is {rivals} but must be from 1 to {}, or all, where there are {outputs} classes",
                    outputs - 1
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// A single logit has no rival, and the penalty is 0.
///
/// With `e_k = ε(1 − s) ‖J_k − J_y‖•` of the chosen rivals, 0 of the others, `q` the softmax of
/// `f + e` and `u_k` the derivative of the norm: `∂/∂f = q − p`,
/// `∂/∂(J_k − J_y) = ε(1 − s) q_k u_k`. The rows that are swept are the differences of the chosen
/// rivals.
impl JacobianPenalty for Ball {
    fn combines(&self, outputs: usize) -> Option<usize> {
        let others = outputs.saturating_sub(1);
        Some(
            self.rivals
                .map_or(others, |rivals| rivals.min(others))
                .max(1),
        )
    }

    fn combine(&self, at: &LogitPoint, v: &mut [f64]) {
        let y = at.label();
        let rows = v.chunks_exact_mut(at.outputs());
        for (row, rival) in rows.zip(self.chosen(at)) {
            (row[rival], row[y]) = (1.0, -1.0);
        }
    }

    fn moves(&self) -> bool {
        self.step > 0.0
    }

    fn displace(&self, x: &[f64], at: &GradientPoint, displacement: &mut [f64]) {
        let g = Array1::from(at.magnified().0.to_vec());
        let length = self.step * self.epsilon;
        let direction = steepest(self.norm, g.view());
        for ((d, u), &x) in displacement.iter_mut().zip(&*direction).zip(x) {
            let end = x + length * u;
            *d = if self.unclipped {
                end - x
            } else {
                end.clamp(x.min(0.0), x.max(1.0)) - x
            };
        }
    }

    fn evaluate(&self, at: &JacobianPoint, adjoint: Option<&mut JacobianAdjoint>) -> Result<f64> {
        let (f, y, rest) = (at.logits(), at.label(), (1.0 - self.step) * self.epsilon);
        if f.len() == 1 {
            return Ok(0.0);
        }
        let rivals = self.chosen(at);
        let mut growth = Buffer::zeros(f.len());
        for (&rival, row) in rivals.iter().zip(at.jacobian().outer_iter()) {
            growth[rival] = rest * self.norm.dual_norm(row.iter().copied());
        }
        let worst = Buffer::of(f.iter().zip(&*growth).map(|(f, e)| f + e));
        let (log_p, log_q) = (log_softmax(f), log_softmax(&worst));
        let grown = mean_growth(&log_p, &growth);
        let before = log_softmax(at.origin().logits());
        if let Some(adjoint) = adjoint {
            for k in 0..f.len() {
                let (p, q) = (log_p[k].exp(), log_q[k].exp());
                if self.moves() {
                    let target = f64::from(k == y);
                    adjoint.add_logit(q - target, k);
                    adjoint
                        .origin_logits()
                        .add_logit(target - before[k].exp(), k);
                } else {
                    // The difference without cancellation, or without overflow.
                    let more = growth[k] - grown;
                    adjoint.add_logit(if more < 1.0 { p * more.exp_m1() } else { q - p }, k);
                }
            }
            for (i, (&rival, row)) in rivals.iter().zip(at.jacobian().outer_iter()).enumerate() {
                let u = steepest(self.norm, row);
                adjoint.add_row(rest * log_q[rival].exp(), i, &u);
            }
        }
        Ok(if self.moves() {
            grown + before[y] - log_p[y]
        } else {
            grown
        })
    }
}

/// `ε ‖g‖• + (ε²/8) max_{j,k} ‖J_j − J_k‖•²`.
#[derive(Debug)]
pub(super) struct Quadratic {
    pub(super) epsilon: f64,
    pub(super) norm: Norm,
}

impl Described for Quadratic {
    fn name(&self) -> &str {
        QUADRATIC.name
    }

    fn options(&self) -> Vec<(&'static str, OptionValue)> {
        vec![
            ("epsilon", OptionValue::Number(self.epsilon)),
            ("norm", OptionValue::word(self.norm.name())),
        ]
    }

    fn promises(&self) -> Promises {
        Promises::logit_differences()
    }

    fn instead_of_classes(&self) -> Option<&'static str> {
        Some("input-gradient-l1, -l2 or -linf")
    }

    fn check(&self) -> Result<()> {
        check_non_negative("epsilon of worst-case-quadratic", self.epsilon)
    }
}

/// `∂/∂J_k = ε r_k u + (ε²/4) m (± v)` with `u`, `v` the derivatives of the two norms and `m` the
/// largest one; `∂/∂r = ε J u`.
impl JacobianPenalty for Quadratic {
    fn evaluate(&self, at: &JacobianPoint, adjoint: Option<&mut JacobianAdjoint>) -> Result<f64> {
        let (j, r, epsilon) = (at.jacobian(), at.residual(), self.epsilon);
        let g = j.t().dot(&ArrayView1::from(r));
        let length = self.norm.dual_norm(g.iter().copied());
        let (mut largest, mut pair) = (0.0, None);
        for (k, row) in j.outer_iter().enumerate() {
            for (i, other) in j.outer_iter().enumerate().take(k) {
                let apart = row.iter().zip(other).map(|(a, b)| a - b);
                let distance = self.norm.dual_norm(apart);
                if distance > largest || distance.is_nan() {
                    (largest, pair) = (distance, Some((i, k)));
                }
            }
        }
        if let Some(adjoint) = adjoint {
            let u = steepest(self.norm, g.view());
            let along = j.dot(&ArrayView1::from(&*u)).to_vec();
            adjoint.add_residual(epsilon, &along);
            for (k, &r) in r.iter().enumerate() {
                adjoint.add_row(epsilon * r, k, &u);
            }
            if let Some((i, k)) = pair {
                let v = steepest(self.norm, (&j.row(k) - &j.row(i)).view());
                let scale = 0.25 * epsilon.powi(2) * largest;
                adjoint.add_row(scale, k, &v);
                adjoint.add_row(-scale, i, &v);
            }
        }
        Ok(epsilon * length + epsilon.powi(2) / 8.0 * largest * largest)
    }
}

/// `log Σ_k p_k exp(e_k)` for `e ≥ 0`, accurate where it is small.
fn mean_growth(log_p: &[f64], e: &[f64]) -> f64 {
    let largest = e.iter().fold(0.0f64, |largest, &e| largest.max(e));
    if largest < 1.0 {
        let terms = log_p.iter().zip(e).map(|(p, e)| p.exp() * e.exp_m1());
        return terms.sum::<f64>().ln_1p();
    }
    let sums = Buffer::of(log_p.iter().zip(e).map(|(p, e)| p + e));
    log_sum_exp(&sums)
}

/// `log Σ exp f_k`.
fn log_sum_exp(f: &[f64]) -> f64 {
    let largest = f.iter().fold(f64::NEG_INFINITY, |m, &f| m.max(f));
    let sum: f64 = f.iter().map(|f| (f - largest).exp()).sum();
    largest + sum.ln()
}

/// `f − log Σ exp f_k`.
fn log_softmax(f: &[f64]) -> Buffer<f64> {
    let total = log_sum_exp(f);
    Buffer::of(f.iter().map(|f| f - total))
}

/// The `u` with `‖u‖ ≤ 1` and `u·v = ‖v‖•`, which is the derivative of the dual norm: 0 at 0, and
/// for ℓ1 the signed unit vector of the first largest entry.
fn steepest(norm: Norm, v: ArrayView1<f64>) -> Buffer<f64> {
    let length = norm.dual_norm(v.iter().copied());
    if length == 0.0 {
        return Buffer::zeros(v.len());
    }
    match norm {
        Norm::Linf => Buffer::of(v.iter().map(|&v| sign(v))),
        Norm::L2 => Buffer::of(v.iter().map(|v| v / length)),
        Norm::L1 => {
            let mut u = Buffer::zeros(v.len());
            if let Some(first) = v.iter().position(|v| v.abs() == length) {
                u[first] = sign(v[first]);
            }
            u
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_growth_is_accurate_from_tiny_to_huge() {
        let log_p = [-1e-20f64, -46.0];
        let tiny = mean_growth(&log_p, &[0.0, 0.5]);
        let expected = (-46.0f64).exp() * 0.5f64.exp_m1();
        assert!((tiny / expected - 1.0).abs() < 1e-14);
        assert!((mean_growth(&log_p, &[0.0, 2000.0]) - 1954.0).abs() < 1e-9);
        let across =
            [1.0 - 1e-9, 1.0 + 1e-9].map(|e| mean_growth(&[0.4f64.ln(), 0.6f64.ln()], &[0.0, e]));
        assert!((across[0] - across[1]).abs() < 1e-8);
    }

    #[test]
    fn the_steepest_direction_attains_the_dual_norm() {
        let v = Array1::from(vec![0.5, -3.0, 0.0, 3.0]);
        for norm in Norm::ALL {
            let u = steepest(norm, v.view());
            let along: f64 = u.iter().zip(&v).map(|(u, v)| u * v).sum();
            assert!((norm.of(&u) - 1.0).abs() < 1e-15, "{norm}");
            assert!((along - norm.dual(v.iter().copied()).unwrap()).abs() < 1e-14);
            assert!(
                steepest(norm, Array1::zeros(3).view())
                    .iter()
                    .all(|u| *u == 0.0)
            );
        }
    }
}
