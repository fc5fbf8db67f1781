//! The losses by their textbook formulas, in `f64`.

use ndarray::{Array1, Array2};
use relugrad::Loss;

use crate::data::Truth;

/// What follows from the logits of a sample: `ℓ`, `p`, `r = ∂ℓ/∂f`, `S = ∂²ℓ/∂f²`.
///
/// One logit stands for two, 0 and itself (T51): `p` then has one entry, the probability of
/// class 1. For squared error it has none.
pub(super) struct Prediction {
    pub(super) loss: f64,
    pub(super) p: Array1<f64>,
    pub(super) r: Array1<f64>,
    pub(super) s: Array2<f64>,
    /// `1 − p` of the likeliest class, summed from the others.
    pub(super) doubt: f64,
    /// `1 − p` of the label, summed from the others.
    pub(super) missing: f64,
    /// `r` divided by the probability of the likeliest wrong class: its direction also where `r`
    /// itself is below all numbers.
    pub(super) direction: Array1<f64>,
    /// The most that `‖S‖` can be.
    steepest: f64,
}

impl Prediction {
    /// By the textbook; none for a loss of one's own, or with label smoothing, which the statements
    /// are not about.
    pub(super) fn new(loss: &Loss, f: &Array1<f64>, truth: &Truth<f64>) -> Option<Prediction> {
        match (loss, truth) {
            (Loss::SquaredError, Truth::Values(y)) => {
                Some(Prediction::squared(f, y.row(0).to_owned()))
            }
            (Loss::SquaredError, Truth::Classes(labels)) => {
                let unit = (0..f.len()).map(|k| f64::from(k == labels[0]));
                Some(Prediction::squared(f, unit.collect()))
            }
            (Loss::Logistic, Truth::Classes(labels)) => {
                let pair = Prediction::softmax(&Array1::from(vec![0.0, f[0]]), labels[0]);
                Some(Prediction {
                    p: Array1::from(vec![pair.p[1]]),
                    r: Array1::from(vec![pair.r[1]]),
                    direction: Array1::from(vec![pair.direction[1]]),
                    s: Array2::from_elem((1, 1), pair.s[(1, 1)]),
                    ..pair
                })
            }
            (
                Loss::SoftmaxCrossEntropy {
                    label_smoothing: 0.0,
                },
                Truth::Classes(labels),
            ) => Some(Prediction::softmax(f, labels[0])),
            (Loss::SoftmaxCrossEntropy { .. } | Loss::Logistic | Loss::Own(_), _) => None,
        }
    }

    /// `½ ‖f − y‖²`, which is never saturated.
    fn squared(f: &Array1<f64>, y: Array1<f64>) -> Prediction {
        let r = f - &y;
        Prediction {
            loss: 0.5 * r.dot(&r),
            p: Array1::zeros(0),
            s: Array2::eye(f.len()),
            doubt: 1.0,
            missing: 1.0,
            direction: r.clone(),
            steepest: 1.0,
            r,
        }
    }

    /// How much the residual changes at most when the logits move by up to `noise`, relative to
    /// that: for classes `‖S‖ ≤ ½`, and its trace is no more than `e^{4 noise}` times as large
    /// there.
    pub(super) fn steepness(&self, noise: f64) -> f64 {
        let near = self.s.diag().sum() * (4.0 * noise).exp();
        near.min(self.steepest)
    }

    fn softmax(f: &Array1<f64>, label: usize) -> Prediction {
        let top = likeliest(f);
        let weights = f.mapv(|value| (value - f[top]).exp());
        let p = &weights / weights.sum();
        let others = |class: usize| -> f64 {
            let rest = p.iter().enumerate().filter(|(k, _)| *k != class);
            rest.map(|(_, p)| p).sum()
        };
        let mut s = Array2::from_shape_fn((f.len(), f.len()), |(i, j)| -p[i] * p[j]);
        for k in 0..f.len() {
            s[(k, k)] = p[k] * others(k);
        }
        let mut r = p.clone();
        r[label] = -others(label);
        Prediction {
            loss: f[top] - f[label] + excess(f),
            doubt: others(top),
            missing: others(label),
            direction: direction(f, label),
            steepest: 0.5,
            p,
            r,
            s,
        }
    }
}

/// `r_k = exp(f_k − f_c)` for the wrong classes, `c` the likeliest of them, and minus their sum for
/// the label.
fn direction(f: &Array1<f64>, label: usize) -> Array1<f64> {
    let wrong = || f.iter().enumerate().filter(move |(k, _)| *k != label);
    let second = wrong().map(|(_, &f)| f).fold(f64::NEG_INFINITY, f64::max);
    let mut direction = f.mapv(|f| (f - second).exp());
    direction[label] = 0.0;
    direction[label] = -direction.sum();
    direction
}

/// The first of the largest logits.
pub(super) fn likeliest(f: &Array1<f64>) -> usize {
    (1..f.len()).fold(0, |best, k| if f[k] > f[best] { k } else { best })
}

/// `log Σ_k exp f_k − max_k f_k`, accurate also where it is tiny.
fn excess(f: &Array1<f64>) -> f64 {
    let top = likeliest(f);
    let others = f.iter().enumerate().filter(|(k, _)| *k != top);
    let sum: f64 = others.map(|(_, value)| (value - f[top]).exp()).sum();
    sum.ln_1p()
}

/// `KL(p ‖ q)` of the distributions of two vectors of logits.
pub(super) fn divergence(f: &Array1<f64>, g: &Array1<f64>) -> f64 {
    let top = likeliest(f);
    let weights = f.mapv(|value| (value - f[top]).exp());
    let p = &weights / weights.sum();
    let change = g - f;
    let shift = change[top];
    let mean: f64 = p.iter().zip(&change).map(|(p, e)| p * (e - shift)).sum();
    let to = likeliest(g);
    (g[to] - g[top]) + excess(g) - excess(f) - mean
}
