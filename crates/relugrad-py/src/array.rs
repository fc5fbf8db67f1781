//! Arrays between NumPy and the engine: taken where they lie, returned without a copy.

use ndarray::{Array, Dimension};
use numpy::{
    Element, IntoPyArray, PyArray, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray,
    PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use relugrad::Scalar;

use crate::error::{ArrayTypeError, Error};

/// The two types of number of the engine, as NumPy's.
pub(crate) trait Number: Scalar + Element {
    /// As users write it.
    const DTYPE: &'static str;
}

impl Number for f32 {
    const DTYPE: &'static str = "float32";
}

impl Number for f64 {
    const DTYPE: &'static str = "float64";
}

/// An array of `T` with the number of axes of `D`, in any order and with any strides. What is no
/// array is made one; an array of other numbers is refused, since rounding is the user's business.
pub(crate) fn array<'py, T: Number, D: Dimension>(
    what: &str,
    given: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    let py = given.py();
    let wanted = dtype::<T>(py);
    let made;
    let found = match given.cast::<PyUntypedArray>() {
        Ok(array) => array,
        Err(_) => {
            made = as_array(what, given, &wanted)?;
            made.cast::<PyUntypedArray>().map_err(PyErr::from)?
        }
    };
    let type_ = found.dtype();
    if !type_.is_equiv_to(&wanted) {
        let swapped = type_.num() == wanted.num();
        let cure = match swapped {
            true => {
                "its bytes are in the other order: `.astype(x.dtype.newbyteorder(\"=\"))`".into()
            }
            false => format!("`.astype(\"{}\")` converts it", T::DTYPE),
        };
        return Err(ArrayTypeError::new_err(format!(
            "{what} holds {type_} but the network computes in {}; {cure}",
            T::DTYPE
        )));
    }
    if let Some(axes) = D::NDIM
        && found.ndim() != axes
    {
        return Err(Error::new_err(format!(
            "{what} has shape {:?} but {axes} axes are needed",
            found.shape()
        )));
    }
    let aligned = aligned(found)?;
    let array = aligned.cast::<PyArray<T, D>>().map_err(PyErr::from)?;
    Ok(array.try_readonly()?)
}

/// What is no array as one.
fn as_array<'py>(
    what: &str,
    given: &Bound<'py, PyAny>,
    wanted: &Bound<'py, numpy::PyArrayDescr>,
) -> PyResult<Bound<'py, PyAny>> {
    let numpy = given.py().import("numpy")?;
    numpy
        .call_method1("asarray", (given, wanted))
        .map_err(|error| ArrayTypeError::new_err(format!("{what} is no array of numbers: {error}")))
}

/// The same array, or a copy where numbers or strides are not whole multiples of their size, or
/// strides are negative.
fn aligned<'py>(found: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyAny>> {
    let size = found.dtype().itemsize() as isize;
    let is_plain = found.strides().iter().all(|s| *s >= 0 && s % size == 0);
    if is_plain && found.getattr("flags")?.get_item("ALIGNED")?.extract()? {
        return Ok(found.clone().into_any());
    }
    let options = PyDict::new(found.py());
    options.set_item("order", "C")?;
    found.call_method("copy", (), Some(&options))
}

/// An array for Python, whose memory it is.
pub(crate) fn to_numpy<T: Element, D: Dimension>(py: Python<'_>, array: Array<T, D>) -> Py<PyAny> {
    array.into_pyarray(py).into_any().unbind()
}
