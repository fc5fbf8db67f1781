//! What models are read from: folders, files in several precisions, and files that are not read.

use relugrad::Mlp;
use relugrad_io::{
    Metadata, StateDict, load_model, onnx_from_bytes, onnx_to_bytes, save, save_over,
};

#[test]
fn a_folder_is_its_best_model_or_its_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let network = |width| Mlp::new(&[2, width, 1]).build::<f32>(1).unwrap();
    let refused = || load_model(folder.path()).unwrap_err().to_string();
    assert!(
        refused().contains("nor is there any other model"),
        "{}",
        refused()
    );
    std::fs::create_dir(place("models")).unwrap();
    save(place("models/a.safetensors"), &network(3), &Metadata::new()).unwrap();
    let read = load_model(folder.path()).unwrap();
    assert_eq!(read.network().parameters().len(), 13);
    assert!(read.is_single() && read.notes()[0].ends_with("a.safetensors"));
    save(place("last.safetensors"), &network(4), &Metadata::new()).unwrap();
    let said = refused();
    assert!(
        said.contains("last.safetensors") && said.contains("a.safetensors"),
        "{said}"
    );
    save(place("best.safetensors"), &network(5), &Metadata::new()).unwrap();
    let read = load_model(folder.path()).unwrap();
    assert_eq!(read.network().parameters().len(), 21);
}

#[test]
fn pickled_files_are_refused_with_what_converts_them() {
    for name in ["a/m.pt", "m.PTH", "model.bin"] {
        let said = load_model(name).unwrap_err().to_string();
        assert!(said.contains("weights_only=True"), "{said}");
        let said = StateDict::load(name).unwrap_err().to_string();
        assert!(said.contains("safetensors.torch"), "{said}");
    }
}

#[test]
fn models_know_the_precision_of_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let network = Mlp::new(&[2, 3, 1]).build::<f64>(1).unwrap();
    save(&path, &network, &Metadata::new()).unwrap();
    assert!(!load_model(&path).unwrap().is_single());
    let narrow = network.cast::<f32>().unwrap();
    save_over(&path, &narrow, &Metadata::new()).unwrap();
    assert!(load_model(&path).unwrap().is_single());
    let read = |bytes: Vec<u8>| onnx_from_bytes(&bytes).unwrap().is_single();
    assert!(read(onnx_to_bytes(&narrow).unwrap()));
    assert!(!read(onnx_to_bytes(&network).unwrap()));
}

/// Tensors of 16 bits are read, each number exactly.
#[test]
fn half_precision_is_exact() {
    for (dtype, bits, expected) in [
        (
            "F16",
            [0x3c00u16, 0xc200, 0x0001],
            [1.0, -3.0, (2f64).powi(-24)],
        ),
        (
            "BF16",
            [0x3f80, 0xc040, 0x0080],
            [1.0, -3.0, (2f64).powi(-126)],
        ),
    ] {
        let header = format!(
            r#"{{"0.bias":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,2]}},"0.weight":{{"dtype":"{dtype}","shape":[1,2],"data_offsets":[2,6]}}}}"#
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(bits.iter().flat_map(|b| b.to_le_bytes()));
        let state = StateDict::from_bytes(&bytes).unwrap();
        let network = Mlp::new(&[2, 1]).build(0).unwrap();
        let model = state.into_model(network).unwrap();
        let [bias, first, second] = expected;
        assert_eq!(model.network().parameters().values(), [first, second, bias]);
        assert!(model.is_single());
    }
}
