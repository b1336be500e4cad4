//! The two forms of signature that cosign makes and checks.
//!
//! - [`tag`]: simple signing, listed under the tag `sha256-<hex>.sig`: what podman, skopeo, CRI-O and
//!   cosign up to version 2 read;
//! - [`bundle`]: a statement of in-toto in a DSSE envelope in a sigstore bundle that refers to the
//!   image: what cosign makes since version 3.
//!
//! Both bind the repository and the tag, which cosign itself leaves out or does not look at.

pub mod attach;
pub mod bundle;
mod envelope;
mod simple;
pub mod statement;
pub mod tag;
#[cfg(test)]
mod tests;

use sbs_crypto::{ImageVerifyingKey, SignError, SignatureInvalid};
use sbs_proto::v2::BuildId;
use sbs_proto::{Digest, ImageReference, ImageTag};
use thiserror::Error;

use super::{ParseDocumentError, RegistryError};

pub use self::envelope::{Bundle, ParseBundleError, VerifiedStatement};

/// The image that a signature is to be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The repository, and the tag if the signature is to be for that one. A digest here says nothing.
    pub image: &'a ImageReference,
    /// The digest of the image manifest or index.
    pub digest: Digest,
}

/// What a check came to, where the registry answered.
#[derive(Debug)]
#[must_use = "an image is checked for a reason"]
pub enum Verdict<T> {
    /// The registry says that there is nothing of this form.
    Absent,
    /// There is something of this form, and none of it is what it should be; one reason of maybe more.
    Invalid(InvalidSignature),
    /// There is one that verifies; others may stand beside it.
    Valid(T),
}

/// A signature for an image that was verified. Only the checks of this module make one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageSignature {
    key: Digest,
    image: ImageReference,
    digest: Digest,
    build: Option<BuildId>,
}

impl ImageSignature {
    /// Returns the digest of the key (`SubjectPublicKeyInfo`, DER) that verified it.
    pub fn key(&self) -> Digest {
        self.key
    }

    /// Returns what was signed as the name of the image, with its tag.
    pub fn image(&self) -> &ImageReference {
        &self.image
    }

    /// Returns the digest that was signed.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the build that made the image, where the form says it.
    pub fn build(&self) -> Option<&BuildId> {
        self.build.as_ref()
    }
}

/// Why something that is meant to be a signature is none for the image and the key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InvalidSignature {
    /// A bundle that refers to the image cannot be read.
    #[error("a signature of the image is no sigstore bundle that is accepted")]
    Bundle(#[from] ParseBundleError),

    /// The list of signatures cannot be read.
    #[error("the list of signatures in the registry cannot be used")]
    Document(#[from] ParseDocumentError),

    /// What should hold a bundle is made otherwise.
    #[error("a signature of the image is not one bundle that refers to it")]
    Form,

    /// The tag for signatures has something else.
    #[error("the tag `{tag}`, where signatures belong, holds something else")]
    NotSignatures {
        /// The tag.
        tag: ImageTag,
    },

    /// It is signed for another image, repository or tag.
    #[error("a signature by this key is for another image, repository or tag")]
    OtherImage,

    /// It is by another key, or says so.
    #[error("a signature of the image is by another key")]
    OtherKey,

    /// What is signed says something else than that the image is released.
    #[error("what is signed is no statement that the image is signed")]
    OtherStatement,

    /// The registry lists it and does not serve it as it should be.
    #[error("a signature of the image cannot be had as the registry lists it")]
    Served(#[source] RegistryError),

    /// The signature does not verify.
    #[error("a signature of the image does not verify")]
    Signature(#[from] SignatureInvalid),

    /// There is more than is looked at.
    #[error("the image has more than {max} signatures, and none of the first verifies")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// Why an image was not signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignImageError {
    /// The list of signatures cannot be read.
    #[error("the list of signatures in the registry cannot be used; remove it there")]
    Document(#[from] ParseDocumentError),

    /// The tag for signatures has something else.
    #[error("the tag `{tag}`, where signatures belong, holds something else; remove it")]
    NotSignatures {
        /// The tag.
        tag: ImageTag,
    },

    /// The registry did not do its part.
    #[error("the registry did not do its part")]
    Registry(#[from] RegistryError),

    /// No signature could be made.
    #[error("the signature cannot be made")]
    Sign(#[from] SignError),
}

/// What came of signing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signed {
    /// A signature by the key that says the same was there; nothing was written.
    Already,
    /// A signature was made and pushed.
    Now,
}

/// Collects what is found among several entries until one verifies.
#[derive(Debug, Default)]
struct Findings {
    invalid: Option<InvalidSignature>,
    unanswered: Option<RegistryError>,
}

impl Findings {
    /// Notes an entry that is none; the first reason counts.
    fn invalid(&mut self, reason: InvalidSignature) {
        self.invalid.get_or_insert(reason);
    }

    /// Notes an entry that could not be fetched.
    fn not_fetched(&mut self, error: RegistryError) {
        if error.is_answer() {
            self.invalid(InvalidSignature::Served(error));
        } else {
            self.unanswered.get_or_insert(error);
        }
    }

    /// Returns what it comes to when no entry verified: what was not answered may have been the one.
    fn verdict<T>(self) -> Result<Verdict<T>, RegistryError> {
        match (self.unanswered, self.invalid) {
            (Some(error), _) => Err(error),
            (None, Some(reason)) => Ok(Verdict::Invalid(reason)),
            (None, None) => Ok(Verdict::Absent),
        }
    }
}

/// Returns the digest by which bundles name a key.
pub fn key_id(key: &ImageVerifyingKey) -> Digest {
    sbs_crypto::digest(key.spki_der())
}

/// Tells whether `said`, which a signature names, is what is expected, with a tag in any case.
fn names(said: &ImageReference, expected: &ImageReference) -> bool {
    said.registry() == expected.registry()
        && said.repository() == expected.repository()
        && said.digest().is_none()
        && said.tag().is_some_and(|said| expected.tag().is_none_or(|tag| tag == said))
}
