//! Files of samples, which may be compressed, and what they may take.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use relugrad_io::{Budget, Limits, open_file};

use crate::error::{Error, Result};

/// The longest line of a table, unless more is allowed.
const LONGEST_LINE: u64 = 16 << 20;

/// An open file whose name tells whether it is compressed.
pub(super) struct DataFile {
    file: File,
    compressed: bool,
    length: u64,
}

impl DataFile {
    pub(super) fn open(path: &Path) -> Result<DataFile> {
        let (file, length) = open_file(path).map_err(|error| {
            if let relugrad_io::Error::Read { path, source } = error {
                return Error::Read { path, source };
            }
            error.into()
        })?;
        Ok(DataFile {
            file,
            compressed: is_gzip(path),
            length,
        })
    }

    /// The bytes, decompressed, for a format whose header tells how many there are, and what the
    /// file may take.
    pub(super) fn whole(self) -> (Box<dyn Read>, Budget) {
        let budget = Limits::of_process().budget(self.length);
        match self.compressed {
            true => (Box::new(MultiGzDecoder::new(self.file)), budget),
            false => (Box::new(self.file), budget),
        }
    }

    /// The bytes, decompressed, for a format that only ends with the file, and what the file may
    /// take.
    ///
    /// Each of them is paid for `price` times, and what may be paid grows with what has been read
    /// of the file: a stream that unfolds without end ends there.
    pub(super) fn stream(self, price: u64) -> (Paying<Box<dyn Read>>, Rc<Budget>) {
        let budget = Rc::new(Limits::of_process().budget(0));
        let file = Growing {
            reader: self.file,
            budget: Rc::clone(&budget),
        };
        let reader: Box<dyn Read> = match self.compressed {
            true => Box::new(MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        let paying = Paying {
            reader,
            budget: Rc::clone(&budget),
            price,
        };
        (paying, budget)
    }
}

pub(super) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// A reader each of whose bytes adds to what may be paid.
struct Growing<R> {
    reader: R,
    budget: Rc<Budget>,
}

impl<R: Read> Read for Growing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(bytes)?;
        self.budget.grow(count as u64);
        Ok(count)
    }
}

/// A reader each of whose bytes is paid for.
pub(super) struct Paying<R> {
    reader: R,
    budget: Rc<Budget>,
    price: u64,
}

impl<R: Read> Read for Paying<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(bytes)?;
        let what = || "what it holds, once unfolded,".to_owned();
        let paid = self.budget.take(count as u64 * self.price, what);
        paid.map_err(io::Error::other)?;
        Ok(count)
    }
}

impl<R> Paying<R> {
    /// The same bytes, of which no line may be longer than any line of a table is, unless more is
    /// allowed.
    pub(super) fn lines(self) -> Lines<R> {
        Lines {
            reader: self,
            line: 0,
        }
    }
}

/// A reader of lines of a sensible length.
pub(super) struct Lines<R> {
    reader: Paying<R>,
    /// Bytes of the line so far.
    line: u64,
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(bytes)?;
        let read = &bytes[..count];
        let line = match read.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => (count - last - 1) as u64,
            None => self.line + count as u64,
        };
        let checked = Limits::of_process().check_length("a line", line, LONGEST_LINE);
        checked.map_err(io::Error::other)?;
        self.line = line;
        Ok(count)
    }
}

/// Tells a file that asks for too much or is damaged from one that cannot be read.
pub(super) fn read_error(path: &Path, source: io::Error) -> Error {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    let damaged = matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof);
    let path = path.to_path_buf();
    if source
        .get_ref()
        .is_some_and(|inner| inner.is::<relugrad_io::Error>())
    {
        let inner = source.into_inner().and_then(|inner| inner.downcast().ok());
        let inner: relugrad_io::Error = *inner.expect("it was looked at");
        return Error::Io(inner.in_file(&path));
    }
    if damaged && is_gzip(&path) {
        Error::Gzip { path, source }
    } else {
        Error::Read { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn streams_that_unfold_without_end_are_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bomb.csv.gz");
        let file = File::create(&path).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        for _ in 0..100 {
            encoder.write_all(&b"0,1\n".repeat(250_000)).unwrap();
        }
        encoder.finish().unwrap();
        let (mut reader, _) = DataFile::open(&path).unwrap().stream(1);
        let mut sink = Counter(0);
        let error = io::copy(&mut reader, &mut sink).unwrap_err();
        assert!(sink.0 < 96 << 20, "{}", sink.0);
        let error = read_error(&path, error).to_string();
        assert!(
            error.contains("bomb.csv.gz") && error.contains("--file-memory"),
            "{error}"
        );
    }

    struct Counter(usize);

    impl Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
