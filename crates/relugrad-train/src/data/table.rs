//! Samples in a table of comma-separated values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use csv::StringRecord;
use ndarray::Array2;
use relugrad_io::Budget;

use super::file::{DataFile, read_error};
use super::reading::{compact, label_texts};
use super::{Bounds, Dataset, Reading, Scale, Truth};
use crate::error::{Error, Result};
use crate::spec::did_you_mean;

/// What a cell takes: its number and its feature.
const CELL: u64 = (size_of::<f64>() + size_of::<f32>()) as u64;

/// What a label takes besides its characters.
const LABEL: u64 = 64;

/// Which columns of a table are no features: names, or numbers from 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Columns<'a> {
    /// That of the classes.
    pub(super) label: Option<&'a str>,
    /// Those of the values to regress to.
    pub(super) targets: &'a [String],
    /// That of the weights.
    pub(super) weight: Option<&'a str>,
}

/// Reads a table with one sample in each line: its features, its class or its values, and perhaps
/// its weight.
///
/// A first line with a cell that is no number (besides the label's) gives the columns their names.
/// Without a column of labels or targets the last one is taken, for values if they are numbers of
/// which not all are whole, and else for classes. Labels are numbered from 0 in their order, of whole
/// numbers or of the alphabet. A name that ends in `.gz` is
/// decompressed.
pub(super) fn load_table(
    path: &Path,
    columns: Columns,
    scale: Scale,
    shape: &[usize],
) -> Result<Dataset> {
    let (reader, budget) = DataFile::open(path)?.stream(1);
    let mut table = Table::read(path, reader.lines(), &budget, columns)?;
    if table.features == 0 {
        let text = "it has no features besides labels, targets and weights";
        return Err(problem(path, text));
    }
    let map = scale.map(path, false, table.values.iter().copied())?;
    let values = table.values.iter().map(|&value| map.apply(value)).collect();
    let images = Array2::from_shape_vec((table.lines, table.features), values);
    let images = images.expect("whole lines");
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = file.split('.').next().unwrap_or("table");
    let shape = match shape.is_empty() {
        true => vec![table.features],
        false => shape.to_vec(),
    };
    if columns.label.is_none() && columns.targets.is_empty() {
        table.take_reals(path)?;
    }
    let weights = std::mem::take(&mut table.weights);
    let mut reading = Reading {
        scale: map.ends(),
        ..Reading::default()
    };
    let truth = match table.roles.label {
        Some(column) => {
            let (labels, classes, texts) = table.classes(path, column)?;
            reading.labels = texts;
            (Truth::Classes(labels), classes)
        }
        None => {
            let width = table.targets.len() / table.lines;
            let values = Array2::from_shape_vec((table.lines, width), table.targets);
            (Truth::Values(values.expect("whole lines")), 0)
        }
    };
    let data = Dataset::bounded(name, images, truth, shape, Bounds::none())?;
    Ok(data.with_weights(weights)?.read_as(reading))
}

/// What the columns are that are no features.
struct Roles {
    label: Option<usize>,
    targets: Vec<usize>,
    weight: Option<usize>,
}

/// The numbers of a file.
struct Table {
    /// Number of lines with numbers.
    lines: usize,
    /// All features, line after line.
    values: Vec<f64>,
    /// How many of them a line has.
    features: usize,
    /// The label of every line.
    labels: Vec<Box<str>>,
    /// All values to regress to, line after line.
    targets: Vec<f64>,
    /// The weight of every line.
    weights: Vec<f64>,
    roles: Roles,
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
        if let csv::ErrorKind::Io(error) = error.into_kind() {
            return read_error(path, error);
        }
        problem(path, text)
    })
}

impl Table {
    fn read(path: &Path, reader: impl Read, budget: &Budget, columns: Columns) -> Result<Table> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .trim(csv::Trim::All)
            .from_reader(reader);
        let mut line = StringRecord::new();
        if !next(path, &mut reader, &mut line)? {
            return Err(problem(path, "it has no line"));
        }
        // A header has names for features; a line of data has numbers for all but, perhaps, its
        // label.
        let words = line.iter().filter(|cell| number(cell).is_none()).count();
        let named = words > 1 || (words == 1 && line.len() == 1);
        let roles = Roles::find(path, &line, named, columns)?;
        let mut table = Table {
            lines: 0,
            values: Vec::new(),
            features: line.len() - roles.count(),
            labels: Vec::new(),
            targets: Vec::new(),
            weights: Vec::new(),
            roles,
            named,
        };
        if !named {
            table.add(path, &line, budget)?;
        }
        while next(path, &mut reader, &mut line)? {
            table.add(path, &line, budget)?;
        }
        match table.lines {
            0 => Err(problem(
                path,
                "it has no line after the names of its columns",
            )),
            _ => Ok(table),
        }
    }

    /// The number in the file of the line that was or will be the `index`-th of numbers.
    fn place(&self, index: usize) -> usize {
        index + 1 + usize::from(self.named)
    }

    /// Adds a line of numbers.
    fn add(&mut self, path: &Path, line: &StringRecord, budget: &Budget) -> Result<()> {
        let label = self.roles.label.map_or("", |column| &line[column]);
        let what = || "its numbers".to_owned();
        let paid = budget.take(CELL * line.len() as u64 + LABEL + label.len() as u64, what);
        paid.map_err(|error| error.in_file(path))?;
        let place = self.place(self.lines);
        if self.roles.label.is_some() {
            if label.is_empty() {
                return Err(problem(path, format!("line {place} has no label")));
            }
            self.labels.push(label.into());
        }
        for (column, cell) in line.iter().enumerate() {
            if self.roles.label == Some(column) {
                continue;
            }
            let value = number(cell).ok_or_else(|| not_finite(path, place, column, cell))?;
            if self.roles.weight == Some(column) {
                if value < 0.0 {
                    let text =
                        format!("line {place}, column {column}: the weight {value} is negative");
                    return Err(problem(path, text));
                }
                self.weights.push(value);
            } else if !self.roles.targets.contains(&column) {
                self.values.push(value);
            }
        }
        // In the order in which the columns were named.
        let targets = self.roles.targets.iter();
        self.targets
            .extend(targets.filter_map(|&column| number(&line[column])));
        self.lines += 1;
        Ok(())
    }

    /// Takes labels for values if they are numbers of which not all are whole.
    fn take_reals(&mut self, path: &Path) -> Result<()> {
        let (Some(column), cells) = (self.roles.label, self.labels.iter()) else {
            return Ok(());
        };
        let numbers: Option<Vec<f64>> = cells.map(|cell| cell.parse().ok()).collect();
        let broken = |value: &f64| value.is_finite() && value.fract() != 0.0;
        let Some(numbers) = numbers.filter(|numbers| numbers.iter().any(broken)) else {
            return Ok(());
        };
        if let Some(i) = numbers.iter().position(|value| !value.is_finite()) {
            return Err(not_finite(path, self.place(i), column, &self.labels[i]));
        }
        self.targets = numbers;
        self.roles.label = None;
        Ok(())
    }

    /// The class of every line, the number of classes, and their labels unless these are their
    /// numbers.
    fn classes(&self, path: &Path, column: usize) -> Result<(Vec<usize>, usize, Vec<String>)> {
        let lines = self.labels.len();
        let indices: Option<Vec<usize>> =
            self.labels.iter().map(|cell| cell.parse().ok()).collect();
        if let Some(labels) = indices {
            let largest = labels.iter().max().copied().unwrap_or(0);
            let (classes, known) = compact(&labels);
            if largest >= lines.max(1000) && known.len() * 2 > lines {
                let text = format!(
                    "its {lines} lines have {} different labels up to {largest}; is column {column} the label? Values to \
                     regress to are named by target-columns",
                    known.len()
                );
                return Err(problem(path, text));
            }
            return Ok((classes, known.len(), label_texts(&known)));
        }
        let mut names: BTreeMap<&str, usize> =
            self.labels.iter().map(|name| (&**name, 0)).collect();
        if names.len() > 2 && names.len() * 2 > lines {
            return Err(problem(
                path,
                format!(
                    "its {lines} lines have {} different labels, such as `{}`; name the right column, or, if these are values to \
                     regress to, name it by target-columns",
                    names.len(),
                    short(&self.labels[0])
                ),
            ));
        }
        let numbers = names.values_mut().enumerate();
        numbers.for_each(|(i, number)| *number = i);
        let labels = self.labels.iter().map(|name| names[&**name]);
        let texts = names.keys().map(|&name| name.to_owned()).collect();
        Ok((labels.collect(), names.len(), texts))
    }
}

fn not_finite(path: &Path, line: usize, column: usize, cell: &str) -> Error {
    let cell = short(cell);
    let text = format!("line {line}, column {column}: `{cell}` is no finite number");
    problem(path, text)
}

impl Roles {
    /// The columns by what was said of them, among those of the first line.
    fn find(path: &Path, first: &StringRecord, named: bool, columns: Columns) -> Result<Roles> {
        let find = |what: &str, name: &str| find(path, first, named, what, name);
        let weight = columns
            .weight
            .map(|name| find("weight", name))
            .transpose()?;
        let targets = columns.targets.iter().map(|name| find("target", name));
        let targets: Vec<usize> = targets.collect::<Result<_>>()?;
        let last = (0..first.len()).rfind(|&column| weight != Some(column));
        let label = match columns.label {
            Some(name) => Some(find("label", name)?),
            None if targets.is_empty() => last,
            None => None,
        };
        let roles = Roles {
            label,
            targets,
            weight,
        };
        let mut all: Vec<usize> = roles.targets.clone();
        all.extend(roles.label.iter().chain(&roles.weight));
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(roles),
            Some(pair) => Err(problem(
                path,
                format!(
                    "column {} is named twice, as label, target or weight",
                    pair[0]
                ),
            )),
        }
    }

    /// How many columns are no features.
    fn count(&self) -> usize {
        let single = [self.label, self.weight];
        self.targets.len() + single.into_iter().flatten().count()
    }
}

/// The column of a name or a number.
fn find(path: &Path, first: &StringRecord, named: bool, what: &str, text: &str) -> Result<usize> {
    let columns = first.len();
    let by_name = || first.iter().position(|name| named && name == text);
    let by_number = || {
        let number = text.parse().ok();
        number.filter(|&column: &usize| column < columns)
    };
    by_name().or_else(by_number).ok_or_else(|| {
        let names = match named {
            true if columns > 20 => "too many to be listed".into(),
            true => first.iter().map(short).collect::<Vec<_>>().join(", "),
            false => "without names".into(),
        };
        let near = did_you_mean(text, first.iter().filter(|_| named && columns > 1));
        let near = near.starts_with("did").then_some(format!("; {near}"));
        problem(
            path,
            format!(
                "it has no {what} column `{text}`; its {columns} columns are {names}{}",
                near.unwrap_or_default()
            ),
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
        let columns = Columns {
            label,
            ..Columns::default()
        };
        load_table(&path, columns, Scale::Range, &[])
    }

    fn regression(text: &str, targets: &[&str], weight: Option<&str>) -> Result<Dataset> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prices.csv");
        std::fs::write(&path, text).unwrap();
        let targets: Vec<String> = targets.iter().map(|name| (*name).to_owned()).collect();
        let columns = Columns {
            label: None,
            targets: &targets,
            weight,
        };
        load_table(&path, columns, Scale::Range, &[])
    }

    #[test]
    fn the_last_column_is_the_label_unless_another_is_named() {
        let data = load("0,1,2\n4,2,0\n", None).unwrap();
        assert_eq!((data.labels(), data.classes()), (&[1, 0][..], 2));
        assert_eq!(data.reading().labels, ["0", "2"]);
        assert_eq!(data.images().as_slice().unwrap(), [0.0, 0.25, 1.0, 0.5]);
        let text = "class, width, height\nrose, 1, 2\nlily, 3, 5\nrose, 2, 2\n";
        let data = load(text, Some("class")).unwrap();
        assert_eq!((data.labels(), data.classes()), (&[1, 0, 1][..], 2));
        assert_eq!(data.reading().labels, ["lily", "rose"]);
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
        assert!(message("1,0.5\n2,1.5\n3,2.5\n", Some("1")).contains("different labels"));
    }

    #[test]
    fn numbers_that_are_not_whole_are_values() {
        let data = load("1,0.5\n2,-1.5\n3,2\n", None).unwrap();
        assert_eq!((data.classes(), data.features()), (0, 1));
        assert_eq!(data.values().unwrap().as_slice().unwrap(), [0.5, -1.5, 2.0]);
        let error = load("1,0.5\n2,nan\n", None).unwrap_err().to_string();
        assert!(error.contains("line 2, column 1: `nan`"), "{error}");
    }

    #[test]
    fn targets_and_weights_are_columns_of_any_place() {
        let text = "a,up,w,down,b\n0,1,1,2,1\n1,3,0.5,4,0\n";
        let data = regression(text, &["down", "up"], Some("w")).unwrap();
        assert_eq!(
            data.values().unwrap().as_slice().unwrap(),
            [2.0, 1.0, 4.0, 3.0]
        );
        assert_eq!((data.features(), data.weights()), (2, &[1.0, 0.5][..]));
        assert_eq!(data, regression(text, &["3", "1"], Some("2")).unwrap());
        let classes = regression("0,1,2\n3,0,1\n", &[], Some("2")).unwrap();
        assert_eq!(
            (classes.labels(), classes.weights()),
            (&[1, 0][..], &[2.0, 1.0][..])
        );
    }

    #[test]
    fn wrong_targets_and_weights_are_named() {
        let text = "a,b,y,w\n0,1,1,2\n1,3,0.5,-4\n";
        let message =
            |targets: &[&str], weight| regression(text, targets, weight).unwrap_err().to_string();
        assert!(message(&["y"], Some("w")).contains("line 3, column 3: the weight -4 is negative"));
        assert!(message(&["y", "2"], None).contains("column 2 is named twice"));
        assert!(message(&["yy"], None).contains("no target column `yy`"));
        assert!(message(&["a", "b", "y", "w"], None).contains("no features"));
    }
}
