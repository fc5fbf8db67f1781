//! A file that is appended to.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::manifest::{State, hexadecimal};
use crate::error::Result;
use crate::whole_file::failed;

/// A file of an [`OutputFolder`](super::OutputFolder) that is appended to, such as a log.
///
/// What is appended reaches the disk with the folder's next [`write`](super::OutputFolder::write).
#[derive(Debug)]
pub struct GrowingFile {
    pub(super) name: String,
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    checksum: u32,
}

impl GrowingFile {
    /// Opens a file that holds `earlier`.
    pub(super) fn open(path: &Path, name: &str, earlier: &[u8]) -> Result<GrowingFile> {
        let file = File::options().append(true).open(path);
        Ok(GrowingFile {
            name: name.to_owned(),
            path: path.to_owned(),
            file: BufWriter::new(file.map_err(|source| failed(path, source))?),
            bytes: earlier.len() as u64,
            checksum: crc32c::crc32c(earlier),
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write).
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| failed(&self.path, source))?;
        self.bytes += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        Ok(())
    }

    /// Brings to the disk what was appended, and says what the file then holds.
    pub(super) fn settle(&mut self, growing: bool) -> Result<State> {
        let settled = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data());
        settled.map_err(|source| failed(&self.path, source))?;
        Ok(State {
            bytes: self.bytes,
            crc32c: hexadecimal(self.checksum),
            growing,
        })
    }
}
