//! Samples in a table of comma-separated values.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use ndarray::Array2;

use super::file::open;
use super::{Dataset, Scale};
use crate::error::{Error, Result};

/// Reads a table with one sample in each line: its features and, in the column `label`, its class.
///
/// A first line with a cell that is no number (besides the label's) gives the columns their names. `label` is such a
/// name or a number of a column from 0; without it the last column is taken. Labels that are whole numbers from 0 are
/// class indices; other labels are numbered in their alphabetical order. A name that ends in `.gz` is decompressed.
pub(super) fn load_table(
    path: &Path,
    label: Option<&str>,
    scale: Scale,
    shape: &[usize],
) -> Result<Dataset> {
    let table = Table::read(path, open(path)?)?;
    let column = table.label_column(path, label)?;
    let (labels, classes) = table.classes(path, column)?;
    let (values, features) = table.features(path, column)?;
    let map = scale.map(path, false, values.iter().copied())?;
    let values = values.iter().map(|&value| map.apply(value)).collect();
    let images = Array2::from_shape_vec((labels.len(), features), values).expect("whole lines");
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = file.split('.').next().unwrap_or("table");
    let shape = if shape.is_empty() {
        vec![features]
    } else {
        shape.to_vec()
    };
    Dataset::new(name, images, labels, classes, shape)
}

/// The cells of a file.
struct Table {
    /// Names of the columns, if the first line has them.
    names: Option<csv::StringRecord>,
    lines: Vec<csv::StringRecord>,
}

fn problem(path: &Path, problem: impl Into<String>) -> Error {
    Error::DataFile {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn number(cell: &str) -> Option<f64> {
    cell.parse().ok().filter(|value: &f64| value.is_finite())
}

impl Table {
    fn read(path: &Path, reader: impl Read) -> Result<Table> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .trim(csv::Trim::All)
            .from_reader(reader);
        let lines: std::result::Result<Vec<csv::StringRecord>, csv::Error> =
            reader.records().collect();
        let mut lines = lines.map_err(|error| problem(path, error.to_string()))?;
        let Some(first) = lines.first() else {
            return Err(problem(path, "it has no line"));
        };
        // A header has names for features; a line of data has numbers for all but, perhaps, its label.
        let words = first.iter().filter(|cell| number(cell).is_none()).count();
        let names = (words > 1 || (words == 1 && first.len() == 1)).then(|| lines.remove(0));
        if lines.is_empty() {
            return Err(problem(
                path,
                "it has no line after the names of its columns",
            ));
        }
        Ok(Table { names, lines })
    }

    fn label_column(&self, path: &Path, label: Option<&str>) -> Result<usize> {
        let columns = self.lines[0].len();
        let Some(label) = label else {
            return Ok(columns - 1);
        };
        let named = |names: &csv::StringRecord| names.iter().position(|name| name == label);
        let numbered = || {
            label
                .parse()
                .ok()
                .filter(|&column: &usize| column < columns)
        };
        self.names
            .as_ref()
            .and_then(named)
            .or_else(numbered)
            .ok_or_else(|| {
                let names = match &self.names {
                    Some(names) => names.iter().collect::<Vec<_>>().join(", "),
                    None => "without names".into(),
                };
                problem(
                    path,
                    format!("it has no label column `{label}`; its {columns} columns are {names}"),
                )
            })
    }

    /// The class of every line, and the number of classes.
    fn classes(&self, path: &Path, column: usize) -> Result<(Vec<usize>, usize)> {
        let cells = || self.lines.iter().map(|line| &line[column]);
        if let Some(line) = cells().position(str::is_empty) {
            return Err(problem(
                path,
                format!("line {} has no label", self.line(line)),
            ));
        }
        let indices: Option<Vec<usize>> = cells().map(|cell| cell.parse().ok()).collect();
        if let Some(labels) = indices {
            let classes = 1 + labels.iter().max().copied().unwrap_or(0);
            if classes > self.lines.len().max(1000) {
                return Err(problem(
                    path,
                    format!(
                        "its largest label is {}, more than it has lines; is column {column} the label?",
                        classes - 1
                    ),
                ));
            }
            return Ok((labels, classes));
        }
        let names: BTreeSet<&str> = cells().collect();
        if names.len() > 2 && names.len() * 2 > self.lines.len() {
            return Err(problem(
                path,
                format!(
                    "its {} lines have {} different labels, such as `{}`; name the right column",
                    self.lines.len(),
                    names.len(),
                    cells().next().unwrap_or_default()
                ),
            ));
        }
        let place = |cell: &str| names.iter().position(|name| *name == cell);
        let labels = cells().map(|cell| place(cell).expect("it was collected"));
        Ok((labels.collect(), names.len()))
    }

    /// All features, line after line, and their number in a line.
    fn features(&self, path: &Path, label: usize) -> Result<(Vec<f64>, usize)> {
        let columns = self.lines[0].len();
        let mut values = Vec::with_capacity(self.lines.len() * (columns - 1));
        for (i, line) in self.lines.iter().enumerate() {
            for (column, cell) in line.iter().enumerate().filter(|(c, _)| *c != label) {
                let Some(value) = number(cell) else {
                    let line = self.line(i);
                    return Err(problem(
                        path,
                        format!("line {line}, column {column}: `{cell}` is no finite number"),
                    ));
                };
                values.push(value);
            }
        }
        Ok((values, columns - 1))
    }

    /// The number of a line in the file, from 1.
    fn line(&self, index: usize) -> usize {
        index + 1 + usize::from(self.names.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, label: Option<&str>) -> Result<Dataset> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("iris.csv");
        std::fs::write(&path, text).unwrap();
        load_table(&path, label, Scale::Range, &[])
    }

    #[test]
    fn the_last_column_is_the_label_unless_another_is_named() {
        let data = load("0,1,2\n4,2,0\n", None).unwrap();
        assert_eq!((data.labels(), data.classes()), (&[2, 0][..], 3));
        assert_eq!(data.images().as_slice().unwrap(), [0.0, 0.25, 1.0, 0.5]);
        let text = "class, width, height\nrose, 1, 2\nlily, 3, 5\nrose, 2, 2\n";
        let data = load(text, Some("class")).unwrap();
        assert_eq!((data.labels(), data.classes()), (&[1, 0, 1][..], 2));
        assert_eq!((data.features(), data.name()), (2, "iris"));
        assert_eq!(load(text, Some("0")).unwrap(), data);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_column() {
        let message = |text: &str, label| load(text, label).unwrap_err().to_string();
        assert!(message("1,2,0\n1,x,1\n", None).contains("line 2, column 1: `x`"));
        assert!(message("a,b\n1,0\nnan,1\n", None).contains("line 3, column 0: `nan`"));
        assert!(message("1,2,0\n1,2\n", None).contains("fields"));
        assert!(message("1,0\n2,1\n", Some("kind")).contains("no label column `kind`"));
        assert!(message("", None).contains("no line"));
        assert!(message("a,b\n", None).contains("no line after"));
        assert!(message("1,0\n2,\n", None).contains("line 2 has no label"));
        assert!(message("3,0\n3,1\n", None).contains("no range"));
        assert!(message("1,99999\n2,1\n", None).contains("is column 1 the label"));
        assert!(message("1,0.5\n2,1.5\n3,2.5\n", None).contains("different labels"));
    }
}
