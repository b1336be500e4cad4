use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};
use zeroize::Zeroizing;

use crate::armor;
use crate::sign::GenerateKeyError;
use crate::verify::check_modulus;

use super::authority::LoadError;

/// A secret key that signs certificates.
///
/// The library that writes certificates has such a type too; it keeps a copy of the secret that it
/// does not wipe, and writes a loaded PKCS#1 key back as a damaged PKCS#8 document.
pub(super) enum CertificateKey {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl CertificateKey {
    /// Makes a fresh RSA key of 2048 bits, and returns it with its PKCS#8 PEM text.
    pub(super) fn generate() -> Result<(Self, Zeroizing<String>), GenerateKeyError> {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| GenerateKeyError)?;
        let document: Pkcs8V1Der<'_> = key.as_der().map_err(|_| GenerateKeyError)?;
        let pem = armor::encode("PRIVATE KEY", document.as_ref());
        Ok((Self::Rsa(key), pem))
    }

    /// Parses an unencrypted PKCS#8, PKCS#1 or SEC 1 key, as RSA, P-256 or P-384.
    pub(super) fn from_pem(text: &str) -> Result<Self, LoadError> {
        // Both forms of encryption carry the word: in the label, or in the header `Proc-Type`.
        if text.len() <= armor::MAX_BYTES && text.contains("ENCRYPTED") {
            return Err(LoadError::KeyEncrypted);
        }
        // `openssl ecparam -genkey` writes a block with the curve in front.
        let mut keys = armor::decode(text).ok_or(LoadError::KeyNotPem)?;
        keys.retain(|block| block.label.ends_with("PRIVATE KEY"));
        let [block] = <[_; 1]>::try_from(keys).map_err(|_| LoadError::KeyNotPem)?;
        let der = block.der.as_slice();
        let rsa = match block.label.as_str() {
            "PRIVATE KEY" => RsaKeyPair::from_pkcs8(der).ok(),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(der).ok(),
            "EC PRIVATE KEY" => None,
            _ => return Err(LoadError::KeyNotSupported),
        };
        if let Some(key) = rsa {
            check_modulus(key.public_key()).map_err(|_| LoadError::KeyNotSupported)?;
            return Ok(Self::Rsa(key));
        }
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map(Self::P256)
            .or_else(|_| {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_ASN1_SIGNING, der)
                    .map(Self::P384)
            })
            .map_err(|_| LoadError::KeyNotSupported)
    }
}

impl PublicKeyData for CertificateKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::P256(key) | Self::P384(key) => key.public_key().as_ref(),
            Self::Rsa(key) => key.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::P256(_) => &PKCS_ECDSA_P256_SHA256,
            Self::P384(_) => &PKCS_ECDSA_P384_SHA384,
            Self::Rsa(_) => &PKCS_RSA_SHA256,
        }
    }
}

impl SigningKey for CertificateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        match self {
            Self::P256(key) | Self::P384(key) => {
                key.sign(&random, message).map(|signature| signature.as_ref().to_vec())
            }
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
