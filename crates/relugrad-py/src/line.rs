//! Lines and planes through the regions of a network.

use std::sync::Arc;

use ndarray::{Array1, Array2};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use relugrad::{Cell, Edge, Network, Plane, Polygon, Slice};

use crate::array::to_numpy;
use crate::error::{Error, OrRaise};
use crate::network::{AnyNetwork, PyNetwork, Wrap, each};
use crate::region::{choices, crossing_dict, kink_dict, vector};
use crate::watch::watched;

/// Regions of a slice that are looked for, unless more are allowed.
pub(crate) const LIMIT: usize = 100_000;

/// See `Network.walk`.
pub(crate) fn walk<'py>(
    py: Python<'py>,
    network: &PyNetwork,
    x: &Bound<'py, PyAny>,
    z: &Bound<'py, PyAny>,
    length: f64,
    jacobians: bool,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    each!(AnyNetwork, network.get(), network => {
        let (x, z) = (vector("x", x, network.inputs())?, vector("z", z, network.inputs())?);
        let steps = watched(py, None, |watch| steps(&network, &x, &z, length, jacobians, &|| watch.go_on()))?;
        steps.or_raise()?.into_iter().map(|step| step.into_dict(py)).collect()
    })
}

/// A segment inside one region.
struct Step<T> {
    start: f64,
    end: f64,
    logits: [Array1<T>; 2],
    jacobian: Option<Array2<T>>,
    crossing: Option<relugrad::Crossing>,
}

impl<T: Wrap> Step<T> {
    fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let dict = PyDict::new(py);
        let [first, last] = self.logits;
        dict.set_item("start", self.start)?;
        dict.set_item("end", self.end)?;
        dict.set_item("logits_start", to_numpy(py, first))?;
        dict.set_item("logits_end", to_numpy(py, last))?;
        if let Some(jacobian) = self.jacobian {
            dict.set_item("jacobian", to_numpy(py, jacobian))?;
        }
        let crossing = self.crossing.map(|crossing| crossing_dict(py, &crossing));
        dict.set_item("crossing", crossing.transpose()?)?;
        Ok(dict)
    }
}

fn steps<T: Wrap>(
    network: &Arc<Network<T>>,
    x: &Array1<T>,
    z: &Array1<T>,
    length: f64,
    jacobians: bool,
    go_on: &dyn Fn() -> bool,
) -> relugrad::Result<Vec<Step<T>>> {
    let mut walk = network.walk(x.view(), z.view(), length)?;
    let mut steps = Vec::new();
    loop {
        if !go_on() {
            return Err(relugrad::Error::Stopped);
        }
        let (start, end) = (walk.start(), walk.end());
        let logits = [walk.logits(start)?, walk.logits(end)?];
        let jacobian = match jacobians {
            true => Some(walk.jacobian()?.clone()),
            false => None,
        };
        let crossing = walk.cross()?;
        steps.push(Step {
            start,
            end,
            logits,
            jacobian,
            crossing,
        });
        if crossing.is_none() {
            return Ok(steps);
        }
    }
}

/// All activation regions in a window of a plane, each a polygon.
#[pyclass(name = "Slice", module = "relugrad", frozen)]
pub(crate) struct PySlice {
    plane: Plane<f64>,
    window: [[f64; 2]; 2],
    marks: Vec<([f64; 2], String)>,
    found: Slice,
}

/// A plane, what is shown of it, and points of it.
type Placed<T> = (Plane<T>, [[f64; 2]; 2], Vec<[f64; 2]>);

impl PySlice {
    /// See `Network.slice`.
    pub(crate) fn of(
        py: Python<'_>,
        network: &PyNetwork,
        points: &[Bound<'_, PyAny>],
        window: Option<[[f64; 2]; 2]>,
        limit: usize,
    ) -> PyResult<PySlice> {
        each!(AnyNetwork, network.get(), network => {
            let (plane, window, marks) = placed(&network, points, window)?;
            let found = watched(py, None, |watch| {
                network.slice_while(&plane, window, limit, &|| watch.go_on())
            })?;
            let wide = |v: &Array1<_>| v.mapv(relugrad::Scalar::into_f64);
            Ok(PySlice {
                plane: Plane {
                    origin: wide(&plane.origin),
                    directions: plane.directions.each_ref().map(wide),
                },
                window,
                marks: marks.into_iter().enumerate().map(|(i, at)| (at, i.to_string())).collect(),
                found: found.or_raise()?,
            })
        })
    }
}

fn placed<T: Wrap>(
    network: &Network<T>,
    points: &[Bound<'_, PyAny>],
    window: Option<[[f64; 2]; 2]>,
) -> PyResult<Placed<T>> {
    let names = ["the first point", "the second point", "the third point"];
    let read = points.iter().zip(names);
    let read = read.map(|(given, name)| vector::<T>(name, given, network.inputs()));
    let read = read.collect::<PyResult<Vec<_>>>()?;
    let [a, b, c] = &read[..] else {
        return Err(Error::new_err(format!(
            "a plane goes through 3 points, not {}",
            points.len()
        )));
    };
    let plane = Plane::through([a.view(), b.view(), c.view()]).ok_or_else(|| {
        Error::new_err("the three points lie on a line, or are not finite; a plane needs others")
    })?;
    let marks = [a, b, c].map(|point| plane.project(point.view()));
    let marks = marks.into_iter().collect::<relugrad::Result<Vec<_>>>();
    let marks = marks.or_raise()?;
    let window = window.unwrap_or_else(|| around(&marks));
    Ok((plane, window, marks))
}

/// The points with a quarter of their extent on each side.
fn around(marks: &[[f64; 2]]) -> [[f64; 2]; 2] {
    [0, 1].map(|axis| {
        let values = marks.iter().map(|mark| mark[axis]);
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let margin = 0.25 * (high - low);
        [low - margin, high + margin]
    })
}

#[pymethods]
impl PySlice {
    /// The plane: `origin: [D]` and two orthonormal `directions: [D]`.
    #[getter]
    fn plane(&self, py: Python<'_>) -> (Py<PyAny>, Py<PyAny>, Py<PyAny>) {
        let [u, v] = self.plane.directions.clone();
        let origin = to_numpy(py, self.plane.origin.clone());
        (origin, to_numpy(py, u), to_numpy(py, v))
    }

    /// The window, `((a_min, a_max), (b_min, b_max))`.
    #[getter]
    fn window(&self) -> [[f64; 2]; 2] {
        self.window
    }

    /// The three points in coordinates of the plane.
    #[getter]
    fn marks(&self) -> Vec<[f64; 2]> {
        self.marks.iter().map(|(at, _)| *at).collect()
    }

    /// Whether the polygons tile the window; false if there are more than `limit`.
    #[getter]
    fn complete(&self) -> bool {
        self.found.complete
    }

    /// The regions, each a dict: `corners: [n, 2]`, `edges` (the gate of each side, None at the
    /// window's), `area`, `pattern`, `logits: [K, 3]` (`f = c₀ + c₁ a + c₂ b`), and `classes`, the
    /// predicted classes with their parts of the polygon.
    #[getter]
    fn cells<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let cells = self.found.cells.iter();
        cells.map(|cell| cell_dict(py, cell)).collect()
    }

    fn __len__(&self) -> usize {
        self.found.cells.len()
    }

    fn __repr__(&self) -> String {
        let title = self.title();
        format!("Slice({title})")
    }

    /// The picture: regions coloured by their class.
    fn svg(&self) -> String {
        relugrad_cli::slice_picture(
            &self.title(),
            self.plane.clone(),
            self.window,
            self.marks.clone(),
            &self.found.cells,
        )
    }

    fn _repr_svg_(&self) -> String {
        self.svg()
    }
}

impl PySlice {
    fn title(&self) -> String {
        let more = match self.found.complete {
            true => "",
            false => "; there are more",
        };
        format!(
            "{} regions through three points{more}",
            self.found.cells.len()
        )
    }
}

fn cell_dict<'py>(py: Python<'py>, cell: &Cell) -> PyResult<Bound<'py, PyDict>> {
    let corners = |polygon: &Polygon| to_numpy(py, ndarray::arr2(&polygon.corners));
    let dict = PyDict::new(py);
    let edges = cell.polygon.edges.iter().map(|edge| match edge {
        Edge::Window | Edge::Classes(..) => Ok(None),
        Edge::Kink(kink) => kink_dict(py, kink).map(Some),
    });
    let classes = cell.classes();
    let classes = classes
        .iter()
        .map(|(class, part)| (*class, corners(part)))
        .collect::<Vec<_>>();
    dict.set_item("corners", corners(&cell.polygon))?;
    dict.set_item("edges", edges.collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("area", cell.polygon.area())?;
    dict.set_item("pattern", choices(py, &cell.pattern))?;
    dict.set_item("logits", to_numpy(py, ndarray::arr2(&cell.logits)))?;
    dict.set_item("classes", classes)?;
    Ok(dict)
}
