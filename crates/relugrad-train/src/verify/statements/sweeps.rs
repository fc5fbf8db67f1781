//! T4 and T5: the sweeps and what they are made of.

use relugrad::{Result, Scalar};

use super::super::point::{Point, narrow, norm, wide};
use super::{Check, Scope, Statement, relative, worst};

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T4", Scope::Any, 1.0, adjoint, "⟨u, J v⟩ = ⟨Jᵀu, v⟩, and J by rows is J by columns"),
        Statement::new("T5", Scope::Any, 1.0, products, "∇ₓℓ = Jᵀr and H v = Jᵀ S J v"),
    ]
}

fn adjoint<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let mut random = at.random("adjoint");
    let (u, v) = (
        at.unit(at.outputs(), &mut random),
        at.unit(at.x.len(), &mut random),
    );
    let jv = wide(at.claims().jvp(at.x, narrow(&v).view())?);
    let jtu = wide(at.claims().vjp(at.x, narrow(&u).view())?);
    let size = at.jacobian_size();
    Ok(worst([
        relative(u.dot(&jv) - jtu.dot(&v), size),
        relative(norm(&(&jv - &at.j.dot(&v))), size),
        relative(norm(&(&jtu - &at.j.t().dot(&u))), size),
    ]))
}

/// Rejected where sweeps carry a residual without its digits, if that is more than rounding
/// explains.
fn products<T: Scalar>(at: &Point<T>) -> Result<Check> {
    if at.is_by_paths() && at.residual_underflows() {
        return Ok(Check::Rejected);
    }
    let mut random = at.random("products");
    let v = at.unit(at.x.len(), &mut random);
    let loss = &at.subject.loss;
    let hv = wide(at.claims().hessian_times(at.x, loss, narrow(&v).view())?);
    let expected = at.j.t().dot(&at.at.s.dot(&at.j.dot(&v)));
    let g = at.j.t().dot(&at.at.r);
    Ok(worst([
        relative(norm(&(&at.g - &g)), at.gradient_size()),
        relative(norm(&(&hv - &expected)), at.curvature_size()),
    ]))
}
