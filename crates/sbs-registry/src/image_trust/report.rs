//! What the checks of an image came to, form by form and together.

use std::fmt;

use sbs_proto::v2::BuildId;
use sbs_proto::{Digest, ImageReference};
use thiserror::Error;

use super::Standing;
use crate::cosign::InvalidSignature;
use crate::notary::InvalidTrust;
use crate::simple_signing::{FetchSignaturesError, Place, Reasons};
use crate::{DocumentKind, RegistryError, find_cause};

/// What is known about an image after it was checked in every form.
#[derive(Debug)]
#[must_use = "an image is checked for a reason"]
pub struct Report {
    pub(super) cosign_bundle: Outcome,
    pub(super) cosign_tag: Outcome,
    pub(super) digest: Digest,
    pub(super) image: ImageReference,
    pub(super) kind: DocumentKind,
    pub(super) notary: Outcome,
    pub(super) simple_signing: Outcome,
}

/// A form of signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// cosign's bundle that refers to the image.
    CosignBundle,
    /// cosign's list under a tag.
    CosignTag,
    /// Image trust data at a notary.
    Notary,
    /// Red Hat's simple signing.
    SimpleSigning,
}

/// What the check of one form came to.
#[derive(Debug)]
pub enum Outcome {
    /// There is something, and it is not what it should be.
    Invalid(WhyInvalid),
    /// Whoever was asked says that there is none.
    Missing(WhyMissing),
    /// Nothing is known.
    NotAnswered(WhyNotAnswered),
    /// The bundle names no key for this form.
    NotChecked,
    /// There is one by a key of the bundle.
    Valid(Signer),
}

/// Who signed, and what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signer {
    /// The build that made the image, where the form says it.
    pub build: Option<BuildId>,
    /// The id of the key, as the bundle has it.
    pub key: String,
    /// The name that was signed, with its tag.
    pub name: String,
    /// Whether the key is about to be replaced.
    pub standing: Standing,
}

/// What it all comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The image is released.
    Good,
    /// Something is there that is not what it should be.
    Invalid,
    /// Not everything was answered: nothing is known.
    NotAnswered,
    /// A signature that must be there is not.
    Unsigned,
}

impl Report {
    /// Returns the digest that was checked. A tag was resolved to it once.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns what was asked about.
    pub fn image(&self) -> &ImageReference {
        &self.image
    }

    /// Tells whether the digest is that of one image or of an index over several.
    pub fn kind(&self) -> DocumentKind {
        self.kind
    }

    /// Returns what each form came to, always in the same order.
    pub fn forms(&self) -> [(Form, &Outcome); 4] {
        [
            (Form::CosignTag, &self.cosign_tag),
            (Form::CosignBundle, &self.cosign_bundle),
            (Form::SimpleSigning, &self.simple_signing),
            (Form::Notary, &self.notary),
        ]
    }

    /// Judges: what is wrong weighs more than what is not known, and that more than what is not
    /// there.
    ///
    /// An image must have a cosign signature of one form, and be announced by the notary where the
    /// bundle names one.
    pub fn verdict(&self) -> Verdict {
        let any = |is: fn(&Outcome) -> bool| self.forms().iter().any(|(_, outcome)| is(outcome));
        let released = self.cosign_tag.is_valid() || self.cosign_bundle.is_valid();
        let announced = matches!(self.notary, Outcome::Valid(_) | Outcome::NotChecked);
        if any(|outcome| matches!(outcome, Outcome::Invalid(_))) {
            Verdict::Invalid
        } else if any(|outcome| matches!(outcome, Outcome::NotAnswered(_))) {
            Verdict::NotAnswered
        } else if released && announced {
            Verdict::Good
        } else {
            Verdict::Unsigned
        }
    }

    /// Returns the reference that has these very bytes, if the image is good.
    pub fn pinned(&self) -> Option<ImageReference> {
        (self.verdict() == Verdict::Good).then(|| self.image.with_digest(self.digest))
    }
}

impl Form {
    /// Returns the name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CosignBundle => "cosign-bundle",
            Self::CosignTag => "cosign-tag",
            Self::Notary => "notary",
            Self::SimpleSigning => "simple-signing",
        }
    }
}

impl Outcome {
    fn is_valid(&self) -> bool {
        matches!(self, Self::Valid(_))
    }

    /// Returns the word for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Missing(_) => "missing",
            Self::NotAnswered(_) => "not-answered",
            Self::NotChecked => "not-checked",
            Self::Valid(_) => "valid",
        }
    }
}

impl Verdict {
    /// Returns the word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Invalid => "invalid",
            Self::NotAnswered => "not-answered",
            Self::Unsigned => "unsigned",
        }
    }
}

/// Why what is there does not count.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WhyInvalid {
    /// A cosign signature.
    #[error(transparent)]
    Cosign(#[from] InvalidSignature),

    /// The notary's data.
    #[error(transparent)]
    Notary(#[from] InvalidTrust),

    /// The notary means another image.
    #[error("the notary announces {digest} under this tag")]
    NotaryDigest {
        /// What it announces.
        digest: Digest,
    },

    /// The notary means something of another size.
    #[error("the notary announces {announced} bytes under this digest, and there are {actual}")]
    NotarySize {
        /// What it announces.
        announced: u64,
        /// The size of the image manifest or index.
        actual: u64,
    },

    /// What keeps the simple signatures answers nonsense.
    #[error(transparent)]
    Served(FetchSignaturesError),

    /// Simple signatures.
    #[error("{0}")]
    SimpleSigning(Reasons),
}

/// Who says that there is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WhyMissing {
    /// The registry, of cosign signatures.
    Cosign,
    /// The notary, of anything about the repository.
    NotaryRepository,
    /// The notary, of the tag or the digest.
    NotaryTag,
    /// Of simple signatures, in this place.
    SimpleSigning(Place),
}

impl fmt::Display for WhyMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cosign => f.write_str("the registry has none"),
            Self::NotaryRepository => f.write_str("the notary does not know the repository"),
            Self::NotaryTag => f.write_str("the notary does not announce this image"),
            Self::SimpleSigning(place) => write!(f, "none in {place}"),
        }
    }
}

/// Why nothing is known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WhyNotAnswered {
    /// The registry or the notary does not answer.
    #[error(transparent)]
    Registry(#[from] RegistryError),

    /// What keeps the simple signatures does not answer.
    #[error(transparent)]
    SimpleSigning(FetchSignaturesError),
}

impl WhyNotAnswered {
    /// Returns what went wrong on the way, if it was that.
    pub fn registry_error(&self) -> Option<&RegistryError> {
        match self {
            Self::Registry(error) => Some(error),
            Self::SimpleSigning(error) => find_cause(error),
        }
    }
}
