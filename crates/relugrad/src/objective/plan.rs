//! Which rows are swept for which penalties.

use ndarray::Array2;

use super::Objective;
use crate::penalty::{Form, Penalty};
use crate::scalar::Scalar;

/// How an [`Objective`] chooses the rows of its sweeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// The least work. The fewest rows: one for penalties of the input gradient alone, `m` for the projected Jacobian alone, and
    /// `K − 1` where only differences of logits matter. No Jacobian where the first layer's own Gram matrix is less work, and
    /// no tangents behind the last hidden layer where sums over subsets of samples are.
    #[default]
    Fewest,
    /// `K` rows for every penalty that is a function of the Gram matrix, and the Jacobian itself. CURE's two points share
    /// nothing.
    AllRows,
    /// The fewest rows, and no Jacobian for penalties of the Gram matrix wherever all paths pass through a dense first
    /// layer, even if that is more work.
    FirstLayerGram,
    /// The fewest rows, and for penalties of the Gram matrix the last two layers through sums over subsets of samples wherever
    /// a network ends in dense layers with ReLUs or clips between them, even if that is more work.
    SubsetSums,
}

/// The sweeps of one evaluation. Terms are given by their index.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Terms computed from the input gradient (one row): norms of it, and CURE.
    pub(crate) gradient: Vec<usize>,
    /// Terms computed from the hyperplanes around the sample.
    pub(crate) geometry: Vec<usize>,
    /// Terms computed from the Gram matrix.
    pub(crate) gram: Vec<usize>,
    /// The rows of the Gram matrix's sweeps.
    pub(crate) rows: Rows,
}

/// Which rows carry the Gram matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rows {
    /// The identity: all `K` rows of `J`.
    #[default]
    Identity,
    /// `K − 1` orthonormal rows orthogonal to `1`: all of `C J`.
    Centred,
    /// The random rows of the only Gram term.
    Projected,
}

impl Objective {
    /// The sweeps for a network with `outputs` logits.
    pub(crate) fn plan(&self, outputs: usize) -> Plan {
        let mut plan = Plan::default();
        self.plan_into(outputs, &mut plan);
        plan
    }

    /// [`plan`](Self::plan) into one whose memory is used again.
    pub(crate) fn plan_into(&self, outputs: usize, plan: &mut Plan) {
        let fewest = self.route != Route::AllRows;
        let Plan {
            gradient,
            geometry,
            gram,
            rows,
        } = plan;
        for terms in [&mut *gradient, geometry, gram] {
            terms.clear();
        }
        for (i, term) in self.terms.iter().enumerate() {
            match term.penalty.form() {
                Form::Gram => gram.push(i),
                Form::Geometry => geometry.push(i),
                Form::Gradient(_) | Form::FiniteStep(..) => gradient.push(i),
            }
        }
        let only = |gram: &[usize], penalty: fn(&Penalty) -> bool| {
            fewest && !gram.is_empty() && gram.iter().all(|&i| penalty(&self.terms[i].penalty))
        };
        *rows = Rows::Identity;
        if only(gram, |penalty| *penalty == Penalty::InputGradient) {
            gradient.append(gram);
            gradient.sort_unstable();
            return;
        }
        let differences = outputs > 1 && self.loss.function().sees_only_differences();
        *rows = match gram[..] {
            [i] if fewest && self.fewer_projections(i, outputs) => Rows::Projected,
            _ if differences && only(gram, Penalty::sees_only_differences) => Rows::Centred,
            _ => Rows::Identity,
        };
    }

    /// Rows of each sample in the Gram stage.
    pub(crate) fn gram_rows(&self, plan: &Plan, outputs: usize) -> usize {
        match (plan.rows, &plan.gram[..]) {
            (Rows::Centred, _) => outputs - 1,
            (Rows::Projected, [i]) => match self.terms[*i].penalty {
                Penalty::JacobianProjected { rows, .. } => rows,
                _ => outputs,
            },
            _ => outputs,
        }
    }

    fn fewer_projections(&self, term: usize, outputs: usize) -> bool {
        matches!(self.terms[term].penalty, Penalty::JacobianProjected { rows, .. } if rows < outputs)
    }
}

/// Seeds of the Gram matrix's sweeps, `[R, K]`, in the precision of its entries and in the network's.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedSeeds<T> {
    pub(crate) exact: Array2<f64>,
    pub(crate) rounded: Array2<T>,
}

impl<T: Scalar> SharedSeeds<T> {
    /// Makes them those of a network with `outputs` logits, if they are not.
    pub(crate) fn fill(&mut self, rows: Rows, outputs: usize) {
        let count = outputs - usize::from(rows == Rows::Centred);
        if self.exact.dim() != (count, outputs) {
            self.exact = shared_seeds(rows, outputs);
            self.rounded = shared_seeds(rows, outputs);
        }
    }
}

/// Seeds of the Gram matrix's sweeps: the identity, or the `K − 1` rows
/// `(1, …, 1, −i, 0, …, 0)/√(i(i+1))` with `i` ones, which are orthonormal and orthogonal to `1` (Helmert).
fn shared_seeds<T: Scalar>(rows: Rows, outputs: usize) -> Array2<T> {
    if rows != Rows::Centred {
        return Array2::eye(outputs);
    }
    Array2::from_shape_fn((outputs - 1, outputs), |(row, column)| {
        let i = (row + 1) as f64;
        let entry = match column.cmp(&(row + 1)) {
            std::cmp::Ordering::Less => 1.0,
            std::cmp::Ordering::Equal => -i,
            std::cmp::Ordering::Greater => 0.0,
        };
        T::from_f64(entry / (i * (i + 1.0)).sqrt())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Loss;

    fn plan(penalties: &[Penalty], loss: Loss) -> Plan {
        let objective = penalties.iter().fold(Objective::new(loss), |objective, p| {
            objective.with(p.clone(), 1.0).unwrap()
        });
        objective.plan(10)
    }

    #[test]
    fn each_set_of_penalties_takes_the_fewest_rows() {
        use Penalty::*;
        let softmax = Loss::softmax_cross_entropy();
        let alone = plan(&[InputGradient], softmax);
        assert_eq!((alone.gradient, alone.gram), (vec![0], vec![]));
        let shared = plan(&[InputGradient, CurvatureTrace], softmax);
        assert_eq!((shared.gram, shared.rows), (vec![0, 1], Rows::Centred));
        assert_eq!(
            plan(&[CurvatureTrace], Loss::SquaredError).rows,
            Rows::Identity
        );
        assert_eq!(
            plan(&[CrossLipschitz, Jacobian], softmax).rows,
            Rows::Identity
        );
        let few = JacobianProjected { rows: 3, seed: 0 };
        assert_eq!(
            plan(std::slice::from_ref(&few), softmax).rows,
            Rows::Projected
        );
        assert_eq!(plan(&[few, CrossLipschitz], softmax).rows, Rows::Identity);
        let many = JacobianProjected { rows: 30, seed: 0 };
        assert_eq!(plan(&[many], softmax).rows, Rows::Identity);
    }

    #[test]
    fn centred_seeds_are_orthonormal_and_orthogonal_to_one() {
        let q = shared_seeds::<f64>(Rows::Centred, 7);
        assert!(q.dot(&q.t()).abs_diff_eq(&Array2::eye(6), 1e-15));
        assert!(
            q.sum_axis(ndarray::Axis(1))
                .iter()
                .all(|sum| sum.abs() < 1e-15)
        );
    }
}
