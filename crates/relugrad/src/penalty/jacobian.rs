//! Norms of the Jacobian `J`, all of them functions of `G = J Jᵀ`.

use super::catalogue::{CatalogueEntry, PenaltyOption};
use super::described::described;
use super::gram::{Alone, GramAdjoint, GramPenalty, GramPoint, Needs};
use super::{Described, OptionValue, Penalty, Promises};
use crate::error::{Error, Result};
use crate::linalg::{dot, trace, transposed};

/// A function of `J` alone that is homogeneous.
const fn of_jacobian(degree: i32) -> Promises {
    let none = Promises {
        invariance: super::Invariance::None,
        degree: None,
        function_of_jacobian: false,
    };
    none.with_degree(degree).of_jacobian()
}

pub(super) static FROBENIUS: CatalogueEntry = CatalogueEntry {
    name: "jacobian",
    formula: "‖J‖_F²",
    meaning: "sum of squares of all derivatives of the logits in the input",
    weight: 0.01,
    options: &[],
    make: |_| Penalty::Jacobian,
};

/// `‖J‖_F² = tr G`; `∂/∂G = I`.
#[derive(Debug)]
pub(super) struct Frobenius;

described!(Frobenius, FROBENIUS, of_jacobian(2));

impl GramPenalty for Frobenius {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        if let Some(adjoint) = adjoint {
            adjoint.add_gram_identity(1.0);
        }
        Ok(at.trace())
    }
}

pub(super) static SPECTRAL: CatalogueEntry = CatalogueEntry {
    name: "jacobian-spectral",
    formula: "‖J‖₂²",
    meaning: "largest squared factor by which a small change of the input is magnified in the logits",
    weight: 0.03,
    options: &[],
    make: |_| Penalty::JacobianSpectral,
};

/// `‖J‖₂² = λ_max(G)`; `∂/∂G = u uᵀ` with its unit eigenvector.
#[derive(Debug)]
pub(super) struct Spectral;

described!(Spectral, SPECTRAL, of_jacobian(2));

impl GramPenalty for Spectral {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        at.with_largest(|value, u| {
            if let Some(adjoint) = adjoint {
                adjoint.add_gram_square(1.0, u);
            }
            value.max(0.0)
        })
    }
}

pub(super) static NUCLEAR: CatalogueEntry = CatalogueEntry {
    name: "jacobian-nuclear",
    formula: "‖J‖_*",
    meaning: "sum of the singular values of the Jacobian of the logits",
    weight: 0.03,
    options: &[],
    make: |_| Penalty::JacobianNuclear,
};

/// `‖J‖_* = Σ √λ_i(G)`; `∂/∂G = ½ Σ λ_i^{−½} u_i u_iᵀ` over the eigenvalues that are not 0 to
/// rounding: singular values below about `√(K ε) ‖J‖₂` count as 0.
#[derive(Debug)]
pub(super) struct Nuclear;

described!(Nuclear, NUCLEAR, of_jacobian(1));

impl GramPenalty for Nuclear {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        let (values, vectors) = at.eigenpairs()?;
        let roots = values.iter().map(|value| value.sqrt());
        if let Some(adjoint) = adjoint {
            adjoint.add_gram_squares(roots.clone().map(|root| 0.5 / root), vectors);
        }
        Ok(roots.sum())
    }

    fn needs(&self) -> Needs {
        Needs {
            all_eigenpairs: true,
            ..Needs::default()
        }
    }
}

pub(super) static PROJECTED: CatalogueEntry = CatalogueEntry {
    name: "jacobian-projected",
    formula: "(K/m) Σ ‖Jᵀv_i‖²",
    meaning: "estimate of ‖J‖_F² from m random directions in the space of the logits",
    weight: 0.01,
    options: &[
        PenaltyOption {
            name: "rows",
            default: OptionValue::Count(1),
            range: "from 1 to 65536",
            words: &[],
            meaning: "number m of random directions for each sample",
        },
        PenaltyOption {
            name: "seed",
            default: OptionValue::Count(0),
            range: "any",
            words: &[],
            meaning: "seed of the directions",
        },
    ],
    make: |options| Penalty::JacobianProjected {
        rows: usize::try_from(options.count("rows")).unwrap_or(usize::MAX),
        seed: options.count("seed"),
    },
};

/// The most random rows per sample; the mean square error of the estimate falls as `1/m`.
const MAX_PROJECTIONS: usize = 1 << 16;

/// `(K/m) Σ_i v_iᵀ G v_i` for the `m` random rows; `∂/∂G = (K/m) Σ_i v_i v_iᵀ`.
#[derive(Debug)]
pub(super) struct Projected {
    pub(super) rows: usize,
    pub(super) seed: u64,
}

impl Described for Projected {
    fn name(&self) -> &str {
        PROJECTED.name
    }

    fn options(&self) -> Vec<(&'static str, OptionValue)> {
        vec![
            ("rows", OptionValue::Count(self.rows as u64)),
            ("seed", OptionValue::Count(self.seed)),
        ]
    }

    fn promises(&self) -> Promises {
        of_jacobian(2)
    }

    fn check(&self) -> Result<()> {
        match (1..=MAX_PROJECTIONS).contains(&self.rows) {
            true => Ok(()),
            false => Err(Error::OutOfRange {
                option: format!("rows of {}", self.name()),
                value: self.rows as f64,
                expected: "from 1 to 65536",
            }),
        }
    }
}

impl GramPenalty for Projected {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        let (k, v) = (at.outputs(), at.random_rows());
        let scale = (k * k) as f64 / v.len() as f64;
        let rows = v.chunks_exact(k);
        if let Some(adjoint) = adjoint {
            for v in rows.clone() {
                adjoint.add_gram_square(scale, v);
            }
        }
        Ok(scale * rows.map(|v| dot(v, &at.gram_times(v))).sum::<f64>())
    }

    fn needs(&self) -> Needs {
        Needs {
            random_rows: self.rows,
            seed: self.seed,
            ..Needs::default()
        }
    }

    fn alone(&self) -> Alone<'_> {
        Alone::RandomRows
    }
}

pub(super) static PROBABILITIES: CatalogueEntry = CatalogueEntry {
    name: "jacobian-probabilities",
    formula: "‖S J‖_F²",
    meaning: "sum of squares of all derivatives of the class probabilities in the input",
    weight: 1.0,
    options: &[],
    make: |_| Penalty::JacobianProbabilities,
};

/// `‖S J‖_F² = tr(S G S)`; `∂/∂G = S²`, `∂/∂S = S G + G S`.
#[derive(Debug)]
pub(super) struct Probabilities;

described!(
    Probabilities,
    PROBABILITIES,
    Promises::logit_differences().with_degree(2)
);

impl GramPenalty for Probabilities {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        let k = at.outputs();
        if let Some(adjoint) = adjoint {
            adjoint.add_gram(1.0, &at.hessian_times(at.hessian()));
            adjoint.add_hessian(1.0, at.gram_hessian());
            adjoint.add_hessian(1.0, &transposed(at.gram_hessian(), k));
        }
        Ok(trace(at.hessian_gram_hessian(), k))
    }
}
