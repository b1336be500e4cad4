//! DSSE: signatures over a payload and its type (Dead Simple Signing Envelope, protocol 1.0).
//!
//! The type is part of what is signed, so that a signature over one kind of payload is none over
//! another kind with the same bytes.

use crate::sign::{ImageSigningKey, SignError};
use crate::verify::{ImageVerifyingKey, SignatureInvalid, SignatureValid};

/// Signs a payload as one of this type.
pub fn sign(
    key: &ImageSigningKey,
    payload_type: &str,
    payload: &[u8],
) -> Result<Vec<u8>, SignError> {
    key.sign(&pre_authentication_encoding(payload_type, payload))
}

/// Verifies a signature of [`sign`] over a payload of this type.
pub fn verify(
    key: &ImageVerifyingKey,
    payload_type: &str,
    payload: &[u8],
    signature: &[u8],
) -> Result<SignatureValid, SignatureInvalid> {
    key.verify(&pre_authentication_encoding(payload_type, payload), signature)
}

/// Returns the bytes that are signed: the standard calls them PAE.
///
/// The lengths are those of bytes, in decimal digits.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_standard_shows() {
        // The example of the protocol's text.
        let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        // Lengths are bytes, not characters.
        assert_eq!(pre_authentication_encoding("é", b""), "DSSEv1 2 é 0 ".as_bytes());
    }

    #[test]
    fn r7_a_signature_counts_for_its_type_and_payload_only() {
        let key = ImageSigningKey::generate().unwrap();
        let public = key.verifying_key();
        let signature = sign(&key, "a", b"b c").unwrap();
        let _proof = verify(&public, "a", b"b c", &signature).unwrap();
        for (payload_type, payload) in [("a", "b d"), ("b", "b c"), ("a 1 b", "c"), ("", "a 3 b c")]
        {
            verify(&public, payload_type, payload.as_bytes(), &signature).unwrap_err();
        }
        // Neither do signatures over bare bytes count, nor these as such.
        public.verify(b"b c", &signature).unwrap_err();
        verify(&public, "a", b"b c", &key.sign(b"b c").unwrap()).unwrap_err();
        let other = ImageSigningKey::generate().unwrap().verifying_key();
        verify(&other, "a", b"b c", &signature).unwrap_err();
    }
}
