//! Which signature counts for which image.

use std::fmt;

use sbs_crypto::openpgp::{
    Fingerprint, OpenPgpVerifier, VerifyMessageError, begins_like_a_signed_message,
};
use sbs_proto::{Digest, ImageReference};
use thiserror::Error;
use time::OffsetDateTime;

use super::{Claim, Lookaside, LookasideError, ParseClaimError};
use crate::{RegistryError, Remark, Session};

/// Looks for the signatures of an image and judges them.
///
/// Where the registry keeps signatures a lookaside is not looked at. `image` is what was asked for:
/// with a tag, a signature must name that tag; with a digest alone, the repository. `digest` is that of
/// the manifest which is to be used. An error means that nothing is known, not that there is none.
pub async fn verify(
    session: &Session,
    lookaside: Option<&Lookaside>,
    verifier: &OpenPgpVerifier,
    image: &ImageReference,
    digest: Digest,
) -> Result<Checked, FetchSignaturesError> {
    let repository = image.repository();
    let (place, signatures) = if session.keeps_signatures(repository).await? {
        (Place::Registry, session.kept_signatures(repository, digest).await?)
    } else if let Some(lookaside) = lookaside {
        let place = lookaside.place();
        match lookaside.signatures(session, repository, digest).await {
            Ok(signatures) => (Place::Lookaside(place), signatures),
            Err(source) => return Err(FetchSignaturesError::Lookaside { place, source }),
        }
    } else {
        (Place::Nowhere, Vec::new())
    };
    let misshapen = match place {
        Place::Lookaside(_) => misshapen(&signatures),
        Place::Nowhere | Place::Registry => Vec::new(),
    };
    let verdict = if misshapen.is_empty() {
        judge(&signatures, verifier, image, digest)
    } else {
        Verdict::Invalid(misshapen)
    };
    Ok(Checked { place, verdict })
}

/// Judges the signatures of an image: one that is good and says the right thing is enough.
///
/// The rule for names is that of containers/image's `matchRepoDigestOrExact`.
pub fn judge(
    signatures: &[Vec<u8>],
    verifier: &OpenPgpVerifier,
    image: &ImageReference,
    digest: Digest,
) -> Verdict {
    let mut refused = Vec::new();
    for (number, bytes) in numbered(signatures) {
        match check(bytes, verifier, image, digest) {
            Ok(signed) => return Verdict::Valid(signed),
            Err(why) => refused.push(SignatureRefused { number, why }),
        }
    }
    if refused.is_empty() { Verdict::Absent } else { Verdict::Invalid(refused) }
}

/// Returns the files that have not even the form of a signature.
///
/// One of them in a lookaside keeps containers/image from all that are there, good ones too. It is so
/// here: an image that is good here is good there.
fn misshapen(signatures: &[Vec<u8>]) -> Vec<SignatureRefused> {
    numbered(signatures)
        .filter(|(_, bytes)| !begins_like_a_signed_message(bytes))
        .map(|(number, _)| SignatureRefused { number, why: WhyRefused::Form })
        .collect()
}

/// Returns the simple signatures with their numbers, from 1 on.
fn numbered(signatures: &[Vec<u8>]) -> impl Iterator<Item = (usize, &Vec<u8>)> {
    (1..).zip(signatures).filter(|(_, bytes)| !bytes.starts_with(SIGSTORE))
}

/// Judges one signature.
pub(super) fn check(
    bytes: &[u8],
    verifier: &OpenPgpVerifier,
    image: &ImageReference,
    digest: Digest,
) -> Result<SignedImage, WhyRefused> {
    let message = verifier.verify_message(bytes)?;
    let claim = Claim::parse(message.payload())?;
    if claim.digest() != digest {
        return Err(WhyRefused::Digest { signed: claim.digest() });
    }
    if !names(claim.reference(), image) {
        return Err(WhyRefused::Name { signed: Remark::new(claim.reference()) });
    }
    Ok(SignedImage {
        claim,
        certificate: message.certificate().clone(),
        key: message.key().clone(),
        signed_at: message.signed_at(),
    })
}

/// Tells whether what was signed is a name of this image.
fn names(signed: &str, image: &ImageReference) -> bool {
    let Ok(signed) = ImageReference::parse(signed) else { return false };
    let same = signed.registry() == image.registry() && signed.repository() == image.repository();
    // A signature for a repository as a whole is none for an image.
    let whole = signed.tag().is_none() && signed.digest().is_none();
    match (image.tag(), image.digest()) {
        _ if !same || whole => false,
        (Some(tag), _) => signed.tag() == Some(tag) && signed.digest().is_none(),
        (None, Some(_)) => true,
        (None, None) => false,
    }
}

/// What a look for signatures came to.
#[derive(Clone, Debug)]
#[must_use = "an image may not be signed"]
pub struct Checked {
    /// Where was looked.
    pub place: Place,
    /// What was found.
    pub verdict: Verdict,
}

impl Checked {
    /// Returns the proof, or an error that says what is to be done.
    pub fn require(self, image: &ImageReference) -> Result<SignedImage, NotSigned> {
        let (image, place) = (image.to_string(), self.place);
        match self.verdict {
            Verdict::Valid(signed) => Ok(signed),
            Verdict::Absent => Err(NotSigned::Absent { image, place }),
            Verdict::Invalid(refused) => {
                let reasons = Reasons(refused);
                Err(NotSigned::Invalid { image, place, reasons })
            }
        }
    }
}

/// Where was looked for signatures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In this lookaside: a directory or a URL.
    Lookaside(String),
    /// Nowhere: the registry keeps none, and no lookaside was given.
    Nowhere,
    /// In the registry.
    Registry,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookaside(place) => write!(f, "the lookaside `{place}`"),
            Self::Nowhere => {
                f.write_str("the registry, which keeps none, and no lookaside is given")
            }
            Self::Registry => f.write_str("the registry"),
        }
    }
}

/// What the signatures of an image come to.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// There is none.
    Absent,
    /// There are some, and none counts.
    Invalid(Vec<SignatureRefused>),
    /// One counts.
    Valid(SignedImage),
}

/// The proof that an image is signed; only [`judge`] makes it.
#[derive(Clone, Debug)]
pub struct SignedImage {
    claim: Claim,
    certificate: Fingerprint,
    key: Fingerprint,
    signed_at: OffsetDateTime,
}

impl SignedImage {
    /// Returns what was signed.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Returns the fingerprint of the signer's certificate.
    pub fn certificate(&self) -> &Fingerprint {
        &self.certificate
    }

    /// Returns the fingerprint of the key that signed: the certificate's primary key or a subkey.
    pub fn key(&self) -> &Fingerprint {
        &self.key
    }

    /// Returns when the signer says that this was signed.
    pub fn signed_at(&self) -> OffsetDateTime {
        self.signed_at
    }
}

/// One signature that does not count.
#[derive(Clone, Debug)]
pub struct SignatureRefused {
    /// Which one, from 1 on.
    pub number: usize,
    /// The reason.
    pub why: WhyRefused,
}

/// Why a signature does not count.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum WhyRefused {
    /// What is signed is no claim about an image.
    #[error("{0}")]
    Claim(#[from] ParseClaimError),

    /// It is for other bytes.
    #[error("it is for digest {signed}")]
    Digest {
        /// The digest that was signed.
        signed: Digest,
    },

    /// It has not the form of a signature, which keeps tools from reading the others, too.
    #[error("it is no OpenPGP message, and must be removed before others count")]
    Form,

    /// It is for another name.
    #[error("it is for `{signed}`")]
    Name {
        /// The name that was signed.
        signed: Remark,
    },

    /// It does not verify, or not with these keys.
    #[error("{0}")]
    OpenPgp(#[from] VerifyMessageError),
}

/// Why nothing is known about the signatures of an image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchSignaturesError {
    /// The lookaside cannot be read.
    #[error("cannot read signatures from the lookaside `{place}`")]
    Lookaside {
        /// The directory or the URL.
        place: String,
        /// The cause.
        source: LookasideError,
    },

    /// The registry does not answer, or what it says makes no sense.
    #[error("cannot read signatures from the registry")]
    Registry(#[from] RegistryError),
}

/// An image is not signed as it should be.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum NotSigned {
    /// There is no signature.
    #[error(
        "image `{image}` has no simple signature in {place}; have it signed, or correct where its \
         signatures are looked for"
    )]
    Absent {
        /// The image.
        image: String,
        /// Where was looked.
        place: Place,
    },

    /// No signature counts.
    #[error(
        "image `{image}` has no simple signature that counts in {place}: {reasons}; have it signed \
         with one of the configured keys, or correct these"
    )]
    Invalid {
        /// The image.
        image: String,
        /// Where was looked.
        place: Place,
        /// What is wrong with each.
        reasons: Reasons,
    },
}

/// What is wrong with each of several signatures.
#[derive(Clone, Debug)]
pub struct Reasons(pub Vec<SignatureRefused>);

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refused) in self.0.iter().take(MAX_REASONS).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}signature {}: {}", refused.number, refused.why)?;
        }
        match self.0.len().saturating_sub(MAX_REASONS) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

/// How containers/image begins a signature of another form in the same place; it skips these here.
const SIGSTORE: &[u8] = b"\0sigstore-json\n";
const MAX_REASONS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b6_a_signed_name_must_be_the_images() {
        let hex = "a".repeat(64);
        let by_digest = format!("a.b/c@sha256:{hex}");
        let with_tag = format!("a.b/c:v1@sha256:{hex}");
        for (image, signed, expected) in [
            ("a.b/c:v1", "a.b/c:v1", true),
            ("a.b/c:v1", "a.b/c:v2", false),
            ("a.b/c:v1", "a.b/c", false),
            ("a.b/c:v1", "a.b/d:v1", false),
            ("a.b/c:v1", "a.b:443/c:v1", false),
            ("a.b/c:v1", "c:v1", false),
            ("a.b/c:v1", &by_digest, false),
            ("a.b/c:v1", &with_tag, false),
            ("a.b/c:v1", "a.b/c:v1\n", false),
            ("a.b/c:v1", "", false),
            (&by_digest, "a.b/c:v1", true),
            (&by_digest, "a.b/c:v2", true),
            (&by_digest, &by_digest, true),
            (&by_digest, "a.b/c", false),
            (&by_digest, "a.b/d:v1", false),
            (&with_tag, "a.b/c:v1", true),
            (&with_tag, "a.b/c:v2", false),
            (&with_tag, &by_digest, false),
            ("a.b/c", "a.b/c:latest", false),
            ("busybox:1", "docker.io/library/busybox:1", true),
            ("busybox:1", "busybox:1", true),
        ] {
            let image = ImageReference::parse(image).unwrap();
            assert_eq!(names(signed, &image), expected, "{image} signed as {signed}");
        }
    }
}
