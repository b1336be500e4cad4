//! Red Hat's simple signing: OpenPGP signed messages that bind the name of an image to its digest
//! (containers/image, "atomic container signature").
//!
//! A signature is no part of the repository. It is kept by the registry itself, where that offers an
//! extension for it ([`publish`]), or in a tree of files that a web server can serve ([`Lookaside`]).
//! [`verify`] reads either, and says of one image what podman, skopeo and CRI-O would.

mod extension;
mod lookaside;
mod payload;
mod policy;
#[cfg(test)]
mod tests;

use sbs_crypto::openpgp::{OpenPgpSigningKey, OpenPgpVerifier, SignMessageError};
use sbs_proto::{Digest, ImageReference};
use thiserror::Error;
use time::OffsetDateTime;

use super::RegistryError;

pub use self::extension::publish;
pub use self::lookaside::{Lookaside, LookasideError, SignatureTree};
pub use self::payload::{Claim, ParseClaimError};
pub use self::policy::{
    Checked, FetchSignaturesError, NotSigned, Place, Reasons, SignatureRefused, SignedImage,
    Verdict, WhyRefused, judge, verify,
};

/// Signs the name of an image, which must have a tag, together with its digest.
///
/// The digest is the one that a tool comes upon: that of the manifest for one platform, not that of
/// an index over several, unless both are signed.
pub fn sign(
    key: &OpenPgpSigningKey,
    image: &ImageReference,
    digest: Digest,
    at: OffsetDateTime,
) -> Result<Vec<u8>, SignImageError> {
    // containers/image believes no signature for a whole repository.
    let tag = image.tag().ok_or(SignImageError::NoTag)?;
    let claim = Claim::new(&image.with_tag(tag.clone()), digest, at);
    Ok(key.sign_message(&claim.to_json(), at)?)
}

/// Tells whether there is a signature by this key that says this already.
fn is_there(
    signatures: &[Vec<u8>],
    key: &OpenPgpSigningKey,
    image: &ImageReference,
    digest: Digest,
    at: OffsetDateTime,
) -> Result<bool, SignImageError> {
    let certificate = key.to_armored_certificate();
    let own = OpenPgpVerifier::parse(certificate.as_bytes(), at)
        .map_err(|_| RegistryError::Internal("a key that signs does not verify"))?;
    // One that somebody else put there and that is damaged keeps tools from reading all of them;
    // another one of ours would not help.
    let says_so = |signature: &Vec<u8>| policy::check(signature, &own, image, digest).is_ok();
    Ok(signatures.iter().any(says_so))
}

/// What became of a signature that was to be published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// There was one by this key already, which says the same.
    Before,
    /// It was written, and read again.
    Now,
}

/// Why an image has no signature now.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignImageError {
    /// The tree of files cannot be written or read.
    #[error("cannot put the signature into the lookaside directory")]
    Lookaside(#[from] LookasideError),

    /// The reference has no tag.
    #[error("simple signing signs a name with a tag")]
    NoTag,

    /// What was written is not there.
    #[error(
        "registry `{host}` accepted a signature and does not serve it; does someone else write there?"
    )]
    NotKept {
        /// The registry, as `host` or `host:port`.
        host: String,
    },

    /// The registry offers nothing to keep signatures in.
    #[error(
        "registry `{host}` does not keep signatures (it sends no `X-Registry-Supports-Signatures`); \
         configure a lookaside directory for it"
    )]
    NotOffered {
        /// The registry, as `host` or `host:port`.
        host: String,
    },

    /// The registry did not do its part.
    #[error("cannot put the signature into the registry")]
    Registry(#[from] RegistryError),

    /// The key cannot sign.
    #[error("cannot sign the image")]
    Sign(#[from] SignMessageError),
}

/// As many as containers/image reads.
const MAX_SIGNATURES: usize = 128;
