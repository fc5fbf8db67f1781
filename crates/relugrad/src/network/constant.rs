//! Arrays of a node that are not trained.

use std::sync::Arc;

/// A named array that a node computes with and that training leaves alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    name: &'static str,
    shape: Vec<usize>,
    values: Arc<[f64]>,
}

impl Constant {
    pub(crate) fn new(name: &'static str, shape: Vec<usize>, values: Arc<[f64]>) -> Constant {
        Constant {
            name,
            shape,
            values,
        }
    }

    /// What it is to its node, such as `mean`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its entries, row-major; indices of a gather are whole numbers.
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}
