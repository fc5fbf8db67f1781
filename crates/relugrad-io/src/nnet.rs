//! NNet text files: dense ReLU networks with normalised inputs and outputs, as those of ACAS Xu
//! (Julian, Lopez, Brush, Owen & Kochenderfer 2016; the format is that of the Stanford Intelligent
//! Systems Laboratory).
//!
//! After comments (lines that begin with `//`) come lines of numbers, separated by commas: the
//! number of layers, inputs and outputs and the largest layer; the widths of all layers, the inputs
//! first; a flag without meaning; the least and the largest value of each input; means and ranges
//! of each input, and one of each for all outputs; then for every layer the rows of its weight and
//! its biases, a line each.
//!
//! Programs write the four lines in other ways too. A line with a single 0 means no normalisation.
//! Means and ranges without the last number leave outputs as they are. Files of 2016 list numbers
//! for two inputs, which choose among networks, behind those of a network's own inputs.

use std::borrow::Cow;
use std::path::Path;

use ndarray::{Array1, Array2, ArrayD, IxDyn};
use relugrad::Builder;

use crate::error::{Error, Result};
use crate::file::read_file;
use crate::limits::{Budget, Limits};
use crate::model::{Metadata, Model};

/// Reads the network of an NNet file, normalisation included: inputs and outputs are in their own
/// units.
///
/// Evaluators of the format also move inputs into the box of their least and largest values; this
/// network does not.
///
/// # Errors
/// [`Error::Read`], [`Error::NotReadable`]; [`Error::NNet`], [`Error::Memory`] or
/// [`Error::Network`] within [`Error::InFile`].
pub fn load_nnet(path: impl AsRef<Path>) -> Result<Model> {
    let path = path.as_ref();
    let (bytes, budget) = read_file(path, |bytes, _| text(bytes).map(|_| ()))?;
    let read = text(&bytes).and_then(|text| read(&text, &budget));
    read.map_err(|problem| problem.in_file(path))
}

/// Reads the network of an NNet file's text.
///
/// # Errors
/// [`Error::NNet`], [`Error::Memory`], [`Error::Network`].
pub fn nnet_from_str(text: &str) -> Result<Model> {
    read(text, &Limits::of_process().budget(text.len() as u64))
}

/// The characters of a text file, which are those of ASCII but for the comments.
fn text(bytes: &[u8]) -> Result<Cow<'_, str>> {
    match bytes.iter().position(|&byte| byte == 0) {
        None => Ok(String::from_utf8_lossy(bytes)),
        Some(at) => Err(Error::NNet {
            line: 1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count(),
            problem: "it has a zero byte, so this is no text".into(),
        }),
    }
}

fn read(text: &str, budget: &Budget) -> Result<Model> {
    let mut lines = Lines {
        lines: text.lines().enumerate(),
        line: 0,
        budget,
    };
    let header = lines.sizes("the sizes", None)?;
    let &[layers, inputs, outputs, ..] = &header[..] else {
        return Err(lines.error("the number of layers, inputs and outputs is needed"));
    };
    let widths = lines.sizes("the widths of the layers", layers.checked_add(1))?;
    if layers == 0 || widths[0] != inputs || widths[layers] != outputs || widths.contains(&0) {
        return Err(
            lines.error("the widths do not go with the numbers of layers, inputs and outputs")
        );
    }
    lines.pay(&widths)?;
    lines.numbers("a flag", None)?;
    let mut notes =
        vec!["inputs are not moved into the box of their least and largest values".to_owned()];
    let listed = lines.bounds(inputs)?;
    if listed > inputs {
        notes.push(format!(
            "it has bounds, means and ranges of {listed} inputs, of which the first {inputs} are the network's"
        ));
    }
    let means = lines.normalisation("the means", inputs, listed, 0.0)?;
    let ranges = lines.normalisation("the ranges", inputs, listed, 1.0)?;
    if means.1 || ranges.1 {
        notes.push("it has no mean or range of the outputs, which are left as they are".to_owned());
    }
    let (means, ranges) = (means.0, ranges.0);
    if ranges.iter().any(|&range| range.recip().is_infinite()) {
        return Err(lines.error("a range is 0"));
    }
    let vector = |values: Vec<f64>| {
        ArrayD::from_shape_vec(IxDyn(&[values.len()]), values).expect("a vector")
    };
    let mut builder = Builder::new();
    let mut node = builder.input(inputs)?;
    node = builder.shift(
        node,
        vector(means[..inputs].iter().map(|m| -m).collect()),
        false,
    )?;
    node = builder.scale(
        node,
        vector(ranges[..inputs].iter().map(|r| r.recip()).collect()),
        false,
    )?;
    for (layer, pair) in widths.windows(2).enumerate() {
        let mut weight = Vec::new();
        for _ in 0..pair[1] {
            weight.extend(lines.numbers("a row of a weight", Some(pair[0]))?);
        }
        let weight = Array2::from_shape_vec((pair[1], pair[0]), weight).expect("rows were counted");
        let mut bias = Vec::new();
        for _ in 0..pair[1] {
            bias.extend(lines.numbers("a bias", Some(1))?);
        }
        node = builder.dense(node, weight, Some(Array1::from(bias)))?;
        if layer + 1 < layers {
            node = builder.relu(node)?;
        }
    }
    node = builder.scale(node, vector(vec![ranges[inputs]]), false)?;
    node = builder.shift(node, vector(vec![means[inputs]]), false)?;
    let network = builder.build(node)?;
    budget.values(&network)?;
    Ok(Model::own(network, Metadata::new(), notes))
}

/// The lines of numbers.
struct Lines<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    /// The line read last, from 1.
    line: usize,
    budget: &'a Budget,
}

impl Lines<'_> {
    /// Pays for the network before anything of it is made.
    fn pay(&self, widths: &[usize]) -> Result<()> {
        self.budget.nodes(2 * widths.len())?;
        for pair in widths.windows(2) {
            let what = || {
                format!(
                    "line {}: a layer of {} by {} weights",
                    self.line, pair[1], pair[0]
                )
            };
            // Once as they are read, once in the network.
            self.budget
                .array(&[pair[1], pair[0]], 2 * size_of::<f64>(), what)?;
        }
        // Means and ranges with their tables.
        let inputs = [widths[0]];
        self.budget.array(&inputs, 64, || {
            format!("line {}: {} inputs", self.line, widths[0])
        })?;
        Ok(())
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::NNet {
            line: self.line,
            problem: problem.into(),
        }
    }

    /// The finite numbers of the next line that has any, as many as `count`.
    fn numbers(&mut self, what: &str, count: Option<usize>) -> Result<Vec<f64>> {
        let full = |line: &&str| !line.is_empty() && !line.starts_with("//");
        let next = self.lines.find(|(_, line)| full(&line.trim()));
        let Some((line, text)) = next else {
            self.line += 1;
            return Err(self.error(format!(
                "the file ends where {what} should be; it is not whole"
            )));
        };
        self.line = line + 1;
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let number = |part: &str| match part.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.error(format!("`{part}` is no finite number"))),
        };
        let numbers = parts.map(number).collect::<Result<_>>()?;
        self.counted(what, numbers, count)
    }

    fn counted(&self, what: &str, numbers: Vec<f64>, count: Option<usize>) -> Result<Vec<f64>> {
        match count {
            Some(count) if numbers.len() != count => {
                let found = numbers.len();
                Err(self.error(format!(
                    "{what} should have {count} numbers but there are {found}"
                )))
            }
            _ => Ok(numbers),
        }
    }

    /// The least and the largest inputs, and of how many inputs they are.
    fn bounds(&mut self, inputs: usize) -> Result<usize> {
        let mut listed = inputs;
        for what in ["the least inputs", "the largest inputs"] {
            let numbers = self.numbers(what, None)?;
            match numbers[..] {
                [0.0] => {}
                _ if numbers.len() > inputs && what == "the least inputs" => listed = numbers.len(),
                _ => drop(self.counted(what, numbers, Some(listed))?),
            }
        }
        Ok(listed)
    }

    /// The means or ranges of the network's own inputs and of its outputs, where `listed` inputs
    /// have some, and whether those of the outputs were missing.
    fn normalisation(
        &mut self,
        what: &str,
        inputs: usize,
        listed: usize,
        idle: f64,
    ) -> Result<(Vec<f64>, bool)> {
        let mut numbers = self.numbers(what, None)?;
        if numbers == [0.0] && listed > 0 {
            return Ok((vec![idle; inputs + 1], false));
        }
        let missing = numbers.len() == listed;
        if missing {
            numbers.push(idle);
        }
        let mut numbers = self.counted(what, numbers, Some(listed + 1))?;
        numbers.drain(inputs..listed);
        Ok((numbers, missing))
    }

    /// Whole numbers of at least 0.
    fn sizes(&mut self, what: &str, count: Option<usize>) -> Result<Vec<usize>> {
        let whole = |v: f64| (v >= 0.0 && v.fract() == 0.0 && v < 1e9).then_some(v as usize);
        let numbers = self.numbers(what, count)?;
        let sizes: Option<Vec<usize>> = numbers.into_iter().map(whole).collect();
        sizes.ok_or_else(|| self.error(format!("{what} must be whole numbers below 10^9")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    const TEXT: &str = "// two inputs, two hidden units, one output\n2,2,1,2,\n2,2,1,\n0,\n-1,-1,\n1,1,\n0.5,0,10,\n\
        2,1,4,\n1,-1,\n0,2,\n0.25,\n0,\n1,0.5,\n-1,\n";

    #[test]
    fn normalisation_is_part_of_the_network() {
        let model = nnet_from_str(TEXT).unwrap();
        // x = (1.5, 1): normalised (0.5, 1), hidden relu(-0.25, 2) = (0, 2), output 0; then 4 · 0 +
        // 10.
        let f = model
            .network()
            .forward(array![[1.5, 1.0], [2.5, 0.0]].view());
        // x = (2.5, 0): normalised (1, 0), hidden (1.25, 0), output 0.25.
        assert_eq!(f.unwrap(), array![[10.0], [11.0]]);
    }

    /// Files in other dialects, each with what it gives at (1.5, 1).
    #[test]
    fn dialects_are_read() {
        let lines = "-1,-1,\n1,1,\n0.5,0,10,\n2,1,4,\n";
        for (dialect, expected, note) in [
            (
                "-1,-1,-5,\n1,1,5,\n0.5,0,7,10,\n2,1,3,4,\n",
                10.0,
                "of 3 inputs",
            ),
            (
                "-1,-1,-5,-6,\n1,1,5,6,\n0.5,0,7,8,10,\n2,1,3,9,4,\n",
                10.0,
                "of 4 inputs",
            ),
            ("0,\n0,\n0.5,0,10,\n2,1,4,\n", 10.0, "box"),
            // Without normalisation (1.5, 1) gives hidden (0.75, 2).
            ("0,\n0,\n0,\n0,\n", 0.0 + 0.75 + 0.5 * 2.0 - 1.0, "box"),
            ("-1,-1,\n1,1,\n0.5,0,\n2,1,\n", 0.0, "no mean or range"),
            ("-1,-1,\n1,1,\n0.5,0,\n2,1,4,\n", 0.0, "no mean or range"),
        ] {
            let model = nnet_from_str(&TEXT.replace(lines, dialect)).unwrap();
            let found = model.network().forward(array![[1.5, 1.0]].view()).unwrap();
            assert_eq!(found, array![[expected]], "{dialect}");
            let notes = model.notes().join("; ");
            assert!(notes.contains(note), "{dialect}: {notes}");
        }
        for broken in [
            "-1,\n1,1,\n0.5,0,10,\n2,1,4,\n",
            "-1,-1,\n1,\n0.5,0,10,\n2,1,4,\n",
            "-1,-1,\n1,1,\n0.5,\n2,1,4,\n",
            "-1,-1,\n1,1,1,\n0.5,0,10,\n2,1,4,\n",
            "-1,-1,\n1,1,\n0.5,0,7,10,\n2,1,3,4,\n",
        ] {
            let error = nnet_from_str(&TEXT.replace(lines, broken)).unwrap_err();
            assert!(
                error.to_string().contains("should have"),
                "{broken}: {error}"
            );
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let lines: Vec<&str> = TEXT.lines().collect();
        for end in 0..lines.len() {
            let cut = lines[..end].join("\n");
            assert!(
                matches!(nnet_from_str(&cut), Err(Error::NNet { .. })),
                "{end}"
            );
        }
        for (from, to) in [
            ("2,2,1,2,", "9,2,1,2,"),
            ("0,2,", "0,x,"),
            ("2,1,4,", "2,0,4,"),
            ("0.25,", "nan,"),
        ] {
            assert!(
                matches!(
                    nnet_from_str(&TEXT.replace(from, to)),
                    Err(Error::NNet { .. })
                ),
                "{from}"
            );
        }
        let huge = TEXT.replace("2,2,1,\n", "999999999,2,1,\n");
        assert!(matches!(nnet_from_str(&huge), Err(Error::NNet { .. })));
    }
    #[test]
    fn values_of_its_nodes_are_paid_last() {
        let within = |memory| {
            let memory = Some(memory);
            read(TEXT, &Limits { memory }.budget(0))
        };
        let needed = (0..1 << 20).find(|&memory| within(memory).is_ok()).unwrap();
        let error = within(needed - 1).unwrap_err().to_string();
        assert!(error.contains("13 values for one input"), "{error}");
    }
}
