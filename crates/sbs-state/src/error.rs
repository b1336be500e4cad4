use std::io;

use sbs_crypto::OpenChunksError;
use sbs_proto::ReadStateHeaderError;
use thiserror::Error;

use crate::RecordName;

/// Why a state image was not opened, or not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenStateError {
    /// The image is genuine, but what is in it is not a state.
    #[error("state image holds something else than the state of a server")]
    BadContent(#[source] ContentError),

    /// The image was made for clients of another authority.
    #[error("state image is of a server with another client authority")]
    CaMismatch,

    /// The clear part is not that of a state image that this server opens.
    #[error("header of the state image was refused")]
    Header(#[source] ReadStateHeaderError),

    /// The image cannot be read, or what was read cannot be kept.
    #[error("state image cannot be read")]
    Io(#[source] io::Error),

    /// What is sealed was changed behind the header.
    #[error("sealed part of the state image is damaged")]
    Payload,

    /// The image is older than one that is known to exist.
    #[error("state image is of epoch {got}, expected epoch {floor} or a later one")]
    Rollback {
        /// The lowest epoch that would be accepted.
        floor: u64,
        /// The epoch of the image.
        got: u64,
    },

    /// The image, or a record in it, is over the limit.
    #[error("state image is larger than this server accepts")]
    TooLarge,

    /// The image ends before the end of what is sealed.
    #[error("state image ends too early")]
    Truncated,

    /// The image is sealed under a root secret that this server does not have.
    #[error("state image was made under another root secret; give this server that one, too")]
    UnknownServerKey,

    /// SECRET or root secret are others, or the header was changed: this is not told apart.
    #[error("state image cannot be opened with this SECRET")]
    WrongSecretOrHeader,
}

impl OpenStateError {
    /// Returns the stable word for this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadContent(_) => "bad_content",
            Self::CaMismatch => "ca_mismatch",
            Self::Header(cause) => cause.code(),
            Self::Io(_) => "unreadable",
            Self::Payload => "payload",
            Self::Rollback { .. } => "rollback",
            Self::TooLarge => "too_large",
            Self::Truncated => "truncated",
            Self::UnknownServerKey => "unknown_server_key",
            Self::WrongSecretOrHeader => "wrong_secret_or_header",
        }
    }
}

impl From<ContentError> for OpenStateError {
    fn from(cause: ContentError) -> Self {
        Self::BadContent(cause)
    }
}

/// Finds the error of an [`OpenReader`](crate::OpenReader) again in what came through `Read`.
impl From<io::Error> for OpenStateError {
    fn from(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Io)
    }
}

impl From<OpenChunksError> for OpenStateError {
    fn from(error: OpenChunksError) -> Self {
        match error {
            OpenChunksError::Commitment => Self::WrongSecretOrHeader,
            OpenChunksError::Read(cause) => Self::Io(cause),
            OpenChunksError::TooLarge => Self::TooLarge,
            OpenChunksError::Truncated => Self::Truncated,
            _ => Self::Payload,
        }
    }
}

/// What is wrong with the content of a genuine state image.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ContentError {
    /// The content ends inside a record.
    #[error("content ends inside a record")]
    Cut,

    /// A record is not the one that `manifest.json` lists.
    #[error("record `{name}` is not the one that `manifest.json` lists")]
    Digest {
        /// Which record.
        name: RecordName,
    },

    /// The epoch or the number of the export differ from those of the header.
    #[error("`manifest.json` is of another export than the header")]
    Epoch,

    /// `manifest.json` is not of the one form that it can have.
    #[error("`manifest.json` is malformed")]
    Manifest,

    /// A record that every state has is missing, or one that is listed.
    #[error("record `{name}` is missing")]
    Missing {
        /// Which record.
        name: RecordName,
    },

    /// A record comes twice or too late.
    #[error("record `{name}` comes twice or out of order")]
    Order {
        /// Which record.
        name: RecordName,
    },

    /// Behind the last record is something else than the padding.
    #[error("padding is not the one of this content")]
    Padding,

    /// A record is of a schema that this server does not read.
    #[error("record `{name}` has schema {got}, this server reads up to {newest}")]
    Schema {
        /// Which record.
        name: RecordName,
        /// The greatest number that is known.
        newest: u32,
        /// The number found.
        got: u32,
    },

    /// A record has a name that no record has.
    #[error("a record has an unknown name")]
    UnknownRecord,
}

/// Why a state was not sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealStateError {
    /// A record that every state has was not given.
    #[error("record `{name}` of the state is missing")]
    Missing {
        /// Which record.
        name: RecordName,
    },

    /// A record was given twice or out of order, or is not for the caller to give.
    #[error("record `{name}` of the state comes twice or out of order")]
    Order {
        /// Which record.
        name: RecordName,
    },

    /// A record, or all of them together, are over the limit of what can be opened again.
    #[error("record `{name}` makes the state larger than can be opened again")]
    TooLarge {
        /// Which record.
        name: RecordName,
    },

    /// The image cannot be written.
    #[error("state image cannot be written")]
    Write(#[from] io::Error),
}
