//! Reductions of constants over axes.

use super::functions::sign;
use super::{table, wrong_type};
use crate::error::Result;
use crate::formula::{Places, Term};
use crate::onnx::attributes::Call;
use crate::onnx::element::Element;
use crate::onnx::import::Importer;
use crate::onnx::tensor::{Numbers, Tensor};
use crate::onnx::values::broadcast_places;

/// Which entries of a constant go together.
struct Groups {
    /// The dimensions with the reduced axes.
    dims: Vec<usize>,
    /// The group of each entry.
    of: Vec<u32>,
    count: usize,
    /// Entries in each group.
    size: usize,
}

impl Groups {
    fn fold<V: Copy, S: Copy>(&self, values: &[V], start: S, f: impl Fn(S, V) -> S) -> Vec<S> {
        let mut sums = vec![start; self.count];
        for (&group, &v) in self.of.iter().zip(values) {
            let sum = &mut sums[group as usize];
            *sum = f(*sum, v);
        }
        sums
    }

    /// The entry of each group that no other one beats, the first or last of equals.
    fn winners<V: Copy>(&self, values: &[V], beats: impl Fn(V, V) -> bool) -> Vec<u32> {
        let mut winners: Vec<Option<u32>> = vec![None; self.count];
        for (i, &group) in self.of.iter().enumerate() {
            let winner = &mut winners[group as usize];
            if winner.is_none_or(|w| beats(values[i], values[w as usize])) {
                *winner = Some(i as u32);
            }
        }
        winners.into_iter().flatten().collect()
    }
}

impl<'a> Importer<'a> {
    fn groups(&self, call: Call, x: &Tensor, axes: &[usize], keep: bool) -> Result<Groups> {
        let mut kept = x.dims.clone();
        axes.iter().for_each(|&a| kept[a] = 1);
        self.visit(call, x)?;
        let count = self.reserve(call, &kept)?;
        let axis = |a: &usize| keep || !axes.contains(a);
        Ok(Groups {
            of: broadcast_places(&kept, &x.dims),
            dims: (0..kept.len()).filter(axis).map(|a| kept[a]).collect(),
            count,
            size: axes.iter().map(|&a| x.dims[a]).product(),
        })
    }

    pub(super) fn reduced_constant(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let operator = call.operator();
        let Some(axes) = self.reduced_axes(call, x.dims.len())? else {
            return match operator {
                "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" => {
                    Ok(x.clone())
                }
                _ => Err(call.error("it has no axes, and is not to reduce all of them")),
            };
        };
        let groups = self.groups(call, x, &axes, call.flag("keepdims", true)?)?;
        let extreme = matches!(operator, "ReduceMax" | "ReduceMin");
        if groups.size == 0 && groups.count > 0 && (extreme || operator == "ReduceMean") {
            return Err(call.error("it reduces an axis without entries"));
        }
        if extreme {
            return Ok(self.extremes(call, x, &groups));
        }
        match &x.numbers {
            Numbers::Real(values) => self.reduced_reals(call, x, values, groups),
            Numbers::Whole(_) => self.reduced_wholes(call, x, groups),
        }
    }

    /// ReduceMax and ReduceMin.
    fn extremes(&mut self, call: Call, x: &Tensor, groups: &Groups) -> Tensor {
        let max = call.operator() == "ReduceMax";
        let places = match &x.numbers {
            Numbers::Real(values) => groups.winners(values, |new, old| {
                !old.is_nan() && (new.is_nan() || if max { new > old } else { new < old })
            }),
            Numbers::Whole(_) => {
                groups.winners(
                    &self.wholes(x),
                    |new, old| {
                        if max { new > old } else { new < old }
                    },
                )
            }
        };
        let result = Tensor::new(groups.dims.clone(), x.element, x.numbers.picked(&places));
        let term = x.formula.map(|of| Term::picked(of, table(places)));
        self.with_terms(result, term.into_iter().collect())
    }

    fn reduced_reals(
        &mut self,
        call: Call,
        x: &Tensor,
        values: &[f64],
        groups: Groups,
    ) -> Result<Tensor> {
        let n = groups.size as f64;
        let (sums, result) = reals(call, values, &groups, n)?;
        let tensor = Tensor::real(x.element, groups.dims.clone(), result.iter().copied());
        let Some(of) = x.formula else {
            return Ok(tensor);
        };
        self.visit(call, x)?;
        let rates = match call.operator() {
            "ReduceProd" => other_products(values, &groups),
            operator => {
                let rate = rate(operator);
                let of = groups.of.iter().map(|&g| g as usize);
                let pairs = values.iter().zip(of);
                pairs
                    .map(|(&v, g)| rate(v, sums[g], result[g], n))
                    .collect()
            }
        };
        let to: Places = Some(groups.of.into());
        let terms = self.rated(call, of, [None, to], rates);
        Ok(self.with_terms(tensor, terms))
    }

    fn reduced_wholes(&mut self, call: Call, x: &Tensor, groups: Groups) -> Result<Tensor> {
        if x.element == Element::Bool {
            return Err(wrong_type(call, x.element));
        }
        let values = self.wholes(x);
        let wrap = |v: i128| x.element.whole(x.element.wrap(v));
        let sum = |s: i128, v: i128| wrap(s + v);
        let result = match call.operator() {
            "ReduceSum" => groups.fold(&values, 0, sum),
            // A mean lies between the entries, wherever their sum does.
            "ReduceMean" => {
                let sums = groups.fold(&values, 0, |s: i128, v| s + v);
                sums.iter().map(|s| s / groups.size as i128).collect()
            }
            "ReduceProd" => groups.fold(&values, 1, |p: i128, v| wrap(p.wrapping_mul(v))),
            "ReduceL1" => groups.fold(&values, 0, |s, v| sum(s, v.abs())),
            "ReduceSumSquare" => {
                groups.fold(&values, 0, |s, v: i128| sum(s, wrap(v.wrapping_mul(v))))
            }
            _ => return Err(wrong_type(call, x.element)),
        };
        Ok(Tensor::whole(x.element, groups.dims, result))
    }

    /// ArgMax and ArgMin.
    pub(super) fn winners(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let at = self.axis(call, call.integer("axis", 0)?, x.dims.len())?;
        let groups = self.groups(call, x, &[at], call.flag("keepdims", true)?)?;
        if groups.size == 0 {
            return Err(call.error("it looks for a place on an axis without entries"));
        }
        let (max, last) = (
            call.operator() == "ArgMax",
            call.flag("select_last_index", false)?,
        );
        let places = match &x.numbers {
            Numbers::Real(values) if values.iter().any(|v| v.is_nan()) => {
                return Err(call.error("it compares with a number that is not one"));
            }
            Numbers::Real(values) => groups.winners(values, |new, old| beats(new, old, max, last)),
            Numbers::Whole(_) => {
                groups.winners(&self.wholes(x), |new, old| beats(new, old, max, last))
            }
        };
        self.stepped(call, x);
        let inner: usize = x.dims[at + 1..].iter().product();
        let along = places
            .iter()
            .map(|&i| (i as usize / inner % groups.size) as i128);
        Ok(Tensor::whole(Element::Int64, groups.dims.clone(), along))
    }
}

fn beats<V: PartialOrd>(new: V, old: V, max: bool, last: bool) -> bool {
    (if max { new > old } else { new < old }) || last && new == old
}

/// The sum in a reduction of floating numbers, and what becomes of it.
fn reals(call: Call, values: &[f64], groups: &Groups, n: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    let add = |f: fn(f64) -> f64| groups.fold(values, 0.0, |sum, v| sum + f(v));
    let (sums, last): (Vec<f64>, fn(f64) -> f64) = match call.operator() {
        "ReduceSum" => (add(|v| v), |s| s),
        "ReduceMean" => (add(|v| v).into_iter().map(|s| s / n).collect(), |s| s),
        "ReduceProd" => (groups.fold(values, 1.0, |p, v| p * v), |p| p),
        "ReduceL1" => (add(f64::abs), |s| s),
        "ReduceL2" => (add(|v| v * v), f64::sqrt),
        "ReduceSumSquare" => (add(|v| v * v), |s| s),
        "ReduceLogSum" => (add(|v| v), f64::ln),
        "ReduceLogSumExp" => return Ok(log_sum_exp(values, groups)),
        _ => return Err(call.error("this reduction of constants is not supported")),
    };
    let result = sums.iter().map(|&s| last(s)).collect();
    Ok((sums, result))
}

/// `max + ln Σ exp(v − max)`, which does not overflow.
fn log_sum_exp(values: &[f64], groups: &Groups) -> (Vec<f64>, Vec<f64>) {
    let largest = groups.fold(values, f64::NEG_INFINITY, f64::max);
    let largest: Vec<f64> = largest
        .into_iter()
        .map(|m| if m.is_finite() { m } else { 0.0 })
        .collect();
    let mut sums = vec![0.0; groups.count];
    for (&group, &v) in groups.of.iter().zip(values) {
        sums[group as usize] += (v - largest[group as usize]).exp();
    }
    let result = sums.iter().zip(&largest).map(|(s, m)| s.ln() + m).collect();
    (sums, result)
}

/// The derivative of a reduction with respect to an entry, from it, the sum, the result and the
/// number of entries.
fn rate(operator: &str) -> fn(f64, f64, f64, f64) -> f64 {
    match operator {
        "ReduceMean" => |_, _, _, n| 1.0 / n,
        "ReduceL1" => |v, _, _, _| sign(v),
        "ReduceL2" => |v, _, y, _| v / y,
        "ReduceSumSquare" => |v, _, _, _| 2.0 * v,
        "ReduceLogSum" => |_, sum, _, _| 1.0 / sum,
        "ReduceLogSumExp" => |v, _, y, _| (v - y).exp(),
        _ => |_, _, _, _| 1.0,
    }
}

/// For each entry the product of all others of its group.
fn other_products(values: &[f64], groups: &Groups) -> Vec<f64> {
    let mut products = vec![1.0; values.len()];
    let mut pass = |order: &mut dyn Iterator<Item = usize>| {
        let mut before = vec![1.0; groups.count];
        for i in order {
            let product = &mut before[groups.of[i] as usize];
            products[i] *= *product;
            *product *= values[i];
        }
    };
    pass(&mut (0..values.len()));
    pass(&mut (0..values.len()).rev());
    products
}
