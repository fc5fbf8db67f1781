//! Which rows are swept for which penalties.

use std::sync::Arc;

use ndarray::Array2;

use super::Objective;
use crate::error::Result;
use crate::penalty::{
    Alone, Described, Door, Geometric, GramPenalty, InputGradientPenalty, JacobianPenalty,
    LogitPenalty, PairPenalty,
};
use crate::scalar::Scalar;

/// How an [`Objective`] chooses the rows of its sweeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SweepStrategy {
    /// The least work. The fewest rows: one for penalties of the input gradient alone, `m` for the
    /// projected Jacobian alone, and `K − 1` where only differences of logits matter. No Jacobian
    /// where the first layer's own Gram matrix is less work, and no tangents behind the last hidden
    /// layer where sums over subsets of samples are.
    #[default]
    Fewest,
    /// `K` rows for every penalty that is a function of the Gram matrix, and the Jacobian itself.
    /// CURE's two points share nothing.
    AllRows,
    /// The fewest rows, and no Jacobian for penalties of the Gram matrix wherever all paths pass
    /// through a dense first layer, even if that is more work.
    FirstLayerGram,
    /// The fewest rows, and for penalties of the Gram matrix the last two layers through sums over
    /// subsets of samples wherever a network ends in dense layers with ReLUs or clips between them,
    /// even if that is more work.
    FourRussians,
}

/// The terms of an objective by the doors that they come through, with their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Doors {
    pub(super) logits: Vec<(usize, Arc<dyn LogitPenalty>)>,
    pub(super) gram: Vec<(usize, Arc<dyn GramPenalty>)>,
    pub(super) input_gradient: Vec<(usize, Arc<dyn InputGradientPenalty>)>,
    pub(super) pair: Vec<(usize, Arc<dyn PairPenalty>)>,
    pub(super) rows: Vec<(usize, Arc<dyn JacobianPenalty>)>,
    pub(super) geometric: Vec<(usize, Geometric)>,
    /// Whether all penalties of the Gram matrix promise to see only differences of logits.
    differences: bool,
}

impl Doors {
    pub(super) fn add(&mut self, term: usize, door: Door) {
        let differences = door.sees_only_differences();
        match door {
            Door::Gram(penalty) => {
                self.differences = differences && (self.differences || self.gram.is_empty());
                self.gram.push((term, penalty));
            }
            Door::Logits(penalty) => self.logits.push((term, penalty)),
            Door::InputGradient(penalty) => self.input_gradient.push((term, penalty)),
            Door::Pair(penalty) => self.pair.push((term, penalty)),
            Door::Rows(penalty) => self.rows.push((term, penalty)),
            Door::Geometric(penalty) => self.geometric.push((term, penalty)),
        }
    }
}

impl Doors {
    /// Whether all penalties are defined where there are `K` logits.
    pub(super) fn check_outputs(&self, outputs: usize) -> Result<()> {
        let check = |penalty: &dyn Described| penalty.check_outputs(outputs);
        self.logits.iter().try_for_each(|(_, p)| check(&**p))?;
        self.gram.iter().try_for_each(|(_, p)| check(&**p))?;
        self.input_gradient
            .iter()
            .try_for_each(|(_, p)| check(&**p))?;
        self.pair.iter().try_for_each(|(_, p)| check(&**p))?;
        self.rows.iter().try_for_each(|(_, p)| check(&**p))?;
        self.geometric.iter().try_for_each(|(_, p)| check(p))
    }
}

/// Which sweeps one evaluation takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StagePlan {
    /// The rows that carry the Gram matrix.
    pub(super) basis: SeedBasis,
    /// Whether the penalties of the Gram matrix are computed from the input gradient instead.
    pub(super) gram_by_gradient: bool,
}

/// Which rows carry the Gram matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SeedBasis {
    /// The identity: all `K` rows of `J`.
    #[default]
    Identity,
    /// `K − 1` orthonormal rows orthogonal to `1`: all of `C J`.
    Centred,
    /// The random rows of the only Gram term, and how many.
    Random(usize),
}

impl Objective {
    /// The sweeps for a network with `outputs` logits.
    pub(super) fn plan(&self, outputs: usize) -> StagePlan {
        let gram = &self.doors.gram;
        if self.strategy == SweepStrategy::AllRows || gram.is_empty() {
            return StagePlan::default();
        }
        let by_gradient = |(_, penalty): &(usize, Arc<dyn GramPenalty>)| {
            matches!(penalty.alone(), Alone::InputGradient(_))
        };
        if gram.iter().all(by_gradient) {
            return StagePlan {
                basis: SeedBasis::Identity,
                gram_by_gradient: true,
            };
        }
        StagePlan {
            basis: self.basis(outputs),
            gram_by_gradient: false,
        }
    }

    fn basis(&self, outputs: usize) -> SeedBasis {
        if let [(_, penalty)] = &self.doors.gram[..]
            && matches!(penalty.alone(), Alone::RandomRows)
            && penalty.needs().random_rows < outputs
            && self.sample_weights.is_empty()
        {
            return SeedBasis::Random(penalty.needs().random_rows);
        }
        let differences = outputs > 1 && self.function.sees_only_differences();
        match differences && self.doors.differences {
            true => SeedBasis::Centred,
            false => SeedBasis::Identity,
        }
    }

    /// The terms of norms of the input gradient, in no particular order.
    pub(super) fn gradient_terms(
        &self,
        plan: StagePlan,
    ) -> impl Iterator<Item = (usize, &dyn InputGradientPenalty)> {
        let gram = self
            .doors
            .gram
            .iter()
            .filter(move |_| plan.gram_by_gradient);
        let gram = gram.filter_map(|(term, penalty)| match penalty.alone() {
            Alone::InputGradient(penalty) => Some((*term, penalty)),
            Alone::Gram | Alone::RandomRows => None,
        });
        let own = self.doors.input_gradient.iter();
        own.map(|(term, penalty)| (*term, &**penalty)).chain(gram)
    }

    /// The terms that are computed from the Gram matrix.
    pub(super) fn gram_terms(&self, plan: StagePlan) -> &[(usize, Arc<dyn GramPenalty>)] {
        match plan.gram_by_gradient {
            true => &[],
            false => &self.doors.gram,
        }
    }
}

impl SeedBasis {
    /// Rows of each sample.
    pub(super) fn rows(self, outputs: usize) -> usize {
        match self {
            SeedBasis::Identity => outputs,
            SeedBasis::Centred => outputs - 1,
            SeedBasis::Random(rows) => rows,
        }
    }
}

/// Seeds of the Gram matrix's sweeps, `[R, K]`, in the precision of its entries and in the
/// network's.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedSeeds<T> {
    pub(crate) exact: Array2<f64>,
    pub(crate) rounded: Array2<T>,
}

impl<T: Scalar> SharedSeeds<T> {
    /// Makes them those of a network with `outputs` logits, if they are not.
    pub(crate) fn fill(&mut self, basis: SeedBasis, outputs: usize) {
        let count = outputs - usize::from(basis == SeedBasis::Centred);
        if self.exact.dim() != (count, outputs) {
            self.exact = shared_seeds(basis, outputs);
            self.rounded = shared_seeds(basis, outputs);
        }
    }
}

/// Seeds of the Gram matrix's sweeps: the identity, or the `K − 1` rows
/// `(1, …, 1, −i, 0, …, 0)/√(i(i+1))` with `i` ones, which are orthonormal and orthogonal to `1`
/// (Helmert).
fn shared_seeds<T: Scalar>(basis: SeedBasis, outputs: usize) -> Array2<T> {
    if basis != SeedBasis::Centred {
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
    use crate::{Loss, Penalty};
    use approx::assert_abs_diff_eq;

    fn plan(penalties: &[Penalty], loss: Loss) -> StagePlan {
        let new = Objective::new(loss);
        let objective = penalties
            .iter()
            .fold(new, |objective, p| objective.with(p.clone(), 1.0).unwrap());
        objective.plan(10)
    }

    #[test]
    fn each_set_of_penalties_takes_the_fewest_rows() {
        use Penalty::*;
        let softmax = Loss::softmax_cross_entropy();
        let basis = |penalties: &[Penalty], loss| {
            let plan = plan(penalties, loss);
            assert!(!plan.gram_by_gradient);
            plan.basis
        };
        assert!(plan(&[InputGradient], softmax).gram_by_gradient);
        let shared = basis(&[InputGradient, CurvatureTrace], softmax);
        assert_eq!(shared, SeedBasis::Centred);
        let squared = basis(&[CurvatureTrace], Loss::SquaredError);
        assert_eq!(squared, SeedBasis::Identity);
        for order in [[CrossLipschitz, Jacobian], [Jacobian, CrossLipschitz]] {
            assert_eq!(basis(&order, softmax), SeedBasis::Identity);
        }
        let few = JacobianProjected { rows: 3, seed: 0 };
        let alone = basis(std::slice::from_ref(&few), softmax);
        assert_eq!(alone, SeedBasis::Random(3));
        assert_eq!(basis(&[few, CrossLipschitz], softmax), SeedBasis::Identity);
        let many = JacobianProjected { rows: 30, seed: 0 };
        assert_eq!(basis(&[many], softmax), SeedBasis::Identity);
    }

    #[test]
    fn centred_seeds_are_orthonormal_and_orthogonal_to_one() {
        let q = shared_seeds::<f64>(SeedBasis::Centred, 7);
        assert_abs_diff_eq!(q.dot(&q.t()), Array2::eye(6), epsilon = 1e-15);
        assert!(
            q.sum_axis(ndarray::Axis(1))
                .iter()
                .all(|sum| sum.abs() < 1e-15)
        );
    }
}
