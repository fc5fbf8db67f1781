//! Gradients with respect to the arrays of a file, against differences of the loss when the file is changed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{Loss, Objective, Penalty, Targets};

use super::*;

const STEP: f64 = 1e-5;

/// A graph of arithmetic on random arrays, `f64` throughout.
struct Drawn {
    random: ChaCha8Rng,
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    count: usize,
}

impl Drawn {
    fn below(&mut self, n: usize) -> usize {
        self.random.random_range(0..n)
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("v{}", self.count)
    }

    /// A new array of the file: an initialiser, or held by a Constant node.
    fn leaf(&mut self, shape: &[usize]) -> String {
        let name = self.name();
        let mut value = || {
            let size = self.random.random_range(0.3..1.5);
            if self.random.random::<bool>() {
                size
            } else {
                -size
            }
        };
        let tensor = TensorProto {
            dims: shape.iter().map(|&n| n as i64).collect(),
            data_type: 11,
            double_data: (0..shape.iter().product::<usize>())
                .map(|_| value())
                .collect(),
            name: name.clone(),
            ..TensorProto::default()
        };
        if self.random.random::<bool>() {
            self.tensors.push(tensor);
        } else {
            let attribute = AttributeProto {
                name: "value".into(),
                r#type: 4,
                t: Some(tensor),
                ..AttributeProto::default()
            };
            self.push("Constant", &[], &name, vec![attribute]);
        }
        name
    }

    fn whole(&mut self, values: &[i64]) -> String {
        let name = self.name();
        self.tensors.push(integers(&name, values));
        name
    }

    fn push(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        let mut new = node(op, inputs, output);
        new.name = format!("{op} of {output}");
        new.attribute = attributes;
        self.nodes.push(new);
    }

    fn call(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.name();
        self.push(op, inputs, &output, attributes);
        output
    }

    /// A shape that broadcasting repeats to `shape`.
    fn part(&mut self, shape: &[usize]) -> Vec<usize> {
        let short = self.below(shape.len() + 1);
        let short = if self.below(2) == 0 { short } else { 0 };
        let mut axis = |&n: &usize| if self.below(3) == 0 { 1 } else { n };
        shape[short..].iter().map(&mut axis).collect()
    }

    /// A constant of this shape with entries from e⁻¹ to e.
    fn positive(&mut self, depth: usize, shape: &[usize]) -> String {
        let inner = self.constant(depth, shape);
        let bounded = self.call("Tanh", &[&inner], Vec::new());
        self.call("Exp", &[&bounded], Vec::new())
    }

    /// A constant of this shape, computed by up to `depth` operators.
    fn constant(&mut self, depth: usize, shape: &[usize]) -> String {
        if depth == 0 {
            return self.leaf(shape);
        }
        match self.below(4) {
            0 => self.unary(depth - 1, shape),
            1 => self.binary(depth - 1, shape),
            2 => self.moved(depth - 1, shape),
            _ => self.reduced(depth - 1, shape),
        }
    }

    fn unary(&mut self, depth: usize, shape: &[usize]) -> String {
        let op = [
            "Neg",
            "Abs",
            "Relu",
            "Tanh",
            "Sigmoid",
            "Sin",
            "Cos",
            "Identity",
            "Dropout",
            "Sqrt",
            "Log",
            "Reciprocal",
            "Exp",
        ][self.below(13)];
        let x = match op {
            "Sqrt" | "Log" | "Reciprocal" => self.positive(depth, shape),
            _ => self.constant(depth, shape),
        };
        let x = match op {
            "Exp" => self.call("Sin", &[&x], Vec::new()),
            _ => x,
        };
        self.call(op, &[&x], Vec::new())
    }

    fn binary(&mut self, depth: usize, shape: &[usize]) -> String {
        let op = [
            "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "Clip",
        ][self.below(11)];
        let (part, first) = (self.part(shape), self.below(2) == 0);
        let (left, right) = if first {
            (shape, &part[..])
        } else {
            (&part[..], shape)
        };
        let a = match op {
            "Pow" => self.positive(depth, left),
            _ => self.constant(depth, left),
        };
        let b = match op {
            "Div" => self.positive(0, right),
            _ => self.constant(0, right),
        };
        match op {
            "Sum" | "Mean" => {
                let other = self.part(shape);
                let c = self.leaf(&other);
                self.call(op, &[&a, &b, &c], Vec::new())
            }
            "Where" => {
                let condition = self.name();
                let mut truth = integers(&condition, &[]);
                let count: usize = part.iter().product();
                (truth.data_type, truth.dims) = (9, part.iter().map(|&n| n as i64).collect());
                truth.int32_data = (0..count).map(|_| self.below(2) as i32).collect();
                self.tensors.push(truth);
                self.call(op, &[&condition, &a, &b], Vec::new())
            }
            "Clip" => {
                let (x, low) = (self.constant(depth, shape), self.leaf(&[]));
                let high = self.positive(0, &[]);
                self.call(op, &[&x, &low, &high], Vec::new());
                let clipped = format!("v{}", self.count);
                let other = self.call("Add", &[&a, &b], Vec::new());
                self.call("Mul", &[&clipped, &other], Vec::new())
            }
            _ => self.call(op, &[&a, &b], Vec::new()),
        }
    }

    fn moved(&mut self, depth: usize, shape: &[usize]) -> String {
        let op = [
            "Transpose",
            "Reshape",
            "Concat",
            "Slice",
            "Gather",
            "GatherElements",
            "Expand",
            "Tile",
            "Pad",
            "Split",
            "Unsqueeze",
        ][self.below(11)];
        let at = self.below(shape.len().max(1));
        let mut from = shape.to_vec();
        if shape.is_empty() {
            let x = self.constant(depth, &[1, 1]);
            return self.call("Squeeze", &[&x], Vec::new());
        }
        let n = shape[at];
        let along = |at: usize| integer("axis", at as i64);
        match op {
            "Transpose" => {
                from.reverse();
                let x = self.constant(depth, &from);
                self.call(op, &[&x], Vec::new())
            }
            "Reshape" => {
                let x = self.constant(depth, &[from.iter().product()]);
                let target: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
                let target = self.whole(&target);
                self.call(op, &[&x, &target], Vec::new())
            }
            "Concat" if n > 1 => {
                from[at] = 1;
                let a = self.constant(depth, &from);
                from[at] = n - 1;
                let b = self.constant(0, &from);
                self.call(op, &[&a, &b], vec![along(at)])
            }
            "Slice" => {
                from[at] = 2 * n + 1;
                let x = self.constant(depth, &from);
                let ends = [[-2], [i64::MIN], [at as i64], [-2]].map(|v| self.whole(&v));
                let [start, end, axis, step] = &ends;
                self.call(op, &[&x, start, end, axis, step], Vec::new())
            }
            "Gather" => {
                from[at] = 3;
                let x = self.constant(depth, &from);
                let index: Vec<i64> = (0..n).map(|_| self.below(6) as i64 - 3).collect();
                let index = self.whole(&index);
                self.call(op, &[&x, &index], vec![along(at)])
            }
            "GatherElements" => {
                from[at] = 3;
                let x = self.constant(depth, &from);
                let count: usize = shape.iter().product();
                let index: Vec<i64> = (0..count).map(|_| self.below(6) as i64 - 3).collect();
                let name = self.whole(&index);
                let last = self.tensors.last_mut().unwrap();
                last.dims = shape.iter().map(|&n| n as i64).collect();
                self.call(op, &[&x, &name], vec![along(at)])
            }
            "Tile" if n.is_multiple_of(2) => {
                from[at] = n / 2;
                let x = self.constant(depth, &from);
                let mut repeats = vec![1; shape.len()];
                repeats[at] = 2;
                let repeats = self.whole(&repeats);
                self.call(op, &[&x, &repeats], Vec::new())
            }
            "Pad" if n > 1 => {
                from[at] = n + 1;
                let (x, value) = (self.constant(depth, &from), self.leaf(&[]));
                let mut pads = vec![0; 2 * shape.len()];
                (pads[at], pads[shape.len() + at]) = (1, -2);
                let pads = self.whole(&pads);
                self.call(op, &[&x, &pads, &value], Vec::new())
            }
            "Split" => {
                from[at] = n + 2;
                let x = self.constant(depth, &from);
                let lengths = self.whole(&[2, n as i64]);
                let (unused, part) = (self.name(), self.name());
                self.push(op, &[&x, &lengths], &unused, vec![along(at)]);
                self.nodes.last_mut().unwrap().output.push(part.clone());
                part
            }
            "Unsqueeze" if n == 1 => {
                from.remove(at);
                let x = self.constant(depth, &from);
                let axes = self.whole(&[at as i64]);
                self.call(op, &[&x, &axes], Vec::new())
            }
            _ => {
                let part = self.part(shape);
                let x = self.constant(depth, &part);
                let target: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
                let target = self.whole(&target);
                self.call("Expand", &[&x, &target], Vec::new())
            }
        }
    }

    /// A reduction, or a product of matrices where the shape is one.
    fn reduced(&mut self, depth: usize, shape: &[usize]) -> String {
        if let &[m, n] = shape
            && self.below(2) == 0
        {
            let a = self.constant(depth, &[m, 3]);
            if self.below(2) == 0 {
                let b = self.constant(0, &[3, n]);
                return self.call("MatMul", &[&a, &b], Vec::new());
            }
            let part = self.part(shape);
            let (b, c) = (self.constant(0, &[n, 3]), self.leaf(&part));
            let attributes = vec![
                integer("transB", 1),
                number("alpha", 0.5),
                number("beta", -2.0),
            ];
            return self.call("Gemm", &[&a, &b, &c], attributes);
        }
        let op = [
            "ReduceSum",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSum",
            "ReduceLogSumExp",
        ][self.below(10)];
        let at = self.below(shape.len() + 1);
        let mut from = shape.to_vec();
        from.insert(at, 3);
        let x = match op {
            "ReduceLogSum" => self.positive(depth, &from),
            _ => self.constant(depth, &from),
        };
        let keep = integer("keepdims", 0);
        if op == "ReduceSum" {
            let axes = self.whole(&[at as i64]);
            return self.call(op, &[&x, &axes], vec![keep]);
        }
        let mut axes = integer("axes", 0);
        (axes.ints, axes.r#type) = (vec![at as i64 - shape.len() as i64 - 1], 7);
        self.call(op, &[&x], vec![keep, axes])
    }

    /// Layers of every kind in which constants become parameters.
    fn network(&mut self, depth: usize) -> ModelProto {
        let mut h = "x".to_owned();
        let (w, b) = (self.constant(depth, &[3, 4]), self.constant(depth, &[4]));
        h = self.call("MatMul", &[&h, &w], Vec::new());
        h = self.call("Add", &[&b, &h], Vec::new());
        let [scale, shift, mean] = [0; 3].map(|_| self.constant(depth, &[4]));
        let variance = self.positive(depth, &[4]);
        let inputs = [&h, &scale, &shift, &mean, &variance].map(|name| name.as_str());
        h = self.call("BatchNormalization", &inputs, Vec::new());
        for op in [
            "Relu", "Mul", "Sub", "Max", "Min", "Div", "PRelu", "Concat", "Where",
        ] {
            if self.below(3) == 0 {
                continue;
            }
            let width = 4;
            let c = match op {
                "Relu" => None,
                "Div" => Some(self.positive(depth, &[width])),
                _ => Some(self.constant(depth, &[1, width])),
            };
            h = match (op, c) {
                (_, None) => self.call(op, &[&h], Vec::new()),
                ("Sub", Some(c)) => self.call(op, &[&c, &h], Vec::new()),
                ("Concat", Some(c)) => {
                    let both = self.call(op, &[&c, &h], vec![integer("axis", -1)]);
                    let w = self.constant(depth, &[8, 4]);
                    self.call("MatMul", &[&both, &w], Vec::new())
                }
                ("Where", Some(c)) => {
                    let mut truth = integers("mask", &[]);
                    (truth.data_type, truth.dims) = (9, vec![1, 4]);
                    truth.int32_data = vec![1, 0, 1, 1];
                    self.tensors.push(truth);
                    self.call(op, &["mask", &h, &c], Vec::new())
                }
                (_, Some(c)) => self.call(op, &[&h, &c], Vec::new()),
            };
        }
        let (w, c) = (self.constant(depth, &[2, 4]), self.constant(depth, &[2]));
        let attributes = vec![
            integer("transB", 1),
            number("alpha", 0.5),
            number("beta", 2.0),
        ];
        self.call("Gemm", &[&h, &w, &c], attributes);
        let (nodes, tensors) = (self.nodes.clone(), self.tensors.clone());
        let mut model = model(nodes, tensors, &[1, 3]);
        let input = &mut model.graph.as_mut().unwrap().input[0];
        let value = &mut input.r#type.as_mut().unwrap().value;
        let Some(type_proto::Value::TensorType(tensor)) = value else {
            unreachable!("the input is a tensor");
        };
        tensor.elem_type = 11;
        model
    }
}

fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i,
        r#type: 2,
        ..AttributeProto::default()
    }
}

fn number(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        f,
        r#type: 1,
        ..AttributeProto::default()
    }
}

/// The floating arrays of the file.
fn arrays(model: &mut ModelProto) -> Vec<&mut TensorProto> {
    let graph = model.graph.as_mut().unwrap();
    let held = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let held = held.filter_map(|attribute| attribute.t.as_mut());
    let all = graph.initializer.iter_mut().chain(held);
    all.filter(|tensor| tensor.data_type == 11).collect()
}

fn objective() -> Objective {
    let objective = Objective::new(Loss::softmax_cross_entropy());
    objective.with(Penalty::Jacobian, 0.3).unwrap()
}

/// The loss and a penalty, and their gradient.
fn evaluate(model: &Model) -> (f64, relugrad::Parameters<f64>) {
    let x = ndarray::array![[0.3, -0.7, 0.5], [-0.4, 0.2, 0.9], [0.8, 0.6, -0.1]];
    let targets = Targets::Classes(&[0, 1, 1]);
    let found = objective().gradient(model.network(), x.view(), &targets);
    let (evaluation, gradient) = found.unwrap();
    (evaluation.value, gradient)
}

fn read(model: &ModelProto) -> Model {
    onnx_from_bytes(&model.encode_to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

/// Compares all entries of all arrays with central differences, and returns how many there were.
fn check(mut proto: ModelProto, what: &str) -> usize {
    let model = read(&proto);
    let (value, gradient) = evaluate(&model);
    let gradients = model.file_gradients(&gradient);
    assert!(
        model.left_out().is_empty(),
        "{what}: {:?}",
        model.left_out()
    );
    let mut count = 0;
    for a in 0..arrays(&mut proto).len() {
        let (name, length) = {
            let array = &arrays(&mut proto)[a];
            (array.name.clone(), array.double_data.len())
        };
        let found = gradients.iter().find(|(n, _)| *n == name);
        let found = &found
            .unwrap_or_else(|| panic!("{what}: no gradient of {name}"))
            .1;
        let found: Vec<f64> = found.iter().copied().collect();
        let scale = found.iter().fold(value.abs(), |m, g| m.max(g.abs()));
        assert_eq!(found.len(), length);
        for (i, &exact) in found.iter().enumerate() {
            let mut at = |move_by: f64| {
                arrays(&mut proto)[a].double_data[i] += move_by;
                evaluate(&read(&proto)).0
            };
            let (above, below) = (at(STEP), at(-2.0 * STEP));
            at(STEP);
            let difference = (above - below) / (2.0 * STEP);
            assert!(
                (exact - difference).abs() < 1e-6 * scale.max(1.0),
                "{what}: entry {i} of {name}: {exact} against {difference}"
            );
            count += 1;
        }
    }
    count
}

#[test]
fn every_array_that_weights_are_computed_from_has_its_gradient() {
    let mut count = 0;
    for seed in 0..24 {
        let mut drawn = Drawn {
            random: ChaCha8Rng::seed_from_u64(seed),
            nodes: Vec::new(),
            tensors: Vec::new(),
            count: 0,
        };
        let depth = (seed % 4) as usize;
        count += check(drawn.network(depth), &format!("seed {seed}"));
    }
    assert!(count > 2000, "{count}");
}

/// The check sees a derivative that is wrong.
#[test]
#[should_panic(expected = "entry 0 of w")]
fn a_wrong_gradient_is_seen() {
    let mut w = floats("w", &[3, 2], &[]);
    (w.data_type, w.double_data) = (11, vec![0.5, -0.25, 0.75, 1.0, -0.5, 0.3]);
    // ReLU between its kinks is the identity to differences, so a Round of the weight has steps that they do not see, but a
    // step right at the weight they do.
    let nodes = vec![
        node("Floor", &["w"], "steps"),
        node("Add", &["w", "steps"], "sum"),
        node("MatMul", &["x", "sum"], "y"),
    ];
    w.double_data[0] = 1.0;
    check(model(nodes, vec![w], &[1, 3]), "steps");
}

/// What has no gradient is named, with the reason.
#[test]
fn arrays_without_gradient_are_named() {
    let left_out = |nodes: Vec<NodeProto>, tensors: Vec<TensorProto>| {
        let model = read(&model(nodes, tensors, &[1, 2]));
        let gradients = model.file_gradients(model.network().parameters());
        let names: Vec<String> = gradients.into_iter().map(|(name, _)| name).collect();
        let left: Vec<String> = model
            .left_out()
            .iter()
            .map(|l| format!("{}: {}", l.name, l.reason))
            .collect();
        (names, left)
    };
    let weight = || floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let bound = |name: &str, v: f32| floats(name, &[], &[v]);
    let clip = vec![
        node("Clip", &["x", "low", "high"], "c"),
        node("MatMul", &["c", "w"], "y"),
    ];
    let (names, left) = left_out(clip, vec![bound("low", -1.0), bound("high", 1.0), weight()]);
    assert_eq!(names, ["w"]);
    assert_eq!(left.len(), 2);
    assert!(
        left[0].starts_with("low: node `the Clip` (Clip)"),
        "{left:?}"
    );
    // The other use of an array does not make up for the one without gradient.
    let clip = vec![
        node("Clip", &["x", "low", "high"], "c"),
        node("Mul", &["c", "high"], "y"),
    ];
    let (names, left) = left_out(clip, vec![bound("low", -1.0), bound("high", 1.0)]);
    assert!(names.is_empty() && left.len() == 2, "{names:?} {left:?}");
    // Whole numbers change in steps, which add nothing to another use.
    let mut cast = node("Cast", &["w"], "whole");
    cast.attribute = vec![integer("to", 7)];
    let mut back = node("Cast", &["whole"], "steps");
    back.attribute = vec![integer("to", 1)];
    let steps = vec![
        cast.clone(),
        back.clone(),
        node("MatMul", &["x", "steps"], "y"),
    ];
    let (names, left) = left_out(steps, vec![weight()]);
    assert!(
        names.is_empty() && left[0].contains("(Cast) makes steps of it"),
        "{left:?}"
    );
    let both = vec![
        cast,
        back,
        node("Add", &["steps", "w"], "sum"),
        node("MatMul", &["x", "sum"], "y"),
    ];
    let (names, left) = left_out(both, vec![weight()]);
    assert!(names == ["w"] && left.is_empty(), "{names:?} {left:?}");
    // A root has no derivative at 0.
    let root = vec![node("Sqrt", &["r"], "s"), node("Mul", &["x", "s"], "y")];
    let (names, left) = left_out(root, vec![floats("r", &[2], &[0.0, 1.0])]);
    assert!(
        names.is_empty() && left[0].contains("finite derivative"),
        "{left:?}"
    );
}
