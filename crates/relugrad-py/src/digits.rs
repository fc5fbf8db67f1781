//! The digits that come with the library.

use ndarray::Array1;
use pyo3::prelude::*;

use crate::array::to_numpy;

/// The 1797 handwritten digits of the UCI optical recognition set (Alpaydin & Kaynak 1998), 8×8 pixels
/// with values in [0, 1]: images `[1797, 64]` in float32 and classes `[1797]` in int64. They come with
/// the library.
#[pyfunction]
pub(crate) fn digits(py: Python<'_>) -> (Py<PyAny>, Py<PyAny>) {
    let digits = relugrad_train::data::digits();
    let labels = digits.labels().iter().map(|&label| label as i64);
    let labels = Array1::from_iter(labels);
    (to_numpy(py, digits.images().clone()), to_numpy(py, labels))
}
