//! Simple signing in cosign's tag form: what is signed, and the image manifest under the tag
//! `sha256-<hex>.sig` that lists the signatures.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::ImageVerifyingKey;
use sbs_proto::{Digest, ImageReference, ImageTag, ParseNameError, parse_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Expected, ImageSignature, InvalidSignature, key_id, names};
use crate::Descriptor;

/// What is signed: these bytes, exactly.
///
/// `optional` stays null: with a time in it, signing the same image again would be another
/// statement instead of the same one.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    optional: Option<()>,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: Digest,
}

impl Payload {
    fn new(image: &ImageReference, digest: Digest) -> Self {
        Self {
            critical: Critical {
                // With its tag: podman accepts a signature for this very reference only.
                identity: Identity { docker_reference: image.to_string() },
                image: Image { docker_manifest_digest: digest },
                r#type: "cosign container image signature".to_owned(),
            },
            optional: None,
        }
    }
}

/// Returns the bytes that say that `digest` is the image `image`, a reference with a tag.
pub(super) fn payload(image: &ImageReference, digest: Digest) -> Vec<u8> {
    serde_json::to_vec(&Payload::new(image, digest)).expect("the names of all members are strings")
}

/// Verifies that `key` signed the bytes, and that they name the image.
pub(super) fn verify(
    bytes: &[u8],
    signature: &[u8],
    key: &ImageVerifyingKey,
    expected: Expected<'_>,
) -> Result<ImageSignature, InvalidSignature> {
    let _valid = key.verify(bytes, signature)?;
    let said: Payload = parse_json(bytes).map_err(|_| InvalidSignature::OtherStatement)?;
    let image = ImageReference::parse(&said.critical.identity.docker_reference);
    let image = image.map_err(|_| InvalidSignature::OtherImage)?;
    let digest = said.critical.image.docker_manifest_digest;
    if digest != expected.digest || !names(&image, expected.image) {
        return Err(InvalidSignature::OtherImage);
    }
    // Another type of statement, or the reference in another writing.
    if said != Payload::new(&image, digest) {
        return Err(InvalidSignature::OtherStatement);
    }
    Ok(ImageSignature { key: key_id(key), image, digest, build: None })
}

/// Returns the tag under which the signatures of an image are found.
pub(super) fn tag(digest: Digest) -> Result<ImageTag, ParseNameError> {
    ImageTag::parse(&format!("sha256-{}.sig", digest.to_hex()))
}

/// Makes the entry of a signature.
pub(super) fn layer(payload: &[u8], signature: &[u8]) -> Descriptor {
    let mut layer = Descriptor::of(PAYLOAD_TYPE, payload);
    layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), STANDARD.encode(signature));
    layer
}

/// Returns the signature of an entry, if it is one of a signature.
pub(super) fn signature(layer: &Descriptor) -> Option<Vec<u8>> {
    let text = layer.annotations.get(SIGNATURE_ANNOTATION)?;
    (layer.media_type == PAYLOAD_TYPE).then(|| STANDARD.decode(text).ok())?
}

/// Returns the image config that stands beside these entries.
pub(super) fn config(layers: &[Descriptor]) -> Vec<u8> {
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let config: Value = json!({
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "os": "",
        "rootfs": { "diff_ids": digests, "type": "layers" },
    });
    config.to_string().into_bytes()
}

const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

#[cfg(test)]
mod tests {
    use sbs_crypto::ImageSigningKey;

    use super::*;

    fn image() -> (ImageReference, Digest) {
        let image = ImageReference::parse("registry.example:5000/team/app:v1-0a1b2c3").unwrap();
        (image, Digest::from_bytes([0xab; 32]))
    }

    #[test]
    fn the_payload_is_what_cosign_and_podman_read() {
        let (image, digest) = image();
        let hex = "ab".repeat(32);
        let expected = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"registry.example:5000/team/app:v1-0a1b2c3"}},"image":{{"docker-manifest-digest":"sha256:{hex}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        assert_eq!(String::from_utf8(payload(&image, digest)).unwrap(), expected);
        assert_eq!(tag(digest).unwrap().as_str(), format!("sha256-{hex}.sig"));
    }

    #[test]
    fn only_the_same_statement_by_the_same_key_verifies() {
        let key = ImageSigningKey::generate().unwrap();
        let (image, digest) = image();
        let untagged = ImageReference::new(image.registry().clone(), image.repository().clone());
        for wanted in [&image, &untagged] {
            let expected = Expected { image: wanted, digest };
            let check = |bytes: &[u8], signer: &ImageSigningKey| {
                verify(bytes, &signer.sign(bytes).unwrap(), &key.verifying_key(), expected)
            };
            let bytes = payload(&image, digest);
            let valid = check(&bytes, &key).unwrap();
            assert_eq!((valid.image(), valid.digest()), (&image, digest));
            assert_eq!(valid.key(), key_id(&key.verifying_key()));
            let result = check(&bytes, &ImageSigningKey::generate().unwrap());
            assert!(matches!(result, Err(InvalidSignature::Signature(_))), "{result:?}");

            let text = String::from_utf8(bytes.clone()).unwrap();
            for other in [
                text.replace("registry.example:5000/", "registry.example:5001/"),
                text.replace("team/app", "team/other"),
                text.replace(":v1-0a1b2c3", ""),
                text.replace("v1-0a1b2c3", &format!("v1-0a1b2c3@{digest}")),
                text.replace("abab", "cdcd"),
            ] {
                assert_ne!(other, text);
                let result = check(other.as_bytes(), &key);
                assert!(matches!(result, Err(InvalidSignature::OtherImage)), "{other}");
            }
            for other in [
                text.replace("cosign container", "atomic container"),
                text.replace("\"optional\":null", "\"optional\":{\"a\":1}"),
                text.replace("\"type\"", "\"more\":1,\"type\""),
                text.replace("\"optional\":null", "\"optional\":null,\"optional\":null"),
                "{}".to_owned(),
            ] {
                assert_ne!(other, text);
                let result = check(other.as_bytes(), &key);
                assert!(matches!(result, Err(InvalidSignature::OtherStatement)), "{other}");
            }
            let signature = key.sign(&bytes).unwrap();
            for at in 0..signature.len() {
                let mut broken = signature.clone();
                broken[at] ^= 1;
                let result = verify(&bytes, &broken, &key.verifying_key(), expected);
                assert!(matches!(result, Err(InvalidSignature::Signature(_))), "byte {at}");
            }
        }
        let other = image.with_tag(ImageTag::parse("v2").unwrap());
        let bytes = payload(&image, digest);
        let signature = key.sign(&bytes).unwrap();
        let expected = Expected { image: &other, digest };
        let result = verify(&bytes, &signature, &key.verifying_key(), expected);
        assert!(matches!(result, Err(InvalidSignature::OtherImage)), "{result:?}");
    }

    #[test]
    fn an_entry_holds_its_signature() {
        let entry = layer(b"payload", b"signature");
        assert_eq!(signature(&entry).unwrap(), b"signature");
        let mut other = entry.clone();
        other.media_type = "application/vnd.dsse.envelope.v1+json".to_owned();
        assert_eq!(signature(&other), None);
        let mut other = entry;
        other.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), "%".to_owned());
        assert_eq!(signature(&other), None);
    }
}
