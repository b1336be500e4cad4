//! The form with a tag: the crate `sigstore`, which fetches image and signature by itself.

use std::str::FromStr as _;

use sbs_crypto::ImageSigningKey;
use sbs_registry::testing::{Authority, PASSWORD, USER};
use sbs_registry::{BlobSource, Descriptor, ImageManifest, Target, media_type};
use sigstore::cosign::verification_constraint::{PublicKeyVerifier, VerificationConstraintVec};
use sigstore::cosign::{ClientBuilder, CosignCapabilities as _, verify_constraints};
use sigstore::registry::{Auth, Certificate, CertificateEncoding, ClientConfig, OciReference};

use crate::Signed;

/// Returns whether the judge accepts the image under this reference; `named` is the reference that
/// the signature must have in it, which cosign's own verifiers do not look at.
async fn accepts(signed: &Signed, image: &str, named: &str, key_pem: &str) -> bool {
    let mut config = ClientConfig::default();
    config.extra_root_certificates = vec![Certificate {
        encoding: CertificateEncoding::Pem,
        data: Authority::get().ca_pem.clone().into_bytes(),
    }];
    let mut client = ClientBuilder::default().with_oci_client_config(config).build().unwrap();
    let auth = Auth::Basic(USER.to_owned(), PASSWORD.to_owned());
    let reference = OciReference::from_str(&format!("{}/{image}", signed.registry.host())).unwrap();
    let Ok(layers) = client.trusted_signature_layers(&auth, &reference).await else {
        return false;
    };
    let named = format!("{}/{named}", signed.registry.host());
    let named: Vec<_> = layers
        .into_iter()
        .filter(|layer| layer.simple_signing.critical.identity.docker_reference == named)
        .collect();
    let verifier = PublicKeyVerifier::try_from(key_pem.as_bytes()).unwrap();
    let constraints: VerificationConstraintVec = vec![Box::new(verifier)];
    !named.is_empty() && verify_constraints(&named, constraints.iter()).is_ok()
}

#[tokio::test]
async fn sigstore_accepts_the_key_the_tag_and_the_image_only() {
    let signed = Signed::new().await;
    let key = signed.key_pem();
    assert!(accepts(&signed, "team/app:v1", "team/app:v1", &key).await);
    let by_digest = format!("team/app@{}", signed.digest);
    assert!(accepts(&signed, &by_digest, "team/app:v1", &key).await);
    let other = ImageSigningKey::generate().unwrap().verifying_key().to_pem();
    assert!(!accepts(&signed, "team/app:v1", "team/app:v1", &other).await);
    for named in ["team/app:v2", "team/other:v1", "team/app"] {
        assert!(!accepts(&signed, "team/app:v1", named, &key).await, "{named}");
    }
    // Another image, with the list of signatures of the first one.
    let hex = signed.digest.to_hex();
    let (repository, kind) = (signed.image.repository(), media_type::OCI_IMAGE);
    let list_tag = sbs_registry::cosign::tag::tag(signed.digest).unwrap();
    let list = signed.session.manifest(repository, Target::Tag(&list_tag)).await.unwrap().bytes;
    let text = b"{\"a\":1}";
    let config = Descriptor::of(media_type::OCI_CONFIG, text);
    let source = BlobSource::Bytes(text.to_vec().into());
    signed.session.push_blob(repository, config.digest, config.size, &source).await.unwrap();
    let other = ImageManifest::new(config, Vec::new()).to_json();
    let digest = sbs_crypto::digest(&other);
    let target = Target::Digest(digest);
    signed.session.push_manifest(repository, target, kind, other.into()).await.unwrap();
    let other_tag = sbs_registry::cosign::tag::tag(digest).unwrap();
    let target = Target::Tag(&other_tag);
    signed.session.push_manifest(repository, target, kind, list.clone().into()).await.unwrap();
    assert!(!accepts(&signed, &format!("team/app@{digest}"), "team/app:v1", &key).await);

    // A byte of the signature. It stands in the list, in base64; so does nothing else of its name.
    let mut list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    let annotations = &mut list["layers"][0]["annotations"];
    let text = annotations["dev.cosignproject.cosign/signature"].as_str().unwrap().to_owned();
    let last = if text.as_bytes()[20] == b'A' { "B" } else { "A" };
    let changed = format!("{}{last}{}", &text[..20], &text[21..]);
    annotations["dev.cosignproject.cosign/signature"] = changed.into();
    let target = Target::Tag(&list_tag);
    let list = list.to_string();
    signed.session.push_manifest(repository, target, kind, list.into()).await.unwrap();
    assert!(!accepts(&signed, "team/app:v1", "team/app:v1", &key).await, "{hex}");
}
