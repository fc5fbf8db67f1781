//! How the parameters of a network come from the arrays of its file, and how gradients go back to
//! those.

use std::sync::Arc;

/// A constant computed from the arrays of a file, by its place among [`Formulas`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Formula(usize);

/// Formulas, each of arrays of the file and of formulas before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Formulas {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Array(FileArray),
    Sum {
        len: usize,
        terms: Vec<Term>,
        /// Whether a way to an array leads through whole numbers that are computed.
        whole: bool,
    },
}

/// An array of the file.
#[derive(Clone, Debug)]
pub(crate) struct FileArray {
    pub(crate) name: String,
    pub(crate) dims: Vec<usize>,
}

/// What a constant owes to another one `x`: its differential is the sum of those of its terms.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) of: Formula,
    pub(crate) rule: Rule,
}

/// The differential `dy` of a constant as a linear map of `dx`.
#[derive(Clone, Debug)]
// Some are made by graphs of ONNX alone.
#[cfg_attr(not(feature = "onnx"), allow(dead_code))]
pub(crate) enum Rule {
    /// `dy[to[e]] += rates[e] dx[from[e]]` for every `e`.
    Entries {
        from: Places,
        to: Places,
        rates: Rates,
    },
    /// A product of matrices.
    Product(Product),
    /// It depends on `x` in whole numbers, of which there is no differential.
    Whole,
}

/// A table of places; the identity if there is none.
pub(crate) type Places = Option<Arc<[u32]>>;

/// The derivative of an entry with respect to the one that it comes from.
#[derive(Clone, Debug)]
pub(crate) enum Rates {
    All(f64),
    Each(Arc<[f64]>),
}

/// Products `X A` or `A X` of matrices that stand one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    /// The entries of `A`.
    pub(crate) other: Arc<[f64]>,
    /// Whether `X` is on the left.
    pub(crate) left: bool,
    /// Rows, inner length and columns of each product.
    pub(crate) sizes: [usize; 3],
    /// Where the matrices of the left factor, the right factor and the product start.
    pub(crate) starts: Arc<[[usize; 3]]>,
}

impl Formulas {
    /// An array of the file.
    pub(crate) fn array(&mut self, name: &str, dims: &[usize]) -> Formula {
        self.nodes.push(Node::Array(FileArray {
            name: name.to_owned(),
            dims: dims.to_vec(),
        }));
        Formula(self.nodes.len() - 1)
    }

    /// A constant of `len` entries made of terms; `None` without any.
    pub(crate) fn sum(&mut self, len: usize, terms: Vec<Term>) -> Option<Formula> {
        if terms.is_empty() {
            return None;
        }
        let through = |term: &Term| matches!(term.rule, Rule::Whole) || self.is_whole(term.of);
        let whole = terms.iter().any(through);
        self.nodes.push(Node::Sum { len, terms, whole });
        Some(Formula(self.nodes.len() - 1))
    }

    /// Whether a constant depends on an array through whole numbers that are computed, of which
    /// there is no differential.
    pub(crate) fn is_whole(&self, formula: Formula) -> bool {
        matches!(&self.nodes[formula.0], Node::Sum { whole: true, .. })
    }

    fn len(&self, formula: Formula) -> usize {
        match &self.nodes[formula.0] {
            Node::Array(array) => array.dims.iter().product(),
            Node::Sum { len, .. } => *len,
        }
    }

    /// The arrays that any of the formulas depends on, each with the place of the first such
    /// formula, in the order in which the file gives them.
    pub(crate) fn sources(&self, formulas: &[Formula]) -> Vec<(&FileArray, usize)> {
        let mut first: Vec<Option<usize>> = vec![None; self.nodes.len()];
        for (i, formula) in formulas.iter().enumerate() {
            first[formula.0].get_or_insert(i);
        }
        let mut sources = Vec::new();
        for (place, node) in self.nodes.iter().enumerate().rev() {
            let Some(i) = first[place] else { continue };
            match node {
                Node::Array(array) => sources.push((array, i)),
                Node::Sum { terms, .. } => {
                    for term in terms {
                        let known = &mut first[term.of.0];
                        *known = Some(known.map_or(i, |known| known.min(i)));
                    }
                }
            }
        }
        sources.reverse();
        sources
    }

    /// Forgets how formulas come about that none of `formulas` depends on.
    pub(crate) fn keep(&mut self, formulas: &[Formula]) {
        let mut needed = vec![false; self.nodes.len()];
        formulas.iter().for_each(|formula| needed[formula.0] = true);
        for (place, node) in self.nodes.iter_mut().enumerate().rev() {
            if let Node::Sum { terms, .. } = node {
                if needed[place] {
                    terms.iter().for_each(|term| needed[term.of.0] = true);
                } else {
                    *terms = Vec::new();
                }
            }
        }
    }

    /// Gradients with respect to the arrays of the file, from those with respect to some formulas.
    pub(crate) fn pull_back<'a>(
        &self,
        given: impl Iterator<Item = (Formula, &'a [f64])>,
    ) -> Vec<(&FileArray, Vec<f64>)> {
        let mut gradients: Vec<Option<Vec<f64>>> = vec![None; self.nodes.len()];
        for (formula, gradient) in given {
            let sums = self.sums(&mut gradients, formula);
            sums.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
        let mut arrays = Vec::new();
        for (place, node) in self.nodes.iter().enumerate().rev() {
            let Some(gradient) = gradients[place].take() else {
                continue;
            };
            match node {
                Node::Array(array) => arrays.push((array, gradient)),
                Node::Sum { terms, .. } => {
                    for term in terms {
                        term.rule
                            .pull_back(&gradient, self.sums(&mut gradients, term.of));
                    }
                }
            }
        }
        arrays.reverse();
        arrays
    }

    fn sums<'g>(&self, gradients: &'g mut [Option<Vec<f64>>], formula: Formula) -> &'g mut [f64] {
        gradients[formula.0].get_or_insert_with(|| vec![0.0; self.len(formula)])
    }
}

impl Term {
    /// Entry `e` is entry `from[e]` of `of`.
    pub(crate) fn picked(of: Formula, from: Places) -> Term {
        Term::scattered(of, from, None)
    }

    /// Entry `to[e]` is entry `from[e]` of `of`.
    pub(crate) fn scattered(of: Formula, from: Places, to: Places) -> Term {
        Term::rated(of, from, to, Rates::All(1.0))
    }

    /// Entry `to[e]` changes `rates[e]` times as fast as entry `from[e]` of `of`.
    pub(crate) fn rated(of: Formula, from: Places, to: Places, rates: Rates) -> Term {
        let rule = Rule::Entries { from, to, rates };
        Term { of, rule }
    }
}

impl Rule {
    /// Adds to the gradient with respect to `x` what the one with respect to `y` gives.
    fn pull_back(&self, y: &[f64], x: &mut [f64]) {
        match self {
            Rule::Entries { from, to, rates } => pull_back_entries(from, to, rates, y, x),
            Rule::Product(product) => product.pull_back(y, x),
            Rule::Whole => {}
        }
    }
}

fn pull_back_entries(from: &Places, to: &Places, rates: &Rates, y: &[f64], x: &mut [f64]) {
    let count = match (to, from) {
        (Some(table), _) | (None, Some(table)) => table.len(),
        (None, None) => y.len(),
    };
    let at = |table: &Places, e: usize| table.as_ref().map_or(e, |table| table[e] as usize);
    for e in 0..count {
        let rate = match rates {
            Rates::All(rate) => *rate,
            Rates::Each(rates) => rates[e],
        };
        x[at(from, e)] += rate * y[at(to, e)];
    }
}

impl Product {
    fn pull_back(&self, y: &[f64], x: &mut [f64]) {
        let [rows, inner, columns] = self.sizes;
        for &[left, right, product] in self.starts.iter() {
            for i in 0..rows {
                let y = &y[product + i * columns..][..columns];
                for k in 0..inner {
                    let (l, r) = (left + i * inner + k, right + k * columns);
                    if self.left {
                        let row = &self.other[r..r + columns];
                        x[l] += row.iter().zip(y).map(|(a, y)| a * y).sum::<f64>();
                    } else {
                        let row = x[r..r + columns].iter_mut().zip(y);
                        row.for_each(|(x, y)| *x += self.other[l] * y);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_go_back_through_every_use() {
        let mut formulas = Formulas::default();
        let (a, unused) = (formulas.array("a", &[2]), formulas.array("b", &[1]));
        let twice: Places = Some(Arc::new([1, 1, 0]));
        let picked = formulas.sum(3, vec![Term::picked(a, twice)]).unwrap();
        let rates = Rates::Each(Arc::new([2.0, 3.0, 5.0]));
        let to: Places = Some(Arc::new([0, 0, 1]));
        let terms = vec![Term::rated(picked, None, to, rates)];
        let sums = formulas.sum(2, terms).unwrap();
        assert!(formulas.sum(2, Vec::new()).is_none());
        let given: [(Formula, &[f64]); 2] = [(sums, &[10.0, 100.0]), (a, &[1.0, 0.0])];
        let found = formulas.pull_back(given.into_iter());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, [501.0, 50.0]);
        let sources = formulas.sources(&[unused, sums]);
        let names: Vec<(&str, usize)> = sources.iter().map(|(a, i)| (&a.name[..], *i)).collect();
        assert_eq!(names, [("a", 1), ("b", 0)]);
        formulas.keep(&[a]);
        let found = formulas.pull_back([(sums, &[1.0, 1.0][..])].into_iter());
        assert!(found.is_empty());
    }

    #[test]
    fn factors_of_a_product_get_the_transposed_products() {
        let mut formulas = Formulas::default();
        let (a, b) = (formulas.array("a", &[1, 2]), formulas.array("b", &[2, 2]));
        let factor = |of, left, other: &[f64]| Term {
            of,
            rule: Rule::Product(Product {
                other: other.into(),
                left,
                sizes: [1, 2, 2],
                starts: Arc::new([[0, 0, 0]]),
            }),
        };
        let terms = vec![
            factor(a, true, &[1.0, 2.0, 3.0, 4.0]),
            factor(b, false, &[5.0, 6.0]),
        ];
        let product = formulas.sum(2, terms).unwrap();
        let found = formulas.pull_back([(product, &[10.0, 100.0][..])].into_iter());
        assert_eq!(found[0].1, [210.0, 430.0]);
        assert_eq!(found[1].1, [50.0, 500.0, 60.0, 600.0]);
    }
}
