//! The arrays of derivatives, computed group by group.

use std::io::{Seek, Write};
use std::ops::Range;

use anyhow::{Result, anyhow};
use ndarray::{Array1, Array2, Array3, Axis, s};
use ndarray_npy::{NpzWriter, WritableElement};
use relugrad::{Loss, Network, Scalar, Trace};

use super::arguments::Array;
use super::{Arguments, Request};
use crate::failure::Failure;

/// Everything that was asked for; what was left out is empty.
#[derive(Default)]
pub(super) struct Results<T> {
    scalars: Vec<(Array, Vec<f64>)>,
    rows: Vec<(Array, Vec<Array2<T>>)>,
    jacobian: Option<Array3<T>>,
    near_kink: Option<Vec<i64>>,
}

/// The inputs of one group.
struct Group<'a, T> {
    range: Range<usize>,
    request: &'a Request<T>,
    skip: &'a [Array],
    /// Bytes that sweeps may take.
    memory: usize,
}

impl<T: Scalar + WritableElement> Results<T> {
    pub(super) fn compute(
        network: &Network<T>,
        request: &Request<T>,
        arguments: &Arguments,
    ) -> Result<Results<T>, Failure> {
        let n = request.inputs.nrows();
        let mut results = Results::default();
        let skip = &arguments.skip;
        if !skip.contains(&Array::Jacobian) {
            let shape = (n, network.outputs(), network.inputs());
            let bytes = [shape.0, shape.1, shape.2, size_of::<T>()];
            let fits = bytes.iter().try_fold(1usize, |p, &b| p.checked_mul(b));
            if fits.is_none_or(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_err()) {
                return Err(Failure::Failed(anyhow!(
                    "a Jacobian of shape {shape:?} does not fit into memory; add --skip jacobian"
                )));
            }
            results.jacobian = Some(Array3::zeros(shape));
        }
        results.near_kink = (!skip.contains(&Array::NearKink)).then(Vec::new);
        let memory = (arguments.memory as usize) << 20;
        let row = network
            .nodes()
            .iter()
            .map(|node| node.width())
            .sum::<usize>()
            * size_of::<T>();
        // A Jacobian's sweep has a row for each logit or each input, whichever are fewer.
        let rows = network.outputs().min(network.inputs());
        let size = (memory / (row * (2 * rows + 2))).clamp(1, n);
        for start in (0..n).step_by(size) {
            let range = start..n.min(start + size);
            let group = Group {
                range,
                request,
                skip,
                memory,
            };
            results.add(network, &group)?;
        }
        Ok(results)
    }

    fn add(&mut self, network: &Network<T>, group: &Group<T>) -> Result<()> {
        let Group { range, request, .. } = group;
        let x = request.inputs.slice(s![range.clone(), ..]);
        let trace = network.trace(x)?;
        let targets = request.truth.part(range.clone());
        self.push_rows(group, Array::Logits, || Ok(trace.logits().to_owned()))?;
        self.push(group, Array::Loss, || trace.losses(&request.loss, &targets))?;
        if let Some(jacobian) = &mut self.jacobian {
            let mut part = jacobian.slice_mut(s![range.clone(), .., ..]);
            trace.for_each_jacobian_block(group.memory, |block| {
                let place = s![block.samples, block.rows, ..];
                part.slice_mut(place).assign(&block.values);
            })?;
        }
        self.products(group, &trace)?;
        self.push_rows(group, Array::InputGradient, || {
            trace.input_gradient(&request.loss, &targets)
        })?;
        self.jacobian_norms(group, &trace)?;
        self.curvature(group, &trace)?;
        if let Some(near) = &mut self.near_kink {
            near.extend(network.near_kinks(x)?.iter().map(|&count| count as i64));
        }
        Ok(())
    }

    /// Products with the given vectors.
    fn products(&mut self, group: &Group<T>, trace: &Trace<T>) -> Result<()> {
        let part = s![group.range.clone(), ..];
        if let Some(v) = &group.request.vector {
            self.push_rows(group, Array::Jvp, || trace.jvp(v.slice(part)))?;
        }
        if let Some(u) = &group.request.cotangent {
            self.push_rows(group, Array::Vjp, || trace.vjp(u.slice(part)))?;
        }
        Ok(())
    }

    /// `‖J‖_F²`, `‖J‖₂` and the cross-Lipschitz sum. With squared error `H = JᵀJ`, whose trace and
    /// norm are the first two.
    fn jacobian_norms(&mut self, group: &Group<T>, trace: &Trace<T>) -> Result<()> {
        let square = trace.curvature(&Loss::SquaredError)?;
        let array = Array::JacobianFrobeniusSquared;
        self.push(group, array, || square.hessian_trace())?;
        self.push(group, Array::JacobianSpectral, || {
            Ok(square.spectral_norm()?.mapv(f64::sqrt))
        })?;
        self.push(group, Array::CrossLipschitz, || {
            cross_lipschitz(trace, group.memory)
        })
    }

    fn curvature(&mut self, group: &Group<T>, trace: &Trace<T>) -> Result<()> {
        let curvature = trace.curvature(&group.request.loss)?;
        if let Some(v) = &group.request.vector {
            self.push_rows(group, Array::Hvp, || {
                curvature.apply(v.slice(s![group.range.clone(), ..]))
            })?;
        }
        self.push(group, Array::HessianTrace, || curvature.hessian_trace())?;
        self.push(group, Array::HessianFrobenius, || {
            curvature.frobenius_norm()
        })?;
        self.push(group, Array::HessianSpectral, || curvature.spectral_norm())?;
        self.push_rows(group, Array::HessianEigenvalues, || {
            let values = curvature.eigenpairs()?.values;
            Ok(values.mapv(|v| T::from_f64(v.into_f64())))
        })
    }

    fn push(
        &mut self,
        group: &Group<T>,
        array: Array,
        values: impl FnOnce() -> relugrad::Result<Array1<f64>>,
    ) -> Result<()> {
        if group.wants(array) {
            of(&mut self.scalars, array).extend(values()?);
        }
        Ok(())
    }

    fn push_rows(
        &mut self,
        group: &Group<T>,
        array: Array,
        values: impl FnOnce() -> relugrad::Result<Array2<T>>,
    ) -> Result<()> {
        if group.wants(array) {
            of(&mut self.rows, array).push(values()?);
        }
        Ok(())
    }

    /// Writes all arrays.
    pub(super) fn write<W: Write + Seek>(&self, npz: &mut NpzWriter<W>) -> Result<()> {
        for (array, values) in &self.scalars {
            let values: Array1<T> = values.iter().map(|&v| T::from_f64(v)).collect();
            check_finite(&array.name(), values.len(), values.iter())?;
            npz.add_array(array.name(), &values)?;
        }
        for (array, parts) in &self.rows {
            let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
            let rows = ndarray::concatenate(Axis(0), &views)?;
            check_finite(&array.name(), rows.nrows(), rows.iter())?;
            npz.add_array(array.name(), &rows)?;
        }
        if let Some(jacobian) = &self.jacobian {
            check_finite("jacobian", jacobian.len_of(Axis(0)), jacobian.iter())?;
            npz.add_array("jacobian", jacobian)?;
        }
        if let Some(near) = &self.near_kink {
            npz.add_array("near_kink", &Array1::from(near.clone()))?;
        }
        Ok(())
    }
}

/// What is kept of an array, which is empty at first.
fn of<V>(kept: &mut Vec<(Array, Vec<V>)>, array: Array) -> &mut Vec<V> {
    let place = kept.iter().position(|(other, _)| *other == array);
    let place = place.unwrap_or_else(|| {
        kept.push((array, Vec::new()));
        kept.len() - 1
    });
    &mut kept[place].1
}

impl<T> Group<'_, T> {
    fn wants(&self, array: Array) -> bool {
        !self.skip.contains(&array)
    }
}

/// `Σ_{j,k} ‖J_j − J_k‖² = 2K Σ_k ‖J_k − mean‖²` of each sample, row by row with a running mean
/// (Welford 1962).
fn cross_lipschitz<T: Scalar>(trace: &Trace<T>, memory: usize) -> relugrad::Result<Array1<f64>> {
    let (k, d) = (trace.network().outputs(), trace.network().inputs());
    let mut sums = vec![0.0; trace.samples()];
    let mut mean = vec![0.0; d];
    trace.for_each_jacobian_block(memory, |block| {
        for (sample, rows) in block.samples.zip(block.values.outer_iter()) {
            for (i, row) in block.rows.clone().zip(rows.rows()) {
                if i == 0 {
                    mean.fill(0.0);
                }
                for (mean, entry) in mean.iter_mut().zip(row) {
                    let distance = entry.into_f64() - *mean;
                    *mean += distance / (i + 1) as f64;
                    sums[sample] += distance * (entry.into_f64() - *mean);
                }
            }
        }
    })?;
    Ok(sums.iter().map(|sum| 2.0 * k as f64 * sum).collect())
}

/// Refuses an array, of so many inputs, with a number that its type does not hold.
fn check_finite<'v, T: Scalar>(
    name: &str,
    inputs: usize,
    values: impl ExactSizeIterator<Item = &'v T>,
) -> Result<()> {
    let each = (values.len() / inputs.max(1)).max(1);
    match values.into_iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(place) => Err(anyhow!(
            "{name} is not finite at input {}: too large for {}; leave it out with --skip {name}{}",
            place / each,
            T::NAME,
            if T::NAME == "f32" {
                ", or take --dtype f64"
            } else {
                ""
            },
        )),
    }
}
