//! Products of constant matrices.

use std::sync::Arc;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use super::{ENTRY, constant_of, not_together, wrong_type};
use crate::error::Result;
use crate::formula::{Product, Rule, Term};
use crate::onnx::attributes::Call;
use crate::onnx::element::Element;
use crate::onnx::import::Importer;
use crate::onnx::tensor::{Numbers, Tensor};
use crate::onnx::values::{broadcast, broadcast_places};

/// The matrices of two stacks that are multiplied.
struct Stacks {
    dims: Vec<usize>,
    sizes: [usize; 3],
    starts: Arc<[[usize; 3]]>,
}

impl Stacks {
    /// The stacks of two constants, if they go together; vectors are matrices of one row or column.
    fn new(a: &[usize], b: &[usize]) -> Option<Stacks> {
        let (rows, columns) = (a.len() > 1, b.len() > 1);
        let (&inner, left) = a.split_last()?;
        let (left, m) = left.split_last().map_or((left, 1), |(&m, rest)| (rest, m));
        let (right, k, n) = match b {
            [] => return None,
            [k] => (&b[..0], *k, 1),
            [rest @ .., k, n] => (rest, *k, *n),
        };
        if inner != k {
            return None;
        }
        let mut dims = broadcast(left, right)?;
        let (at, bt) = (
            broadcast_places(left, &dims),
            broadcast_places(right, &dims),
        );
        let start = |(i, (&a, &b)): (usize, (&u32, &u32))| {
            [a as usize * m * k, b as usize * k * n, i * m * n]
        };
        let starts = at.iter().zip(&bt).enumerate().map(start).collect();
        dims.extend(rows.then_some(m));
        dims.extend(columns.then_some(n));
        Some(Stacks {
            dims,
            sizes: [m, k, n],
            starts,
        })
    }
}

impl<'a> Importer<'a> {
    /// MatMul of constants.
    pub(super) fn product(&mut self, call: Call, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let bad = || not_together(call, &a.dims, &b.dims);
        let stacks: usize = broadcast(
            &a.dims[..a.dims.len().saturating_sub(2)],
            &b.dims[..b.dims.len().saturating_sub(2)],
        )
        .ok_or_else(bad)?
        .iter()
        .fold(1, |p: usize, &n| p.saturating_mul(n));
        // Every matrix is gone through once for each product that it is part of.
        let ends = [a, b].map(|x| {
            x.dims
                .iter()
                .rev()
                .take(2)
                .fold(1, |p: usize, &n| p.saturating_mul(n))
        });
        self.budget
            .array(&[stacks, ends[0].saturating_add(ends[1])], ENTRY, || {
                constant_of(call, &a.dims)
            })?;
        let stacks = Stacks::new(&a.dims, &b.dims).ok_or_else(bad)?;
        let count = self.reserve(call, &stacks.dims)?;
        if a.element != b.element || a.element == Element::Bool {
            return Err(wrong_type(call, b.element));
        }
        match (&a.numbers, &b.numbers) {
            (Numbers::Real(left), Numbers::Real(right)) => {
                let values = real_products(left, right, &stacks, count);
                let result = Tensor::real(a.element, stacks.dims.clone(), values);
                let terms = product_terms([a, b], [left, right], &stacks);
                Ok(self.with_terms(result, terms))
            }
            (Numbers::Whole(left), Numbers::Whole(right)) => {
                let values = whole_products(left, right, &stacks, count);
                let values = values.into_iter().map(i128::from);
                Ok(Tensor::whole(a.element, stacks.dims, values))
            }
            _ => Err(wrong_type(call, b.element)),
        }
    }

    /// Gemm of constants, `alpha A B + beta C`.
    pub(super) fn gemm_constant(&mut self, call: Call) -> Result<Tensor> {
        let mut factors = Vec::new();
        for (place, name) in ["transA", "transB"].into_iter().enumerate() {
            let matrix = self.constant(call, place)?;
            if matrix.dims.len() != 2 || !matrix.element.is_real() {
                return Err(call.error("its constants are no matrices of floating numbers"));
            }
            factors.push(match call.flag(name, false)? {
                true => self.in_order(call, &matrix, &[1, 0])?,
                false => matrix,
            });
        }
        let element = factors[0].element;
        let product = self.product(call, &factors[0], &factors[1])?;
        let product = self.times(call, &product, call.float("alpha", 1.0)?)?;
        let mut result = product;
        if let Some(c) = self.optional_constant(call, 2)? {
            if c.element != element
                || broadcast(&c.dims, &result.dims).as_ref() != Some(&result.dims)
            {
                return Err(not_together(call, &result.dims, &c.dims));
            }
            let c = self.times(call, &c, call.float("beta", 1.0)?)?;
            result = self.two(call, "Add", &result.exact(), &c.exact())?;
        }
        self.cast_to(call, &result, element)
    }
}

/// Products of floating matrices, before they are rounded.
fn real_products(left: &[f64], right: &[f64], stacks: &Stacks, count: usize) -> Vec<f64> {
    let [m, k, n] = stacks.sizes;
    let mut values = vec![0.0; count];
    for &[a, b, c] in stacks.starts.iter() {
        let a = ArrayView2::from_shape((m, k), &left[a..a + m * k]).expect("as many entries");
        let b = ArrayView2::from_shape((k, n), &right[b..b + k * n]).expect("as many entries");
        let c = &mut values[c..c + m * n];
        let mut c = ArrayViewMut2::from_shape((m, n), c).expect("as many entries");
        general_mat_mul(1.0, &a, &b, 0.0, &mut c);
    }
    values
}

/// Products of whole matrices modulo 2^64.
fn whole_products(left: &[i64], right: &[i64], stacks: &Stacks, count: usize) -> Vec<i64> {
    let [m, k, n] = stacks.sizes;
    let mut values = vec![0i64; count];
    for &[a, b, c] in stacks.starts.iter() {
        for i in 0..m {
            let row = &mut values[c + i * n..][..n];
            for p in 0..k {
                let factor = left[a + i * k + p];
                let pairs = row.iter_mut().zip(&right[b + p * n..][..n]);
                pairs.for_each(|(sum, v)| *sum = sum.wrapping_add(factor.wrapping_mul(*v)));
            }
        }
    }
    values
}

fn product_terms(inputs: [&Tensor; 2], numbers: [&Arc<[f64]>; 2], stacks: &Stacks) -> Vec<Term> {
    let term = |side: usize| {
        let rule = Rule::Product(Product {
            other: numbers[1 - side].clone(),
            left: side == 0,
            sizes: stacks.sizes,
            starts: stacks.starts.clone(),
        });
        Some(Term {
            of: inputs[side].formula?,
            rule,
        })
    };
    [0, 1].into_iter().filter_map(term).collect()
}
