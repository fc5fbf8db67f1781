//! The Python package `relugrad`: the extension module under it, `relugrad._relugrad`.

mod architecture;
mod array;
mod curvature;
mod difference;
mod digits;
mod error;
mod given;
mod line;
mod mlp;
mod network;
mod nodes;
mod objective;
mod process;
mod region;
mod trace;
mod training;
mod watch;

use pyo3::prelude::*;

/// The Rust half of `relugrad`.
#[pymodule]
mod _relugrad {
    #[pymodule_export]
    use crate::architecture::PyArchitecture;
    #[pymodule_export]
    use crate::curvature::PyCurvature;
    #[pymodule_export]
    use crate::difference::PyFiniteDifference;
    #[pymodule_export]
    use crate::digits::digits;
    #[pymodule_export]
    use crate::error::{ArrayTypeError, Error};
    #[pymodule_export]
    use crate::line::PySlice;
    #[pymodule_export]
    use crate::mlp::PyMlp;
    #[pymodule_export]
    use crate::network::{PyNetwork, load};
    #[pymodule_export]
    use crate::objective::{PyObjective, penalties};
    #[pymodule_export]
    use crate::process::{command, num_threads, set_num_threads};
    #[pymodule_export]
    use crate::region::PyRegion;
    #[pymodule_export]
    use crate::trace::PyTrace;
    #[pymodule_export]
    use crate::training::{evaluate, train, verify};
}
