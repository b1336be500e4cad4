//! The documents of trust data, parsed and verified.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_proto::{Digest, parse_json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::canonical::canonical;
use super::error::TrustDefect;
use super::key::{KeyId, RawKey, Signature, TrustKey};

/// What a document is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum TrustRole {
    /// Names the keys of all others.
    #[serde(rename = "root")]
    Root,
    /// Says which versions belong together.
    #[serde(rename = "snapshot")]
    Snapshot,
    /// Says which digest a tag has.
    #[serde(rename = "targets")]
    Targets,
    /// Says the same, signed by those whom `targets` names for it; docker looks here first.
    #[serde(rename = "targets/releases")]
    Releases,
    /// Says that this is the present.
    #[serde(rename = "timestamp")]
    Timestamp,
}

impl TrustRole {
    /// Returns the name that it has in addresses and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Releases => "targets/releases",
            Self::Timestamp => "timestamp",
        }
    }

    /// Returns the most bytes that such a document may have.
    pub(super) fn max_bytes(self) -> u64 {
        match self {
            // One hash; a key of each of the few roles; a line for each delegation.
            Self::Timestamp => 64 * 1024,
            Self::Root | Self::Snapshot => 1024 * 1024,
            // Some 120 bytes a tag: 65,000 tags.
            Self::Targets | Self::Releases => 8 * 1024 * 1024,
        }
    }
}

impl fmt::Display for TrustRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a document of a kind holds beside type, version and expiry.
pub(super) trait Body: DeserializeOwned {
    const TYPE: &'static str;
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RootBody {
    keys: BTreeMap<KeyId, RawKey>,
    roles: BTreeMap<String, RawRole>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct TargetsBody {
    pub(super) delegations: Delegations,
    pub(super) targets: BTreeMap<String, FileMeta>,
}

/// The body of a snapshot or a timestamp: what other documents are.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SnapshotBody {
    pub(super) meta: BTreeMap<String, FileMeta>,
}

/// See [`SnapshotBody`].
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TimestampBody {
    pub(super) meta: BTreeMap<String, FileMeta>,
}

impl Body for RootBody {
    const TYPE: &'static str = "Root";
}

impl Body for TargetsBody {
    const TYPE: &'static str = "Targets";
}

impl Body for SnapshotBody {
    const TYPE: &'static str = "Snapshot";
}

impl Body for TimestampBody {
    const TYPE: &'static str = "Timestamp";
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Delegations {
    keys: BTreeMap<KeyId, RawKey>,
    roles: Vec<Delegation>,
}

#[derive(Clone, Debug, Deserialize)]
struct Delegation {
    name: String,
    #[serde(default)]
    paths: Option<Vec<String>>,
    #[serde(flatten)]
    role: RawRole,
}

#[derive(Clone, Debug, Deserialize)]
struct RawRole {
    keyids: Vec<KeyId>,
    threshold: usize,
}

/// The hash and the length of a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct FileMeta {
    hashes: BTreeMap<String, String>,
    pub(super) length: u64,
}

impl FileMeta {
    /// Returns the SHA-256, which every file must have; other hashes beside it add nothing.
    pub(super) fn sha256(&self) -> Option<Digest> {
        let bytes = STANDARD.decode(self.hashes.get("sha256")?).ok()?;
        Some(Digest::from_bytes(bytes.try_into().ok()?))
    }
}

/// The keys that may sign for a role, and how many of them must.
#[derive(Clone, Debug)]
pub(super) struct RoleKeys {
    pub(super) keys: Vec<TrustKey>,
    pub(super) threshold: usize,
}

impl RoleKeys {
    fn new(role: &RawRole, keys: &BTreeMap<KeyId, RawKey>) -> Option<Self> {
        if role.threshold == 0 || role.keyids.len() > MAX_KEYS {
            return None;
        }
        // Each id once: a key that is listed twice is one key.
        let ids: BTreeSet<_> = role.keyids.iter().collect();
        let keys = ids.into_iter().filter_map(|id| keys.get(id)?.parse()).collect();
        Some(Self { keys, threshold: role.threshold })
    }
}

impl RootBody {
    /// Returns who may sign for a role.
    pub(super) fn role(&self, role: TrustRole) -> Result<RoleKeys, TrustDefect> {
        let malformed = TrustDefect::Malformed { role: TrustRole::Root };
        let found = self.roles.get(role.as_str()).and_then(|raw| RoleKeys::new(raw, &self.keys));
        found.ok_or(malformed)
    }

    fn has_true_ids(&self) -> bool {
        have_true_ids(&self.keys)
    }
}

impl TargetsBody {
    /// Returns who may sign for `targets/releases` and for which tags, if anybody.
    pub(super) fn releases(&self) -> Result<Option<(RoleKeys, Paths)>, TrustDefect> {
        let malformed = TrustDefect::Malformed { role: TrustRole::Targets };
        let name = TrustRole::Releases.as_str();
        let mut named = self.delegations.roles.iter().filter(|found| found.name == name);
        let Some(found) = named.next() else { return Ok(None) };
        let keys = RoleKeys::new(&found.role, &self.delegations.keys);
        match (keys, named.next()) {
            (Some(keys), None) => Ok(Some((keys, Paths(found.paths.clone().unwrap_or_default())))),
            _ => Err(malformed),
        }
    }

    fn has_true_ids(&self) -> bool {
        have_true_ids(&self.delegations.keys)
    }
}

/// The beginnings of the names that a delegation is for.
#[derive(Clone, Debug)]
pub(super) struct Paths(Vec<String>);

impl Paths {
    pub(super) fn include(&self, name: &str) -> bool {
        self.0.iter().any(|path| name.starts_with(path))
    }
}

/// A document that was parsed, and believed in nothing.
#[derive(Clone, Debug)]
pub(super) struct Unverified<T> {
    role: TrustRole,
    canonical: String,
    signatures: Vec<Signature>,
    content: Verified<T>,
}

/// A document whose signatures were verified. Only [`Unverified::verify`] makes one.
#[derive(Clone, Debug)]
pub(super) struct Verified<T> {
    pub(super) body: T,
    pub(super) expires: OffsetDateTime,
    /// The signed part with everything that is in it, also what is not known here.
    pub(super) signed: Value,
    pub(super) version: u64,
}

impl<T: Body> Unverified<T> {
    /// Parses a document. What is read is the value whose canonical form the signatures are for.
    pub(super) fn parse(role: TrustRole, bytes: &[u8]) -> Result<Self, TrustDefect> {
        Self::read(role, bytes).ok_or(TrustDefect::Malformed { role })
    }

    fn read(role: TrustRole, bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            signatures: Vec<Signature>,
            signed: Value,
        }
        #[derive(Deserialize)]
        struct Common {
            #[serde(rename = "_type")]
            kind: String,
            expires: String,
            version: u64,
        }
        let Envelope { signatures, signed } = parse_json(bytes).ok()?;
        let common = Common::deserialize(&signed).ok()?;
        if common.kind != T::TYPE || common.version == 0 || signatures.len() > MAX_KEYS {
            return None;
        }
        let expires = OffsetDateTime::parse(&common.expires, &Rfc3339).ok()?;
        let body = T::deserialize(&signed).ok()?;
        let canonical = canonical(&signed)?;
        let content = Verified { body, expires, signed, version: common.version };
        Some(Self { role, canonical, signatures, content })
    }

    /// Verifies that enough keys have signed; how old the document is, is not looked at.
    pub(super) fn verify(self, keys: &RoleKeys) -> Result<Verified<T>, TrustDefect> {
        if self.is_signed_by(keys) {
            return Ok(self.content);
        }
        Err(TrustDefect::Signatures { role: self.role, needed: keys.threshold })
    }

    /// Tells whether enough keys have signed. However often and under however many ids a key
    /// signed, it counts once.
    pub(super) fn is_signed_by(&self, keys: &RoleKeys) -> bool {
        let signed = |key: &&TrustKey| {
            self.signatures.iter().any(|signature| key.has_signed(&self.canonical, signature))
        };
        let signers: BTreeSet<&[u8]> =
            keys.keys.iter().filter(signed).map(TrustKey::spki_der).collect();
        signers.len() >= keys.threshold
    }

    /// Looks at what a document says before its signatures are verified: only a root needs this,
    /// which names the keys that it is signed with.
    pub(super) fn unverified_body(&self) -> &T {
        &self.content.body
    }

    pub(super) fn unverified_version(&self) -> u64 {
        self.content.version
    }
}

impl Unverified<RootBody> {
    pub(super) fn parse_root(bytes: &[u8]) -> Result<Self, TrustDefect> {
        let root = Self::parse(TrustRole::Root, bytes)?;
        if root.content.body.has_true_ids() {
            return Ok(root);
        }
        Err(TrustDefect::Malformed { role: TrustRole::Root })
    }
}

impl Unverified<TargetsBody> {
    pub(super) fn parse_targets(role: TrustRole, bytes: &[u8]) -> Result<Self, TrustDefect> {
        let targets = Self::parse(role, bytes)?;
        if targets.content.body.has_true_ids() {
            return Ok(targets);
        }
        Err(TrustDefect::Malformed { role })
    }
}

/// Tells whether every key has the id that it stands under.
fn have_true_ids(keys: &BTreeMap<KeyId, RawKey>) -> bool {
    keys.len() <= MAX_KEYS && keys.iter().all(|(id, key)| key.id() == *id)
}

// Keys of a role or of a document, and signatures of a document: each costs a verification.
const MAX_KEYS: usize = 64;
