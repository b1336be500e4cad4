//! Bundles that refer to an image: pushed, and found again.

use std::collections::BTreeMap;

use bytes::Bytes;
use sbs_crypto::ImageSigningKey;
use sbs_proto::{Digest, Repository};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::envelope::{BUNDLE_TYPE, Bundle, MAX_BUNDLE_BYTES, VerifiedStatement};
use super::statement::Statement;
use super::{Findings, InvalidSignature, SignImageError, Signed, Verdict};
use crate::{
    BlobSource, Descriptor, DocumentKind, ImageManifest, RegistryError, Session, Target, media_type,
};

/// Signs a statement and lets a bundle with it refer to each of `subjects`, which are in the
/// repository: an index and its manifests, say.
///
/// One with the same statement by the same key that is there already is not made again. `created` is
/// the time that the referrer says.
pub async fn attest(
    session: &Session,
    (repository, subjects): (&Repository, &[Descriptor]),
    statement: &Statement,
    key: &ImageSigningKey,
    created: OffsetDateTime,
) -> Result<Signed, SignImageError> {
    let verifying_key = key.verifying_key();
    let payload = statement.to_json();
    let same = |bundle: &Bundle| {
        let verified = bundle.verify(&verifying_key)?;
        if bundle.payload() == payload {
            Ok(verified)
        } else {
            Err(InvalidSignature::OtherStatement)
        }
    };
    let mut signed = Signed::Already;
    for subject in subjects {
        let kind = statement.predicate_type.as_str();
        let found = find(session, (repository, subject.digest), kind, same).await?;
        if !matches!(found, Verdict::Valid(_)) {
            let bundle = Bundle::sign(statement, key)?;
            attach(session, (repository, subject), kind, &bundle, created).await?;
            signed = Signed::Now;
        }
    }
    Ok(signed)
}

/// Pushes a bundle that refers to `subject`, which is in the repository; returns what is listed then.
///
/// Nothing but one bundle goes under this type: cosign takes every such referrer for one.
pub(crate) async fn attach(
    session: &Session,
    (repository, subject): (&Repository, &Descriptor),
    predicate_type: &str,
    bundle: &Bundle,
    created: OffsetDateTime,
) -> Result<Descriptor, RegistryError> {
    let layer = Bytes::from(bundle.to_json());
    let config = Bytes::from_static(b"{}");
    let mut manifest = ImageManifest::new(
        Descriptor::of(media_type::OCI_EMPTY, &config),
        vec![Descriptor::of(BUNDLE_TYPE, &layer)],
    );
    manifest.artifact_type = Some(BUNDLE_TYPE.to_owned());
    manifest.subject = Some(Descriptor::new(&subject.media_type, subject.digest, subject.size));
    let created = created.replace_nanosecond(0).unwrap_or(created).format(&Rfc3339);
    let created = created.map_err(|_| RegistryError::Internal("a time that cannot be written"))?;
    manifest.annotations = BTreeMap::from(
        [(CREATED, created.as_str()), (CONTENT, "dsse-envelope"), (PREDICATE_TYPE, predicate_type)]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    for bytes in [config, layer] {
        let (digest, size) = (sbs_crypto::digest(&bytes), bytes.len() as u64);
        session.push_blob(repository, digest, size, &BlobSource::Bytes(bytes)).await?;
    }
    session.push_referrer(repository, &manifest).await
}

/// Looks among the bundles that refer to an image for one that `accept` takes.
///
/// What says that it is of another predicate type is not fetched: an attestation that is taken for no
/// signature needs no look. `accept` sees to the type that is signed.
pub(super) async fn find<T>(
    session: &Session,
    (repository, digest): (&Repository, Digest),
    predicate_type: &str,
    mut accept: impl FnMut(&Bundle) -> Result<T, InvalidSignature>,
) -> Result<Verdict<T>, RegistryError> {
    let mut findings = Findings::default();
    let listed = match session.referrers(repository, digest).await {
        Ok(listed) => listed,
        Err(error) => {
            findings.not_fetched(error);
            return findings.verdict();
        }
    };
    let bundles = listed.iter().filter(|entry| may_be(entry, predicate_type));
    for (index, entry) in bundles.enumerate() {
        if index == MAX_BUNDLES {
            findings.invalid = Some(InvalidSignature::TooMany { max: MAX_BUNDLES });
            break;
        }
        let bytes = match fetch(session, (repository, digest), entry).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                findings.invalid(InvalidSignature::Form);
                continue;
            }
            Err(error) => {
                findings.not_fetched(error);
                continue;
            }
        };
        let bundle = Bundle::parse(&bytes).map_err(InvalidSignature::from);
        match bundle.and_then(|bundle| accept(&bundle)) {
            Ok(accepted) => return Ok(Verdict::Valid(accepted)),
            Err(reason) => findings.invalid(reason),
        }
    }
    findings.verdict()
}

fn may_be(entry: &Descriptor, predicate_type: &str) -> bool {
    let named = entry.annotations.get(PREDICATE_TYPE);
    entry.artifact_type.as_deref() == Some(BUNDLE_TYPE)
        && named.is_none_or(|named| named == predicate_type)
}

/// Fetches the bundle of an entry; `None` if it is made otherwise or refers to something else.
async fn fetch(
    session: &Session,
    (repository, subject): (&Repository, Digest),
    entry: &Descriptor,
) -> Result<Option<Vec<u8>>, RegistryError> {
    let served = session.manifest(repository, Target::Digest(entry.digest)).await?;
    if served.kind != DocumentKind::Image || served.media_type != media_type::OCI_IMAGE {
        return Ok(None);
    }
    let Ok(manifest) = ImageManifest::parse(&served.bytes) else { return Ok(None) };
    let [layer] = manifest.layers.as_slice() else { return Ok(None) };
    let refers = manifest.subject.is_some_and(|named| named.digest == subject);
    let typed = manifest.artifact_type.as_deref() == Some(BUNDLE_TYPE);
    if !refers || !typed || layer.media_type != BUNDLE_TYPE {
        return Ok(None);
    }
    session.blob(repository, layer, MAX_BUNDLE_BYTES).await.map(Some)
}

/// Checks that an image has a bundle with a statement of this predicate type by this key, and returns
/// the statement; which image it names is the caller's to check.
pub async fn statement(
    session: &Session,
    (repository, digest): (&Repository, Digest),
    predicate_type: &str,
    key: &sbs_crypto::ImageVerifyingKey,
) -> Result<Verdict<VerifiedStatement>, RegistryError> {
    let accept = |bundle: &Bundle| {
        let verified = bundle.verify(key)?;
        let said = verified.statement();
        let hex = digest.to_hex();
        if said.predicate_type != predicate_type {
            return Err(InvalidSignature::OtherStatement);
        }
        if !said.subject.iter().any(|subject| subject.digest.get("sha256") == Some(&hex)) {
            return Err(InvalidSignature::OtherImage);
        }
        Ok(verified)
    };
    find(session, (repository, digest), predicate_type, accept).await
}

const CREATED: &str = "org.opencontainers.image.created";
const CONTENT: &str = "dev.sigstore.bundle.content";
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
/// Each costs two requests.
const MAX_BUNDLES: usize = 200;
