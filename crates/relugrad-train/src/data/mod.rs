//! Labelled images in `[0, 1]`: the built-in digits, IDX files such as MNIST's, and splits of them.
//!
//! ```
//! use relugrad_train::data::{digits, stratified_split};
//!
//! let split = stratified_split(&digits(), 0.2, 7)?;
//! assert_eq!(split.train.samples() + split.test.samples(), 1797);
//! assert_eq!(split.test.shape(), [1, 8, 8]);
//! # Ok::<(), relugrad_train::Error>(())
//! ```

mod cifar;
mod dataset;
mod digits;
mod idx;
mod split;

pub use cifar::{is_cifar10, load_cifar10};
pub use dataset::Dataset;
pub use digits::digits;
pub use idx::load_idx;
pub use split::{Split, stratified_split};
