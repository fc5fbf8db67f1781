//! Formulas as graphs of operations, in a normal form: equal parts are one node, a transpose is at
//! the leaves, a product of matrices is one chain of factors, and scalars stand in front of it.
//!
//! So a matrix is symmetric if its transpose is itself, and a Jacobian beside its transpose is seen
//! wherever brackets were.

use std::ops::Range;

use super::shape::{Dim, Shape};
use crate::norm::Norm;

/// The number of a node; inputs have smaller ones.
pub(super) type Id = usize;

/// What a formula sees of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Logits,
    Target,
    Residual,
    Hessian,
    Gram,
    Jacobian,
    Gradient,
    Loss,
}

impl Leaf {
    pub(super) fn shape(self) -> Shape {
        match self {
            Leaf::Logits | Leaf::Target | Leaf::Residual => Shape::column(Dim::K),
            Leaf::Hessian | Leaf::Gram => Shape::new(Dim::K, Dim::K),
            Leaf::Jacobian => Shape::new(Dim::K, Dim::D),
            Leaf::Gradient => Shape::column(Dim::D),
            Leaf::Loss => Shape::SCALAR,
        }
    }

    /// Whether it changes with the parameters.
    fn is_active(self) -> bool {
        self != Leaf::Target
    }
}

/// A function of each entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Map {
    Exp,
    Log,
    Sqrt,
    Abs,
    Relu,
    /// The root of a sum of squares: 0 with derivative 0 where that is not positive.
    Root,
}

/// A function of two entries; a scalar goes with every entry of the other operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zip {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A function of all entries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reduction {
    Sum,
    Norm(Norm),
    Max,
    Min,
    LogSumExp,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    Leaf(Leaf),
    Number(f64),
    Size(Dim),
    Ones,
    Identity,
    Centring,
    Map(Map, Id),
    Zip(Zip, Id, Id),
    /// Each entry to a power that is the same for all samples.
    Power(Id, Id),
    /// The product of two or more matrices.
    Chain(Vec<Id>),
    Transpose(Id),
    Trace(Id),
    Reduce(Reduction, Id),
    RowNorms(Norm, Id),
    Softmax(Id),
    /// `softmax`, or the logistic function of a single entry.
    Probabilities(Id),
    /// Of a matrix.
    Diagonal(Id),
    /// Of a vector.
    DiagonalMatrix(Id),
    Largest(Id),
    /// The largest eigenvalue of `Jᵀ S J`, from `G` and `S`.
    LargestCurvature(Id, Id),
    LogDet(Id),
    TraceRoot(Id),
    Hold(Id),
}

impl Op {
    pub(super) fn inputs(&self) -> Vec<Id> {
        match self {
            Op::Leaf(_) | Op::Number(_) | Op::Size(_) | Op::Ones | Op::Identity | Op::Centring => {
                Vec::new()
            }
            Op::Zip(_, a, b) | Op::Power(a, b) | Op::LargestCurvature(a, b) => vec![*a, *b],
            Op::Chain(factors) => factors.clone(),
            Op::Map(_, a)
            | Op::Transpose(a)
            | Op::Trace(a)
            | Op::Reduce(_, a)
            | Op::RowNorms(_, a)
            | Op::Softmax(a)
            | Op::Probabilities(a)
            | Op::Diagonal(a)
            | Op::DiagonalMatrix(a)
            | Op::Largest(a)
            | Op::LogDet(a)
            | Op::TraceRoot(a)
            | Op::Hold(a) => vec![*a],
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) op: Op,
    pub(super) shape: Shape,
    /// Where in the text it comes from.
    pub(super) place: Range<usize>,
    /// Whether it changes with the sample.
    pub(super) varies: bool,
    /// Whether it has a derivative with respect to what changes with the parameters.
    pub(super) active: bool,
}

/// What is done with `J` and what is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// All is left as it is.
    Plain,
    /// `G` and `g` are products of `J`.
    Rows,
    /// `J Jᵀ` is `G`.
    Gram,
    /// `Jᵀ r` is `g`.
    Gradient,
}

#[derive(Clone, Debug)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    form: Form,
    /// The place of what is being built.
    pub(super) place: Range<usize>,
}

impl Graph {
    pub(super) fn new(form: Form) -> Graph {
        Graph {
            nodes: Vec::new(),
            form,
            place: 0..0,
        }
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn op(&self, id: Id) -> &Op {
        &self.nodes[id].op
    }

    pub(super) fn shape(&self, id: Id) -> Shape {
        self.nodes[id].shape
    }

    fn push(&mut self, op: Op, shape: Shape) -> Id {
        if let Some(known) = self.nodes.iter().position(|node| node.op == op) {
            return known;
        }
        let inputs = op.inputs();
        let of_leaf = |active: bool| match op {
            Op::Leaf(leaf) => !active || leaf.is_active(),
            _ => false,
        };
        let varies = of_leaf(false) || inputs.iter().any(|&input| self.nodes[input].varies);
        let active = of_leaf(true) || inputs.iter().any(|&input| self.nodes[input].active);
        let held = matches!(op, Op::Hold(_));
        self.nodes.push(Node {
            op,
            shape,
            place: self.place.clone(),
            varies,
            active: active && !held,
        });
        self.nodes.len() - 1
    }

    pub(super) fn leaf(&mut self, leaf: Leaf) -> Id {
        let rows = matches!(self.form, Form::Rows | Form::Gradient);
        let gradient = matches!(self.form, Form::Rows | Form::Gram);
        if leaf == Leaf::Gram && rows {
            let j = self.leaf(Leaf::Jacobian);
            let transposed = self.transpose(j);
            return self.chain(vec![j, transposed]);
        }
        if leaf == Leaf::Gradient && gradient {
            let (j, r) = (self.leaf(Leaf::Jacobian), self.leaf(Leaf::Residual));
            let transposed = self.transpose(j);
            return self.chain(vec![transposed, r]);
        }
        self.push(Op::Leaf(leaf), leaf.shape())
    }

    pub(super) fn number(&mut self, value: f64) -> Id {
        self.push(Op::Number(value), Shape::SCALAR)
    }

    /// A matrix or vector that only depends on sizes.
    pub(super) fn fixed(&mut self, op: Op, shape: Shape) -> Id {
        self.push(op, shape)
    }

    fn as_number(&self, id: Id) -> Option<f64> {
        match self.op(id) {
            Op::Number(value) => Some(*value),
            _ => None,
        }
    }

    fn is_scalar(&self, id: Id) -> bool {
        self.shape(id).is_scalar()
    }

    pub(super) fn map(&mut self, map: Map, a: Id) -> Id {
        self.push(Op::Map(map, a), self.shape(a))
    }

    /// Of operands of one shape, or of which one is a scalar.
    pub(super) fn zip(&mut self, zip: Zip, a: Id, b: Id) -> Id {
        if let (Some(a), Some(b)) = (self.as_number(a), self.as_number(b)) {
            return self.number(zip.of(a, b));
        }
        if zip == Zip::Multiply {
            return self.multiply(a, b);
        }
        let (a, b) = match zip {
            Zip::Add => (a.min(b), a.max(b)),
            _ => (a, b),
        };
        let shape = self.joint_shape(a, b);
        self.push(Op::Zip(zip, a, b), shape)
    }

    /// The product of entries: a scalar first, and scalars together.
    fn multiply(&mut self, a: Id, b: Id) -> Id {
        let (a, b) = match (self.is_scalar(a), self.is_scalar(b)) {
            (true, false) => (a, b),
            (false, true) => (b, a),
            _ => (a.min(b), a.max(b)),
        };
        if self.as_number(a) == Some(1.0) {
            return b;
        }
        if let (true, Some((scale, rest))) = (self.is_scalar(a), self.scaled(b)) {
            let scale = self.multiply(a, scale);
            return self.multiply(scale, rest);
        }
        let shape = self.joint_shape(a, b);
        self.push(Op::Zip(Zip::Multiply, a, b), shape)
    }

    /// A scalar in front of what is none.
    fn scaled(&self, id: Id) -> Option<(Id, Id)> {
        match *self.op(id) {
            Op::Zip(Zip::Multiply, scale, rest)
                if self.is_scalar(scale) && !self.is_scalar(rest) =>
            {
                Some((scale, rest))
            }
            _ => None,
        }
    }

    fn joint_shape(&self, a: Id, b: Id) -> Shape {
        match self.is_scalar(a) {
            true => self.shape(b),
            false => self.shape(a),
        }
    }

    pub(super) fn power(&mut self, a: Id, exponent: Id) -> Id {
        let number = self.as_number(exponent);
        match (self.op(a).clone(), number) {
            (_, Some(1.0)) => return a,
            (Op::Number(a), Some(number)) => return self.number(a.powf(number)),
            (Op::Reduce(Reduction::Norm(Norm::L2), of), Some(2.0)) => return self.dot(of, of),
            (Op::Map(Map::Root, square), Some(2.0)) => return square,
            _ => {}
        }
        self.push(Op::Power(a, exponent), self.shape(a))
    }

    pub(super) fn transpose(&mut self, a: Id) -> Id {
        if self.is_scalar(a) {
            return a;
        }
        match self.op(a).clone() {
            Op::Leaf(Leaf::Hessian | Leaf::Gram)
            | Op::Identity
            | Op::Centring
            | Op::DiagonalMatrix(_) => a,
            Op::Transpose(inner) => inner,
            Op::Chain(factors) => {
                let factors = factors.into_iter().rev();
                let factors = factors.map(|factor| self.transpose(factor)).collect();
                self.chain(factors)
            }
            Op::Zip(zip, a, b) => {
                let (a, b) = (self.transpose(a), self.transpose(b));
                self.zip(zip, a, b)
            }
            Op::Map(map, a) => {
                let a = self.transpose(a);
                self.map(map, a)
            }
            Op::Power(a, exponent) => {
                let a = self.transpose(a);
                self.power(a, exponent)
            }
            Op::Hold(a) => {
                let a = self.transpose(a);
                self.hold(a)
            }
            _ => self.push(Op::Transpose(a), self.shape(a).transposed()),
        }
    }

    /// Whether its form shows that a matrix is symmetric.
    pub(super) fn is_symmetric(&mut self, a: Id) -> bool {
        self.transpose(a) == a
    }

    /// `A B`, of which a scalar may be one.
    pub(super) fn product(&mut self, a: Id, b: Id) -> Id {
        match self.is_scalar(a) || self.is_scalar(b) {
            true => self.zip(Zip::Multiply, a, b),
            false => self.chain(vec![a, b]),
        }
    }

    /// The product of matrices, none of which is a scalar.
    pub(super) fn chain(&mut self, factors: Vec<Id>) -> Id {
        let (scale, factors) = self.flat(factors);
        let product = match self.contracted(&factors) {
            Some(shorter) => self.chain(shorter),
            None if factors.len() == 1 => factors[0],
            None => {
                let rows = self.shape(factors[0]).rows;
                let columns = self.shape(factors[factors.len() - 1]).columns;
                self.push(Op::Chain(factors), Shape::new(rows, columns))
            }
        };
        match scale {
            Some(scale) => self.zip(Zip::Multiply, scale, product),
            None => product,
        }
    }

    /// Factors that are neither chains nor multiples of others, nor the identity, and the scalars
    /// in front of them.
    fn flat(&mut self, factors: Vec<Id>) -> (Option<Id>, Vec<Id>) {
        let (mut scale, mut flat) = (None, Vec::new());
        let mut rest: Vec<Id> = factors.into_iter().rev().collect();
        while let Some(next) = rest.pop() {
            let factor = match *self.op(next) {
                Op::Chain(ref inner) => {
                    rest.extend(inner.iter().rev());
                    continue;
                }
                Op::Zip(Zip::Multiply, scale, of) if self.is_scalar(scale) => (scale, of),
                Op::Zip(Zip::Divide, of, by) if self.is_scalar(by) => {
                    let one = self.number(1.0);
                    (self.zip(Zip::Divide, one, by), of)
                }
                _ => {
                    flat.push(next);
                    continue;
                }
            };
            scale = Some(match scale {
                Some(scale) => self.multiply(scale, factor.0),
                None => factor.0,
            });
            rest.push(factor.1);
        }
        let others = |graph: &Graph| flat.iter().any(|&one| *graph.op(one) != Op::Identity);
        match others(self) {
            true => flat.retain(|&one| *self.op(one) != Op::Identity),
            false => flat.truncate(1),
        }
        (scale, flat)
    }

    /// Shorter factors of the same product, where `J` meets what it makes `G` or `g` of.
    fn contracted(&mut self, factors: &[Id]) -> Option<Vec<Id>> {
        (1..factors.len()).find_map(|i| {
            let (a, b) = (factors[i - 1], factors[i]);
            let middle = match self.form {
                Form::Plain | Form::Rows => None,
                Form::Gram => self.gram_between(a, b),
                Form::Gradient => self.gradient_of(a, b).map(|g| vec![g]),
            }?;
            Some([&factors[..i - 1], &middle, &factors[i + 1..]].concat())
        })
    }

    /// `M G Nᵀ` for `M J` and `Jᵀ Nᵀ`.
    fn gram_between(&mut self, a: Id, b: Id) -> Option<Vec<Id>> {
        if self.shape(a).columns != Dim::D {
            return None;
        }
        let m = self.before_jacobian(a)?;
        let transposed = self.transpose(b);
        let n = self.before_jacobian(transposed)?;
        let (g, n) = (self.leaf(Leaf::Gram), self.transpose(n));
        Some(vec![m, g, n])
    }

    /// `g` for `Jᵀ` and `r`, and its transpose for `rᵀ` and `J`.
    fn gradient_of(&mut self, a: Id, b: Id) -> Option<Id> {
        let (j, r) = (self.leaf(Leaf::Jacobian), self.leaf(Leaf::Residual));
        let transposed = [self.transpose(j), self.transpose(r)];
        if [a, b] == [transposed[0], r] {
            return Some(self.leaf(Leaf::Gradient));
        }
        let g = self.leaf(Leaf::Gradient);
        ([a, b] == [transposed[1], j]).then(|| self.transpose(g))
    }

    /// `M` of a matrix `M J` with `D` columns.
    pub(super) fn before_jacobian(&mut self, a: Id) -> Option<Id> {
        match self.op(a).clone() {
            Op::Leaf(Leaf::Jacobian) => Some(self.fixed(Op::Identity, Shape::new(Dim::K, Dim::K))),
            Op::Chain(mut factors) => {
                let last = factors.pop()?;
                factors.push(self.before_jacobian(last)?);
                Some(self.chain(factors))
            }
            Op::Zip(zip @ (Zip::Add | Zip::Subtract), a, b) if self.shape(a) == self.shape(b) => {
                let (a, b) = (self.before_jacobian(a)?, self.before_jacobian(b)?);
                Some(self.zip(zip, a, b))
            }
            Op::Zip(Zip::Multiply, scale, of) if self.is_scalar(scale) => {
                let of = self.before_jacobian(of)?;
                Some(self.zip(Zip::Multiply, scale, of))
            }
            Op::Zip(Zip::Divide, of, by) if self.is_scalar(by) => {
                let of = self.before_jacobian(of)?;
                Some(self.zip(Zip::Divide, of, by))
            }
            _ => None,
        }
    }

    /// `M` of `M J` if the squares of its rows are a matter of `G`.
    fn of_rows(&mut self, a: Id) -> Option<Id> {
        let fits = self.form == Form::Gram && self.shape(a).columns == Dim::D;
        self.before_jacobian(a).filter(|_| fits)
    }

    pub(super) fn trace(&mut self, a: Id) -> Id {
        if self.is_scalar(a) {
            return a;
        }
        match self.op(a).clone() {
            Op::Zip(zip @ (Zip::Add | Zip::Subtract), a, b) if self.shape(a) == self.shape(b) => {
                let (a, b) = (self.trace(a), self.trace(b));
                self.zip(zip, a, b)
            }
            Op::Zip(Zip::Multiply, scale, of) if self.is_scalar(scale) => {
                let of = self.trace(of);
                self.zip(Zip::Multiply, scale, of)
            }
            Op::Chain(mut factors) if self.rotates(&factors) => {
                factors.rotate_left(1);
                let rotated = self.chain(factors);
                self.trace(rotated)
            }
            _ => self.push(Op::Trace(a), Shape::SCALAR),
        }
    }

    /// Whether the trace of a product is that of a smaller matrix.
    fn rotates(&self, factors: &[Id]) -> bool {
        let (outer, inner) = (self.shape(factors[0]).rows, self.shape(factors[0]).columns);
        outer == Dim::D && inner != Dim::D
    }

    /// `tr(Aᵀ B)`.
    pub(super) fn dot(&mut self, a: Id, b: Id) -> Id {
        if self.is_scalar(a) {
            return self.zip(Zip::Multiply, a, b);
        }
        let row = self.shape(a).rows == Dim::One;
        let transposed = self.transpose(if row { b } else { a });
        let product = self.chain(if row {
            vec![a, transposed]
        } else {
            vec![transposed, b]
        });
        self.trace(product)
    }

    pub(super) fn reduce(&mut self, reduction: Reduction, a: Id) -> Id {
        let of_inputs = self.shape(a).has(Dim::D);
        match (reduction, self.op(a).clone()) {
            (Reduction::Sum | Reduction::Max | Reduction::Min | Reduction::LogSumExp, _)
                if self.is_scalar(a) =>
            {
                a
            }
            (Reduction::Sum, Op::Diagonal(of)) => self.trace(of),
            (Reduction::Sum, Op::Zip(Zip::Multiply, scale, of)) if self.is_scalar(scale) => {
                let of = self.reduce(Reduction::Sum, of);
                self.zip(Zip::Multiply, scale, of)
            }
            (Reduction::Sum, Op::Zip(Zip::Multiply, a, b)) if of_inputs => self.dot(a, b),
            (Reduction::Sum, Op::Power(a, exponent))
                if of_inputs && self.as_number(exponent) == Some(2.0) =>
            {
                self.dot(a, a)
            }
            (Reduction::Norm(Norm::L2), _) if of_inputs && self.root_of_gram(a) => {
                let square = self.dot(a, a);
                self.map(Map::Root, square)
            }
            _ => self.push(Op::Reduce(reduction, a), Shape::SCALAR),
        }
    }

    /// Whether its Euclidean norm is a matter of `G`.
    fn root_of_gram(&mut self, a: Id) -> bool {
        let transposed = self.transpose(a);
        self.of_rows(a).is_some() || self.of_rows(transposed).is_some()
    }

    pub(super) fn row_norms(&mut self, norm: Norm, a: Id) -> Id {
        if let (Norm::L2, Some(m)) = (norm, self.of_rows(a)) {
            let (g, transposed) = (self.leaf(Leaf::Gram), self.transpose(m));
            let square = self.chain(vec![m, g, transposed]);
            let squares = self.diagonal(square);
            return self.map(Map::Root, squares);
        }
        self.push(Op::RowNorms(norm, a), Shape::column(self.shape(a).rows))
    }

    fn diagonal(&mut self, a: Id) -> Id {
        if self.is_scalar(a) {
            return a;
        }
        self.push(Op::Diagonal(a), Shape::column(self.shape(a).rows))
    }

    /// The diagonal matrix of a column, or the diagonal of a matrix.
    pub(super) fn diag(&mut self, a: Id) -> Id {
        let shape = self.shape(a);
        match shape.columns {
            _ if shape.is_scalar() => a,
            Dim::One => self.push(Op::DiagonalMatrix(a), Shape::new(shape.rows, shape.rows)),
            Dim::K | Dim::D => self.diagonal(a),
        }
    }

    pub(super) fn softmax(&mut self, a: Id) -> Id {
        self.push(Op::Softmax(a), self.shape(a))
    }

    pub(super) fn probabilities(&mut self, a: Id) -> Id {
        self.push(Op::Probabilities(a), self.shape(a))
    }

    pub(super) fn largest(&mut self, a: Id) -> Id {
        if self.is_scalar(a) {
            return a;
        }
        let half = self.half(a);
        if let Some(small) = half {
            return self.largest(small);
        }
        if let Some([g, s]) = self.curvature(a) {
            return self.push(Op::LargestCurvature(g, s), Shape::SCALAR);
        }
        self.push(Op::Largest(a), Shape::SCALAR)
    }

    pub(super) fn trace_root(&mut self, a: Id) -> Id {
        match self.half(a) {
            Some(small) => self.trace_root(small),
            None => self.push(Op::TraceRoot(a), Shape::SCALAR),
        }
    }

    /// `X Xᵀ` of a matrix `Xᵀ X` with `D` rows: both have the same eigenvalues but for zeros.
    fn half(&mut self, a: Id) -> Option<Id> {
        let Op::Chain(factors) = self.op(a).clone() else {
            return None;
        };
        let (first, second) = factors.split_at(factors.len() / 2);
        let smaller = self.shape(a).rows == Dim::D && self.shape(second[0]).rows != Dim::D;
        (smaller && first.len() == second.len() && self.is_symmetric(a)).then(|| {
            let turned = [second, first].concat();
            self.chain(turned)
        })
    }

    /// `G` and `S` if a matrix is `Jᵀ S J`.
    fn curvature(&mut self, a: Id) -> Option<[Id; 2]> {
        if self.form != Form::Gram {
            return None;
        }
        let (j, s) = (self.leaf(Leaf::Jacobian), self.leaf(Leaf::Hessian));
        let transposed = self.transpose(j);
        let is_curvature = *self.op(a) == Op::Chain(vec![transposed, s, j]);
        is_curvature.then(|| [self.leaf(Leaf::Gram), s])
    }

    pub(super) fn log_det(&mut self, a: Id) -> Id {
        self.push(Op::LogDet(a), Shape::SCALAR)
    }

    pub(super) fn hold(&mut self, a: Id) -> Id {
        self.push(Op::Hold(a), self.shape(a))
    }

    /// All nodes that a result needs, inputs first.
    pub(super) fn needed(&self, root: Id) -> Vec<Id> {
        let mut wanted = vec![false; root + 1];
        wanted[root] = true;
        for id in (0..=root).rev() {
            if wanted[id] {
                let inputs = self.nodes[id].op.inputs().into_iter();
                inputs.for_each(|input| wanted[input] = true);
            }
        }
        (0..=root).filter(|&id| wanted[id]).collect()
    }

    /// Whether a result needs a leaf.
    pub(super) fn sees(&self, root: Id, leaf: Leaf) -> bool {
        let mut needed = self.needed(root).into_iter();
        needed.any(|id| *self.op(id) == Op::Leaf(leaf))
    }
}

impl Zip {
    pub(super) fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Zip::Add => a + b,
            Zip::Subtract => a - b,
            Zip::Multiply => a * b,
            Zip::Divide => a / b,
        }
    }
}
