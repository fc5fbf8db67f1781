//! Random changes of training images.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Random changes of training images, drawn anew for every sample in every epoch.
///
/// | option | default | what is done |
/// | --- | --- | --- |
/// | `shift` | 0 | moved by up to so many pixels down and across, uniformly; what comes in is 0, or the nearest number in the box of the data |
/// | `crop` | 0 | the same, but what comes in is the image mirrored at its edge: a crop of the padded image |
/// | `flip` | no | mirrored left to right with probability ½ |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Augmentation {
    /// Pixels to shift by, with zeros coming in.
    pub shift: usize,
    /// Pixels to shift by, with the mirrored image coming in.
    pub crop: usize,
    /// Whether to mirror left to right.
    pub flip: bool,
}

impl Augmentation {
    /// Whether nothing is changed.
    pub fn is_none(&self) -> bool {
        *self == Augmentation::default()
    }

    /// Refuses samples that are no images `[C, H, W]`, and shifts that leave nothing of them.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub fn check(&self, shape: &[usize]) -> Result<()> {
        if self.is_none() {
            return Ok(());
        }
        let problem = |problem: String| Err(Error::Data { problem });
        match *shape {
            [_, height, width] => {
                let largest = self.shift.max(self.crop);
                let limit = height.min(width);
                if largest >= limit {
                    return problem(format!(
                        "images of {height} by {width} pixels cannot be shifted by {largest}; the limit is {}",
                        limit - 1
                    ));
                }
                Ok(())
            }
            _ => problem(format!(
                "samples of shape {shape:?} are no images of channels, rows and columns, so they cannot be shifted or \
                 flipped; give their shape, or no augmentation"
            )),
        }
    }

    /// Changes one image, `[C, H, W]`; `sample` is its number in the training data.
    pub(crate) fn apply<T: Scalar>(
        &self,
        shape: &[usize],
        image: &mut [T],
        seed: u64,
        epoch: usize,
        sample: usize,
    ) {
        let &[_, height, width] = shape else {
            return;
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ AUGMENT);
        random.set_stream(((epoch as u64) << 32) ^ sample as u64);
        let flip = self.flip && random.random::<bool>();
        let mut draw = |reach: usize| random.random_range(-(reach as i64)..=reach as i64) as isize;
        let shift = [draw(self.shift), draw(self.shift)];
        let crop = [draw(self.crop), draw(self.crop)];
        let old = image.to_vec();
        for (place, pixel) in image.iter_mut().enumerate() {
            let (plane, row, column) = (
                place / (height * width),
                place / width % height,
                place % width,
            );
            let column = if flip { width - 1 - column } else { column };
            let row = mirrored(row as isize + crop[0], height) as isize + shift[0];
            let column = mirrored(column as isize + crop[1], width) as isize + shift[1];
            let inside =
                (0..height as isize).contains(&row) && (0..width as isize).contains(&column);
            *pixel = match inside {
                true => old[(plane * height + row as usize) * width + column as usize],
                false => T::ZERO,
            };
        }
    }
}

/// Keeps these random numbers apart from those of the order of the samples.
const AUGMENT: u64 = 0x5eed_0a06_3e27_0001;

/// The place within `0..n` that is the mirror image of one less than `n` beyond its edge.
fn mirrored(place: isize, n: usize) -> usize {
    let last = n as isize - 1;
    let inside = if place < 0 {
        -place
    } else if place > last {
        2 * last - place
    } else {
        place
    };
    inside as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All results for one image of `[1, 3, 4]` pixels from 1 to 12.
    fn results(augmentation: Augmentation) -> Vec<Vec<f64>> {
        let results = (0..200).map(|sample| {
            let mut image: Vec<f64> = (1..=12).map(f64::from).collect();
            augmentation.apply(&[1, 3, 4], &mut image, 3, 1, sample);
            image
        });
        let mut results: Vec<Vec<f64>> = results.collect();
        results.sort_by(|a, b| a.partial_cmp(b).unwrap());
        results.dedup();
        results
    }

    #[test]
    fn flips_are_the_image_or_its_mirror() {
        let flip = Augmentation {
            flip: true,
            ..Augmentation::default()
        };
        let mirror = [4., 3., 2., 1., 8., 7., 6., 5., 12., 11., 10., 9.];
        let found = results(flip);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], mirror);
    }

    #[test]
    fn shifts_bring_in_zeros_and_crops_the_mirrored_image() {
        let shift = Augmentation {
            shift: 1,
            ..Augmentation::default()
        };
        let found = results(shift);
        assert_eq!(found.len(), 9);
        assert!(found.contains(&vec![0., 0., 0., 0., 0., 1., 2., 3., 0., 5., 6., 7.]));
        let crop = Augmentation {
            crop: 1,
            ..Augmentation::default()
        };
        let found = results(crop);
        assert_eq!(found.len(), 9);
        assert!(found.contains(&vec![6., 5., 6., 7., 2., 1., 2., 3., 6., 5., 6., 7.]));
    }

    #[test]
    fn equal_seeds_epochs_and_samples_give_equal_images() {
        let both = Augmentation {
            shift: 1,
            crop: 2,
            flip: true,
        };
        let at = |seed, epoch, sample| {
            let mut image: Vec<f64> = (1..=24).map(f64::from).collect();
            both.apply(&[2, 3, 4], &mut image, seed, epoch, sample);
            image
        };
        assert_eq!(at(1, 2, 3), at(1, 2, 3));
        let others = (0..20).filter(|&i| at(1, 2, 3) != at(1, 2, 4 + i)).count();
        assert!(others > 15);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let shift = Augmentation {
            shift: 3,
            ..Augmentation::default()
        };
        assert!(shift.check(&[1, 8, 8]).is_ok());
        assert!(shift.check(&[64]).is_err() && shift.check(&[1, 3, 8]).is_err());
        assert!(Augmentation::default().check(&[64]).is_ok());
    }
}
