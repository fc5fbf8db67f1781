//! The attributes of a node, with their types checked.

use super::proto::{AttributeProto, NodeProto, TensorProto};
use crate::error::{Error, Result};

/// A node with a name to be called by in errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
}

impl<'a> Call<'a> {
    /// Its name, or that of its first output.
    pub(super) fn name(self) -> &'a str {
        if self.node.name.is_empty() {
            return self.node.output.first().map_or("", String::as_str);
        }
        &self.node.name
    }

    pub(super) fn operator(self) -> &'a str {
        &self.node.op_type
    }

    pub(super) fn error(self, problem: impl Into<String>) -> Error {
        Error::OnnxNode {
            node: self.name().to_owned(),
            operator: self.operator().to_owned(),
            problem: problem.into(),
        }
    }

    fn find(self, name: &str, kind: i32) -> Result<Option<&'a AttributeProto>> {
        match self.node.attribute.iter().find(|a| a.name == name) {
            Some(a) if a.r#type != kind && a.r#type != 0 => Err(self.error(format!(
                "its attribute `{name}` has another type than the operator's"
            ))),
            found => Ok(found),
        }
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.node.attribute.iter().any(|a| a.name == name)
    }

    pub(super) fn float(self, name: &str, default: f64) -> Result<f64> {
        let value = self.find(name, 1)?.map_or(default, |a| f64::from(a.f));
        if value.is_finite() {
            return Ok(value);
        }
        Err(self.error(format!("its attribute `{name}` is {value}")))
    }

    pub(super) fn integer(self, name: &str, default: i64) -> Result<i64> {
        Ok(self.find(name, 2)?.map_or(default, |a| a.i))
    }

    pub(super) fn flag(self, name: &str, default: bool) -> Result<bool> {
        Ok(self.integer(name, i64::from(default))? != 0)
    }

    pub(super) fn string(self, name: &str, default: &str) -> Result<String> {
        let found = self.find(name, 3)?;
        Ok(found.map_or(default.into(), |a| {
            String::from_utf8_lossy(&a.s).into_owned()
        }))
    }

    pub(super) fn tensor(self, name: &str) -> Result<Option<&'a TensorProto>> {
        Ok(self.find(name, 4)?.and_then(|a| a.t.as_ref()))
    }

    pub(super) fn floats(self, name: &str) -> Result<Option<&'a [f32]>> {
        Ok(self.find(name, 6)?.map(|a| &a.floats[..]))
    }

    pub(super) fn integers(self, name: &str) -> Result<Option<&'a [i64]>> {
        Ok(self.find(name, 7)?.map(|a| &a.ints[..]))
    }

    /// Whole numbers that are not negative, as many as `count`.
    pub(super) fn sizes(self, name: &str, count: usize) -> Result<Option<Vec<usize>>> {
        let Some(values) = self.integers(name)? else {
            return Ok(None);
        };
        let sizes: Option<Vec<usize>> = values.iter().map(|&v| usize::try_from(v).ok()).collect();
        match sizes.filter(|sizes| sizes.len() == count) {
            Some(sizes) => Ok(Some(sizes)),
            None => Err(self.error(format!(
                "its attribute `{name}` is {values:?}, but {count} numbers of at least 0 are needed"
            ))),
        }
    }
}
