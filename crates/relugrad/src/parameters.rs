//! A vector in parameter space: the weights of a network, or a gradient with respect to them.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayViewD, IxDyn};

use crate::error::{Error, Result, check_shape};
use crate::parallel::{all_finite, for_each_chunk};
use crate::scalar::Scalar;

/// Entries that a thread clears at a time.
const PIECE: usize = 1 << 16;

/// Name, shape and place of one parameter array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    name: String,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl ParameterInfo {
    pub(crate) fn new(name: String, shape: Vec<usize>, start: usize) -> ParameterInfo {
        let end = start + shape.iter().product::<usize>();
        ParameterInfo {
            name,
            shape,
            range: start..end,
        }
    }

    /// Replaces the node's part of the name.
    pub(crate) fn rename_node(&mut self, node: &str) {
        let array = self.name.rsplit('.').next().unwrap_or_default();
        self.name = format!("{node}.{array}");
    }

    /// Name of the node and of the array, such as `dense0.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape of the array, row-major; a dense weight is `[outputs, inputs]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Where its entries are in the flat vector of all parameters.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

/// All parameters of a network as one flat vector, or a vector of the same layout such as a
/// gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters<T> {
    layout: Arc<[ParameterInfo]>,
    values: Vec<T>,
}

impl<T: Scalar> Parameters<T> {
    pub(crate) fn new(layout: Vec<ParameterInfo>, values: Vec<T>) -> Parameters<T> {
        debug_assert_eq!(layout.last().map_or(0, |info| info.range.end), values.len());
        Parameters {
            layout: layout.into(),
            values,
        }
    }

    /// The zero vector of the same layout.
    pub fn zeros_like(&self) -> Parameters<T> {
        Parameters {
            layout: Arc::clone(&self.layout),
            values: vec![T::ZERO; self.values.len()],
        }
    }

    /// Whether both vectors have the same arrays in the same places.
    pub fn same_layout(&self, other: &Parameters<T>) -> bool {
        Arc::ptr_eq(&self.layout, &other.layout) || self.layout == other.layout
    }

    /// The arrays in the order in which they stand in [`values`](Self::values).
    pub fn layout(&self) -> &[ParameterInfo] {
        &self.layout
    }

    /// All entries; each array is row-major.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All entries, for an optimizer. A NaN or infinity written here is reported by the next trace.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// All values, in the order of the layout, without a copy.
    pub fn into_values(self) -> Vec<T> {
        self.values
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no parameters at all.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The `index`-th array of [`layout`](Self::layout), or `None` past the end.
    pub fn array(&self, index: usize) -> Option<ArrayViewD<'_, T>> {
        let info = self.layout.get(index)?;
        let values = &self.values[info.range()];
        Some(ArrayViewD::from_shape(IxDyn(&info.shape), values).expect("the layout fits"))
    }

    /// The arrays with their names, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ArrayViewD<'_, T>)> {
        self.layout.iter().enumerate().map(|(i, info)| {
            let array = self.array(i).expect("i is below the number of arrays");
            (info.name.as_str(), array)
        })
    }

    /// Replaces all entries.
    ///
    /// # Errors
    /// [`Error::Shape`] if the length differs, [`Error::NotFinite`] for NaN or infinity.
    pub fn assign(&mut self, values: &[T]) -> Result<()> {
        check_shape("parameters", &[self.values.len()], &[values.len()])?;
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite {
                what: format!("parameter {}", self.name_at(index)),
                index: vec![index],
            });
        }
        self.values.copy_from_slice(values);
        Ok(())
    }

    /// The name of the array that an entry belongs to.
    pub(crate) fn name_at(&self, index: usize) -> &str {
        let holds = |info: &&ParameterInfo| info.range.contains(&index);
        self.layout.iter().find(holds).map_or("", |info| &info.name)
    }

    /// Refuses entries that are not finite.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        match self.values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(Error::NotFinite {
                what: format!("{what} of {}", self.name_at(index)),
                index: vec![index],
            }),
        }
    }

    pub(crate) fn is_finite(&self) -> bool {
        all_finite(&self.values)
    }

    pub(crate) fn fill_zero(&mut self) {
        let length = self.values.len();
        for_each_chunk(&mut self.values, PIECE, length, |_, part| {
            part.fill(T::ZERO);
        });
    }

    /// The same vector in another precision, every entry rounded to the nearest number that it has.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for an entry that is beyond the other precision's range, or that is not
    /// finite itself.
    pub fn cast<U: Scalar>(&self) -> Result<Parameters<U>> {
        let cast: Parameters<U> = self.rounded();
        match cast.values.iter().position(|value| !value.is_finite()) {
            None => Ok(cast),
            Some(index) => Err(Error::NotFinite {
                what: format!("parameter {} in {}", self.name_at(index), U::NAME),
                index: vec![index],
            }),
        }
    }

    /// The same, with infinities for entries that are beyond the other precision's range.
    pub(crate) fn rounded<U: Scalar>(&self) -> Parameters<U> {
        let rounded = self.values.iter().map(|v| U::from_f64(v.into_f64()));
        Parameters {
            layout: Arc::clone(&self.layout),
            values: rounded.collect(),
        }
    }
}
