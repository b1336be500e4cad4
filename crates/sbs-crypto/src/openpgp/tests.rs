//! `GnuPG` judges what is written here, and writes what is judged here.

use std::sync::OnceLock;

use proptest::test_runner::{Config, TestRunner};
use sequoia_openpgp::Packet;
use sequoia_openpgp::packet::{Literal, Marker};
use sequoia_openpgp::serialize::SerializeInto as _;
use time::OffsetDateTime;
use time::macros::{date, datetime};

use super::gpg::Gpg;
use super::*;

const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);
const PAYLOAD: &[u8] = b"{\"critical\":\"a payload\"}\r\n\0\xff";

/// A public key of another maker: RSA-2048, all of it expires at the same moment.
const EXPIRING: &[u8] = include_bytes!("../../tests/data/openpgp/expires-2026-11-15.asc");

fn signing_key() -> &'static OpenPgpSigningKey {
    static KEY: OnceLock<OpenPgpSigningKey> = OnceLock::new();
    KEY.get_or_init(|| OpenPgpSigningKey::generate("build server <sbs@example.com>", NOW).unwrap())
}

fn decryption_key() -> &'static OpenPgpDecryptionKey {
    static KEY: OnceLock<OpenPgpDecryptionKey> = OnceLock::new();
    KEY.get_or_init(|| OpenPgpDecryptionKey::generate("recipient", NOW).unwrap())
}

fn verifier() -> OpenPgpVerifier {
    verifier_of(signing_key().to_armored_certificate().as_bytes())
}

fn verifier_of(certificates: &[u8]) -> OpenPgpVerifier {
    OpenPgpVerifier::parse(certificates, NOW).unwrap()
}

fn recipient() -> OpenPgpRecipient {
    OpenPgpRecipient::parse(decryption_key().to_armored_certificate().as_bytes(), NOW).unwrap()
}

#[test]
fn gpg_verifies_what_is_signed_here() {
    let gpg = Gpg::new();
    let key = signing_key();
    gpg.run("--import", key.to_armored_certificate().as_bytes()).unwrap();
    let message = key.sign_message(PAYLOAD, NOW).unwrap();
    assert_eq!(message.first(), Some(&0xc4), "a one-pass signature, not compressed, not armored");

    let (payload, says) = gpg.run("--decrypt", &message).unwrap();
    assert_eq!(payload, PAYLOAD);
    assert!(says.contains("Good signature from \"build server <sbs@example.com>\""), "{says}");
    let (packets, _) = gpg.run("--list-packets", &message).unwrap();
    let packets = String::from_utf8_lossy(&packets);
    let kinds: Vec<_> = packets.lines().filter(|line| line.starts_with(':')).collect();
    assert_eq!(kinds.len(), 3, "{packets}");

    let (colons, _) = gpg.run("--with-colons --fingerprint --list-keys", b"").unwrap();
    let colons = String::from_utf8_lossy(&colons);
    let public: Vec<_> = colons.lines().filter(|line| line.starts_with("pub:")).collect();
    let fields: Vec<_> = public.first().unwrap().split(':').collect();
    // doc/DETAILS of GnuPG: length, algorithm (1 is RSA), expiry, capabilities.
    assert_eq!((fields[2], fields[3], fields[6], fields[11]), ("3072", "1", "", "scSC"));
    assert!(!colons.contains("\nsub:"), "{colons}");
    assert!(colons.contains(key.fingerprint().as_str()), "{colons}");
}

#[test]
fn what_gpg_signs_is_verified() {
    let gpg = Gpg::new();
    for (name, options, sign) in [
        ("a", "rsa2048 sign never", "--sign"),
        ("b", "rsa3072 sign never", "--sign --compress-algo none"),
        ("c", "ed25519 sign never", "--sign --compress-algo zlib"),
        ("d", "rsa4096 sign never", "--sign --compress-algo bzip2"),
        ("e", "nistp256 sign never", "--sign --digest-algo SHA384"),
    ] {
        let certificate = gpg.generate(name, options, "");
        let (message, _) = gpg.run(&format!("{sign} --local-user {name}"), PAYLOAD).unwrap();
        let verifier = verifier_of(&certificate);
        let verified = verifier.verify_message(&message).unwrap();
        assert_eq!(verified.payload(), PAYLOAD);
        assert_eq!(verified.signed_at(), NOW);
        assert_eq!(verified.certificate(), verified.key());
        assert_eq!([verified.certificate().clone()].as_slice(), verifier.certificates());
    }
}

#[test]
fn a_message_is_known_by_its_first_byte_as_containers_image_does() {
    // Compressed data (8), one-pass signature (4), signature (2): RFC 9580, 4.2.
    let new = [8, 4, 2].map(|tag| 0xc0 | tag);
    let old =
        [8, 4, 2].into_iter().flat_map(|tag| (0..4).map(move |length| 0x80 | tag << 2 | length));
    let known: Vec<u8> = new.into_iter().chain(old).filter(|first| *first != 0x93).collect();
    for first in 0..=u8::MAX {
        assert_eq!(begins_like_a_signed_message(&[first]), known.contains(&first), "{first:#x}");
    }
    assert!(!begins_like_a_signed_message(&[]));
}

#[test]
fn a_subkey_signs_for_its_certificate() {
    let gpg = Gpg::new();
    gpg.generate("a", "rsa2048 cert never", "");
    let (colons, _) = gpg.run("--with-colons --list-keys", b"").unwrap();
    let colons = String::from_utf8_lossy(&colons).into_owned();
    let primary = colons.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    let primary = primary.trim_end_matches(':');
    gpg.run(&format!("--quick-add-key {primary} rsa2048 sign 2026-07-01"), b"").unwrap();
    let (certificate, _) = gpg.run("--export a", b"").unwrap();
    let (message, _) = gpg.run("--sign", PAYLOAD).unwrap();

    let verified = verifier_of(&certificate).verify_message(&message).unwrap();
    assert_eq!(verified.certificate().as_str(), primary);
    assert_ne!(verified.key().as_str(), primary);

    // The certificate itself does not expire; nothing else in it may sign.
    let late = OpenPgpVerifier::parse(&certificate, datetime!(2026-07-02 00:00 UTC)).unwrap_err();
    let ParseCertificateError::Unusable { why, .. } = late else { panic!("{late}") };
    assert_eq!(why, Unusable::Expired(date!(2026 - 07 - 01)));

    // With a new subkey the certificate is good again, and what the old one signed is not.
    gpg.run(&format!("--quick-add-key {primary} rsa2048 sign never"), b"").unwrap();
    let (certificate, _) = gpg.run("--export a", b"").unwrap();
    let late = OpenPgpVerifier::parse(&certificate, datetime!(2026-07-02 00:00 UTC)).unwrap();
    assert_eq!(late.verify_message(&message).unwrap_err(), VerifyMessageError::Invalid);
}

#[test]
fn r8_no_flipped_bit_changes_a_payload() {
    let verifier = verifier();
    let message = signing_key().sign_message(PAYLOAD, NOW).unwrap();
    let mut refused = 0;
    for (index, bit) in (0..message.len()).flat_map(|index| [(index, 0), (index, 7)]) {
        let mut bad = message.clone();
        bad[index] ^= 1 << bit;
        // The head of the literal packet and the hint at the key are under no signature.
        match verifier.verify_message(&bad) {
            Ok(verified) => assert_eq!(verified.payload(), PAYLOAD, "byte {index}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > message.len(), "{refused} of {} refused", 2 * message.len());
    for length in 0..message.len() {
        assert!(verifier.verify_message(&message[..length]).is_err(), "{length}");
    }
}

#[test]
fn r8_other_forms_of_messages_are_refused() {
    let gpg = Gpg::new();
    let certificate = gpg.generate("a", "rsa2048 sign never", "");
    gpg.generate("b", "rsa2048 sign never", "");
    let verifier = verifier_of(&certificate);
    let sign = |options: &str| gpg.run(&format!("{options} --local-user a"), PAYLOAD).unwrap().0;
    let plain = sign("--sign --compress-algo none");
    verifier.verify_message(&plain).unwrap();

    let literal = |bytes: &[u8]| {
        let mut literal = Literal::new(sequoia_openpgp::types::DataFormat::Binary);
        literal.set_body(bytes.to_vec());
        Packet::from(literal).to_vec().unwrap()
    };
    let marker = Packet::from(Marker::default()).to_vec().unwrap();
    let (stored, _) = gpg.run("--store --compress-algo none", PAYLOAD).unwrap();
    for (what, message) in [
        ("armored", sign("--sign --armor")),
        ("cleartext", sign("--clear-sign")),
        ("detached", sign("--detach-sign")),
        ("two signers", sign("--sign --compress-algo none --local-user b")),
        ("signed twice", gpg.run("--sign --compress-algo none --local-user a", &plain).unwrap().0),
        ("no signature", literal(PAYLOAD)),
        ("no signature, by gpg", stored),
        ("a second payload", [plain.clone(), literal(b"x")].concat()),
        ("a second message", [plain.clone(), plain.clone()].concat()),
        ("a payload before", [literal(b"x"), plain.clone()].concat()),
        ("bytes behind", [plain.clone(), b"x".to_vec()].concat()),
        ("empty", Vec::new()),
        ("a certificate", certificate.clone()),
        ("a marker", marker),
    ] {
        let result = verifier.verify_message(&message);
        // What is signed as a whole holds a message as its payload, which is not what was signed.
        match result {
            Ok(verified) => {
                assert_eq!(what, "signed twice");
                assert_eq!(verified.payload(), plain);
            }
            Err(why) => assert_eq!(why, VerifyMessageError::NotAMessage, "{what}"),
        }
    }
    let weak = sign("--sign --digest-algo SHA1 --compress-algo none");
    assert_eq!(verifier.verify_message(&weak).unwrap_err(), VerifyMessageError::Invalid);
}

#[test]
fn r8_keys_that_must_not_count_are_named() {
    let gpg = Gpg::new();
    let good = gpg.generate("good", "rsa2048 sign never", "");
    let cases = [
        ("brief", "rsa2048 sign 2026-06-10", "expired on 2026-06-10"),
        ("short", "rsa1024 sign never", "too weak"),
        ("old", "rsa2048 sign never", "too weak"),
        ("other", "rsa2048 encr never", "no key that may sign"),
    ];
    let now = datetime!(2026-06-20 00:00 UTC);
    for (name, options, expected) in cases {
        let weak = if name == "old" { "--cert-digest-algo SHA1" } else { "" };
        let bad = gpg.generate(name, options, weak);
        let error = OpenPgpVerifier::parse(&bad, now).unwrap_err();
        assert!(matches!(error, ParseCertificateError::Unusable { .. }), "{name}: {error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{name}: {error}");
        if name == "other" {
            continue;
        }

        // Beside a good one it is not used, and whoever signs with it is told why.
        let both = OpenPgpVerifier::parse(&[good.clone(), bad].concat(), now).unwrap();
        assert_eq!((both.certificates().len(), both.refused().len()), (1, 1));
        let (message, _) = gpg.run(&format!("--sign --local-user {name}"), PAYLOAD).unwrap();
        let error = both.verify_message(&message).unwrap_err();
        assert!(matches!(error, VerifyMessageError::Refused { .. }), "{name}: {error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_revoked_key_is_refused() {
    let gpg = Gpg::new();
    let certificate = gpg.generate("a", "rsa2048 sign never", "");
    let (message, _) = gpg.run("--sign", PAYLOAD).unwrap();
    verifier_of(&certificate).verify_message(&message).unwrap();

    let prepared = std::fs::read_dir(gpg.path().join("openpgp-revocs.d")).unwrap();
    let prepared = prepared.map(|entry| entry.unwrap().path()).next().unwrap();
    let revocation =
        std::fs::read_to_string(prepared).unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.run("--import", revocation.as_bytes()).unwrap();
    let (revoked, _) = gpg.run("--export a", b"").unwrap();
    let error = OpenPgpVerifier::parse(&revoked, NOW).unwrap_err();
    assert!(error.to_string().contains("revoked on 2026-06-01"), "{error}");
}

#[test]
fn a_signature_by_another_key_is_told_from_a_bad_one() {
    let gpg = Gpg::new();
    gpg.generate("a", "rsa2048 sign never", "");
    let (message, _) = gpg.run("--sign", PAYLOAD).unwrap();
    let error = verifier().verify_message(&message).unwrap_err();
    let VerifyMessageError::UnknownKey { issuer } = error else { panic!("{error}") };
    let (keys, _) = gpg.run("--with-colons --fingerprint --list-keys", b"").unwrap();
    assert!(String::from_utf8_lossy(&keys).contains(&issuer), "{issuer}");
}

#[test]
fn a_signature_from_the_future_is_refused() {
    let late = NOW + time::Duration::hours(1);
    let message = signing_key().sign_message(PAYLOAD, late).unwrap();
    assert_eq!(verifier().verify_message(&message).unwrap_err(), VerifyMessageError::Invalid);
    // The clock of another machine may be ahead a little.
    let soon = NOW + time::Duration::minutes(4);
    let ahead = signing_key().sign_message(PAYLOAD, soon).unwrap();
    assert_eq!(verifier().verify_message(&ahead).unwrap().signed_at(), soon);
    let certificate = signing_key().to_armored_certificate();
    let then = OpenPgpVerifier::parse(certificate.as_bytes(), late).unwrap();
    assert_eq!(then.verify_message(&message).unwrap().signed_at(), late);

    let early = NOW - time::Duration::hours(1);
    let error = OpenPgpVerifier::parse(certificate.as_bytes(), early).unwrap_err();
    assert!(error.to_string().contains("valid from 2026-06-01 on"), "{error}");
    let error = signing_key().sign_message(PAYLOAD, early).unwrap_err();
    assert!(matches!(error, SignMessageError::Unusable(Unusable::NotYetValid(_))), "{error}");
}

#[test]
fn a_certificate_expires_to_the_second() {
    let before = datetime!(2026-11-15 11:59:59 UTC);
    OpenPgpRecipient::parse(EXPIRING, before).unwrap().encrypt(PAYLOAD, before).unwrap();
    let after = datetime!(2026-11-15 12:00:01 UTC);
    let error = OpenPgpRecipient::parse(EXPIRING, after).unwrap_err();
    assert_eq!(
        error.to_string(),
        "OpenPGP certificate 68308EFC34880986E5F32E591BEA4515C279F44A `isv_user` cannot be used: \
         it expired on 2026-11-15; ask its owner for a newer one"
    );
    let recipient = OpenPgpRecipient::parse(EXPIRING, before).unwrap();
    let error = recipient.encrypt(PAYLOAD, after).unwrap_err();
    assert!(matches!(error, EncryptError::Recipient { .. }), "{error}");
}

#[test]
fn gpg_decrypts_and_verifies_what_is_encrypted_here() {
    let gpg = Gpg::new();
    gpg.generate("reader", "rsa2048 default never", "");
    let (colons, _) = gpg.run("--with-colons --list-keys", b"").unwrap();
    let colons = String::from_utf8_lossy(&colons).into_owned();
    let primary = colons.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    let primary = primary.trim_end_matches(':');
    let (no_subkey, _) = gpg.run("--export reader", b"").unwrap();
    let error = OpenPgpRecipient::parse(&no_subkey, NOW).unwrap_err();
    assert!(error.to_string().contains("no key that may encrypt"), "{error}");

    gpg.run(&format!("--quick-add-key {primary} rsa2048 encr never"), b"").unwrap();
    let (certificate, _) = gpg.run("--export --armor reader", b"").unwrap();
    gpg.run("--import", signing_key().to_armored_certificate().as_bytes()).unwrap();
    let reader = OpenPgpRecipient::parse(&certificate, NOW).unwrap();
    assert_eq!(reader.fingerprint().as_str(), primary);

    let signed = reader.encrypt_and_sign(PAYLOAD, signing_key(), NOW).unwrap();
    assert!(signed.starts_with("-----BEGIN PGP MESSAGE-----\n"), "{signed}");
    let (payload, says) = gpg.run("--decrypt", signed.as_bytes()).unwrap();
    assert_eq!(payload, PAYLOAD);
    assert!(says.contains("Good signature from \"build server <sbs@example.com>\""), "{says}");

    let unsigned = reader.encrypt(PAYLOAD, NOW).unwrap();
    let (payload, says) = gpg.run("--decrypt", unsigned.as_bytes()).unwrap();
    assert_eq!(payload, PAYLOAD);
    assert!(!says.contains("signature"), "{says}");
}

#[test]
fn what_gpg_encrypts_is_decrypted() {
    let gpg = Gpg::new();
    let key = decryption_key();
    gpg.run("--import", key.to_armored_certificate().as_bytes()).unwrap();
    let signer = verifier_of(&gpg.generate("writer", "rsa2048 sign never", ""));
    let encrypt = |options: &str| {
        gpg.run(&format!("--encrypt --recipient recipient {options}"), PAYLOAD).unwrap().0
    };
    for options in ["", "--armor", "--compress-algo none", "--compress-algo bzip2"] {
        let message = encrypt(options);
        assert_eq!(key.decrypt(&message, NOW).unwrap().as_slice(), PAYLOAD, "{options}");
        let missing = DecryptError::Signature(VerifyMessageError::NotAMessage);
        assert_eq!(key.decrypt_and_verify(&message, &signer).unwrap_err(), missing);

        let message = encrypt(&format!("{options} --sign"));
        assert_eq!(key.decrypt_and_verify(&message, &signer).unwrap().as_slice(), PAYLOAD);
        assert_eq!(key.decrypt(&message, NOW).unwrap().as_slice(), PAYLOAD);
        let error = key.decrypt_and_verify(&message, &verifier()).unwrap_err();
        let DecryptError::Signature(VerifyMessageError::UnknownKey { .. }) = error else {
            panic!("{error:?}")
        };
    }

    // Without the protection against changes nothing is decrypted.
    let bare = encrypt("--disable-mdc --rfc2440 --cipher-algo AES256");
    assert_eq!(key.decrypt(&bare, NOW).unwrap_err(), DecryptError::Rejected);
    gpg.generate("other", "rsa2048 encr never", "");
    let (other, _) = gpg.run("--encrypt --recipient other", PAYLOAD).unwrap();
    assert_eq!(key.decrypt(&other, NOW).unwrap_err(), DecryptError::Rejected);
    let (signed, _) = gpg.run("--sign --local-user writer", PAYLOAD).unwrap();
    assert_eq!(key.decrypt(&signed, NOW).unwrap_err(), DecryptError::Rejected);
}

#[test]
fn r8_an_encrypted_message_is_decrypted_whole_or_not() {
    let key = decryption_key();
    let text = recipient().encrypt_and_sign(PAYLOAD, signing_key(), NOW).unwrap();
    assert_eq!(key.decrypt_and_verify(text.as_bytes(), &verifier()).unwrap().as_slice(), PAYLOAD);
    let gpg = Gpg::new();
    let (binary, _) = gpg.run("--dearmor", text.as_bytes()).unwrap();
    for index in (0..binary.len()).step_by(7) {
        let mut bad = binary.clone();
        bad[index] ^= 1;
        // The hint at the key is under no protection.
        if let Ok(payload) = key.decrypt_and_verify(&bad, &verifier()) {
            assert_eq!(payload.as_slice(), PAYLOAD, "byte {index}");
        }
        let cut = key.decrypt(&binary[..index], NOW).unwrap_err();
        assert_eq!(cut, DecryptError::Rejected);
    }
    let behind = [binary, b"x".to_vec()].concat();
    assert_eq!(key.decrypt(&behind, NOW).unwrap_err(), DecryptError::Rejected);
}

#[test]
fn secret_keys_are_kept_as_bytes() {
    let (signing, decryption) = (signing_key(), decryption_key());
    let again = OpenPgpSigningKey::from_bytes(&signing.to_bytes()).unwrap();
    assert_eq!(again.fingerprint(), signing.fingerprint());
    assert_eq!(*again.to_bytes(), *signing.to_bytes());
    verifier().verify_message(&again.sign_message(PAYLOAD, NOW).unwrap()).unwrap();
    let again = OpenPgpDecryptionKey::from_bytes(&decryption.to_bytes()).unwrap();
    let message = recipient().encrypt(PAYLOAD, NOW).unwrap();
    assert_eq!(again.decrypt(message.as_bytes(), NOW).unwrap().as_slice(), PAYLOAD);

    // A key for one thing does not do the other.
    let bytes = decryption.to_bytes();
    let wrong = OpenPgpSigningKey::from_bytes(&bytes).unwrap();
    let error = wrong.sign_message(PAYLOAD, NOW).unwrap_err();
    assert_eq!(error, SignMessageError::Unusable(Unusable::NoKey("sign")));

    let public = signing.to_armored_certificate();
    let error = OpenPgpSigningKey::from_bytes(public.as_bytes()).unwrap_err();
    assert_eq!(error, ParseOpenPgpKeyError::NoSecret);
    let error = OpenPgpVerifier::parse(&signing.to_bytes(), NOW).unwrap_err();
    assert_eq!(error, ParseCertificateError::SecretKey);
    let gpg = Gpg::new();
    gpg.run("--passphrase=x --quick-generate-key locked rsa2048 sign never", b"").unwrap();
    let (locked, _) = gpg.run("--passphrase=x --export-secret-keys locked", b"").unwrap();
    let error = OpenPgpSigningKey::from_bytes(&locked).unwrap_err();
    assert_eq!(error, ParseOpenPgpKeyError::Locked);

    let shown = format!("{signing:?} {decryption:?}");
    assert_eq!(shown, "OpenPgpSigningKey OpenPgpDecryptionKey");
    assert!(!public.contains("Comment"), "{public}");
}

#[test]
fn a_user_id_is_short_printable_text() {
    for bad in ["", "a\nb", "a\0", "\u{1b}[2K", &"x".repeat(201)] {
        let error = OpenPgpSigningKey::generate(bad, NOW).unwrap_err();
        assert_eq!(error, GenerateOpenPgpKeyError::UserId, "{bad:?}");
    }
}

#[test]
fn many_certificates_are_one_file() {
    let gpg = Gpg::new();
    gpg.generate("a", "ed25519 sign never", "");
    gpg.generate("b", "ed25519 sign never", "");
    let (one_block, _) = gpg.run("--export --armor", b"").unwrap();
    let armored = |name: &str| gpg.run(&format!("--export --armor {name}"), b"").unwrap().0;
    let blocks = [b"# our keys\n".to_vec(), armored("a"), b"\n".to_vec(), armored("b")].concat();
    for file in [&one_block, &blocks] {
        assert_eq!(verifier_of(file).certificates().len(), 2);
        let error = OpenPgpRecipient::parse(file, NOW).unwrap_err();
        assert_eq!(error, ParseCertificateError::TooMany { count: 2, max: 1 });
    }
    let error = OpenPgpVerifier::parse(&armored("a").repeat(33), NOW).unwrap_err();
    assert_eq!(error, ParseCertificateError::TooMany { count: 33, max: 32 });
}

/// RUSTSEC-2023-0038 and RUSTSEC-2024-0345 were inputs that the library did not come back from.
#[test]
fn r8_malformed_input_is_an_error() {
    let good = signing_key().to_armored_certificate();
    let message = signing_key().sign_message(PAYLOAD, NOW).unwrap();
    let frame = |body: &str| {
        format!(
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{body}\n-----END PGP PUBLIC KEY BLOCK-----\n"
        )
    };
    let compressed_within = |depth: usize| {
        // Compressed data (tag 8, of indefinite length) with algorithm 0, which is none.
        [[0xa3, 0x00].repeat(depth), message.clone()].concat()
    };
    let bomb = {
        let gpg = Gpg::new();
        gpg.generate("a", "ed25519 sign never", "");
        let zeros = vec![0; 16 * 1024 * 1024];
        gpg.run("--sign --compress-algo bzip2 --digest-algo SHA256", &zeros).unwrap().0
    };
    assert!(bomb.len() < MAX_SIGNED_BYTES);
    let corpus: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----".to_vec(),
        frame("").into_bytes(),
        frame("=").into_bytes(),
        frame(&"A".repeat(1000)).into_bytes(),
        frame(&"A".repeat(MAX_CERTIFICATE_BYTES)).into_bytes(),
        frame(&"QUFB\n".repeat(MAX_CERTIFICATE_BYTES / 6)).into_bytes(),
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n".repeat(20_000).into_bytes(),
        frame(&"Comment: x\n".repeat(50_000)).into_bytes(),
        good.replace("-----END", "-----EMD").into_bytes(),
        good.replace("PUBLIC KEY", "MESSAGE").into_bytes(),
        good.as_bytes()[..good.len() / 2].to_vec(),
        vec![0xff; MAX_CERTIFICATE_BYTES],
        vec![0xc4; MAX_SIGNED_BYTES],
        vec![0x99; MAX_SIGNED_BYTES],
        [0xc2, 0x00].repeat(MAX_SIGNED_BYTES / 2),
        [0xcb, 0x00].repeat(MAX_SIGNED_BYTES / 2),
        // One-pass signatures of version 3, nested and never closed.
        [&[0xc4, 0x0d, 0x03, 0x00, 0x08, 0x01][..], &[0; 9]].concat().repeat(8000),
        // The longest packet that can be said.
        vec![0xc6, 0xff, 0xff, 0xff, 0xff, 0xff, 0x04],
        vec![0x99, 0xff, 0xff, 0x04],
        compressed_within(3),
        compressed_within(1000),
        compressed_within(50_000),
        bomb,
        [message.clone(), vec![0; MAX_SIGNED_BYTES]].concat(),
    ];
    for (index, input) in corpus.iter().enumerate() {
        refused_by_all(&format!("input {index}"), input);
    }
    let mut runner =
        TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let strategy = proptest::collection::vec(proptest::num::u8::ANY, 0..2000);
    let random = runner.run(&strategy, |mut input| {
        refused_by_all("random", &input);
        if let Some(first) = input.first_mut() {
            *first = 0xc4;
        }
        refused_by_all("random behind a one-pass signature's tag", &input);
        Ok(())
    });
    random.unwrap();
}

fn refused_by_all(what: &str, input: &[u8]) {
    assert!(verifier().verify_message(input).is_err(), "{what}");
    assert!(OpenPgpVerifier::parse(input, NOW).is_err(), "{what}");
    assert!(OpenPgpRecipient::parse(input, NOW).is_err(), "{what}");
    assert!(OpenPgpSigningKey::from_bytes(input).is_err(), "{what}");
    assert!(OpenPgpDecryptionKey::from_bytes(input).is_err(), "{what}");
    assert!(decryption_key().decrypt(input, NOW).is_err(), "{what}");
    assert!(decryption_key().decrypt_and_verify(input, &verifier()).is_err(), "{what}");
}
