//! What can be wrong with trust data.

use thiserror::Error;
use time::OffsetDateTime;

use super::key::KeyId;
use super::metadata::TrustRole;
use super::name::Gun;
use crate::RegistryError;

/// Trust data is there, and it is wrong: the image is not to be used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the image trust data of `{gun}` is refused: {defect}")]
pub struct InvalidTrust {
    /// Whose data it is.
    pub gun: Gun,
    /// What is wrong with it.
    pub defect: TrustDefect,
}

/// What is wrong with trust data, and what can be done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TrustDefect {
    /// No root key of the repository has a certificate in the repository's name that is valid.
    #[error(
        "none of its root keys has a certificate with the repository's name that is valid now; its \
         owner has to make a new root key"
    )]
    Certificate,

    /// The server does not show anything newer, or nobody signed anything newer.
    #[error(
        "`{role}` expired at {at}; either its owner has to sign again, or the server withholds \
         what is newer, or the clock here is wrong"
    )]
    Expired {
        /// Which document.
        role: TrustRole,
        /// Until when it was good.
        at: OffsetDateTime,
    },

    /// A document is not the one that another document lists.
    #[error("`{role}` is not the document that `{by}` lists; the server mixes old and new")]
    HashMismatch {
        /// Which document.
        role: TrustRole,
        /// Which document lists it.
        by: TrustRole,
    },

    /// It is no such document.
    #[error("`{role}` does not have the form of image trust data")]
    Malformed {
        /// Which document.
        role: TrustRole,
    },

    /// A document that there must be is not there.
    #[error("the server does not have `{role}`, which must be there")]
    Missing {
        /// Which document.
        role: TrustRole,
    },

    /// The version is lower than one that was seen.
    #[error(
        "`{role}` has version {offered}, and version {seen} was seen before; the server shows \
         something old"
    )]
    Rollback {
        /// Which document.
        role: TrustRole,
        /// The version that was seen.
        seen: u64,
        /// The version now.
        offered: u64,
    },

    /// Another root took the place of the one that was trusted.
    #[error(
        "its root was replaced, and the root that was trusted before did not sign that; if its owner \
         says that this is right, give the new root key (for base images, \
         DOCKER_CONTENT_TRUST_BASE_ROOT), or have the operator run `sbs-server notary-root forget`"
    )]
    RootReplaced,

    /// Too few of the keys that may sign have.
    #[error("`{role}` is not signed by {needed} of the keys that may sign it")]
    Signatures {
        /// Which document.
        role: TrustRole,
        /// How many there must be.
        needed: usize,
    },

    /// The entry of the tag is none.
    #[error("the entry of the tag in `{role}` has no SHA-256 or no length")]
    Target {
        /// Which document.
        role: TrustRole,
    },

    /// The document is larger than is accepted.
    #[error("`{role}` is larger than {max_bytes} bytes")]
    TooLarge {
        /// Which document.
        role: TrustRole,
        /// The limit.
        max_bytes: u64,
    },

    /// What was there before is gone.
    #[error(
        "the server no longer has what was seen before; if its owner deleted it, have the operator run \
         `sbs-server notary-root forget`"
    )]
    Vanished,

    /// The root is not signed by the key that was given.
    #[error(
        "its root is not signed by the root key that was given, but by {}; ask its owner which key is \
         the right one",
        list(found)
    )]
    WrongRoot {
        /// The keys that did sign it.
        found: Vec<KeyId>,
    },
}

/// Why something about trust data did not work out.
#[derive(Debug)]
pub(super) enum Fault {
    /// The data is wrong.
    Defect(TrustDefect),
    /// There is no answer, or none that says anything about the data.
    Unanswered(RegistryError),
}

impl From<TrustDefect> for Fault {
    fn from(defect: TrustDefect) -> Self {
        Self::Defect(defect)
    }
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Self {
        Self::Unanswered(error)
    }
}

fn list(keys: &[KeyId]) -> String {
    let texts: Vec<String> = keys.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    if texts.is_empty() { "no key that is known here".to_owned() } else { texts.join(", ") }
}

const MAX_LISTED: usize = 4;
