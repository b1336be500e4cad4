use std::fmt;

use rcgen::{PublicKeyData as _, SanType};
use sbs_proto::Digest;
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::authority::{IssueError, LoadError, Profile, params, random_serial};
use super::describe::{CERTIFICATE_LABEL, CertificateInfo, info, parse};
use super::host;
use super::key::CertificateKey;
use crate::sign::GenerateKeyError;
use crate::{armor, digest};

/// The name that clients know a server by: a DNS name, or an IP address without brackets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerHost {
    text: String,
    name: SanType,
}

impl ServerHost {
    /// Parses the name, which has neither port nor wildcard.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self { text: text.to_owned(), name: host::parse(text)? })
    }

    /// Returns the name as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The secret key of a server's own certificate: RSA of 2048 bits when made here.
pub struct ServerKey {
    key: CertificateKey,
    pem: Zeroizing<String>,
}

impl ServerKey {
    /// Makes a fresh key.
    ///
    /// Takes a good part of a second: not for an async task.
    pub fn generate() -> Result<Self, GenerateKeyError> {
        let (key, pem) = CertificateKey::generate()?;
        Ok(Self { key, pem })
    }

    /// Parses an unencrypted PKCS#8, PKCS#1 or SEC 1 key: RSA of at least 2048 bits, P-256 or P-384.
    pub fn from_pem(pem: &str) -> Result<Self, ParseServerKeyError> {
        let key = CertificateKey::from_pem(pem).map_err(|error| match error {
            LoadError::KeyEncrypted => ParseServerKeyError::Encrypted,
            LoadError::KeyNotPem => ParseServerKeyError::NotPem,
            _ => ParseServerKeyError::NotSupported,
        })?;
        Ok(Self { key, pem: Zeroizing::new(pem.to_owned()) })
    }

    /// Returns the key as PEM. Secret.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the digest of the public key, a `SubjectPublicKeyInfo` in DER.
    pub fn public_key_sha256(&self) -> Digest {
        digest(&self.key.subject_public_key_info())
    }

    /// Makes a certificate signing request (RFC 2986, PEM) for a server at this host.
    pub fn request(&self, host: &ServerHost, now: OffsetDateTime) -> Result<String, IssueError> {
        let params = params(Profile::Server(host.name.clone()), now)?;
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    /// Makes a certificate (PEM) that nobody has signed but the key itself, valid for 365 days: for
    /// the time until one that clients can verify is there.
    pub fn self_signed(
        &self,
        host: &ServerHost,
        now: OffsetDateTime,
    ) -> Result<String, IssueError> {
        let mut params = params(Profile::Server(host.name.clone()), now)?;
        params.serial_number = Some(random_serial());
        Ok(params.self_signed(&self.key)?.pem())
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey")
    }
}

/// The certificate of a server, and those that lead from it to an authority, in order.
///
/// Its form is checked and no signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerChain(Vec<Vec<u8>>);

impl ServerChain {
    /// Parses 1 to [`MAX_CHAIN`](Self::MAX_CHAIN) PEM blocks `CERTIFICATE`, of which each is issued
    /// in the name of the one behind it (RFC 8446, 4.4.2), and nothing but these.
    pub fn parse(pem: &str) -> Result<Self, ParseServerChainError> {
        let blocks = armor::decode(pem).ok_or(ParseServerChainError::NotPem)?;
        if blocks.iter().any(|block| block.label != CERTIFICATE_LABEL) {
            return Err(ParseServerChainError::NotPem);
        }
        if blocks.len() > Self::MAX_CHAIN {
            return Err(ParseServerChainError::TooLong);
        }
        let chain: Vec<Vec<u8>> = blocks.into_iter().map(|block| block.der.to_vec()).collect();
        let parsed: Option<Vec<_>> = chain.iter().map(|der| parse(der)).collect();
        let parsed = parsed.ok_or(ParseServerChainError::Damaged)?;
        let linked = parsed.iter().zip(parsed.iter().skip(1));
        if linked.clone().any(|(one, next)| one.issuer().as_raw() != next.subject().as_raw()) {
            return Err(ParseServerChainError::NotAChain);
        }
        Ok(Self(chain))
    }

    /// Returns the certificates as DER; that of the server comes first.
    pub fn der(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// Returns the certificates as PEM, without any text between them.
    pub fn to_pem(&self) -> String {
        let blocks = self.0.iter().map(|der| armor::encode(CERTIFICATE_LABEL, der));
        blocks.map(|block| block.to_string()).collect()
    }

    /// Tells whether the server's certificate is one of this key.
    pub fn is_of(&self, key: &ServerKey) -> bool {
        let certificate = parse(self.server()).expect("a chain was parsed before");
        *certificate.public_key().subject_public_key.data == *key.key.der_bytes()
    }

    /// Describes the server's certificate.
    pub fn describe(&self) -> CertificateInfo {
        info(self.server()).expect("a chain was parsed before")
    }

    /// The most certificates in a chain: the server's, and some between it and the authority.
    pub const MAX_CHAIN: usize = 6;

    fn server(&self) -> &[u8] {
        self.0.first().expect("a chain has a first certificate")
    }
}

/// Why the key of a server was refused; says nothing of its content.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseServerKeyError {
    /// The key is under a passphrase.
    #[error("the server's key is encrypted; `openssl pkey` writes it without a passphrase")]
    Encrypted,

    /// The text does not hold one key.
    #[error("the server's key is not one PEM block `PRIVATE KEY`")]
    NotPem,

    /// The key is damaged, too short, or of another kind.
    #[error("the server's key is not RSA of 2048 to 8192 bits, P-256 or P-384, or is damaged")]
    NotSupported,
}

/// Why the chain of a server's certificate was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseServerChainError {
    /// A block does not hold a certificate.
    #[error("a PEM block `CERTIFICATE` does not hold a certificate")]
    Damaged,

    /// The certificates do not follow one from the other.
    #[error(
        "the certificates are no chain; the server's comes first, and each is issued by the one \
         behind it"
    )]
    NotAChain,

    /// The text is something else, or something else is in it, too.
    #[error("not PEM blocks `CERTIFICATE` alone of at most {} KiB", armor::MAX_BYTES / 1024)]
    NotPem,

    /// There are more certificates than are taken.
    #[error("more than {} certificates in the chain", ServerChain::MAX_CHAIN)]
    TooLong,
}

#[cfg(test)]
mod tests;
