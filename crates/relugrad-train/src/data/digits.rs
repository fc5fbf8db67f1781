//! The built-in data set: small, so that a first run needs no download.

use flate2::read::GzDecoder;
use ndarray::Array2;
use std::io::Read;

use super::Dataset;

/// 1797 lines of 64 pixels in `0..=16` and a label; see `data/README.md` of this crate.
const CSV_GZ: &[u8] = include_bytes!("../../data/digits.csv.gz");

/// Largest value of a pixel in the file.
const WHITE: f32 = 16.0;

/// The data set `digits`: 1797 handwritten digits of `1×8×8` pixels in 10 classes.
///
/// Pixel `p` of the file, a count in `0..=16` of the dark dots in a 4×4 block of the scan, becomes
/// `p / 16`: exact in `f32`. There is no official split: take your own with
/// [`stratified_split`](super::stratified_split) and say which.
///
/// The data are the test part of E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten
/// Digits*, UCI Machine Learning Repository, 1998, licensed under
/// [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/), in the file that scikit-learn ships.
///
/// ```
/// let digits = relugrad_train::data::digits();
/// assert_eq!(digits.images().dim(), (1797, 64));
/// assert_eq!(digits.labels()[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
/// assert_eq!(digits.images()[[0, 2]], 5.0 / 16.0);
/// ```
pub fn digits() -> Dataset {
    let rows: Vec<Vec<u8>> = csv().lines().map(row).collect();
    let labels = rows.iter().map(|row| usize::from(row[64])).collect();
    let pixels = rows.iter().flat_map(|row| &row[..64]);
    let pixels = pixels.map(|&p| f32::from(p) / WHITE).collect();
    let images = Array2::from_shape_vec((rows.len(), 64), pixels).expect("64 pixels in each row");
    Dataset::new("digits", images, labels, 10, vec![1, 8, 8]).expect("the embedded file is valid")
}

/// The decompressed file.
fn csv() -> String {
    let mut csv = String::new();
    GzDecoder::new(CSV_GZ)
        .read_to_string(&mut csv)
        .expect("the embedded file is valid gzip");
    csv
}

/// The numbers of one line.
fn row(line: &str) -> Vec<u8> {
    line.split(',')
        .map(|n| n.parse().expect("the embedded file holds bytes"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Crc;

    #[test]
    fn embedded_file_is_the_published_one() {
        let (text, mut crc) = (csv(), Crc::new());
        crc.update(text.as_bytes());
        assert_eq!((crc.amount(), crc.sum()), (264_712, 0x2ebe_3bb7));
        assert!(text.ends_with('\n') && text.lines().all(|line| row(line).len() == 65));
    }

    #[test]
    fn labels_have_the_published_histogram() {
        let data = digits();
        let mut histogram = [0; 10];
        data.labels()
            .iter()
            .for_each(|&label| histogram[label] += 1);
        assert_eq!(
            histogram,
            [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        );
        assert_eq!(data.labels()[1787..], [5, 4, 8, 8, 4, 9, 0, 8, 9, 8]);
    }

    #[test]
    fn pixels_are_sixteenths_that_fill_the_box() {
        let data = digits();
        let sixteenths = data.images().mapv(|x| x * 16.0);
        assert!(sixteenths.iter().all(|x| x.fract() == 0.0 && *x <= 16.0));
        assert!(sixteenths.iter().any(|&x| x == 0.0) && sixteenths.iter().any(|&x| x == 16.0));
        assert_eq!(sixteenths.iter().map(|&x| x as u64).sum::<u64>(), 561_718);
    }

    #[test]
    fn first_image_is_row_major() {
        let data = digits();
        let row: Vec<f32> = data
            .images()
            .row(0)
            .iter()
            .skip(8)
            .take(8)
            .map(|x| x * 16.0)
            .collect();
        assert_eq!(row, [0.0, 0.0, 13.0, 15.0, 10.0, 15.0, 5.0, 0.0]);
    }
}
