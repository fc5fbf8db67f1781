//! Random damage, fixed by the random numbers that it is given.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::{Format, Seed, message};

/// Numbers at the ends of their ranges, and some that are likely to matter.
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "67108865",
    "1099511627776",
    "9223372036854775807",
    "18446744073709551615",
    "1e9",
    "1e999",
    "-1e999",
    "1e-320",
    "nan",
    "inf",
    "0.5",
    "1e300",
    "99999999999999999999999",
];

/// What separates and encloses in texts.
const SIGNS: &[u8] = b"0123456789-.eE[]{}(),:;=\"'\\ \n\r\t/#abdfilnprstux\x00\xff\x1b";

/// A damaged copy of one of the seeds, and the seed's name.
pub(crate) fn mutant<'s>(
    format: Format,
    seeds: &'s [Seed],
    random: &mut ChaCha8Rng,
) -> (&'s str, Vec<u8>) {
    let seed = seeds.choose(random).expect("the corpus has seeds");
    let mut bytes = seed.bytes.clone();
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            break;
        }
        match format {
            Format::Onnx if random.random_range(0..4) > 0 => {
                bytes = message::mutated(&bytes, random);
            }
            _ if format.is_text() && random.random_range(0..3) > 0 => words(&mut bytes, random),
            Format::Npy | Format::Safetensors | Format::State if random.random() => {
                words(&mut bytes, random);
            }
            _ => damage(&mut bytes, random),
        }
    }
    if random.random() {
        put_lengths_right(format, &seed.bytes, &mut bytes);
    }
    (&seed.name, bytes)
}

/// Changes, removes or adds some bytes.
fn damage(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..10) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.remove(at)),
        4 => bytes.insert(at, SIGNS[random.random_range(0..SIGNS.len())]),
        5 => bytes[at] = SIGNS[random.random_range(0..SIGNS.len())],
        6 => {
            // A number of some bytes at the end of its range.
            let width = [1, 2, 4, 8][random.random_range(0..4)].min(bytes.len() - at);
            let value = [0, 0xff, 0x80, 0x7f][random.random_range(0..4)];
            bytes[at..at + width].fill(value);
        }
        7 => {
            let end = (at + random.random_range(1..40)).min(bytes.len());
            bytes.drain(at..end);
        }
        8 => {
            let end = (at + random.random_range(1..40)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            let to = random.random_range(0..=bytes.len());
            bytes.splice(to..to, part);
        }
        _ => {
            let count = [1, 8, 100][random.random_range(0..3)];
            bytes.splice(at..at, vec![bytes[at]; count]);
        }
    }
}

/// Exchanges, repeats or removes words, numbers and signs of a text.
fn words(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let words = split(bytes);
    let (start, end) = words[random.random_range(0..words.len())];
    let other = words[random.random_range(0..words.len())];
    let other = bytes[other.0..other.1].to_vec();
    let new = match random.random_range(0..6) {
        0 | 1 => NUMBERS
            .choose(random)
            .map(|number| number.as_bytes().to_vec()),
        2 => Some(other),
        3 => Some(Vec::new()),
        4 => Some(bytes[start..end].repeat([2, 3, 200][random.random_range(0..3)])),
        _ => Some([&bytes[start..end], &other[..]].concat()),
    };
    bytes.splice(start..end, new.unwrap_or_default());
}

/// Where words, numbers and single signs are.
fn split(bytes: &[u8]) -> Vec<(usize, usize)> {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let mut words = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let length = bytes[start..]
            .iter()
            .take_while(|byte| inside(byte))
            .count();
        let end = start + length.max(1);
        words.push((start, end));
        start = end;
    }
    words
}

/// Where a file states the length of its header, states the one that it has.
fn put_lengths_right(format: Format, good: &[u8], bytes: &mut [u8]) {
    let change = bytes.len() as i64 - good.len() as i64;
    if format.begins_with_length() && bytes.len() > 8 {
        let Some(old) = good.first_chunk() else {
            return;
        };
        let length = u64::from_le_bytes(*old).saturating_add_signed(change);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
    }
    if format == Format::Npy && bytes.len() > 10 && good.len() > 10 {
        let old = u16::from_le_bytes([good[8], good[9]]);
        let length = old.saturating_add_signed(change as i16);
        bytes[8..10].copy_from_slice(&length.to_le_bytes());
    }
}
