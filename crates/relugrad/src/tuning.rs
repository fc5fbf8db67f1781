//! Numbers by which the engine chooses between ways that lead to the same result, in one place,
//! with what is known of how each was found.
//!
//! None of them changes a result by more than rounding, and none depends on the number of threads.
//! Processors are those of `docs/history/benchmarks.md`: a *Zen 1* (AVX2 in halves), a *Zen 3*
//! (AVX2, 16 registers) and a *Zen 5* (AVX-512, 32 registers), all of them virtual machines with
//! neighbours. To measure on another one, change a number here and let `relugrad bench` time both
//! versions in turns. What processors have in common, such as the number of sums that fit their
//! registers, is beside the kernels.

/// Scalar operations below which handing work to other threads costs more than it saves. It was
/// chosen when the engine was begun; its machine was not noted down.
pub(crate) const SERIAL_BELOW: usize = 1 << 15;

/// Rows of each sample from which on a product with lists is the faster one but for few zeros.
/// Chosen with [`DENSE_FROM`]; the machine was not noted down.
pub(crate) const MANY_ROWS: usize = 4;

/// The least share of nonzero columns at which a dense product is faster than one with lists of
/// [`MANY_ROWS`] rows or more. With lists, products run at about three quarters of the processor's
/// rate (Zen 1).
pub(crate) const DENSE_FROM: f64 = 0.95;

/// The same for two or three rows; the machine was not noted down.
pub(crate) const FEW_ROWS_DENSE_FROM: f64 = 0.75;

/// Speed of a product with lists of single rows, in which every multiply-add needs a load, as a
/// share of a dense one's. On a Zen 3 69 GFLOP/s of 110, 58 where a panel does not fit the first
/// cache; on a Zen 5 70 to 110 of 235. Thresholds of 50 to 75 % are within the noise on the Zen 3.
pub(crate) const ROW_SPEED: f64 = 0.5;

/// The same for a sum over samples of single rows with less than 32 registers: on a Zen 1 sums gain
/// at half of the units active too (plain step of 3072-1024-512-10 58 ms instead of 64).
pub(crate) const SUM_SPEED: f64 = 0.6;

/// What an entry of a list costs in multiply-adds if the pattern tells it, and if it has to be
/// found. On a Zen 3 lists of single rows pay below 40 to 50 % of active units with 512 units and
/// below 25 % with 128, from which these follow.
pub(crate) const LISTING: (f64, f64) = (48.0, 120.0);

/// What packing an entry of a right factor costs in multiply-adds if it lies row by row, and if
/// column by column; how it was measured was not noted down.
pub(crate) const PACKING: (f64, f64) = (8.0, 12.0);

/// The share of nonzero entries below which a single row's product with a matrix skips the others
/// and packs nothing; the machine was not noted down.
pub(crate) const SINGLE_ROW: f64 = 0.1;

/// Bytes of a panel that one pass goes through for a single row: they stay in a first cache of 32
/// KiB beside the list. On a Zen 5 16 to 64 KiB made no difference that mattered.
pub(crate) const PASS: usize = 24 << 10;

/// Columns that one pass goes through for a group of rows: 96 to 768 are within the noise. 512
/// filled the first cache.
pub(crate) const GROUP_PASS: usize = 256;

/// Bytes of the rows whose lists a thread goes through again for every panel: the lists, of about
/// half of them, stay in the second cache. Lists of 256 KiB to 4 MiB are within the noise but for
/// the smallest.
pub(crate) const LISTED: usize = 1 << 20;

/// The most units of which a thread keeps sums over samples at a time; the machine was not noted
/// down.
pub(crate) const MOST_UNITS: usize = 256;

/// The least rows of a sample at which sums over samples take units sample after sample: with fewer
/// that is more loading and storing than computing. The machine was not noted down.
pub(crate) const LEAST_ROWS: usize = 4;

/// What sums over subsets of samples cost in dense multiply-adds for each row and column: a
/// selection, a table, a contraction. Timed alone on one thread of a Zen 3 (3.3 ms instead of 9.9
/// with 10 rows, 128 samples and a layer of 512×512).
pub(crate) const SUBSETS: (f64, f64, f64) = (1.1, 28.0, 8.0);

/// The price of a symmetric product beside a whole one; the machine was not noted down.
pub(crate) const HALF: f64 = 0.6;

/// The price of a multiply-add in a product that leaves out inactive units, beside one in a dense
/// product: lists run at about three quarters of the processor's rate (Zen 1), dense products at a
/// little less than the whole.
pub(crate) const SPARSE: f64 = 1.2;

/// What a nonzero cotangent costs in a convolution's transpose that leaves out the others, beside
/// one of a dense product, and how many of them a position costs. Fitted on a Zen 5 to kernels of
/// 3×3 and 5×5 with 16 to 64 channels, of whose cotangents a quarter or a half is nonzero.
pub(crate) const SPARSE_COTANGENT: (f64, f64) = (1.8, 14.0);

/// The same for the gradient of the weight.
pub(crate) const SPARSE_FILTER: (f64, f64) = (1.5, 9.0);

/// Bytes of the rows that a pass keeps from the way forth to the way back, at most; where they do
/// not fit, so many samples go through together. A second sweep of the rows costs less than double
/// backpropagation gains by keeping everything.
pub(crate) const PASS_MEMORY: usize = 16 << 20;

/// How many samples a pass sweeps together at least: products of fewer rows are slower.
pub(crate) const PASS_SAMPLES: usize = 4;
