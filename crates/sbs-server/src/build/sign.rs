//! The steps after the publish step: sign, read back, tag.
//!
//! Each takes what only the one before can make, so that a tag never points to an image whose
//! signature was not there before and verified.

mod simple;

use std::time::Duration;

use bytes::Bytes;
use sbs_crypto::{ImageSigningKey, ImageVerifyingKey, SignError, digest as digest_of};
use sbs_proto::{Digest, ImageReference, ImageTag};
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::build::failure::{Failure, StepError};
use crate::build::publish::{Published, v1_command};
use sbs_registry::{
    BlobSource, Descriptor, DocumentKind, ImageManifest, ParseDocumentError, RegistryError,
    Session, Target, media_type,
};

/// An image whose signature was pushed. Only [`sign`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    published: Published,
    tag: ImageTag,
}

/// A signed image that the registry served again, as it was pushed and with a signature that
/// verifies. Only [`read_back`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct Confirmed(Signed);

/// A signed image that its tag points to. Only [`tag`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct Tagged {
    reference: ImageReference,
    digest: Digest,
}

impl Tagged {
    /// Returns the image with its tag.
    pub(crate) fn reference(&self) -> &ImageReference {
        &self.reference
    }

    /// Returns the digest of the image manifest.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }
}

/// Signs an image that the registry serves as it was built, and pushes the signature.
///
/// Signatures by others stay; one that is there already and verifies with this key is not made
/// again.
pub(crate) async fn sign(
    published: Published,
    key: &ImageSigningKey,
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Signed, ReleaseError> {
    let image = published.destination().clone();
    let work = async {
        let tag = image.tag().cloned().ok_or(RegistryError::Internal("an image without a tag"))?;
        push_signature(&published, key, session).await?;
        Ok(Signed { published, tag })
    };
    run(Phase::Sign, &image, cancel, work).await
}

/// Fetches the image and its signature again and verifies both.
pub(crate) async fn read_back(
    signed: Signed,
    key: &ImageVerifyingKey,
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Confirmed, ReleaseError> {
    let image = signed.published.destination().clone();
    let work = async {
        let mut patience = Patience::new(session);
        while let Err(fault) = check_served(&signed.published, session).await {
            patience.wait(fault).await?;
        }
        while let Err(fault) = check_signature(&signed.published, key, session).await {
            patience.wait(fault).await?;
        }
        session.log().info(&format!("{image}: image and signature were read back and verified"));
        Ok(Confirmed(signed))
    };
    run(Phase::ReadBack, &image, cancel, work).await
}

/// Lets the tag point to the image.
pub(crate) async fn tag(
    confirmed: Confirmed,
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Tagged, ReleaseError> {
    let Confirmed(Signed { published, tag }) = confirmed;
    let image = published.destination().clone();
    let work = async {
        let (repository, digest) = (image.repository(), published.digest());
        let manifest = published.manifest().clone();
        let size = manifest.len();
        let target = Target::Tag(&tag);
        session.push_manifest(repository, target, media_type::OCI_IMAGE, manifest).await?;
        let mut patience = Patience::new(session);
        while let Err(fault) = check_tag(&published, target, session).await {
            patience.wait(fault).await?;
        }
        session.log().info(&format!("{tag}: digest: {digest} size: {size}"));
        Ok(Tagged { reference: image.clone(), digest })
    };
    run(Phase::Tag, &image, cancel, work).await
}

async fn run<T>(
    phase: Phase,
    image: &ImageReference,
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, ReleaseFault>>,
) -> Result<T, ReleaseError> {
    let fault = tokio::select! {
        biased;
        () = cancel.cancelled() => ReleaseFault::Cancelled,
        result = work => match result {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        },
    };
    Err(ReleaseError { phase, image: image.clone(), fault })
}

async fn push_signature(
    published: &Published,
    key: &ImageSigningKey,
    session: &Session,
) -> Result<(), ReleaseFault> {
    // What is signed is what the engine made and the registry serves; if these are two things,
    // nothing is.
    let mut patience = Patience::new(session);
    while let Err(fault) = check_manifest(published, session).await {
        patience.wait(fault).await?;
    }

    let (image, digest) = (published.destination(), published.digest());
    let repository = image.repository();
    let signature_tag = signature_tag(digest)?;
    let payload = simple::payload(image, digest);
    let before = fetch_signatures(image, &signature_tag, session).await?;
    let verifying_key = key.verifying_key();
    let is_ours = |layer: &&Descriptor| {
        layer.digest == digest_of(&payload)
            && simple::signature(layer).is_some_and(|signature| {
                simple::verify(&payload, &signature, &verifying_key, (image, digest)).is_some()
            })
    };
    let mut layers = before.as_ref().map(|manifest| manifest.layers.clone()).unwrap_or_default();
    let there = layers.iter().any(|layer| is_ours(&layer));
    if !there {
        let signature = key.sign(&payload).map_err(ReleaseFault::Sign)?;
        layers.push(simple::layer(&payload, &signature));
    }
    let config = simple::config(&layers);
    for bytes in [payload, config.clone()] {
        let (digest, size) = (digest_of(&bytes), bytes.len() as u64);
        let source = BlobSource::Bytes(bytes.into());
        session.push_blob(repository, digest, size, &source).await?;
    }
    if there {
        session.log().info(&format!("{image}: the signature is there already"));
        return Ok(());
    }
    let config = Descriptor::of(media_type::OCI_CONFIG, &config);
    let manifest = match before {
        Some(mut manifest) => {
            manifest.config = config;
            manifest.layers = layers;
            manifest
        }
        None => ImageManifest::new(config, layers),
    };
    let bytes = Bytes::from(manifest.to_json());
    let target = Target::Tag(&signature_tag);
    session.push_manifest(repository, target, media_type::OCI_IMAGE, bytes).await?;
    session.log().info(&format!("{image}: signed {digest}; the signature is {signature_tag}"));
    Ok(())
}

/// Fetches the image manifest that lists the signatures, if there are any.
async fn fetch_signatures(
    image: &ImageReference,
    signature_tag: &ImageTag,
    session: &Session,
) -> Result<Option<ImageManifest>, ReleaseFault> {
    let served = match session.manifest(image.repository(), Target::Tag(signature_tag)).await {
        Ok(served) => served,
        Err(error) if error.is_not_found() => return Ok(None),
        // A registry that does not answer has not said that there are none.
        Err(error) => return Err(error.into()),
    };
    if served.kind != DocumentKind::Image || served.media_type != media_type::OCI_IMAGE {
        return Err(ReleaseFault::NotSignatures { tag: signature_tag.clone() });
    }
    Ok(Some(ImageManifest::parse(&served.bytes)?))
}

/// Checks that the registry serves the image manifest that was pushed.
async fn check_manifest(published: &Published, session: &Session) -> Result<(), ReleaseFault> {
    let repository = published.destination().repository();
    let served = session.manifest(repository, Target::Digest(published.digest())).await?;
    if served.bytes != *published.manifest() || served.media_type != media_type::OCI_IMAGE {
        return Err(ReleaseFault::Swapped);
    }
    Ok(())
}

/// Checks that the registry has the whole image.
async fn check_served(published: &Published, session: &Session) -> Result<(), ReleaseFault> {
    check_manifest(published, session).await?;
    for digest in published.blobs() {
        if !session.has_blob(published.destination().repository(), *digest).await? {
            return Err(ReleaseFault::BlobMissing { digest: *digest });
        }
    }
    Ok(())
}

/// Checks that the registry has a signature that verifies with this key.
async fn check_signature(
    published: &Published,
    key: &ImageVerifyingKey,
    session: &Session,
) -> Result<(), ReleaseFault> {
    let (image, digest) = (published.destination(), published.digest());
    let signatures = fetch_signatures(image, &signature_tag(digest)?, session).await?;
    let payload = digest_of(&simple::payload(image, digest));
    let layers = signatures.into_iter().flat_map(|manifest| manifest.layers);
    for layer in layers.filter(|layer| layer.digest == payload) {
        let Some(signature) = simple::signature(&layer) else { continue };
        let bytes = session.blob(image.repository(), &layer, MAX_PAYLOAD_BYTES).await?;
        if simple::verify(&bytes, &signature, key, (image, digest)).is_some() {
            return Ok(());
        }
    }
    Err(ReleaseFault::Unsigned)
}

/// Checks that the tag points to the image.
async fn check_tag(
    published: &Published,
    tag: Target<'_>,
    session: &Session,
) -> Result<(), ReleaseFault> {
    let expected = published.digest();
    let actual = session.manifest(published.destination().repository(), tag).await?.digest;
    if actual == expected { Ok(()) } else { Err(ReleaseFault::TagMoved { expected, actual }) }
}

fn signature_tag(digest: Digest) -> Result<ImageTag, RegistryError> {
    simple::tag(digest).map_err(|_| RegistryError::Internal("the tag of a signature"))
}

/// Waits for what was just pushed to show: with some registries that takes a while.
#[derive(Debug)]
struct Patience {
    left: u32,
    pause: Duration,
}

impl Patience {
    fn new(session: &Session) -> Self {
        let limits = session.limits();
        Self { left: limits.attempts.saturating_sub(1), pause: limits.first_pause }
    }

    /// Waits before the next look, or returns the fault if no other look is worth it.
    async fn wait(&mut self, fault: ReleaseFault) -> Result<(), ReleaseFault> {
        if self.left == 0 || !fault.may_pass() {
            return Err(fault);
        }
        self.left -= 1;
        sleep(self.pause).await;
        self.pause = self.pause.saturating_mul(2);
        Ok(())
    }
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    ReadBack,
    Sign,
    Tag,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadBack => "verify what the registry serves for",
            Self::Sign => "sign",
            Self::Tag => "tag",
        })
    }
}

/// An image was not signed, not verified or not tagged.
#[derive(Debug, Error)]
#[error("cannot {phase} `{image}`")]
pub(crate) struct ReleaseError {
    phase: Phase,
    image: ImageReference,
    #[source]
    fault: ReleaseFault,
}

/// Why an image was not signed, not verified or not tagged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReleaseFault {
    /// A blob of the image is not there.
    #[error("the registry has lost blob {digest}")]
    BlobMissing { digest: Digest },

    /// Somebody asked for the end of the build.
    #[error("cancelled")]
    Cancelled,

    /// The list of signatures cannot be read.
    #[error("the list of signatures in the registry cannot be used; remove it there")]
    Document(#[from] ParseDocumentError),

    /// The tag for signatures has something else.
    #[error("the tag `{tag}`, where signatures belong, holds something else; remove it")]
    NotSignatures { tag: ImageTag },

    /// The registry did not do its part.
    #[error("the registry did not do its part")]
    Registry(#[from] RegistryError),

    /// No signature could be made.
    #[error("the signature cannot be made")]
    Sign(#[source] SignError),

    /// The registry serves another image manifest.
    #[error("the registry does not serve what was pushed; nothing was signed for it")]
    Swapped,

    /// The tag points elsewhere, after it was set.
    #[error("the tag points to {actual} instead of {expected}; does someone else push there?")]
    TagMoved { expected: Digest, actual: Digest },

    /// There is no signature that verifies.
    #[error("the registry has no signature that verifies with the key of this server")]
    Unsigned,
}

impl ReleaseFault {
    /// Tells whether it can be that what was pushed does not show yet.
    fn may_pass(&self) -> bool {
        match self {
            Self::BlobMissing { .. } | Self::TagMoved { .. } | Self::Unsigned => true,
            Self::Registry(error) => error.is_not_found(),
            _ => false,
        }
    }
}

impl StepError for ReleaseError {
    fn failure(&self) -> Failure {
        let plain = || format!("docker push {}", self.image);
        let code = match self.phase {
            Phase::ReadBack => "image_read_back",
            Phase::Sign => "image_sign",
            Phase::Tag => "image_tag",
        };
        let (code, command, return_code) = match &self.fault {
            ReleaseFault::Cancelled => ("cancelled", plain(), 137),
            ReleaseFault::Registry(error) => {
                (error.code(), v1_command(error, "push", &self.image), 1)
            }
            _ => (code, plain(), 1),
        };
        Failure { code, command, return_code }
    }
}

/// A payload has some 300 bytes.
const MAX_PAYLOAD_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests;
