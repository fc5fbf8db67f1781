//! Means and deviations of the channels of samples, and a layer that takes them out.

use ndarray::{ArrayD, IxDyn};
use relugrad::{Builder, NodeId, Scalar};

use crate::error::{Error, Result};

/// Mean and standard deviation of every channel of some samples: one number for all values, one for
/// each channel, or one for each value.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStatistics {
    /// Means.
    pub means: Vec<f64>,
    /// Positive standard deviations.
    pub deviations: Vec<f64>,
}

/// Channels of a shape: of images, their first axis; of samples of one axis, every feature.
pub(crate) fn channels(shape: &[usize]) -> usize {
    match *shape {
        [features] => features,
        [channels, _, _] | [channels, _, _, _] => channels,
        _ => 1,
    }
}

impl ChannelStatistics {
    /// Means and deviations that somebody gives, nothing if both are empty.
    ///
    /// # Errors
    /// [`Error::OneOfTwo`] for one without the other; [`Error::Statistic`] for a mean that is not
    /// finite, or a deviation that is not positive and finite.
    pub fn given(means: &[f64], deviations: &[f64]) -> Result<Option<ChannelStatistics>> {
        let (mean, std) = ("mean", "std");
        match (means, deviations) {
            ([], []) => return Ok(None),
            ([], _) => return Err(one_of_two(std, mean)),
            (_, []) => return Err(one_of_two(mean, std)),
            _ => {}
        }
        let finite = |x: f64| x.is_finite();
        let positive = |x: f64| x > 0.0 && x.is_finite() && x.recip().is_finite();
        check(mean, means, finite, "finite")?;
        check(std, deviations, positive, "positive and finite")?;
        Ok(Some(ChannelStatistics {
            means: means.to_vec(),
            deviations: deviations.to_vec(),
        }))
    }

    /// Refuses other numbers of channels than those of inputs of a shape.
    ///
    /// # Errors
    /// [`Error::Channels`].
    pub fn check_shape(&self, shape: &[usize]) -> Result<()> {
        let mut allowed = vec![1, channels(shape), shape.iter().product()];
        allowed.dedup();
        for (option, found) in [("mean", self.means.len()), ("std", self.deviations.len())] {
            if !allowed.contains(&found) {
                return Err(Error::Channels {
                    option,
                    found,
                    shape: shape.to_vec(),
                    allowed,
                });
            }
        }
        Ok(())
    }

    /// Adds the layer; `node` has the values of the input, a channel's one after the other.
    pub(crate) fn add<T: Scalar>(
        &self,
        builder: &mut Builder<T>,
        node: NodeId,
    ) -> relugrad::Result<NodeId> {
        let shape = builder.shape(node)?.to_vec();
        let array = |values: &mut dyn Iterator<Item = f64>| {
            let values: Vec<T> = values.map(T::from_f64).collect();
            let (axes, repeat) = match (values.len(), &shape[..]) {
                (1, _) => (vec![1; shape.len()], 1),
                (n, [c, rest @ ..]) if n == *c => ([&[n], &vec![1; rest.len()][..]].concat(), 1),
                (n, _) => (shape.clone(), shape.iter().product::<usize>() / n),
            };
            let values = values.into_iter();
            let values = values.flat_map(|value| std::iter::repeat_n(value, repeat));
            ArrayD::from_shape_vec(IxDyn(&axes), values.collect()).expect("one for each place")
        };
        let means = array(&mut self.means.iter().map(|mean| -mean));
        let node = builder.shift(node, means, false)?;
        let factors = array(&mut self.deviations.iter().map(|deviation| 1.0 / deviation));
        builder.scale(node, factors, false)
    }
}

fn one_of_two(given: &'static str, missing: &'static str) -> Error {
    Error::OneOfTwo { given, missing }
}

fn check(
    option: &'static str,
    values: &[f64],
    holds: fn(f64) -> bool,
    expected: &'static str,
) -> Result<()> {
    match values.iter().position(|&value| !holds(value)) {
        None => Ok(()),
        Some(channel) => Err(Error::Statistic {
            option,
            channel,
            found: values[channel],
            expected,
        }),
    }
}
