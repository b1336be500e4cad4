//! Is this image released? Every form of signature at once, judged by the keys of a trust bundle.
//!
//! Start at [`ImageTrust::read`], then [`check_image`]; [`Report::verdict`] is the answer. What does
//! not answer is never taken for what is not there, and a key for attestations releases nothing.

mod keys;
mod report;
#[cfg(test)]
mod tests;

use sbs_crypto::ImageVerifyingKey;
use sbs_proto::{Credentials, Digest, ImageReference};
use thiserror::Error;
use time::OffsetDateTime;

use self::keys::{NotaryPin, OpenPgpKeys, ReleaseKey};
use crate::cosign::{self, Expected, ImageSignature, InvalidSignature};
use crate::notary::{self, Absence, NotarySession, SignedTarget, Trust};
use crate::simple_signing::{self, FetchSignaturesError, LookasideError};
use crate::{FetchedManifest, Log, RegistryClient, RegistryError, Session, Target};

// The public interface:
pub use self::keys::{ImageTrust, ReadTrustError, Standing};
pub use self::report::{
    Form, Outcome, Report, Signer, Verdict, WhyInvalid, WhyMissing, WhyNotAnswered,
};

/// What is asked, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The image: by its tag, its digest or both.
    ///
    /// With a tag, signatures must be for that tag. By digest alone, they may be for any tag of the
    /// repository.
    pub image: &'a ImageReference,
    /// Who may have signed it.
    pub trust: &'a ImageTrust,
    /// For the registry.
    pub registry_login: Option<&'a Credentials>,
    /// For the notary.
    pub notary_login: Option<&'a Credentials>,
    /// The time, which the notary's data must not have outlived.
    pub now: OffsetDateTime,
}

/// Checks an image in every form.
///
/// A tag is resolved once, and what is checked is the digest. An index is checked as such: its
/// platforms' images are not looked at.
pub async fn check_image(
    client: &RegistryClient,
    question: Question<'_>,
    log: &(impl Log + Clone + 'static),
) -> Result<Report, CheckImageError> {
    let Question { image, trust, now, .. } = question;
    if !trust.is_for(image) {
        let (image, repository) = (image.to_string(), trust.repository().to_string());
        return Err(CheckImageError::OtherRepository { image, repository });
    }
    let Some(target) = target(image) else {
        return Err(CheckImageError::NoImage { image: image.to_string() });
    };
    let failed = |source| CheckImageError::of(image, source);
    let session = client.for_registry(image.registry(), question.registry_login, log);
    let session = session.map_err(failed)?;
    let notary = trust.notary.as_ref().map(|pin| {
        let session = client.for_notary(&pin.server, &pin.gun, question.notary_login, log);
        session.map(|session| (pin, session))
    });
    let notary = notary.transpose().map_err(failed)?;
    let found = session.manifest(image.repository(), target).await.map_err(failed)?;
    let expected = Expected { image, digest: found.digest };
    let (session, keys) = (&session, trust.image_keys.as_slice());
    let tag = async |key: &_| cosign::tag::check(session, expected, key).await;
    let bundle = async |key: &_| cosign::bundle::check(session, expected, key).await;
    let (cosign_tag, cosign_bundle, simple_signing, notary) = tokio::join!(
        Box::pin(check_cosign(keys, tag)),
        Box::pin(check_cosign(keys, bundle)),
        Box::pin(check_simple_signing(session, trust, expected)),
        Box::pin(check_notary(notary, image, &found, now)),
    );
    let (digest, image, kind) = (found.digest, image.clone(), found.kind);
    Ok(Report { cosign_bundle, cosign_tag, digest, image, kind, notary, simple_signing })
}

fn target(image: &ImageReference) -> Option<Target<'_>> {
    image.digest().map(Target::Digest).or_else(|| image.tag().map(Target::Tag))
}

/// Tries the keys one after the other.
async fn check_cosign(
    keys: &[ReleaseKey],
    check: impl AsyncFn(&ImageVerifyingKey) -> Result<cosign::Verdict<ImageSignature>, RegistryError>,
) -> Outcome {
    let mut refused: Option<InvalidSignature> = None;
    for ReleaseKey { key, standing } in keys {
        match check(key).await {
            Ok(cosign::Verdict::Absent) => {}
            Ok(cosign::Verdict::Invalid(why)) => match &refused {
                Some(before) if weight(before) >= weight(&why) => {}
                _ => refused = Some(why),
            },
            Ok(cosign::Verdict::Valid(signature)) => {
                return Outcome::Valid(Signer {
                    build: signature.build().cloned(),
                    key: signature.key().to_hex(),
                    name: signature.image().to_string(),
                    standing: *standing,
                });
            }
            Err(error) => return Outcome::NotAnswered(error.into()),
        }
    }
    refused.map_or(Outcome::Missing(WhyMissing::Cosign), |why| Outcome::Invalid(why.into()))
}

/// Tells how much a reason says: that it is by another of the keys says less than what is wrong with
/// it.
fn weight(why: &InvalidSignature) -> u8 {
    match why {
        InvalidSignature::OtherKey => 0,
        InvalidSignature::Signature(_) => 1,
        _ => 2,
    }
}

async fn check_simple_signing(
    session: &Session,
    trust: &ImageTrust,
    Expected { image, digest }: Expected<'_>,
) -> Outcome {
    let Some(keys) = &trust.openpgp else { return Outcome::NotChecked };
    let lookaside = trust.lookaside.as_ref();
    let checked = simple_signing::verify(session, lookaside, &keys.verifier, image, digest).await;
    match checked {
        Ok(checked) => judge_simple_signing(checked, keys),
        Err(error) if is_nonsense(&error) => Outcome::Invalid(WhyInvalid::Served(error)),
        Err(error) => Outcome::NotAnswered(WhyNotAnswered::SimpleSigning(error)),
    }
}

fn judge_simple_signing(checked: simple_signing::Checked, keys: &OpenPgpKeys) -> Outcome {
    match checked.verdict {
        simple_signing::Verdict::Absent => {
            Outcome::Missing(WhyMissing::SimpleSigning(checked.place))
        }
        simple_signing::Verdict::Invalid(refused) => {
            Outcome::Invalid(WhyInvalid::SimpleSigning(simple_signing::Reasons(refused)))
        }
        simple_signing::Verdict::Valid(signed) => Outcome::Valid(Signer {
            build: None,
            key: signed.certificate().to_string(),
            name: signed.claim().reference().to_owned(),
            standing: keys.standing(signed.certificate()),
        }),
    }
}

/// Tells whether there was an answer that is none to the question.
fn is_nonsense(error: &FetchSignaturesError) -> bool {
    match error {
        FetchSignaturesError::Lookaside { source: LookasideError::TooMany, .. } => true,
        FetchSignaturesError::Lookaside { source: LookasideError::Web(error), .. }
        | FetchSignaturesError::Registry(error) => error.is_answer() && !error.is_not_found(),
        FetchSignaturesError::Lookaside { .. } => false,
    }
}

async fn check_notary(
    notary: Option<(&NotaryPin, NotarySession)>,
    image: &ImageReference,
    found: &FetchedManifest,
    now: OffsetDateTime,
) -> Outcome {
    let Some((pin, session)) = notary else { return Outcome::NotChecked };
    let trust = Trust { pin: &pin.pin, remembered: None };
    let verdict = match image.tag() {
        Some(tag) => notary::verify(&session, tag, trust, now).await,
        None => notary::verify_digest(&session, found.digest, trust, now).await,
    };
    match verdict {
        Ok(notary::Verdict::Absent(Absence::Repository)) => {
            Outcome::Missing(WhyMissing::NotaryRepository)
        }
        Ok(notary::Verdict::Absent(Absence::Tag(_))) => Outcome::Missing(WhyMissing::NotaryTag),
        Ok(notary::Verdict::Invalid(why)) => Outcome::Invalid(why.into()),
        Ok(notary::Verdict::Signed(target)) => judge_target(&target, pin, found),
        Err(error) => Outcome::NotAnswered(error.into()),
    }
}

fn judge_target(target: &SignedTarget, pin: &NotaryPin, found: &FetchedManifest) -> Outcome {
    let (digest, announced): (Digest, u64) = (target.digest(), target.size());
    let actual = found.bytes.len() as u64;
    if digest != found.digest {
        return Outcome::Invalid(WhyInvalid::NotaryDigest { digest });
    }
    if announced != actual {
        return Outcome::Invalid(WhyInvalid::NotarySize { announced, actual });
    }
    Outcome::Valid(Signer {
        build: None,
        key: pin.key.to_string(),
        name: format!("{}:{}", target.gun(), target.tag()),
        standing: Standing::Current,
    })
}

/// Why an image was not checked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckImageError {
    /// It names a repository, and no image in it.
    #[error("`{image}` has neither a tag nor a digest")]
    NoImage {
        /// What was asked for.
        image: String,
    },

    /// The registry answered, and not with an image.
    #[error("image `{image}` cannot be had")]
    NotServed {
        /// What was asked for.
        image: String,
        /// The cause.
        source: RegistryError,
    },

    /// The bundle is for the images of another repository.
    #[error("the trust bundle is for images of `{repository}`, not for `{image}`")]
    OtherRepository {
        /// What was asked for.
        image: String,
        /// What the bundle is for.
        repository: String,
    },

    /// The registry did not answer.
    #[error("nothing is known about image `{image}`")]
    Unanswered {
        /// What was asked for.
        image: String,
        /// The cause.
        source: RegistryError,
    },
}

impl CheckImageError {
    fn of(image: &ImageReference, source: RegistryError) -> Self {
        let image = image.to_string();
        if source.is_answer() {
            Self::NotServed { image, source }
        } else {
            Self::Unanswered { image, source }
        }
    }
}
