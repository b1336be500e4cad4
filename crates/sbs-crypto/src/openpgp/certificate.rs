//! Certificates ("public keys"), and which of their keys may be used for what.

use std::fmt;
use std::time::SystemTime;

use sequoia_openpgp::Cert;
use sequoia_openpgp::cert::CertParser;
use sequoia_openpgp::cert::amalgamation::key::ValidErasedKeyAmalgamation;
use sequoia_openpgp::cert::amalgamation::{ValidAmalgamation as _, ValidateAmalgamation as _};
use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::packet::key::PublicParts;
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::types::RevocationStatus;
use thiserror::Error;
use time::{Date, OffsetDateTime};

use super::read::fenced;

/// The longest file of certificates that is read, in bytes: a dozen keys that many have signed.
pub const MAX_CERTIFICATE_BYTES: usize = 1024 * 1024;

/// The fingerprint of a key or of a certificate, which is that of its primary key: 40 upper-case
/// hex digits for the keys of version 4 that are in use, 64 for those of version 6.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Returns the hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&sequoia_openpgp::Fingerprint> for Fingerprint {
    fn from(fingerprint: &sequoia_openpgp::Fingerprint) -> Self {
        Self(fingerprint.to_hex())
    }
}

/// Why a certificate, or all of a file, is not taken.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseCertificateError {
    /// It is not one certificate or more.
    #[error(
        "not OpenPGP certificates (public keys), armored or binary; `gpg --export --armor` writes \
         them"
    )]
    NotCertificates,

    /// There is a secret key in it.
    #[error(
        "there is a secret key among the certificates; give the public half alone, as `gpg --export \
         --armor` writes it"
    )]
    SecretKey,

    /// It is longer than any file of certificates should be.
    #[error("OpenPGP certificates have more than {} KiB", MAX_CERTIFICATE_BYTES / 1024)]
    TooLong,

    /// There are too many or, where one is called for, more than one.
    #[error("{count} OpenPGP certificates, expected {max} at most")]
    TooMany {
        /// How many there are.
        count: usize,
        /// The limit.
        max: usize,
    },

    /// None of them can be used; this is what is wrong with the first.
    #[error("OpenPGP certificate {name} cannot be used: {why}")]
    Unusable {
        /// The fingerprint, and the first user id.
        name: String,
        /// The reason.
        why: Unusable,
    },
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Unusable {
    /// It has expired.
    #[error("it expired on {0}; ask its owner for a newer one")]
    Expired(Date),

    /// It has no key for this purpose.
    #[error("it has no key that may {0}")]
    NoKey(&'static str),

    /// It begins later.
    #[error("it is valid from {0} on; is the clock right?")]
    NotYetValid(Date),

    /// Its owner took it back.
    #[error("it was revoked on {0}; ask its owner for another one")]
    Revoked(Date),

    /// Its key or its own signatures are too weak, or damaged.
    #[error("it is too weak, or its own signatures are not good ({0})")]
    Weak(String),
}

/// What a key is to be used for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Encrypt,
    Sign,
}

/// Parses certificates, armored (any number of blocks) or binary. Does not judge them.
pub(super) fn parse_certificates(bytes: &[u8]) -> Result<Vec<Cert>, ParseCertificateError> {
    if bytes.len() > MAX_CERTIFICATE_BYTES {
        return Err(ParseCertificateError::TooLong);
    }
    let mut certificates = Vec::new();
    for block in blocks(bytes) {
        let parsed = fenced(|| CertParser::from_bytes(block).ok()?.collect::<Result<_, _>>().ok());
        let parsed: Vec<Cert> = parsed.ok_or(ParseCertificateError::NotCertificates)?;
        certificates.extend(parsed);
    }
    match certificates.len() {
        0 => return Err(ParseCertificateError::NotCertificates),
        1..=MAX_CERTIFICATES => {}
        count => return Err(ParseCertificateError::TooMany { count, max: MAX_CERTIFICATES }),
    }
    if certificates.iter().any(Cert::is_tsk) {
        return Err(ParseCertificateError::SecretKey);
    }
    Ok(certificates)
}

/// Returns the keys of a certificate that may be used for a purpose at a point in time.
pub(super) fn usable_keys<'a>(
    certificate: &'a Cert,
    policy: &'a StandardPolicy<'a>,
    at: SystemTime,
    purpose: Purpose,
) -> Result<Vec<ValidErasedKeyAmalgamation<'a, PublicParts>>, Unusable> {
    let created = certificate.primary_key().key().creation_time();
    if created > at {
        return Err(Unusable::NotYetValid(date(created)));
    }
    let valid = certificate.with_policy(policy, at).map_err(|error| weak(&error))?;
    if let RevocationStatus::Revoked(by) = valid.revocation_status() {
        return Err(Unusable::Revoked(revoked(&by, at)));
    }
    let primary: ValidErasedKeyAmalgamation<'_, _> = valid.primary_key().into();
    refuse_dead(&primary, at)?;

    let (mut usable, mut why) = (Vec::new(), None);
    for key in certificate.keys() {
        match key.with_policy(policy, at) {
            Ok(key) if !fits(&key, purpose) => {}
            Ok(key) => match refuse_dead(&key, at) {
                Ok(()) if key.key().pk_algo().is_supported() => usable.push(key),
                Ok(()) => why = Some(Unusable::Weak("its algorithm is not known here".to_owned())),
                Err(dead) => why = Some(dead),
            },
            Err(error) => why = why.or_else(|| Some(weak(&error))),
        }
    }
    if usable.is_empty() {
        return Err(why.unwrap_or_else(|| Unusable::NoKey(purpose.verb())));
    }
    Ok(usable)
}

/// Returns the fingerprint and the first user id of a certificate.
pub(super) fn name(certificate: &Cert) -> String {
    let fingerprint = certificate.fingerprint().to_hex();
    match certificate.userids().next() {
        Some(id) => {
            format!("{fingerprint} `{}`", harmless(&String::from_utf8_lossy(id.userid().value())))
        }
        None => fingerprint,
    }
}

/// Returns a date that OpenPGP gave, which has 32 bits for the seconds.
pub(super) fn date(time: SystemTime) -> Date {
    OffsetDateTime::from(time).date()
}

impl Purpose {
    fn verb(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Sign => "sign",
        }
    }
}

fn refuse_dead(
    key: &ValidErasedKeyAmalgamation<'_, PublicParts>,
    at: SystemTime,
) -> Result<(), Unusable> {
    if let RevocationStatus::Revoked(by) = key.revocation_status() {
        return Err(Unusable::Revoked(revoked(&by, at)));
    }
    match key.key_expiration_time() {
        Some(end) if end <= at => Err(Unusable::Expired(date(end))),
        _ => key.alive().map_err(|error| weak(&error)),
    }
}

fn fits(key: &ValidErasedKeyAmalgamation<'_, PublicParts>, purpose: Purpose) -> bool {
    match purpose {
        Purpose::Encrypt => key.for_transport_encryption() || key.for_storage_encryption(),
        Purpose::Sign => key.for_signing(),
    }
}

fn revoked(by: &[&Signature], at: SystemTime) -> Date {
    date(by.iter().filter_map(|by| by.signature_creation_time()).min().unwrap_or(at))
}

fn weak(error: &sequoia_openpgp::anyhow::Error) -> Unusable {
    Unusable::Weak(harmless(&error.root_cause().to_string()))
}

/// Returns a text that somebody else chose, harmless to print.
fn harmless(text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() && c != '`' { c } else { '?' };
    text.chars().take(MAX_NAME_CHARS).map(printable).collect()
}

/// Returns the armored blocks of a text, which the parser takes one at a time, or binary data whole.
fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    // RFC 9580, 4.2: every packet begins with bit 7 set, and no text does.
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return vec![bytes];
    }
    let mut starts: Vec<usize> = bytes
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(_, window)| *window == BEGIN)
        .map(|(start, _)| start)
        .collect();
    starts.push(bytes.len());
    starts.windows(2).filter_map(|ends| bytes.get(*ends.first()?..*ends.last()?)).collect()
}

const BEGIN: &[u8] = b"-----BEGIN PGP";
// An operator's own keys and those of a distribution's releases.
const MAX_CERTIFICATES: usize = 32;
const MAX_NAME_CHARS: usize = 120;
