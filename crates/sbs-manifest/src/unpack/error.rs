use std::io;

use thiserror::Error;

use crate::compress::Excess;
use crate::path::ParseEntryPathError;

/// Why an archive was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The archive cannot be read or decompressed.
    #[error("archive cannot be read or decompressed")]
    Content(#[source] io::Error),

    /// An entry is larger than the limit.
    #[error("entry `{name}` is larger than {max} bytes")]
    EntryTooLarge {
        /// The entry.
        name: String,
        /// The limit in bytes.
        max: u64,
    },

    /// An entry has an extension that is not allowed.
    #[error("entry is extended by what is not allowed: {0}")]
    Extension(String),

    /// A header is damaged.
    #[error("header of an entry is damaged")]
    Header,

    /// An entry is neither a regular file nor a directory.
    #[error("entry `{name}` is a {what}; only files and directories are allowed")]
    Kind {
        /// The entry.
        name: String,
        /// What it is.
        what: &'static str,
    },

    /// An entry has a name that is not allowed.
    #[error("entry `{name}` has a name that is not allowed")]
    Name {
        /// The name, escaped and cut.
        name: String,
        /// What is wrong with it.
        source: ParseEntryPathError,
    },

    /// A header is not written as this server writes it.
    #[error("header of entry `{0}` is not the one this server writes")]
    NotCanonical(String),

    /// A number in a header is not written as archivers write it.
    #[error("header of an entry has a {0} that is not written in octal digits")]
    Number(&'static str),

    /// There is data between two entries.
    #[error("archive has data between two entries")]
    Padding,

    /// The archive as a whole is over a limit.
    #[error("archive is over a limit")]
    TooLarge(#[source] ArchiveTooLarge),

    /// The archive has too many entries.
    #[error("archive has more than {0} entries")]
    TooManyEntries(u64),

    /// There is data after the end.
    #[error("archive has data after its end")]
    TrailingData,

    /// The archive ends too early.
    #[error("archive ends too early")]
    Truncated,
}

impl UnpackError {
    /// Sorts out what a reader of ours said.
    pub(crate) fn from_io(error: io::Error) -> Self {
        if let Some(excess) = error.get_ref().and_then(|inner| inner.downcast_ref::<Excess>()) {
            return Self::TooLarge(ArchiveTooLarge(*excess));
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Truncated;
        }
        Self::Content(error)
    }
}

/// Which limit an archive is over.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(transparent)]
pub struct ArchiveTooLarge(Excess);

impl ArchiveTooLarge {
    pub(crate) fn of_archive(max: u64) -> Self {
        Self(Excess::Archive(max))
    }
}
