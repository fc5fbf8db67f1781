//! The Hessian of a loss with respect to the input, `H = ∇²ₓℓ = Jᵀ S J`, kept in factored form.
//!
//! With `S = L Lᵀ` the nonzero eigenvalues of the `D×D` matrix `H` are those of the `K×K` matrix
//! `Lᵀ G L`, and if `Lᵀ G L u = λ u` with `‖u‖ = 1` then `Jᵀ L u / √λ` is a unit eigenvector of `H`
//! ([theory](crate::theory)). Whichever of the two matrices is smaller is formed.

use std::sync::OnceLock;

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, s};

use crate::buffer::Buffer;
use crate::eigen::EigenSolver;
use crate::error::{Error, Result, check_array, check_number};
use crate::gram::{FirstLayer, grams};
use crate::jacobian::{JacobianBlock, SWEEP_MEMORY};
use crate::linalg::symmetrise;
use crate::loss::{Function, Loss, LossBatch, Targets, reduced_gram};
use crate::norm::Norm;
use crate::operator::LinearOperator;
use crate::parallel::for_each_chunk;
use crate::product::a_bt_serial;
use crate::scalar::Scalar;
use crate::sweep::Seeds;
use crate::trace::Trace;

/// The input Hessian `H = Jᵀ S J` of the loss of every sample of a trace, exact off the region
/// boundaries.
///
/// No `D×D` matrix is formed except by [`to_dense`](Self::to_dense) or where `D < K`. Numbers per
/// sample are `f64` whatever the network's precision; their accuracy is that of the network's.
#[derive(Clone, Debug)]
pub struct Curvature<'t, 'n, T> {
    trace: &'t Trace<'n, T>,
    function: Function,
    batch: LossBatch,
    /// `Lᵀ G L`, or `H` where `D < K`; `[B, m, m]` with `m = min(K, D)`, computed when it is first
    /// needed.
    reduced: OnceLock<Vec<f64>>,
}

/// Eigenvalues and eigenvectors of the input Hessian of every sample.
#[derive(Clone, Debug)]
pub struct Eigenpairs<T> {
    /// The `min(K, D)` largest eigenvalues, largest first; all others are 0. `[B, min(K, D)]`.
    pub values: Array2<f64>,
    /// Their unit eigenvectors; `[B, min(K, D), D]`. Zero where the eigenvalue is 0 to rounding.
    pub vectors: Array3<T>,
}

/// What overflows, in errors.
const CURVATURE: &str = "the input Hessian";

impl<'n, T: Scalar> Trace<'n, T> {
    /// The factored input Hessian of a loss whose Hessian depends on the logits alone, as that of
    /// every built-in one, so that no targets are needed.
    ///
    /// Cost: nothing but the loss at the logits. The first norm, trace or eigenvalue costs what
    /// [`gram`](Self::gram) does, with `K − 1` rows if the loss sees differences of logits only,
    /// or, where `D < K`, what [`jacobian`](Self::jacobian) does and `K D²` per sample; products
    /// with vectors don't.
    ///
    /// # Errors
    /// [`Error::Loss`](crate::Error::Loss) if the loss does not fit the number of logits, or needs
    /// [targets](Self::curvature_at).
    pub fn curvature(&self, loss: &Loss) -> Result<Curvature<'_, 'n, T>> {
        let function = loss.function();
        if function.hessian_depends_on_target() {
            return Err(Error::Loss {
                loss: loss.name().to_owned(),
                problem: "has a Hessian that depends on the target; use curvature_at".to_owned(),
            });
        }
        let labels = vec![0; self.samples()];
        self.curvature_at(loss, &Targets::Classes(&labels))
    }

    /// The factored input Hessian of a loss at targets.
    ///
    /// Cost as for [`curvature`](Self::curvature).
    ///
    /// # Errors
    /// Those of the targets, as for [`input_gradient`](Self::input_gradient).
    pub fn curvature_at(&self, loss: &Loss, targets: &Targets<T>) -> Result<Curvature<'_, 'n, T>> {
        Ok(Curvature {
            trace: self,
            function: loss.function(),
            batch: self.loss_batch(loss, targets)?,
            reduced: OnceLock::new(),
        })
    }

    /// `∇ₓℓ = Jᵀ r` for each sample; `[B, D]`.
    ///
    /// # Errors
    /// Those of the targets: [`Error::Label`](crate::Error::Label),
    /// [`Error::Shape`](crate::Error::Shape),
    /// [`Error::TargetProbabilities`](crate::Error::TargetProbabilities),
    /// [`Error::Loss`](crate::Error::Loss); and [`Error::NotFinite`](crate::Error::NotFinite) if it
    /// overflows.
    pub fn input_gradient(&self, loss: &Loss, targets: &Targets<T>) -> Result<Array2<T>> {
        let (batch, shape) = (self.loss_batch(loss, targets)?, self.logits().dim());
        let residuals = batch.residuals.iter().map(|&r| T::from_f64(r)).collect();
        let residuals = Array2::from_shape_vec(shape, residuals).expect("one residual per logit");
        self.vjp(residuals.view())
    }

    /// The loss of each sample; `[B]`.
    ///
    /// # Errors
    /// As for [`input_gradient`](Self::input_gradient).
    pub fn losses(&self, loss: &Loss, targets: &Targets<T>) -> Result<Array1<f64>> {
        let values = self.loss_batch(loss, targets)?.values;
        check_array("the loss", &[values.len()], &values)?;
        Ok(values.into())
    }

    fn loss_batch(&self, loss: &Loss, targets: &Targets<T>) -> Result<LossBatch> {
        let (k, mut resolved) = (self.network.outputs(), Vec::new());
        targets.resolve(loss, self.samples(), k, &mut resolved)?;
        let mut batch = LossBatch::default();
        batch.fill(
            &*loss.function(),
            self.state.logits(self.network),
            &resolved,
            k,
        );
        Ok(batch)
    }
}

impl<T: Scalar> Curvature<'_, '_, T> {
    fn outputs(&self) -> usize {
        self.trace.network.outputs()
    }

    /// `m = min(K, D)`.
    fn size(&self) -> usize {
        self.outputs().min(self.trace.network.inputs())
    }

    /// `Lᵀ G L` with `S = L Lᵀ` of each sample, or `H` where that is smaller, computed when it is
    /// first asked for.
    ///
    /// Not while the cell is locked: a thread that waits for parts of the work may take up another
    /// task that asks for it.
    fn reduced(&self) -> Result<impl Iterator<Item = &[f64]>> {
        let size = self.size();
        let reduced = match self.reduced.get() {
            Some(reduced) => reduced,
            None => {
                let computed = match size < self.outputs() {
                    true => self.compute_hessians()?,
                    false => self.compute_reduced(),
                };
                check_array(CURVATURE, &[self.trace.samples(), size, size], &computed)?;
                self.reduced.get_or_init(|| computed)
            }
        };
        Ok(reduced.chunks_exact(size * size))
    }

    /// A number of each sample's reduced matrix.
    fn of_each(&self, mut number: impl FnMut(&[f64]) -> Result<f64>) -> Result<Array1<f64>> {
        let numbers = self.reduced()?.enumerate();
        let checked = numbers.map(|(sample, m)| check_number(CURVATURE, &[sample], number(m)?));
        checked.collect()
    }

    /// `H = A Aᵀ` with `A = (Lᵀ J)ᵀ: [D, K]`, exactly symmetric. Memory: that of one Jacobian
    /// beside the sweeps.
    fn compute_hessians(&self) -> Result<Vec<f64>> {
        let (k, d) = (self.outputs(), self.size());
        let mut hessians = vec![0.0; self.trace.samples() * d * d];
        let (mut columns, mut a) = (Array2::<f64>::zeros((d, k)), vec![0.0; d * k]);
        let visit = |block: JacobianBlock<T>| {
            for (sample, rows) in block.samples.zip(block.values.outer_iter()) {
                let mut part = columns.slice_mut(s![.., block.rows.clone()]);
                part.zip_mut_with(&rows.t(), |to, entry| *to = entry.into_f64());
                if block.rows.end < k {
                    continue;
                }
                let columns = columns.as_slice().expect("standard layout");
                let state = self.batch.state(sample);
                self.function
                    .factor_transposed_times(state, columns, &mut a);
                let hessian = &mut hessians[sample * d * d..(sample + 1) * d * d];
                a_bt_serial((d, k, d), &a, &a, false, hessian);
                symmetrise(hessian, d);
            }
        };
        let memory = SWEEP_MEMORY.max(self.trace.row_bytes());
        self.trace.for_each_jacobian_block(memory, visit)?;
        Ok(hessians)
    }

    /// If the loss sees differences of logits only, `1ᵀ L = 0`, then `J` may be replaced by
    /// `J − 1 J_K` with the last row `J_K` of `J`, whose own last row is 0.
    fn compute_reduced(&self) -> Vec<f64> {
        let (samples, k) = (self.trace.samples(), self.outputs());
        let differences = k > 1 && self.function.sees_only_differences();
        let mut seeds = Array2::eye(k);
        if differences {
            seeds.column_mut(k - 1).fill(-T::ONE);
        }
        let rows = k - usize::from(differences);
        let seeds = seeds.slice(s![..rows, ..]);
        let mut entries = Buffer::uncleared(samples * rows * rows);
        let part = self.trace.part(self.trace.all());
        let first = FirstLayer::for_values(&part, rows);
        grams(&part, seeds, first, &mut entries);
        let mut reduced = vec![0.0; samples * k * k];
        let operations = 8 * reduced.len();
        for_each_chunk(&mut reduced, k * k, operations, |sample, reduced| {
            let mut gram = Buffer::zeros(k * k);
            let entries = &entries[sample * rows * rows..(sample + 1) * rows * rows];
            for (to, from) in gram.chunks_exact_mut(k).zip(entries.chunks_exact(rows)) {
                let pairs = to.iter_mut().zip(from);
                pairs.for_each(|(to, from)| *to = from.into_f64());
            }
            reduced_gram(&*self.function, self.batch.state(sample), &gram, reduced);
        });
        reduced
    }

    /// `H v = Jᵀ S (J v)` for each sample; `v: [B, D]`, result `[B, D]`. For several vectors see
    /// [`LinearOperator`].
    ///
    /// Cost: one tangent and one cotangent row per sample.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// it overflows.
    pub fn apply(&self, v: ArrayView2<T>) -> Result<Array2<T>> {
        LinearOperator::apply(self, v)
    }

    /// `tr H` of each sample; `[B]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if it overflows.
    pub fn hessian_trace(&self) -> Result<Array1<f64>> {
        self.of_each(|m| Ok(m.iter().step_by(self.size() + 1).sum()))
    }

    /// `‖H‖_F` of each sample; `[B]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if it overflows.
    pub fn frobenius_norm(&self) -> Result<Array1<f64>> {
        self.of_each(|m| Ok(Norm::L2.of(m)))
    }

    /// `‖H‖₂`, the largest eigenvalue (`H` is positive semidefinite), of each sample; `[B]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if it overflows,
    /// [`Error::Eigenvalues`](crate::Error::Eigenvalues).
    pub fn spectral_norm(&self) -> Result<Array1<f64>> {
        let mut solver = EigenSolver::new(self.size());
        // A NaN is not swallowed by the maximum.
        self.of_each(|m| {
            Ok(solver.largest(m)?.0).map(|value| if value < 0.0 { 0.0 } else { value })
        })
    }

    /// The eigenvalues that can differ from 0, and their eigenvectors, from an `m×m` problem per
    /// sample with `m = min(K, D)`.
    ///
    /// Cost: that of these problems and, unless `D < K`, one backward sweep with `B·K` rows.
    ///
    /// # Errors
    /// As for [`spectral_norm`](Self::spectral_norm).
    pub fn eigenpairs(&self) -> Result<Eigenpairs<T>> {
        let (b, k, count) = (self.trace.samples(), self.outputs(), self.size());
        let dense = count < k;
        let mut values = Array2::zeros((b, count));
        let mut seeds = Array3::zeros((b, count, if dense { count } else { k }));
        let (mut solver, mut lu) = (EigenSolver::new(count), vec![0.0; k]);
        for (sample, reduced) in self.reduced()?.enumerate() {
            let (eigen, state) = (solver.solve(reduced)?, self.batch.state(sample));
            for i in 0..eigen.nonzero(count, T::EPSILON.into_f64()) {
                values[(sample, i)] = check_number(CURVATURE, &[sample, i], eigen.values[i])?;
                let (vector, scale) = match dense {
                    true => (eigen.vector(i), 1.0),
                    false => {
                        let u = eigen.vector(i);
                        self.function.factor_times(state, u, &mut lu);
                        (&lu[..], eigen.values[i].sqrt())
                    }
                };
                let to = seeds.slice_mut(s![sample, i, ..]);
                to.into_iter()
                    .zip(vector)
                    .for_each(|(to, entry)| *to = T::from_f64(entry / scale));
            }
        }
        let vectors = match dense {
            true => seeds,
            false => {
                let cotangents = self.trace.cotangents(Seeds::PerSample(seeds.view()))?;
                cotangents.at_input().to_owned()
            }
        };
        Ok(Eigenpairs { values, vectors })
    }

    /// `H` itself; `[B, D, D]`. It needs `B·D²` entries; everything else here does without.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if it overflows.
    pub fn to_dense(&self) -> Result<Array3<T>> {
        let (d, k) = (self.trace.network.inputs(), self.outputs());
        let mut dense = Array3::zeros((self.trace.samples(), d, d));
        let mut column = vec![0.0; k];
        let jacobian = self.trace.jacobian()?;
        for (sample, j) in jacobian.outer_iter().enumerate() {
            let mut sj = Array2::zeros((k, d));
            for i in 0..d {
                let v: Vec<f64> = j.column(i).iter().map(|x| x.into_f64()).collect();
                self.function
                    .hessian_times(self.batch.state(sample), &v, &mut column);
                let mut to = sj.column_mut(i);
                to.iter_mut()
                    .zip(&column)
                    .for_each(|(to, &s)| *to = T::from_f64(s));
            }
            dense
                .index_axis_mut(ndarray::Axis(0), sample)
                .assign(&j.t().dot(&sj));
        }
        let entries = dense.as_slice().expect("standard layout");
        check_array(CURVATURE, dense.shape(), entries)?;
        Ok(dense)
    }
}

/// `H`, which is symmetric.
impl<T: Scalar> LinearOperator<T> for Curvature<'_, '_, T> {
    fn samples(&self) -> usize {
        self.trace.samples()
    }

    fn shape(&self) -> (usize, usize) {
        let inputs = self.trace.network.inputs();
        (inputs, inputs)
    }

    fn apply_block(&self, v: ArrayView3<T>) -> Result<Array3<T>> {
        let jacobian = self.trace.jacobian_operator();
        let mut product = jacobian.apply_block(v)?;
        let mut out = Buffer::uncleared(product.len() / self.samples());
        for (sample, mut rows) in product.outer_iter_mut().enumerate() {
            let u = Buffer::of(rows.iter().map(|u| u.into_f64()));
            let state = self.batch.state(sample);
            self.function.hessian_times(state, &u, &mut out);
            let pairs = rows.iter_mut().zip(&*out);
            pairs.for_each(|(to, &s)| *to = T::from_f64(s));
        }
        jacobian.apply_transpose_block(product.view())
    }

    fn apply_transpose_block(&self, u: ArrayView3<T>) -> Result<Array3<T>> {
        self.apply_block(u)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Builder, Loss, Mlp};
    use approx::assert_abs_diff_eq;
    use ndarray::{Array2, array};
    use rayon::prelude::*;

    #[test]
    fn it_can_be_asked_by_tasks_that_wait_for_each_other() {
        let network = Mlp::new(&[64, 128, 128, 10]).build::<f32>(0).unwrap();
        let inputs = Array2::from_shape_fn((64, 64), |(i, j)| ((i * 7 + j) as f32).sin());
        let trace = network.trace(inputs.view()).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(16).build();
        pool.unwrap().install(|| {
            for _ in 0..200 {
                let curvature = trace.curvature(&Loss::softmax_cross_entropy()).unwrap();
                let tasks = (0..64).into_par_iter();
                let sums = tasks
                    .map(|_| curvature.hessian_trace().unwrap().sum())
                    .collect::<Vec<_>>();
                assert!(sums.iter().all(|sum| *sum == sums[0]));
            }
        });
    }

    #[test]
    fn two_classes_by_hand() {
        // J = [[1, 2], [0, 0]] and p = (1/2, 1/2), so H = ¼ q qᵀ with q = (1, 2).
        let mut builder = Builder::<f64>::new();
        let x = builder.input(2).unwrap();
        let f = builder
            .dense(x, array![[1.0, 2.0], [0.0, 0.0]], None)
            .unwrap();
        let network = builder.build(f).unwrap();
        let trace = network.trace(array![[2.0, -1.0]].view()).unwrap();
        let h = trace.curvature(&Loss::softmax_cross_entropy()).unwrap();
        assert_eq!(h.to_dense().unwrap(), array![[[0.25, 0.5], [0.5, 1.0]]]);
        assert_eq!(
            h.apply(array![[1.0, 1.0]].view()).unwrap(),
            array![[0.75, 1.5]]
        );
        let close = |found: f64| (found - 1.25).abs() < 1e-15;
        assert!(close(h.hessian_trace().unwrap()[0]) && close(h.frobenius_norm().unwrap()[0]));
        assert!(close(h.spectral_norm().unwrap()[0]));
        let pairs = h.eigenpairs().unwrap();
        assert!(close(pairs.values[(0, 0)]) && pairs.values[(0, 1)] == 0.0);
        let q = 5f64.sqrt();
        let vector = pairs
            .vectors
            .index_axis(ndarray::Axis(0), 0)
            .row(0)
            .to_owned();
        let sign = vector[0].signum();
        assert_abs_diff_eq!(sign * vector, array![1.0 / q, 2.0 / q], epsilon = 1e-15);
    }

    #[test]
    fn fewer_inputs_than_logits_give_the_same_spectrum() {
        let network = Mlp::new(&[3, 8, 7]).build::<f64>(5).unwrap();
        let x = array![[0.4, -0.2, 0.9], [-1.0, 0.3, 0.1]];
        let trace = network.trace(x.view()).unwrap();
        for loss in [Loss::softmax_cross_entropy(), Loss::SquaredError] {
            let h = trace.curvature(&loss).unwrap();
            let (dense, pairs) = (h.to_dense().unwrap(), h.eigenpairs().unwrap());
            for (i, dense) in dense.outer_iter().enumerate() {
                let (trace, norm) = (dense.diag().sum(), (&dense * &dense).sum().sqrt());
                assert_abs_diff_eq!(
                    h.hessian_trace().unwrap()[i],
                    trace,
                    epsilon = 1e-14 * trace
                );
                assert_abs_diff_eq!(h.frobenius_norm().unwrap()[i], norm, epsilon = 1e-14 * norm);
                let values = pairs.values.row(i);
                assert_abs_diff_eq!(
                    h.spectral_norm().unwrap()[i],
                    values[0],
                    epsilon = 1e-14 * values[0]
                );
                let vectors = pairs.vectors.index_axis(ndarray::Axis(0), i);
                let again = vectors.t().dot(&Array2::from_diag(&values)).dot(&vectors);
                assert_abs_diff_eq!(again, dense, epsilon = 1e-14 * trace);
            }
        }
    }
}
