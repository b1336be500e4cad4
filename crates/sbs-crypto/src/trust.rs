//! The keys of image trust data (Docker Content Trust): its signatures have forms of their own.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, KeyPair as _,
    RSA_PSS_2048_8192_SHA256,
};
use zeroize::Zeroizing;

use crate::sign::{GenerateKeyError, SignError, check_frame};
use crate::verify::{ParseKeyError, PublicKey, SignatureInvalid, SignatureValid, check_modulus};

/// A secret key that signs image trust data: ECDSA over P-256 and SHA-256.
///
/// Signatures are `r || s`, 64 bytes (IEEE P1363), and not DER.
pub struct TrustSigningKey(EcdsaKeyPair);

impl TrustSigningKey {
    /// Makes a fresh key.
    pub fn generate() -> Result<Self, GenerateKeyError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map(Self)
            .map_err(|_| GenerateKeyError)
    }

    /// Parses an unencrypted PKCS#8 document (RFC 5958) with a P-256 key.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, ParseKeyError> {
        check_frame(der)?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map(Self)
            .map_err(|_| ParseKeyError::NotSupported)
    }

    /// Returns the key as an unencrypted PKCS#8 document. Secret.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let document = self.0.to_pkcs8v1().expect("a key in memory can be encoded");
        Zeroizing::new(document.as_ref().to_vec())
    }

    /// Returns the public half.
    pub fn verifying_key(&self) -> TrustVerifyingKey {
        let parsed = PublicKey::parse(&ECDSA_P256_SHA256_FIXED, self.0.public_key().as_ref());
        TrustVerifyingKey(parsed.expect("a signing key has a supported public half"))
    }

    /// Signs `message`, which is hashed here.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| SignError)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for TrustSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrustSigningKey")
    }
}

/// A public key that verifies image trust data, with the one form of signature that it is for.
#[derive(Clone)]
pub struct TrustVerifyingKey(PublicKey);

impl TrustVerifyingKey {
    /// Takes the DER `SubjectPublicKeyInfo` of a P-256 key, for signatures `r || s` over SHA-256.
    pub fn ecdsa_p256(spki: &[u8]) -> Result<Self, ParseKeyError> {
        PublicKey::from_spki(&ECDSA_P256_SHA256_FIXED, spki).map(Self)
    }

    /// Takes the 32 bytes of an Ed25519 key (RFC 8032, 5.1.5).
    pub fn ed25519(bytes: &[u8]) -> Result<Self, ParseKeyError> {
        if bytes.len() != ED25519_BYTES {
            return Err(ParseKeyError::NotSupported);
        }
        PublicKey::parse(&ED25519, bytes).map(Self)
    }

    /// Takes the DER `SubjectPublicKeyInfo` of an RSA key of 2048 to 8192 bits, for RSASSA-PSS
    /// (RFC 8017, 8.1) with SHA-256 and a salt of 32 bytes.
    pub fn rsa_pss(spki: &[u8]) -> Result<Self, ParseKeyError> {
        let key = PublicKey::from_spki(&RSA_PSS_2048_8192_SHA256, spki)?;
        let rsa = RsaPublicKey::from_der(spki).map_err(|_| ParseKeyError::NotSupported)?;
        check_modulus(&rsa)?;
        Ok(Self(key))
    }

    /// Returns the key as a DER `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
    pub fn as_spki_der(&self) -> &[u8] {
        self.0.as_spki_der()
    }

    /// Returns the PEM text, as `openssl pkey -pubout` writes it.
    pub fn to_pem(&self) -> String {
        self.0.to_pem()
    }

    /// Verifies a signature of `message`, which is hashed here.
    pub fn verify(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> Result<SignatureValid, SignatureInvalid> {
        self.0.verify(message, signature)
    }
}

impl fmt::Debug for TrustVerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrustVerifyingKey")
    }
}

const ED25519_BYTES: usize = 32;

#[cfg(test)]
mod tests;
