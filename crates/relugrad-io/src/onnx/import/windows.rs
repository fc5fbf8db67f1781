//! Windows that move over the spatial axes of an image, signal or volume.

use relugrad::Window;

use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::Importer;

/// The window of a convolution or pooling, axis by axis.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    pub(super) kernel: Vec<usize>,
    pub(super) stride: Vec<usize>,
    pub(super) dilation: Vec<usize>,
    /// Before and behind each axis.
    pub(super) padding: Vec<[usize; 2]>,
    pub(super) ceil: bool,
}

impl Windows {
    /// How many entries the window spans along an axis.
    pub(super) fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// How many positions it has along an axis of this length, rounded down; 0 if it does not fit.
    pub(super) fn positions(&self, axis: usize, length: usize) -> usize {
        let padded = length + self.padding[axis].iter().sum::<usize>();
        let free = padded.checked_sub(self.extent(axis));
        free.map_or(0, |free| free / self.stride[axis] + 1)
    }

    /// The window along two axes of an image; `None` is an axis of length 1.
    pub(super) fn over(&self, axes: [Option<usize>; 2]) -> Window {
        let of = |values: &[usize]| axes.map(|axis| axis.map_or(1, |axis| values[axis]));
        Window::new(of(&self.kernel))
            .stride(of(&self.stride))
            .dilation(of(&self.dilation))
            .padding(axes.map(|axis| axis.map_or([0, 0], |axis| self.padding[axis])))
            .ceil(self.ceil)
    }
}

impl<'a> Importer<'a> {
    /// The lengths of the spatial axes behind batch and channels.
    pub(super) fn spatial(&self, call: Call, dims: &[usize]) -> Result<Vec<usize>> {
        match dims {
            [_, _, spatial @ ..] if !spatial.is_empty() => Ok(spatial.to_vec()),
            _ => Err(call.error(format!(
                "its input has dimensions {dims:?}, but a batch, channels and at least one spatial axis are needed"
            ))),
        }
    }

    /// The window that a node's attributes describe.
    pub(super) fn windows(
        &self,
        call: Call,
        spatial: &[usize],
        kernel: &[usize],
    ) -> Result<Windows> {
        let n = spatial.len();
        let stride = call.sizes("strides", n)?.unwrap_or_else(|| vec![1; n]);
        let dilation = call.sizes("dilations", n)?.unwrap_or_else(|| vec![1; n]);
        let all = [kernel, &stride, &dilation].concat();
        if all.contains(&0) || all.iter().any(|&v| v > 1 << 20) {
            return Err(call.error("kernel, strides and dilations must be from 1 to 2^20"));
        }
        let mut windows = Windows {
            kernel: kernel.to_vec(),
            stride,
            dilation,
            padding: vec![[0, 0]; n],
            ceil: false,
        };
        let auto = call.string("auto_pad", "NOTSET")?;
        match auto.as_str() {
            "NOTSET" | "" => {
                let pads = call.sizes("pads", 2 * n)?.unwrap_or_else(|| vec![0; 2 * n]);
                if pads.iter().any(|&pad| pad > 1 << 26) {
                    return Err(call.error("its pads are larger than any image"));
                }
                windows.padding = (0..n).map(|axis| [pads[axis], pads[n + axis]]).collect();
            }
            "VALID" => {}
            "SAME_UPPER" | "SAME_LOWER" => {
                for (axis, &length) in spatial.iter().enumerate() {
                    let positions = length.div_ceil(windows.stride[axis]);
                    let padded = (positions - 1) * windows.stride[axis] + windows.extent(axis);
                    let total = padded.saturating_sub(length);
                    windows.padding[axis] = halves(total, auto == "SAME_UPPER");
                }
            }
            other => return Err(call.error(format!("its auto_pad `{other}` is unknown"))),
        }
        Ok(windows)
    }
}

/// Padding before and behind an axis, the odd one behind or before it.
pub(super) fn halves(total: usize, behind: bool) -> [usize; 2] {
    let (small, large) = (total / 2, total.div_ceil(2));
    if behind {
        [small, large]
    } else {
        [large, small]
    }
}
