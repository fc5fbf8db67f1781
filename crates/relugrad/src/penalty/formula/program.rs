//! A formula as a list of steps, each with at most two operands.

use std::ops::Range;

use super::forms::Formed;
use super::graph::{Graph, Id, Leaf, Map, Op, Reduction, Zip};
use super::shape::{Dim, Shape, Sizes};
use crate::norm::Norm;

/// Sizes by which orders of multiplication are compared.
const USUAL: Sizes = Sizes { k: 10, d: 1000 };

/// What a step does with its operands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Leaf(Leaf),
    Number(f64),
    Size(Dim),
    Ones,
    Identity,
    Centring,
    Map(Map),
    Zip(Zip),
    Power,
    /// `A B`, either of which may be transposed, but not both.
    Product(Side),
    Transpose,
    Trace,
    /// `Σ a_ij b_ij`.
    Dot,
    /// `Σ a_ij b_ji`.
    TraceOfProduct,
    Reduce(Reduction),
    RowNorms(Norm),
    Softmax,
    Probabilities,
    Diagonal,
    DiagonalMatrix,
    Largest,
    LargestCurvature,
    LogDet,
    TraceRoot,
    Hold,
}

/// Which operand of a product is transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Neither,
    First,
    Second,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) action: Action,
    /// Numbers of earlier steps; a single operand is there twice, and of leaves and constants both
    /// are the step's own number.
    pub(super) operands: [usize; 2],
    pub(super) shape: Shape,
    pub(super) place: Range<usize>,
    pub(super) varies: bool,
    pub(super) active: bool,
}

/// The steps of a formula; the last has its value.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
}

impl Step {
    /// How many operands it has.
    pub(super) fn arity(&self) -> usize {
        match self.action {
            Action::Leaf(_)
            | Action::Number(_)
            | Action::Size(_)
            | Action::Ones
            | Action::Identity
            | Action::Centring => 0,
            Action::Zip(_)
            | Action::Power
            | Action::Product(_)
            | Action::Dot
            | Action::TraceOfProduct
            | Action::LargestCurvature => 2,
            Action::Map(_)
            | Action::Transpose
            | Action::Trace
            | Action::Reduce(_)
            | Action::RowNorms(_)
            | Action::Softmax
            | Action::Probabilities
            | Action::Diagonal
            | Action::DiagonalMatrix
            | Action::Largest
            | Action::LogDet
            | Action::TraceRoot
            | Action::Hold => 1,
        }
    }
}

impl Program {
    pub(super) fn of(formed: &Formed) -> Program {
        let mut writer = Writer {
            graph: &formed.graph,
            steps: Vec::new(),
            written: vec![None; formed.root + 1],
        };
        writer.step(formed.root);
        Program {
            steps: writer.steps,
        }
    }

    /// The step of a leaf.
    pub(super) fn leaf(&self, leaf: Leaf) -> Option<usize> {
        let mut steps = self.steps.iter();
        steps.position(|step| step.action == Action::Leaf(leaf))
    }
}

struct Writer<'g> {
    graph: &'g Graph,
    steps: Vec<Step>,
    /// The steps of nodes.
    written: Vec<Option<usize>>,
}

/// A step's result, or its transpose.
#[derive(Clone, Copy, Debug)]
struct Factor {
    step: usize,
    transposed: bool,
}

impl Writer<'_> {
    /// The step of a node.
    fn step(&mut self, id: Id) -> usize {
        if let Some(step) = self.written[id] {
            return step;
        }
        let graph = self.graph;
        let node = graph.node(id);
        let step = match &node.op {
            Op::Chain(factors) => self.chain(factors, id),
            Op::Trace(a) => match graph.op(*a) {
                Op::Chain(factors) => self.trace(factors, id),
                _ => self.unary(Action::Trace, *a, id),
            },
            Op::Zip(zip, a, b) => self.pair(Action::Zip(*zip), *a, *b, id),
            Op::Power(a, b) => self.pair(Action::Power, *a, *b, id),
            Op::LargestCurvature(g, s) => self.pair(Action::LargestCurvature, *g, *s, id),
            op => {
                let action = action(op);
                match op.inputs()[..] {
                    [a] => self.unary(action, a, id),
                    _ => self.push(action, [self.steps.len(); 2], node.shape, id),
                }
            }
        };
        self.written[id] = Some(step);
        step
    }

    fn unary(&mut self, action: Action, a: Id, id: Id) -> usize {
        let a = self.step(a);
        self.push(action, [a, a], self.graph.shape(id), id)
    }

    fn pair(&mut self, action: Action, a: Id, b: Id, id: Id) -> usize {
        let operands = [self.step(a), self.step(b)];
        self.push(action, operands, self.graph.shape(id), id)
    }

    /// Writes a step that is part of a node, or finds it.
    fn push(&mut self, action: Action, operands: [usize; 2], shape: Shape, id: Id) -> usize {
        let same = |step: &Step| step.action == action && step.operands == operands;
        if let Some(known) = self.steps.iter().position(same) {
            return known;
        }
        let node = self.graph.node(id);
        let is_leaf = operands[0] == self.steps.len();
        let of_operands = |flag: fn(&Step) -> bool| operands.iter().any(|&i| flag(&self.steps[i]));
        let (varies, active) = match is_leaf {
            true => (node.varies, node.active),
            false => (
                of_operands(|step| step.varies),
                of_operands(|step| step.active) && action != Action::Hold,
            ),
        };
        self.steps.push(Step {
            action,
            operands,
            shape,
            place: node.place.clone(),
            varies,
            active,
        });
        self.steps.len() - 1
    }

    /// A factor of a product; a transpose is not written.
    fn factor(&mut self, id: Id) -> Factor {
        match *self.graph.op(id) {
            Op::Transpose(of) => Factor {
                step: self.step(of),
                transposed: true,
            },
            _ => Factor {
                step: self.step(id),
                transposed: false,
            },
        }
    }

    fn factors(&mut self, ids: &[Id]) -> Vec<Factor> {
        ids.iter().map(|&id| self.factor(id)).collect()
    }

    fn shape(&self, factor: Factor) -> Shape {
        let shape = self.steps[factor.step].shape;
        match factor.transposed {
            true => shape.transposed(),
            false => shape,
        }
    }

    fn chain(&mut self, ids: &[Id], id: Id) -> usize {
        let factors = self.factors(ids);
        let product = self.product(&factors, id);
        self.plain(product, id)
    }

    /// A factor that is not transposed.
    fn plain(&mut self, factor: Factor, id: Id) -> usize {
        match factor.transposed {
            false => factor.step,
            true => {
                let shape = self.shape(factor);
                self.push(Action::Transpose, [factor.step; 2], shape, id)
            }
        }
    }

    /// The product of some factors, in the order of least work.
    fn product(&mut self, factors: &[Factor], id: Id) -> Factor {
        if let [one] = factors {
            return *one;
        }
        let shapes: Vec<Shape> = factors.iter().map(|&factor| self.shape(factor)).collect();
        let order = Order::of(&shapes);
        self.ordered(factors, &order, 0, factors.len(), id)
    }

    fn ordered(
        &mut self,
        factors: &[Factor],
        order: &Order,
        start: usize,
        end: usize,
        id: Id,
    ) -> Factor {
        if end - start == 1 {
            return factors[start];
        }
        let middle = order.split(start, end);
        let a = self.ordered(factors, order, start, middle, id);
        let b = self.ordered(factors, order, middle, end, id);
        Factor {
            step: self.times(a, b, id),
            transposed: false,
        }
    }

    fn times(&mut self, a: Factor, b: Factor, id: Id) -> usize {
        let shape = Shape::new(self.shape(a).rows, self.shape(b).columns);
        if shape.is_scalar() {
            return self.push(Action::Dot, [a.step, b.step], shape, id);
        }
        // The entries of a row are those of a column.
        let turned = |writer: &Self, factor: Factor| {
            factor.transposed && !writer.steps[factor.step].shape.is_vector()
        };
        let (side, a) = match (turned(self, a), turned(self, b)) {
            (false, false) => (Side::Neither, a.step),
            (true, false) => (Side::First, a.step),
            (false, true) => (Side::Second, a.step),
            (true, true) => (Side::Second, self.plain(a, id)),
        };
        self.push(Action::Product(side), [a, b.step], shape, id)
    }

    /// The trace of a product: of two factors, which need not be multiplied.
    fn trace(&mut self, ids: &[Id], id: Id) -> usize {
        let factors = self.factors(ids);
        let shapes: Vec<Shape> = factors.iter().map(|&factor| self.shape(factor)).collect();
        let order = Order::of(&shapes);
        let n = factors.len();
        let middle = |i: usize| (2 * i).abs_diff(n);
        let split = (1..n).min_by_key(|&i| (order.cost(0, i) + order.cost(i, n), middle(i)));
        let (first, second) = factors.split_at(split.unwrap_or(1));
        let (a, b) = (self.product(first, id), self.product(second, id));
        let action = match a.transposed == b.transposed {
            true => Action::TraceOfProduct,
            false => Action::Dot,
        };
        let operands = match (a.transposed, b.transposed) {
            (true, true) => [b.step, a.step],
            _ => [a.step, b.step],
        };
        self.push(action, operands, Shape::SCALAR, id)
    }
}

/// The step of an operation that is no product.
fn action(op: &Op) -> Action {
    match *op {
        Op::Leaf(leaf) => Action::Leaf(leaf),
        Op::Number(value) => Action::Number(value),
        Op::Size(dim) => Action::Size(dim),
        Op::Ones => Action::Ones,
        Op::Identity => Action::Identity,
        Op::Centring => Action::Centring,
        Op::Map(map, _) => Action::Map(map),
        Op::Zip(zip, ..) => Action::Zip(zip),
        Op::Power(..) => Action::Power,
        Op::Chain(_) => Action::Product(Side::Neither),
        Op::Transpose(_) => Action::Transpose,
        Op::Trace(_) => Action::Trace,
        Op::Reduce(reduction, _) => Action::Reduce(reduction),
        Op::RowNorms(norm, _) => Action::RowNorms(norm),
        Op::Softmax(_) => Action::Softmax,
        Op::Probabilities(_) => Action::Probabilities,
        Op::Diagonal(_) => Action::Diagonal,
        Op::DiagonalMatrix(_) => Action::DiagonalMatrix,
        Op::Largest(_) => Action::Largest,
        Op::LargestCurvature(..) => Action::LargestCurvature,
        Op::LogDet(_) => Action::LogDet,
        Op::TraceRoot(_) => Action::TraceRoot,
        Op::Hold(_) => Action::Hold,
    }
}

/// The order of least work in which a product is multiplied out, by the usual recursion over where
/// it is split last.
struct Order {
    count: usize,
    /// Work and split of the factors `start..end`, at `start (n + 1) + end`.
    best: Vec<(u64, usize)>,
}

impl Order {
    fn of(shapes: &[Shape]) -> Order {
        let count = shapes.len();
        let mut order = Order {
            count,
            best: vec![(0, 0); (count + 1) * (count + 1)],
        };
        let size = |dim: Dim| USUAL.of(dim) as u64;
        for length in 2..=count {
            for start in 0..=count - length {
                let end = start + length;
                let outer = size(shapes[start].rows) * size(shapes[end - 1].columns);
                let with = |middle: usize| {
                    let here = outer * size(shapes[middle].rows);
                    (
                        order.cost(start, middle) + order.cost(middle, end) + here,
                        middle,
                    )
                };
                let best = (start + 1..end).map(with).min();
                order.best[start * (count + 1) + end] = best.unwrap_or((0, start));
            }
        }
        order
    }

    fn cost(&self, start: usize, end: usize) -> u64 {
        self.best[start * (self.count + 1) + end].0
    }

    fn split(&self, start: usize, end: usize) -> usize {
        self.best[start * (self.count + 1) + end].1
    }
}
