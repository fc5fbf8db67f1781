//! Reading the golden cases, which an independent program made (`tests/golden/README.md`).

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use relugrad::{Builder, Direction, Gate, Loss, Network, NodeId, Penalty, Scalar, Targets};
use serde_json::Value;

/// One network with inputs, targets and expected values.
pub struct Case {
    /// The file's name.
    pub name: String,
    value: Value,
}

/// A penalty's expected values.
pub struct ExpectedPenalty {
    /// The penalty with the options that the case used.
    pub penalty: Penalty,
    /// Per sample.
    pub values: Vec<f64>,
    /// Gradient of the batch mean in all parameters.
    pub gradient: Vec<f64>,
}

/// Targets that own their numbers.
#[derive(Clone, Debug)]
pub enum OwnedTargets<T> {
    /// Class indices.
    Classes(Vec<usize>),
    /// Distributions.
    Probabilities(Array2<T>),
    /// Values.
    Values(Array2<T>),
}

impl<T: Scalar> OwnedTargets<T> {
    /// The targets as the engine takes them.
    pub fn view(&self) -> Targets<'_, T> {
        match self {
            OwnedTargets::Classes(labels) => Targets::Classes(labels),
            OwnedTargets::Probabilities(values) => Targets::Probabilities(values.view()),
            OwnedTargets::Values(values) => Targets::Values(values.view()),
        }
    }
}

/// All cases in the order of their names.
///
/// # Panics
/// If a file is missing or damaged.
pub fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/cases");
    let entries = fs::read_dir(&directory).expect("the golden cases are there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            value: serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap(),
        })
        .collect()
}

/// All numbers of a nested list, in row-major order; `null` is empty.
fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        Value::Null => Vec::new(),
        number => vec![number.as_f64().expect("a number")],
    }
}

fn matrix<T: Scalar>(value: &Value) -> Array2<T> {
    let rows = value.as_array().expect("a list of rows").len();
    let entries: Vec<T> = flat(value).into_iter().map(T::from_f64).collect();
    Array2::from_shape_vec((rows, entries.len() / rows), entries).expect("equal rows")
}

fn vector<T: Scalar>(value: &Value) -> Array1<T> {
    flat(value).into_iter().map(T::from_f64).collect()
}

impl Case {
    /// The network.
    ///
    /// # Panics
    /// If the file is damaged.
    pub fn network<T: Scalar>(&self) -> Network<T> {
        let network = &self.value["network"];
        let mut builder = Builder::new();
        let inputs = network["inputs"].as_u64().unwrap() as usize;
        let mut node = builder.input(inputs).unwrap();
        for layer in network["layers"].as_array().unwrap() {
            node = add_layer(&mut builder, node, layer);
        }
        builder.build(node).unwrap()
    }

    /// The loss.
    ///
    /// # Panics
    /// If the file is damaged.
    pub fn loss(&self) -> Loss {
        let loss = &self.value["loss"];
        match loss["kind"].as_str().unwrap() {
            "softmax_cross_entropy" => Loss::SoftmaxCrossEntropy {
                label_smoothing: loss["label_smoothing"].as_f64().unwrap(),
            },
            "logistic" => Loss::Logistic,
            "squared_error" => Loss::SquaredError,
            kind => panic!("no loss {kind}"),
        }
    }

    /// The targets.
    ///
    /// # Panics
    /// If the file is damaged.
    pub fn targets<T: Scalar>(&self) -> OwnedTargets<T> {
        let targets = self.value["targets"].as_object().unwrap();
        let (kind, value) = targets.iter().next().unwrap();
        match kind.as_str() {
            "classes" => {
                OwnedTargets::Classes(flat(value).into_iter().map(|y| y as usize).collect())
            }
            "probabilities" => OwnedTargets::Probabilities(matrix(value)),
            "values" => OwnedTargets::Values(matrix(value)),
            kind => panic!("no targets {kind}"),
        }
    }

    /// One of the matrices `inputs`, `tangent` and `cotangent`.
    ///
    /// # Panics
    /// If the file is damaged.
    pub fn array<T: Scalar>(&self, name: &str) -> Array2<T> {
        matrix(&self.value[name])
    }

    /// Expected numbers in row-major order.
    ///
    /// # Panics
    /// If the file is damaged.
    pub fn expected(&self, name: &str) -> Vec<f64> {
        let value = &self.value["expected"][name];
        assert!(value.is_array(), "no {name} in {}", self.name);
        flat(value)
    }

    /// All penalties of the case.
    ///
    /// # Panics
    /// If the file is damaged.
    pub fn penalties(&self) -> Vec<ExpectedPenalty> {
        let penalties = self.value["expected"]["penalties"].as_object().unwrap();
        let read = |(name, value): (&String, &Value)| ExpectedPenalty {
            penalty: match name.as_str() {
                "cure-gradient-held" => Penalty::Cure {
                    step: 1.5,
                    direction: Direction::Gradient { held: true },
                },
                name => name.parse().unwrap(),
            },
            values: flat(&value["values"]),
            gradient: flat(&value["gradient"]),
        };
        penalties.iter().map(read).collect()
    }
}

fn add_layer<T: Scalar>(builder: &mut Builder<T>, node: NodeId, layer: &Value) -> NodeId {
    let added = match layer["kind"].as_str().unwrap() {
        "dense" => {
            let bias = &layer["bias"];
            let bias = (!bias.is_null()).then(|| vector(bias));
            builder.dense(node, matrix(&layer["weight"]), bias)
        }
        "relu" => builder.relu(node),
        "leaky_relu" => builder.gate(
            node,
            Gate::LeakyRelu {
                slope: layer["slope"].as_f64().unwrap(),
            },
        ),
        "prelu" => builder.prelu(node, vector(&layer["slope"])),
        "abs" => builder.gate(node, Gate::Abs),
        kind => panic!("no layer {kind}"),
    };
    added.unwrap()
}
