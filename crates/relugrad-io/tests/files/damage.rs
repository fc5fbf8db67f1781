//! One file for every way of being wrong, and what is said about it.

use relugrad_io::{Error, FORMAT, MAX_WIDTH, Metadata, from_bytes, load, to_bytes};

use crate::models::{Tensor, doubles, every_operation, file, raw};

const INPUT: &str = r#"{"name":"x","operation":"input","inputs":[],"width":2}"#;
const DENSE: &str = r#"{"name":"d","operation":"dense","inputs":["x"],"width":1,"bias":true}"#;
const RELU: &str = r#"{"name":"r","operation":"relu","inputs":["d"],"width":1}"#;

fn graph(nodes: &[&str]) -> String {
    format!(r#"{{"format":1,"nodes":[{}]}}"#, nodes.join(","))
}

fn weight() -> Tensor<'static> {
    ("d.weight", "F64", &[1, 2], doubles(&[1.0, -2.0]))
}

fn bias() -> Tensor<'static> {
    ("d.bias", "F64", &[1], doubles(&[0.5]))
}

fn refused(bytes: &[u8]) -> Error {
    from_bytes::<f64>(bytes).unwrap_err()
}

/// What is said about a graph whose weights are there.
fn refused_graph(nodes: &[&str]) -> Error {
    refused(&file(&graph(nodes), &[weight(), bias()]))
}

/// What is said about weights whose graph is right.
fn refused_tensors(tensors: &[Tensor]) -> Error {
    refused(&file(&graph(&[INPUT, DENSE, RELU]), tensors))
}

#[test]
fn the_undamaged_file_loads() {
    let bytes = file(&graph(&[INPUT, DENSE, RELU]), &[weight(), bias()]);
    let (network, metadata) = from_bytes::<f64>(&bytes).unwrap();
    let x = ndarray::array![[1.0, 0.25], [0.0, 1.0]];
    let expected = ndarray::array![[1.0], [0.0]];
    assert_eq!(network.forward(x.view()).unwrap(), expected);
    assert!(metadata.is_empty());
}

#[test]
fn errors_name_the_file_and_its_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, b"short").unwrap();
    let error = load::<f32>(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("model.safetensors: the file has 5 bytes")
    );
    assert!(matches!(error.problem(), Error::Length { .. }));
    let error = load::<f32>(folder.path().join("absent")).unwrap_err();
    assert!(matches!(error, Error::Read { .. }));
}

#[test]
fn every_truncation_and_any_added_byte_is_found() {
    let bytes = to_bytes(&every_operation::<f32>(0), &Metadata::new()).unwrap();
    for length in 0..bytes.len() {
        let error = refused(&bytes[..length]);
        assert!(matches!(error, Error::Length { found, .. } if found == length as u64));
    }
    let longer = [&bytes[..], b"x"].concat();
    let length = bytes.len() as u64;
    let error = refused(&longer);
    assert!(matches!(error, Error::Length { expected, found }
        if (expected, found) == (length, length + 1)));
}

#[test]
fn a_header_beyond_the_file_is_not_looked_for() {
    let error = refused(&u64::MAX.to_le_bytes());
    assert!(matches!(
        error,
        Error::Length {
            expected: u64::MAX,
            found: 8
        }
    ));
}

#[test]
fn other_bytes_are_no_safetensors_file() {
    let framed = |header: &[u8]| [&(header.len() as u64).to_le_bytes(), header].concat();
    for header in [&b"not JSON"[..], b"[]", b"\xff\xff", b"", b"{\"a\":3}"] {
        let error = refused(&framed(header));
        assert!(matches!(error, Error::NotSafetensors { .. }));
    }
    let offsets = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#;
    let error = refused(&framed(offsets.as_bytes()));
    assert!(matches!(error, Error::NotSafetensors { .. }));
    let product = format!(
        r#"{{"a":{{"dtype":"F32","shape":[{0},{0}],"data_offsets":[0,0]}}}}"#,
        u64::MAX
    );
    let error = refused(&framed(product.as_bytes()));
    assert!(matches!(error, Error::NotSafetensors { .. }));
    let nested = format!("{{\"a\":{}", "[".repeat(100_000));
    let error = refused(&framed(nested.as_bytes()));
    assert!(matches!(error, Error::NotSafetensors { .. }));
}

#[test]
fn files_of_other_programs_have_no_graph() {
    for metadata in ["", r#""__metadata__":{"format":"pt"}"#] {
        let error = refused(&raw(metadata, &[weight()]));
        assert!(matches!(error, Error::MissingGraph));
        assert!(error.to_string().contains("without relugrad's graph"));
    }
}

#[test]
fn a_graph_must_be_json_of_the_right_form() {
    let texts = [
        "",
        "{}",
        "[]",
        r#"{"format":1}"#,
        r#"{"format":"1","nodes":[]}"#,
        r#"{"format":-1,"nodes":[]}"#,
        r#"{"format":1,"nodes":[{}]}"#,
        r#"{"format":1,"nodes":[],"colour":"red"}"#,
        r#"{"format":1,"nodes":[{"name":"x","operation":"input","inputs":[],"width":-2}]}"#,
        r#"{"format":1,"nodes":[{"name":"x","operation":"leaky-relu","inputs":[],"width":2,"slope":1e999}]}"#,
    ];
    for text in texts {
        let error = refused(&file(text, &[]));
        assert!(matches!(error, Error::MalformedGraph { .. }), "{text}");
    }
}

#[test]
fn later_formats_need_a_newer_program() {
    for found in [0, FORMAT + 1, u64::MAX] {
        let text = format!(r#"{{"format":{found},"modules":[]}}"#);
        let error = refused(&file(&text, &[]));
        assert!(matches!(error, Error::FormatVersion { found: f, .. } if f == found));
    }
}

#[test]
fn unknown_operations_are_listed_against_the_known_ones() {
    let conv = r#"{"name":"c","operation":"conv3d","inputs":["x"],"width":1}"#;
    let error = refused_graph(&[INPUT, conv]);
    assert!(matches!(&error, Error::UnknownOperation { node, .. } if node == "c"));
    let text = error.to_string();
    assert!(text.contains("they have input, dense, conv2d, ") && text.ends_with("abs, clip"));
}

#[test]
fn attributes_belong_to_their_operations() {
    let dense = r#"{"name":"d","operation":"dense","inputs":["x"],"width":1}"#;
    let leaky = r#"{"name":"l","operation":"leaky-relu","inputs":["d"],"width":1}"#;
    let relu = r#"{"name":"r","operation":"relu","inputs":["d"],"width":1,"slope":0.1}"#;
    let unknown = INPUT.replace("\"width\":2", "\"width\":2,\"kernel\":3");
    for (nodes, said) in [
        (
            &[INPUT, dense][..],
            "node `d` of operation `dense`: missing field `bias`",
        ),
        (&[INPUT, leaky], "missing field `slope`"),
        (&[INPUT, relu], "it has no attribute `slope`"),
        (
            &[&unknown],
            "node `x` of operation `input`: it has no attribute `kernel`",
        ),
    ] {
        let error = refused_graph(nodes);
        assert!(matches!(error, Error::Attribute { .. }));
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn names_are_unique_and_not_empty() {
    let error = refused_graph(&[INPUT, DENSE, DENSE]);
    assert!(matches!(error, Error::DuplicateName { node } if node == "d"));
    let nameless = INPUT.replace("\"x\"", "\"\"");
    let error = refused_graph(&[&nameless]);
    assert!(matches!(
        error,
        Error::Network(relugrad::Error::NodeName { .. })
    ));
}

#[test]
fn references_point_to_nodes_listed_before() {
    let error = refused_graph(&[INPUT, &DENSE.replace("[\"x\"]", "[\"y\"]")]);
    assert!(matches!(error, Error::UnknownInput { node, input } if node == "d" && input == "y"));
    for nodes in [
        &[INPUT, RELU, DENSE][..],
        &[INPUT, &DENSE.replace("[\"x\"]", "[\"d\"]")],
        &[INPUT, &DENSE.replace("[\"x\"]", "[\"r\"]"), RELU],
        &[DENSE, INPUT],
    ] {
        let error = refused_graph(nodes);
        assert!(matches!(error, Error::ForwardReference { .. }));
    }
}

#[test]
fn each_operation_has_its_number_of_inputs() {
    let add = r#"{"name":"s","operation":"add","inputs":[],"width":2}"#;
    for nodes in [
        &[INPUT, &DENSE.replace("[\"x\"]", "[]")][..],
        &[INPUT, &DENSE.replace("[\"x\"]", "[\"x\",\"x\"]")],
        &[INPUT, add],
        &[&INPUT.replace("[]", "[\"x\"]")],
    ] {
        let error = refused_graph(nodes).to_string();
        assert!(
            error.contains("it reads") && error.contains("nodes, but `"),
            "{error}"
        );
    }
}

#[test]
fn the_graph_is_one_network() {
    let second = INPUT.replace("\"x\"", "\"y\"");
    let unused = r#"{"name":"u","operation":"relu","inputs":["x"],"width":2}"#;
    for nodes in [&[][..], &[INPUT, &second], &[INPUT, unused, DENSE, RELU]] {
        assert!(matches!(
            refused_network(nodes),
            relugrad::Error::InputNodes { .. } | relugrad::Error::UnusedNode { .. }
        ));
    }
}

fn refused_network(nodes: &[&str]) -> relugrad::Error {
    let tensors = match nodes.contains(&DENSE) {
        true => vec![weight(), bias()],
        false => Vec::new(),
    };
    match refused(&file(&graph(nodes), &tensors)) {
        Error::Network(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn widths_follow_from_the_inputs() {
    let error = refused_graph(&[INPUT, DENSE, &RELU.replace("\"width\":1", "\"width\":2")]);
    assert_eq!(error.to_string(), "r has shape [2] but [1] is needed");
    let sum = r#"{"name":"s","operation":"add","inputs":["d","x"],"width":1}"#;
    let error = refused_graph(&[INPUT, DENSE, sum]);
    let expected = "a branch of s has shape [2] but [1] is needed";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn widths_are_neither_zero_nor_absurd() {
    for width in [0, MAX_WIDTH + 1, usize::MAX] {
        for node in [
            INPUT.replace('2', &width.to_string()),
            DENSE.replace('1', &width.to_string()),
        ] {
            let error = refused_graph(&[&node]);
            assert!(matches!(error, Error::WidthRange { width: w, .. } if w == width));
        }
    }
    // A width within the limit allocates nothing when its weights are not there.
    let wide = DENSE.replace('1', &MAX_WIDTH.to_string());
    assert!(matches!(
        refused_graph(&[INPUT, &wide]),
        Error::Shape { .. }
    ));
}

#[test]
fn shapes_are_those_of_the_graph() {
    let transposed: Tensor = ("d.weight", "F64", &[2, 1], doubles(&[1.0, 2.0]));
    let error = refused_tensors(&[transposed, bias()]);
    assert_eq!(
        error.to_string(),
        "tensor `d.weight` has shape [2, 1] but the graph asks for [1, 2]"
    );
    let matrix: Tensor = ("d.bias", "F64", &[1, 1], doubles(&[1.0]));
    assert!(matches!(
        refused_tensors(&[weight(), matrix]),
        Error::Shape { .. }
    ));
}

#[test]
fn other_number_types_are_refused() {
    for (dtype, size) in [("F8_E5M2", 1), ("I64", 8), ("BOOL", 1)] {
        let other: Tensor = ("d.bias", dtype, &[1], vec![0; size]);
        let error = refused_tensors(&[weight(), other]);
        assert!(matches!(error, Error::Dtype { found, .. } if found == dtype));
    }
}

#[test]
fn tensors_and_nodes_correspond() {
    let error = refused_tensors(&[weight()]);
    assert!(
        matches!(error, Error::MissingTensor { tensor, node } if tensor == "d.bias" && node == "d")
    );
    for name in ["extra", "d.scale", "D.weight"] {
        let extra: Tensor = (name, "F32", &[1], vec![0; 4]);
        let error = refused_tensors(&[weight(), bias(), extra]);
        assert!(matches!(error, Error::ExtraTensor { tensor } if tensor == name));
    }
}

#[test]
fn weights_are_finite() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let weight: Tensor = ("d.weight", "F64", &[1, 2], doubles(&[1.0, value]));
        let error = refused_tensors(&[weight, bias()]);
        assert!(matches!(error, Error::NotFinite { index, .. } if index == [0, 1]));
    }
}

#[test]
fn doubles_beyond_single_precision_are_not_rounded_to_infinity() {
    let large: Tensor = ("d.bias", "F64", &[1], doubles(&[1e39]));
    let bytes = file(&graph(&[INPUT, DENSE, RELU]), &[weight(), large]);
    assert!(from_bytes::<f64>(&bytes).is_ok());
    let error = from_bytes::<f32>(&bytes).unwrap_err();
    assert!(matches!(error, Error::TooLarge { index, value: 1e39, .. } if index == [0]));
}

#[test]
fn the_format_keeps_its_own_key() {
    let metadata = Metadata::from([("relugrad".to_owned(), String::new())]);
    let error = to_bytes(&every_operation::<f32>(0), &metadata).unwrap_err();
    assert!(matches!(error, Error::ReservedKey { .. }));
}
