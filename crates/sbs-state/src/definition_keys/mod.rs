//! The signing keys of an image definition.

mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use sbs_crypto::openpgp::{GenerateOpenPgpKeyError, OpenPgpSigningKey};
use sbs_crypto::{GenerateKeyError, ImageSigningKey, ManifestSigningKey};
use sbs_proto::KeyRole;
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

pub use self::record::{LoadedKeys, ParseRecordError};

/// The signing keys of one image definition, one for each role.
///
/// They are several, so that no signature can be passed off as another: whoever trusts the key of
/// images does not trust whatever else this server states.
pub struct DefinitionKeys {
    attestation: Rotation<ImageSigningKey>,
    image: Rotation<ImageSigningKey>,
    manifest: Rotation<ManifestSigningKey>,
    /// The keys of each repository at a notary, by its globally unique name. What they are is known
    /// to whoever speaks with notaries.
    notary: BTreeMap<String, Zeroizing<Vec<u8>>>,
    openpgp: Rotation<OpenPgpSigningKey>,
}

/// The keys of one role: the one in use, and for a while the one before it.
///
/// Both sign, so that those who know only the old key find a signature of theirs.
#[derive(Debug)]
pub struct Rotation<K> {
    /// The key in use.
    pub current: K,
    /// The key before it, until it is retired.
    pub retiring: Option<K>,
}

impl<K> Rotation<K> {
    fn new(current: K) -> Self {
        Self { current, retiring: None }
    }

    /// Returns the keys that sign, the one in use first.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        std::iter::once(&self.current).chain(&self.retiring)
    }

    fn begin(&mut self, next: K) -> Result<(), RotateKeyError> {
        if self.retiring.is_some() {
            return Err(RotateKeyError::NotRetired);
        }
        self.retiring = Some(std::mem::replace(&mut self.current, next));
        Ok(())
    }

    fn end(&mut self) -> Result<(), RotateKeyError> {
        self.retiring.take().map(drop).ok_or(RotateKeyError::NotRotating)
    }
}

impl DefinitionKeys {
    /// Makes fresh keys; OpenPGP's says when. Takes a good part of a second: not for an async task.
    pub fn generate(at: OffsetDateTime) -> Result<Self, GenerateKeysError> {
        Ok(Self {
            attestation: Rotation::new(ImageSigningKey::generate()?),
            image: Rotation::new(ImageSigningKey::generate()?),
            manifest: Rotation::new(ManifestSigningKey::generate()?),
            notary: BTreeMap::new(),
            openpgp: Rotation::new(OpenPgpSigningKey::generate(USER_ID, at)?),
        })
    }

    /// Returns the keys of statements about images.
    pub fn attestation(&self) -> &Rotation<ImageSigningKey> {
        &self.attestation
    }

    /// Returns the keys that release images.
    pub fn image(&self) -> &Rotation<ImageSigningKey> {
        &self.image
    }

    /// Returns the keys of manifests; the one in use signs, the other is only told of.
    pub fn manifest(&self) -> &Rotation<ManifestSigningKey> {
        &self.manifest
    }

    /// Returns the record of a repository's keys at a notary. Secret.
    pub fn notary(&self, gun: &str) -> Option<&[u8]> {
        self.notary.get(gun).map(|record| record.as_slice())
    }

    /// Returns the keys of Red Hat simple signing.
    pub fn openpgp(&self) -> &Rotation<OpenPgpSigningKey> {
        &self.openpgp
    }

    /// Keeps the record of a repository's keys at a notary.
    pub fn set_notary(&mut self, gun: &str, record: Zeroizing<Vec<u8>>) {
        self.notary.insert(gun.to_owned(), record);
    }

    /// Makes a new key for a role; the one before it signs beside it until it is
    /// [retired](Self::retire). Takes a good part of a second: not for an async task.
    pub fn rotate(&mut self, role: KeyRole, at: OffsetDateTime) -> Result<(), RotateKeyError> {
        let failed = |error| RotateKeyError::Generate(GenerateKeysError::Key(error));
        match role {
            KeyRole::Attestation => {
                self.attestation.begin(ImageSigningKey::generate().map_err(failed)?)
            }
            KeyRole::Image => self.image.begin(ImageSigningKey::generate().map_err(failed)?),
            KeyRole::Manifest => {
                self.manifest.begin(ManifestSigningKey::generate().map_err(failed)?)
            }
            KeyRole::OpenPgp => {
                let key = OpenPgpSigningKey::generate(USER_ID, at);
                self.openpgp.begin(key.map_err(GenerateKeysError::OpenPgp)?)
            }
        }
    }

    /// Ends the rotation of a role: the key before the one in use is gone for good.
    pub fn retire(&mut self, role: KeyRole) -> Result<(), RotateKeyError> {
        match role {
            KeyRole::Attestation => self.attestation.end(),
            KeyRole::Image => self.image.end(),
            KeyRole::Manifest => self.manifest.end(),
            KeyRole::OpenPgp => self.openpgp.end(),
        }
    }
}

impl fmt::Debug for DefinitionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefinitionKeys")
    }
}

/// Keys could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenerateKeysError {
    /// A key of ECDSA or RSA.
    #[error(transparent)]
    Key(#[from] GenerateKeyError),

    /// The key of OpenPGP.
    #[error(transparent)]
    OpenPgp(#[from] GenerateOpenPgpKeyError),
}

/// Why a key was not rotated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RotateKeyError {
    /// No key could be made.
    #[error("cannot make the new key")]
    Generate(#[from] GenerateKeysError),

    /// The last rotation has not ended.
    #[error("the key before the present one still signs; retire it first")]
    NotRetired,

    /// There is nothing to end.
    #[error("there is no key to retire: none has been rotated")]
    NotRotating,
}

/// What relying parties see of the key's owner.
const USER_ID: &str = "Secure Build Server image signing key";
