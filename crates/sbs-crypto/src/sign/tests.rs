use std::sync::LazyLock;

use super::*;
use crate::armor;
use crate::openssl::OpenSsl;
use crate::verify::SignatureInvalid;

// One key for all tests: making one takes most of a second in a debug build.
static RSA: LazyLock<ManifestSigningKey> =
    LazyLock::new(|| ManifestSigningKey::generate().unwrap());
static EC: LazyLock<ImageSigningKey> = LazyLock::new(|| ImageSigningKey::generate().unwrap());

const MESSAGE: &[u8] = b"a message of some length";

#[test]
fn manifest_signature_verifies_for_its_message_only() {
    let key = RSA.verifying_key();
    let signature = RSA.sign(MESSAGE).unwrap();
    assert_eq!(signature.len(), 384);
    let _proof = key.verify(MESSAGE, &signature).unwrap();
    assert_eq!(key.verify(b"another message", &signature).unwrap_err(), SignatureInvalid);
    assert_eq!(key.verify(b"", &signature).unwrap_err(), SignatureInvalid);
}

#[test]
fn image_signature_verifies_for_its_message_only() {
    let key = EC.verifying_key();
    let signature = EC.sign(MESSAGE).unwrap();
    let _proof = key.verify(MESSAGE, &signature).unwrap();
    assert_eq!(key.verify(b"another message", &signature).unwrap_err(), SignatureInvalid);
    assert_eq!(key.verify(b"", &signature).unwrap_err(), SignatureInvalid);
}

#[test]
fn refuses_signatures_of_another_key() {
    let other = ManifestSigningKey::generate().unwrap().verifying_key();
    assert_eq!(other.verify(MESSAGE, &RSA.sign(MESSAGE).unwrap()).unwrap_err(), SignatureInvalid);
    let other = ImageSigningKey::generate().unwrap().verifying_key();
    assert_eq!(other.verify(MESSAGE, &EC.sign(MESSAGE).unwrap()).unwrap_err(), SignatureInvalid);
    // The other kind of signature.
    assert_eq!(
        EC.verifying_key().verify(MESSAGE, &RSA.sign(MESSAGE).unwrap()).unwrap_err(),
        SignatureInvalid
    );
}

#[test]
fn refuses_manifest_signatures_with_any_bit_flipped() {
    let (key, signature) = (RSA.verifying_key(), RSA.sign(MESSAGE).unwrap());
    refuses_changes(&signature, |bytes| key.verify(MESSAGE, bytes).is_err());
}

#[test]
fn refuses_image_signatures_with_any_bit_flipped() {
    let (key, signature) = (EC.verifying_key(), EC.sign(MESSAGE).unwrap());
    refuses_changes(&signature, |bytes| key.verify(MESSAGE, bytes).is_err());
}

fn refuses_changes(signature: &[u8], is_refused: impl Fn(&[u8]) -> bool) {
    assert!(!is_refused(signature), "the unchanged signature is good");
    for bit in 0..signature.len() * 8 {
        let mut changed = signature.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(is_refused(&changed), "bit {bit} flipped");
    }
    for length in 0..signature.len() {
        assert!(is_refused(&signature[..length]), "cut to {length}");
    }
    assert!(is_refused(&[signature, b"\0"].concat()), "byte added");
}

#[test]
fn openssl_verifies_our_signatures() {
    let openssl = OpenSsl::new();
    openssl.write("message", MESSAGE);
    for (public, signature) in [
        (RSA.verifying_key().to_pem(), RSA.sign(MESSAGE).unwrap()),
        (EC.verifying_key().to_pem(), EC.sign(MESSAGE).unwrap()),
    ] {
        openssl.write("public.pem", public);
        openssl.write("signature", signature);
        let verdict = openssl.run("dgst -sha256 -verify public.pem -signature signature message");
        assert_eq!(verdict.unwrap().trim(), "Verified OK");
    }
}

#[test]
fn verifies_signatures_of_openssl_with_its_keys() {
    let openssl = OpenSsl::new();
    openssl.write("message", MESSAGE);
    let sign = |options: &str| {
        openssl.run(&format!("genpkey -out key.pem {options}")).unwrap();
        openssl.run("pkey -in key.pem -pubout -out public.pem").unwrap();
        openssl.run("dgst -sha256 -sign key.pem -out signature message").unwrap();
        (openssl.read_text("public.pem"), openssl.read("signature"))
    };
    for bits in [2048, 3072] {
        let (public, signature) = sign(&format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}"));
        let key = ManifestVerifyingKey::from_pem(&public).unwrap();
        let _proof = key.verify(MESSAGE, &signature).unwrap();
        assert_eq!(key.to_pem(), public);
    }
    let (public, signature) = sign("-algorithm EC -pkeyopt ec_paramgen_curve:P-256");
    let key = ImageVerifyingKey::from_pem(&public).unwrap();
    let _proof = key.verify(MESSAGE, &signature).unwrap();
    assert_eq!(key.to_pem(), public);
}

#[test]
fn verifies_the_committed_signatures() {
    // Made once with OpenSSL 3.0: `openssl dgst -sha256 -sign KEY data/message.txt`.
    let message = include_bytes!("../../tests/data/message.txt");
    let key =
        ManifestVerifyingKey::from_pem(include_str!("../../tests/data/rsa-3072.pub.pem")).unwrap();
    let _proof = key.verify(message, include_bytes!("../../tests/data/rsa-3072.sig")).unwrap();
    let key = ImageVerifyingKey::from_pem(include_str!("../../tests/data/p-256.pub.pem")).unwrap();
    let _proof = key.verify(message, include_bytes!("../../tests/data/p-256.sig")).unwrap();
}

#[test]
fn refuses_pss_and_other_digests() {
    let openssl = OpenSsl::new();
    openssl.write("message", MESSAGE);
    openssl.write("key.pem", armor::encode("PRIVATE KEY", &RSA.to_pkcs8_der()).as_bytes());
    for options in ["-sha512", "-sha256 -sigopt rsa_padding_mode:pss"] {
        openssl.run(&format!("dgst {options} -sign key.pem -out signature message")).unwrap();
        let verdict = RSA.verifying_key().verify(MESSAGE, &openssl.read("signature"));
        assert_eq!(verdict.unwrap_err(), SignatureInvalid, "{options}");
    }
}

#[test]
fn keys_survive_pkcs8() {
    let manifest = ManifestSigningKey::from_pkcs8_der(&RSA.to_pkcs8_der()).unwrap();
    assert_eq!(manifest.verifying_key().to_pem(), RSA.verifying_key().to_pem());
    let _proof = RSA.verifying_key().verify(MESSAGE, &manifest.sign(MESSAGE).unwrap()).unwrap();

    let image = ImageSigningKey::from_pkcs8_der(&EC.to_pkcs8_der()).unwrap();
    assert_eq!(image.verifying_key().to_pem(), EC.verifying_key().to_pem());
    let _proof = EC.verifying_key().verify(MESSAGE, &image.sign(MESSAGE).unwrap()).unwrap();
}

#[test]
fn openssl_reads_our_pkcs8() {
    let openssl = OpenSsl::new();
    for (der, expected) in
        [(RSA.to_pkcs8_der(), "3072 bit"), (EC.to_pkcs8_der(), "NIST CURVE: P-256")]
    {
        openssl.write("key.der", &*der);
        let text = openssl.run("pkey -inform DER -in key.der -check -text -noout").unwrap();
        assert!(text.contains("Key is valid") && text.contains(expected), "{expected}");
    }
}

#[test]
fn refuses_secret_keys_of_the_other_kind() {
    assert_eq!(
        ManifestSigningKey::from_pkcs8_der(&EC.to_pkcs8_der()).unwrap_err(),
        ParseKeyError::NotSupported
    );
    assert_eq!(
        ImageSigningKey::from_pkcs8_der(&RSA.to_pkcs8_der()).unwrap_err(),
        ParseKeyError::NotSupported
    );
}

#[test]
fn refuses_damaged_secret_keys() {
    let (rsa, ec) = (RSA.to_pkcs8_der(), EC.to_pkcs8_der());
    let cases = [Vec::new(), b"\x30\x00".to_vec(), vec![0x30; 100]];
    for der in &cases {
        ManifestSigningKey::from_pkcs8_der(der).unwrap_err();
        ImageSigningKey::from_pkcs8_der(der).unwrap_err();
    }
    for length in (0..rsa.len()).step_by(97) {
        assert!(ManifestSigningKey::from_pkcs8_der(&rsa[..length]).is_err(), "{length}");
    }
    for length in 0..ec.len() {
        assert!(ImageSigningKey::from_pkcs8_der(&ec[..length]).is_err(), "{length}");
    }
    ManifestSigningKey::from_pkcs8_der(&[&rsa[..], b"\0"].concat()).unwrap_err();
    ImageSigningKey::from_pkcs8_der(&[&ec[..], b"\0"].concat()).unwrap_err();
    let long = vec![0x30; MAX_PKCS8_BYTES + 1];
    assert_eq!(ManifestSigningKey::from_pkcs8_der(&long).unwrap_err(), ParseKeyError::TooLong);
    assert_eq!(ImageSigningKey::from_pkcs8_der(&long).unwrap_err(), ParseKeyError::TooLong);
}

#[test]
fn refuses_weak_rsa_keys() {
    let openssl = OpenSsl::new();
    for bits in [1024, 2040] {
        openssl
            .run(&format!("genpkey -out key.pem -algorithm RSA -pkeyopt rsa_keygen_bits:{bits}"))
            .unwrap();
        openssl.run("pkey -in key.pem -pubout -out public.pem").unwrap();
        openssl.run("pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der").unwrap();
        let public = ManifestVerifyingKey::from_pem(&openssl.read_text("public.pem"));
        assert_eq!(public.unwrap_err(), ParseKeyError::WrongSize { bits }, "{bits}");
        assert!(ManifestSigningKey::from_pkcs8_der(&openssl.read("key.der")).is_err(), "{bits}");
    }
}

#[test]
fn refuses_public_keys_of_another_kind_or_form() {
    let openssl = OpenSsl::new();
    let (rsa, ec) = (RSA.verifying_key().to_pem(), EC.verifying_key().to_pem());
    assert_eq!(ManifestVerifyingKey::from_pem(&ec).unwrap_err(), ParseKeyError::NotSupported);
    assert_eq!(ImageVerifyingKey::from_pem(&rsa).unwrap_err(), ParseKeyError::NotSupported);

    // The same keys in forms that the library below would take.
    openssl.write("rsa.pem", &rsa);
    openssl.write("ec.pem", &ec);
    let pkcs1 = openssl.run("rsa -pubin -in rsa.pem -RSAPublicKey_out").unwrap();
    assert_eq!(ManifestVerifyingKey::from_pem(&pkcs1).unwrap_err(), ParseKeyError::NotPem);
    let disguised = pkcs1.replace("RSA PUBLIC KEY", "PUBLIC KEY");
    assert_eq!(
        ManifestVerifyingKey::from_pem(&disguised).unwrap_err(),
        ParseKeyError::NotSupported
    );
    let compressed = openssl.run("ec -pubin -in ec.pem -conv_form compressed").unwrap();
    assert_eq!(ImageVerifyingKey::from_pem(&compressed).unwrap_err(), ParseKeyError::NotSupported);

    openssl.run("genpkey -out key.pem -algorithm EC -pkeyopt ec_paramgen_curve:P-384").unwrap();
    let p384 = openssl.run("pkey -in key.pem -pubout").unwrap();
    assert_eq!(ImageVerifyingKey::from_pem(&p384).unwrap_err(), ParseKeyError::NotSupported);
}

#[test]
fn refuses_secret_keys_where_public_ones_belong() {
    let secret = armor::encode("PRIVATE KEY", &RSA.to_pkcs8_der());
    assert_eq!(ManifestVerifyingKey::from_pem(&secret).unwrap_err(), ParseKeyError::NotPem);
}

#[test]
fn refuses_public_keys_over_the_limit() {
    let pem = EC.verifying_key().to_pem();
    let fitting = " ".repeat(armor::MAX_BYTES - pem.len()) + &pem;
    ImageVerifyingKey::from_pem(&fitting).unwrap();
    let error = ImageVerifyingKey::from_pem(&(fitting + "\n")).unwrap_err();
    assert_eq!(error, ParseKeyError::NotPem);
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?} {:?}", *RSA, *EC), "ManifestSigningKey ImageSigningKey");
}
