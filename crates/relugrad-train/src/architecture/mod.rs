//! Descriptions of networks, from which they are built for data of any shape.

mod build;
mod layer;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use relugrad::{Gate, Network, Scalar};
use relugrad_io::read_text;

use layer::{Conv, Layer, Pair, Pool};

use crate::channels::ChannelStatistics;
use crate::error::{Error, Result};

/// What a network is made of, but for the shape of its inputs and the number of its logits.
///
/// | text | network |
/// | --- | --- |
/// | `mlp:128,128` | dense layers of these widths with ReLU between them |
/// | `lenet` | two convolutions of 5×5 (6 and 16 channels, padding 2), each with ReLU and max-pooling, then dense layers of 120 and 84: LeNet-5 (LeCun et al. 1998) with ReLU and maxima |
/// | `resnet:16,32` | a convolution of 3×3, then a residual block for each width (He et al. 2016), halving the image at every new one, then the mean over the image |
/// | `model.toml` | the layers that the file lists, see [`Architecture::from_toml`] |
///
/// A dense layer to the logits ends them all.
///
/// ```
/// use relugrad_train::Architecture;
///
/// let lenet: Architecture = "lenet".parse()?;
/// let network = lenet.build::<f32>(&[1, 28, 28], 10, 0)?;
/// assert_eq!(network.outputs(), 10);
/// # Ok::<(), relugrad_train::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// What it is called in settings.
    name: String,
    layers: Vec<Layer>,
    /// What its weights may take as they are made, unless more is allowed.
    memory: u64,
}

/// What the weights may take of a network that is asked for by a short text: 134 million of `f32`.
const TEXT: u64 = 2 << 30;

/// What those may take that a file asks for: 16 million of `f32`, as many as in a large residual
/// network.
const FILE: u64 = 256 << 20;

impl Architecture {
    /// Dense layers of these widths with ReLU between them.
    pub fn mlp(widths: &[usize]) -> Architecture {
        let layer = |&outputs: &usize| {
            let bias = true;
            [Layer::Dense { outputs, bias }, Layer::Gate(Gate::Relu)]
        };
        let names: Vec<String> = widths.iter().map(usize::to_string).collect();
        Architecture {
            name: format!("mlp:{}", names.join(",")),
            memory: TEXT,
            layers: widths.iter().flat_map(layer).collect(),
        }
    }

    fn lenet() -> Architecture {
        let conv = |outputs| {
            Layer::Conv(Conv {
                padding: Pair::Both(2),
                ..Conv::new(outputs, 5)
            })
        };
        let pool = || Layer::MaxPool(Pool::new(2));
        let relu = || Layer::Gate(Gate::Relu);
        let dense = |outputs| Layer::Dense {
            outputs,
            bias: true,
        };
        Architecture {
            name: "lenet".into(),
            memory: TEXT,
            layers: vec![
                conv(6),
                relu(),
                pool(),
                conv(16),
                relu(),
                pool(),
                dense(120),
                relu(),
                dense(84),
                relu(),
            ],
        }
    }

    fn resnet(widths: &[usize]) -> Architecture {
        let conv = |outputs, stride, size| {
            Layer::Conv(Conv {
                stride: Pair::Both(stride),
                padding: Pair::Both(size / 2),
                ..Conv::new(outputs, size)
            })
        };
        let relu = || Layer::Gate(Gate::Relu);
        let mut layers = vec![conv(widths[0], 1, 3), relu()];
        for (i, &width) in widths.iter().enumerate() {
            let stride = if i == 0 { 1 } else { 2 };
            let shortcut = if i == 0 {
                Vec::new()
            } else {
                vec![conv(width, stride, 1)]
            };
            let block = vec![conv(width, stride, 3), relu(), conv(width, 1, 3)];
            layers.push(Layer::Residual {
                layers: block,
                shortcut,
            });
            layers.push(relu());
        }
        layers.push(Layer::GlobalAverage {});
        let names: Vec<String> = widths.iter().map(usize::to_string).collect();
        Architecture {
            name: format!("resnet:{}", names.join(",")),
            memory: TEXT,
            layers,
        }
    }

    /// Reads a description: one of the texts above, or the path of a `.toml` file.
    ///
    /// # Errors
    /// [`Error::Architecture`] for anything else, [`Error::Read`] if the file cannot be read.
    pub fn parse(text: &str) -> Result<Architecture> {
        if text.ends_with(".toml") {
            let path = Path::new(text);
            let content = read_text(path)?;
            let read = Architecture::from_toml(&content).map_err(|error| {
                if let Error::Architecture { problem } = error {
                    self::problem(format!("{text}: {problem}"))
                } else {
                    error
                }
            });
            let mut read = read?;
            read.name = text.to_owned();
            return Ok(read);
        }
        text.parse()
    }

    /// Builds a network for inputs of a shape, such as `[1, 28, 28]`, with random weights from a
    /// seed.
    ///
    /// Weights are He-normal (variance `2/((1 + α²) n)` before a gate of inactive slope `α`, `1/n`
    /// for the logits, biases 0). The last layer of a residual branch starts at a tenth of that,
    /// which keeps deep sums of branches in range without normalisation (in the spirit of Zhang,
    /// Dauphin & Ma 2019).
    ///
    /// # Errors
    /// The engine's errors for layers that do not fit the shape.
    pub fn build<T: Scalar>(
        &self,
        shape: &[usize],
        classes: usize,
        seed: u64,
    ) -> Result<Network<T>> {
        build::build(&self.layers, self.memory, shape, classes, seed, None)
    }

    /// [`build`](Self::build), with a first layer that takes off the mean of every channel and
    /// divides by its standard deviation; these numbers are not trained.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn build_standardised<T: Scalar>(
        &self,
        shape: &[usize],
        classes: usize,
        seed: u64,
        statistics: &ChannelStatistics,
    ) -> Result<Network<T>> {
        build::build(
            &self.layers,
            self.memory,
            shape,
            classes,
            seed,
            Some(statistics),
        )
    }
}

impl FromStr for Architecture {
    type Err = Error;

    fn from_str(text: &str) -> Result<Architecture> {
        let widths = |list: &str| -> Result<Vec<usize>> {
            let width = |part: &str| match part.trim().parse::<usize>() {
                Ok(width) if width > 0 => Ok(width),
                _ => Err(problem(format!(
                    "`{part}` in `{text}` is no width of at least 1"
                ))),
            };
            list.split(',').map(width).collect()
        };
        match text.split_once(':') {
            None if text == "lenet" => Ok(Architecture::lenet()),
            Some(("mlp", list)) => Ok(Architecture::mlp(&widths(list)?)),
            Some(("resnet", list)) => Ok(Architecture::resnet(&widths(list)?)),
            _ => Err(problem(format!(
                "`{text}` is no model; give mlp:WIDTHS such as mlp:128,128, lenet, resnet:WIDTHS such as resnet:16,32, or \
                 a .toml file"
            ))),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn problem(problem: impl Into<String>) -> Error {
    Error::Architecture {
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relugrad::Mlp;

    #[test]
    fn an_mlp_is_the_engines_own() {
        let ours: Network<f32> = Architecture::mlp(&[8, 6]).build(&[1, 2, 3], 4, 7).unwrap();
        let engine: Network<f32> = Mlp::new(&[6, 8, 6, 4]).build(7).unwrap();
        assert_eq!(ours.parameters().values(), engine.parameters().values());
    }

    #[test]
    fn every_description_builds_and_names_itself() {
        for (text, shape) in [
            ("lenet", [1, 28, 28]),
            ("lenet", [1, 8, 8]),
            ("resnet:4,8", [3, 32, 32]),
            ("mlp:5", [1, 8, 8]),
        ] {
            let architecture: Architecture = text.parse().unwrap();
            assert_eq!(architecture.to_string(), text);
            let network = architecture.build::<f64>(&shape, 10, 1).unwrap();
            assert_eq!(network.outputs(), 10);
            let x = ndarray::Array2::from_elem((2, network.inputs()), 0.5);
            let f = network.forward(x.view()).unwrap();
            assert!(f.iter().all(|f| f.abs() < 20.0), "{f}");
        }
    }

    #[test]
    fn standardised_networks_take_off_the_means_of_channels() {
        let statistics = ChannelStatistics {
            means: vec![0.25, 0.5],
            deviations: vec![0.125, 2.0],
        };
        let x = ndarray::Array2::from_shape_fn((3, 18), |(i, j)| (i * 18 + j) as f64 / 54.0);
        let mut moved = x.clone();
        for (j, mut column) in moved.columns_mut().into_iter().enumerate() {
            let channel = j / 9;
            let (mean, deviation) = (statistics.means[channel], statistics.deviations[channel]);
            column.mapv_inplace(|x| (x - mean) / deviation);
        }
        for text in ["mlp:5", "resnet:2"] {
            let architecture: Architecture = text.parse().unwrap();
            let plain = architecture.build::<f64>(&[2, 3, 3], 4, 1).unwrap();
            let ours = architecture
                .build_standardised::<f64>(&[2, 3, 3], 4, 1, &statistics)
                .unwrap();
            let expected = plain.forward(moved.view()).unwrap();
            let found = ours.forward(x.view()).unwrap();
            assert!((&found - &expected).iter().all(|d| d.abs() < 1e-12));
            assert_eq!(plain.parameters().len(), ours.parameters().len());
        }
    }

    #[test]
    fn layers_are_counted_before_one_is_made() {
        for (text, layer) in [
            ("mlp:4000,8000,4000000", "layer 5"),
            ("resnet:2000,30000", "layer 5.1"),
        ] {
            let architecture: Architecture = text.parse().unwrap();
            let error = architecture.build::<f32>(&[3, 32, 32], 10, 0).unwrap_err();
            assert!(error.to_string().contains(layer), "{error}");
        }
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for text in [
            "",
            "mlp",
            "mlp:",
            "mlp:0",
            "mlp:8,x",
            "resnet:",
            "vgg",
            "lenet:5",
            "missing.toml",
        ] {
            assert!(Architecture::parse(text).is_err(), "{text}");
        }
    }
}
