//! Errors as Python sees them: subclasses of `ValueError` and `TypeError`.

use pyo3::create_exception;
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;

create_exception!(
    relugrad,
    Error,
    PyValueError,
    "What relugrad refuses: a shape, a number, an option, a file. The message names what, where, and what to do."
);
create_exception!(
    relugrad,
    ArrayTypeError,
    PyTypeError,
    "An array of another type of number, or in another byte order, than the network's."
);

/// Whatever the libraries refuse, with their own words.
pub(crate) trait OrRaise<T> {
    fn or_raise(self) -> PyResult<T>;
}

impl<T> OrRaise<T> for relugrad::Result<T> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(of_engine)
    }
}

impl<T> OrRaise<T> for relugrad_io::Result<T> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| Error::new_err(error.to_string()))
    }
}

impl<T> OrRaise<T> for relugrad_train::Result<T> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| match error {
            relugrad_train::Error::Engine(error) => of_engine(error),
            error => Error::new_err(error.to_string()),
        })
    }
}

fn of_engine(error: relugrad::Error) -> PyErr {
    match error {
        relugrad::Error::Stopped => PyKeyboardInterrupt::new_err(()),
        relugrad::Error::TooLarge { .. } => PyMemoryError::new_err(error.to_string()),
        error => Error::new_err(error.to_string()),
    }
}
