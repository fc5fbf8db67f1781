//! Graphs made by hand: what is refused, and how that is said.

mod branches;
mod external;
mod gradients;
mod mutants;
mod selections;
mod subgraphs;
mod volumes;
mod wholes;
mod widths;

use prost::Message;

use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use super::*;

fn info(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&n| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(n)),
    });
    let tensor = type_proto::Tensor {
        elem_type: 1,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
    }
}

pub(super) fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        name: format!("the {op}"),
        op_type: op.into(),
        ..NodeProto::default()
    }
}

pub(super) fn floats(name: &str, dims: &[i64], float_data: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: 1,
        float_data: float_data.to_vec(),
        name: name.into(),
        ..TensorProto::default()
    }
}

pub(super) fn integers(name: &str, int64_data: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![int64_data.len() as i64],
        data_type: 7,
        int64_data: int64_data.to_vec(),
        name: name.into(),
        ..TensorProto::default()
    }
}

fn doubles(name: &str, dims: &[i64], double_data: &[f64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: 11,
        double_data: double_data.to_vec(),
        name: name.into(),
        ..TensorProto::default()
    }
}

/// Truth values, 0 or 1.
fn truths(name: &str, dims: &[i64], int32_data: Vec<i32>) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: 9,
        int32_data,
        name: name.into(),
        ..TensorProto::default()
    }
}

pub(super) fn model(nodes: Vec<NodeProto>, tensors: Vec<TensorProto>, dims: &[i64]) -> ModelProto {
    let last = nodes
        .last()
        .map_or("x".into(), |node| node.output[0].clone());
    ModelProto {
        ir_version: 8,
        graph: Some(GraphProto {
            node: nodes,
            initializer: tensors,
            input: vec![info("x", dims)],
            output: vec![info(&last, &[])],
            ..GraphProto::default()
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        ..ModelProto::default()
    }
}

fn refused(model: &ModelProto) -> String {
    onnx_from_bytes(&model.encode_to_vec())
        .unwrap_err()
        .to_string()
}

fn refused_nodes(nodes: Vec<NodeProto>, tensors: Vec<TensorProto>) -> String {
    refused(&model(nodes, tensors, &[1, 2]))
}

#[test]
fn operators_that_are_not_piecewise_linear_are_named() {
    for op in ["Tanh", "Gelu", "Sigmoid", "Softmax", "LayerNormalization"] {
        let error = refused_nodes(
            vec![node(op, &["x"], "h"), node("Relu", &["h"], "y")],
            Vec::new(),
        );
        assert!(
            error.contains(&format!("`the {op}` ({op})")) && error.contains("piecewise linear"),
            "{error}"
        );
    }
    let error = refused_nodes(vec![node("Mul", &["x", "x"], "y")], Vec::new());
    assert!(error.contains("both depend on the input"), "{error}");
    let error = refused_nodes(vec![node("Frobnicate", &["x"], "y")], Vec::new());
    assert!(
        error.contains("(Frobnicate): this operator is not supported"),
        "{error}"
    );
    let mut custom = node("Relu", &["x"], "y");
    custom.domain = "com.example".into();
    assert!(refused_nodes(vec![custom], Vec::new()).contains("com.example"));
}

#[test]
fn cycles_and_dangling_names_are_named() {
    let cycle = vec![node("Relu", &["b"], "a"), node("Abs", &["a"], "b")];
    assert!(refused_nodes(cycle, Vec::new()).contains("cycle"));
    let dangling = vec![node("Add", &["x", "nowhere"], "y")];
    assert!(refused_nodes(dangling, Vec::new()).contains("`nowhere`"));
    let itself = vec![node("Identity", &["y"], "y")];
    assert!(refused_nodes(itself, Vec::new()).contains("cycle"));
    let softmax = vec![node("Softmax", &["b"], "a"), node("Softmax", &["a"], "b")];
    assert!(refused_nodes(softmax, Vec::new()).contains("cycle"));
    let twice = vec![node("Relu", &["x"], "y"), node("Abs", &["x"], "y")];
    assert!(refused_nodes(twice, Vec::new()).contains("two nodes"));
}

#[test]
fn hostile_sizes_are_refused_without_allocating() {
    let huge = floats("w", &[1 << 40, 1 << 40], &[1.0]);
    let dense = |w| refused_nodes(vec![node("MatMul", &["x", "w"], "y")], vec![w]);
    assert!(dense(huge).contains("`w`"));
    assert!(dense(floats("w", &[-2, 2], &[1.0])).contains("negative"));
    assert!(dense(floats("w", &[2, 2], &[1.0])).contains("ask for 4 numbers but it has 1"));
    assert!(dense(floats("w", &[2, 1], &[f32::NAN, 1.0])).contains("must be finite"));
    let expand = vec![node("Expand", &["x", "s"], "y")];
    let error = refused_nodes(expand, vec![integers("s", &[1 << 30, 1 << 30, 2])]);
    assert!(error.contains("--file-memory"), "{error}");
    let filled = vec![
        node("ConstantOfShape", &["s"], "c"),
        node("Add", &["x", "c"], "y"),
    ];
    assert!(refused_nodes(filled, vec![integers("s", &[1 << 40])]).contains("--file-memory"));
    let pad = vec![node("Pad", &["x", "p"], "y")];
    assert!(refused_nodes(pad, vec![integers("p", &[0, 1 << 40, 0, 0])]).contains("--file-memory"));
    for dims in [&[1, -5][..], &[1, 0], &[], &[0], &[1, 1 << 60, 1 << 60]] {
        refused(&model(vec![node("Relu", &["x"], "y")], Vec::new(), dims));
    }
    let mut pool = node("MaxPool", &["x"], "y");
    pool.attribute = vec![AttributeProto {
        name: "kernel_shape".into(),
        ints: vec![1 << 60, 1 << 60],
        r#type: 7,
        ..AttributeProto::default()
    }];
    refused(&model(vec![pool], Vec::new(), &[1, 1, 4, 4]));
}

#[test]
fn training_mode_and_wrong_types_are_refused() {
    let mut norm = node("BatchNormalization", &["x", "a", "a", "a", "a"], "y");
    norm.attribute = vec![AttributeProto {
        name: "training_mode".into(),
        i: 1,
        r#type: 2,
        ..AttributeProto::default()
    }];
    let error = refused_nodes(vec![norm], vec![floats("a", &[2], &[1.0, 1.0])]);
    assert!(error.contains("evaluation mode"), "{error}");
    for opset in [7, 9, 13] {
        for outputs in [&["", "v"][..], &["m", "v", "s", "t"]] {
            let mut norm = node("BatchNormalization", &["x", "a", "a", "a", "a"], "y");
            norm.output.extend(outputs.iter().map(|&name| name.into()));
            let mut model = model(vec![norm], vec![floats("a", &[2], &[1.0, 1.0])], &[1, 2]);
            model.opset_import[0].version = opset;
            assert!(refused(&model).contains("evaluation mode"));
            model.graph.as_mut().unwrap().node[0].output[1..].fill(String::new());
            assert!(onnx_from_bytes(&model.encode_to_vec()).is_ok());
        }
    }
    let mut leaky = node("LeakyRelu", &["x"], "y");
    leaky.attribute = vec![AttributeProto {
        name: "alpha".into(),
        i: 1,
        r#type: 2,
        ..AttributeProto::default()
    }];
    assert!(refused_nodes(vec![leaky], Vec::new()).contains("another type"));
    let mut complex = floats("w", &[2, 1], &[]);
    complex.data_type = 14;
    let error = refused_nodes(vec![node("MatMul", &["x", "w"], "y")], vec![complex]);
    assert!(error.contains("complex64"), "{error}");
    for op in ["Add", "Sub", "Mul", "Div", "Max", "Min", "MatMul"] {
        let whole = vec![integers("w", &[3, 4])];
        let error = refused_nodes(vec![node(op, &["x", "w"], "y")], whole);
        assert!(error.contains("int64"), "{op}: {error}");
    }
    let division = vec![node("Div", &["x", "w"], "y")];
    assert!(refused_nodes(division, vec![floats("w", &[1], &[0.0])]).contains("divides by 0"));
}

#[test]
fn old_and_future_files_and_several_outputs() {
    let good = || model(vec![node("Relu", &["x"], "y")], Vec::new(), &[1, 2]);
    assert!(onnx_from_bytes(&good().encode_to_vec()).is_ok());
    for version in 1..7 {
        let mut old = good();
        old.opset_import[0].version = version;
        assert!(onnx_from_bytes(&old.encode_to_vec()).is_ok());
    }
    let mut old = good();
    old.ir_version = 2;
    assert!(refused(&old).contains("version 2"));
    let mut two = good();
    two.graph.as_mut().unwrap().output.push(info("x", &[]));
    assert!(refused(&two).contains("--output NAME"));
    // Initialisers may be listed as inputs.
    let mut listed = model(
        vec![node("MatMul", &["x", "w"], "y")],
        vec![floats("w", &[2, 1], &[3.0, 4.0])],
        &[1, 2],
    );
    listed
        .graph
        .as_mut()
        .unwrap()
        .input
        .push(info("w", &[2, 1]));
    let read = onnx_from_bytes(&listed.encode_to_vec()).unwrap();
    assert_eq!(read.network().parameters().values(), [3.0, 4.0]);
}

#[test]
fn raw_and_typed_numbers_of_both_precisions_are_the_same() {
    let mut raw = floats("w", &[2, 1], &[]);
    raw.raw_data = [3.0f32, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut double = floats("w", &[2, 1], &[]);
    (double.data_type, double.double_data) = (11, vec![3.0, 4.0]);
    let mut raw_double = floats("w", &[2, 1], &[]);
    raw_double.data_type = 11;
    raw_double.raw_data = [3.0f64, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    for tensor in [raw, double, raw_double] {
        let bytes = model(
            vec![node("MatMul", &["x", "w"], "y")],
            vec![tensor],
            &[1, 2],
        )
        .encode_to_vec();
        let read = onnx_from_bytes(&bytes).unwrap();
        assert_eq!(read.network().parameters().values(), [3.0, 4.0]);
    }
}

/// A Softmax or the like at the end of `nodes`, which the graph reads from `[1, 4]`.
fn with_head(nodes: &[NodeProto], op: &str, axis: Option<i64>, opset: i64) -> ModelProto {
    let last = nodes.last().map_or("x", |node| &node.output[0]);
    let mut head = node(op, &[last], "p");
    head.attribute = axis.into_iter().map(|i| integer("axis", i)).collect();
    let shape = integers("shape", &[1, 2, 2]);
    let mut model = model([nodes, &[head]].concat(), vec![shape], &[1, 4]);
    model.opset_import[0].version = opset;
    model
}

fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i,
        r#type: 2,
        ..AttributeProto::default()
    }
}

#[test]
fn a_softmax_is_dropped_only_over_all_logits_of_a_sample() {
    let square = [node("Reshape", &["x", "shape"], "s")];
    let column = [node("Transpose", &["x"], "s")];
    for op in ["Softmax", "LogSoftmax"] {
        let dropped: [(&[NodeProto], Option<i64>, i64); 6] = [
            (&[], None, 13),
            (&[], None, 7),
            (&[], Some(1), 17),
            (&[], Some(-1), 11),
            (&square, None, 12),
            (&column, Some(0), 13),
        ];
        for (nodes, axis, opset) in dropped {
            let bytes = with_head(nodes, op, axis, opset).encode_to_vec();
            let model = onnx_from_bytes(&bytes).unwrap();
            assert_eq!(model.network().outputs(), 4);
            assert!(model.notes()[0].contains(&format!("dropped the final {op} `the {op}`")));
        }
        let not: [(&[NodeProto], Option<i64>, i64, &str); 7] = [
            (&square, None, 13, "over 2 of the 4 values"),
            (&square, Some(1), 13, "over 2 of the 4 values"),
            (&square, Some(2), 11, "over 2 of the 4 values"),
            (&square, Some(0), 13, "the batch"),
            (&[], Some(0), 11, "the batch"),
            (&column, None, 13, "over 1 of the 4 values"),
            (&[], Some(2), 13, "no axis 2"),
        ];
        for (nodes, axis, opset, problem) in not {
            let error = refused(&with_head(nodes, op, axis, opset));
            let name = format!("`the {op}` ({op})");
            assert!(error.contains(problem) && error.contains(&name), "{error}");
        }
        let one = model(vec![node(op, &["x"], "p")], Vec::new(), &[1]);
        assert!(refused(&one).contains("the same for every input"));
    }
}

#[test]
fn only_other_dimensions_may_follow_what_is_dropped() {
    let behind = |op: &str, inputs: &[&str]| {
        let nodes = vec![node("Softmax", &["x"], "p"), node(op, inputs, "y")];
        model(nodes, vec![integers("s", &[4, 1])], &[1, 4])
    };
    for (op, inputs) in [
        ("Reshape", &["p", "s"][..]),
        ("Identity", &["p"]),
        ("Flatten", &["p"]),
        ("Transpose", &["p"]),
    ] {
        let model = onnx_from_bytes(&behind(op, inputs).encode_to_vec()).unwrap();
        let x = ndarray::array![[0.5, -1.0, 2.0, 0.0]];
        assert_eq!(model.network().forward(x.view()).unwrap(), x, "{op}");
        assert_eq!(model.notes().len(), 1);
    }
    for (op, inputs) in [
        ("Add", &["p", "p"][..]),
        ("Softmax", &["p"]),
        ("Sigmoid", &["p"]),
        ("LogSoftmax", &["p"]),
        ("Concat", &["p", "p"]),
        ("ReduceMax", &["p"]),
    ] {
        let error = refused(&behind(op, inputs));
        assert!(error.contains("`the Softmax`"), "{op}: {error}");
    }
}

#[test]
fn a_final_sigmoid_of_several_outputs_says_that_losses_are_others() {
    let sigmoid = |dims: &[i64]| {
        let model = model(vec![node("Sigmoid", &["x"], "p")], Vec::new(), dims);
        onnx_from_bytes(&model.encode_to_vec()).unwrap().notes()[0].clone()
    };
    assert!(sigmoid(&[1, 1]).ends_with("the logits are its input"));
    assert!(sigmoid(&[1, 3]).contains("3 classes of which one is true"));
}

/// One bound alone, however far away, loses no digit of what it leaves alone.
#[test]
fn a_clip_with_one_bound_is_exact_on_its_open_side() {
    for bound in [-1e300, -1e17, 1e17, 1e39] {
        for place in 0..2 {
            let mut inputs = vec!["x", "", ""];
            inputs[1 + place] = "b";
            let tensors = vec![doubles("b", &[], &[bound])];
            let model = model(vec![node("Clip", &inputs, "y")], tensors, &[1, 2]);
            let model = onnx_from_bytes(&model.encode_to_vec()).unwrap();
            let x = [0.1, -1.5];
            let expected = x.map(|x: f64| {
                if place == 0 {
                    x.max(bound)
                } else {
                    x.min(bound)
                }
            });
            let found = model.network().forward(ndarray::array![x].view()).unwrap();
            assert_eq!(
                found,
                ndarray::array![expected],
                "{bound} as input {}",
                place + 1
            );
        }
    }
}

/// Bounds that are far away lose no digit of what they leave alone, whatever stands beside them.
#[test]
fn a_maximum_with_far_constants_is_exact() {
    for op in ["Max", "Min"] {
        for far in [-1e300, -1e17, 1e17, 1e39] {
            for bounds in [&[far][..], &[far, 0.25], &[0.25, far], &[far, -far]] {
                let tensor = doubles("b", &[bounds.len() as i64], bounds);
                let model = model(vec![node(op, &["x", "b"], "y")], vec![tensor], &[1, 2]);
                let model = onnx_from_bytes(&model.encode_to_vec()).unwrap();
                let x = [0.1f64, -1.5];
                let expected = [0, 1].map(|i| {
                    let bound = bounds[i % bounds.len()];
                    if op == "Max" {
                        x[i].max(bound)
                    } else {
                        x[i].min(bound)
                    }
                });
                let found = model.network().forward(ndarray::array![x].view()).unwrap();
                assert_eq!(found, ndarray::array![expected], "{op} of {bounds:?}");
            }
        }
    }
}
