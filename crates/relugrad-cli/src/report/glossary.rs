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
            Penalty::all()
                .iter()
                .all(|p| super::penalty(p.name()).is_some())
        );
    }
}
