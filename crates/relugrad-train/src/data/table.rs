//! Samples in a table of comma-separated values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use csv::StringRecord;
use ndarray::Array2;
use relugrad_io::Budget;

use super::file::{DataFile, read_error};
use super::{Dataset, Scale};
use crate::error::{Error, Result};

/// What a cell takes: its number and its feature.
const CELL: u64 = (size_of::<f64>() + size_of::<f32>()) as u64;

/// What a label takes besides its characters.
const LABEL: u64 = 64;

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
    let (reader, budget) = DataFile::open(path)?.stream(1);
    let table = Table::read(path, reader.lines(), &budget, label)?;
    let (labels, classes) = table.classes(path)?;
    let map = scale.map(path, false, table.values.iter().copied())?;
    let values = table.values.iter().map(|&value| map.apply(value)).collect();
    let images = Array2::from_shape_vec((labels.len(), table.features), values);
    let images = images.expect("whole lines");
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = file.split('.').next().unwrap_or("table");
    let shape = if shape.is_empty() {
        vec![table.features]
    } else {
        shape.to_vec()
    };
    Dataset::new(name, images, labels, classes, shape)
}

/// The numbers of a file.
struct Table {
    /// All features, line after line.
    values: Vec<f64>,
    /// How many of them a line has.
    features: usize,
    /// The label of every line.
    labels: Vec<Box<str>>,
    /// The column that they are from.
    column: usize,
    /// Whether a line with the names of the columns comes first.
    named: bool,
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

/// So much of a cell as a message shows.
fn short(cell: &str) -> Cow<'_, str> {
    match cell.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &cell[..end]).into(),
        None => cell.into(),
    }
}

/// The next line of the table, if there is one.
fn next(path: &Path, reader: &mut csv::Reader<impl Read>, line: &mut StringRecord) -> Result<bool> {
    reader.read_record(line).map_err(|error| {
        let text = error.to_string();
        match error.into_kind() {
            csv::ErrorKind::Io(error) => read_error(path, error),
            _ => problem(path, text),
        }
    })
}

impl Table {
    fn read(path: &Path, reader: impl Read, budget: &Budget, label: Option<&str>) -> Result<Table> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .trim(csv::Trim::All)
            .from_reader(reader);
        let mut line = StringRecord::new();
        if !next(path, &mut reader, &mut line)? {
            return Err(problem(path, "it has no line"));
        }
        // A header has names for features; a line of data has numbers for all but, perhaps, its label.
        let words = line.iter().filter(|cell| number(cell).is_none()).count();
        let named = words > 1 || (words == 1 && line.len() == 1);
        let column = label_column(path, &line, named, label)?;
        let mut table = Table {
            values: Vec::new(),
            features: line.len() - 1,
            labels: Vec::new(),
            column,
            named,
        };
        if !named {
            table.add(path, &line, budget)?;
        }
        while next(path, &mut reader, &mut line)? {
            table.add(path, &line, budget)?;
        }
        match table.labels.is_empty() {
            true => Err(problem(
                path,
                "it has no line after the names of its columns",
            )),
            false => Ok(table),
        }
    }

    /// Adds a line of numbers.
    fn add(&mut self, path: &Path, line: &StringRecord, budget: &Budget) -> Result<()> {
        let label = &line[self.column];
        let cells = CELL * self.features as u64;
        let what = || "its numbers".to_owned();
        let paid = budget.take(cells + LABEL + label.len() as u64, what);
        paid.map_err(|error| error.in_file(path))?;
        let place = self.labels.len() + 1 + usize::from(self.named);
        for (column, cell) in line.iter().enumerate().filter(|(c, _)| *c != self.column) {
            let value = number(cell).ok_or_else(|| {
                let cell = short(cell);
                let text = format!("line {place}, column {column}: `{cell}` is no finite number");
                problem(path, text)
            })?;
            self.values.push(value);
        }
        if label.is_empty() {
            return Err(problem(path, format!("line {place} has no label")));
        }
        self.labels.push(label.into());
        Ok(())
    }

    /// The class of every line, and the number of classes.
    fn classes(&self, path: &Path) -> Result<(Vec<usize>, usize)> {
        let lines = self.labels.len();
        let indices: Option<Vec<usize>> =
            self.labels.iter().map(|cell| cell.parse().ok()).collect();
        if let Some(labels) = indices {
            let largest = labels.iter().max().copied().unwrap_or(0);
            if largest >= lines.max(1000) {
                let text = format!(
                    "its largest label is {largest}, more than it has lines; is column {} the label?",
                    self.column
                );
                return Err(problem(path, text));
            }
            return Ok((labels, 1 + largest));
        }
        let mut names: BTreeMap<&str, usize> =
            self.labels.iter().map(|name| (&**name, 0)).collect();
        if names.len() > 2 && names.len() * 2 > lines {
            return Err(problem(
                path,
                format!(
                    "its {lines} lines have {} different labels, such as `{}`; name the right column",
                    names.len(),
                    short(&self.labels[0])
                ),
            ));
        }
        let numbers = names.values_mut().enumerate();
        numbers.for_each(|(i, number)| *number = i);
        let labels = self.labels.iter().map(|name| names[&**name]);
        Ok((labels.collect(), names.len()))
    }
}

/// The column of the labels, among those of the first line.
fn label_column(
    path: &Path,
    first: &StringRecord,
    named: bool,
    label: Option<&str>,
) -> Result<usize> {
    let columns = first.len();
    let Some(label) = label else {
        return Ok(columns - 1);
    };
    let by_name = || first.iter().position(|name| named && name == label);
    let by_number = || {
        label
            .parse()
            .ok()
            .filter(|&column: &usize| column < columns)
    };
    by_name().or_else(by_number).ok_or_else(|| {
        let names = match named {
            true if columns > 20 => "too many to be listed".into(),
            true => first.iter().map(short).collect::<Vec<_>>().join(", "),
            false => "without names".into(),
        };
        problem(
            path,
            format!("it has no label column `{label}`; its {columns} columns are {names}"),
        )
    })
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
    fn a_line_without_end_names_the_option() {
        let error = load(&"1,".repeat(9 << 20), None).unwrap_err().to_string();
        assert!(error.contains("iris.csv: a line has"), "{error}");
        assert!(error.contains("--file-memory SIZE allows more"), "{error}");
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
