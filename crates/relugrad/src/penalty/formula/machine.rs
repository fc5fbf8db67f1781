//! Running a program at one sample after another, in buffers that are kept.

use std::ops::Range;

use super::graph::{Leaf, Reduction};
use super::kernels;
use super::program::{Action, Program, Side, Step};
use super::shape::{Shape, Sizes};
use crate::buffer::Buffer;
use crate::eigen::EigenSolver;
use crate::error::Result;
use crate::linalg::{add, add_outer, dot};
use crate::loss::reduced_gram;
use crate::penalty::LogitPoint;
use crate::product::{a_b_serial, a_bt_serial, at_b_serial};

/// What a formula sees of a sample; what its form does not see is empty.
pub(super) struct Seen<'a> {
    pub(super) logit: LogitPoint<'a>,
    pub(super) loss: [f64; 1],
    pub(super) hessian: &'a [f64],
    pub(super) gram: &'a [f64],
    pub(super) jacobian: &'a [f64],
    pub(super) gradient: &'a [f64],
    /// Upper bound on the rank of `G`, and the relative accuracy of its entries.
    pub(super) rank: usize,
    pub(super) epsilon: f64,
}

impl Seen<'_> {
    fn leaf(&self, leaf: Leaf) -> &[f64] {
        match leaf {
            Leaf::Logits => self.logit.logits,
            Leaf::Target => self.logit.target,
            Leaf::Residual => self.logit.residual,
            Leaf::Hessian => self.hessian,
            Leaf::Gram => self.gram,
            Leaf::Jacobian => self.jacobian,
            Leaf::Gradient => self.gradient,
            Leaf::Loss => &self.loss,
        }
    }
}

/// Buffers for a program and a network's sizes.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) sizes: Sizes,
    /// Where each step has its values; of leaves there are none.
    values: Vec<f64>,
    places: Vec<Range<usize>>,
    /// What a step keeps for its derivative.
    kept: Vec<f64>,
    kept_places: Vec<Range<usize>>,
    /// Derivatives with respect to each step, leaves included.
    adjoints: Vec<f64>,
    adjoint_places: Vec<Range<usize>>,
    /// For steps that need eigenvalues.
    solvers: Vec<Option<EigenSolver>>,
}

/// A step that gave what is not finite.
#[derive(Debug)]
pub(super) struct Unbounded {
    pub(super) step: usize,
    /// Whether it was a derivative.
    pub(super) derivative: bool,
}

/// Places one after another.
fn laid_out(lengths: impl Iterator<Item = usize>) -> (Vec<Range<usize>>, usize) {
    let mut end = 0;
    let places = lengths.map(|length| {
        let start = end;
        end += length;
        start..end
    });
    (places.collect(), end)
}

/// How many numbers a step keeps.
fn kept_length(step: &Step, program: &Program, sizes: Sizes) -> usize {
    let operand = program.steps[step.operands[0]].shape;
    match step.action {
        Action::Largest | Action::LargestCurvature => sizes.of(operand.rows),
        Action::LogDet | Action::TraceRoot => sizes.entries(operand),
        _ => 0,
    }
}

impl Machine {
    pub(super) fn new(program: &Program, sizes: Sizes) -> Machine {
        let steps = &program.steps;
        let is_leaf = |step: &Step| matches!(step.action, Action::Leaf(_));
        let length = |step: &Step| {
            if is_leaf(step) {
                0
            } else {
                sizes.entries(step.shape)
            }
        };
        let (places, values) = laid_out(steps.iter().map(length));
        let kept = steps.iter().map(|step| kept_length(step, program, sizes));
        let (kept_places, kept) = laid_out(kept);
        let of_adjoint = |step: &Step| {
            if step.active {
                sizes.entries(step.shape)
            } else {
                0
            }
        };
        let (adjoint_places, adjoints) = laid_out(steps.iter().map(of_adjoint));
        let solver = |step: &Step| match step.action {
            Action::Largest | Action::LargestCurvature | Action::TraceRoot => {
                let rows = sizes.of(steps[step.operands[0]].shape.rows);
                Some(EigenSolver::new(rows))
            }
            _ => None,
        };
        let mut machine = Machine {
            sizes,
            values: vec![0.0; values],
            places,
            kept: vec![0.0; kept],
            kept_places,
            adjoints: vec![0.0; adjoints],
            adjoint_places,
            solvers: steps.iter().map(solver).collect(),
        };
        machine.fill_constants(program);
        machine
    }

    /// Matrices and numbers that only depend on sizes.
    fn fill_constants(&mut self, program: &Program) {
        let k = self.sizes.k;
        for (i, step) in program.steps.iter().enumerate() {
            let out = &mut self.values[self.places[i].clone()];
            let diagonal = |out: &mut [f64], value: f64| {
                out.iter_mut().step_by(k + 1).for_each(|one| *one += value);
            };
            match step.action {
                Action::Number(value) => out[0] = value,
                Action::Size(dim) => out[0] = self.sizes.of(dim) as f64,
                Action::Ones => out.fill(1.0),
                Action::Identity => diagonal(out, 1.0),
                Action::Centring => {
                    out.fill(-1.0 / k as f64);
                    diagonal(out, 1.0);
                }
                _ => {}
            }
        }
    }

    /// The value at a sample, or the first step that is not finite if that is not.
    pub(super) fn value(
        &mut self,
        program: &Program,
        seen: &Seen,
    ) -> Result<std::result::Result<f64, Unbounded>> {
        for i in 0..program.steps.len() {
            self.run(program, i, seen)?;
        }
        let last = program.steps.len() - 1;
        let value = self.operand(program, last, seen)[0];
        if value.is_finite() {
            return Ok(Ok(value));
        }
        let finite = |i: &usize| {
            self.operand(program, *i, seen)
                .iter()
                .all(|x| x.is_finite())
        };
        let first = (0..last).find(|i| !finite(i));
        Ok(Err(Unbounded {
            step: first.unwrap_or(last),
            derivative: false,
        }))
    }

    /// The values of a step.
    fn operand<'a>(&'a self, program: &Program, i: usize, seen: &'a Seen) -> &'a [f64] {
        match program.steps[i].action {
            Action::Leaf(leaf) => seen.leaf(leaf),
            _ => &self.values[self.places[i].clone()],
        }
    }

    fn run(&mut self, program: &Program, i: usize, seen: &Seen) -> Result<()> {
        let step = &program.steps[i];
        if step.arity() == 0 {
            return Ok(());
        }
        let (before, out) = self.values.split_at_mut(self.places[i].start);
        let out = &mut out[..self.places[i].len()];
        let operand = |side: usize| -> &[f64] {
            let place = step.operands[side];
            match program.steps[place].action {
                Action::Leaf(leaf) => seen.leaf(leaf),
                _ => &before[self.places[place].clone()],
            }
        };
        let (a, b) = (operand(0), operand(1));
        let kept = &mut self.kept[self.kept_places[i].clone()];
        let shape = program.steps[step.operands[0]].shape;
        let columns = self.sizes.of(shape.columns);
        match step.action {
            Action::Map(map) => kernels::map(map, a, out),
            Action::Zip(zip) => kernels::zip(zip, a, b, out),
            Action::Power => kernels::power(a, b[0], out),
            Action::Product(side) => product(side, self.sizes, step.shape, a, b, out),
            Action::Transpose => kernels::transpose(a, columns, out),
            Action::Trace => out[0] = a.iter().step_by(columns + 1).sum(),
            Action::Dot => out[0] = dot(a, b),
            Action::TraceOfProduct => out[0] = kernels::trace_of_product(a, b, columns),
            Action::Reduce(reduction) => out[0] = kernels::reduce(reduction, a),
            Action::RowNorms(norm) => {
                let rows = a.chunks_exact(columns);
                rows.zip(out).for_each(|(row, out)| *out = norm.of(row));
            }
            Action::Softmax => kernels::softmax(a, out),
            Action::Probabilities => kernels::probabilities(a, out),
            Action::Diagonal => {
                let diagonal = a.iter().step_by(columns + 1);
                out.iter_mut().zip(diagonal).for_each(|(out, a)| *out = *a);
            }
            Action::DiagonalMatrix => {
                out.fill(0.0);
                let diagonal = out.iter_mut().step_by(a.len() + 1);
                diagonal.zip(a).for_each(|(out, a)| *out = *a);
            }
            Action::Largest => {
                let solver = self.solvers[i].as_mut().expect("it was made with the step");
                let finite = a.iter().all(|x| x.is_finite());
                out[0] = match finite {
                    true => kernels::largest(solver, a, kept)?,
                    false => f64::NAN,
                };
            }
            Action::LargestCurvature => {
                let solver = self.solvers[i].as_mut().expect("it was made with the step");
                out[0] = largest_curvature(solver, &seen.logit, a, kept)?;
            }
            Action::LogDet => out[0] = kernels::log_det(a, columns, kept),
            Action::TraceRoot => {
                let solver = self.solvers[i].as_mut().expect("it was made with the step");
                let of_gram = program.steps[step.operands[0]].action == Action::Leaf(Leaf::Gram);
                let rank = if of_gram { seen.rank } else { columns };
                out[0] = match a.iter().all(|x| x.is_finite()) {
                    true => kernels::trace_root(solver, a, (rank, seen.epsilon), kept)?,
                    false => f64::NAN,
                };
            }
            Action::Hold => out.copy_from_slice(a),
            Action::Leaf(_)
            | Action::Number(_)
            | Action::Size(_)
            | Action::Ones
            | Action::Identity
            | Action::Centring => {}
        }
        Ok(())
    }

    /// The derivatives with respect to all leaves, of the value that was found last; or a step
    /// whose derivative is not finite.
    pub(super) fn derive(
        &mut self,
        program: &Program,
        seen: &Seen,
    ) -> std::result::Result<(), Unbounded> {
        self.adjoints.fill(0.0);
        let last = program.steps.len() - 1;
        self.adjoints[self.adjoint_places[last].start] = 1.0;
        for i in (0..=last).rev() {
            let step = &program.steps[i];
            if step.active && step.arity() > 0 {
                self.pull(program, i, seen);
            }
        }
        let finite = |i: usize| self.adjoint(i).iter().all(|x| x.is_finite());
        let is_leaf = |i: &usize| program.steps[*i].arity() == 0;
        if (0..=last).filter(is_leaf).all(finite) {
            return Ok(());
        }
        let breaks = |i: &usize| {
            let step = &program.steps[*i];
            finite(*i) && step.operands[..step.arity()].iter().any(|&a| !finite(a))
        };
        let step = (0..=last).rev().find(breaks).unwrap_or(last);
        Err(Unbounded {
            step,
            derivative: true,
        })
    }

    /// The derivative with respect to a step, empty if it has none.
    pub(super) fn adjoint(&self, i: usize) -> &[f64] {
        &self.adjoints[self.adjoint_places[i].clone()]
    }

    /// Adds what the derivative with respect to a step means for its operands.
    fn pull(&mut self, program: &Program, i: usize, seen: &Seen) {
        let step = &program.steps[i];
        let (before, bar) = self.adjoints.split_at_mut(self.adjoint_places[i].start);
        let bar = &bar[..self.adjoint_places[i].len()];
        let operand = |side: usize| -> &[f64] {
            let place = step.operands[side];
            match program.steps[place].action {
                Action::Leaf(leaf) => seen.leaf(leaf),
                _ => &self.values[self.places[place].clone()],
            }
        };
        let at = At {
            step,
            sizes: self.sizes,
            shape: program.steps[step.operands[0]].shape,
            a: operand(0),
            b: operand(1),
            out: &self.values[self.places[i].clone()],
            kept: &self.kept[self.kept_places[i].clone()],
        };
        for side in 0..step.arity() {
            let place = step.operands[side];
            if program.steps[place].active {
                let to = &mut before[self.adjoint_places[place].clone()];
                at.pull(side, bar, to);
            }
        }
    }
}

/// A step with its values, on the way back.
struct At<'a> {
    step: &'a Step,
    sizes: Sizes,
    /// That of the first operand.
    shape: Shape,
    a: &'a [f64],
    b: &'a [f64],
    out: &'a [f64],
    kept: &'a [f64],
}

impl At<'_> {
    /// Adds to the derivative with respect to an operand.
    fn pull(&self, side: usize, bar: &[f64], to: &mut [f64]) {
        let (a, b, out) = (self.a, self.b, self.out);
        let columns = self.sizes.of(self.shape.columns);
        match self.step.action {
            Action::Map(map) => kernels::pull_map(map, (a, out), bar, to),
            Action::Zip(zip) => kernels::pull_zip(zip, side, (a, b), bar, to),
            Action::Power if side == 0 => kernels::pull_power(a, b[0], bar, to),
            Action::Product(of) => self.pull_product(of, side, bar, to),
            Action::Transpose => kernels::add_transposed(1.0, bar, a.len() / columns, to),
            Action::Trace => {
                let diagonal = to.iter_mut().step_by(columns + 1);
                diagonal.for_each(|to| *to += bar[0]);
            }
            Action::Dot => add(to, bar[0], if side == 0 { b } else { a }),
            Action::TraceOfProduct => {
                let rows = a.len() / columns;
                match side {
                    0 => kernels::add_transposed(bar[0], b, rows, to),
                    _ => kernels::add_transposed(bar[0], a, columns, to),
                }
            }
            Action::Reduce(reduction) => kernels::pull_reduce(reduction, (a, out[0]), bar[0], to),
            Action::RowNorms(norm) => {
                let rows = a.chunks_exact(columns).zip(to.chunks_exact_mut(columns));
                for ((row, to), (bar, out)) in rows.zip(bar.iter().zip(out)) {
                    kernels::pull_reduce(Reduction::Norm(norm), (row, *out), *bar, to);
                }
            }
            Action::Softmax => kernels::pull_softmax(out, bar, to),
            Action::Probabilities => kernels::pull_probabilities(out, bar, to),
            Action::Diagonal => {
                let diagonal = to.iter_mut().step_by(columns + 1);
                diagonal.zip(bar).for_each(|(to, bar)| *to += bar);
            }
            Action::DiagonalMatrix => {
                let diagonal = bar.iter().step_by(a.len() + 1);
                to.iter_mut().zip(diagonal).for_each(|(to, bar)| *to += bar);
            }
            Action::Largest => add_outer(to, bar[0], self.kept, self.kept),
            Action::LargestCurvature => self.pull_curvature(side, bar[0], to),
            Action::LogDet | Action::TraceRoot => add(to, bar[0], self.kept),
            // An exponent does not vary, and the others have no operand with a derivative.
            Action::Power
            | Action::Hold
            | Action::Leaf(_)
            | Action::Number(_)
            | Action::Size(_)
            | Action::Ones
            | Action::Identity
            | Action::Centring => {}
        }
    }

    /// Of `C = A B` with inner size `k`: `Ā += C̄ Bᵀ`, `B̄ += Aᵀ C̄`, and likewise with transposes.
    fn pull_product(&self, of: Side, side: usize, bar: &[f64], to: &mut [f64]) {
        let (a, b) = (self.a, self.b);
        let (m, k, n) = sizes_of_product(self.sizes, self.step.shape, a);
        match (of, side) {
            (Side::Neither, 0) => a_bt_serial((m, n, k), bar, b, true, to),
            (Side::Neither, _) => at_b_serial((m, k, n), a, bar, true, to),
            (Side::First, 0) => a_bt_serial((k, n, m), b, bar, true, to),
            (Side::First, _) => a_b_serial((k, m, n), a, bar, true, to),
            (Side::Second, 0) => a_b_serial((m, n, k), bar, b, true, to),
            (Side::Second, _) => at_b_serial((m, n, k), bar, a, true, to),
        }
    }
}

impl At<'_> {
    /// With `q = L u`: `q qᵀ` in `G` and `(G q)(G q)ᵀ/λ` in `S`; nothing where `λ` is not positive.
    fn pull_curvature(&self, side: usize, bar: f64, to: &mut [f64]) {
        let (q, largest) = (self.kept, self.out[0]);
        if largest <= 0.0 {
            return;
        }
        if side == 0 {
            return add_outer(to, bar, q, q);
        }
        // Divided before it is squared: 1/λ can overflow for a saturated sample.
        let root = largest.sqrt();
        let rows = self.a.chunks_exact(q.len());
        let gq = Buffer::of(rows.map(|row| dot(row, q) / root));
        add_outer(to, bar, &gq, &gq);
    }
}

/// `λ_max(Lᵀ G L)` with `S = L Lᵀ`, or 0; keeps `L u`.
fn largest_curvature(
    solver: &mut EigenSolver,
    logit: &LogitPoint,
    gram: &[f64],
    kept: &mut [f64],
) -> Result<f64> {
    let mut reduced = Buffer::zeros(gram.len());
    reduced_gram(logit.loss, logit.state, gram, &mut reduced);
    if reduced.iter().any(|x| !x.is_finite()) {
        return Ok(f64::NAN);
    }
    let (value, vector) = solver.largest(&reduced)?;
    logit.loss.factor_times(logit.state, vector, kept);
    Ok(value.max(0.0))
}

/// `(m, k, n)` of a product `[m, k] [k, n]`.
fn sizes_of_product(sizes: Sizes, shape: Shape, a: &[f64]) -> (usize, usize, usize) {
    let (m, n) = (sizes.of(shape.rows), sizes.of(shape.columns));
    (m, a.len() / m, n)
}

fn product(side: Side, sizes: Sizes, shape: Shape, a: &[f64], b: &[f64], out: &mut [f64]) {
    let (m, k, n) = sizes_of_product(sizes, shape, a);
    match side {
        Side::Neither => a_b_serial((m, k, n), a, b, false, out),
        Side::First => at_b_serial((k, m, n), a, b, false, out),
        Side::Second => a_bt_serial((m, k, n), a, b, false, out),
    }
}
