//! Samples in a box with classes or values: the built-in digits, files of many kinds
//! ([`Source`]), splits and augmentation.
//!
//! ```
//! use relugrad_train::data::{digits, stratified_split};
//!
//! let split = stratified_split(&digits(), 0.2, 7)?;
//! assert_eq!(split.train.samples() + split.test.samples(), 1797);
//! assert_eq!(split.test.shape(), [1, 8, 8]);
//! # Ok::<(), relugrad_train::Error>(())
//! ```

mod arrays;
mod augment;
mod bounds;
mod cifar;
mod dataset;
mod digits;
mod file;
mod idx;
mod reading;
mod scale;
mod source;
mod split;
mod table;
mod truth;

pub use augment::Augmentation;
pub use bounds::{Bounds, BoxChoice};
pub use cifar::{is_cifar10, is_cifar100, load_cifar10, load_cifar100};
pub use dataset::Dataset;
pub use digits::digits;
pub use idx::load_idx;
pub use reading::Reading;
pub use scale::Scale;
pub use source::Source;
pub use split::{Split, stratified_split};
pub use truth::Truth;
