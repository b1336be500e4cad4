use std::io;

use sbs_proto::{NotaryServer, ParseDefinitionError, ParseNotaryServerError};
use sbs_registry::notary::Gun;
use sbs_state::DefinitionKeys;
use thiserror::Error;

use crate::build::notary_roots::NotaryRootsError;
use crate::core::state::SealingError;
use crate::core::state::error::TooManyAttempts;

/// Why something could not be kept in, or read from, the data directory.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum KeepError {
    /// The counter of the root secret's provider cannot be read.
    #[error("the counter of the root secret cannot be read")]
    Counter(#[source] SealingError),

    /// A file that should be there is damaged or belongs to another root secret.
    #[error("{what} in the data directory cannot be read; is it sealed by another root secret?")]
    Damaged { what: &'static str, source: Option<Box<dyn std::error::Error + Send + Sync>> },

    /// Reading or writing failed.
    #[error("{what} cannot be read or written")]
    Io { what: &'static str, source: io::Error },

    /// A later version of the server wrote it.
    #[error("{what} in the data directory has schema {schema}, of a later server than this one")]
    Newer { what: &'static str, schema: u32 },
}

impl KeepError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    pub(crate) fn damaged<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Damaged { what, source: Some(Box::new(source)) }
    }
}

/// Why `init` or `update` was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum SetDefinitionError {
    /// The body is no image definition.
    #[error("{0}")]
    Definition(ParseDefinitionError),

    /// The server holds keys that belong to another secret.
    #[error("the server is initialised and holds keys; use `update`, or send the SECRET of before")]
    KeysExist,

    /// `init` carried a `NEW_SECRET`.
    #[error("NEW_SECRET has no place in `init`; only `update` takes it")]
    NewSecretOnInit,

    /// `update` came before `init`.
    #[error("there is nothing to update; run `init` first")]
    NotInitialised,

    /// The counter of the root secret's provider was not turned on.
    #[error("SECRET was not replaced")]
    Sealing(#[from] SealingError),

    /// A secret is not what it must be.
    #[error("{0}")]
    Secret(ParseDefinitionError),

    /// The definition could not be kept.
    #[error("the image definition was not kept")]
    Store(#[from] KeepError),

    /// Too many secrets were wrong.
    #[error(transparent)]
    TooManyAttempts(#[from] TooManyAttempts),

    /// The secret is not the one that the server knows.
    #[error("SECRET is not the one that this server was initialised with")]
    WrongSecret,
}

/// Why a build was not started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum StartBuildError {
    /// A build runs.
    #[error("a build runs; wait for its end or run `clean` first")]
    Busy,

    /// The kept definition is no longer understood.
    #[error("the image definition that the server keeps cannot be read")]
    Definition(ParseDefinitionError),

    /// The keys could not be made.
    #[error("the signing keys could not be made")]
    Keys(Box<dyn std::error::Error + Send + Sync>),

    /// There is no image definition.
    #[error("there is no image definition; run `init` first")]
    NotInitialised,

    /// The keys could not be kept.
    #[error(transparent)]
    SetKeys(#[from] SetKeysError),

    /// The server is about to stop.
    #[error("the server is stopping")]
    Stopping,

    /// The build could not be noted down.
    #[error("the build was not started")]
    Store(#[from] KeepError),
}

/// Why something that a notary has said was not forgotten.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ForgetNotaryRootError {
    /// A build runs, which would remember it again.
    #[error("a build runs; wait for its end or run `clean` first")]
    Busy,

    /// The repository is misspelt.
    #[error("not a repository; give its registry and its name, without tag and digest")]
    NotARepository,

    /// The server is misspelt.
    #[error(transparent)]
    Server(#[from] ParseNotaryServerError),

    /// The file cannot be read or written.
    #[error(transparent)]
    Roots(#[from] NotaryRootsError),

    /// There is no such thing.
    #[error("nothing is remembered of what {server} has said of `{gun}`")]
    Unknown { server: NotaryServer, gun: Gun },
}

/// Why new keys were not put in the place of those before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum SetKeysError {
    /// A record that long would not be read again.
    #[error(
        "the record of the signing keys has no room: it takes {} KiB, 2 KiB of which are the keys of \
         each repository at a notary; retire what is being rotated, or build for further repositories \
         on another server",
        DefinitionKeys::MAX_RECORD_BYTES / 1024
    )]
    Full,

    /// They could not be written.
    #[error("the new keys were not kept")]
    Store(#[from] KeepError),
}

/// Why a clean failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum CleanError {
    /// Files could not be removed.
    #[error("not everything could be removed")]
    Store(#[from] KeepError),
}

/// Why something about a build could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReadError {
    /// There is no such image definition.
    #[error("there is no image definition of that name")]
    NoSuchDefinition,

    /// The build is there, and has no such file.
    #[error("this build has no {what}")]
    NoSuchFile { what: &'static str },

    /// The build was imported with the state, and its files were not.
    #[error("{what} of build {build} is not here: the build was made by a server before this one")]
    NotHere { what: &'static str, build: String },

    /// No build that succeeded has this name.
    #[error("there is no successful build of that name; it may have been removed since")]
    NoSuchBuild,

    /// No build has succeeded yet.
    #[error("no build has succeeded yet")]
    NothingBuilt,

    /// It could not be read.
    #[error("the build cannot be read")]
    Store(#[from] KeepError),

    /// The manifest is larger than this way of reading it takes.
    #[error("the manifest of build {build} has {size} bytes, more than {limit}")]
    TooLarge { build: String, limit: u64, size: u64 },
}

/// Why the keys of an image definition cannot be told of.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum TrustError {
    /// There are no keys.
    #[error("there are no keys yet: they are made at the first build")]
    NoKeys,

    /// There is no such image definition.
    #[error("there is no image definition of that name")]
    NoSuchDefinition,

    /// They could not be read.
    #[error("the keys cannot be read")]
    Store(#[from] KeepError),
}

/// Why a key was not rotated or retired.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum RotateError {
    /// A build signs with the keys that are there.
    #[error("a build is running; rotate when it has ended")]
    Busy,

    /// There are no keys.
    #[error(transparent)]
    Keys(#[from] TrustError),

    /// There is no definition whose secret could be held against the one that was sent.
    #[error("there is no image definition; run `init` first")]
    NotInitialised,

    /// The keys do not allow it.
    #[error(transparent)]
    Rotate(#[from] sbs_state::RotateKeyError),

    /// The new keys could not be kept.
    #[error(transparent)]
    SetKeys(#[from] SetKeysError),

    /// Too many secrets were wrong.
    #[error(transparent)]
    TooManyAttempts(#[from] TooManyAttempts),

    /// The secret is not the one that the server knows.
    #[error("SECRET is not the one that this server was initialised with")]
    WrongSecret,
}
