//! Encrypting for one recipient.

use std::io::Write as _;
use std::time::SystemTime;

use sequoia_openpgp::Cert;
use sequoia_openpgp::armor;
use sequoia_openpgp::crypto::KeyPair;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::stream::{Armorer, Encryptor, LiteralWriter, Message, Signer};
use thiserror::Error;
use time::OffsetDateTime;

use super::certificate::{
    Fingerprint, ParseCertificateError, Purpose, Unusable, name, parse_certificates, usable_keys,
};
use super::key::{OpenPgpSigningKey, SignMessageError};

/// The longest payload of an encrypted message, and the longest such message, in bytes.
pub const MAX_ENCRYPTED_BYTES: usize = 1024 * 1024;

/// A certificate that messages are encrypted to.
#[derive(Clone, Debug)]
pub struct OpenPgpRecipient(Cert);

impl OpenPgpRecipient {
    /// Parses one certificate, armored or binary, that can be encrypted to at this time.
    pub fn parse(bytes: &[u8], at: OffsetDateTime) -> Result<Self, ParseCertificateError> {
        let certificates = <[Cert; 1]>::try_from(parse_certificates(bytes)?);
        let [certificate] = certificates
            .map_err(|all| ParseCertificateError::TooMany { count: all.len(), max: 1 })?;
        let at = SystemTime::from(at);
        usable_keys(&certificate, &StandardPolicy::at(at), at, Purpose::Encrypt)
            .map_err(|why| ParseCertificateError::Unusable { name: name(&certificate), why })?;
        Ok(Self(certificate))
    }

    /// Returns the fingerprint of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        (&self.0.fingerprint()).into()
    }

    /// Encrypts a payload of at most [`MAX_ENCRYPTED_BYTES`]; returns armored text.
    pub fn encrypt(&self, payload: &[u8], at: OffsetDateTime) -> Result<String, EncryptError> {
        self.write(payload, None, at)
    }

    /// Signs a payload of at most [`MAX_ENCRYPTED_BYTES`] and encrypts it with the signature;
    /// returns armored text.
    pub fn encrypt_and_sign(
        &self,
        payload: &[u8],
        key: &OpenPgpSigningKey,
        at: OffsetDateTime,
    ) -> Result<String, EncryptError> {
        self.write(payload, Some(key.signer(at)?), at)
    }

    fn write(
        &self,
        payload: &[u8],
        signer: Option<KeyPair>,
        at: OffsetDateTime,
    ) -> Result<String, EncryptError> {
        // Armor and encryption add a third and less than 16 KiB.
        if payload.len() > MAX_ENCRYPTED_BYTES / 3 * 2 {
            return Err(EncryptError::TooLong);
        }
        let time = SystemTime::from(at);
        let policy = StandardPolicy::at(time);
        let keys = usable_keys(&self.0, &policy, time, Purpose::Encrypt)
            .map_err(|why| EncryptError::Recipient { name: name(&self.0), why })?;
        let mut text = Vec::new();
        let write = |text: &mut Vec<u8>| -> sequoia_openpgp::Result<()> {
            let message = Armorer::new(Message::new(text)).kind(armor::Kind::Message).build()?;
            let mut message = Encryptor::for_recipients(message, keys).build()?;
            if let Some(signer) = signer {
                message = Signer::new(message, signer)?.creation_time(time).build()?;
            }
            let mut message = LiteralWriter::new(message).build()?;
            message.write_all(payload)?;
            message.finalize()
        };
        write(&mut text).map_err(|_| EncryptError::Library)?;
        String::from_utf8(text).map_err(|_| EncryptError::Library)
    }
}

/// Why a message could not be encrypted.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum EncryptError {
    /// The cryptographic library could not.
    #[error("the cryptographic library cannot encrypt")]
    Library,

    /// The recipient's certificate can no longer be used.
    #[error("OpenPGP certificate {name} cannot be encrypted to: {why}")]
    Recipient {
        /// The fingerprint, and the first user id.
        name: String,
        /// The reason.
        why: Unusable,
    },

    /// The signer's key cannot sign.
    #[error("cannot sign what is to be encrypted")]
    Sign(#[from] SignMessageError),

    /// The payload is longer than is written.
    #[error("what is to be encrypted has more than {} KiB", MAX_ENCRYPTED_BYTES / 3 * 2 / 1024)]
    TooLong,
}
