//! What the names in a report mean, in words.

/// Formula and meaning of a penalty, for someone who has never seen it.
pub(super) fn penalty(name: &str) -> Option<(&'static str, &'static str)> {
    let entry = match name {
        "input-gradient" => (
            "‖∇ₓℓ‖₂²",
            "squared length of the gradient of the loss in the input: how fast the loss grows with small changes",
        ),
        "input-gradient-l2" => ("‖∇ₓℓ‖₂", "length of the gradient of the loss in the input"),
        "input-gradient-l1" => (
            "‖∇ₓℓ‖₁",
            "first-order growth of the loss when every pixel may change by the same amount",
        ),
        "input-gradient-linf" => (
            "‖∇ₓℓ‖_∞",
            "first-order growth of the loss when one pixel may change",
        ),
        "jacobian" => (
            "‖J‖_F²",
            "sum of squares of all derivatives of the logits in the input",
        ),
        "jacobian-spectral" => (
            "‖J‖₂²",
            "largest squared factor by which a small change of the input is magnified in the logits",
        ),
        "jacobian-nuclear" => (
            "‖J‖_*",
            "sum of the singular values of the Jacobian of the logits",
        ),
        "jacobian-projected" => (
            "(K/m) Σ ‖Jᵀv_i‖²",
            "estimate of ‖J‖_F² from m random directions in the space of the logits",
        ),
        "jacobian-probabilities" => (
            "‖S J‖_F²",
            "sum of squares of all derivatives of the class probabilities in the input",
        ),
        "cross-lipschitz" => (
            "Σ_jk ‖J_j − J_k‖²",
            "how differently the logits of any two classes change with the input; common changes do not count",
        ),
        "curvature-trace" => (
            "tr H",
            "sum of the eigenvalues of the Hessian H of the loss in the input: total curvature",
        ),
        "curvature-frobenius" => ("‖H‖_F²", "sum of the squared eigenvalues of that Hessian"),
        "curvature-spectral" => (
            "‖H‖₂",
            "its largest eigenvalue: curvature in the worst direction",
        ),
        "curvature-directional" => ("‖H z‖², z = g/‖g‖", "curvature along the gradient itself"),
        "cure" => (
            "‖∇ₓℓ(x+hz) − ∇ₓℓ(x)‖²",
            "change of the gradient over a finite step h along the sign of the gradient; it sees kinks that H does not",
        ),
        "cure-gradient" => (
            "‖∇ₓℓ(x+hz) − ∇ₓℓ(x)‖²",
            "change of the gradient over a finite step h along the gradient; it sees kinks that H does not",
        ),
        "cure-kinks" => (
            "‖Σ (J_{i+1} − J_i)ᵀ r(t_i)‖²",
            "the part of CURE's change of the gradient that jumps where units switch on the way, along the sign",
        ),
        "cure-gradient-kinks" => (
            "‖Σ (J_{i+1} − J_i)ᵀ r(t_i)‖²",
            "the part of CURE's change of the gradient that jumps where units switch on the way, along the gradient",
        ),
        "region-boundary-l1" | "region-boundary-l2" | "region-boundary-linf" => (
            "1/k Σ max(0, 1 − d_j/γ)",
            "how near the k nearest hyperplanes are at which a unit switches; 0 if all are further than γ",
        ),
        "decision-boundary-l1" | "decision-boundary-l2" | "decision-boundary-linf" => (
            "1/k Σ max(0, 1 − d_j/γ)",
            "how near the k nearest hyperplanes are at which the class would change; 0 if all are further than γ",
        ),
        "maximum-margin-l1" | "maximum-margin-l2" | "maximum-margin-linf" => (
            "1/k Σ max(0, 1 − d_j/γ), twice",
            "the sum of region-boundary and decision-boundary: the maximum margin regularizer",
        ),
        _ => return None,
    };
    Some(entry)
}

#[cfg(test)]
mod tests {
    use relugrad::Penalty;

    #[test]
    fn every_penalty_is_explained() {
        assert!(
            [Penalty::all(), Penalty::geometric()]
                .concat()
                .iter()
                .all(|p| super::penalty(p.name()).is_some())
        );
    }
}
