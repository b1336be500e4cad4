//! OpenPGP (RFC 9580; keys and messages of RFC 4880, which every `GnuPG` reads): signed messages,
//! as Red Hat's simple signing has them, and messages for one recipient.
//!
//! - [`OpenPgpSigningKey`] signs; [`OpenPgpVerifier`] verifies what it, or any other key, signed.
//! - [`OpenPgpRecipient`] encrypts; [`OpenPgpDecryptionKey`] decrypts.
//!
//! A key serves one purpose, and what a certificate says of its keys is held against the point in
//! time that the caller gives: none that is expired, revoked or weak signs, verifies or encrypts.
//! Everything that is read has a limit ([`MAX_CERTIFICATE_BYTES`], [`MAX_SIGNED_BYTES`],
//! [`MAX_ENCRYPTED_BYTES`]).
//!
//! ```
//! use sbs_crypto::openpgp::{OpenPgpSigningKey, OpenPgpVerifier};
//! use time::macros::datetime;
//!
//! let now = datetime!(2026-01-01 00:00 UTC);
//! let key = OpenPgpSigningKey::generate("build server", now)?;
//! let message = key.sign_message(b"a payload", now)?;
//!
//! let verifier = OpenPgpVerifier::parse(key.to_armored_certificate().as_bytes(), now)?;
//! let verified = verifier.verify_message(&message)?;
//! assert_eq!(verified.payload(), b"a payload");
//! assert_eq!(verified.certificate(), &key.fingerprint());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod certificate;
mod encrypt;
#[cfg(test)]
mod gpg;
mod key;
mod read;
mod recipients;
#[cfg(test)]
mod tests;
mod verify;

pub use self::certificate::{Fingerprint, MAX_CERTIFICATE_BYTES, ParseCertificateError, Unusable};
pub use self::encrypt::{EncryptError, MAX_ENCRYPTED_BYTES, OpenPgpRecipient};
pub use self::key::{
    GenerateOpenPgpKeyError, OpenPgpDecryptionKey, OpenPgpSigningKey, ParseOpenPgpKeyError,
    SignMessageError,
};
pub use self::read::DecryptError;
pub use self::recipients::recipients;
pub use self::verify::{
    MAX_SIGNED_BYTES, OpenPgpVerifier, RefusedCertificate, VerifiedMessage, VerifyMessageError,
    begins_like_a_signed_message,
};
