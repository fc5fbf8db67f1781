//! Weights alone: the `state_dict` of a PyTorch module in a safetensors file.
//!
//! Modules without parameters (gates, pooling) have no entry, so the file says which module a
//! tensor belongs to, but not what the modules are; the network must be given. Nor does it say in
//! which order they are computed. So modules are taken in the order of their names, numbers in them
//! counting as such, and each layer gets the first one that is left whose tensors have its shapes.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayD;
use relugrad::{Constant, Network, Node, Operation, ParameterInfo};

use crate::error::{Error, Result};
use crate::file::read_file;
use crate::format::check_pickled;
use crate::formula::{Formula, Formulas, Rates, Term};
use crate::limits::{Budget, Limits};
use crate::model::{FileGradients, Model};
use crate::native::{is_single, looks_right, tensors};

/// What PyTorch adds to the variance unless told otherwise; the file does not say.
const EPSILON: f64 = 1e-5;

/// The tensors of a module by their last names, such as `weight`.
type Arrays = BTreeMap<String, ArrayD<f64>>;

/// The weights of modules, such as `0.weight`, `0.bias`, `3.weight` of a sequence, or
/// `module.fc1.weight`.
#[derive(Clone, Debug)]
pub struct StateDict {
    /// The modules in the order of their names.
    modules: Vec<Module>,
    single: bool,
}

/// A module with its tensors.
#[derive(Clone, Debug)]
struct Module {
    name: String,
    arrays: Arrays,
}

impl StateDict {
    /// Reads a safetensors file without relugrad's graph.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Pickled`], and what is wrong with the file within
    /// [`Error::InFile`].
    pub fn load(path: impl AsRef<Path>) -> Result<StateDict> {
        let path = path.as_ref();
        check_pickled(path)?;
        let (bytes, budget) = read_file(path, looks_right)?;
        StateDict::read(&bytes, &budget).map_err(|problem| problem.in_file(path))
    }

    /// Reads the bytes of such a file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<StateDict> {
        StateDict::read(bytes, &Limits::of_process().budget(bytes.len() as u64))
    }

    fn read(bytes: &[u8], budget: &Budget) -> Result<StateDict> {
        let counts = |name: &str| name.ends_with("num_batches_tracked");
        let mut modules: BTreeMap<Vec<Piece>, Module> = BTreeMap::new();
        for (name, values) in tensors(bytes, budget, |name| !counts(name))? {
            let (module, array) = name.rsplit_once('.').unwrap_or(("", &name));
            let entry = modules.entry(pieces(module)).or_insert_with(|| Module {
                name: module.to_owned(),
                arrays: BTreeMap::new(),
            });
            entry.arrays.insert(array.to_owned(), values);
        }
        Ok(StateDict {
            modules: modules.into_values().collect(),
            single: is_single(bytes, budget, |name| !counts(name))?,
        })
    }

    /// How many logits the modules may give: the rows of weights with two axes, those of the last
    /// names first, each number once.
    ///
    /// # Errors
    /// [`Error::State`] if there is no such weight.
    pub fn outputs(&self) -> Result<Vec<usize>> {
        let mut outputs = Vec::new();
        for module in self.modules.iter().rev() {
            if let Some(&[rows, _]) = module.arrays.get("weight").map(ArrayD::shape)
                && !outputs.contains(&rows)
            {
                outputs.push(rows);
            }
        }
        match outputs.is_empty() {
            true => Err(state("there is no layer with a weight matrix")),
            false => Ok(outputs),
        }
    }

    /// The network with these weights in place of its own, module after module; the notes say which
    /// module went where, unless they are numbered in the order of the layers.
    ///
    /// Batch normalisation becomes the factor and summand that its statistics, weight and bias
    /// make, with the epsilon of 1e-5 that PyTorch has by default; gradients go back to all four.
    /// All four must be in the file, and the network's own normalisation must be by mean 0 and
    /// variance 1, as descriptions make it.
    ///
    /// # Errors
    /// [`Error::State`] naming the tensor and the layer that do not go together.
    pub fn into_model(self, mut network: Network<f64>) -> Result<Model> {
        let nodes: Vec<Node> = network.nodes().to_vec();
        let mut left = self.modules;
        let (mut weights, mut notes) = (Vec::new(), Vec::new());
        let mut formulas = Formulas::default();
        let mut mapping = Mapping::default();
        for node in &nodes {
            let infos: Vec<_> = network.parameters_of(node).cloned().collect();
            if infos.is_empty() {
                continue;
            }
            if left.is_empty() {
                return Err(state(format!(
                    "there is no module left for the layer `{}`",
                    node.name()
                )));
            }
            let fitting = |module: &&Module| fits(node, &infos, &module.arrays);
            mapping.add(node, left.iter().filter(fitting));
            // If none fits, the first one says why not.
            let place = left.iter().position(|module| fitting(&module));
            let Module {
                name: module,
                mut arrays,
            } = left.remove(place.unwrap_or(0));
            let mut made = [None, None];
            if let Operation::BatchNorm { .. } = node.operation() {
                check_plain(node)?;
                made = normalise(&module, &mut arrays, &mut formulas)?.map(Some);
                notes.push(format!(
                    "epsilon of the batch normalisation `{module}` is taken to be {EPSILON}"
                ));
            }
            for ((info, name), made) in infos.iter().zip(NAMES).zip(made) {
                let tensor = called(&module, name);
                let values = arrays.remove(name).ok_or_else(|| {
                    state(format!(
                        "there is no tensor `{tensor}` for `{}`",
                        info.name()
                    ))
                })?;
                let places = places(values.shape(), info.shape(), is_prelu(node));
                let places = places.ok_or_else(|| {
                    state(format!(
                        "tensor `{tensor}` has shape {:?} but `{}` of the model has {:?}",
                        values.shape(),
                        info.name(),
                        info.shape()
                    ))
                })?;
                let flat: Vec<f64> = values.iter().copied().collect();
                let to = &mut network.parameters_mut().values_mut()[info.range()];
                to.iter_mut()
                    .zip(&places)
                    .for_each(|(to, &place)| *to = flat[place as usize]);
                weights.push(made.or_else(|| {
                    let array = formulas.array(&tensor, values.shape());
                    let term = Term::picked(array, Some(places.as_slice().into()));
                    formulas.sum(places.len(), vec![term])
                }));
            }
            if let Some(name) = arrays.keys().next() {
                return Err(state(format!(
                    "no part of the layer `{}` is made of `{}`",
                    node.name(),
                    called(&module, name)
                )));
            }
        }
        if let Some(module) = left.first() {
            return Err(state(format!(
                "the model has no layer for the module `{}`",
                module.name
            )));
        }
        notes.extend(mapping.notes());
        let gradients = FileGradients::new(formulas, weights, &[], &[]);
        Ok(Model::new(network, gradients, notes).of_precision(self.single))
    }
}

/// The tensors of a layer, in the order of its parameters.
const NAMES: [&str; 2] = ["weight", "bias"];

/// A part of a module's name, by which names are ordered: numbers before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Number(u128, String),
    Word(String),
}

/// A name as words and numbers, so that `fc10` comes after `fc2`.
fn pieces(name: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let digit = first.is_ascii_digit();
        let end = rest
            .find(|c: char| c.is_ascii_digit() != digit)
            .unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        pieces.push(match piece.parse() {
            Ok(number) if digit => Piece::Number(number, piece.to_owned()),
            _ => Piece::Word(piece.to_owned()),
        });
    }
    pieces
}

/// The name of a tensor of a module.
fn called(module: &str, array: &str) -> String {
    match module {
        "" => array.to_owned(),
        module => format!("{module}.{array}"),
    }
}

fn is_prelu(node: &Node) -> bool {
    matches!(node.gate(), Some(relugrad::Gate::PRelu { .. }))
}

/// Whether a module has the tensors of a layer, in its shapes, and no other.
fn fits(node: &Node, infos: &[ParameterInfo], arrays: &Arrays) -> bool {
    let normalisation = matches!(node.operation(), Operation::BatchNorm { .. });
    let statistics = usize::from(normalisation) * STATISTICS.len();
    let shaped = |(info, name): (&ParameterInfo, &str)| {
        let array = arrays.get(name);
        array.is_some_and(|array| places(array.shape(), info.shape(), is_prelu(node)).is_some())
    };
    arrays.len() == infos.len() + statistics && infos.iter().zip(NAMES).all(shaped)
}

/// Which modules have become which layers.
#[derive(Default)]
struct Mapping {
    pairs: Vec<String>,
    /// Layers for which there was another module, called otherwise.
    unclear: Vec<String>,
    /// Whether all modules so far are numbered one behind the other.
    numbered: bool,
    last: Option<Vec<Piece>>,
}

impl Mapping {
    /// A layer with the modules that fit it, of which the first is taken.
    fn add<'m>(&mut self, node: &Node, mut fitting: impl Iterator<Item = &'m Module>) {
        let Some(taken) = fitting.next() else { return };
        let order = pieces(&taken.name);
        let plain = taken.name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let behind = self.last.as_ref().is_none_or(|last| *last < order);
        self.numbered = plain && behind && (self.numbered || self.last.is_none());
        self.last = Some(order);
        self.pairs.push(format!("{} = {}", node.name(), taken.name));
        let words = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
        if let Some(other) = fitting.find(|other| words(&other.name) != words(&taken.name)) {
            self.unclear.push(format!(
                "{} ({} or {})",
                node.name(),
                taken.name,
                other.name
            ));
        }
    }

    fn notes(self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.numbered && !self.pairs.is_empty() {
            notes.push(format!(
                "the layers have the weights {}",
                self.pairs.join(", ")
            ));
        }
        if !self.unclear.is_empty() {
            notes.push(format!(
                "several modules have the shapes of {}; the first by name is taken, so rename the tensors if that is wrong",
                self.unclear.join(", ")
            ));
        }
        notes
    }
}

/// The further tensors of a batch normalisation.
const STATISTICS: [&str; 2] = ["running_mean", "running_var"];

/// Refuses a batch normalisation with statistics of its own, which would come on top of the file's.
fn check_plain(node: &Node) -> Result<()> {
    let plain = |constant: &Constant| {
        let value = f64::from(u8::from(constant.name() == "variance"));
        constant.values().iter().all(|&v| v == value)
    };
    let epsilon =
        matches!(node.operation(), Operation::BatchNorm { epsilon, .. } if *epsilon == 0.0);
    match epsilon && node.constants().iter().all(plain) {
        true => Ok(()),
        false => Err(state(format!(
            "the batch normalisation `{}` of the model has statistics of its own; give it mean 0, variance 1 and epsilon 0",
            node.name()
        ))),
    }
}

/// Replaces weight and bias of a batch normalisation by factor and summand of the map with its
/// statistics, `f = w/√(v + ε)` and `s = b − f m`, and returns their formulas.
fn normalise(module: &str, arrays: &mut Arrays, formulas: &mut Formulas) -> Result<[Formula; 2]> {
    let mut take = |name: &str| {
        let found = arrays.remove(name);
        found.ok_or_else(|| {
            state(format!(
                "there is no tensor `{}` of a batch normalisation",
                called(module, name)
            ))
        })
    };
    let [weight, bias, mean, variance] =
        ["weight", "bias", "running_mean", "running_var"].map(&mut take);
    let (weight, bias, mean, variance) = (weight?, bias?, mean?, variance?);
    let lengths = [&weight, &bias, &mean, &variance].map(|array| array.shape().to_vec());
    if lengths.iter().any(|length| *length != lengths[0]) {
        return Err(state(format!(
            "the tensors of the batch normalisation `{module}` have shapes {lengths:?}"
        )));
    }
    if variance.iter().any(|&v| v < 0.0) {
        return Err(state(format!(
            "`{module}.running_var` has a negative entry"
        )));
    }
    let [weight_of, bias_of, mean_of, variance_of] =
        ["weight", "bias", "running_mean", "running_var"]
            .map(|name| formulas.array(&called(module, name), mean.shape()));
    let inverse = variance.mapv(|v| 1.0 / (v + EPSILON).sqrt());
    let factor = weight * &inverse;
    let summand = bias - &factor * &mean;
    let by_variance = &factor * &inverse * &inverse * -0.5;
    let term = |of, rates: ArrayD<f64>| {
        let rates = Rates::Each(rates.iter().copied().collect());
        Term::rated(of, None, None, rates)
    };
    let factors = vec![
        term(weight_of, inverse.clone()),
        term(variance_of, by_variance.clone()),
    ];
    let summands = vec![
        Term::picked(bias_of, None),
        term(weight_of, -&inverse * &mean),
        term(mean_of, -&factor),
        term(variance_of, -by_variance * &mean),
    ];
    let sums = [factors, summands].map(|terms| formulas.sum(factor.len(), terms));
    arrays.insert("weight".into(), factor);
    arrays.insert("bias".into(), summand);
    Ok(sums.map(|sum| sum.expect("there are terms")))
}

/// The entry of an array of shape `from` that each entry of `to` is; slopes may be shared by all
/// units or by those of a channel.
fn places(from: &[usize], to: &[usize], prelu: bool) -> Option<Vec<u32>> {
    let count: usize = to.iter().product();
    if from == to {
        return Some((0..count as u32).collect());
    }
    match from {
        [1] if prelu => Some(vec![0; count]),
        [channels] if prelu && to.first() == Some(channels) => {
            let each = count / channels;
            Some((0..count).map(|i| (i / each) as u32).collect())
        }
        _ => None,
    }
}

fn state(problem: impl Into<String>) -> Error {
    Error::State {
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use relugrad::{BatchNorm, Builder, Gate, Mlp};

    /// A safetensors file of `f64` tensors.
    fn file(tensors: &[(&str, &[usize], &[f64])]) -> Vec<u8> {
        let (mut header, mut data) = (Vec::new(), Vec::<u8>::new());
        for (name, shape, values) in tensors {
            let start = data.len();
            data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            let end = data.len();
            header.push(format!(
                r#""{name}":{{"dtype":"F64","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
            ));
        }
        let header = format!("{{{}}}", header.join(","));
        [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            &data,
        ]
        .concat()
    }

    fn network() -> Network<f64> {
        Mlp::new(&[2, 2, 1])
            .gate(Gate::PRelu { initial: 0.0 })
            .build(0)
            .unwrap()
    }

    /// Module 10 comes after module 2, though not in the order of letters.
    const TENSORS: [(&str, &[usize], &[f64]); 5] = [
        ("10.bias", &[1], &[7.0]),
        ("10.weight", &[1, 2], &[5.0, 6.0]),
        ("0.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        ("0.bias", &[2], &[0.5, -0.5]),
        ("2.weight", &[1], &[0.25]),
    ];

    #[test]
    fn modules_go_to_layers_in_the_order_of_their_numbers() {
        let state = StateDict::from_bytes(&file(&TENSORS)).unwrap();
        assert_eq!(state.outputs().unwrap(), [1, 2]);
        let model = state.into_model(network()).unwrap();
        let expected = [1.0, 2.0, 3.0, 4.0, 0.5, -0.5, 0.25, 0.25, 5.0, 6.0, 7.0];
        assert_eq!(model.network().parameters().values(), expected);
        // The slope that both units share collects both gradients.
        let gradients = model.file_gradients(model.network().parameters());
        let slope = &gradients
            .iter()
            .find(|(name, _)| name == "2.weight")
            .unwrap()
            .1;
        assert_eq!(slope.as_slice().unwrap(), [0.5]);
    }

    /// A normalisation of two features with some statistics, whose tensors in the file are those
    /// that are not `absent`.
    fn normalised(mean: f64, variance: f64, epsilon: f64, absent: &str) -> Result<Model> {
        let mut builder = Builder::new();
        let x = builder.input(2).unwrap();
        let norm = BatchNorm {
            scale: array![1.0, 1.0],
            shift: array![0.0, 0.0],
            mean: array![0.0, mean],
            variance: array![variance, 1.0],
            epsilon,
        };
        let y = builder.batch_norm(x, 0, norm).unwrap();
        let tensors: [(&str, &[usize], &[f64]); 4] = [
            ("0.weight", &[2], &[2.0, 3.0]),
            ("0.bias", &[2], &[0.5, -0.5]),
            ("0.running_mean", &[2], &[1.0, -1.0]),
            ("0.running_var", &[2], &[4.0, 0.25]),
        ];
        let there = tensors.into_iter().filter(|(name, ..)| *name != absent);
        let there: Vec<_> = there.collect();
        StateDict::from_bytes(&file(&there))?.into_model(builder.build(y).unwrap())
    }

    #[test]
    fn statistics_are_the_files_and_all_of_them_are_there() {
        let model = normalised(0.0, 1.0, 0.0, "").unwrap();
        let found = model.network().forward(array![[3.0, 1.0]].view()).unwrap();
        let expected = [
            2.0 * 2.0 / (4.0 + EPSILON).sqrt() + 0.5,
            3.0 * 2.0 / (0.25 + EPSILON).sqrt() - 0.5,
        ];
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(f, e)| (f - e).abs() < 1e-14),
            "{found}"
        );
        for absent in ["0.weight", "0.bias", "0.running_mean", "0.running_var"] {
            let error = normalised(0.0, 1.0, 0.0, absent).unwrap_err().to_string();
            assert!(error.contains(absent), "{error}");
        }
        for (mean, variance, epsilon) in [(0.5, 1.0, 0.0), (0.0, 4.0, 0.0), (0.0, 1.0, 1e-5)] {
            let error = normalised(mean, variance, epsilon, "").unwrap_err();
            assert!(
                error.to_string().contains("statistics of its own"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let refused = |tensors: &[_]| {
            let state = StateDict::from_bytes(&file(tensors));
            state
                .and_then(|state| state.into_model(network()))
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&TENSORS[..4]).contains("`10.weight` has shape"));
        assert!(refused(&TENSORS[1..]).contains("`10.bias`"));
        let extra = [&TENSORS[..], &[("11.weight", &[1][..], &[1.0][..])]].concat();
        assert!(refused(&extra).contains("no layer for the module `11`"));
        let named = [&TENSORS[..], &[("conv.scale", &[1][..], &[1.0][..])]].concat();
        assert!(refused(&named).contains("no layer for the module `conv`"));
    }

    /// Names before which there is something, or which are words, go to layers by order and shape.
    #[test]
    fn modules_of_any_name_go_to_the_layers_that_they_fit() {
        let expected = [1.0, 2.0, 3.0, 4.0, 0.5, -0.5, 0.25, 0.25, 5.0, 6.0, 7.0];
        for (names, shown) in [
            (["0", "2", "10"], false),
            (["module.0", "module.2", "module.10"], true),
            (
                ["_orig_mod.net.0", "_orig_mod.net.1", "_orig_mod.net.2"],
                true,
            ),
            (["fc1", "prelu", "fc10"], true),
            (["zeta", "gate", "alpha"], true),
            (["", "g", "h"], true),
        ] {
            let place = |name: &str| ["0", "2", "10"].iter().position(|known| *known == name);
            let renamed = TENSORS.map(|(name, shape, values)| {
                let (module, array) = name.split_once('.').unwrap();
                (called(names[place(module).unwrap()], array), shape, values)
            });
            let tensors: Vec<_> = renamed
                .iter()
                .map(|(n, s, v)| (n.as_str(), *s, *v))
                .collect();
            let state = StateDict::from_bytes(&file(&tensors)).unwrap();
            assert!(state.outputs().unwrap().contains(&1));
            let model = state.into_model(network()).unwrap();
            assert_eq!(model.network().parameters().values(), expected, "{names:?}");
            let notes = model.notes().join("; ");
            let pair = format!("dense0 = {}", names[0]);
            assert_eq!(notes.contains(&pair), shown, "{notes}");
            assert!(!notes.contains("several modules"), "{notes}");
            let array = called(names[2], "bias");
            assert!(model.file_arrays().contains(&array.as_str()), "{array}");
        }
    }

    #[test]
    fn modules_of_equal_shapes_go_by_name_and_are_pointed_out() {
        let square = || Mlp::new(&[1, 1, 1]).bias(false).build(0).unwrap();
        let read = |names: [&str; 2]| {
            let tensors = names.map(|name| (called(name, "weight"), names[0] == name));
            let tensors = tensors.each_ref().map(|(name, first)| {
                let values: &[f64] = if *first { &[2.0] } else { &[3.0] };
                (name.as_str(), &[1usize, 1][..], values)
            });
            StateDict::from_bytes(&file(&tensors))
                .unwrap()
                .into_model(square())
                .unwrap()
        };
        for (names, expected, unclear) in [
            (["fc2", "fc10"], [2.0, 3.0], false),
            (["fc2", "fc1"], [3.0, 2.0], false),
            (["head", "body"], [3.0, 2.0], true),
        ] {
            let model = read(names);
            assert_eq!(model.network().parameters().values(), expected);
            let notes = model.notes().join("; ");
            assert_eq!(notes.contains("several modules"), unclear, "{notes}");
        }
    }
}
