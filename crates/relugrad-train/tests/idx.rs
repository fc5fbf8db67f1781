//! Data sets in directories of IDX files: what is read, and what is refused.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad_train::data::{Split, load_idx};
use relugrad_train::{Error, Result};
use tempfile::TempDir;

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

/// The bytes of a file with this magic number, these dimensions and these elements.
fn idx(magic: u32, dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let header = [&[magic], dimensions].concat();
    let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_be_bytes()).collect();
    bytes.extend(elements);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A directory with three training and two test images of one row and two columns.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(
            TRAIN_IMAGES,
            &idx(0x803, &[3, 1, 2], &[0, 51, 102, 153, 204, 255]),
        );
        files.write(TRAIN_LABELS, &idx(0x801, &[3], &[1, 0, 2]));
        files.write(TEST_IMAGES, &idx(0x803, &[2, 1, 2], &[255, 0, 0, 255]));
        files.write(TEST_LABELS, &idx(0x801, &[2], &[4, 0]));
        files
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.0.path().join(from), self.0.path().join(to)).unwrap();
    }

    fn load(&self) -> Result<Split> {
        load_idx(self.0.path())
    }

    fn error(&self) -> Error {
        self.load().unwrap_err()
    }

    fn is(&self, path: &Path, name: &str) -> bool {
        path == self.0.path().join(name)
    }
}

#[test]
fn four_files_are_a_split() {
    let files = Files::new();
    let Split { train, test, .. } = files.load().unwrap();
    assert_eq!(
        train.images().as_slice().unwrap(),
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    );
    assert_eq!(train.images().dim(), (3, 2));
    assert_eq!(train.labels(), [1, 0, 2]);
    assert_eq!(test.images().as_slice().unwrap(), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(test.labels(), [4, 0]);
    for part in [train, test] {
        assert_eq!(
            part.name(),
            files.0.path().file_name().unwrap().to_str().unwrap()
        );
        assert_eq!(part.classes(), 5);
        assert_eq!(part.shape(), [1, 1, 2]);
    }
}

#[test]
fn gzip_and_dots_make_no_difference() {
    let files = Files::new();
    let plain = files.load().unwrap();
    for name in [TRAIN_IMAGES, TEST_LABELS] {
        let bytes = fs::read(files.0.path().join(name)).unwrap();
        files.write(&format!("{name}.gz"), &gzip(&bytes));
        fs::remove_file(files.0.path().join(name)).unwrap();
    }
    files.rename("train-images-idx3-ubyte.gz", "train-images.idx3-ubyte.gz");
    files.rename(TRAIN_LABELS, "train-labels.idx1-ubyte");
    assert_eq!(files.load().unwrap(), plain);
}

#[test]
fn the_plain_file_goes_before_the_compressed_one() {
    let files = Files::new();
    files.write("t10k-labels-idx1-ubyte.gz", b"never looked at");
    assert!(files.load().is_ok());
}

#[test]
fn a_directory_keeps_its_name_with_dots_in_the_path() {
    let files = Files::new();
    let dir = files.0.path();
    let name = dir.file_name().unwrap().to_str().unwrap();
    fs::create_dir(dir.join("inside")).unwrap();
    assert_eq!(load_idx(&dir.join(".")).unwrap().train.name(), name);
    assert_eq!(
        load_idx(&dir.join("inside").join(".."))
            .unwrap()
            .train
            .name(),
        name
    );
}

#[test]
fn a_missing_file_is_named_with_its_variants() {
    let files = Files::new();
    fs::remove_file(files.0.path().join(TEST_LABELS)).unwrap();
    let Error::MissingFile {
        directory,
        expected,
    } = files.error()
    else {
        panic!()
    };
    assert_eq!(directory, files.0.path());
    assert_eq!(
        expected,
        [
            "t10k-labels-idx1-ubyte",
            "t10k-labels-idx1-ubyte.gz",
            "t10k-labels.idx1-ubyte",
            "t10k-labels.idx1-ubyte.gz"
        ]
    );
    assert!(files.error().to_string().ends_with(&expected.join(", ")));
}

#[test]
fn what_cannot_be_read_is_named() {
    let files = Files::new();
    let nowhere = files.0.path().join("nowhere");
    let e = load_idx(&nowhere).unwrap_err();
    assert!(matches!(e, Error::Read { path, .. } if path == nowhere));
    assert!(matches!(
        load_idx(Path::new("")).unwrap_err(),
        Error::Read { .. }
    ));
    let file = files.0.path().join(TRAIN_IMAGES);
    assert!(matches!(load_idx(&file).unwrap_err(), Error::Read { .. }));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let Error::Io(problem) = files.error() else {
        panic!("a folder is no file")
    };
    assert!(
        matches!(problem, relugrad_io::Error::NotReadable { path, kind } if path == file && kind == "folder")
    );
}

#[test]
fn damaged_gzip_files_are_refused() {
    let whole = gzip(&idx(0x803, &[3, 1, 2], &[0, 51, 102, 153, 204, 255]));
    let mut flipped = whole.clone();
    let checksum = whole.len() - 8;
    flipped[checksum] ^= 1;
    for bytes in [
        &[],
        b"no gzip".as_slice(),
        &whole[..whole.len() - 1],
        &flipped,
    ] {
        let files = Files::new();
        fs::remove_file(files.0.path().join(TRAIN_IMAGES)).unwrap();
        files.write("train-images-idx3-ubyte.gz", bytes);
        let e = files.error();
        let Error::Gzip { path, .. } = &e else {
            panic!("{e}")
        };
        assert!(files.is(path, "train-images-idx3-ubyte.gz"));
    }
}

#[test]
fn a_gzip_bomb_is_not_decompressed() {
    let files = Files::new();
    fs::remove_file(files.0.path().join(TRAIN_LABELS)).unwrap();
    let bomb = gzip(&idx(0x801, &[3], &vec![0; 100_000_000]));
    assert!(bomb.len() < 200_000);
    files.write("train-labels-idx1-ubyte.gz", &bomb);
    assert!(matches!(
        files.error(),
        Error::IdxTrailing {
            what: "labels",
            expected: 11,
            ..
        }
    ));
}

#[test]
fn exchanged_files_are_noticed() {
    let files = Files::new();
    files.rename(TRAIN_IMAGES, "other");
    files.rename(TRAIN_LABELS, TRAIN_IMAGES);
    files.rename("other", TRAIN_LABELS);
    let e = files.error();
    assert!(e.to_string().contains("it is a file of labels"));
    let Error::IdxMagic {
        path,
        what: "images",
        expected: 0x803,
        found: 0x801,
    } = &e
    else {
        panic!("{e}")
    };
    assert!(files.is(path, TRAIN_IMAGES));
}

#[test]
fn lengths_are_compared_with_the_header() {
    let files = Files::new();
    files.write(TRAIN_LABELS, &idx(0x801, &[3], &[1, 0]));
    assert!(
        matches!(files.error(), Error::IdxTruncated { path, what: "labels", expected: 11, found: 10 }
        if files.is(&path, TRAIN_LABELS))
    );
    files.write(TRAIN_LABELS, &idx(0x801, &[3], &[1, 0, 2, 0]));
    assert!(
        matches!(files.error(), Error::IdxTrailing { path, what: "labels", expected: 11 }
        if files.is(&path, TRAIN_LABELS))
    );
    files.write(TEST_IMAGES, &idx(0x803, &[2, 0, 2], &[]));
    files.write(TRAIN_LABELS, &idx(0x801, &[3], &[1, 0, 2]));
    assert!(
        matches!(files.error(), Error::IdxZero { path, what: "rows" }
        if files.is(&path, TEST_IMAGES))
    );
    files.write(TEST_IMAGES, &idx(0x803, &[2, u32::MAX, u32::MAX], &[0]));
    assert!(
        matches!(files.error(), Error::Io(relugrad_io::Error::InFile { path, problem })
        if files.is(&path, TEST_IMAGES) && matches!(*problem, relugrad_io::Error::Memory { .. }))
    );
}

#[test]
fn files_must_belong_together() {
    let files = Files::new();
    files.write(TEST_LABELS, &idx(0x801, &[3], &[0, 0, 0]));
    assert!(
        matches!(files.error(), Error::IdxCounts { path, images, expected: 2, found: 3 }
        if files.is(&path, TEST_LABELS) && files.is(&images, TEST_IMAGES))
    );
    let files = Files::new();
    files.write(TEST_IMAGES, &idx(0x803, &[2, 2, 1], &[0; 4]));
    assert!(
        matches!(files.error(), Error::IdxShapes { path, train, expected: [1, 2], found: [2, 1] }
        if files.is(&path, TEST_IMAGES) && files.is(&train, TRAIN_IMAGES))
    );
}

/// Random damage, plain and compressed: an error or a sound data set, never a panic.
#[test]
fn damaged_files_never_panic() {
    let good = [
        (
            TRAIN_IMAGES,
            idx(0x803, &[3, 1, 2], &[0, 51, 102, 153, 204, 255]),
        ),
        (TRAIN_LABELS, idx(0x801, &[3], &[1, 0, 2])),
    ];
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let (mut accepted, rounds) = (0, 3000);
    for round in 0..rounds {
        let files = Files::new();
        let (name, bytes) = &good[round % 2];
        let mut bytes = bytes.clone();
        for _ in 0..random.random_range(1..=3) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => bytes.insert(at, random.random()),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        if random.random() {
            let mut packed = gzip(&bytes);
            let at = random.random_range(0..packed.len());
            packed[at] ^= 1 << random.random_range(0..8);
            fs::remove_file(files.0.path().join(name)).unwrap();
            files.write(&format!("{name}.gz"), &packed);
        } else {
            files.write(name, &bytes);
        }
        accepted += usize::from(files.load().is_ok());
    }
    assert!(accepted > rounds / 100, "{accepted} accepted");
}
