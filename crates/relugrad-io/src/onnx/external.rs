//! Tensors whose numbers are in files beside the model.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::proto::TensorProto;
use crate::error::{Error, Result};
use crate::file::open_file;
use crate::limits::Budget;

/// The files beside a model.
pub(super) struct Beside<'a> {
    folder: &'a Path,
    budget: &'a Budget,
    /// The files read so far.
    read: RefCell<HashSet<PathBuf>>,
}

impl<'a> Beside<'a> {
    pub(super) fn new(folder: &'a Path, budget: &'a Budget) -> Beside<'a> {
        Beside {
            folder,
            budget,
            read: RefCell::default(),
        }
    }

    /// The bytes of a tensor.
    pub(super) fn bytes(&self, tensor: &TensorProto) -> Result<Vec<u8>> {
        let problem = |problem: String| Error::OnnxTensor {
            tensor: tensor.name.clone(),
            problem,
        };
        let path = self.folder.join(location(tensor).map_err(problem)?);
        let offset = number(tensor, "offset").map_err(problem)?.unwrap_or(0);
        let length = number(tensor, "length").map_err(problem)?;
        let (mut file, whole) = open_file(&path)?;
        let available = whole.saturating_sub(offset);
        let length = length.unwrap_or(available);
        if length > available {
            return Err(problem(format!(
                "its file ends before its {length} bytes do"
            )));
        }
        // What stands in a file beside the model counts as the model's own, once.
        if self.read.borrow_mut().insert(path.clone()) {
            self.budget.grow(whole);
        }
        self.budget.take(length, || {
            format!("tensor `{}` in {}", tensor.name, path.display())
        })?;
        let failed = |source| Error::Read {
            path: path.clone(),
            source,
        };
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    let entries = &tensor.external_data;
    let entry = entries.iter().find(|entry| entry.key == key)?;
    Some(&entry.value)
}

/// The name of a tensor's file, which must be in the model's folder.
fn location(tensor: &TensorProto) -> std::result::Result<PathBuf, String> {
    let location =
        entry(tensor, "location").ok_or("it does not say in which file its numbers are")?;
    let path = PathBuf::from(location);
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    match path.components().all(inside) {
        true => Ok(path),
        false => Err(format!(
            "its file `{location}` is not in the model's folder"
        )),
    }
}

fn number(tensor: &TensorProto, key: &str) -> std::result::Result<Option<u64>, String> {
    let number = entry(tensor, key).map(str::parse);
    number
        .transpose()
        .map_err(|_| format!("the {key} of its numbers is no number"))
}
