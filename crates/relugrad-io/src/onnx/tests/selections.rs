//! Graphs with several inputs and outputs, open lengths, a first axis that is or is no batch, and
//! versions of the operators before 7.

use ndarray::{Array2, ArrayD, IxDyn, array};
use relugrad::Network;

use super::*;

fn read_with(model: &ModelProto, selection: &Selection) -> Result<Model> {
    let bytes = model.encode_to_vec();
    let budget = Limits::default().budget(bytes.len() as u64);
    read(bytes.into(), &budget, selection, &|_, _| unreachable!())
}

fn refused_with(model: &ModelProto, selection: &Selection) -> String {
    read_with(model, selection).unwrap_err().to_string()
}

fn forward(network: &Network<f64>, x: &[f64]) -> Vec<f64> {
    let x = Array2::from_shape_vec((1, x.len()), x.to_vec()).unwrap();
    network
        .forward(x.view())
        .unwrap()
        .into_raw_vec_and_offset()
        .0
}

fn named(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// `y = a x + b` of the inputs `a`, `x`, `b`, the unused `u`, and `h = relu(y)`.
fn three_inputs() -> ModelProto {
    let nodes = vec![
        node("Mul", &["a", "x"], "p"),
        node("Add", &["p", "b"], "y"),
        node("Relu", &["y"], "h"),
    ];
    let mut model = model(nodes, Vec::new(), &[1, 2]);
    let graph = model.graph.as_mut().unwrap();
    graph.input = ["a", "u", "x", "b"].map(|name| info(name, &[1, 2])).into();
    graph.output = ["y", "h"].map(|name| info(name, &[])).into();
    model
}

#[test]
fn each_input_and_output_can_be_the_networks() {
    let model = three_inputs();
    let constants = |names: &[&str]| {
        let value = |name: &&str| {
            let array = match *name {
                "a" => ArrayD::from_elem(IxDyn(&[]), 3.0),
                "x" => array![[2.0, -4.0]].into_dyn(),
                _ => array![0.5, -1.0].into_dyn(),
            };
            ((*name).to_owned(), array)
        };
        names.iter().map(value).collect()
    };
    let cases = [
        (None, "y", &["a", "b"][..], [3.5, -7.0]),
        (named("x"), "y", &["a", "b"], [3.5, -7.0]),
        (None, "h", &["x", "b"], [2.5, 7.0]),
        (named("b"), "h", &["a", "x"], [7.0, 0.0]),
        (named("b"), "y", &["a", "x"], [7.0, -14.0]),
        // A value of an inner node, on which the other inputs have no influence.
        (named("x"), "p", &["a"], [3.0, -6.0]),
    ];
    for (input, output, given, expected) in cases {
        let selection = Selection {
            input,
            output: named(output),
            constants: constants(given),
            ..Selection::default()
        };
        let model = read_with(&model, &selection).unwrap();
        assert_eq!(forward(model.network(), &[1.0, -2.0]), expected, "{output}");
        assert!(model.file_arrays().is_empty());
    }
}

#[test]
fn what_there_is_to_choose_from_is_named() {
    let model = three_inputs();
    let of = |input: Option<&str>, output: Option<&str>, constants: &[(&str, ArrayD<f64>)]| {
        let constants = constants.iter().map(|(n, a)| ((*n).to_owned(), a.clone()));
        let selection = Selection {
            input: input.map(str::to_owned),
            output: output.map(str::to_owned),
            constants: constants.collect(),
            ..Selection::default()
        };
        refused_with(&model, &selection)
    };
    let scalar = || ArrayD::from_elem(IxDyn(&[]), 1.0);
    assert!(of(None, None, &[]).contains(r#"outputs ["y", "h"]; --output NAME"#));
    assert!(of(None, Some("z"), &[]).contains(r#"called `z`; its outputs are ["y", "h"]"#));
    assert!(of(None, Some("y"), &[]).contains(r#"inputs ["a", "x", "b"]; --input-name"#));
    assert!(of(Some("x"), Some("y"), &[]).contains(r#"its inputs ["a", "b"]; --constant"#));
    assert!(of(Some("w"), Some("y"), &[]).contains(r#"no input `w`; its inputs are ["a", "u","#));
    let all = [("a", scalar()), ("x", scalar()), ("b", scalar())];
    assert!(of(None, Some("y"), &all).contains("leads to the output"));
    let unknown = of(None, Some("y"), &[("c", scalar())]);
    assert!(unknown.contains("--input-name"), "{unknown}");
    let unknown = of(Some("x"), Some("p"), &[("a", scalar()), ("c", scalar())]);
    assert!(unknown.contains("no input `c`"), "{unknown}");
    let long = [("a", array![1.0, 2.0, 3.0].into_dyn()), ("b", scalar())];
    let misfit = of(Some("x"), Some("y"), &long);
    assert!(
        misfit.contains("`a` of shape [1, 2]") && misfit.contains("[3]"),
        "{misfit}"
    );
}

#[test]
fn whole_inputs_take_whole_constants() {
    let nodes = vec![node("Gather", &["x", "i"], "y")];
    let mut model = model(nodes, Vec::new(), &[1, 3]);
    model.graph.as_mut().unwrap().node[0].attribute = vec![axis_attribute(1)];
    let mut index = info("i", &[2]);
    if let Some(type_proto::Value::TensorType(t)) = &mut index.r#type.as_mut().unwrap().value {
        t.elem_type = 7;
    }
    model.graph.as_mut().unwrap().input.push(index);
    let with = |values: [f64; 2]| Selection {
        constants: vec![("i".into(), array![values[0], values[1]].into_dyn())],
        ..Selection::default()
    };
    let read = read_with(&model, &with([2.0, 0.0])).unwrap();
    assert_eq!(forward(read.network(), &[1.0, 2.0, 3.0]), [3.0, 1.0]);
    assert!(refused_with(&model, &with([0.5, 0.0])).contains("type int64, which 0.5 is not"));
}

fn axis_attribute(i: i64) -> AttributeProto {
    AttributeProto {
        name: "axis".into(),
        r#type: 2,
        i,
        ..AttributeProto::default()
    }
}

fn weight(rows: i64, columns: i64) -> TensorProto {
    let count = (rows * columns) as usize;
    let values: Vec<f32> = (0..count).map(|i| ((i * 7 % 5) as f32) - 1.5).collect();
    floats("w", &[rows, columns], &values)
}

#[test]
fn a_fixed_first_axis_is_a_batch_if_every_sample_is_mapped_alone() {
    for length in [2, 3, 25] {
        let nodes = vec![
            node("Reshape", &["x", "s"], "f"),
            node("MatMul", &["f", "w"], "p"),
            node("Relu", &["p"], "y"),
        ];
        let tensors = vec![integers("s", &[length, -1]), weight(4, 3)];
        let batched = model(nodes.clone(), tensors, &[length, 2, 2]);
        let read = onnx_from_bytes(&batched.encode_to_vec()).unwrap();
        assert_eq!(read.network().input_shape(), [2, 2]);
        assert_eq!(read.network().outputs(), 3);
        assert!(
            read.notes()[0].contains("is the batch"),
            "{:?}",
            read.notes()
        );
        // All of them in one row mix the samples.
        let tensors = vec![integers("s", &[1, -1]), weight(4 * length, 3)];
        let mixed = model(nodes, tensors, &[length, 2, 2]);
        let read = onnx_from_bytes(&mixed.encode_to_vec()).unwrap();
        assert_eq!(read.network().input_shape(), [length as usize, 2, 2]);
        assert_eq!(read.network().outputs(), 3);
        assert!(
            read.notes()[0].contains("is no batch"),
            "{:?}",
            read.notes()
        );
        // So does a difference between neighbours, of as many rows as there are.
        let rolled = vec![
            node("Gather", &["x", "i"], "r"),
            node("Sub", &["x", "r"], "y"),
        ];
        let order: Vec<i64> = (0..length).map(|i| (i + 1) % length).collect();
        let model = model(rolled, vec![integers("i", &order)], &[length, 2]);
        let read = onnx_from_bytes(&model.encode_to_vec()).unwrap();
        assert_eq!(read.network().input_shape(), [length as usize, 2]);
    }
}

#[test]
fn open_lengths_are_those_of_the_shape_that_is_stated() {
    let nodes = vec![node("ReduceMean", &["x"], "y")];
    let mut model = model(nodes, Vec::new(), &[0, 3, 0, 2]);
    model.graph.as_mut().unwrap().node[0].attribute = vec![AttributeProto {
        name: "axes".into(),
        r#type: 7,
        ints: vec![2],
        ..AttributeProto::default()
    }];
    let with = |shape: &[usize]| Selection {
        input_shape: Some(shape.to_vec()),
        ..Selection::default()
    };
    let open = refused_with(&model, &Selection::default());
    assert!(
        open.contains("axis 2 of its input `x` of shape [?, 3, ?, 2]"),
        "{open}"
    );
    assert!(open.contains("--input-shape"));
    for (shape, outputs) in [(&[3, 5, 2][..], 6), (&[3, 1, 2], 6), (&[4, 3, 5, 2], 24)] {
        let read = read_with(&model, &with(shape)).unwrap();
        assert_eq!(read.network().input_shape(), shape);
        assert_eq!(read.network().outputs(), outputs);
    }
    for shape in [&[2, 5, 2][..], &[30], &[1, 1, 3, 5, 2]] {
        let error = refused_with(&model, &with(shape));
        assert!(
            error.contains("[?, 3, ?, 2]") && error.contains("axis 0, the batch"),
            "{error}"
        );
    }
    let input = &mut model.graph.as_mut().unwrap().input[0];
    if let Some(type_proto::Value::TensorType(t)) = &mut input.r#type.as_mut().unwrap().value {
        t.shape = None;
    }
    assert!(refused_with(&model, &Selection::default()).contains("--input-shape"));
    let read = read_with(&model, &with(&[3, 4, 2])).unwrap();
    assert_eq!(read.network().input_shape(), [3, 4, 2]);
}

#[test]
fn before_version_7_values_are_repeated_along_stated_axes() {
    let flag = |name: &str, i: i64| AttributeProto {
        name: name.into(),
        ..axis_attribute(i)
    };
    let run = |op: &str, constant: &TensorProto, attributes: Vec<AttributeProto>| {
        let mut model = model(
            vec![node(op, &["x", "c"], "y")],
            vec![constant.clone()],
            &[1, 2, 3],
        );
        model.opset_import[0].version = 6;
        model.graph.as_mut().unwrap().node[0].attribute = attributes;
        let read = onnx_from_bytes(&model.encode_to_vec()).map_err(|e| e.to_string())?;
        Ok::<_, String>(forward(read.network(), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    };
    let channels = floats("c", &[2], &[10.0, 20.0]);
    let along = || vec![flag("broadcast", 1), flag("axis", 1)];
    let sums = run("Add", &channels, along()).unwrap();
    assert_eq!(sums, [11.0, 12.0, 13.0, 24.0, 25.0, 26.0]);
    let products = run("Mul", &channels, along()).unwrap();
    assert_eq!(products, [10.0, 20.0, 30.0, 80.0, 100.0, 120.0]);
    let last = floats("c", &[3], &[10.0, 20.0, 30.0]);
    let differences = run("Sub", &last, vec![flag("broadcast", 1)]).unwrap();
    assert_eq!(differences, [-9.0, -18.0, -27.0, -6.0, -15.0, -24.0]);
    let error = run("Add", &last, Vec::new()).unwrap_err();
    assert!(error.contains("version 6"), "{error}");
    let error = run(
        "Add",
        &channels,
        vec![flag("broadcast", 1), flag("axis", 3)],
    )
    .unwrap_err();
    assert!(error.contains("axis 3"), "{error}");
    let slopes = run("PRelu", &channels, Vec::new()).unwrap();
    assert_eq!(slopes, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}
