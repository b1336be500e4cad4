use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use thiserror::Error;

use crate::armor;

/// Proof that a signature was verified; only the `verify` methods of this crate make it.
///
/// A function that needs a verified signature takes this value, so that a forgotten check does not
/// compile.
#[derive(Clone, Copy, Debug)]
#[must_use = "a signature was verified for a reason"]
pub struct SignatureValid(());

/// The public key that verifies build manifests: RSA, 2048 to 8192 bits.
#[derive(Clone)]
pub struct ManifestVerifyingKey(PublicKey);

impl ManifestVerifyingKey {
    /// Parses the PEM text of a `SubjectPublicKeyInfo` (RFC 7468, 13), at most 64 KiB.
    pub fn from_pem(text: &str) -> Result<Self, ParseKeyError> {
        let key = PublicKey::from_pem(&RSA_PKCS1_2048_8192_SHA256, text)?;
        let rsa = RsaPublicKey::from_der(&key.spki).map_err(|_| ParseKeyError::NotSupported)?;
        check_modulus(&rsa)?;
        Ok(Self(key))
    }

    /// Takes the `RSAPublicKey` (RFC 8017, A.1.1) of a key pair.
    pub(crate) fn from_pkcs1_der(der: &[u8]) -> Result<Self, ParseKeyError> {
        let rsa = RsaPublicKey::from_der(der).map_err(|_| ParseKeyError::NotSupported)?;
        check_modulus(&rsa)?;
        PublicKey::parse(&RSA_PKCS1_2048_8192_SHA256, der).map(Self)
    }

    /// Returns the PEM text, as `openssl pkey -pubout` writes it.
    pub fn to_pem(&self) -> String {
        self.0.to_pem()
    }

    /// Returns the key as a DER `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    /// Verifies a signature of [`ManifestSigningKey::sign`](crate::ManifestSigningKey::sign).
    pub fn verify(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> Result<SignatureValid, SignatureInvalid> {
        self.0.verify(message, signature)
    }
}

impl fmt::Debug for ManifestVerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ManifestVerifyingKey")
    }
}

/// The public key that verifies images: ECDSA over P-256.
#[derive(Clone)]
pub struct ImageVerifyingKey(PublicKey);

impl ImageVerifyingKey {
    /// Parses the PEM text of a `SubjectPublicKeyInfo` (RFC 7468, 13), at most 64 KiB.
    pub fn from_pem(text: &str) -> Result<Self, ParseKeyError> {
        PublicKey::from_pem(&ECDSA_P256_SHA256_ASN1, text).map(Self)
    }

    /// Takes the uncompressed point (SEC 1, 2.3.3) of a key pair.
    pub(crate) fn from_point(point: &[u8]) -> Result<Self, ParseKeyError> {
        PublicKey::parse(&ECDSA_P256_SHA256_ASN1, point).map(Self)
    }

    /// Returns the PEM text, as `openssl pkey -pubout` writes it.
    pub fn to_pem(&self) -> String {
        self.0.to_pem()
    }

    /// Returns the key as a DER `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7): what its digest, by which
    /// signatures name their key, is taken of.
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    /// Verifies a signature of [`ImageSigningKey::sign`](crate::ImageSigningKey::sign).
    pub fn verify(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> Result<SignatureValid, SignatureInvalid> {
        self.0.verify(message, signature)
    }
}

impl fmt::Debug for ImageVerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImageVerifyingKey")
    }
}

/// Why the text or the bytes of a key were refused.
///
/// Says nothing about the content, which may be a secret key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// The text is not one PEM block `PUBLIC KEY`.
    #[error(
        "not one PEM block `PUBLIC KEY` of at most {} KiB; `openssl pkey -pubout` writes one",
        armor::MAX_BYTES / 1024
    )]
    NotPem,

    /// The bytes are not a key of the expected kind.
    #[error("not a key of the expected kind, or damaged")]
    NotSupported,

    /// The bytes are longer than any key this build takes.
    #[error("too long for a key")]
    TooLong,

    /// The RSA modulus is too short or too long.
    #[error("RSA key has {bits} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}")]
    WrongSize {
        /// The length of the modulus.
        bits: usize,
    },
}

/// The signature is not one of this message by this key, or is damaged.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the signature does not verify with this key")]
pub struct SignatureInvalid;

/// What all kinds of key have in common.
#[derive(Clone)]
pub(crate) struct PublicKey {
    spki: Vec<u8>,
    parsed: ParsedPublicKey,
}

impl PublicKey {
    fn from_pem(
        algorithm: &'static dyn VerificationAlgorithm,
        text: &str,
    ) -> Result<Self, ParseKeyError> {
        let der = armor::decode_one(LABEL, text).ok_or(ParseKeyError::NotPem)?;
        Self::from_spki(algorithm, &der)
    }

    /// Takes a DER `SubjectPublicKeyInfo` and no other encoding.
    pub(crate) fn from_spki(
        algorithm: &'static dyn VerificationAlgorithm,
        der: &[u8],
    ) -> Result<Self, ParseKeyError> {
        let key = Self::parse(algorithm, der)?;
        // The library also takes other encodings (PKCS#1, a bare point, BER). One key has one
        // text here, so that texts can be compared and hashed.
        if key.spki != der {
            return Err(ParseKeyError::NotSupported);
        }
        Ok(key)
    }

    pub(crate) fn as_spki_der(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) fn parse(
        algorithm: &'static dyn VerificationAlgorithm,
        der: &[u8],
    ) -> Result<Self, ParseKeyError> {
        let parsed =
            ParsedPublicKey::new(algorithm, der).map_err(|_| ParseKeyError::NotSupported)?;
        let spki: PublicKeyX509Der<'_> =
            parsed.as_der().map_err(|_| ParseKeyError::NotSupported)?;
        Ok(Self { spki: spki.as_ref().to_vec(), parsed })
    }

    pub(crate) fn to_pem(&self) -> String {
        armor::encode(LABEL, &self.spki).to_string()
    }

    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> Result<SignatureValid, SignatureInvalid> {
        self.parsed.verify_sig(message, signature).map_err(|_| SignatureInvalid)?;
        Ok(SignatureValid(()))
    }
}

pub(crate) fn check_modulus(key: &RsaPublicKey) -> Result<(), ParseKeyError> {
    let modulus = key.modulus().big_endian_without_leading_zero();
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Ok(());
    }
    Err(ParseKeyError::WrongSize { bits })
}

// Below 2048 bits a key is no longer allowed to verify new signatures (SP 800-131A); above 8192
// one verification is expensive enough to be used against the verifier.
pub(crate) const MIN_RSA_BITS: usize = 2048;
pub(crate) const MAX_RSA_BITS: usize = 8192;

const LABEL: &str = "PUBLIC KEY";
