//! From an expression to a graph: names are looked up, shapes are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::graph::{Form, Graph, Id, Map, Op, Reduction, Zip};
use super::names::{FormulaFunction, FormulaName, Function, Symbol, nearest, words};
use super::shape::{Dim, Shape};
use super::text::{Binary, Expr, Kind};
use crate::formula_error::Fault;
use crate::norm::Norm;

/// Nodes of a graph at most, of which every operation makes a few.
const MAX_OPERATIONS: usize = 500;

/// The graph of an expression and the node of its value.
pub(super) fn graph_of(
    expr: &Expr,
    constants: &BTreeMap<String, f64>,
) -> Result<(Graph, Id), Fault> {
    let mut checker = Checker {
        graph: Graph::new(Form::Plain),
        constants,
        used: BTreeSet::new(),
        operations: 0,
    };
    let root = checker.node(expr)?;
    checker.check_value(root, expr)?;
    checker.check_constants(expr)?;
    Ok((checker.graph, root))
}

struct Checker<'c> {
    graph: Graph,
    constants: &'c BTreeMap<String, f64>,
    used: BTreeSet<&'c str>,
    operations: usize,
}

impl<'c> Checker<'c> {
    fn shape(&self, id: Id) -> Shape {
        self.graph.shape(id)
    }

    fn node(&mut self, expr: &Expr) -> Result<Id, Fault> {
        self.operations += 1;
        if self.operations > MAX_OPERATIONS {
            let problem =
                format!("the formula has more than {MAX_OPERATIONS} operations and names");
            return Err(Fault::new(expr.place.clone(), problem));
        }
        let found = match &expr.kind {
            Kind::Number(value) => self.graph.number(*value),
            Kind::Name(name) => self.name(name, expr)?,
            Kind::Call(name, arguments) => self.call(name, arguments, expr)?,
            Kind::Negative(one) => {
                let one = self.node(one)?;
                self.graph.place = expr.place.clone();
                let minus = self.graph.number(-1.0);
                self.graph.zip(Zip::Multiply, minus, one)
            }
            Kind::Transposed(one) => {
                let one = self.node(one)?;
                self.graph.place = expr.place.clone();
                self.graph.transpose(one)
            }
            Kind::Binary(operator, a, b) => self.binary(*operator, a, b, expr)?,
        };
        match self.graph.op(found) {
            Op::Number(value) if !value.is_finite() => Err(Fault::new(
                expr.place.clone(),
                format!("this is {value}, which is not finite"),
            )),
            _ => Ok(found),
        }
    }

    fn name(&mut self, name: &str, expr: &Expr) -> Result<Id, Fault> {
        self.graph.place = expr.place.clone();
        if let Some((name, value)) = self.constants.get_key_value(name) {
            self.used.insert(name);
            return Ok(self.graph.number(*value));
        }
        let Some(known) = FormulaName::find(name) else {
            return Err(self.unknown(name, &expr.place, false));
        };
        let (graph, shape) = (&mut self.graph, known.dims());
        Ok(match known.symbol {
            Symbol::Leaf(leaf) => graph.leaf(leaf),
            Symbol::Probabilities => {
                let f = graph.leaf(super::graph::Leaf::Logits);
                graph.probabilities(f)
            }
            Symbol::Ones => graph.fixed(Op::Ones, shape),
            Symbol::Identity => graph.fixed(Op::Identity, shape),
            Symbol::Centring => graph.fixed(Op::Centring, shape),
            Symbol::Size(dim) => graph.fixed(Op::Size(dim), shape),
        })
    }

    fn unknown(&self, name: &str, place: &Range<usize>, called: bool) -> Fault {
        if called && (FormulaName::find(name).is_some() || self.constants.contains_key(name)) {
            let problem = format!("`{name}` is not a function; write * for a product");
            return Fault::new(place.start..place.start + name.len(), problem);
        }
        if !called && FormulaFunction::find(name).is_some() {
            let problem = format!("the function `{name}` has no argument here");
            return Fault::new(place.clone(), problem);
        }
        let known = words().chain(self.constants.keys().map(String::as_str));
        let hint = match (nearest(name, known), called) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, true) => format!("the names and functions are {}", all_words()),
            (None, false) => format!(
                "give a constant of that name its value, or take one of {}",
                all_words()
            ),
        };
        let what = if called { "function" } else { "name" };
        Fault::new(
            place.start..place.start + name.len(),
            format!("there is no {what} `{name}`; {hint}"),
        )
    }

    fn binary(&mut self, operator: Binary, a: &Expr, b: &Expr, all: &Expr) -> Result<Id, Fault> {
        let (left, right) = (self.node(a)?, self.node(b)?);
        self.graph.place = all.place.clone();
        let (one, two) = (self.shape(left), self.shape(right));
        let joint = one == two || one.is_scalar() || two.is_scalar();
        let refuse = |problem: String| {
            let shapes = format!("`{a}` is {one} and `{b}` is {two}");
            Err(Fault::new(
                all.place.clone(),
                format!("{problem}: {shapes}"),
            ))
        };
        let zip = match operator {
            Binary::Times if one.is_scalar() || two.is_scalar() || one.columns == two.rows => {
                return Ok(self.graph.product(left, right));
            }
            Binary::Times => {
                return refuse(format!("* needs as many columns as rows{}", hint(one, two)));
            }
            Binary::Over if two.is_scalar() => Zip::Divide,
            Binary::Over => return refuse("/ divides by a number; ./ each by each".to_owned()),
            Binary::Power => return self.power((left, a), (right, b), all),
            Binary::Add => Zip::Add,
            Binary::Subtract => Zip::Subtract,
            Binary::TimesEach => Zip::Multiply,
            Binary::OverEach => Zip::Divide,
        };
        match joint {
            true => Ok(self.graph.zip(zip, left, right)),
            false => refuse(format!("{} needs equal shapes", operator.symbol())),
        }
    }

    fn power(
        &mut self,
        (base, _): (Id, &Expr),
        (exponent, written): (Id, &Expr),
        all: &Expr,
    ) -> Result<Id, Fault> {
        let problem = match self.graph.node(exponent) {
            node if !node.shape.is_scalar() => {
                format!("`{written}` is {} but an exponent is a number", node.shape)
            }
            node if node.varies => format!(
                "the exponent `{written}` changes with the sample; exponents are made of numbers, constants, K and D"
            ),
            _ => return Ok(self.graph.power(base, exponent)),
        };
        Err(Fault::new(all.place.clone(), problem))
    }

    fn call(&mut self, name: &str, written: &[Expr], all: &Expr) -> Result<Id, Fault> {
        let Some(known) = FormulaFunction::find(name) else {
            return Err(self.unknown(name, &all.place, true));
        };
        let wanted = known.arguments;
        if written.len() != wanted {
            let plural = if wanted == 1 { "" } else { "s" };
            let problem = format!(
                "`{name}` takes {wanted} argument{plural}, not {}",
                written.len()
            );
            return Err(Fault::new(all.place.clone(), problem));
        }
        let arguments = written.iter().map(|one| self.node(one));
        let arguments: Vec<Id> = arguments.collect::<Result<_, Fault>>()?;
        self.graph.place = all.place.clone();
        let shapes: Vec<Shape> = arguments.iter().map(|&id| self.shape(id)).collect();
        if let Some(problem) = self.unfit(known.function, &arguments, &shapes) {
            let each = written.iter().zip(&shapes);
            let each: Vec<String> = each
                .map(|(one, shape)| format!("`{one}` is {shape}"))
                .collect();
            let problem = format!("{name} {problem}: {}", each.join(" and "));
            return Err(Fault::new(all.place.clone(), problem));
        }
        Ok(self.apply(known.function, &arguments))
    }

    /// What is wrong with the arguments of a function.
    fn unfit(
        &mut self,
        function: Function,
        arguments: &[Id],
        shapes: &[Shape],
    ) -> Option<&'static str> {
        let shape = shapes[0];
        let is_square = shape.rows == shape.columns;
        let fits = match function {
            Function::Trace if !is_square => return Some("needs a square matrix"),
            Function::Dot if shapes[0] != shapes[1] => return Some("needs two of one shape"),
            Function::Softmax if !shape.is_vector() => return Some("needs a vector"),
            Function::Diag if shape.columns != Dim::One && !is_square => {
                return Some("needs a column or a square matrix");
            }
            Function::Outer if shapes.iter().any(|one| one.columns != Dim::One) => {
                return Some("needs two columns");
            }
            Function::EigMax | Function::LogDet | Function::TraceRoot => {
                self.graph.is_symmetric(arguments[0])
            }
            _ => true,
        };
        (!fits).then_some(
            "needs a matrix whose form shows that it is symmetric, such as A*A^T, A + A^T or S*G*S",
        )
    }

    fn apply(&mut self, function: Function, arguments: &[Id]) -> Id {
        let (graph, a) = (&mut self.graph, arguments[0]);
        match function {
            Function::Exp => graph.map(Map::Exp, a),
            Function::Log => graph.map(Map::Log, a),
            Function::Sqrt => graph.map(Map::Sqrt, a),
            Function::Abs => graph.map(Map::Abs, a),
            Function::Relu => graph.map(Map::Relu, a),
            Function::Trace => graph.trace(a),
            Function::Sum => graph.reduce(Reduction::Sum, a),
            Function::Dot => graph.dot(a, arguments[1]),
            Function::Norm1 => graph.reduce(Reduction::Norm(Norm::L1), a),
            Function::Norm2 => graph.reduce(Reduction::Norm(Norm::L2), a),
            Function::NormInf => graph.reduce(Reduction::Norm(Norm::Linf), a),
            Function::Max => graph.reduce(Reduction::Max, a),
            Function::Min => graph.reduce(Reduction::Min, a),
            Function::LogSumExp => graph.reduce(Reduction::LogSumExp, a),
            Function::RowNorms1 => graph.row_norms(Norm::L1, a),
            Function::RowNorms2 => graph.row_norms(Norm::L2, a),
            Function::RowNormsInf => graph.row_norms(Norm::Linf, a),
            Function::Softmax => graph.softmax(a),
            Function::Diag => graph.diag(a),
            Function::Outer => {
                let transposed = graph.transpose(arguments[1]);
                graph.product(a, transposed)
            }
            Function::EigMax => graph.largest(a),
            Function::LogDet => graph.log_det(a),
            Function::TraceRoot => graph.trace_root(a),
            Function::Hold => graph.hold(a),
        }
    }

    /// Refuses what is no penalty: a matrix, or a constant.
    fn check_value(&self, root: Id, expr: &Expr) -> Result<(), Fault> {
        let node = self.graph.node(root);
        let problem = if !node.shape.is_scalar() {
            format!(
                "the formula is {} but a penalty is a number; take sum, max or norm2 of it",
                node.shape
            )
        } else if !node.varies {
            "the formula does not depend on the network: it is the same number for all samples"
                .to_owned()
        } else if !node.active {
            "the formula does not depend on the network but on targets or on what is held"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(Fault::new(expr.place.clone(), problem))
    }

    /// Refuses constants that are not used.
    fn check_constants(&self, expr: &Expr) -> Result<(), Fault> {
        let mut unused = self.constants.keys();
        match unused.find(|name| !self.used.contains(name.as_str())) {
            None => Ok(()),
            Some(name) => Err(Fault::new(
                expr.place.clone(),
                format!("the constant `{name}` is given but not used"),
            )),
        }
    }
}

/// Whether a transpose would help, which shells may have taken away.
fn hint(a: Shape, b: Shape) -> &'static str {
    if a.transposed().columns == b.rows {
        " (write ^T behind the first to transpose it)"
    } else if a.columns == b.transposed().rows {
        " (write ^T behind the second to transpose it)"
    } else {
        ""
    }
}

fn all_words() -> String {
    words().collect::<Vec<_>>().join(", ")
}
