//! A writer of tar archives whose bytes depend on nothing but the entries.

use std::io::{self, Read};

use thiserror::Error;

use crate::codec::Compressor;
use crate::compress::Excess;
use crate::header::{self, Attributes, BLOCK, EntryKind};
use crate::layout::LayoutError;
use crate::limits::Limits;
use crate::path::EntryPath;
use crate::source::SourceError;

/// Writes the entries of an archive, one after the other.
pub(crate) struct Packer<C> {
    out: C,
    limits: Limits,
    time: u64,
    entries: u64,
    bytes: u64,
}

impl<C: Compressor> Packer<C> {
    /// Makes a packer; `time`, in seconds since 1970, is that of every entry.
    pub(crate) fn new(out: C, time: u64, limits: &Limits) -> Self {
        Self { out, limits: *limits, time, entries: 0, bytes: 0 }
    }

    /// Writes an entry. Its content must be exactly `size` bytes.
    pub(crate) fn entry(
        &mut self,
        path: &EntryPath,
        kind: EntryKind,
        size: u64,
        mut content: impl Read,
    ) -> Result<(), WriteManifestError> {
        let max = self.limits.entry_bytes.min(header::MAX_NUMBER);
        if size > max {
            return Err(WriteManifestError::TooLarge { name: path.to_string(), max });
        }
        let blocks = header::encode(path, Attributes { kind, size, time: self.time });
        // A long name is an entry of its own to a reader that counts.
        self.entries += if blocks.len() > BLOCK { 2 } else { 1 };
        self.bytes += blocks.len() as u64 + size + header::padding(size) as u64;
        self.stay_within_limits()?;
        self.out.write_all(&blocks).map_err(WriteManifestError::from_io)?;
        self.content(path, size, &mut content)?;
        self.zeros(header::padding(size))
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<C::Out, WriteManifestError> {
        self.zeros(2 * BLOCK)?;
        self.out.finish().map_err(WriteManifestError::from_io)
    }

    fn content(
        &mut self,
        path: &EntryPath,
        size: u64,
        content: &mut impl Read,
    ) -> Result<(), WriteManifestError> {
        let mut left = size;
        // One byte more, so that a file that grew is noticed.
        let room = usize::try_from(size).unwrap_or(COPY_BYTES).min(COPY_BYTES - 1) + 1;
        let mut buffer = vec![0; room];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(WriteManifestError::Source { name: path.to_string(), source });
                }
            };
            // Not cut at `size`: a file that grew meanwhile is not the file that was built.
            if count as u64 > left || (count == 0 && left > 0) {
                return Err(WriteManifestError::Changed { name: path.to_string(), size });
            }
            if count == 0 {
                return Ok(());
            }
            left -= count as u64;
            let (bytes, _) = buffer.split_at(count.min(buffer.len()));
            self.out.write_all(bytes).map_err(WriteManifestError::from_io)?;
        }
    }

    fn zeros(&mut self, count: usize) -> Result<(), WriteManifestError> {
        self.out.write_all(&vec![0; count]).map_err(WriteManifestError::from_io)
    }

    /// Refuses what a reader with the same limits would refuse.
    fn stay_within_limits(&self) -> Result<(), WriteManifestError> {
        if self.entries > self.limits.entries {
            return Err(WriteManifestError::TooManyEntries(self.limits.entries));
        }
        let end = 2 * BLOCK as u64;
        if self.bytes + end > self.limits.unpacked_bytes {
            return Err(WriteManifestError::ArchiveTooLarge(self.limits.unpacked_bytes));
        }
        Ok(())
    }
}

/// Why a manifest could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteManifestError {
    /// The archive would be larger than the limit.
    #[error("manifest would unpack to more than {0} bytes; build from a smaller repository")]
    ArchiveTooLarge(u64),

    /// A file is not as large as it was said to be.
    #[error("`{name}` does not have {size} bytes any more; it changed while it was packed")]
    Changed {
        /// The entry.
        name: String,
        /// The size in bytes that it was said to have.
        size: u64,
    },

    /// No thin manifest can prove the Dockerfile.
    #[error("Dockerfile is no regular file of the commit, so that no thin manifest can prove it")]
    Dockerfile(#[source] SourceError),

    /// The entries are not those of a manifest.
    #[error("entry does not fit into the manifest")]
    Layout(#[from] LayoutError),

    /// The manifest cannot be written to where it goes.
    #[error("manifest cannot be written to where it goes")]
    Output(#[source] io::Error),

    /// The source compresses so well that a reader would take the manifest for a bomb.
    #[error("manifest would unpack to more than {0} times its size")]
    Ratio(u64),

    /// The build record cannot be serialised.
    #[error("build record cannot be serialised")]
    Record(#[source] serde_json::Error),

    /// A file cannot be read.
    #[error("`{name}` cannot be read")]
    Source {
        /// The entry.
        name: String,
        /// What reading it said.
        source: io::Error,
    },

    /// An entry failed before, so that what was written is no manifest.
    #[error("manifest is not complete: an entry of it failed before")]
    Spoiled,

    /// An entry is larger than the limit.
    #[error("`{name}` is larger than {max} bytes")]
    TooLarge {
        /// The entry.
        name: String,
        /// The limit in bytes.
        max: u64,
    },

    /// There are more entries than the limit.
    #[error("manifest would have more than {0} entries; build from a smaller repository")]
    TooManyEntries(u64),
}

impl WriteManifestError {
    /// Sorts out what the writer below said.
    fn from_io(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Excess>()) {
            Some(Excess::Ratio(ratio)) => Self::Ratio(*ratio),
            _ => Self::Output(error),
        }
    }
}

const COPY_BYTES: usize = 64 << 10;
