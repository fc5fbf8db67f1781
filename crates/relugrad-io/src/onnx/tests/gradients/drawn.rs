//! Random graphs in which weights are computed from arrays by every operator.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// A graph of arithmetic on random arrays, `f64` throughout.
pub(super) struct Drawn {
    random: ChaCha8Rng,
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    count: usize,
}

impl Drawn {
    pub(super) fn new(seed: u64) -> Drawn {
        Drawn {
            random: ChaCha8Rng::seed_from_u64(seed),
            nodes: Vec::new(),
            tensors: Vec::new(),
            count: 0,
        }
    }

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
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|_| value()).collect();
        let dims: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let tensor = doubles(&name, &dims, &values);
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
                let count: usize = part.iter().product();
                let dims: Vec<i64> = part.iter().map(|&n| n as i64).collect();
                let values = (0..count).map(|_| self.below(2) as i32).collect();
                self.tensors.push(truths(&condition, &dims, values));
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
    pub(super) fn network(&mut self, depth: usize) -> ModelProto {
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
                    self.tensors.push(truths("mask", &[1, 4], vec![1, 0, 1, 1]));
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

fn number(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        f,
        r#type: 1,
        ..AttributeProto::default()
    }
}
