//! What a verifier trusts before it asks, and what it remembers for the next time.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::pki::CodeSigningCertificate;
use sbs_proto::parse_json;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::key::{KeyId, TrustKey};
use super::metadata::TrustRole;
use super::name::Gun;

/// What is trusted, and what was seen before.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The root key that must have signed the root.
    pub pin: &'a RootPin,
    /// What the last verification gave. Without it, nothing protects from data that is old and
    /// has not expired. It counts for nothing where the pin is a key that has not signed its root.
    pub remembered: Option<&'a Remembered>,
}

/// A root key that was learned in another way than from the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RootPin {
    /// By its certificate.
    Certificate(CodeSigningCertificate),
    /// None: the root that is there at first use is taken, and has to be remembered.
    FirstUse,
    /// By its id, in its certificate (as `docker trust inspect` shows it) or outside.
    Key(KeyId),
}

impl RootPin {
    /// Parses what users have: the 64 hex digits of an id; a PEM certificate; or base64 of that, as
    /// it stands in the registration file of an image.
    pub fn parse(text: &str) -> Result<Self, ParseRootPinError> {
        let text = text.trim();
        if let Some(id) = KeyId::parse(text) {
            return Ok(Self::Key(id));
        }
        // Programs that write base64 break lines.
        let joined: String = text.split_ascii_whitespace().collect();
        let decoded = STANDARD.decode(joined).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        CodeSigningCertificate::from_pem(decoded.as_deref().unwrap_or(text))
            .map(Self::Certificate)
            .map_err(|_| ParseRootPinError)
    }

    /// Tells whether this is the key.
    pub(super) fn is(&self, key: &TrustKey) -> bool {
        match self {
            Self::Certificate(certificate) => key.certificate() == Some(certificate),
            Self::FirstUse => true,
            Self::Key(id) => *id == key.id() || *id == key.plain_id(),
        }
    }
}

/// The text names no root key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a root key: give the 64 hex digits of its id, or its certificate as PEM or in base64")]
pub struct ParseRootPinError;

/// What a verification has seen: the root, and the versions of everything else. Public.
///
/// The caller keeps it for each repository and gives it to the next verification: that is what an
/// old state is known by. What was kept must be safe from change by others.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct Remembered {
    gun: String,
    root: String,
    versions: BTreeMap<TrustRole, u64>,
}

impl Remembered {
    pub(super) fn new(gun: &Gun, root: &[u8], versions: BTreeMap<TrustRole, u64>) -> Self {
        // What was parsed as JSON is UTF-8.
        let root = String::from_utf8_lossy(root).into_owned();
        Self { gun: gun.to_string(), root, versions }
    }

    /// Parses the text of [`to_json`](Self::to_json).
    pub fn parse(json: &[u8]) -> Result<Self, ParseRememberedError> {
        if json.len() > MAX_REMEMBERED_BYTES {
            return Err(ParseRememberedError);
        }
        parse_json(json).map_err(|_| ParseRememberedError)
    }

    /// Returns it as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can be written")
    }

    /// Returns the repository that it is about, as a [`Gun`] is written.
    pub fn gun(&self) -> &str {
        &self.gun
    }

    pub(super) fn is_for(&self, gun: &Gun) -> bool {
        self.gun == gun.to_string()
    }

    pub(super) fn root(&self) -> &[u8] {
        self.root.as_bytes()
    }

    /// Takes together what was seen in two places of one repository: the newer root, and the highest
    /// version of everything else.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let newer = other.version(TrustRole::Root) > self.version(TrustRole::Root);
        let root = if newer { other.root } else { self.root };
        let mut versions = self.versions;
        for (role, seen) in other.versions {
            let version = versions.entry(role).or_insert(seen);
            *version = seen.max(*version);
        }
        Self { gun: self.gun, root, versions }
    }

    /// Returns the version of a document that was seen.
    pub fn version(&self, role: TrustRole) -> Option<u64> {
        self.versions.get(&role).copied()
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered")
            .field("gun", &self.gun)
            .field("versions", &self.versions)
            .finish_non_exhaustive()
    }
}

/// The text is not what a verification gave.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("what was remembered of image trust data is damaged; remove it to begin again")]
pub struct ParseRememberedError;

// A root of the largest size, with every character escaped.
const MAX_REMEMBERED_BYTES: usize = 4 * 1024 * 1024;
