use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::openpgp::OpenPgpVerifier;

use super::*;

// One set for all tests: making keys takes a good part of a second in a debug build.
static KEYS: LazyLock<DefinitionKeys> = LazyLock::new(|| {
    let mut keys = DefinitionKeys::generate(at()).unwrap();
    keys.rotate(KeyRole::Image, at()).unwrap();
    keys.set_notary("registry.example/ns/app", Zeroizing::new(b"keys at a notary".to_vec()));
    keys
});

const FIRST: &[u8] = include_bytes!("../../tests/data/definition-keys-v1.json");
const SECOND: &[u8] = include_bytes!("../../tests/data/definition-keys-v2.json");

fn at() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap()
}

fn record() -> String {
    String::from_utf8(KEYS.to_record().to_vec()).unwrap()
}

fn load(record: &[u8]) -> Result<DefinitionKeys, ParseRecordError> {
    DefinitionKeys::from_record(record, at()).map(|loaded| loaded.keys)
}

fn error(record: &str) -> ParseRecordError {
    load(record.as_bytes()).unwrap_err()
}

fn is_malformed(record: &str) -> bool {
    matches!(error(record), ParseRecordError::Malformed)
}

#[test]
fn keys_survive_their_record() {
    let loaded = DefinitionKeys::from_record(&KEYS.to_record(), at()).unwrap();
    assert!(!loaded.made);
    let keys = loaded.keys;
    let signature = keys.manifest().current.sign(b"message").unwrap();
    let manifest = KEYS.manifest().current.verifying_key();
    let _proof = manifest.verify(b"message", &signature).unwrap();
    for (before, after) in [(KEYS.image(), keys.image()), (KEYS.attestation(), keys.attestation())]
    {
        for (before, after) in before.keys().zip(after.keys()) {
            let signature = after.sign(b"message").unwrap();
            let _proof = before.verifying_key().verify(b"message", &signature).unwrap();
        }
    }
    let certificate = KEYS.openpgp().current.to_armored_certificate();
    let verifier = OpenPgpVerifier::parse(certificate.as_bytes(), at()).unwrap();
    let message = keys.openpgp().current.sign_message(b"message", at()).unwrap();
    assert_eq!(verifier.verify_message(&message).unwrap().payload(), b"message");
    assert_eq!(keys.notary("registry.example/ns/app"), Some(&b"keys at a notary"[..]));
    assert_eq!(keys.notary("registry.example/ns/other"), None);
    assert_eq!(*keys.to_record(), *KEYS.to_record());
}

#[test]
fn reads_the_committed_records() {
    // Frozen: records of these schemas must be readable for ever.
    let first = DefinitionKeys::from_record(FIRST, at()).unwrap();
    assert_eq!(
        first.keys.image().current.verifying_key().to_pem(),
        include_str!("../../tests/data/definition-keys-v1.image.pem")
    );
    assert_eq!(
        first.keys.manifest().current.verifying_key().to_pem(),
        include_str!("../../tests/data/definition-keys-v1.manifest.pem")
    );
    assert!(first.made);
    assert!(first.keys.image().retiring.is_none());

    let second = DefinitionKeys::from_record(SECOND, at()).unwrap();
    assert!(!second.made);
    let fingerprint = second.keys.openpgp().current.fingerprint();
    assert_eq!(
        fingerprint.as_str(),
        include_str!("../../tests/data/definition-keys-v2.fingerprint.txt").trim_end()
    );
    assert!(second.keys.image().retiring.is_some());
    assert_eq!(*second.keys.to_record(), *SECOND);
}

#[test]
fn an_older_record_gets_the_keys_that_it_lacks() {
    let (one, other) = (load(FIRST).unwrap(), load(FIRST).unwrap());
    let attestation = |keys: &DefinitionKeys| keys.attestation().current.verifying_key().to_pem();
    let image = |keys: &DefinitionKeys| keys.image().current.verifying_key().to_pem();
    assert_eq!(image(&one), image(&other));
    assert_ne!(attestation(&one), attestation(&other));
    assert_ne!(attestation(&one), image(&one));
    let again = DefinitionKeys::from_record(&one.to_record(), at()).unwrap();
    assert!(!again.made);
    assert_eq!(attestation(&again.keys), attestation(&one));
}

#[test]
fn a_key_that_is_rotated_signs_until_it_is_retired() {
    let mut keys = load(&KEYS.to_record()).unwrap();
    let fingerprint = |keys: &Rotation<OpenPgpSigningKey>| {
        keys.keys().map(|key| key.fingerprint().to_string()).collect::<Vec<_>>()
    };
    let before = fingerprint(keys.openpgp());
    assert!(matches!(keys.retire(KeyRole::OpenPgp), Err(RotateKeyError::NotRotating)));
    keys.rotate(KeyRole::OpenPgp, at()).unwrap();
    let during = fingerprint(keys.openpgp());
    assert_eq!(during.get(1..), Some(&before[..]));
    assert_ne!(during.first(), before.first());
    assert!(matches!(keys.rotate(KeyRole::OpenPgp, at()), Err(RotateKeyError::NotRetired)));
    assert_eq!(fingerprint(keys.openpgp()), during);
    keys.retire(KeyRole::OpenPgp).unwrap();
    assert_eq!(fingerprint(keys.openpgp()), during[..1]);
    for role in [KeyRole::Attestation, KeyRole::Manifest] {
        keys.rotate(role, at()).unwrap();
        keys.retire(role).unwrap();
    }
    keys.retire(KeyRole::Image).unwrap();
}

#[test]
fn writes_into_one_buffer() {
    let record = KEYS.to_record();
    assert!(record.capacity() - record.len() < 1024, "{}", record.capacity() - record.len());
    assert!(record.starts_with(br#"{"schema":2,"attestation":{"current":"MI"#));
}

#[test]
fn every_key_is_another() {
    let other = DefinitionKeys::generate(at()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for keys in [&*KEYS, &other] {
        let points = keys.image().keys().chain(keys.attestation().keys());
        for key in points {
            assert!(seen.insert(key.verifying_key().to_pem()));
        }
        assert!(seen.insert(keys.manifest().current.verifying_key().to_pem()));
        assert!(seen.insert(keys.openpgp().current.to_armored_certificate()));
    }
}

#[test]
fn refuses_another_schema_by_its_number() {
    for (number, expected) in [("0", 0), ("3", 3), ("4294967295", u32::MAX)] {
        let changed = record().replace(r#""schema":2"#, &format!(r#""schema":{number}"#));
        let ParseRecordError::UnsupportedSchema { got } = error(&changed) else { panic!() };
        assert_eq!(got, expected);
    }
    let future = r#"{"schema":3,"keys":[]}"#;
    assert!(matches!(error(future), ParseRecordError::UnsupportedSchema { got: 3 }));
}

#[test]
fn refuses_records_of_another_shape() {
    let good = record();
    for bad in [
        String::new(),
        "{}".to_owned(),
        "[1]".to_owned(),
        "null".to_owned(),
        good.replace(r#""schema":2,"#, ""),
        good.replace(r#""schema":2"#, r#""schema":1"#),
        good.replace(r#""schema":2"#, r#""schema":"2""#),
        good.replace(r#""schema":2"#, r#""schema":2,"schema":2"#),
        good.replace(r#""schema":2"#, r#""schema":-1"#),
        good.replace(r#""schema":2"#, r#""schema":2,"extra":0"#),
        good.replace(r#""image""#, r#""imagE""#),
        good.replace(r#""retiring""#, r#""retired""#),
        good.replace(r#""image":{"current":"M"#, r#""image":{"current":"\u004d"#),
        good.replace(r#""image":{"current":"M"#, r#""image":{"current":"!"#),
        good.replace(r#""image":{"#, r#""image":{},"image":{"#),
        good.replace(r#""notary":{"#, r#""notary":{"x":"!","#),
        format!("{good}x"),
        format!("{good}{good}"),
    ] {
        assert_ne!(bad, good);
        assert!(is_malformed(&bad), "{}", bad.len());
    }
}

#[test]
fn refuses_every_prefix() {
    let good = record();
    for length in (0..good.len()).step_by(7) {
        assert!(is_malformed(good.get(..length).unwrap()), "{length}");
    }
}

#[test]
fn refuses_keys_in_the_place_of_others() {
    let swap = |one: &str, other: &str| {
        let text = record().replace(&format!(r#""{one}":"#), r#""x":"#);
        let text = text.replace(&format!(r#""{other}":"#), &format!(r#""{one}":"#));
        error(&text.replace(r#""x":"#, &format!(r#""{other}":"#)))
    };
    assert!(matches!(swap("image", "manifest"), ParseRecordError::ImageKey(_)));
    assert!(matches!(swap("attestation", "openpgp"), ParseRecordError::AttestationKey(_)));
    assert!(matches!(swap("openpgp", "manifest"), ParseRecordError::ManifestKey(_)));
    let image = STANDARD.encode(&*KEYS.image().current.to_pkcs8_der());
    let openpgp = STANDARD.encode(&*KEYS.openpgp().current.to_bytes());
    let bad = record().replace(&openpgp, &image);
    assert!(matches!(error(&bad), ParseRecordError::OpenPgpKey(_)));
}

#[test]
fn reads_up_to_the_limit() {
    let good = record();
    let fitting = good.clone() + &" ".repeat(256 * 1024 - good.len());
    load(fitting.as_bytes()).unwrap();
    assert!(matches!(error(&(fitting + " ")), ParseRecordError::TooLong));
}

#[test]
fn errors_and_debug_show_no_key() {
    assert_eq!(format!("{:?}", *KEYS), "DefinitionKeys");
    let canary = r#"{"schema":1,"image":"canary canary","manifest":"canary"}"#;
    for bad in [canary, r#"{"schema":"canary"}"#, r#"{"schema":2,"canary":0}"#] {
        let error = error(bad);
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}
