//! The losses by their textbook formulas.

use relugrad::Loss;

use crate::matrix::{Matrix, add, dot, identity, multiple, outer};

/// A loss at one sample: `ℓ`, `r = ∂ℓ/∂f` and `S = ∂²ℓ/∂f²`.
#[derive(Clone, Debug)]
pub struct LossPoint {
    /// `ℓ`.
    pub value: f64,
    /// `r`.
    pub residual: Vec<f64>,
    /// `S`.
    pub hessian: Matrix,
    /// `p` (for the squared error the logits).
    pub probabilities: Vec<f64>,
}

/// `exp f_k / Σ_j exp f_j`.
pub fn softmax(f: &[f64]) -> Vec<f64> {
    let top = f.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = f.iter().map(|f| (f - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// `log Σ_k exp f_k`.
pub fn log_sum_exp(f: &[f64]) -> f64 {
    f[top(f)] + excess(f)
}

/// `log Σ_k exp f_k − max_k f_k`, accurate also where it is tiny.
fn excess(f: &[f64]) -> f64 {
    let top = top(f);
    let others = f.iter().enumerate().filter(|(k, _)| *k != top);
    others.map(|(_, g)| (g - f[top]).exp()).sum::<f64>().ln_1p()
}

fn top(f: &[f64]) -> usize {
    (1..f.len()).fold(0, |best, k| if f[k] > f[best] { k } else { best })
}

/// `log Σ_k exp f_k − Σ_k t_k f_k` for `Σ t = 1`, accurate also where it is tiny.
fn cross_entropy(f: &[f64], t: &[f64]) -> f64 {
    let largest = f[top(f)];
    let below = f.iter().zip(t).map(|(f, t)| t * (largest - f));
    below.sum::<f64>() + excess(f)
}

/// `diag(p) − p pᵀ`, with `p_k (1 − p_k)` on the diagonal and `1 − p_k` summed from the other
/// classes.
pub fn softmax_hessian(p: &[f64]) -> Matrix {
    let mut hessian = multiple(-1.0, &outer(p, p));
    for (k, row) in hessian.iter_mut().enumerate() {
        row[k] = p[k] * others(p, k);
    }
    hessian
}

fn others(p: &[f64], class: usize) -> f64 {
    let rest = p.iter().enumerate().filter(|(k, _)| *k != class);
    rest.map(|(_, p)| p).sum()
}

/// `p − t`, accurate also where `t_k = 1` and `p_k` is almost 1.
fn softmax_residual(p: &[f64], t: &[f64]) -> Vec<f64> {
    let residual = |k: usize| {
        if t[k] == 1.0 {
            -others(p, k)
        } else {
            p[k] - t[k]
        }
    };
    (0..p.len()).map(residual).collect()
}

/// `KL(p ‖ q)` of the distributions of two vectors of logits.
pub fn divergence(f: &[f64], g: &[f64]) -> f64 {
    let p = softmax(f);
    log_sum_exp(g) - log_sum_exp(f) - dot(&p, &add(g, -1.0, f))
}

/// A loss at logits `f` with target vector `t`.
///
/// # Panics
/// For a loss that is not known here.
pub fn evaluate(loss: &Loss, f: &[f64], t: &[f64]) -> LossPoint {
    match loss {
        Loss::SoftmaxCrossEntropy { .. } => {
            let p = softmax(f);
            LossPoint {
                value: cross_entropy(f, t),
                residual: softmax_residual(&p, t),
                hessian: softmax_hessian(&p),
                probabilities: p,
            }
        }
        Loss::Logistic => {
            let (p, rest) = (1.0 / (1.0 + (-f[0]).exp()), 1.0 / (1.0 + f[0].exp()));
            LossPoint {
                value: cross_entropy(&[0.0, f[0]], &[1.0 - t[0], t[0]]),
                residual: vec![if t[0] == 1.0 { -rest } else { p - t[0] }],
                hessian: vec![vec![p * rest]],
                probabilities: vec![p],
            }
        }
        Loss::SquaredError => {
            let residual = add(f, -1.0, t);
            LossPoint {
                value: 0.5 * dot(&residual, &residual),
                residual,
                hessian: identity(f.len()),
                probabilities: f.to_vec(),
            }
        }
        _ => panic!("no oracle for {}", loss.name()),
    }
}
