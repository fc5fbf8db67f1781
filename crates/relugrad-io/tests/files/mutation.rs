//! Random damage to good files: an error or a sound network, never a panic.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{Mlp, Scalar};
use relugrad_io::{Metadata, from_bytes, nnet_from_str, onnx_from_bytes, onnx_to_bytes, to_bytes};

use crate::models::{every_operation, images};

/// Mutations of each file.
const MUTATIONS: usize = 20_000;

/// Bytes that mean something in JSON, so that more mutations reach the checks behind the parser.
const TELLING: &[u8] = b"0123456789-.eE[]{},:\"\\ abdeilnprtuxFN\x00\xff";

fn mutate(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..6) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.remove(at)),
        4 => bytes.insert(at, TELLING[random.random_range(0..TELLING.len())]),
        _ => bytes[at] = TELLING[random.random_range(0..TELLING.len())],
    }
}

/// One to three mutations, after which half of the files have a header length that is right again.
fn damaged(good: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.random_range(1..=3) {
        if bytes.len() > 8 {
            mutate(&mut bytes, random);
        }
    }
    if random.random() && bytes.len() > 8 {
        let header = u64::from_le_bytes(*good.first_chunk().unwrap());
        let change = bytes.len() as i64 - good.len() as i64;
        let length = header.saturating_add_signed(change);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

/// Reads a damaged file; if it is accepted, everything about the network must still work.
fn read<T: Scalar>(bytes: &[u8]) -> bool {
    let Ok((network, metadata)) = from_bytes::<T>(bytes) else {
        return false;
    };
    if network.inputs() <= 64 {
        let inputs = ndarray::Array2::from_elem((1, network.inputs()), T::ONE);
        // Overflow is an error like any other; only a panic is a failure.
        let _ = network.trace(inputs.view()).map(|trace| trace.jacobian());
    }
    let again = to_bytes(&network, &metadata).unwrap();
    assert!(from_bytes::<T>(&again).is_ok());
    true
}

#[test]
fn damaged_files_never_panic() {
    let metadata = Metadata::from([("seed".into(), "7".into())]);
    let mlp = Mlp::new(&[2, 3, 2]).build::<f32>(1).unwrap();
    let files = [
        to_bytes(&every_operation::<f32>(1), &metadata).unwrap(),
        to_bytes(&every_operation::<f64>(2), &metadata).unwrap(),
        to_bytes(&mlp, &Metadata::new()).unwrap(),
        to_bytes(&images(3), &Metadata::new()).unwrap(),
    ];
    let mut random = ChaCha8Rng::seed_from_u64(20);
    let (mut refused, mut accepted) = (0, 0);
    for good in &files {
        for _ in 0..MUTATIONS {
            let bytes = damaged(good, &mut random);
            *(if read::<f32>(&bytes) {
                &mut accepted
            } else {
                &mut refused
            }) += 1;
            read::<f64>(&bytes);
        }
    }
    // Both ends of the reader are reached: a flipped mantissa bit is a sound file, most damage is not.
    assert!(
        refused > 1000 && accepted > 1000,
        "{refused} refused, {accepted} accepted"
    );
}

#[test]
fn damaged_onnx_files_never_panic() {
    let good = onnx_to_bytes(&images(4)).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(21);
    let mut accepted = 0;
    for _ in 0..MUTATIONS {
        let mut bytes = good.clone();
        for _ in 0..random.random_range(1..=3) {
            if !bytes.is_empty() {
                mutate(&mut bytes, &mut random);
            }
        }
        let Ok(model) = onnx_from_bytes(&bytes) else {
            continue;
        };
        accepted += 1;
        let inputs = ndarray::Array2::ones((1, model.network().inputs()));
        let _ = model
            .network()
            .trace(inputs.view())
            .map(|trace| trace.jacobian());
    }
    assert!(accepted > 1000, "{accepted} accepted");
}

const NNET: &str = "// comment\n2,2,1,2,\n2,2,1,\n0,\n-1,-1,\n1,1,\n0.5,0,10,\n2,1,4,\n1,-1,\n0,2,\n0.25,\n0,\n1,0.5,\n-1,\n";

#[test]
fn damaged_nnet_files_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(22);
    let mut accepted = 0;
    for _ in 0..MUTATIONS {
        let mut bytes = NNET.as_bytes().to_vec();
        for _ in 0..random.random_range(1..=3) {
            if !bytes.is_empty() {
                mutate(&mut bytes, &mut random);
            }
        }
        accepted += usize::from(nnet_from_str(&String::from_utf8_lossy(&bytes)).is_ok());
    }
    assert!(accepted > 1000, "{accepted} accepted");
}
