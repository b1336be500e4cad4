//! Verifying signed messages.

use std::time::SystemTime;

use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::parse::stream::{MessageLayer, VerificationError};
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::{Cert, KeyHandle};
use thiserror::Error;
use time::OffsetDateTime;

use super::certificate::{
    Fingerprint, ParseCertificateError, Purpose, Unusable, name, parse_certificates, usable_keys,
};
use super::read;

/// The longest signed message that is read, and the longest payload, in bytes. What is signed with
/// OpenPGP here are short texts; a certificate's signatures take some hundred bytes.
pub const MAX_SIGNED_BYTES: usize = 128 * 1024;

/// The certificates whose signatures are believed, at one point in time.
#[derive(Clone, Debug)]
pub struct OpenPgpVerifier {
    pub(super) at: SystemTime,
    /// Those that can be used, each with the keys that may sign.
    trusted: Vec<(Cert, Vec<sequoia_openpgp::Fingerprint>)>,
    refused: Vec<(Cert, RefusedCertificate)>,
}

/// A certificate that was given and cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusedCertificate {
    /// The fingerprint, and the first user id.
    pub name: String,
    /// The reason.
    pub why: Unusable,
}

impl OpenPgpVerifier {
    /// Parses certificates, armored or binary, of which one at least can be used at this time.
    ///
    /// Certificates that are expired, revoked or weak are not used; [`refused`](Self::refused)
    /// tells which.
    pub fn parse(bytes: &[u8], at: OffsetDateTime) -> Result<Self, ParseCertificateError> {
        let at = SystemTime::from(at);
        let policy = StandardPolicy::at(at);
        let (mut trusted, mut refused) = (Vec::new(), Vec::new());
        for certificate in parse_certificates(bytes)? {
            let usable = usable_keys(&certificate, &policy, at, Purpose::Sign)
                .map(|keys| keys.iter().map(|key| key.key().fingerprint()).collect());
            match usable {
                Ok(keys) => trusted.push((certificate, keys)),
                Err(why) => {
                    let why = RefusedCertificate { name: name(&certificate), why };
                    refused.push((certificate, why));
                }
            }
        }
        match refused.first() {
            Some((_, RefusedCertificate { name, why })) if trusted.is_empty() => {
                Err(ParseCertificateError::Unusable { name: name.clone(), why: why.clone() })
            }
            _ => Ok(Self { at, trusted, refused }),
        }
    }

    /// Returns the fingerprints of the certificates that are used.
    pub fn certificates(&self) -> Vec<Fingerprint> {
        self.trusted.iter().map(|(certificate, _)| (&certificate.fingerprint()).into()).collect()
    }

    /// Returns the certificates that are not used.
    pub fn refused(&self) -> Vec<RefusedCertificate> {
        self.refused.iter().map(|(_, refused)| refused.clone()).collect()
    }

    /// Verifies a binary signed message: one payload under one signature, compressed or not, and
    /// nothing else. Nothing of the payload is seen before the signature is good.
    pub fn verify_message(&self, message: &[u8]) -> Result<VerifiedMessage, VerifyMessageError> {
        if message.len() > MAX_SIGNED_BYTES {
            return Err(VerifyMessageError::TooLong);
        }
        // The library would also take armor.
        if !begins_like_a_signed_message(message) {
            return Err(VerifyMessageError::NotAMessage);
        }
        let (payload, good) = read::verify(self, message)?;
        Ok(VerifiedMessage {
            payload,
            certificate: good.certificate,
            key: good.key,
            signed_at: good.signed_at,
        })
    }

    pub(super) fn trusted(&self) -> impl Iterator<Item = &Cert> {
        self.trusted.iter().map(|(certificate, _)| certificate)
    }

    /// Judges what the library found in a message, once what is around the signature is taken off.
    pub(super) fn judge(
        &self,
        layers: &[&MessageLayer<'_>],
    ) -> Result<GoodSignature, VerifyMessageError> {
        let [MessageLayer::SignatureGroup { results }] = layers else {
            return Err(VerifyMessageError::NotAMessage);
        };
        let [result] = results.as_slice() else { return Err(VerifyMessageError::NotAMessage) };
        let good = match result {
            Ok(good) => good,
            Err(VerificationError::MissingKey { sig }) => return Err(self.missing(sig)),
            Err(_) => return Err(VerifyMessageError::Invalid),
        };
        let (certificate, key) = (good.ka.cert().fingerprint(), good.ka.key().fingerprint());
        // The library asks whether the key could sign when it says that it did; a stolen key that
        // has expired since says what it wants.
        let mut usable = self.trusted.iter().flat_map(|(_, keys)| keys);
        let signed_at = good.sig.signature_creation_time();
        match signed_at {
            Some(signed_at) if usable.any(|usable| *usable == key) => Ok(GoodSignature {
                certificate: (&certificate).into(),
                key: (&key).into(),
                signed_at: signed_at.into(),
            }),
            _ => Err(VerifyMessageError::Invalid),
        }
    }

    fn missing(&self, signature: &Signature) -> VerifyMessageError {
        let issuers = signature.get_issuers();
        let made = |by: &Cert| by.keys().key_handles(issuers.clone()).next().is_some();
        if let Some((_, refused)) = self.refused.iter().find(|(other, _)| made(other)) {
            let RefusedCertificate { name, why } = refused.clone();
            return VerifyMessageError::Refused { name, why };
        }
        let issuer = issuers.first().map_or_else(|| "unnamed".to_owned(), KeyHandle::to_hex);
        VerifyMessageError::UnknownKey { issuer }
    }
}

/// Tells whether the first byte is one that a binary signed message begins with.
///
/// It is by this byte that containers/image knows a signature.
pub fn begins_like_a_signed_message(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| BEGINNINGS.contains(first))
}

/// A payload whose signature was verified; only [`OpenPgpVerifier::verify_message`] makes it.
#[derive(Clone, Debug)]
pub struct VerifiedMessage {
    payload: Vec<u8>,
    certificate: Fingerprint,
    key: Fingerprint,
    signed_at: OffsetDateTime,
}

impl VerifiedMessage {
    /// Returns the payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Returns the fingerprint of the signer's certificate.
    pub fn certificate(&self) -> &Fingerprint {
        &self.certificate
    }

    /// Returns the fingerprint of the key that signed: the certificate's primary key or a subkey.
    pub fn key(&self) -> &Fingerprint {
        &self.key
    }

    /// Returns when the signer says that this was signed.
    pub fn signed_at(&self) -> OffsetDateTime {
        self.signed_at
    }
}

/// Why a message is not believed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VerifyMessageError {
    /// The signature is not one of this payload by its key, or the message is damaged.
    #[error("the OpenPGP signature does not verify")]
    Invalid,

    /// It is not a message of this form.
    #[error("not an OpenPGP message with one payload and one signature, in binary form")]
    NotAMessage,

    /// It was signed by a certificate that was given and is not used.
    #[error("signed by OpenPGP certificate {name}, which cannot be used: {why}")]
    Refused {
        /// The fingerprint, and the first user id.
        name: String,
        /// The reason.
        why: Unusable,
    },

    /// It is longer than is read.
    #[error("an OpenPGP signed message has more than {} KiB", MAX_SIGNED_BYTES / 1024)]
    TooLong,

    /// It was signed by another key.
    #[error("signed by OpenPGP key {issuer}, which is not among the trusted ones")]
    UnknownKey {
        /// What the signature says who made it: a fingerprint or a key id.
        issuer: String,
    },
}

/// Who signed.
pub(super) struct GoodSignature {
    pub(super) certificate: Fingerprint,
    pub(super) key: Fingerprint,
    pub(super) signed_at: OffsetDateTime,
}

// Compressed data, one-pass signature, signature, each in the old and the new form of packets: the
// list of `FromBlob` in containers/image (`internal/signature/signature.go`). It has no one-pass
// signature of indeterminate length, 0x93, and neither has this; that it has 0x3d, which begins no
// packet, in that place makes no difference to what is good.
const BEGINNINGS: [u8; 14] =
    [0xa0, 0xa1, 0xa2, 0xa3, 0xc8, 0x90, 0x91, 0x92, 0xc4, 0x88, 0x89, 0x8a, 0x8b, 0xc2];
