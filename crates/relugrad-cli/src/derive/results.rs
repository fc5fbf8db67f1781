//! The arrays of derivatives, computed group by group.

use std::io::{Seek, Write};
use std::ops::Range;

use anyhow::{Result, anyhow};
use ndarray::{Array1, Array2, Array3, Axis, s};
use ndarray_npy::{NpzWriter, WritableElement};
use relugrad::{Loss, Network, Objective, Penalty, Scalar, Targets, Trace};

use super::arguments::Array;
use super::{Arguments, Request};
use crate::failure::Failure;

/// Everything that was asked for; what was left out is empty.
#[derive(Default)]
pub(super) struct Results<T> {
    labels: Vec<usize>,
    scalars: Vec<(Array, &'static str, Vec<f64>)>,
    rows: Vec<(Array, &'static str, Vec<Array2<T>>)>,
    jacobian: Option<Array3<T>>,
    near_kink: Option<Vec<i64>>,
}

/// The inputs of one group.
struct Group<'a, T> {
    range: Range<usize>,
    request: &'a Request<T>,
    skip: &'a [Array],
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
        let size = (memory / (row * (2 * network.outputs() + 2))).clamp(1, n);
        for start in (0..n).step_by(size) {
            let range = start..n.min(start + size);
            let group = Group {
                range,
                request,
                skip,
            };
            results.add(network, &group)?;
        }
        Ok(results)
    }

    /// The label of every input.
    pub(super) fn labels(&self) -> &[usize] {
        &self.labels
    }

    fn add(&mut self, network: &Network<T>, group: &Group<T>) -> Result<()> {
        let Group { range, request, .. } = group;
        let x = request.inputs.slice(s![range.clone(), ..]);
        let trace = network.trace(x)?;
        let labels: Vec<usize> = match &request.labels {
            Some(labels) => labels[range.clone()].to_vec(),
            None => predicted(&trace),
        };
        let targets = Targets::Classes(&labels);
        if group.wants(Array::Logits) {
            self.push_rows(Array::Logits, "logits", trace.logits().to_owned());
        }
        self.push(group, Array::Loss, "loss", || {
            Ok(trace.losses(&request.loss, &targets)?.to_vec())
        })?;
        if let Some(jacobian) = &mut self.jacobian {
            let part = jacobian.slice_mut(s![range.clone(), .., ..]);
            trace.jacobian().assign_to(part);
        }
        self.products(group, &trace)?;
        if group.wants(Array::InputGradient) {
            let gradient = trace.input_gradient(&request.loss, &targets)?;
            self.push_rows(Array::InputGradient, "input_gradient", gradient);
        }
        self.penalties(group, network, &targets)?;
        self.curvature(group, &trace)?;
        if let Some(near) = &mut self.near_kink {
            near.extend(network.near_kinks(x)?.iter().map(|&count| count as i64));
        }
        self.labels.extend(labels);
        Ok(())
    }

    /// Products with the given vectors.
    fn products(&mut self, group: &Group<T>, trace: &Trace<T>) -> Result<()> {
        let range = group.range.clone();
        if let Some(v) = &group.request.vector
            && group.wants(Array::Jvp)
        {
            self.push_rows(
                Array::Jvp,
                "jvp",
                trace.jvp(v.slice(s![range.clone(), ..]))?,
            );
        }
        if let Some(u) = &group.request.cotangent
            && group.wants(Array::Vjp)
        {
            self.push_rows(Array::Vjp, "vjp", trace.vjp(u.slice(s![range, ..]))?);
        }
        Ok(())
    }

    /// Functions of the Gram matrix alone, by one objective.
    fn penalties(
        &mut self,
        group: &Group<T>,
        network: &Network<T>,
        targets: &Targets<T>,
    ) -> Result<()> {
        let all = [
            (
                Array::JacobianFrobeniusSquared,
                "jacobian_frobenius_squared",
                Penalty::Jacobian,
            ),
            (
                Array::JacobianSpectral,
                "jacobian_spectral",
                Penalty::JacobianSpectral,
            ),
            (
                Array::CrossLipschitz,
                "cross_lipschitz",
                Penalty::CrossLipschitz,
            ),
        ];
        let wanted: Vec<_> = all
            .into_iter()
            .filter(|(array, ..)| group.wants(*array))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut objective = Objective::new(group.request.loss);
        for (_, _, penalty) in &wanted {
            objective = objective.with(penalty.clone(), 0.0)?;
        }
        let x = group.request.inputs.slice(s![group.range.clone(), ..]);
        let values = objective.value(network, x, targets)?.sample_penalties;
        for (i, (array, name, _)) in wanted.into_iter().enumerate() {
            let row = values.row(i);
            let root = array == Array::JacobianSpectral;
            let values = row.iter().map(|&v: &f64| if root { v.sqrt() } else { v });
            self.push(group, array, name, || Ok(values.collect()))?;
        }
        Ok(())
    }

    fn curvature(&mut self, group: &Group<T>, trace: &Trace<T>) -> Result<()> {
        let curvature = trace.curvature(&group.request.loss)?;
        if let Some(v) = &group.request.vector
            && group.wants(Array::Hvp)
        {
            let hv = curvature.apply(v.slice(s![group.range.clone(), ..]))?;
            self.push_rows(Array::Hvp, "hvp", hv);
        }
        self.push(group, Array::HessianTrace, "hessian_trace", || {
            Ok(curvature.trace().to_vec())
        })?;
        self.push(group, Array::HessianFrobenius, "hessian_frobenius", || {
            Ok(curvature.frobenius_norm().to_vec())
        })?;
        self.push(group, Array::HessianSpectral, "hessian_spectral", || {
            Ok(curvature.spectral_norm()?.to_vec())
        })?;
        if group.wants(Array::HessianEigenvalues) {
            let values = curvature
                .eigenpairs()?
                .values
                .mapv(|v| T::from_f64(v.into_f64()));
            self.push_rows(Array::HessianEigenvalues, "hessian_eigenvalues", values);
        }
        Ok(())
    }

    fn push(
        &mut self,
        group: &Group<T>,
        array: Array,
        name: &'static str,
        values: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<()> {
        if !group.wants(array) {
            return Ok(());
        }
        let values = values()?;
        match self.scalars.iter_mut().find(|(a, ..)| *a == array) {
            Some((_, _, all)) => all.extend(values),
            None => self.scalars.push((array, name, values)),
        }
        Ok(())
    }

    fn push_rows(&mut self, array: Array, name: &'static str, values: Array2<T>) {
        match self.rows.iter_mut().find(|(a, ..)| *a == array) {
            Some((_, _, all)) => all.push(values),
            None => self.rows.push((array, name, vec![values])),
        }
    }

    /// Writes all arrays.
    pub(super) fn write<W: Write + Seek>(&self, npz: &mut NpzWriter<W>) -> Result<()> {
        for (_, name, values) in &self.scalars {
            let values: Array1<T> = values.iter().map(|&v| T::from_f64(v)).collect();
            npz.add_array(*name, &values)?;
        }
        for (_, name, parts) in &self.rows {
            let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
            npz.add_array(*name, &ndarray::concatenate(Axis(0), &views)?)?;
        }
        if let Some(jacobian) = &self.jacobian {
            npz.add_array("jacobian", jacobian)?;
        }
        if let Some(near) = &self.near_kink {
            npz.add_array("near_kink", &Array1::from(near.clone()))?;
        }
        Ok(())
    }
}

impl<T> Group<'_, T> {
    fn wants(&self, array: Array) -> bool {
        !self.skip.contains(&array)
    }
}

/// The class of the largest logit, the first in a tie; of one logit, whether it is positive.
fn predicted<T: Scalar>(trace: &Trace<T>) -> Vec<usize> {
    let class = |row: ndarray::ArrayView1<T>| {
        if row.len() == 1 {
            return usize::from(row[0] > T::ZERO);
        }
        (1..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best })
    };
    trace.logits().rows().into_iter().map(class).collect()
}

/// The loss of a name's meaning alone.
pub(super) fn objective(name: &str, loss: Loss) -> relugrad::Result<Objective> {
    let objective = Objective::new(loss);
    if name == "loss" {
        return Ok(objective);
    }
    Ok(objective.with(name.parse()?, 1.0)?.penalties_only())
}
