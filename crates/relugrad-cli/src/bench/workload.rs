//! Running a workload, and what it computes.

use anyhow::Result;
use ndarray::{Array2, Array3};
use relugrad::{Direction, FiniteDifference, Loss, Objective, Penalty, Scalar, Targets, Workspace};

use super::arguments::{Arguments, Workload};
use super::problem::Problem;
use crate::failure::Failure;

/// Step of the finite differences, relative to inputs of size 1.
const DIFFERENCE: f64 = 1e-3;

/// What a workload computes.
pub(super) enum Outputs<T> {
    Gradient,
    Jacobian(Array3<T>),
    Rows(Array2<T>),
    Numbers(Vec<f64>),
}

/// A workload with its buffers.
pub(super) struct Runner<'p, T> {
    workload: Workload,
    problem: &'p Problem<T>,
    objective: Option<Objective>,
    workspace: Workspace<T>,
    outputs: Option<Outputs<T>>,
}

impl<'p, T: Scalar> Runner<'p, T> {
    pub(super) fn new(
        workload: Workload,
        problem: &'p Problem<T>,
        arguments: &Arguments,
    ) -> Result<Runner<'p, T>, Failure> {
        Ok(Runner {
            workload,
            problem,
            objective: objective(workload, &problem.loss(), arguments)?,
            workspace: Workspace::new(),
            outputs: None,
        })
    }

    /// The objective of a step.
    pub(super) fn objective(&self) -> Option<&Objective> {
        self.objective.as_ref()
    }

    pub(super) fn run(&mut self) -> Result<()> {
        let Problem {
            network,
            inputs,
            vector,
            labels,
        } = self.problem;
        if let Some(objective) = &self.objective {
            let targets = Targets::Classes(labels);
            objective.gradient_into(network, inputs.view(), &targets, &mut self.workspace)?;
            self.outputs = Some(Outputs::Gradient);
            return Ok(());
        }
        let loss = self.problem.loss();
        self.outputs = Some(match self.workload {
            Workload::Jacobian => {
                let mut jacobian = match self.outputs.take() {
                    Some(Outputs::Jacobian(jacobian)) => jacobian,
                    _ => Array3::default((0, 0, 0)),
                };
                network.trace(inputs.view())?.jacobian_into(&mut jacobian)?;
                Outputs::Jacobian(jacobian)
            }
            Workload::Hvp => {
                let trace = network.trace(inputs.view())?;
                Outputs::Rows(trace.curvature(&loss)?.apply(vector.view())?)
            }
            Workload::HessianFrobenius => {
                let trace = network.trace(inputs.view())?;
                Outputs::Numbers(trace.curvature(&loss)?.frobenius_norm()?.to_vec())
            }
            Workload::FiniteDifferenceJacobian
            | Workload::PlainStep
            | Workload::InputGradientStep
            | Workload::JacobianStep
            | Workload::CrossLipschitzStep
            | Workload::HessianFrobeniusStep
            | Workload::CureStep
            | Workload::FormulaStep
            | Workload::AllPenaltiesStep => {
                let difference = FiniteDifference::forward(DIFFERENCE)?;
                Outputs::Jacobian(difference.jacobian(network, inputs.view())?)
            }
        });
        Ok(())
    }

    /// The value of the objective, the norm of all outputs, and their weighted sum.
    pub(super) fn check(&self) -> (Option<f64>, f64, f64) {
        let (mut squares, mut sum) = (0.0, 0.0);
        let mut add = |values: &mut dyn Iterator<Item = f64>| {
            for (i, value) in values.enumerate() {
                squares += value * value;
                sum += value * (0.7 * i as f64).cos();
            }
        };
        match self.outputs.as_ref().expect("it has run") {
            Outputs::Gradient => {
                let gradient = self.workspace.gradient().expect("it was computed");
                for (_, array) in gradient.iter() {
                    add(&mut array.iter().map(|v| v.into_f64()));
                }
            }
            Outputs::Jacobian(j) => add(&mut j.iter().map(|v| v.into_f64())),
            Outputs::Rows(rows) => add(&mut rows.iter().map(|v| v.into_f64())),
            Outputs::Numbers(numbers) => add(&mut numbers.iter().copied()),
        }
        let value = self
            .objective
            .as_ref()
            .and_then(|_| self.workspace.evaluation())
            .map(|evaluation| evaluation.value);
        (value, squares.sqrt(), sum)
    }
}

/// The objective of a step; `None` for what is not a step.
fn objective(
    workload: Workload,
    loss: &Loss,
    arguments: &Arguments,
) -> Result<Option<Objective>, Failure> {
    let penalties = match workload {
        Workload::PlainStep => vec![],
        Workload::InputGradientStep => vec![Penalty::InputGradient],
        Workload::JacobianStep => vec![Penalty::Jacobian],
        Workload::CrossLipschitzStep => vec![Penalty::CrossLipschitz],
        Workload::HessianFrobeniusStep => vec![Penalty::CurvatureFrobenius],
        Workload::CureStep => vec![Penalty::Cure {
            step: arguments.cure_step,
            direction: Direction::Sign,
        }],
        Workload::FormulaStep => arguments.formulas.penalties()?,
        Workload::AllPenaltiesStep => Penalty::all()
            .into_iter()
            .filter(Penalty::is_function_of_gram)
            .collect(),
        Workload::Jacobian
        | Workload::Hvp
        | Workload::HessianFrobenius
        | Workload::FiniteDifferenceJacobian => return Ok(None),
    };
    let mut objective = Objective::new(*loss);
    for penalty in penalties {
        let with = objective.with(penalty, arguments.lambda);
        objective = with.map_err(|error| Failure::Usage(error.into()))?;
    }
    Ok(Some(objective))
}
