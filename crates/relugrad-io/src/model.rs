//! A network with the names and layouts of the file that it came from.

use std::collections::{BTreeMap, HashSet};

use ndarray::{ArrayD, IxDyn};
use relugrad::{Network, ParameterInfo, Parameters, Scalar};

use crate::formula::{Formula, Formulas};
use crate::text::printable;

/// Strings that accompany a model, such as the settings of its training. The keys `relugrad` and
/// `checksum` are taken.
pub type Metadata = BTreeMap<String, String>;

/// A network as a file describes it.
#[derive(Clone, Debug)]
pub struct Model {
    network: Network<f64>,
    gradients: FileGradients,
    notes: Vec<String>,
    metadata: Metadata,
    single: bool,
}

/// How gradients go back to the arrays of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileGradients {
    formulas: Formulas,
    /// For each parameter array how it comes from arrays of the file, if it does.
    weights: Vec<Option<Formula>>,
    left_out: Vec<LeftOut>,
}

/// An array of a file on which the logits depend, and to which no gradient goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// What the file calls it.
    pub name: String,
    /// Where the way back ends, and why.
    pub reason: String,
}

impl FileGradients {
    /// Gradients of the weights, and none of the arrays on which a formula in `left_out` depends.
    /// What changes in steps alone has none either; beside another way to the logits the steps add
    /// nothing.
    pub(crate) fn new(
        mut formulas: Formulas,
        weights: Vec<Option<Formula>>,
        left_out: &[(Formula, String)],
        steps: &[(Formula, String)],
    ) -> FileGradients {
        let used: Vec<Formula> = weights.iter().flatten().copied().collect();
        let mut known: HashSet<String> = HashSet::new();
        let mut found = Vec::new();
        for (blocked, smooth) in [(left_out, &[][..]), (steps, &used[..])] {
            let ways = formulas.sources(smooth).into_iter();
            known.extend(ways.map(|(array, _)| array.name.clone()));
            let ends: Vec<Formula> = blocked.iter().map(|(formula, _)| *formula).collect();
            for (array, i) in formulas.sources(&ends) {
                if known.insert(array.name.clone()) {
                    found.push(LeftOut {
                        name: array.name.clone(),
                        reason: blocked[i].1.clone(),
                    });
                }
            }
        }
        formulas.keep(&used);
        FileGradients {
            formulas,
            weights,
            left_out: found,
        }
    }
}

impl Model {
    pub(crate) fn new(
        network: Network<f64>,
        gradients: FileGradients,
        notes: Vec<String>,
    ) -> Model {
        debug_assert_eq!(network.parameters().layout().len(), gradients.weights.len());
        Model {
            network,
            gradients,
            notes: notes
                .iter()
                .map(|note| printable(note).into_owned())
                .collect(),
            metadata: Metadata::new(),
            single: false,
        }
    }

    /// A model whose arrays are called and laid out as the network's own.
    pub(crate) fn own(network: Network<f64>, metadata: Metadata, notes: Vec<String>) -> Model {
        let mut formulas = Formulas::default();
        let weight = |info: &ParameterInfo| Some(formulas.array(info.name(), info.shape()));
        let weights = network.parameters().layout().iter().map(weight).collect();
        let gradients = FileGradients::new(formulas, weights, &[], &[]);
        Model {
            metadata,
            ..Model::new(network, gradients, notes)
        }
    }

    /// The same model, of a file in single or double precision.
    pub(crate) fn of_precision(self, single: bool) -> Model {
        Model { single, ..self }
    }

    /// Whether its file holds weights of at most single precision, so that those of the network, in
    /// double precision, are exact in it but for what was computed on the way.
    pub fn is_single(&self) -> bool {
        self.single
    }

    /// The network.
    pub fn network(&self) -> &Network<f64> {
        &self.network
    }

    /// The network alone.
    pub fn into_network(self) -> Network<f64> {
        self.network
    }

    /// The same model with another network of the same parameters, such as one with a layer of fixed
    /// numbers more.
    ///
    /// # Panics
    /// If its parameters are others.
    pub fn with_network(self, network: Network<f64>) -> Model {
        assert_eq!(
            network.parameters().layout(),
            self.network.parameters().layout()
        );
        Model { network, ..self }
    }

    /// What was left out or changed on reading, such as a final softmax.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Adds a note.
    pub(crate) fn note(&mut self, note: &str) {
        self.notes.push(printable(note).into_owned());
    }

    /// The strings saved with it.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// A gradient with respect to the network's parameters as gradients with respect to the arrays
    /// of the file (of an ONNX file, the initialisers and Constant nodes), by their names, in their
    /// layouts, and in the order of the file.
    ///
    /// An array that is used several times gets the sum, and one from which a weight is computed
    /// its share by the chain rule. Arrays on which the logits do not depend are missing, and those
    /// in [`left_out`](Self::left_out).
    ///
    /// # Panics
    /// If the gradient belongs to another network.
    pub fn file_gradients<T: Scalar>(
        &self,
        gradient: &Parameters<T>,
    ) -> Vec<(String, ArrayD<f64>)> {
        assert_eq!(gradient.layout(), self.network.parameters().layout());
        let values: Vec<f64> = gradient.values().iter().map(|v| v.into_f64()).collect();
        let weights = gradient.layout().iter().zip(&self.gradients.weights);
        let given = weights.filter_map(|(info, weight)| Some(((*weight)?, &values[info.range()])));
        let arrays = self.gradients.formulas.pull_back(given).into_iter();
        let left_out: HashSet<&str> = self.left_out().iter().map(|left| &left.name[..]).collect();
        arrays
            .filter(|(array, _)| !left_out.contains(&array.name[..]))
            .map(|(array, gradient)| {
                let shaped = ArrayD::from_shape_vec(IxDyn(&array.dims), gradient);
                (array.name.clone(), shaped.expect("as many entries"))
            })
            .collect()
    }

    /// The names of the arrays that [`file_gradients`](Self::file_gradients) gives gradients of.
    pub fn file_arrays(&self) -> Vec<&str> {
        let weights = &self.gradients.weights;
        let used: Vec<Formula> = weights.iter().flatten().copied().collect();
        let left_out: HashSet<&str> = self.left_out().iter().map(|left| &left.name[..]).collect();
        let sources = self.gradients.formulas.sources(&used).into_iter();
        let names = sources.map(|(array, _)| &array.name[..]);
        names.filter(|name| !left_out.contains(name)).collect()
    }

    /// The arrays of the file that the logits depend on but that
    /// [`file_gradients`](Self::file_gradients) leaves out, such as the bounds of a gate.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.gradients.left_out
    }
}
