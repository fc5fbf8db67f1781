//! Values on other grids: Resize, Upsample, DepthToSpace and SpaceToDepth.

use ndarray::{ArrayD, IxDyn};

use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::Importer;
use crate::onnx::values::{Activation, Value, sample_shape};

/// How an axis is resampled.
struct Axis {
    /// Its length, before and after.
    lengths: [usize; 2],
    scale: f32,
    /// Where it begins and ends, as parts of the axis; only for crops.
    roi: [f32; 2],
}

/// What a node says about its axes, as far as it does.
#[derive(Default)]
struct Scaling {
    scales: Option<Vec<f32>>,
    sizes: Option<Vec<usize>>,
    roi: Option<Vec<f32>>,
}

/// The entries that one entry of the result is made of, with their weights; `None` is outside.
type Taps = Option<Vec<(usize, f64)>>;

impl<'a> Importer<'a> {
    /// Resize and Upsample, one axis after the other: on each an entry is a sum of entries with
    /// weights.
    pub(super) fn resize(&mut self, call: Call<'a>) -> Result<Value> {
        let mut x = self.activation(call, 0)?;
        let outside = call.float("extrapolation_value", 0.0)?;
        let axes = self.resized_axes(call, &x.dims)?;
        for (at, axis) in axes {
            let whole = axis.lengths[0] == axis.lengths[1] && axis.scale == 1.0;
            if whole && axis.roi == [0.0, 1.0] {
                continue;
            }
            let taps = self.taps(call, &axis)?;
            x = self.weighted(call, x, at, &taps, outside)?;
        }
        self.value(x.id, x.dims)
    }

    /// The axes that a Resize or Upsample resamples.
    fn resized_axes(&self, call: Call, dims: &[usize]) -> Result<Vec<(usize, Axis)>> {
        let all = || (0..dims.len()).collect();
        let at: Vec<usize> = match call.integers("axes")? {
            None => all(),
            Some(axes) => {
                self.distinct_axes(call, axes, dims.len())?;
                let axis = |&a: &i64| self.axis(call, a, dims.len());
                axes.iter().map(axis).collect::<Result<_>>()?
            }
        };
        let Scaling { scales, sizes, roi } = self.scaling(call)?;
        let fitting = |listed: usize| match listed == at.len() {
            true => Ok(()),
            false => Err(call.error(format!(
                "its {listed} scales or sizes do not fit {} axes",
                at.len()
            ))),
        };
        let mut scales = match (scales, &sizes) {
            (Some(scales), None) => scales,
            (None, Some(sizes)) => {
                fitting(sizes.len())?;
                let pairs = at.iter().zip(sizes);
                pairs.map(|(&a, &n)| n as f32 / dims[a] as f32).collect()
            }
            _ => return Err(call.error("it has neither scales nor sizes, or both")),
        };
        fitting(scales.len())?;
        let policy = call.string("keep_aspect_ratio_policy", "stretch")?;
        let fold = |f: fn(f32, f32) -> f32| scales.iter().copied().reduce(f).unwrap_or(1.0);
        let common = match policy.as_str() {
            "not_larger" if sizes.is_some() => Some(fold(f32::min)),
            "not_smaller" if sizes.is_some() => Some(fold(f32::max)),
            _ => None,
        };
        if let Some(common) = common {
            scales.fill(common);
        }
        let axis = |i: usize| {
            let (n, scale) = (dims[at[i]], scales[i]);
            let after = match (&sizes, common) {
                (Some(_), Some(_)) => (scale * n as f32).round_ties_even(),
                (Some(sizes), None) => sizes[i] as f32,
                (None, _) => (scale * n as f32).floor(),
            };
            let after = match &sizes {
                Some(sizes) if common.is_none() => sizes[i],
                _ => after as usize,
            };
            if !(scale > 0.0 && scale.is_finite()) || after == 0 || after > 1 << 26 {
                return Err(call.error(format!("it scales an axis of length {n} by {scale}")));
            }
            let roi = match &roi {
                Some(roi) if roi.len() == 2 * at.len() => [roi[i], roi[at.len() + i]],
                _ => [0.0, 1.0],
            };
            let lengths = [n, after];
            Ok((
                at[i],
                Axis {
                    lengths,
                    scale,
                    roi,
                },
            ))
        };
        (0..at.len()).map(axis).collect()
    }

    /// The scales or sizes that are given, and the region of a crop.
    fn scaling(&self, call: Call) -> Result<Scaling> {
        let scales = |scales: Option<Vec<f32>>| Scaling {
            scales,
            ..Scaling::default()
        };
        if let Some(stated) = call.floats("scales")? {
            return Ok(scales(Some(stated.to_vec())));
        }
        if call.has("height_scale") || call.has("width_scale") {
            let down = call.float("height_scale", 1.0)? as f32;
            let across = call.float("width_scale", 1.0)? as f32;
            return Ok(scales(Some(vec![1.0, 1.0, down, across])));
        }
        if call.operator() == "Upsample" || self.opset < 11 {
            return Ok(scales(self.optional_reals(call, 1)?));
        }
        let sizes = self.optional_integers(call, 3)?;
        let sizes = sizes.filter(|sizes| !sizes.is_empty()).map(|sizes| {
            let size = |&n: &i64| usize::try_from(n).ok().filter(|&n| n <= 1 << 26);
            let all: Option<Vec<usize>> = sizes.iter().map(size).collect();
            all.ok_or_else(|| call.error(format!("its sizes {sizes:?} are negative or too large")))
        });
        Ok(Scaling {
            scales: self.optional_reals(call, 2)?,
            sizes: sizes.transpose()?,
            roi: self.optional_reals(call, 1)?,
        })
    }

    /// The floating numbers of an input that may be missing or empty.
    fn optional_reals(&self, call: Call, place: usize) -> Result<Option<Vec<f32>>> {
        let tensor = self.optional_constant(call, place)?;
        let some = tensor.filter(|tensor| tensor.len() > 0);
        let numbers = some.map(|tensor| {
            let numbers = self.numbers(call, &tensor)?;
            Ok(numbers.iter().map(|&v| v as f32).collect())
        });
        numbers.transpose()
    }

    /// The entries that those of a resampled axis are made of.
    fn taps(&self, call: Call, axis: &Axis) -> Result<Vec<Taps>> {
        let old = call.operator() == "Upsample" || self.opset < 11;
        let usual = if old { "asymmetric" } else { "half_pixel" };
        let transformation = call.string("coordinate_transformation_mode", usual)?;
        let rounding = if old { "floor" } else { "round_prefer_floor" };
        let rounding = call.string("nearest_mode", rounding)?;
        let mode = call.string("mode", "nearest")?;
        let what = || call.error("a resampled axis").to_string();
        let antialias = call.flag("antialias", false)? && axis.scale < 1.0;
        let spread = if antialias { 1.0 / axis.scale } else { 1.0 };
        let width = (4.0 * spread) as usize + 2;
        self.budget.array(
            &[axis.lengths[1], width],
            2 * size_of::<(usize, f64)>(),
            what,
        )?;
        let kernel = Kernel {
            mode: match mode.as_str() {
                "nearest" => Mode::Nearest,
                "linear" | "bilinear" | "trilinear" => Mode::Linear,
                "cubic" => Mode::Cubic(call.float("cubic_coeff_a", -0.75)?),
                other => return Err(call.error(format!("its mode `{other}` is unknown"))),
            },
            spread: spread.into(),
            excluding: call.flag("exclude_outside", false)?,
        };
        let crop = transformation == "tf_crop_and_resize";
        let exact = axis.scale * axis.lengths[0] as f32;
        if transformation == "align_corners" && exact != axis.lengths[1] as f32 {
            return Err(call.error(format!(
                "it aligns the corners of an axis of {exact} entries, which the standard and runtimes round differently; \
                 state its sizes"
            )));
        }
        let entry = |i: usize| {
            let place = coordinate(&transformation, axis, i);
            let place = place.ok_or_else(|| {
                call.error(format!(
                    "its coordinate_transformation_mode `{transformation}` is unknown"
                ))
            })?;
            let n = axis.lengths[0];
            if crop && !(0.0..=(n - 1) as f32).contains(&place) {
                return Ok(None);
            }
            if matches!(kernel.mode, Mode::Nearest) {
                let nearest = rounded(&rounding, place).ok_or_else(|| {
                    call.error(format!("its nearest_mode `{rounding}` is unknown"))
                })?;
                return Ok(Some(vec![(
                    nearest.clamp(0.0, (n - 1) as f32) as usize,
                    1.0,
                )]));
            }
            Ok(Some(kernel.taps(place.into(), n)))
        };
        (0..axis.lengths[1]).map(entry).collect()
    }

    /// An axis whose entries are sums of entries with weights.
    fn weighted(
        &mut self,
        call: Call,
        x: Activation,
        at: usize,
        taps: &[Taps],
        outside: f64,
    ) -> Result<Activation> {
        let most = taps.iter().flatten().map(Vec::len).max().unwrap_or(1);
        let tap = |i: usize, j: usize| taps[i].as_ref().and_then(|taps| taps.get(j)).copied();
        let mut dims = x.dims.clone();
        dims[at] = taps.len();
        let mut weights_dims = vec![1; x.dims.len() - at];
        weights_dims[0] = taps.len();
        let mut parts = Vec::new();
        for j in 0..most {
            let used = (0..taps.len()).map(|i| tap(i, j).filter(|&(_, weight)| weight != 0.0));
            let used: Vec<Option<(usize, f64)>> = used.collect();
            let taken: Vec<Option<usize>> = used.iter().map(|t| Some((*t)?.0)).collect();
            let weights: Vec<f64> = used.iter().map(|t| t.map_or(0.0, |t| t.1)).collect();
            if used.iter().all(Option::is_none) {
                continue;
            }
            let fill = if most == 1 { outside } else { 0.0 };
            let part = self.take(call, x.clone(), at, &taken, fill)?;
            let same = used.iter().flatten().all(|&(_, weight)| weight == 1.0);
            parts.push(match same {
                true => part.id,
                false => {
                    let weights = ArrayD::from_shape_vec(IxDyn(&weights_dims), weights);
                    let weights = weights.expect("as many entries");
                    self.builder.scale(part.id, weights, false)?
                }
            });
        }
        let mut id = match parts[..] {
            [one] => one,
            [] => return Err(call.error("nothing of its input is left")),
            _ => self.builder.sum(&parts)?,
        };
        if most > 1 && outside != 0.0 && taps.iter().any(Option::is_none) {
            let fill = |taps: &Taps| if taps.is_none() { outside } else { 0.0 };
            let fill = taps.iter().map(fill).collect();
            let fill = ArrayD::from_shape_vec(IxDyn(&weights_dims), fill).expect("as many entries");
            id = self.builder.shift(id, fill, false)?;
        }
        let id = self.shaped(id, sample_shape(&dims))?;
        Ok(Activation { id, dims })
    }

    /// Blocks of channels as blocks of places, or the other way round.
    pub(super) fn blocks(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let size = usize::try_from(call.integer("blocksize", 0)?).ok();
        let size = size.filter(|&size| (1..=1 << 13).contains(&size));
        let size = size.ok_or_else(|| call.error("its blocksize is less than 1 or too large"))?;
        let &[batch, channels, height, width] = &x.dims[..] else {
            return Err(call.error(format!(
                "its input has dimensions {:?}, but [batch, channels, height, width] is needed",
                x.dims
            )));
        };
        let to_space = call.operator() == "DepthToSpace";
        let square = size * size;
        let fits = match to_space {
            true => channels.is_multiple_of(square),
            false => height.is_multiple_of(size) && width.is_multiple_of(size),
        };
        if !fits {
            return Err(call.error(format!(
                "blocks of {size} do not divide its input of dimensions {:?}",
                x.dims
            )));
        }
        let columns_first = call.string("mode", "DCR")? == "CRD";
        let (split, order, dims) = if to_space {
            let depth = channels / square;
            let (split, order) = match columns_first {
                true => (
                    vec![batch, depth, size, size, height, width],
                    [0, 1, 4, 2, 5, 3],
                ),
                false => (
                    vec![batch, size, size, depth, height, width],
                    [0, 3, 4, 1, 5, 2],
                ),
            };
            (
                split,
                order,
                vec![batch, depth, height * size, width * size],
            )
        } else {
            let (down, across) = (height / size, width / size);
            let split = vec![batch, channels, down, size, across, size];
            let order = match columns_first {
                true => [0, 1, 3, 5, 2, 4],
                false => [0, 3, 5, 1, 2, 4],
            };
            (split, order, vec![batch, channels * square, down, across])
        };
        let id = self.shaped(x.id, &split)?;
        let id = self.builder.transpose(id, &order)?;
        self.value(id, dims)
    }
}

enum Mode {
    Nearest,
    Linear,
    /// Keys' kernel with its coefficient.
    Cubic(f64),
}

/// How entries near a place are weighted.
struct Kernel {
    mode: Mode,
    /// How much wider it is, so that no entry is passed over where an axis becomes shorter.
    spread: f64,
    /// Whether entries outside count for nothing, and not as the last one inside.
    excluding: bool,
}

impl Kernel {
    fn weight(&self, distance: f64) -> f64 {
        let d = distance.abs();
        match self.mode {
            Mode::Nearest => f64::from(u8::from(d < 0.5)),
            Mode::Linear => (1.0 - d).max(0.0),
            Mode::Cubic(a) if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Mode::Cubic(a) if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            Mode::Cubic(_) => 0.0,
        }
    }

    /// The entries of an axis of length `n` around a place, with weights of sum 1.
    fn taps(&self, place: f64, n: usize) -> Vec<(usize, f64)> {
        let reach = match self.mode {
            Mode::Cubic(_) => 2.0 * self.spread,
            Mode::Nearest | Mode::Linear => self.spread,
        };
        let last = (n - 1) as f64;
        let (mut at, end) = ((place - reach).ceil(), (place + reach).floor());
        let mut taps: Vec<(usize, f64)> = Vec::new();
        let mut sum = 0.0;
        while at <= end {
            let weight = self.weight((at - place) / self.spread);
            let inside = (0.0..=last).contains(&at);
            if weight != 0.0 && (inside || !self.excluding) {
                let entry = at.clamp(0.0, last) as usize;
                sum += weight;
                match taps.last_mut() {
                    Some((same, total)) if *same == entry => *total += weight,
                    _ => taps.push((entry, weight)),
                }
            }
            at += 1.0;
        }
        taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
        taps
    }
}

/// Where entry `i` of a resampled axis lies on the old one; in `f32`, as runtimes compute it.
fn coordinate(transformation: &str, axis: &Axis, i: usize) -> Option<f32> {
    let [before, after] = axis.lengths.map(|n| n as f32);
    let (i, scale) = (i as f32, axis.scale);
    let half_pixel = (i + 0.5) / scale - 0.5;
    Some(match transformation {
        "half_pixel" => half_pixel,
        "half_pixel_symmetric" => {
            let adjustment = after / (scale * before);
            before / 2.0 * (1.0 - adjustment) + half_pixel
        }
        "pytorch_half_pixel" if after > 1.0 => half_pixel,
        "pytorch_half_pixel" => 0.0,
        "align_corners" if after > 1.0 => i * (before - 1.0) / (after - 1.0),
        "align_corners" => 0.0,
        "asymmetric" => i / scale,
        "tf_half_pixel_for_nn" => (i + 0.5) / scale,
        "tf_crop_and_resize" => {
            let [start, end] = axis.roi.map(|part| part * (before - 1.0));
            match after > 1.0 {
                true => start + i * (end - start) / (after - 1.0),
                false => 0.5 * (start + end),
            }
        }
        _ => return None,
    })
}

/// The entry nearest to a place.
fn rounded(mode: &str, place: f32) -> Option<f32> {
    Some(match mode {
        "round_prefer_floor" => (place - 0.5).ceil(),
        "round_prefer_ceil" => (place + 0.5).floor(),
        "floor" => place.floor(),
        "ceil" => place.ceil(),
        _ => return None,
    })
}
