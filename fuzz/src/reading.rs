//! Reading a damaged file, and using what is accepted.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use relugrad::{Mlp, Network, Scalar};
use relugrad_io::{
    Checkpoint, Metadata, Model, NpzArchive, StateDict, from_bytes, nnet_from_str, npy_from_bytes,
    onnx_from_bytes, onnx_to_bytes, to_bytes,
};
use relugrad_train::compare::Comparison;
use relugrad_train::data::{Dataset, Scale, Source, load_cifar10, load_idx};
use relugrad_train::{Architecture, Configuration};

/// Entries of one sample in a network that is small enough to be run.
const SMALL: usize = 20_000;

/// Computes what a network that was accepted computes.
fn run<T: Scalar>(network: &Network<T>) -> Option<Array2<T>> {
    let width: usize = network.nodes().iter().map(|node| node.width()).sum();
    let work: usize = network
        .nodes()
        .iter()
        .map(|node| node.multiply_adds())
        .sum();
    if width > SMALL || work > 20 * SMALL {
        return None;
    }
    let inputs = Array2::from_shape_fn((2, network.inputs()), |(i, j)| {
        T::from_f64(((i + 3 * j) % 7) as f64 / 4.0 - 0.5)
    });
    // Numbers that overflow are an error like any other.
    let trace = network.trace(inputs.view()).ok()?;
    let logits = trace.logits().to_owned();
    assert!(
        logits.iter().all(|v| v.is_finite()),
        "logits that are not finite"
    );
    if network.inputs() * network.outputs() <= SMALL {
        // One that overflows is an error too.
        if let Ok(jacobian) = trace.jacobian() {
            assert_eq!(jacobian.dim(), (2, network.outputs(), network.inputs()));
            assert!(jacobian.iter().all(|v| v.is_finite()));
        }
    }
    Some(logits)
}

/// Writes the network in both formats, where they can hold it, and reads it back.
fn write_again(model: &Model) {
    let network = model.network();
    let logits = run(network);
    let bytes = to_bytes(network, &Metadata::new()).expect("what was read can be written");
    let (again, _) = from_bytes::<f64>(&bytes).expect("what was written can be read");
    assert_eq!(run(&again), logits);
    let Ok(bytes) = onnx_to_bytes(network) else {
        return;
    };
    let again = onnx_from_bytes(&bytes).expect("an export can be read");
    if let (Some(found), Some(logits)) = (run(again.network()), logits) {
        let size = logits.iter().fold(1.0, |size: f64, v| size.max(v.abs()));
        let near = found
            .iter()
            .zip(&logits)
            .all(|(a, b)| (a - b).abs() <= 1e-6 * size);
        assert!(
            found.dim() == logits.dim() && near,
            "an export computes something else"
        );
    }
}

pub(crate) fn onnx(bytes: &[u8]) -> bool {
    let model = onnx_from_bytes(bytes);
    model.as_ref().inspect(|model| write_again(model)).is_ok()
}

pub(crate) fn nnet(bytes: &[u8]) -> bool {
    let model = nnet_from_str(&String::from_utf8_lossy(bytes));
    model.as_ref().inspect(|model| write_again(model)).is_ok()
}

pub(crate) fn npy(bytes: &[u8]) -> bool {
    let array = npy_from_bytes(bytes);
    let finite = |array: &relugrad_io::NumpyArray| array.values.iter().all(|v| v.is_finite());
    assert!(array.as_ref().map_or(true, finite));
    array.is_ok()
}

pub(crate) fn npz(bytes: &[u8], folder: &Path) -> bool {
    let path = put(folder, "a.npz", bytes);
    let Ok(mut archive) = NpzArchive::open(&path) else {
        return false;
    };
    let read = ["x", "y"].map(|name| archive.read(&[name]).is_ok());
    let data = Source::new(path.to_string_lossy()).load_all();
    read == [true; 2] && data.is_ok()
}

pub(crate) fn safetensors(bytes: &[u8]) -> bool {
    let narrow = from_bytes::<f32>(bytes);
    if let Ok((network, _)) = &narrow {
        run(network);
    }
    let Ok((network, metadata)) = from_bytes::<f64>(bytes) else {
        return false;
    };
    run(&network);
    let again = to_bytes(&network, &metadata).expect("what was read can be written");
    let (network, read) = from_bytes::<f64>(&again).expect("what was written can be read");
    assert_eq!(read, metadata);
    assert_eq!(to_bytes(&network, &metadata).expect("again"), again);
    true
}

pub(crate) fn checkpoint(bytes: &[u8]) -> bool {
    let Ok(checkpoint) = Checkpoint::<f32>::from_bytes(bytes) else {
        return false;
    };
    let again = checkpoint.to_bytes().expect("what was read can be written");
    let read = Checkpoint::<f32>::from_bytes(&again).expect("what was written can be read");
    assert_eq!(read.arrays, checkpoint.arrays);
    assert_eq!(read.metadata, checkpoint.metadata);
    true
}

pub(crate) fn state(bytes: &[u8]) -> bool {
    let Ok(state) = StateDict::from_bytes(bytes) else {
        return false;
    };
    let _ = state.outputs();
    let network = Mlp::new(&[3, 4, 2]).build::<f64>(0).expect("a network");
    let model = state.into_model(network);
    if let Ok(model) = &model {
        write_again(model);
    }
    model.is_ok()
}

/// What every set of samples holds.
fn check(data: &Dataset) {
    assert_eq!(data.truth().len(), data.images().nrows());
    let values = data.values().into_iter().flatten();
    assert!(values.chain(data.weights()).all(|value| value.is_finite()));
    assert_eq!(
        data.shape().iter().product::<usize>(),
        data.images().ncols()
    );
    assert!(data.images().iter().all(|x| (0.0..=1.0).contains(x)));
    assert!(data.labels().iter().all(|&label| label < data.classes()));
}

/// Writes a file of a data set, beside sound ones that the corpus has under the same names.
pub(crate) fn idx(name: &str, bytes: &[u8], folder: &Path) -> bool {
    let folder = beside(folder, "idx", name);
    put(&folder, name, bytes);
    let split = load_idx(&folder);
    if let Ok(split) = &split {
        check(&split.train);
        check(&split.test);
    }
    split.is_ok()
}

/// A folder with the other files that a file of this name needs, which are made once.
fn beside(folder: &Path, kind: &str, name: &str) -> PathBuf {
    let own = folder.join(format!("{kind}-{name}"));
    if own.exists() {
        return own;
    }
    fs::create_dir(&own).expect("a folder");
    let stem = |name: &str| name.trim_end_matches(".gz").to_owned();
    for seed in crate::seeds(crate::Format::Idx) {
        if stem(&seed.name) != stem(name) && !seed.name.ends_with(".gz") {
            fs::write(own.join(&seed.name), &seed.bytes).expect("a file");
        }
    }
    own
}

pub(crate) fn cifar(bytes: &[u8], folder: &Path) -> bool {
    put(folder, "data_batch_1.bin", bytes);
    put(folder, "test_batch.bin", bytes);
    let split = load_cifar10(folder);
    if let Ok(split) = &split {
        check(&split.train);
    }
    split.is_ok()
}

pub(crate) fn csv(name: &str, bytes: &[u8], folder: &Path) -> bool {
    let ending = if name.ends_with(".gz") {
        "csv.gz"
    } else {
        "csv"
    };
    let path = put(folder, &format!("a.{ending}"), bytes);
    let source = Source {
        scale: Scale::Range,
        ..Source::new(path.to_string_lossy())
    };
    let data = source.load_all();
    if let Ok(data) = &data {
        check(data);
    }
    data.is_ok()
}

pub(crate) fn architecture(bytes: &[u8]) -> bool {
    let Ok(architecture) = Architecture::from_toml(&String::from_utf8_lossy(bytes)) else {
        return false;
    };
    let network = architecture.build::<f32>(&[2, 6, 6], 3, 0);
    if let Ok(network) = &network {
        assert_eq!(network.outputs(), 3);
        run(network);
    }
    network.is_ok()
}

pub(crate) fn configuration(bytes: &[u8]) -> bool {
    let Ok(read) = Configuration::from_toml(&String::from_utf8_lossy(bytes)) else {
        return false;
    };
    let again = Configuration::from_toml(&read.to_toml()).expect("what was written can be read");
    assert_eq!(again.to_toml(), read.to_toml());
    read.check().is_ok()
}

pub(crate) fn results(bytes: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<Comparison>(bytes) else {
        return false;
    };
    let text = serde_json::to_string(&read).expect("what was read can be written");
    let again: Comparison = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(again, read);
    true
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("the folder is writable");
    path
}
