//! The form with a tag: simple signing, listed under `sha256-<hex>.sig`.

use bytes::Bytes;
use sbs_crypto::{ImageSigningKey, ImageVerifyingKey, digest as digest_of};
use sbs_proto::{Digest, ImageReference, ImageTag};

use super::{
    Expected, Findings, ImageSignature, InvalidSignature, SignImageError, Signed, Verdict, simple,
};
use crate::shared::{Change, Changed};
use crate::{
    BlobSource, Descriptor, DocumentKind, FetchedManifest, ImageManifest, RegistryError, Session,
    media_type,
};

/// Signs the image of this digest, and pushes the signature until the registry lists it.
///
/// `image` is a reference with a tag. Signatures by others stay; one that is there already and
/// verifies with this key is not made again.
pub async fn sign(
    session: &Session,
    image: &ImageReference,
    digest: Digest,
    key: &ImageSigningKey,
) -> Result<Signed, SignImageError> {
    if image.tag().is_none() {
        return Err(RegistryError::Internal("an image without a tag").into());
    }
    let tag = tag(digest)?;
    let payload = simple::payload(image, digest);
    let verifying_key = key.verifying_key();
    let expected = Expected { image, digest };
    let is_ours = |layer: &Descriptor| {
        layer.digest == digest_of(&payload)
            && simple::signature(layer).is_some_and(|signature| {
                simple::verify(&payload, &signature, &verifying_key, expected).is_ok()
            })
    };
    let change = |there: Option<FetchedManifest>| {
        let list = there.map(|there| parse_list(&there, &tag)).transpose()?;
        let mut layers = list.as_ref().map_or_else(Vec::new, |list| list.layers.clone());
        if layers.iter().any(is_ours) {
            return Ok(Change::None);
        }
        layers.push(simple::layer(&payload, &key.sign(&payload)?));
        let config = simple::config(&layers);
        let descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
        let mut list = list.unwrap_or_else(|| ImageManifest::new(descriptor.clone(), Vec::new()));
        (list.config, list.layers) = (descriptor, layers);
        let blobs = vec![Bytes::from(payload.clone()), Bytes::from(config)];
        let document = Bytes::from(list.to_json());
        Ok::<_, SignImageError>(Change::Write {
            blobs,
            media_type: media_type::OCI_IMAGE,
            document,
        })
    };
    let changed = session.change_list(image.repository(), &tag, change).await?;
    if changed == Changed::Yes {
        return Ok(Signed::Now);
    }
    // The registry may have lost what the list lists.
    let bytes = Bytes::from(payload);
    let (digest, size) = (digest_of(&bytes), bytes.len() as u64);
    let source = BlobSource::Bytes(bytes);
    session.push_blob(image.repository(), digest, size, &source).await?;
    Ok(Signed::Already)
}

/// Checks that the registry has a signature for the image that verifies with this key.
pub async fn check(
    session: &Session,
    expected: Expected<'_>,
    key: &ImageVerifyingKey,
) -> Result<Verdict<ImageSignature>, RegistryError> {
    let (repository, tag) = (expected.image.repository(), tag(expected.digest)?);
    let list = match session.list(repository, &tag).await {
        Ok(Some(list)) => list,
        Ok(None) => return Ok(Verdict::Absent),
        Err(error) if error.is_answer() => {
            return Ok(Verdict::Invalid(InvalidSignature::Served(error)));
        }
        Err(error) => return Err(error),
    };
    let list = match parse_list(&list, &tag) {
        Ok(list) => list,
        Err(SignImageError::Document(error)) => return Ok(Verdict::Invalid(error.into())),
        Err(_) => return Ok(Verdict::Invalid(InvalidSignature::NotSignatures { tag })),
    };
    let mut findings = Findings::default();
    let signatures =
        list.layers.iter().filter_map(|layer| Some((layer, simple::signature(layer)?)));
    for (index, (layer, signature)) in signatures.enumerate() {
        if index == MAX_SIGNATURES {
            findings.invalid = Some(InvalidSignature::TooMany { max: MAX_SIGNATURES });
            break;
        }
        let payload = match session.blob(repository, layer, MAX_PAYLOAD_BYTES).await {
            Ok(payload) => payload,
            Err(error) => {
                findings.not_fetched(error);
                continue;
            }
        };
        match simple::verify(&payload, &signature, key, expected) {
            Ok(valid) => return Ok(Verdict::Valid(valid)),
            Err(reason) => findings.invalid(reason),
        }
    }
    findings.verdict()
}

/// Returns the tag under which the signatures of an image are found.
pub fn tag(digest: Digest) -> Result<ImageTag, RegistryError> {
    simple::tag(digest).map_err(|_| RegistryError::Internal("the tag of a signature"))
}

fn parse_list(list: &FetchedManifest, tag: &ImageTag) -> Result<ImageManifest, SignImageError> {
    if list.kind != DocumentKind::Image || list.media_type != media_type::OCI_IMAGE {
        return Err(SignImageError::NotSignatures { tag: tag.clone() });
    }
    Ok(ImageManifest::parse(&list.bytes)?)
}

/// A payload has some 300 bytes.
const MAX_PAYLOAD_BYTES: u64 = 64 * 1024;
/// Each costs a request.
const MAX_SIGNATURES: usize = 200;
