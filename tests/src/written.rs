//! Which random networks other programs are asked about.

/// Seeds of [`every_attribute`](crate::layered::every_attribute) that have every operation and
/// attribute between them.
pub const SEEDS: [u64; 20] = [
    384, 5074, 7950, 8444, 10903, 11217, 11247, 12341, 13759, 14273, 15359, 15794, 15829, 17680,
    18609, 19139, 19259, 19627, 19868, 19918,
];
