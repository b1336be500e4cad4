use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use thiserror::Error;
use x509_parser::asn1_rs::{Any, FromDer as _};
use zeroize::Zeroizing;

use crate::verify::{ImageVerifyingKey, ManifestVerifyingKey, ParseKeyError};

/// The secret key that signs build manifests: RSA, 3072 bits when made here.
///
/// Signatures are RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2), which `openssl dgst -sha256
/// -verify` understands.
pub struct ManifestSigningKey(RsaKeyPair);

impl ManifestSigningKey {
    /// Makes a fresh key. Takes a good part of a second: not for an async task.
    pub fn generate() -> Result<Self, GenerateKeyError> {
        RsaKeyPair::generate(KeySize::Rsa3072).map(Self).map_err(|_| GenerateKeyError)
    }

    /// Parses an unencrypted PKCS#8 document (RFC 5958) with an RSA key of 2048 to 8192 bits.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, ParseKeyError> {
        check_frame(der)?;
        let key = RsaKeyPair::from_pkcs8(der).map_err(|_| ParseKeyError::NotSupported)?;
        // Also refuses a modulus that is too short or too long to verify with.
        ManifestVerifyingKey::from_pkcs1_der(key.public_key().as_ref())?;
        Ok(Self(key))
    }

    /// Returns the key as an unencrypted PKCS#8 document. Secret.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let document: Pkcs8V1Der<'_> = self.0.as_der().expect("a key in memory can be encoded");
        Zeroizing::new(document.as_ref().to_vec())
    }

    /// Returns the public half.
    pub fn verifying_key(&self) -> ManifestVerifyingKey {
        ManifestVerifyingKey::from_pkcs1_der(self.0.public_key().as_ref())
            .expect("a signing key has a supported public half")
    }

    /// Signs `message`, which is hashed here.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| SignError)?;
        Ok(signature)
    }
}

impl fmt::Debug for ManifestSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ManifestSigningKey")
    }
}

/// The secret key that signs images: ECDSA over P-256.
///
/// Signatures are over SHA-256 and in DER (FIPS 186-5; RFC 3279, 2.2.3), as cosign writes them.
pub struct ImageSigningKey(EcdsaKeyPair);

impl ImageSigningKey {
    /// Makes a fresh key.
    pub fn generate() -> Result<Self, GenerateKeyError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(Self)
            .map_err(|_| GenerateKeyError)
    }

    /// Parses an unencrypted PKCS#8 document (RFC 5958) with a P-256 key.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, ParseKeyError> {
        check_frame(der)?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map(Self)
            .map_err(|_| ParseKeyError::NotSupported)
    }

    /// Returns the key as an unencrypted PKCS#8 document. Secret.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let document = self.0.to_pkcs8v1().expect("a key in memory can be encoded");
        Zeroizing::new(document.as_ref().to_vec())
    }

    /// Returns the public half.
    pub fn verifying_key(&self) -> ImageVerifyingKey {
        ImageVerifyingKey::from_point(self.0.public_key().as_ref())
            .expect("a signing key has a supported public half")
    }

    /// Signs `message`, which is hashed here.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| SignError)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for ImageSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImageSigningKey")
    }
}

/// The cryptographic library could not make a key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the cryptographic library cannot make a key")]
pub struct GenerateKeyError;

/// The cryptographic library could not sign.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the cryptographic library cannot sign")]
pub struct SignError;

pub(crate) fn check_frame(der: &[u8]) -> Result<(), ParseKeyError> {
    if der.len() > MAX_PKCS8_BYTES {
        return Err(ParseKeyError::TooLong);
    }
    // The library does not look at what follows an RSA key.
    match Any::from_der(der) {
        Ok(([], _)) => Ok(()),
        _ => Err(ParseKeyError::NotSupported),
    }
}

// An RSA key of 8192 bits takes 4.7 KiB.
const MAX_PKCS8_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests;
