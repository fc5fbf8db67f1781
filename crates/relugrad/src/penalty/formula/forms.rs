//! Which door a formula takes: the one with the fewest rows that it fits through.

use super::graph::{Form, Graph, Id, Leaf, Op};

/// A graph in one of its forms, and the node of its value.
#[derive(Clone, Debug)]
pub(super) struct Formed {
    pub(super) graph: Graph,
    pub(super) root: Id,
}

/// The forms in which a formula is computed.
#[derive(Clone, Debug)]
pub(super) enum Forms {
    /// Of the logits alone.
    Logits(Formed),
    /// Of the input gradient.
    Gradient(Formed),
    /// Of the Gram matrix, and of the input gradient if that is possible too.
    Gram(Formed, Option<Formed>),
    /// Of the Jacobian's rows.
    Rows(Formed),
}

impl Formed {
    /// The same value in another form.
    fn in_form(&self, form: Form) -> Formed {
        let mut graph = Graph::new(form);
        let mut new = vec![None; self.root + 1];
        for id in self.graph.needed(self.root) {
            let node = self.graph.node(id);
            graph.place = node.place.clone();
            let of = |old: Id| new[old].expect("inputs come first");
            let found = rebuilt(&mut graph, &node.op, of, node.shape);
            new[id] = Some(found);
        }
        Formed {
            root: new[self.root].expect("it is needed"),
            graph,
        }
    }

    pub(super) fn sees(&self, leaves: &[Leaf]) -> bool {
        leaves.iter().any(|&leaf| self.graph.sees(self.root, leaf))
    }

    /// Whether a root was put in place of a norm.
    fn has_root(&self) -> bool {
        let mut needed = self.graph.needed(self.root).into_iter();
        needed.any(|id| matches!(self.graph.op(id), Op::Map(super::graph::Map::Root, _)))
    }
}

/// A node with other inputs, by the graph's own rules.
fn rebuilt(graph: &mut Graph, op: &Op, of: impl Fn(Id) -> Id, shape: super::shape::Shape) -> Id {
    match *op {
        Op::Leaf(leaf) => graph.leaf(leaf),
        Op::Number(_) | Op::Size(_) | Op::Ones | Op::Identity | Op::Centring => {
            graph.fixed(op.clone(), shape)
        }
        Op::Map(map, a) => graph.map(map, of(a)),
        Op::Zip(zip, a, b) => graph.zip(zip, of(a), of(b)),
        Op::Power(a, b) => graph.power(of(a), of(b)),
        Op::Chain(ref factors) => graph.chain(factors.iter().map(|&factor| of(factor)).collect()),
        Op::Transpose(a) => graph.transpose(of(a)),
        Op::Trace(a) => graph.trace(of(a)),
        Op::Reduce(reduction, a) => graph.reduce(reduction, of(a)),
        Op::RowNorms(norm, a) => graph.row_norms(norm, of(a)),
        Op::Softmax(a) => graph.softmax(of(a)),
        Op::Probabilities(a) => graph.probabilities(of(a)),
        Op::Diagonal(a) | Op::DiagonalMatrix(a) => graph.diag(of(a)),
        Op::Largest(a) => graph.largest(of(a)),
        Op::LargestCurvature(..) => unreachable!("no graph as written has it"),
        Op::LogDet(a) => graph.log_det(of(a)),
        Op::TraceRoot(a) => graph.trace_root(of(a)),
        Op::Hold(a) => graph.hold(of(a)),
    }
}

impl Forms {
    /// The cheapest forms of a graph that is as it was written.
    pub(super) fn of(graph: Graph, root: Id) -> Forms {
        let written = Formed { graph, root };
        if !written.sees(&[Leaf::Jacobian, Leaf::Gram, Leaf::Gradient]) {
            return Forms::Logits(written);
        }
        let gram = written.in_form(Form::Gram);
        let gram = (!gram.sees(&[Leaf::Jacobian, Leaf::Gradient])).then_some(gram);
        let gradient = written.in_form(Form::Gradient);
        let gradient = (!gradient.sees(&[Leaf::Jacobian, Leaf::Gram])).then_some(gradient);
        match (gram, gradient) {
            // Roots of a Gram matrix lose digits that norms of the gradient keep.
            (Some(gram), Some(gradient)) if gram.has_root() => Forms::Gradient(gradient),
            (Some(gram), gradient) => Forms::Gram(gram, gradient),
            (None, Some(gradient)) => Forms::Gradient(gradient),
            (None, None) => Forms::Rows(written.in_form(Form::Rows)),
        }
    }

    /// The form that is taken where there is a choice.
    pub(super) fn main(&self) -> &Formed {
        match self {
            Forms::Logits(formed)
            | Forms::Gradient(formed)
            | Forms::Gram(formed, _)
            | Forms::Rows(formed) => formed,
        }
    }
}
