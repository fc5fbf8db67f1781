//! Tensors whose numbers are in files beside the model.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::proto::TensorProto;
use crate::error::{Error, Result};
use crate::file::open_file;
use crate::limits::Budget;

/// The files beside a model.
pub(super) struct Beside<'a> {
    model: &'a Path,
    budget: &'a Budget,
    /// How much has been read of each file.
    read: RefCell<HashMap<PathBuf, u64>>,
}

impl<'a> Beside<'a> {
    /// Those in the folder of `model`.
    pub(super) fn new(model: &'a Path, budget: &'a Budget) -> Beside<'a> {
        Beside {
            model,
            budget,
            read: RefCell::default(),
        }
    }

    /// The bytes of a tensor, which should be so many.
    pub(super) fn bytes(&self, tensor: &TensorProto, expected: u64) -> Result<Vec<u8>> {
        let problem = |problem: String| Error::OnnxTensor {
            tensor: tensor.name.clone(),
            problem,
        };
        let location = location(tensor).map_err(problem)?;
        let offset = number(tensor, "offset").map_err(problem)?.unwrap_or(0);
        let length = number(tensor, "length").map_err(problem)?;
        let length = length.unwrap_or(expected);
        if length != expected {
            return Err(problem(format!(
                "its dimensions ask for {expected} bytes, but {length} are said to be in its file"
            )));
        }
        let unread = |reason: &dyn Display| {
            problem(format!(
                "its numbers are in the file `{location}`, which cannot be read: {reason}"
            ))
        };
        let path = self.folder().join(location);
        let (mut file, whole) = open_file(&path).map_err(|error| {
            if let Error::Read { source, .. } = error {
                unread(&source)
            } else {
                unread(&error)
            }
        })?;
        self.check_place(&path).map_err(problem)?;
        if length > whole.saturating_sub(offset) {
            return Err(problem(format!(
                "its file `{location}` of {whole} bytes ends before its {length} bytes from {offset} on do"
            )));
        }
        self.grow(&path, length, whole);
        self.budget.take(length, || {
            format!("tensor `{}` in {}", tensor.name, path.display())
        })?;
        let mut bytes = Vec::new();
        let sought = file.seek(SeekFrom::Start(offset));
        let read = sought.and_then(|_| file.take(length).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 == length => Ok(bytes),
            Ok(_) => Err(unread(&"it became shorter meanwhile")),
            Err(error) => Err(unread(&error)),
        }
    }

    /// What is read from a file beside the model counts as the model's own, up to the length of the
    /// file: a file that is long, perhaps without anything in it, allows no more than what is read
    /// of it.
    fn grow(&self, path: &Path, length: u64, whole: u64) {
        let mut files = self.read.borrow_mut();
        let read = files.entry(path.to_owned()).or_default();
        let more = length.min(whole - (*read).min(whole));
        *read += more;
        self.budget.grow(more);
    }

    fn folder(&self) -> &Path {
        self.model.parent().unwrap_or(Path::new(""))
    }

    /// Refuses a file that is by a link somewhere else: neither in the folder that the model is
    /// read from nor in the one where a link leads to the model itself, as in a store of files that
    /// are called by their contents.
    fn check_place(&self, path: &Path) -> std::result::Result<(), String> {
        let folder = match self.folder() {
            here if here.as_os_str().is_empty() => Path::new("."),
            folder => folder,
        };
        let file = fs::canonicalize(path).map_err(|error| error.to_string())?;
        let model = fs::canonicalize(self.model).ok();
        let folders = [fs::canonicalize(folder).ok(), model];
        let [here, there] = folders;
        let there = there.and_then(|model| model.parent().map(Path::to_owned));
        let inside = [here, there];
        match inside
            .iter()
            .flatten()
            .any(|folder| file.starts_with(folder))
        {
            true => Ok(()),
            false => Err(format!(
                "its file `{}` is a link to {}, which is not in the model's folder; copy it there",
                path.display(),
                file.display()
            )),
        }
    }
}

/// What a tensor says about its numbers under a key, once.
fn entry<'a>(tensor: &'a TensorProto, key: &str) -> std::result::Result<Option<&'a str>, String> {
    let mut entries = tensor.external_data.iter().filter(|entry| entry.key == key);
    let first = entries.next().map(|entry| entry.value.as_str());
    match entries.next() {
        None => Ok(first),
        Some(_) => Err(format!("it has the {key} of its numbers twice")),
    }
}

/// The name of a tensor's file, which must be in the model's folder.
fn location(tensor: &TensorProto) -> std::result::Result<&str, String> {
    let location = entry(tensor, "location")?.filter(|location| !location.is_empty());
    let location = location.ok_or("it does not say in which file its numbers are")?;
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    match Path::new(location).components().all(inside) {
        true => Ok(location),
        false => Err(format!(
            "its file `{location}` is not in the model's folder"
        )),
    }
}

fn number(tensor: &TensorProto, key: &str) -> std::result::Result<Option<u64>, String> {
    let number = entry(tensor, key)?.map(str::parse);
    number
        .transpose()
        .map_err(|_| format!("the {key} of its numbers is no number"))
}
