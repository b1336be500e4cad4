//! Secret keys.

use std::fmt;
use std::io::{self, Write as _};
use std::time::SystemTime;

use sequoia_openpgp::cert::{CertBuilder, CipherSuite};
use sequoia_openpgp::crypto::KeyPair;
use sequoia_openpgp::packet::key::{SecretParts, UnspecifiedRole};
use sequoia_openpgp::packet::{Key, UserID};
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::stream::{LiteralWriter, Message, Signer};
use sequoia_openpgp::serialize::{MarshalInto as _, Serialize as _};
use sequoia_openpgp::types::{Features, KeyFlags};
use sequoia_openpgp::{Cert, Profile, armor};
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::certificate::{Fingerprint, MAX_CERTIFICATE_BYTES, Purpose, Unusable, usable_keys};
use super::read::fenced;

/// The secret key that signs messages: RSA, 3072 bits, version 4, when made here.
pub struct OpenPgpSigningKey(Cert);

/// The secret key that messages are encrypted to: RSA, 3072 bits, version 4, when made here.
///
/// Its primary key certifies the subkey that decrypts, and does nothing else.
pub struct OpenPgpDecryptionKey(pub(super) Cert);

impl OpenPgpSigningKey {
    /// Makes a fresh key that does not expire, for this user id (1 to 200 bytes of text).
    ///
    /// Takes a good part of a second: not for an async task.
    pub fn generate(user_id: &str, at: OffsetDateTime) -> Result<Self, GenerateOpenPgpKeyError> {
        generate(user_id, at, |builder| {
            builder.set_primary_key_flags(KeyFlags::empty().set_certification().set_signing())
        })
        .map(Self)
    }

    /// Parses an unencrypted secret key, armored or binary.
    ///
    /// Whether any of its keys may sign shows when it is to.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseOpenPgpKeyError> {
        parse(bytes).map(Self)
    }

    /// Returns the key as binary packets (RFC 9580, 10.2), unencrypted. Secret.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        to_bytes(&self.0)
    }

    /// Returns the fingerprint of the primary key.
    pub fn fingerprint(&self) -> Fingerprint {
        (&self.0.fingerprint()).into()
    }

    /// Returns the public half, as `gpg --export --armor` writes it.
    pub fn to_armored_certificate(&self) -> String {
        armored_certificate(&self.0)
    }

    /// Signs a payload: a one-pass signature, the payload, the signature (RFC 9580, 10.3), binary
    /// and uncompressed.
    pub fn sign_message(
        &self,
        payload: &[u8],
        at: OffsetDateTime,
    ) -> Result<Vec<u8>, SignMessageError> {
        let signer = self.signer(at)?;
        let mut bytes = Vec::new();
        let write = |bytes: &mut Vec<u8>| -> sequoia_openpgp::Result<()> {
            let message = Signer::new(Message::new(bytes), signer)?.creation_time(at).build()?;
            let mut message = LiteralWriter::new(message).build()?;
            message.write_all(payload)?;
            message.finalize()
        };
        write(&mut bytes).map_err(|_| SignMessageError::Library)?;
        Ok(bytes)
    }

    /// Returns the key that signs at this time.
    pub(super) fn signer(&self, at: OffsetDateTime) -> Result<KeyPair, SignMessageError> {
        let at = SystemTime::from(at);
        let policy = StandardPolicy::at(at);
        let usable = usable_keys(&self.0, &policy, at, Purpose::Sign)?;
        let secret = |key: Key<_, UnspecifiedRole>| {
            key.parts_into_secret().ok().filter(Key::<SecretParts, _>::has_unencrypted_secret)
        };
        let key = usable.iter().find_map(|key| secret(key.key().clone()));
        let key = key.ok_or(Unusable::NoKey("sign"))?;
        key.into_keypair().map_err(|_| SignMessageError::Library)
    }
}

impl OpenPgpDecryptionKey {
    /// Makes a fresh key that does not expire, for this user id (1 to 200 bytes of text).
    ///
    /// Takes a second or two: not for an async task.
    pub fn generate(user_id: &str, at: OffsetDateTime) -> Result<Self, GenerateOpenPgpKeyError> {
        generate(user_id, at, |builder| {
            let encryption = KeyFlags::empty().set_transport_encryption().set_storage_encryption();
            builder
                .set_primary_key_flags(KeyFlags::empty().set_certification())
                .add_subkey(encryption, None, None)
        })
        .map(Self)
    }

    /// Parses an unencrypted secret key, armored or binary.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseOpenPgpKeyError> {
        parse(bytes).map(Self)
    }

    /// Returns the key as binary packets (RFC 9580, 10.2), unencrypted. Secret.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        to_bytes(&self.0)
    }

    /// Returns the fingerprint of the primary key.
    pub fn fingerprint(&self) -> Fingerprint {
        (&self.0.fingerprint()).into()
    }

    /// Returns the public half, as `gpg --export --armor` writes it.
    pub fn to_armored_certificate(&self) -> String {
        armored_certificate(&self.0)
    }
}

impl fmt::Debug for OpenPgpSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenPgpSigningKey")
    }
}

impl fmt::Debug for OpenPgpDecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenPgpDecryptionKey")
    }
}

/// Why a key could not be made.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum GenerateOpenPgpKeyError {
    /// The cryptographic library could not.
    #[error("the cryptographic library cannot make an OpenPGP key")]
    Library,

    /// The user id is none.
    #[error("the user id of an OpenPGP key is 1 to {MAX_USER_ID_BYTES} bytes of printable text")]
    UserId,
}

/// Why the bytes of a secret key were refused; says nothing of their content.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseOpenPgpKeyError {
    /// The secret part is encrypted with a passphrase.
    #[error("the OpenPGP key is protected with a passphrase; export it without one")]
    Locked,

    /// There is no secret part.
    #[error("the OpenPGP key has no secret part; `gpg --export-secret-keys` writes one")]
    NoSecret,

    /// It is not one key.
    #[error("not one OpenPGP key of at most {} KiB, or damaged", MAX_CERTIFICATE_BYTES / 1024)]
    NotOneKey,
}

/// Why a message could not be signed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SignMessageError {
    /// The cryptographic library could not.
    #[error("the cryptographic library cannot sign")]
    Library,

    /// The key must not sign, or not any more.
    #[error("the OpenPGP key cannot sign: {0}")]
    Unusable(#[from] Unusable),
}

fn generate(
    user_id: &str,
    at: OffsetDateTime,
    shape: impl FnOnce(CertBuilder<'static>) -> CertBuilder<'static>,
) -> Result<Cert, GenerateOpenPgpKeyError> {
    let fits = (1..=MAX_USER_ID_BYTES).contains(&user_id.len());
    if !fits || user_id.chars().any(char::is_control) {
        return Err(GenerateOpenPgpKeyError::UserId);
    }
    let make = || -> sequoia_openpgp::Result<Cert> {
        let builder = CertBuilder::new()
            .add_userid(UserID::from(user_id))
            .set_cipher_suite(CipherSuite::RSA3k)
            .set_creation_time(SystemTime::from(at))
            .set_profile(Profile::RFC4880)?
            // Else senders take forms of encryption that GnuPG 2.2 and 2.4 cannot read.
            .set_features(Features::empty().set_seipdv1())?;
        // The revocation certificate is dropped: whoever has the key can make one.
        Ok(shape(builder).generate()?.0)
    };
    make().map_err(|_| GenerateOpenPgpKeyError::Library)
}

fn parse(bytes: &[u8]) -> Result<Cert, ParseOpenPgpKeyError> {
    if bytes.len() > MAX_CERTIFICATE_BYTES {
        return Err(ParseOpenPgpKeyError::NotOneKey);
    }
    let key = fenced(|| Cert::from_bytes(bytes).ok()).ok_or(ParseOpenPgpKeyError::NotOneKey)?;
    if !key.is_tsk() {
        return Err(ParseOpenPgpKeyError::NoSecret);
    }
    if key.keys().unencrypted_secret().next().is_none() {
        return Err(ParseOpenPgpKeyError::Locked);
    }
    Ok(key)
}

fn to_bytes(key: &Cert) -> Zeroizing<Vec<u8>> {
    let key = key.as_tsk();
    // The whole room at once: bytes that move leave copies of a secret behind.
    let mut bytes = Zeroizing::new(vec![0; key.serialized_len()]);
    let written = key.serialize_into(&mut bytes).expect("a key in memory can be encoded");
    bytes.truncate(written);
    bytes
}

fn armored_certificate(key: &Cert) -> String {
    let write = || -> io::Result<Vec<u8>> {
        let mut writer = armor::Writer::new(Vec::new(), armor::Kind::PublicKey)?;
        // A certificate is written without the secret parts of its keys.
        key.serialize(&mut writer).map_err(io::Error::other)?;
        writer.finalize()
    };
    String::from_utf8(write().expect("a certificate in memory can be encoded"))
        .expect("armor is text")
}

const MAX_USER_ID_BYTES: usize = 200;
