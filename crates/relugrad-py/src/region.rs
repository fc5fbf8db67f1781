//! The polyhedron around a sample on which a network is affine.

use std::sync::Arc;

use ndarray::{Array1, IxDyn};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use relugrad::{
    ActivationPattern, Crossing, Kink, KinkDistances, Network, Norm, Region, SWEEP_MEMORY,
};

use crate::array::{Number, array, to_numpy};
use crate::error::{Error, OrRaise};
use crate::network::{AnyNetwork, PyNetwork, Wrap, each};
use crate::process::work;

/// The activation region of one input: the convex polyhedron around it on which the network is
/// affine. It keeps the network as it was. Each question costs a pass for the distances to all
/// hyperplanes.
#[pyclass(name = "Region", module = "relugrad", frozen)]
pub(crate) struct PyRegion(AnyPoint);

enum AnyPoint {
    F32(Point<f32>),
    F64(Point<f64>),
}

struct Point<T: Wrap> {
    network: Arc<Network<T>>,
    x: Array1<T>,
}

impl<T: Wrap> Point<T> {
    fn new(network: Arc<Network<T>>, x: &Bound<'_, PyAny>) -> PyResult<Point<T>> {
        let x = vector("x", x, network.inputs())?;
        Ok(Point { network, x })
    }

    fn ask<R: Send>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Region<'_, T>) -> relugrad::Result<R> + Send,
    ) -> PyResult<R> {
        work(py, || ask(&self.network.region(self.x.view())?))?.or_raise()
    }
}

/// One sample, of any shape with so many entries.
pub(crate) fn vector<T: Number>(
    what: &str,
    given: &Bound<'_, PyAny>,
    width: usize,
) -> PyResult<Array1<T>> {
    let array = array::<T, IxDyn>(what, given)?;
    let view = array.as_array();
    if view.len() != width {
        return Err(Error::new_err(format!(
            "{what} has shape {:?} but [{width}] is needed, one sample",
            view.shape()
        )));
    }
    Ok(view.iter().copied().collect())
}

/// A norm by its name.
fn norm(name: &str) -> PyResult<Norm> {
    let found = Norm::ALL.into_iter().find(|norm| norm.name() == name);
    found.ok_or_else(|| {
        Error::new_err(format!(
            "norm is {name:?} but must be \"l1\", \"l2\" or \"linf\""
        ))
    })
}

/// Where a gate switches.
pub(crate) fn kink_dict<'py>(py: Python<'py>, kink: &Kink) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("layer", kink.layer)?;
    dict.set_item("unit", kink.unit)?;
    dict.set_item("from", kink.from)?;
    dict.set_item("to", kink.to)?;
    Ok(dict)
}

/// Where a line crosses into the next region.
pub(crate) fn crossing_dict<'py>(
    py: Python<'py>,
    crossing: &Crossing,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = kink_dict(py, &crossing.kink)?;
    dict.set_item("at", crossing.at)?;
    Ok(dict)
}

/// The choices of one sample: for each layer of gates an array `[units]`.
pub(crate) fn choices(py: Python<'_>, pattern: &ActivationPattern) -> Vec<Py<PyAny>> {
    let layer = |layer: usize| {
        let units = 0..pattern.width(layer);
        let choices = units.map(|unit| pattern.choice(0, layer, unit) as u32);
        to_numpy(py, choices.collect::<Array1<u32>>())
    };
    (0..pattern.layers()).map(layer).collect()
}

fn distances_dict<'py>(py: Python<'py>, found: &KinkDistances) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for norm in Norm::ALL {
        dict.set_item(norm.name(), found.get(norm))?;
    }
    Ok(dict)
}

impl PyRegion {
    pub(crate) fn of(network: &PyNetwork, x: &Bound<'_, PyAny>) -> PyResult<PyRegion> {
        Ok(PyRegion(match network.get() {
            AnyNetwork::F32(network) => AnyPoint::F32(Point::new(network, x)?),
            AnyNetwork::F64(network) => AnyPoint::F64(Point::new(network, x)?),
        }))
    }
}

#[pymethods]
impl PyRegion {
    /// The input; `[D]`.
    #[getter]
    fn point(&self, py: Python<'_>) -> Py<PyAny> {
        each!(AnyPoint, &self.0, point => to_numpy(py, point.x.clone()))
    }

    /// The logits there; `[K]`.
    #[getter]
    fn logits(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        each!(AnyPoint, &self.0, point => {
            Ok(to_numpy(py, point.ask(py, |region| Ok(region.logits().to_owned()))?))
        })
    }

    /// The activation pattern: for each layer of gates an array `[units]`.
    #[getter]
    fn pattern(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        each!(AnyPoint, &self.0, point => {
            Ok(choices(py, &point.ask(py, |region| Ok(region.pattern().clone()))?))
        })
    }

    /// The affine map of the region, `f(x) = J x + c`: `J: [K, D]` and `c: [K]`.
    fn affine_map(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        each!(AnyPoint, &self.0, point => {
            let (map, offset) = point.ask(py, |region| region.affine_map())?;
            Ok((to_numpy(py, map), to_numpy(py, offset)))
        })
    }

    /// The distance of the point from each hyperplane, in "l1", "l2" or "linf"; an array.
    #[pyo3(signature = (norm = "l2"))]
    fn distances(&self, py: Python<'_>, norm: &str) -> PyResult<Py<PyAny>> {
        let norm = self::norm(norm)?;
        each!(AnyPoint, &self.0, point => {
            let found = point.ask(py, |region| Ok(Array1::from(region.distances(norm))))?;
            Ok(to_numpy(py, found))
        })
    }

    /// The distance from the nearest hyperplane, the radius of the largest ball around the point on
    /// which the network is affine, by norm.
    pub(crate) fn kink_distances<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        each!(AnyPoint, &self.0, point => {
            distances_dict(py, &point.ask(py, |region| Ok(region.kink_distances()))?)
        })
    }

    /// The same, of the hyperplanes on whose sides the point certainly is in spite of rounding.
    fn certain_kink_distances<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        each!(AnyPoint, &self.0, point => {
            distances_dict(py, &point.ask(py, |region| Ok(region.certain_kink_distances()))?)
        })
    }

    /// The nearest hyperplanes, at most `count`: a list of dicts with `number`, `distance`, and the
    /// gate's `layer`, `unit`, `from` and `to`.
    #[pyo3(signature = (count = 1, norm = "l2"))]
    fn nearest<'py>(
        &self,
        py: Python<'py>,
        count: usize,
        norm: &str,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let norm = self::norm(norm)?;
        each!(AnyPoint, &self.0, point => {
            let near = point.ask(py, |region| Ok(region.nearest(count, norm)))?;
            near.iter().map(|near| {
                let row = kink_dict(py, &near.kink)?;
                row.set_item("number", near.number)?;
                row.set_item("distance", near.distance)?;
                Ok(row)
            }).collect()
        })
    }

    /// The hyperplanes with these numbers, or all: a list of dicts with `number`, `margin`,
    /// `normal: [D]`, and the gate's `layer`, `unit`, `from` and `to`. The point is on the side where
    /// `margin + ⟨normal, Δx⟩` is positive.
    #[pyo3(signature = (numbers = None, *, memory = SWEEP_MEMORY))]
    fn hyperplanes<'py>(
        &self,
        py: Python<'py>,
        numbers: Option<Vec<usize>>,
        memory: usize,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        each!(AnyPoint, &self.0, point => {
            let count = point.ask(py, |region| Ok(region.hyperplanes()))?;
            let numbers = numbers.unwrap_or_else(|| (0..count).collect());
            if let Some(number) = numbers.iter().find(|number| **number >= count) {
                return Err(Error::new_err(format!("hyperplane {number} does not exist; there are {count}")));
            }
            let found = point.ask(py, |region| {
                let mut found = Vec::new();
                region.for_each_hyperplane(numbers.iter().copied(), memory, |plane| found.push(plane))?;
                Ok(found)
            })?;
            found.into_iter().zip(&numbers).map(|(plane, number)| {
                let row = kink_dict(py, &plane.kink)?;
                row.set_item("number", number)?;
                row.set_item("margin", plane.margin)?;
                row.set_item("normal", to_numpy(py, plane.normal))?;
                Ok(row)
            }).collect()
        })
    }

    /// The other classes by the distance at which the affine map prefers them to `label`: a list of
    /// dicts with `class` and `distance`.
    #[pyo3(signature = (label, norm = "l2"))]
    fn rivals<'py>(
        &self,
        py: Python<'py>,
        label: usize,
        norm: &str,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let norm = self::norm(norm)?;
        each!(AnyPoint, &self.0, point => {
            let rivals = point.ask(py, |region| region.rivals(label, norm))?;
            rivals.iter().map(|rival| {
                let row = PyDict::new(py);
                row.set_item("class", rival.class)?;
                row.set_item("distance", rival.distance)?;
                Ok(row)
            }).collect()
        })
    }

    /// A radius within which no perturbation changes the class from `label`: the distance to the
    /// nearest hyperplane or to the region's decision boundary, and 0 where the class is another.
    #[pyo3(signature = (label, norm = "l2"))]
    fn certified_radius(&self, py: Python<'_>, label: usize, norm: &str) -> PyResult<f64> {
        let norm = self::norm(norm)?;
        each!(AnyPoint, &self.0, point => point.ask(py, |region| region.certified_radius(label, norm)))
    }

    /// Where a ray leaves the region, `direction: [D]`: a dict with `at` and the gate, or None.
    fn next_crossing<'py>(
        &self,
        py: Python<'py>,
        direction: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        each!(AnyPoint, &self.0, point => {
            let direction = vector("direction", direction, point.network.inputs())?;
            let found = point.ask(py, |region| region.next_crossing(direction.view()))?;
            found.map(|crossing| crossing_dict(py, &crossing)).transpose()
        })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        each!(AnyPoint, &self.0, point => {
            let (count, l2) = point.ask(py, |region| Ok((region.hyperplanes(), region.kink_distances().l2)))?;
            Ok(format!("Region({} inputs, {count} hyperplanes, the nearest at {l2:.3e} in l2)", point.x.len()))
        })
    }
}
