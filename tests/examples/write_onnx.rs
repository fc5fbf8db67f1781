//! Writes the files that `tests/golden/written.py` hands to other programs: `SEED.f64.onnx` and
//! `SEED.f32.onnx`.
//!
//!     cargo run -p relugrad-tests --example write_onnx -- FOLDER

use std::error::Error;
use std::path::PathBuf;

use relugrad_io::{onnx_to_bytes, write_whole};
use relugrad_tests::layered::every_attribute;
use relugrad_tests::written::SEEDS;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("which folder?")?);
    for seed in SEEDS {
        let network = every_attribute(seed);
        for (precision, bytes) in [
            ("f64", onnx_to_bytes(&network)?),
            ("f32", onnx_to_bytes(&network.cast::<f32>().unwrap())?),
        ] {
            write_whole(
                &folder.join(format!("{seed}.{precision}.onnx")),
                &bytes,
                true,
            )?;
        }
    }
    Ok(())
}
