//! Weights of the penalties when none is given.

use relugrad::Penalty;

/// The weight `λ` with which `compare` trains a penalty unless another is given.
///
/// Chosen on the digits by the search that `docs/results.md` describes. The penalties have different units, so
/// their weights cannot be compared with each other, and other data may want others.
pub fn default_lambda(penalty: &Penalty) -> f64 {
    match penalty {
        Penalty::InputGradient => 1.0,
        Penalty::InputGradientL2 => 1.0,
        Penalty::InputGradientL1 => 0.3,
        Penalty::InputGradientLinf => 3.0,
        Penalty::Jacobian => 0.01,
        Penalty::JacobianSpectral => 0.03,
        Penalty::JacobianNuclear => 0.03,
        Penalty::JacobianProjected { .. } => 0.01,
        Penalty::JacobianProbabilities => 1.0,
        Penalty::CrossLipschitz => 0.001,
        Penalty::CurvatureTrace => 0.3,
        Penalty::CurvatureFrobenius => 0.1,
        Penalty::CurvatureSpectral => 0.3,
        Penalty::CurvatureDirectional => 0.1,
        Penalty::Cure { .. } => 0.3,
        Penalty::CureKinks { .. } => 0.3,
        Penalty::RegionBoundary(_) => 1.0,
        Penalty::DecisionBoundary(_) => 1.0,
        Penalty::MaximumMargin(_) => 1.0,
        _ => 0.01,
    }
}
