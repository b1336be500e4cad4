use sbs_proto::ParseDefinitionError;
use sbs_state::{OpenStateError, RecordName, SealStateError};
use thiserror::Error;

use crate::core::error::KeepError;
use crate::core::state::SealingError;
pub(crate) use crate::core::state::attempts::TooManyAttempts;
use crate::storage::StorageError;

/// Why the state was not exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ExportStateError {
    /// What was sealed did not open again.
    #[error("the state image that was made does not open again and is not given out")]
    Check(#[source] OpenStateError),

    /// What was sealed opened as something else.
    #[error("the state image that was made holds something else and is not given out")]
    Differs,

    /// There is nothing worth to be exported.
    #[error("there is nothing to export yet: {what}")]
    Nothing { what: &'static str },

    /// The bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] BucketError),

    /// Sealing failed.
    #[error("the state image was not made")]
    Seal(#[from] SealStateError),

    /// The counter of the root secret's provider cannot be read.
    #[error("the state image was not made")]
    Sealing(#[from] SealingError),

    /// Something could not be read or written.
    #[error("the state image was not made")]
    Store(#[from] KeepError),
}

/// Why a state was not imported. The server is as it was before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ImportStateError {
    /// The bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] BucketError),

    /// A build runs.
    #[error("a build runs; wait for its end or run `clean` first")]
    Busy,

    /// A record of a genuine state image is not what it must be.
    #[error("record `{record}` of the state image cannot be used: {reason}")]
    Content { record: RecordName, reason: &'static str },

    /// The server has keys or builds that the import would replace.
    #[error(
        "this server has keys or builds of its own; import into one that was set up anew, with an \
         empty data directory and the same root secret"
    )]
    NotEmpty,

    /// The state image was refused.
    #[error(transparent)]
    Open(#[from] OpenStateError),

    /// The counter of the root secret's provider cannot be used.
    #[error("the age of the state image cannot be judged")]
    Sealing(#[from] SealingError),

    /// The server is about to stop.
    #[error("the server is stopping")]
    Stopping,

    /// Something could not be read or written.
    #[error("the state was not imported")]
    Store(#[from] KeepError),

    /// Too many secrets were wrong.
    #[error(transparent)]
    TooManyAttempts(#[from] TooManyAttempts),

    /// The secret is not the one that the server was initialised with.
    #[error("SECRET is not the one that this server was initialised with")]
    WrongSecret,
}

/// Why a bucket for state images was not used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum BucketError {
    /// The kept definition is no longer understood.
    #[error("the image definition that the server keeps cannot be read")]
    Definition(ParseDefinitionError),

    /// Nothing says how to get into the bucket.
    #[error(
        "the image definition does not say how to get into a bucket for state images; set the \
         STATE_COS_ or COS_ keys and run `init` or `update`"
    )]
    NoAccess,

    /// The storage did not do it.
    #[error(transparent)]
    Storage(#[from] StorageError),

    /// Something could not be read or written.
    #[error("the bucket was not used")]
    Store(#[from] KeepError),
}
