use sbs_proto::v2::BuildId;
use sbs_proto::{Digest, ImageReference, ImageTag};

use super::*;
use crate::cosign::statement::{SIGNED_IMAGE, Subject};
use crate::cosign::{Expected, bundle};

const UNLOGGED: &str = include_str!("../../../../../tests/data/bundle/unlogged.json");
const LOGGED: &str = include_str!("../../../../../tests/data/bundle/logged.json");
const KEY: &str = include_str!("../../../../../tests/data/bundle/key.pem");
const HINT: &str = "j6lSRQBeiDsN21K6+uhQrKkKCdPWiu29HJbEYH9PbhQ=";

fn golden_key() -> ImageVerifyingKey {
    ImageVerifyingKey::from_pem(KEY).unwrap()
}

fn image() -> (ImageReference, Digest) {
    let image = ImageReference::parse("registry.example:5000/team/app:v1").unwrap();
    (image, Digest::from_bytes([0xab; 32]))
}

fn signed_image() -> Statement {
    let (image, digest) = image();
    Statement::signed_image(&image, digest, &BuildId::parse("00000007").unwrap())
}

fn compact(json: &str) -> Vec<u8> {
    serde_json::from_str::<Value>(json).unwrap().to_string().into_bytes()
}

/// Returns a document without its white space, members in the order that they have.
fn without_space(json: &str) -> String {
    // No text of these documents has white space in it but the checkpoint, which stays escaped.
    json.lines().map(str::trim_start).collect::<String>().replace("\": ", "\":")
}

#[test]
fn the_golden_vector_comes_out_byte_for_byte() {
    let artifact = sbs_crypto::digest(br#"{"schemaVersion":2}"#);
    let statement =
        Statement::new(vec![Subject::new(artifact)], SIGNED_IMAGE, serde_json::Map::new());
    let bundle = Bundle::parse(UNLOGGED.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(statement.to_json()).unwrap().as_bytes(), bundle.payload());
    let pae = dsse::pre_authentication_encoding(PAYLOAD_TYPE, bundle.payload());
    let pae = STANDARD.encode(sbs_crypto::digest(&pae).as_bytes());
    assert_eq!(pae, "GLSBEQ6IiPj+vp1JYILGOGpR3jb+s7Rz8lITWpRx/x8=");
    assert_eq!(STANDARD.encode(key_id(&golden_key()).as_bytes()), HINT);
    assert_eq!(bundle.verify(&golden_key()).unwrap().statement(), &statement);

    // What was read is written as it was.
    assert_eq!(String::from_utf8(bundle.to_json()).unwrap(), without_space(UNLOGGED));
    let logged = Bundle::parse(LOGGED.as_bytes()).unwrap();
    let again: Value = serde_json::from_slice(&logged.to_json()).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(LOGGED).unwrap());
    let _valid = logged.verify(&golden_key()).unwrap();

    // What is made differs in the key and the signature, which is another one each time.
    let key = ImageSigningKey::generate().unwrap();
    let made = Bundle::sign(&statement, &key).unwrap();
    let mut expected = String::from_utf8(bundle.to_json()).unwrap();
    expected = expected.replace(HINT, &STANDARD.encode(key_id(&key.verifying_key()).as_bytes()));
    let signature = &bundle.document.dsse_envelope.signatures[0].sig;
    expected = expected.replace(signature, &STANDARD.encode(&made.signature));
    assert_eq!(String::from_utf8(made.to_json()).unwrap(), expected);
}

#[test]
fn the_statement_binds_repository_tag_and_build() {
    let hex = "ab".repeat(32);
    let expected = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"registry.example:5000/team/app","digest":{{"sha256":"{hex}"}},"annotations":{{"build-id":"00000007","tag":"v1"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#
    );
    assert_eq!(String::from_utf8(signed_image().to_json()).unwrap(), expected);
}

#[test]
fn only_what_is_written_so_is_a_bundle() {
    let key = ImageSigningKey::generate().unwrap();
    let text = String::from_utf8(Bundle::sign(&signed_image(), &key).unwrap().to_json()).unwrap();
    Bundle::parse(text.as_bytes()).unwrap();
    let entry = text.split("\"signatures\":[").nth(1).unwrap().split(']').next().unwrap();
    let hint = STANDARD.encode(key_id(&key.verifying_key()).as_bytes());
    let refusal = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        Bundle::parse(changed.as_bytes()).unwrap_err()
    };
    for (from, to) in [
        ("bundle.v0.3", "bundle.v0.2"),
        ("vnd.in-toto+json", "vnd.cyclonedx+json"),
        ("\"application/vnd.in-toto+json\"", "\"\""),
    ] {
        let error = refusal(from, to);
        assert!(matches!(error, ParseBundleError::Type), "{to}: {error:?}");
    }
    for (from, to) in [
        // Twice the same key, in places of every depth.
        ("{\"mediaType\"", "{\"mediaType\":\"a\",\"mediaType\""),
        ("\"payload\":", "\"payload\":\"\",\"payload\":"),
        ("\"hint\":", "\"hint\":\"\",\"hint\":"),
        // What is not known, or is another writing of what is.
        ("\"mediaType\"", "\"more\":1,\"mediaType\""),
        ("dsseEnvelope", "dsse_envelope"),
        ("\"keyid\":", "\"keyId\":"),
        ("\"publicKey\":{", "\"certificate\":{\"rawBytes\":\"\"},\"publicKey\":{"),
        ("\"publicKey\":{", "\"x509CertificateChain\":{},\"publicKey\":{"),
        ("\"dsseEnvelope\"", "\"messageSignature\":{},\"dsseEnvelope\""),
        (",\"signatures\":", ",\"more\":"),
        ("{\"mediaType\"", " [{\"mediaType\""),
    ] {
        let error = refusal(from, to);
        assert!(matches!(error, ParseBundleError::Form(_)), "{to}: {error:?}");
    }
    let two = format!("{entry},{entry}");
    for (from, to) in [(entry, ""), (entry, &two)] {
        assert!(matches!(refusal(from, to), ParseBundleError::Signatures));
    }
    let other = STANDARD.encode([7; 32]);
    let keyid = format!("\"keyid\":\"{hint}\"");
    let other_keyid = format!("\"keyid\":\"{other}\"");
    for (from, to) in [(&*hint, &*other), (&*keyid, &*other_keyid), (&*keyid, "\"keyid\":\"\"")] {
        assert!(matches!(refusal(from, to), ParseBundleError::Keys));
    }
    for (from, to) in
        [("\"payload\":\"", "\"payload\":\"_"), ("\"sig\":\"", "\"sig\":\" "), ("==\"", "\"")]
    {
        if text.contains(from) {
            assert!(matches!(refusal(from, to), ParseBundleError::Base64(_)), "{to}");
        }
    }
    let large = format!("{text}{}", " ".repeat(usize::try_from(MAX_BUNDLE_BYTES).unwrap()));
    let error = Bundle::parse(large.as_bytes()).unwrap_err();
    assert!(matches!(error, ParseBundleError::TooLarge), "{error:?}");
    assert!(matches!(Bundle::parse(b"").unwrap_err(), ParseBundleError::Form(_)));
}

/// Returns what a bundle with this statement comes to for the image.
fn judge(statement: &[u8]) -> Result<(), InvalidSignature> {
    let key = ImageSigningKey::generate().unwrap();
    let mut bundle = Bundle::sign(&signed_image(), &key).unwrap();
    bundle.signature = dsse::sign(&key, PAYLOAD_TYPE, statement).unwrap();
    bundle.payload = statement.to_vec();
    let (image, digest) = image();
    let with_tag = Expected { image: &image, digest };
    let untagged = ImageReference::new(image.registry().clone(), image.repository().clone());
    let result = bundle::verify(&bundle, with_tag, &key.verifying_key());
    let any_tag = Expected { image: &untagged, digest };
    let any_tag = bundle::verify(&bundle, any_tag, &key.verifying_key());
    // Without a tag that is asked for, the one that is said is told.
    match &result {
        Ok(signature) => assert_eq!(any_tag.unwrap(), *signature),
        Err(_) if statement.windows(5).any(|part| part == b"\"v2\"}") => {
            assert_eq!(any_tag.unwrap().image().tag().unwrap().as_str(), "v2");
        }
        Err(_) => drop(any_tag.unwrap_err()),
    }
    result.map(|signature| {
        assert_eq!((signature.image(), signature.digest()), (&image, digest));
        assert_eq!(signature.key(), key_id(&key.verifying_key()));
    })
}

#[test]
fn r4_a_statement_for_another_image_is_none_for_this_one() {
    let text = String::from_utf8(signed_image().to_json()).unwrap();
    judge(text.as_bytes()).unwrap();
    let hex = "ab".repeat(32);
    let subject = text.split("\"subject\":[").nth(1).unwrap().split(']').next().unwrap();
    let two = format!("{subject},{subject}");
    for (from, to) in [
        (&*hex, &*"cd".repeat(32)),
        (&*hex, &*hex.to_uppercase()),
        ("\"sha256\"", "\"sha512\""),
        ("{\"sha256\"", "{\"sha512\":\"00\",\"sha256\""),
        ("registry.example:5000", "registry.example"),
        ("team/app", "team/other"),
        ("team/app\"", "team/app:v1\""),
        ("\"name\":\"registry.example:5000/team/app\",", ""),
        ("\"tag\":\"v1\"", "\"tag\":\"v2\""),
        ("\"tag\":\"v1\"", "\"tag\":1"),
        (",\"tag\":\"v1\"", ""),
        ("\"00000007\"", "\"seven\""),
        ("\"00000007\"", "7"),
        (subject, ""),
        (subject, &two),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let result = judge(changed.as_bytes());
        assert!(matches!(result, Err(InvalidSignature::OtherImage)), "{to}: {result:?}");
    }
    // A build need not be named.
    judge(text.replace("\"build-id\":\"00000007\",", "").as_bytes()).unwrap();
}

#[test]
fn r7_a_statement_of_another_kind_by_the_image_key_is_no_signature() {
    // cosign 3 takes each of these for one.
    let text = String::from_utf8(signed_image().to_json()).unwrap();
    for kind in [
        "https://slsa.dev/provenance/v1",
        "https://in-toto.io/attestation/test-result/v0.1",
        "https://sigstore.dev/cosign/sign/v2",
        "",
    ] {
        let result = judge(text.replace(SIGNED_IMAGE, kind).as_bytes());
        assert!(matches!(result, Err(InvalidSignature::OtherStatement)), "{kind}: {result:?}");
    }
}

#[test]
fn what_is_no_statement_is_not_taken_for_one() {
    let text = String::from_utf8(signed_image().to_json()).unwrap();
    for changed in [
        text.replace("Statement/v1", "Statement/v0.1"),
        text.replace("{\"_type\"", "{\"predicateType\":\"a\",\"_type\""),
        text.replace("\"predicate\":{}", "\"predicate\":{\"a\":1,\"a\":2}"),
        text.replace("\"predicate\":{}", "\"predicate\":[]"),
        format!("{text} x"),
        String::new(),
    ] {
        assert_ne!(changed, text);
        let result = judge(changed.as_bytes());
        let statement =
            matches!(result, Err(InvalidSignature::Bundle(ParseBundleError::Statement(_))));
        assert!(statement, "{changed}: {result:?}");
    }
}

#[test]
fn a_bundle_counts_for_its_key_and_its_bytes_only() {
    let key = ImageSigningKey::generate().unwrap();
    let public = key.verifying_key();
    let (image, digest) = image();
    let expected = Expected { image: &image, digest };
    let bundle = Bundle::sign(&signed_image(), &key).unwrap();
    let bytes = bundle.to_json();
    let _valid = bundle::verify(&bundle, expected, &public).unwrap();
    let other = ImageSigningKey::generate().unwrap();
    let result = bundle::verify(&bundle, expected, &other.verifying_key());
    assert!(matches!(result, Err(InvalidSignature::OtherKey)), "{result:?}");
    // One that claims the right key.
    let theirs = Bundle::sign(&signed_image(), &other).unwrap();
    let mut claims = bundle.clone();
    claims.signature = theirs.signature;
    let result = bundle::verify(&claims, expected, &public);
    assert!(matches!(result, Err(InvalidSignature::Signature(_))), "{result:?}");
    // The same bytes, signed bare: another kind of signature by the same key.
    let mut bare = bundle.clone();
    bare.signature = key.sign(bundle.payload()).unwrap();
    let result = bundle::verify(&bare, expected, &public);
    assert!(matches!(result, Err(InvalidSignature::Signature(_))), "{result:?}");
    // Every byte of the text is looked at.
    for at in 0..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        let parsed = Bundle::parse(&broken);
        let accepted =
            parsed.is_ok_and(|bundle| bundle::verify(&bundle, expected, &public).is_ok());
        assert!(!accepted, "byte {at}");
    }
    let tag = ImageTag::parse("v2").unwrap();
    let moved = image.with_tag(tag);
    let result = bundle::verify(&bundle, Expected { image: &moved, digest }, &public);
    assert!(matches!(result, Err(InvalidSignature::OtherImage)), "{result:?}");
}

#[test]
fn a_golden_bundle_without_a_name_is_none_for_an_image() {
    // cosign's own statement has the digest alone: it does not say which repository or tag is meant.
    let bundle = Bundle::parse(&compact(UNLOGGED)).unwrap();
    let (image, _) = image();
    let digest = sbs_crypto::digest(br#"{"schemaVersion":2}"#);
    let result = bundle::verify(&bundle, Expected { image: &image, digest }, &golden_key());
    assert!(matches!(result, Err(InvalidSignature::OtherImage)), "{result:?}");
}
