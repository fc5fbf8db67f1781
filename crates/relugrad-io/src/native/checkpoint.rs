//! A model with arrays beside it and a checksum: what a training needs to go on.

use std::path::Path;

use relugrad::{Network, Scalar};

use super::container::{NewTensor, looks_right, pack};
use super::read::{beside, read};
use super::write::{described, encode, tensors};
use super::{BESIDE, CHECKSUM_KEY};
use crate::error::{Error, Result};
use crate::file::read_file;
use crate::limits::{Budget, Limits};
use crate::model::Metadata;

/// What stands in place of the checksum while it is computed.
const BLANK: &str = "00000000";

/// A network with strings and further arrays, such as the moments of an optimizer.
///
/// Its file is a model file, which all readers of models accept; the arrays are called
/// `training/NAME` there. The metadata key `checksum` has the CRC-32C of the whole file, in
/// hexadecimal, taken with zeros in its place: no change of a single byte goes unnoticed.
#[derive(Clone, Debug)]
pub struct Checkpoint<T> {
    /// The network.
    pub network: Network<T>,
    /// Strings that accompany it.
    pub metadata: Metadata,
    /// Arrays by name, each of one axis.
    pub arrays: Vec<(String, Vec<T>)>,
}

impl<T: Scalar> Checkpoint<T> {
    /// The bytes of its file. Equal checkpoints give equal bytes.
    ///
    /// # Errors
    /// Those of [`to_bytes`](super::to_bytes).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut metadata = described(&self.network, &self.metadata)?;
        metadata.insert(CHECKSUM_KEY.into(), BLANK.into());
        let mut tensors = tensors(&self.network)?;
        for (name, values) in &self.arrays {
            let (dtype, bytes) = encode(values);
            tensors.push(NewTensor {
                name: format!("{BESIDE}{name}"),
                dtype,
                shape: vec![values.len()],
                bytes,
            });
        }
        let mut file = pack(&metadata, &tensors)?;
        let checksum = crc32c::crc32c(&file);
        let place = place(&file, Some(BLANK)).expect("it was just written");
        file[place..place + BLANK.len()].copy_from_slice(format!("{checksum:08x}").as_bytes());
        Ok(file)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// Those of [`from_bytes`](super::from_bytes); [`Error::Checksum`] and [`Error::NoChecksum`]
    /// for damaged bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint<T>> {
        Checkpoint::read(bytes, &Limits::of_process().budget(bytes.len() as u64))
    }

    fn read(bytes: &[u8], budget: &Budget) -> Result<Checkpoint<T>> {
        if place(bytes, None).is_none() {
            return Err(Error::NoChecksum);
        }
        let (network, metadata) = read(bytes, budget)?;
        Ok(Checkpoint {
            network,
            metadata,
            arrays: beside(bytes, budget)?,
        })
    }

    /// Reads the checkpoint of a file.
    ///
    /// # Errors
    /// [`Error::Read`], and those of [`from_bytes`](Self::from_bytes) within [`Error::InFile`].
    pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint<T>> {
        let path = path.as_ref();
        let (bytes, budget) = read_file(path, looks_right)?;
        Checkpoint::read(&bytes, &budget).map_err(|problem| problem.in_file(path))
    }
}

/// Compares the checksum that a file states with that of its bytes.
pub(super) fn verify(bytes: &[u8], stated: &str) -> Result<()> {
    let found = u32::from_str_radix(stated, 16).unwrap_or(0);
    let mut blank = bytes.to_vec();
    if let Some(place) = place(bytes, Some(stated)) {
        blank[place..place + BLANK.len()].copy_from_slice(BLANK.as_bytes());
    }
    let expected = crc32c::crc32c(&blank);
    if expected == found && format!("{found:08x}") == stated {
        return Ok(());
    }
    Err(Error::Checksum { expected, found })
}

/// Where the checksum's value stands, whatever it is if no `value` is given.
///
/// A string that a user put into the metadata has its quotation marks escaped, so it cannot be
/// mistaken for the entry.
fn place(bytes: &[u8], value: Option<&str>) -> Option<usize> {
    let key = format!("\"{CHECKSUM_KEY}\":\"");
    let entry = format!("{key}{}", value.unwrap_or_default());
    let start = bytes
        .windows(entry.len())
        .position(|window| window == entry.as_bytes())?;
    let fits = value.is_none_or(|value| value.len() == BLANK.len());
    fits.then_some(start + key.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_bytes;
    use relugrad::Mlp;

    fn checkpoint() -> Checkpoint<f32> {
        Checkpoint {
            network: Mlp::new(&[2, 3, 2]).build(0).unwrap(),
            metadata: Metadata::from([
                ("step".into(), "7".into()),
                (
                    "quoted".into(),
                    "\"checksum\":\"00000000\" and 00000000".into(),
                ),
            ]),
            arrays: vec![("first".into(), vec![0.25; 17]), ("none".into(), vec![])],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = checkpoint().to_bytes().unwrap();
        let read = Checkpoint::<f32>::from_bytes(&bytes).unwrap();
        assert_eq!(read.arrays, checkpoint().arrays);
        assert_eq!(read.metadata, checkpoint().metadata);
        assert_eq!(read.to_bytes().unwrap(), bytes);
        let (network, _) = from_bytes::<f32>(&bytes).unwrap();
        assert_eq!(
            network.parameters().values(),
            checkpoint().network.parameters().values()
        );
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = checkpoint().to_bytes().unwrap();
        for i in 0..good.len() {
            for flip in [0x01, 0x20, 0xff] {
                let mut bad = good.clone();
                bad[i] ^= flip;
                assert!(Checkpoint::<f32>::from_bytes(&bad).is_err(), "byte {i}");
            }
        }
    }
}
