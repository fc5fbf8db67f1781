//! Nodes of which every one is narrow enough, and which together hold more than there is.

use super::*;

/// So many doublings of two values, so many gates, and a Gather of two.
fn doubled(times: usize, gates: usize) -> Vec<NodeProto> {
    let names: Vec<String> = (0..=times + gates).map(|i| format!("v{i}")).collect();
    let mut nodes = vec![node("Identity", &["x"], "v0")];
    for i in 0..times + gates {
        let (from, to) = (names[i].as_str(), names[i + 1].as_str());
        nodes.push(match i < times {
            true => NodeProto {
                attribute: vec![integer("axis", 1)],
                ..node("Concat", &[from, from], to)
            },
            false => node("Relu", &[from], to),
        });
    }
    let mut last = node("Gather", &[&names[times + gates], "i"], "y");
    last.attribute = vec![integer("axis", 1)];
    nodes.push(last);
    nodes
}

#[test]
fn values_of_all_nodes_are_paid_from_the_budget() {
    for (times, gates) in [(25, 0), (25, 1), (25, 40), (22, 1), (18, 100)] {
        let error = refused_nodes(doubled(times, gates), vec![integers("i", &[0, 1])]);
        assert!(
            error.contains("values for one input")
                && error.contains("--file-memory SIZE allows more"),
            "{error}"
        );
    }
    let model = model(doubled(10, 40), vec![integers("i", &[0, 1])], &[1, 2]);
    assert!(onnx_from_bytes(&model.encode_to_vec()).is_ok());
}

#[test]
fn padding_of_a_convolution_is_paid_too() {
    let mut conv = node("Conv", &["x", "w"], "y");
    conv.attribute = vec![AttributeProto {
        name: "pads".into(),
        ints: vec![4000; 4],
        r#type: 7,
        ..AttributeProto::default()
    }];
    let weight = floats("w", &[1, 1, 1, 1], &[1.0]);
    let error = refused(&model(vec![conv], vec![weight], &[1, 1, 4, 4]));
    assert!(error.contains("--file-memory SIZE allows more"), "{error}");
}
