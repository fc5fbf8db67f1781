//! Small sound files, and odd ones that once fell.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Format;

/// A file of the corpus.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The files of a format, in the order of their names.
///
/// # Panics
/// If the corpus cannot be read.
pub fn seeds(format: Format) -> Vec<Seed> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = files(&here.join("corpus").join(format.name()));
    if format == Format::Onnx {
        // The graphs of exporters, which are tested elsewhere as well.
        let exported = files(&here.join("../tests/golden/onnx"));
        paths.extend(exported.into_iter().filter(|path| is_small_model(path)));
    }
    let seed = |path: &PathBuf| Seed {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        bytes: fs::read(path).expect("the corpus is readable"),
    };
    paths.iter().map(seed).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("every format has a corpus");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn is_small_model(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "onnx")
        && fs::metadata(path).is_ok_and(|about| about.len() < 3000)
}
