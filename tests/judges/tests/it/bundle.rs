//! The form with a bundle: the crate `sigstore-verify`, and `@sigstore/verify` of npm, which node runs.

use std::fs;
use std::process::Command;

use sbs_crypto::{ImageSigningKey, ImageVerifyingKey};
use sbs_proto::Digest;
use serde_json::Value;
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Artifact, Bundle, DerPublicKey, Sha256Hash};
use sigstore_verify::{PublicKeyVerificationPolicy, Verifier};

use crate::Signed;
use crate::log::Log;

const NPM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/npm");

/// What a user asks for: `cosign verify --key KEY -a tag=TAG REPOSITORY@DIGEST`.
#[derive(Clone)]
struct Wanted {
    key_pem: String,
    repository: String,
    tag: String,
    digest: Digest,
}

/// Tells whether the statement of a bundle is about the repository and the tag; the judges see to
/// the signature and the digest.
fn names(bundle: &str, wanted: &Wanted) -> bool {
    use base64::Engine as _;
    let bundle: Value = serde_json::from_str(bundle).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    let payload = base64::engine::general_purpose::STANDARD.decode(payload).unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    let subject = &statement["subject"][0];
    subject["name"] == wanted.repository && subject["annotations"]["tag"] == wanted.tag
}

/// Asks `sigstore-verify`, with a log of ours: it takes no bundle without an entry.
fn rust_accepts(bundle: &str, root: &str, wanted: &Wanted) -> bool {
    let Ok(parsed) = Bundle::from_json(bundle) else { return false };
    let verifier = Verifier::new(&TrustedRoot::from_json(root).unwrap()).unwrap();
    let key = DerPublicKey::from_pem(&wanted.key_pem).unwrap();
    let digest = Sha256Hash::from_hex(&wanted.digest.to_hex()).unwrap();
    let policy = PublicKeyVerificationPolicy::new(key);
    let result = verifier.verify(Artifact::from_digest(digest), &parsed, &policy);
    let logged = result.is_ok_and(|result| result.tlog_verified());
    logged && names(bundle, wanted)
}

/// Asks `@sigstore/verify`.
fn npm_accepts(bundle: &str, wanted: &Wanted) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("bundle.json"), bundle).unwrap();
    fs::write(at("key.pem"), &wanted.key_pem).unwrap();
    let mut node = Command::new("node");
    node.arg(format!("{NPM}/verify.js")).arg(at("key.pem")).arg(at("bundle.json"));
    node.args([&wanted.digest.to_hex(), &wanted.repository, &wanted.tag]);
    let output = node.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => true,
        // A refusal; anything else is a fault of the judge.
        Some(1) => false,
        code => panic!("node ended with {code:?}: {told}"),
    }
}

#[tokio::test]
async fn the_judges_accept_the_key_the_image_and_the_tag_only() {
    let signed = Signed::new().await;
    let bundle = signed.bundle().await;
    let log = Log::new();
    let root = log.trusted_root();
    let spki = signed.key.verifying_key();
    let logged = log.enter(&bundle, spki.spki_der());
    let wanted = Wanted {
        key_pem: signed.key_pem(),
        repository: format!("{}/team/app", signed.registry.host()),
        tag: "v1".to_owned(),
        digest: signed.digest,
    };
    assert!(npm_accepts(&bundle, &wanted));
    assert!(rust_accepts(&logged, &root, &wanted));

    let other = ImageSigningKey::generate().unwrap().verifying_key().to_pem();
    for other in [
        Wanted { key_pem: other, ..wanted.clone() },
        Wanted { tag: "v2".to_owned(), ..wanted.clone() },
        Wanted { repository: wanted.repository.replace("app", "other"), ..wanted.clone() },
        Wanted { digest: Digest::from_bytes([1; 32]), ..wanted.clone() },
    ] {
        assert!(!npm_accepts(&bundle, &other));
        assert!(!rust_accepts(&logged, &root, &other));
    }
    // Another log, and none.
    assert!(!rust_accepts(&logged, &Log::new().trusted_root(), &wanted));
    assert!(!rust_accepts(&bundle, &root, &wanted));
    for member in ["payload", "sig"] {
        let broken = flip(&bundle, member);
        assert!(!npm_accepts(&broken, &wanted), "{member}");
        let broken = flip(&logged, member);
        assert!(!rust_accepts(&broken, &root, &wanted), "{member}");
    }
}

/// Changes a byte of a member that is base64, and leaves the rest of the text as it is.
fn flip(bundle: &str, member: &str) -> String {
    let (before, rest) = bundle.split_once(&format!("\"{member}\":\"")).unwrap();
    let (text, after) = rest.split_once('"').unwrap();
    let mut bytes = text.as_bytes().to_vec();
    bytes[30] = if bytes[30] == b'A' { b'B' } else { b'A' };
    let text = String::from_utf8(bytes).unwrap();
    format!("{before}\"{member}\":\"{text}\"{after}")
}

#[test]
fn the_judges_accept_the_golden_bundle() {
    let data = |name: &str| {
        let path = format!("{}/../data/bundle/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).unwrap()
    };
    let key_pem = data("key.pem");
    let key = ImageVerifyingKey::from_pem(&key_pem).unwrap();
    let digest = sbs_crypto::digest(br#"{"schemaVersion":2}"#);
    for name in ["unlogged.json", "logged.json"] {
        let bundle = sbs_registry::cosign::Bundle::parse(data(name).as_bytes()).unwrap();
        assert!(bundle.verify(&key).is_ok());
    }
    let root = TrustedRoot::from_json(&data("trusted-root.json")).unwrap();
    let parsed = Bundle::from_json(&data("logged.json")).unwrap();
    let artifact = Sha256Hash::from_hex(&digest.to_hex()).unwrap();
    let policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_pem(&key_pem).unwrap());
    let verifier = Verifier::new(&root).unwrap();
    verifier.verify(Artifact::from_digest(artifact), &parsed, &policy).unwrap();
}
