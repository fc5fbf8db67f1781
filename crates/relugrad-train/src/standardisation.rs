//! A first layer that standardises inputs: `(x − mean)/deviation` for every channel, with fixed
//! numbers, so that the box of the data, perturbations and penalties stay in the units of the data.

use ndarray::Axis;
use relugrad::{GoOn, Network, Operation, Scalar};

use crate::channels::{ChannelStatistics, channels};
use crate::data::{Bounds, Dataset};
use crate::error::Result;
use crate::evaluate::predicted;
use crate::prediction::classes;
use crate::stop::ask;

/// The same network behind a first layer that standardises; `shape` is that of a sample if it has
/// channels that the network's input does not show.
///
/// # Errors
/// [`Error::Channels`](crate::Error::Channels), and the engine's errors for numbers beyond the
/// precision.
pub fn standardised<T: Scalar>(
    network: &Network<T>,
    statistics: &ChannelStatistics,
    shape: &[usize],
) -> Result<Network<T>> {
    let own = network.input_shape();
    let told = if shape.len() >= 3 || own.len() < 3 {
        shape
    } else {
        own
    };
    statistics.check_shape(told)?;
    let names = unused_names(network);
    let found = network.map_nodes(|builder, node, inputs| {
        let added = builder.add(network.spec(node), inputs)?;
        if !matches!(node.operation(), Operation::Input) {
            return Ok(added);
        }
        let last = statistics.add(builder, added)?;
        for (node, name) in builder.nodes().rev().take(2).zip(&names) {
            builder.rename(node, name)?;
        }
        Ok(last)
    });
    Ok(found?)
}

/// Names of the factors and of the summands that no node has.
fn unused_names<T: Scalar>(network: &Network<T>) -> [String; 2] {
    let taken = |name: &String| network.nodes().iter().any(|node| node.name() == name);
    ["deviation", "mean"].map(|word| {
        let mut names = (0..).map(|i| match i {
            0 => format!("standardise.{word}"),
            _ => format!("standardise{i}.{word}"),
        });
        names.find(|name| !taken(name)).expect("some name is free")
    })
}

/// That a network may have been made for other inputs than it is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// Its accuracy on samples as they are.
    pub accuracy: f64,
    /// Whether that is the accuracy of guessing.
    pub chance: bool,
    /// Statistics by which the accuracy becomes clearly better, if some of the usual ones do, and
    /// that accuracy.
    pub better: Option<(ChannelStatistics, f64)>,
}

/// Samples that a guess is made on.
const TRIED: usize = 500;

/// Samples below which nothing can be told.
const FEWEST: usize = 10;

/// Whether a network looks as if it were made for standardised inputs: its accuracy on samples in
/// `[0, 1]` is that of guessing, or it is clearly better behind a first layer with the statistics
/// of the data or other usual ones. The samples must have classes.
///
/// # Errors
/// Those of [`predicted`], and [`relugrad::Error::Stopped`].
pub fn guess_statistics<T: Scalar>(
    network: &Network<T>,
    data: &Dataset,
    go_on: GoOn,
) -> Result<Option<Guess>> {
    let count = data.samples().min(TRIED);
    if data.values().is_some() || *data.bounds() != Bounds::default() || count < FEWEST {
        return Ok(None);
    }
    let images = data.images().slice_axis(Axis(0), (..count).into());
    let images = images.mapv(|x| T::from_f64(f64::from(x)));
    let accuracy = |network: &Network<T>| -> Result<f64> {
        ask(go_on)?;
        let found = predicted(network, images.view())?;
        let right = found.iter().zip(data.labels()).filter(|(a, b)| a == b);
        Ok(right.count() as f64 / count as f64)
    };
    let (own, n) = (accuracy(network)?, count as f64);
    let guessing = 1.0 / classes(network.outputs()) as f64;
    let chance = own <= guessing + 2.0 * (guessing * (1.0 - guessing) / n).sqrt();
    if own >= 0.9 {
        return Ok(None);
    }
    let mut better: Option<(ChannelStatistics, f64)> = None;
    for statistics in usual(data) {
        let found = accuracy(&standardised(network, &statistics, data.shape())?)?;
        let before = better
            .as_ref()
            .map_or(own + 0.05 + n.sqrt().recip(), |b| b.1);
        if found > before {
            better = Some((statistics, found));
        }
    }
    Ok((chance || better.is_some()).then_some(Guess {
        accuracy: own,
        chance,
        better,
    }))
}

/// Statistics that models are often trained with: those of the data, `[−1, 1]`, bytes, and of
/// colour images those of ImageNet.
fn usual(data: &Dataset) -> Vec<ChannelStatistics> {
    let rounded = |values: Vec<f64>| values.iter().map(|x| (x * 1e4).round() / 1e4).collect();
    let own = data.channel_statistics().ok();
    let own = own.map(|own| (rounded(own.means), rounded(own.deviations)));
    let colours = (channels(data.shape()) == 3).then(|| {
        let (means, deviations) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        (means.to_vec(), deviations.to_vec())
    });
    let both = [(vec![0.5], vec![0.5]), (vec![0.0], vec![1.0 / 255.0])];
    let all = own.into_iter().chain(both).chain(colours);
    all.filter_map(|(m, d): (Vec<f64>, Vec<f64>)| ChannelStatistics::given(&m, &d).ok().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits;
    use ndarray::Array2;
    use relugrad::Mlp;

    fn statistics(means: &[f64], deviations: &[f64]) -> ChannelStatistics {
        ChannelStatistics::given(means, deviations)
            .unwrap()
            .unwrap()
    }

    /// The logits of the network at standardised inputs, computed by hand.
    #[test]
    fn the_first_layer_standardises_every_channel() {
        let network = Mlp::new(&[12, 5, 3]).build::<f64>(1).unwrap();
        let x = Array2::from_shape_fn((4, 12), |(i, j)| ((i * 12 + j) as f64).sin());
        let shape = [3, 2, 2];
        for (means, deviations) in [
            (vec![0.25], vec![0.5]),
            (vec![0.1, -0.2, 0.3], vec![0.5]),
            (vec![0.5], vec![1.0, 0.25, 8.0 / 255.0]),
            ((0..12).map(f64::from).collect(), vec![2.0; 12]),
        ] {
            let of = |values: &[f64], j: usize| match values.len() {
                1 => values[0],
                3 => values[j / 4],
                _ => values[j],
            };
            let own = statistics(&means, &deviations);
            let first = standardised(&network, &own, &shape).unwrap();
            let by_hand = Array2::from_shape_fn(x.dim(), |(i, j)| {
                (x[(i, j)] - of(&means, j)) / of(&deviations, j)
            });
            let (a, b) = (first.forward(x.view()), network.forward(by_hand.view()));
            for (a, b) in a.unwrap().iter().zip(&b.unwrap()) {
                assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()));
            }
            assert_eq!(first.parameters().layout(), network.parameters().layout());
            let twice = standardised(&first, &own, &shape).unwrap();
            assert_eq!(twice.nodes().len(), network.nodes().len() + 4);
        }
    }

    #[test]
    fn impossible_statistics_are_named() {
        let message =
            |m: &[f64], d: &[f64]| ChannelStatistics::given(m, d).unwrap_err().to_string();
        assert_eq!(message(&[0.5], &[]), "mean is given without std; give both");
        assert!(message(&[0.5, f64::NAN], &[1.0]).contains("mean of channel 1 is NaN"));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-320] {
            assert!(message(&[0.5], &[1.0, bad]).contains("std of channel 1 is"));
        }
        let error = statistics(&[0.1, 0.2], &[1.0]).check_shape(&[3, 8, 8]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "there are 2 numbers in mean for inputs of shape [3, 8, 8]; give 1 for all or 3, one for each channel or 192, one for each value"
        );
        assert!(ChannelStatistics::given(&[], &[]).unwrap().is_none());
    }

    /// A network that takes back the standardisation is the one that needs it.
    #[test]
    fn a_network_for_standardised_inputs_is_recognised() {
        let data = digits();
        let split = crate::data::stratified_split(&data, 0.5, 0).unwrap();
        let mut network = Mlp::new(&[64, 24, 10]).build::<f32>(0).unwrap();
        let training = crate::Training {
            epochs: 6,
            learning_rate: 0.01,
            ..crate::Training::default()
        };
        crate::train(&mut network, &split, &training, &mut ()).unwrap();
        assert_eq!(guess_statistics(&network, &data, &|| true).unwrap(), None);
        let own = data.channel_statistics().unwrap();
        let back = statistics(
            &[-own.means[0] / own.deviations[0]],
            &[1.0 / own.deviations[0]],
        );
        let shifted = standardised(&network, &back, data.shape()).unwrap();
        let guess = guess_statistics(&shifted, &data, &|| true).unwrap();
        let (found, accuracy) = guess.unwrap().better.unwrap();
        assert!(accuracy > 0.9, "{accuracy}");
        assert!((found.means[0] - own.means[0]).abs() < 1e-3);
    }
}
