//! Weights alone: the `state_dict` of PyTorch's `nn.Sequential` in a safetensors file.
//!
//! Modules without parameters (gates, pooling) have no entry, so the file says which module a
//! tensor belongs to, but not what the modules are; the network must be given.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayD;
use relugrad::{Constant, Network, Node, Operation};

use crate::error::{Error, Result};
use crate::file::read_file;
use crate::formula::{Formula, Formulas, Rates, Term};
use crate::limits::{Budget, Limits};
use crate::model::{FileGradients, Model};
use crate::native::{looks_right, tensors};

/// What PyTorch adds to the variance unless told otherwise; the file does not say.
const EPSILON: f64 = 1e-5;

/// The tensors of a module by their last names, such as `weight`.
type Arrays = BTreeMap<String, ArrayD<f64>>;

/// The weights of a sequence of modules, `0.weight`, `0.bias`, `3.weight` and so on.
#[derive(Clone, Debug)]
pub struct StateDict {
    /// Name and tensors of each module, in the order of the modules' numbers.
    modules: Vec<(String, Arrays)>,
}

impl StateDict {
    /// Reads a safetensors file without relugrad's graph.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::State`] or what is wrong with the file within
    /// [`Error::InFile`].
    pub fn load(path: impl AsRef<Path>) -> Result<StateDict> {
        let path = path.as_ref();
        let (bytes, budget) = read_file(path, looks_right)?;
        StateDict::read(&bytes, &budget).map_err(|problem| problem.in_file(path))
    }

    /// Reads the bytes of such a file.
    ///
    /// # Errors
    /// [`Error::State`] for names that are not those of a sequence, and what is wrong with the
    /// file.
    pub fn from_bytes(bytes: &[u8]) -> Result<StateDict> {
        StateDict::read(bytes, &Limits::of_process().budget(bytes.len() as u64))
    }

    fn read(bytes: &[u8], budget: &Budget) -> Result<StateDict> {
        let mut modules: BTreeMap<Vec<u64>, (String, Arrays)> = BTreeMap::new();
        for (name, values) in tensors(bytes, budget, |name| {
            !name.ends_with(".num_batches_tracked")
        })? {
            let problem = || {
                state(format!(
                    "tensor `{name}` does not belong to a sequence, whose names are `0.weight`, `0.bias` and so on"
                ))
            };
            let (module, array) = name.rsplit_once('.').ok_or_else(problem)?;
            let numbers: std::result::Result<Vec<u64>, _> =
                module.split('.').map(str::parse).collect();
            let numbers = numbers.map_err(|_| problem())?;
            let entry = modules
                .entry(numbers)
                .or_insert_with(|| (module.to_owned(), BTreeMap::new()));
            entry.1.insert(array.to_owned(), values);
        }
        Ok(StateDict {
            modules: modules.into_values().collect(),
        })
    }

    /// Number of outputs of the last module, the logits.
    ///
    /// # Errors
    /// [`Error::State`] if there is no last weight of at least two axes.
    pub fn outputs(&self) -> Result<usize> {
        let last = self
            .modules
            .iter()
            .rev()
            .find_map(|(_, arrays)| arrays.get("weight"));
        match last.map(ArrayD::shape) {
            Some(&[outputs, _, ..]) => Ok(outputs),
            _ => Err(state("there is no last layer with a weight matrix")),
        }
    }

    /// The network with these weights in place of its own, module after module.
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
        let mut modules = self.modules.into_iter();
        let (mut weights, mut notes) = (Vec::new(), Vec::new());
        let mut formulas = Formulas::default();
        for node in &nodes {
            let infos: Vec<_> = network.parameters_of(node).cloned().collect();
            if infos.is_empty() {
                continue;
            }
            let Some((module, mut arrays)) = modules.next() else {
                return Err(state(format!(
                    "there is no module left for the layer `{}`",
                    node.name()
                )));
            };
            let mut made = [None, None];
            if let Operation::BatchNorm { .. } = node.operation() {
                check_plain(node)?;
                made = normalise(&module, &mut arrays, &mut formulas)?.map(Some);
                notes.push(format!(
                    "epsilon of the batch normalisation `{module}` is taken to be {EPSILON}"
                ));
            }
            for ((info, name), made) in infos.iter().zip(["weight", "bias"]).zip(made) {
                let values = arrays.remove(name).ok_or_else(|| {
                    state(format!(
                        "there is no tensor `{module}.{name}` for `{}`",
                        info.name()
                    ))
                })?;
                let prelu = matches!(node.gate(), Some(relugrad::Gate::PRelu { .. }));
                let places = places(values.shape(), info.shape(), prelu).ok_or_else(|| {
                    state(format!(
                        "tensor `{module}.{name}` has shape {:?} but `{}` of the model has {:?}",
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
                    let array = formulas.array(&format!("{module}.{name}"), values.shape());
                    let term = Term::picked(array, Some(places.as_slice().into()));
                    formulas.sum(places.len(), vec![term])
                }));
            }
            if let Some(name) = arrays.keys().next() {
                return Err(state(format!(
                    "no part of the layer `{}` is made of `{module}.{name}`",
                    node.name()
                )));
            }
        }
        if let Some((module, _)) = modules.next() {
            return Err(state(format!(
                "the model has no layer for the module `{module}`"
            )));
        }
        let gradients = FileGradients::new(formulas, weights, &[], &[]);
        Ok(Model::new(network, gradients, notes))
    }
}

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
                "there is no tensor `{module}.{name}` of a batch normalisation"
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
            .map(|name| formulas.array(&format!("{module}.{name}"), mean.shape()));
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
        assert_eq!(state.outputs().unwrap(), 1);
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
        let named = [&TENSORS[..], &[("conv.weight", &[1][..], &[1.0][..])]].concat();
        assert!(refused(&named).contains("`conv.weight` does not belong to a sequence"));
    }
}
