//! Which nodes lead to the output, and in which order they are read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::graph_error;
use crate::onnx::import::Importer;
use crate::onnx::proto::NodeProto;

impl<'a> Importer<'a> {
    /// The nodes that lead to `output`, each after those whose values it takes; of several that
    /// could be next, the first in the file. Also notes who reads what.
    pub(super) fn sorted(&mut self, output: &'a str) -> Result<Vec<usize>> {
        let nodes = &self.graph.node;
        let makers = makers(nodes)?;
        let needed = needed(nodes, &makers, output);
        self.readers.entry(output).or_default().push(usize::MAX);
        // For each node how many of its inputs are still to come.
        let mut missing: HashMap<usize, usize> = HashMap::new();
        for &i in &needed {
            let mut made = 0;
            for name in &nodes[i].input {
                self.readers.entry(name).or_default().push(i);
                made += usize::from(makers.contains_key(name.as_str()));
            }
            missing.insert(i, made);
        }
        let ready = needed.iter().filter(|i| missing[i] == 0);
        let mut ready: BinaryHeap<Reverse<usize>> = ready.map(|&i| Reverse(i)).collect();
        let mut order = Vec::with_capacity(needed.len());
        while let Some(Reverse(i)) = ready.pop() {
            order.push(i);
            for name in nodes[i].output.iter().filter(|name| !name.is_empty()) {
                let readers = self.readers.get(name.as_str()).into_iter().flatten();
                for &reader in readers.filter(|&&reader| reader != usize::MAX) {
                    let left = missing.entry(reader).or_default();
                    *left -= 1;
                    if *left == 0 {
                        ready.push(Reverse(reader));
                    }
                }
            }
        }
        match needed.iter().find(|i| missing[i] > 0) {
            None => Ok(order),
            Some(&i) => {
                let call = Call { node: &nodes[i] };
                Err(call.error(
                    "its value depends on itself: the nodes form a cycle, so they have no order",
                ))
            }
        }
    }
}

/// Which node gives each value.
pub(super) fn makers(nodes: &[NodeProto]) -> Result<HashMap<&str, usize>> {
    let mut makers = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if makers.insert(name.as_str(), i).is_some() {
                return Err(graph_error(format!("two nodes give the value `{name}`")));
            }
        }
    }
    Ok(makers)
}

/// The nodes that lead to `output`, in the order of the file.
fn needed(nodes: &[NodeProto], makers: &HashMap<&str, usize>, output: &str) -> Vec<usize> {
    let (mut needed, mut stack) = (HashSet::new(), vec![output]);
    while let Some(name) = stack.pop() {
        let Some(&i) = makers.get(name) else {
            continue;
        };
        if needed.insert(i) {
            stack.extend(nodes[i].input.iter().map(String::as_str));
        }
    }
    let mut needed: Vec<usize> = needed.into_iter().collect();
    needed.sort_unstable();
    needed
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::Model;
    use crate::onnx::onnx_from_bytes;
    use crate::onnx::proto::TensorProto;
    use crate::onnx::tests::{floats, model, node};

    fn read(nodes: Vec<NodeProto>, tensors: Vec<TensorProto>) -> Result<Model> {
        onnx_from_bytes(&model(nodes, tensors, &[1, 2]).encode_to_vec())
    }

    #[test]
    fn nodes_in_any_order_are_one_network() {
        let nodes = [
            node("MatMul", &["x", "w"], "a"),
            node("Relu", &["a"], "b"),
            node("Add", &["a", "b"], "c"),
            node("Neg", &["b"], "d"),
            node("Sub", &["c", "d"], "y"),
        ];
        let weight = floats("w", &[2, 2], &[1.0, -2.0, 3.0, 4.0]);
        let x = ndarray::array![[1.0, 0.5], [-1.0, 2.0]];
        // b = relu(x W), y = x W + 2 b.
        let expected = ndarray::array![[7.5, 0.0], [15.0, 30.0]];
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let mut shuffled = nodes.to_vec();
            shuffled.shuffle(&mut random);
            let mut proto = model(shuffled, vec![weight.clone()], &[1, 2]);
            proto.graph.as_mut().unwrap().output[0].name = "y".into();
            let network = onnx_from_bytes(&proto.encode_to_vec())
                .unwrap()
                .into_network();
            assert_eq!(network.forward(x.view()).unwrap(), expected);
        }
    }

    #[test]
    fn cycles_of_any_length_among_any_operators_are_refused() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let operators = ["Identity", "Relu", "Softmax", "Flatten", "Dropout", "Neg"];
        for length in (1..20).chain([1000]) {
            for _ in 0..10 {
                let link = |i: usize| format!("v{}", i % length);
                let nodes = (0..length).map(|i| {
                    let operator = operators[random.random_range(0..operators.len())];
                    node(operator, &[&link(i)], &link(i + 1))
                });
                let mut nodes: Vec<NodeProto> = nodes.collect();
                nodes.shuffle(&mut random);
                let error = read(nodes, Vec::new()).unwrap_err().to_string();
                assert!(error.contains("cycle"), "{error}");
            }
        }
    }

    #[test]
    fn many_nodes_of_one_name_are_told_apart_in_linear_time() {
        let count = 20_000;
        let value = |i: usize| {
            if i == 0 {
                "x".to_owned()
            } else {
                format!("v{i}")
            }
        };
        let nodes = (0..count).map(|i| NodeProto {
            name: "n".into(),
            ..node("Relu", &[&value(i)], &value(i + 1))
        });
        let start = std::time::Instant::now();
        let network = read(nodes.collect(), Vec::new()).unwrap().into_network();
        assert_eq!(network.nodes().len(), 1 + count);
        assert_eq!(network.nodes()[count].name(), format!("n#{count}"));
        let mixed = ["n#3", "n", "n", "n#2", "n"];
        let nodes = mixed.iter().enumerate().map(|(i, name)| NodeProto {
            name: (*name).into(),
            ..node("Relu", &[&value(i)], &value(i + 1))
        });
        let network = read(nodes.collect(), Vec::new()).unwrap().into_network();
        let names: Vec<&str> = network.nodes()[1..]
            .iter()
            .map(|node| node.name())
            .collect();
        assert_eq!(names, ["n#3", "n", "n#2", "n#2#2", "n#4"]);
        // Quadratic time took minutes.
        assert!(start.elapsed().as_secs() < 20);
    }
}
