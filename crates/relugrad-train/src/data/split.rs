//! Training and test samples, and how one data set becomes both.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Dataset, Truth};
use crate::error::{Error, Result};

/// Samples to train on, and samples to test on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Split {
    /// The samples to train on.
    pub train: Dataset,
    /// The samples to test on, of the same shape and number of classes.
    pub test: Dataset,
}

impl Split {
    /// Two data sets that fit the same network.
    ///
    /// # Errors
    ///
    /// [`Error::SplitShapes`] or [`Error::SplitTruth`] if shapes, or numbers of classes or values,
    /// differ.
    pub fn new(train: Dataset, test: Dataset) -> Result<Self> {
        train.check_alike(&test)?;
        Ok(Self { train, test })
    }
}

/// A random split in which every class has about the same share of test samples. Samples with
/// values are split as those of a single class.
///
/// Of the `n` samples of a class, `t = round(n · test_fraction)` are for testing (halves are
/// rounded up), but at least 1 and at most `n − 1`. So each part has every class that the data set
/// has, and a class's share is off by less than one sample; the sizes of the parts follow from the
/// classes.
///
/// Class after class, in ascending order, the samples are shuffled by one `ChaCha8Rng` made from
/// `seed`, and the first `t` are taken. Each sample is in exactly one part, and within each part
/// the samples keep the order of the data set. Equal arguments give equal splits, on every machine.
///
/// # Errors
///
/// [`Error::TestFraction`] unless `0 < test_fraction < 1`; [`Error::SingletonClass`] if a class has
/// exactly one sample.
pub fn stratified_split(dataset: &Dataset, test_fraction: f64, seed: u64) -> Result<Split> {
    let test = test_mask(dataset, test_fraction, seed)?;
    let (test, train): (Vec<_>, Vec<_>) = (0..test.len()).partition(|&i| test[i]);
    Split::new(dataset.subset(&train)?, dataset.subset(&test)?)
}

/// For each sample, whether it is for testing.
fn test_mask(dataset: &Dataset, test_fraction: f64, seed: u64) -> Result<Vec<bool>> {
    if !(test_fraction > 0.0 && test_fraction < 1.0) {
        return Err(Error::TestFraction {
            found: test_fraction,
        });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut mask = vec![false; dataset.samples()];
    let members = match dataset.truth() {
        Truth::Classes(labels) => members_by_class(labels),
        Truth::Values(values) => members_by_class(&vec![0; values.nrows()]),
    };
    for (class, mut members) in members {
        if members.len() == 1 && dataset.classes() == 0 {
            return Err(Error::TooFewSamples {
                name: dataset.name().to_string(),
                expected: 2,
                found: 1,
            });
        }
        if members.len() == 1 {
            return Err(Error::SingletonClass {
                name: dataset.name().to_string(),
                class,
            });
        }
        members.shuffle(&mut rng);
        let count = test_count(members.len(), test_fraction);
        members[..count].iter().for_each(|&i| mask[i] = true);
    }
    Ok(mask)
}

/// The samples of each class that has any, both in ascending order.
fn members_by_class(labels: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (sample, &label) in labels.iter().enumerate() {
        members.entry(label).or_default().push(sample);
    }
    members
}

/// How many of the `n ≥ 2` samples of a class are for testing.
fn test_count(n: usize, test_fraction: f64) -> usize {
    ((n as f64 * test_fraction).round() as usize).clamp(1, n - 1)
}

#[cfg(test)]
mod tests {
    use super::super::digits;
    use super::*;
    use ndarray::Array2;

    /// Samples with the given labels; the only feature of sample `i` is `i / 1024`.
    fn numbered(labels: &[usize]) -> Dataset {
        let images = Array2::from_shape_fn((labels.len(), 1), |(i, _)| i as f32 / 1024.0);
        Dataset::new("numbered", images, labels.to_vec(), 5, vec![1]).unwrap()
    }

    /// The numbers of the samples of a part of a numbered data set.
    fn numbers(part: &Dataset) -> Vec<usize> {
        part.images()
            .iter()
            .map(|x| (x * 1024.0) as usize)
            .collect()
    }

    fn count(part: &Dataset, class: usize) -> usize {
        part.labels()
            .iter()
            .filter(|&&label| label == class)
            .count()
    }

    #[test]
    fn each_sample_is_in_one_part_in_ascending_order() {
        let labels: Vec<usize> = (0..100).map(|i| i * i % 5).collect();
        let data = numbered(&labels);
        for seed in 0..20 {
            let split = stratified_split(&data, 0.3, seed).unwrap();
            let (train, test) = (numbers(&split.train), numbers(&split.test));
            assert!(train.is_sorted() && test.is_sorted());
            let mut all = [train, test].concat();
            all.sort_unstable();
            assert_eq!(all, (0..100).collect::<Vec<_>>());
            for part in [&split.train, &split.test] {
                let own: Vec<usize> = numbers(part).iter().map(|&i| labels[i]).collect();
                assert_eq!(part.labels(), own);
            }
        }
    }

    #[test]
    fn every_class_has_its_share() {
        let split = stratified_split(&digits(), 0.25, 0).unwrap();
        let test: Vec<usize> = (0..10).map(|class| count(&split.test, class)).collect();
        // A quarter of 178 182 177 183 181 182 181 179 174 180, halves up.
        assert_eq!(test, [45, 46, 44, 46, 45, 46, 45, 45, 44, 45]);
        let train: Vec<usize> = (0..10).map(|class| count(&split.train, class)).collect();
        assert_eq!(train, [133, 136, 133, 137, 136, 136, 136, 134, 130, 135]);
    }

    #[test]
    fn both_parts_have_every_class_that_has_samples() {
        for fraction in [1e-9, 0.5, 1.0 - 1e-9] {
            let split = stratified_split(&numbered(&[4, 0, 4, 0, 0]), fraction, 3).unwrap();
            for part in [&split.train, &split.test] {
                assert!(count(part, 0) >= 1 && count(part, 4) == 1);
                assert_eq!(part.classes(), 5);
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let split = |seed| stratified_split(&digits(), 0.2, seed).unwrap();
        assert_eq!(split(7), split(7));
        assert_ne!(split(7), split(8));
    }

    /// Fixed once and for all: a library that shuffles differently must not change results
    /// unnoticed.
    #[test]
    fn the_split_of_a_seed_never_changes() {
        let labels: Vec<usize> = (0..40).map(|i| i % 4).collect();
        let split = stratified_split(&numbered(&labels), 0.3, 2024).unwrap();
        assert_eq!(
            numbers(&split.test),
            [1, 2, 4, 6, 10, 11, 16, 19, 27, 29, 36, 37]
        );
    }

    #[test]
    fn fractions_without_two_parts_are_refused() {
        for bad in [0.0, 1.0, -0.1, 1.5, f64::INFINITY, f64::NAN] {
            let e = stratified_split(&numbered(&[0, 0]), bad, 0).unwrap_err();
            assert!(matches!(e, Error::TestFraction { .. }), "{bad}: {e}");
        }
    }

    #[test]
    fn a_single_sample_of_a_class_is_refused() {
        let e = stratified_split(&numbered(&[0, 1, 0]), 0.5, 0).unwrap_err();
        assert!(matches!(e, Error::SingletonClass { class: 1, .. }));
    }

    #[test]
    fn parts_of_a_split_must_fit_the_same_network() {
        let data = |classes, shape| {
            let images = Array2::zeros((1, 2));
            Dataset::new("two", images, vec![0], classes, shape).unwrap()
        };
        assert!(Split::new(data(3, vec![1, 2]), data(3, vec![1, 2])).is_ok());
        let e = Split::new(data(3, vec![1, 2]), data(3, vec![2, 1])).unwrap_err();
        assert!(
            matches!(e, Error::SplitShapes { train, test } if train == [1, 2] && test == [2, 1])
        );
        let e = Split::new(data(3, vec![2]), data(4, vec![2])).unwrap_err();
        assert!(
            matches!(e, Error::SplitTruth { train, test } if train == "3 classes" && test == "4 classes")
        );
    }
}
