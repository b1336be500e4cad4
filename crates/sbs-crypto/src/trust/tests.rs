use super::*;
use crate::openssl::OpenSsl;

const MESSAGE: &[u8] = b"a message of some length";

fn public(openssl: &OpenSsl) -> Vec<u8> {
    openssl.run("pkey -in key.pem -pubout -outform DER -out key.der").unwrap();
    openssl.read("key.der")
}

/// Turns an ECDSA signature in DER into `r || s`, by OpenSSL's own reading of it.
fn raw(openssl: &OpenSsl, file: &str) -> Vec<u8> {
    let text = openssl.run(&format!("asn1parse -inform DER -in {file}")).unwrap();
    let number = |line: &str| format!("{:0>64}", line.rsplit(':').next().unwrap().trim());
    let both: String = text.lines().filter(|line| line.contains("INTEGER")).map(number).collect();
    hex::decode(both).unwrap()
}

#[test]
fn signature_is_64_bytes_and_for_its_message_only() {
    let key = TrustSigningKey::generate().unwrap();
    let signature = key.sign(MESSAGE).unwrap();
    assert_eq!(signature.len(), 64);
    let public = TrustVerifyingKey::ecdsa_p256(key.verifying_key().as_spki_der()).unwrap();
    let _proof = public.verify(MESSAGE, &signature).unwrap();
    assert_eq!(public.verify(b"another", &signature).unwrap_err(), SignatureInvalid);
    for at in 0..signature.len() * 8 {
        let mut changed = signature.clone();
        changed[at / 8] ^= 1 << (at % 8);
        assert_eq!(public.verify(MESSAGE, &changed).unwrap_err(), SignatureInvalid, "{at}");
    }
    for wrong in [&signature[..63], &[&signature[..], &[0]].concat(), &[0; 64]] {
        assert_eq!(public.verify(MESSAGE, wrong).unwrap_err(), SignatureInvalid);
    }
    let other = TrustSigningKey::generate().unwrap().verifying_key();
    assert_eq!(other.verify(MESSAGE, &signature).unwrap_err(), SignatureInvalid);
}

#[test]
fn a_saved_key_is_the_same_key() {
    let key = TrustSigningKey::generate().unwrap();
    let again = TrustSigningKey::from_pkcs8_der(&key.to_pkcs8_der()).unwrap();
    let _proof = key.verifying_key().verify(MESSAGE, &again.sign(MESSAGE).unwrap()).unwrap();
    let mut longer = key.to_pkcs8_der().to_vec();
    longer.push(0);
    assert_eq!(TrustSigningKey::from_pkcs8_der(&longer).unwrap_err(), ParseKeyError::NotSupported);
    assert_eq!(format!("{key:?}"), "TrustSigningKey");
}

#[test]
fn verifies_what_openssl_signed_with_ecdsa() {
    let openssl = OpenSsl::new();
    openssl.write("message", MESSAGE);
    openssl.run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem").unwrap();
    openssl.run("dgst -sha256 -sign key.pem -out signature message").unwrap();
    let key = TrustVerifyingKey::ecdsa_p256(&public(&openssl)).unwrap();
    assert_eq!(openssl.run("pkey -in key.pem -pubout").unwrap(), key.to_pem());
    let _proof = key.verify(MESSAGE, &raw(&openssl, "signature")).unwrap();
    // The form of certificates is not that of trust data.
    assert_eq!(key.verify(MESSAGE, &openssl.read("signature")).unwrap_err(), SignatureInvalid);
}

#[test]
fn verifies_what_openssl_signed_with_ed25519() {
    let openssl = OpenSsl::new();
    openssl.write("message", MESSAGE);
    openssl.run("genpkey -algorithm ED25519 -out key.pem").unwrap();
    openssl.run("pkeyutl -sign -inkey key.pem -rawin -in message -out signature").unwrap();
    let (spki, signature) = (public(&openssl), openssl.read("signature"));
    let key = TrustVerifyingKey::ed25519(&spki[spki.len() - 32..]).unwrap();
    let _proof = key.verify(MESSAGE, &signature).unwrap();
    assert_eq!(key.verify(b"another", &signature).unwrap_err(), SignatureInvalid);
    // Another encoding of the same key: one key, one id.
    assert_eq!(TrustVerifyingKey::ed25519(&spki).unwrap_err(), ParseKeyError::NotSupported);
}

#[test]
fn verifies_what_openssl_signed_with_rsa_pss() {
    let openssl = OpenSsl::new();
    openssl.write("message", MESSAGE);
    openssl.run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem").unwrap();
    let sign = "dgst -sha256 -sign key.pem -out";
    let pss = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32";
    openssl.run(&format!("{sign} signature {pss} message")).unwrap();
    openssl.run(&format!("{sign} older message")).unwrap();
    let key = TrustVerifyingKey::rsa_pss(&public(&openssl)).unwrap();
    let signature = openssl.read("signature");
    let _proof = key.verify(MESSAGE, &signature).unwrap();
    assert_eq!(key.verify(b"another", &signature).unwrap_err(), SignatureInvalid);
    assert_eq!(key.verify(MESSAGE, &openssl.read("older")).unwrap_err(), SignatureInvalid);
}

#[test]
fn keys_of_another_kind_or_size_are_refused() {
    let openssl = OpenSsl::new();
    for (options, is_ec, is_rsa) in [
        ("EC -pkeyopt ec_paramgen_curve:P-256", true, false),
        ("EC -pkeyopt ec_paramgen_curve:P-384", false, false),
        ("ED25519", false, false),
        ("RSA -pkeyopt rsa_keygen_bits:2048", false, true),
        ("RSA -pkeyopt rsa_keygen_bits:1024", false, false),
    ] {
        openssl.run(&format!("genpkey -out key.pem -algorithm {options}")).unwrap();
        let spki = public(&openssl);
        assert_eq!(TrustVerifyingKey::ecdsa_p256(&spki).is_ok(), is_ec, "{options}");
        assert_eq!(TrustVerifyingKey::rsa_pss(&spki).is_ok(), is_rsa, "{options}");
        TrustVerifyingKey::ed25519(&spki).unwrap_err();
    }
    let point = TrustSigningKey::generate().unwrap().0.public_key().as_ref().to_vec();
    assert_eq!(TrustVerifyingKey::ecdsa_p256(&point).unwrap_err(), ParseKeyError::NotSupported);
}
