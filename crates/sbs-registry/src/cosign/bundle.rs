//! The form with a bundle: a statement that the image is signed, in a referrer of the image.

use sbs_crypto::{ImageSigningKey, ImageVerifyingKey};
use sbs_proto::ImageReference;
use sbs_proto::v2::BuildId;
use time::OffsetDateTime;

use super::attach::{attach, find};
use super::envelope::Bundle;
use super::statement::{SIGNED_IMAGE, Statement};
use super::{Expected, ImageSignature, InvalidSignature, SignImageError, Signed, Verdict};
use crate::{Descriptor, RegistryError, Session};

/// What a bundle says beside the digest.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// The repository, with the tag.
    pub image: &'a ImageReference,
    /// The build that made the image.
    pub build: &'a BuildId,
    /// The time that the referrer says.
    pub created: OffsetDateTime,
}

/// Signs image manifests and indexes that are in the repository, each with a bundle of its own that
/// refers to it: where an index is released, that is the index and each of its manifests.
///
/// A bundle by this key that says the same repository and tag is not made again, whichever build it
/// names: builds that make the same image many times would leave many.
pub async fn sign(
    session: &Session,
    release: Release<'_>,
    subjects: &[Descriptor],
    key: &ImageSigningKey,
) -> Result<Signed, SignImageError> {
    let Release { image, build, created } = release;
    if image.tag().is_none() {
        return Err(RegistryError::Internal("an image without a tag").into());
    }
    let repository = image.repository();
    let mut signed = Signed::Already;
    for subject in subjects {
        let expected = Expected { image, digest: subject.digest };
        if matches!(check(session, expected, &key.verifying_key()).await?, Verdict::Valid(_)) {
            continue;
        }
        let statement = Statement::signed_image(image, subject.digest, build);
        let bundle = Bundle::sign(&statement, key)?;
        attach(session, (repository, subject), SIGNED_IMAGE, &bundle, created).await?;
        signed = Signed::Now;
    }
    Ok(signed)
}

/// Checks that a bundle refers to the image that verifies with this key and says that the image is
/// signed.
///
/// cosign takes any statement by the key for that; here the predicate type, the repository and the
/// tag count.
pub async fn check(
    session: &Session,
    expected: Expected<'_>,
    key: &ImageVerifyingKey,
) -> Result<Verdict<ImageSignature>, RegistryError> {
    let at = (expected.image.repository(), expected.digest);
    find(session, at, SIGNED_IMAGE, |bundle| verify(bundle, expected, key)).await
}

/// Verifies that a bundle is by this key and says that the image is signed.
pub fn verify(
    bundle: &Bundle,
    expected: Expected<'_>,
    key: &ImageVerifyingKey,
) -> Result<ImageSignature, InvalidSignature> {
    let verified = bundle.verify(key)?;
    let statement = verified.statement();
    if !statement.is_signed_image() {
        return Err(InvalidSignature::OtherStatement);
    }
    let said = statement.about(expected).ok_or(InvalidSignature::OtherImage)?;
    let key = verified.key();
    Ok(ImageSignature { key, image: said.image, digest: said.digest, build: said.build })
}
