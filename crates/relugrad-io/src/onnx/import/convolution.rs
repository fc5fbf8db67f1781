//! Conv and ConvTranspose over any number of spatial axes.
//!
//! The engine convolves images of one sample. Further leading axes, and a batch that is none, are
//! laid one after the other along the height, with what a window covers of them as channels; the
//! windows that reach from one to the next are left out behind. A transposed convolution is one
//! over its input with zeros between the entries.

use ndarray::{Array1, ArrayD, Ix4, IxDyn};
use relugrad::NodeId;

use super::windows::{Windows, halves};
use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::{Importer, MOVED};
use crate::onnx::tensor::Tensor;
use crate::onnx::values::{Activation, Value, sample_shape, strides, summed_places};

/// What a convolution multiplies by: `weight: [outputs, channels / groups, kernel…]`.
struct Kernel {
    weight: Tensor,
    bias: Option<Tensor>,
    groups: usize,
}

impl<'a> Importer<'a> {
    pub(super) fn conv(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let (weight, spatial) = self.conv_weight(call, &x)?;
        let windows = self.windows(call, &spatial, &weight.dims[2..])?;
        let kernel = Kernel {
            bias: self.optional_constant(call, 2)?,
            groups: self.group(call)?,
            weight,
        };
        self.convolved(call, x, kernel, &windows)
    }

    /// The weight, and the spatial lengths of the input that it goes with.
    fn conv_weight(&self, call: Call, x: &Activation) -> Result<(Tensor, Vec<usize>)> {
        let weight = self.constant(call, 1)?;
        let spatial = self.spatial(call, &x.dims)?;
        if weight.dims.len() != spatial.len() + 2 {
            return Err(call.error(format!(
                "its weight has dimensions {:?} for an input of {:?}",
                weight.dims, x.dims
            )));
        }
        let kernel = &weight.dims[2..];
        match call.sizes("kernel_shape", kernel.len())? {
            Some(stated) if stated != kernel => Err(call.error(format!(
                "its kernel_shape {stated:?} is not that of its weight {kernel:?}"
            ))),
            _ => Ok((weight, spatial)),
        }
    }

    fn group(&self, call: Call) -> Result<usize> {
        let groups = call.integer("group", 1)?;
        let count = usize::try_from(groups).ok().filter(|&groups| groups > 0);
        count.ok_or_else(|| call.error(format!("its group is {groups}")))
    }

    fn convolved(
        &mut self,
        call: Call,
        x: Activation,
        kernel: Kernel,
        windows: &Windows,
    ) -> Result<Value> {
        let spatial = x.dims[2..].to_vec();
        if let Some(axis) = (0..spatial.len()).find(|&a| windows.positions(a, spatial[a]) == 0) {
            return Err(call.error(format!(
                "its window, of {} entries with dilations, does not fit axis {axis} of its image of {spatial:?} with \
                 pads {:?}",
                windows.extent(axis),
                windows.padding[axis]
            )));
        }
        if x.dims[0] > 1 || spatial.len() > 2 {
            return self.folded_convolution(call, &x, kernel, windows);
        }
        let image = match spatial[..] {
            [length] => self.shaped(x.id, &[x.dims[1], 1, length])?,
            _ => self.shaped(x.id, &x.dims[1..])?,
        };
        let axes = [spatial.len().checked_sub(2), Some(spatial.len() - 1)];
        let outputs = kernel.weight.dims[0];
        let id = self.convolved_image(call, image, kernel, windows, axes)?;
        let lengths = (0..spatial.len()).map(|axis| windows.positions(axis, spatial[axis]));
        let dims = [1, outputs].into_iter().chain(lengths).collect();
        self.value(id, dims)
    }

    /// The convolution of an image of the engine's; `axes` are those of the window.
    fn convolved_image(
        &mut self,
        call: Call,
        image: NodeId,
        kernel: Kernel,
        windows: &Windows,
        axes: [Option<usize>; 2],
    ) -> Result<NodeId> {
        let window = windows.over(axes);
        let outputs = kernel.weight.dims[0];
        let taps: usize = window.kernel.iter().product();
        let channels = kernel.weight.len() / (outputs * taps).max(1);
        let shape = IxDyn(&[outputs, channels, window.kernel[0], window.kernel[1]]);
        let weight = self.parameter(call, &kernel.weight)?;
        let weight = ArrayD::from_shape_vec(shape, weight).expect("as many entries");
        let weight = weight.into_dimensionality::<Ix4>().expect("four axes");
        let bias = match kernel.bias {
            Some(bias) if bias.len() != outputs => {
                return Err(call.error(format!(
                    "its bias has {} entries for {outputs} channels",
                    bias.len()
                )));
            }
            Some(bias) => Some(Array1::from(self.parameter(call, &bias)?)),
            None => None,
        };
        Ok(self
            .builder
            .conv2d(image, weight, bias, window, kernel.groups)?)
    }

    /// A convolution whose leading axes, the batch and all spatial ones but the last two, are laid
    /// along the height.
    fn folded_convolution(
        &mut self,
        call: Call,
        x: &Activation,
        kernel: Kernel,
        windows: &Windows,
    ) -> Result<Value> {
        let spatial = &x.dims[2..];
        let outer = spatial.len().saturating_sub(2);
        let height = spatial.len().checked_sub(2);
        let width = spatial.len() - 1;
        let (batch, outputs) = (x.dims[0], kernel.weight.dims[0]);
        let positions: Vec<usize> = (0..spatial.len())
            .map(|axis| windows.positions(axis, spatial[axis]))
            .collect();
        let taps: usize = windows.kernel[..outer].iter().product();
        // Rows of a slice, with padding, up to where the next slice begins a stride.
        let (rows, stride, before) = match height {
            Some(axis) => {
                let stride = windows.stride[axis];
                let padded = spatial[axis] + windows.padding[axis].iter().sum::<usize>();
                (
                    padded.next_multiple_of(stride),
                    stride,
                    windows.padding[axis][0],
                )
            }
            None => (1, 1, 0),
        };
        let slices = positions[..outer]
            .iter()
            .fold(batch, |p, &n| p.saturating_mul(n));
        let lengths = [
            x.dims[1].saturating_mul(taps),
            slices.saturating_mul(rows),
            spatial[width],
        ];
        self.pay(call, &lengths)?;
        let steps = strides(&x.dims);
        let channels: Vec<Option<usize>> = (0..x.dims[1]).map(|c| Some(c * steps[1])).collect();
        let slice = slice_places(windows, &x.dims, &positions[..outer], taps);
        let row = |r: usize| {
            let axis = height?;
            let inside = r.checked_sub(before).filter(|&r| r < spatial[axis])?;
            Some(inside * steps[2 + axis])
        };
        let down: Vec<Option<usize>> = match height {
            Some(_) => (0..rows).map(row).collect(),
            None => vec![Some(0)],
        };
        let across: Vec<Option<usize>> = (0..spatial[width]).map(Some).collect();
        let places = summed_places(&[channels, slice, down, across]);
        let folded = self.builder.gather(x.id, &lengths, &places, 0.0)?;
        let mut flat = windows.clone();
        if let Some(axis) = height {
            flat.padding[axis] = [0, 0];
        }
        let image = self.convolved_image(call, folded, kernel, &flat, [height, Some(width)])?;
        let row_count = self.builder.shape(image)?[1];
        let columns = positions[width];
        let high = height.map_or(1, |axis| positions[axis]);
        let mut dims = vec![batch, outputs];
        dims.extend(&positions);
        self.pay(call, &dims)?;
        let batches = slices / batch;
        let some = |step: usize, count: usize| (0..count).map(|i| Some(i * step)).collect();
        let places = summed_places(&[
            some(batches * (rows / stride) * columns, batch),
            some(row_count * columns, outputs),
            some((rows / stride) * columns, batches),
            some(columns, high),
            some(1, columns),
        ]);
        let id = self
            .builder
            .gather(image, sample_shape(&dims), &places, 0.0)?;
        self.value(id, dims)
    }

    /// ConvTranspose; `W: [channels, outputs / groups, kernel…]`.
    pub(super) fn conv_transpose(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let (weight, spatial) = self.conv_weight(call, &x)?;
        let groups = self.group(call)?;
        if weight.dims[0] != x.dims[1] || !x.dims[1].is_multiple_of(groups) {
            return Err(call.error(format!(
                "its weight of dimensions {:?} in {groups} groups does not go with its input of {:?}",
                weight.dims, x.dims
            )));
        }
        let (mut windows, behind) = self.transposed_windows(call, &spatial, &weight.dims[2..])?;
        let mut x = x;
        for axis in 0..spatial.len() {
            let (stride, around) = (windows.stride[axis], windows.extent(axis) - 1);
            let [before, last] = windows.padding[axis];
            let whole = (spatial[axis] - 1) * stride + 1 + 2 * around + behind[axis];
            let kept = whole
                .checked_sub(before + last)
                .filter(|&kept| kept > around);
            let kept = kept.ok_or_else(|| call.error("its pads leave nothing of its result"))?;
            let what = || {
                call.error("a value with zeros between its entries")
                    .to_string()
            };
            self.budget.array(&[kept], MOVED, what)?;
            let place = |i: usize| spread_out(i + before, around, stride, spatial[axis]);
            let taken: Vec<Option<usize>> = (0..kept).map(place).collect();
            x = self.take(call, x, 2 + axis, &taken, 0.0)?;
        }
        let weight = self.flipped(call, &weight, groups)?;
        windows.stride.fill(1);
        windows.padding.fill([0, 0]);
        let bias = self.optional_constant(call, 2)?;
        let kernel = Kernel {
            weight,
            bias,
            groups,
        };
        self.convolved(call, x, kernel, &windows)
    }

    /// The window of a transposed convolution, and how much is added behind each axis of its
    /// result.
    fn transposed_windows(
        &self,
        call: Call,
        spatial: &[usize],
        kernel: &[usize],
    ) -> Result<(Windows, Vec<usize>)> {
        let n = spatial.len();
        let auto = call.string("auto_pad", "NOTSET")?;
        let mut windows = self.windows(call, spatial, kernel)?;
        let mut added = call
            .sizes("output_padding", n)?
            .unwrap_or_else(|| vec![0; n]);
        if added.iter().any(|&added| added > 1 << 20) {
            return Err(call.error("its output_padding is larger than 2^20"));
        }
        let same = auto.starts_with("SAME");
        let stated = match call.sizes("output_shape", n)? {
            None if same => Some((0..n).map(|a| spatial[a] * windows.stride[a]).collect()),
            stated => stated,
        };
        let Some(lengths): Option<Vec<usize>> = stated else {
            return Ok((windows, added));
        };
        if lengths.iter().any(|&length| length > 1 << 26) {
            return Err(call.error(format!(
                "its output_shape {lengths:?} is larger than any image"
            )));
        }
        for axis in 0..n {
            let whole =
                windows.stride[axis] * (spatial[axis] - 1) + added[axis] + windows.extent(axis);
            // What the window does not reach is 0.
            added[axis] += lengths[axis].saturating_sub(whole);
            let total = whole.saturating_sub(lengths[axis]);
            if !same && !total.is_multiple_of(2) {
                return Err(call.error(
                    "its output_shape leaves an odd padding, of which runtimes differ on the side; state its pads",
                ));
            }
            windows.padding[axis] = halves(total, auto == "SAME_UPPER");
        }
        Ok((windows, added))
    }

    /// The weight of the convolution that a transposed one is: kernels backwards, inputs and
    /// outputs of each group exchanged.
    fn flipped(&mut self, call: Call, weight: &Tensor, groups: usize) -> Result<Tensor> {
        let [channels, outputs] = [weight.dims[0] / groups, weight.dims[1]];
        let taps: usize = weight.dims[2..].iter().product();
        let dims = [&[groups * outputs, channels], &weight.dims[2..]].concat();
        self.rearranged(call, weight, &dims, |count| {
            let place = |i: usize| {
                let (tap, rest) = (i % taps, i / taps);
                let (c, m) = (rest % channels, rest / channels);
                let (group, m) = (m / outputs, m % outputs);
                (((group * channels + c) * outputs + m) * taps + taps - 1 - tap) as u32
            };
            (0..count).map(place).collect()
        })
    }
}

/// For each tap of the leading spatial axes and each position along batch and these axes, where
/// the window's tap lies in the input; `None` is padding.
fn slice_places(
    windows: &Windows,
    dims: &[usize],
    positions: &[usize],
    taps: usize,
) -> Vec<Option<usize>> {
    let steps = strides(dims);
    let count: usize = positions.iter().product();
    let along = |tap: usize, position: usize| {
        let (mut tap, mut position, mut place) = (tap, position, 0);
        for axis in (0..positions.len()).rev() {
            let start = position % positions[axis] * windows.stride[axis];
            let at = start + tap % windows.kernel[axis] * windows.dilation[axis];
            let inside = at.checked_sub(windows.padding[axis][0]);
            place += inside.filter(|&at| at < dims[2 + axis])? * steps[2 + axis];
            (tap, position) = (tap / windows.kernel[axis], position / positions[axis]);
        }
        Some(place)
    };
    let place = |i: usize| {
        let (tap, slice) = (i / (dims[0] * count), i % (dims[0] * count));
        Some(slice / count * steps[0] + along(tap, slice % count)?)
    };
    (0..taps * dims[0] * count).map(place).collect()
}

/// The entry of an axis at a place of it with `around` zeros before it and zeros between entries.
fn spread_out(place: usize, around: usize, stride: usize, length: usize) -> Option<usize> {
    let at = place.checked_sub(around)?;
    (at.is_multiple_of(stride) && at / stride < length).then_some(at / stride)
}
