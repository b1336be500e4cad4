//! The identity of the server: the OpenPGP key that `SERVER_KEY` can be encrypted to, so that the key
//! of its certificate travels closed to all but this server.

use std::sync::Arc;

use sbs_crypto::openpgp::{
    DecryptError, GenerateOpenPgpKeyError, OpenPgpDecryptionKey, recipients,
};
use sbs_state::{AtRest, PrfError};
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{Settings, credentials_directory};
use crate::core::error::KeepError;
use crate::root_secret::{self, OpenRootSecretError};
use crate::sealed_file::SealedFile;
use crate::store::{OpenStoreError, Store};

/// Makes the identity. Returns what to tell.
pub(crate) fn init(settings: &Settings, clock: Clock) -> Result<String, IdentityError> {
    let at_rest = at_rest(settings)?;
    let store = Store::open(&settings.data_directory)?;
    let file = SealedFile::new(&store, &at_rest, NAME, WHAT);
    if file.load()?.is_some() {
        return Err(IdentityError::Exists);
    }
    let key = OpenPgpDecryptionKey::generate(USER_ID, clock.now())?;
    file.save(&key.to_bytes())?;
    Ok(format!("{}\n", key.fingerprint()))
}

/// Returns the public half of the identity, armored. The server may be running.
pub(crate) fn export(settings: &Settings) -> Result<String, IdentityError> {
    let at_rest = at_rest(settings)?;
    let file = SealedFile::beside(&settings.data_directory, &at_rest, NAME, WHAT);
    let key = load(&file)?.ok_or(IdentityError::None)?;
    Ok(key.to_armored_certificate())
}

/// Opens the server's key (PEM) in an OpenPGP message, with the identity in the data directory.
pub(crate) fn open_server_key(
    message: &str,
    store: &Store,
    at_rest: &Arc<AtRest>,
    now: OffsetDateTime,
) -> Result<Zeroizing<String>, OpenServerKeyError> {
    let file = SealedFile::new(store, at_rest, NAME, WHAT);
    let key = load(&file)?.ok_or(OpenServerKeyError::NoIdentity)?;
    decrypt(&key, message, now)
}

fn decrypt(
    key: &OpenPgpDecryptionKey,
    message: &str,
    now: OffsetDateTime,
) -> Result<Zeroizing<String>, OpenServerKeyError> {
    let opened = key.decrypt(message.as_bytes(), now);
    let opened = opened.map_err(|source| {
        let named = recipients(message.as_bytes());
        let ours = key.key_ids();
        if named.is_empty() || named.iter().any(|id| ours.contains(id)) {
            return OpenServerKeyError::Decrypt(source);
        }
        let fingerprint = key.fingerprint().to_string();
        OpenServerKeyError::OtherRecipient { named: named.join(", "), fingerprint }
    })?;
    let text = str::from_utf8(&opened).ok().filter(|text| text.contains("PRIVATE KEY-----"));
    Ok(Zeroizing::new(text.ok_or(OpenServerKeyError::NotAKey)?.to_owned()))
}

fn load(file: &SealedFile) -> Result<Option<OpenPgpDecryptionKey>, KeepError> {
    let Some(bytes) = file.load()? else { return Ok(None) };
    OpenPgpDecryptionKey::from_bytes(&bytes).map(Some).map_err(KeepError::damaged(WHAT))
}

fn at_rest(settings: &Settings) -> Result<Arc<AtRest>, IdentityError> {
    let ring = root_secret::open(&settings.root_secret, credentials_directory().as_deref())?;
    Ok(Arc::new(AtRest::new(&ring)?))
}

/// Why the identity was not made, or not printed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum IdentityError {
    /// There is one.
    #[error("the server has an identity; `sbs-server identity export` prints its public half")]
    Exists,

    /// The key could not be made.
    #[error(transparent)]
    Generate(#[from] GenerateOpenPgpKeyError),

    /// The key could not be kept, or cannot be read.
    #[error(transparent)]
    Keep(#[from] KeepError),

    /// There is none.
    #[error("the server has no identity; make one with `sbs-server identity init`")]
    None,

    /// The root secret does not compute.
    #[error("the root secret cannot be used")]
    Prf(#[from] PrfError),

    /// The root secret cannot be had.
    #[error("there is no root secret to seal the identity under")]
    RootSecret(#[from] OpenRootSecretError),

    /// The data directory cannot be used.
    #[error("the identity cannot be kept; stop the server first")]
    Store(#[from] OpenStoreError),
}

/// Why the key of the server was not had from an OpenPGP message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum OpenServerKeyError {
    /// It is for this server, as it says, or for nobody in particular, and does not open.
    #[error("SERVER_KEY cannot be decrypted; print it again with `sbs instance-env`")]
    Decrypt(#[source] DecryptError),

    /// The identity cannot be read.
    #[error(transparent)]
    Keep(#[from] KeepError),

    /// There is no identity.
    #[error(
        "SERVER_KEY is an OpenPGP message, and this server has no identity to open it with; make \
         one with `sbs-server identity init`, and encrypt to what `sbs-server identity export` prints"
    )]
    NoIdentity,

    /// What it holds is something else.
    #[error("SERVER_KEY is an OpenPGP message that holds no PEM of a private key")]
    NotAKey,

    /// It is for another key.
    #[error(
        "SERVER_KEY is encrypted to the key {named}, and this server's identity is {fingerprint}; \
         encrypt it to what `sbs-server identity export` prints"
    )]
    OtherRecipient { named: String, fingerprint: String },
}

const NAME: &str = "identity";
const WHAT: &str = "the identity";
const USER_ID: &str = "Secure Build Server";

#[cfg(test)]
mod tests {
    use sbs_crypto::openpgp::OpenPgpRecipient;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn key() -> OpenPgpDecryptionKey {
        OpenPgpDecryptionKey::generate(USER_ID, NOW).unwrap()
    }

    fn message(key: &OpenPgpDecryptionKey, text: &str) -> String {
        let certificate = key.to_armored_certificate();
        let recipient = OpenPgpRecipient::parse(certificate.as_bytes(), NOW).unwrap();
        recipient.encrypt(text.as_bytes(), NOW).unwrap()
    }

    #[test]
    fn a_key_comes_out_as_it_went_in_and_nothing_else_does() {
        let (ours, theirs) = (key(), key());
        let pem = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n";
        assert_eq!(*decrypt(&ours, &message(&ours, pem), NOW).unwrap(), pem);

        let other = decrypt(&ours, &message(&theirs, pem), NOW).unwrap_err().to_string();
        assert!(other.contains(&theirs.key_ids()[1]), "{other}");
        assert!(other.contains(&ours.fingerprint().to_string()), "{other}");
        let text = decrypt(&ours, &message(&ours, "canary"), NOW).unwrap_err();
        assert!(matches!(text, OpenServerKeyError::NotAKey), "{text}");
        assert!(!text.to_string().contains("canary"));
        let whole = message(&ours, pem);
        for damaged in
            [whole.replacen("\n\n", "\n\nA", 1), whole.chars().take(200).collect(), String::new()]
        {
            let error = decrypt(&ours, &damaged, NOW).unwrap_err();
            assert!(matches!(error, OpenServerKeyError::Decrypt(_)), "{error}");
        }
        // A key that is not valid yet by this clock: it says so by not opening.
        let early = datetime!(2026-11-20 12:00 UTC);
        decrypt(&ours, &message(&ours, pem), early).unwrap_err();
    }
}
