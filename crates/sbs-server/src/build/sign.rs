//! The steps after the publish step: sign, read back, tag.
//!
//! Each takes what only the one before can make, so that a tag never points to an image whose
//! signature was not there before and verified.

mod form;
mod openpgp;

use sbs_crypto::SignError;
use sbs_proto::{Digest, ImageReference, ImageTag};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::build::failure::{Failure, StepError};
use crate::build::publish::{Published, v1_command};
use sbs_registry::cosign::{self, InvalidSignature, SignImageError};
use sbs_registry::simple_signing::{self, FetchSignaturesError, NotSigned};
use sbs_registry::{ParseDocumentError, Patience, RegistryError, Session, Target, media_type};

pub(crate) use self::form::{BundleForm, SignatureForm, TagForm};
pub(crate) use self::openpgp::{OpenPgpForm, SignaturePlace};

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
    #[cfg(test)]
    pub(crate) fn of_test(reference: ImageReference, digest: Digest) -> Self {
        Self { reference, digest }
    }

    /// Returns the image with its tag.
    pub(crate) fn reference(&self) -> &ImageReference {
        &self.reference
    }

    /// Returns the digest of the image manifest.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }
}

/// Signs an image that the registry serves as it was built, in every form.
///
/// Signatures by others stay; one that is there already and verifies with the same key is not made
/// again.
pub(crate) async fn sign(
    published: Published,
    forms: &[&dyn SignatureForm],
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Signed, ReleaseError> {
    let image = published.destination().clone();
    let work = async {
        let tag = image.tag().cloned().ok_or(RegistryError::Internal("an image without a tag"))?;
        if forms.is_empty() {
            return Err(RegistryError::Internal("an image that is to have no signature").into());
        }
        // What is signed is what the engine made and the registry serves; if these are two things,
        // nothing is.
        let mut patience = Patience::new(session.limits());
        while let Err(fault) = check_manifest(&published, session).await {
            fault.wait(&mut patience).await?;
        }
        for form in forms {
            let (digest, name) = (published.digest(), form.name());
            session.log().info(&match form.push(&published, session).await? {
                cosign::Signed::Already => {
                    format!("{image}: the signature is there already: {name}")
                }
                cosign::Signed::Now => format!("{image}: signed {digest}: {name}"),
            });
        }
        Ok(Signed { published, tag })
    };
    run(Phase::Sign, &image, cancel, work).await
}

/// Fetches the image and its signatures again and verifies all of them.
pub(crate) async fn read_back(
    signed: Signed,
    forms: &[&dyn SignatureForm],
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Confirmed, ReleaseError> {
    let image = signed.published.destination().clone();
    let work = async {
        let mut patience = Patience::new(session.limits());
        while let Err(fault) = check_served(&signed.published, session).await {
            fault.wait(&mut patience).await?;
        }
        for form in forms {
            while let Err(fault) = form.confirm(&signed.published, session).await {
                fault.wait(&mut patience).await?;
            }
        }
        session.log().info(&format!("{image}: image and signatures were read back and verified"));
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
        let mut patience = Patience::new(session.limits());
        while let Err(fault) = check_tag(&published, target, session).await {
            fault.wait(&mut patience).await?;
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
    Document(#[source] ParseDocumentError),

    /// What is there as a signature is none.
    #[error("what the registry has as signature, {form}, is none by the key of this server")]
    Invalid {
        form: &'static str,
        #[source]
        reason: InvalidSignature,
    },

    /// The OpenPGP signature cannot be read again.
    #[error("the OpenPGP signature cannot be read again")]
    FetchOpenPgp(#[source] Box<FetchSignaturesError>),

    /// What is there as OpenPGP signature is none of ours.
    #[error(transparent)]
    NotSigned(Box<NotSigned>),

    /// The tag for signatures has something else.
    #[error("the tag `{tag}`, where signatures belong, holds something else; remove it")]
    NotSignatures { tag: ImageTag },

    /// No OpenPGP signature was made or kept.
    #[error(transparent)]
    OpenPgp(Box<simple_signing::SignImageError>),

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

    /// There is no signature.
    #[error("the registry has no signature of the image: {form}")]
    Unsigned { form: &'static str },
}

impl ReleaseFault {
    /// Waits before another look, or returns the fault if no other look is worth it.
    async fn wait(self, patience: &mut Patience) -> Result<(), Self> {
        if self.may_pass() && patience.wait().await { Ok(()) } else { Err(self) }
    }

    /// Tells whether it can be that what was pushed does not show yet.
    fn may_pass(&self) -> bool {
        match self {
            Self::BlobMissing { .. }
            | Self::Invalid { .. }
            | Self::NotSigned(_)
            | Self::TagMoved { .. }
            | Self::Unsigned { .. } => true,
            Self::Registry(error) => error.is_not_found(),
            _ => false,
        }
    }
}

impl From<FetchSignaturesError> for ReleaseFault {
    fn from(error: FetchSignaturesError) -> Self {
        Self::FetchOpenPgp(Box::new(error))
    }
}

impl From<NotSigned> for ReleaseFault {
    fn from(error: NotSigned) -> Self {
        Self::NotSigned(Box::new(error))
    }
}

impl From<simple_signing::SignImageError> for ReleaseFault {
    fn from(error: simple_signing::SignImageError) -> Self {
        Self::OpenPgp(Box::new(error))
    }
}

impl From<SignImageError> for ReleaseFault {
    fn from(error: SignImageError) -> Self {
        match error {
            SignImageError::Document(source) => Self::Document(source),
            SignImageError::NotSignatures { tag } => Self::NotSignatures { tag },
            SignImageError::Registry(source) => Self::Registry(source),
            SignImageError::Sign(source) => Self::Sign(source),
            _ => Self::Registry(RegistryError::Internal("another reason not to sign")),
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

#[cfg(test)]
mod tests;
