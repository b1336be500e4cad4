//! Which digest a tag has, by the word of the repository's owner.

use std::fmt;

use sbs_proto::{Digest, ImageTag};
use time::OffsetDateTime;

use super::TrustDefect;
use super::chain::{Chain, Expiry, fetch_chain};
use super::client::NotarySession;
use super::error::{Fault, InvalidTrust};
use super::key::KeyId;
use super::metadata::{FileMeta, TrustRole};
use super::name::Gun;
use super::trust::{Remembered, Trust};
use crate::RegistryError;

/// What is known about a tag.
#[derive(Debug)]
pub enum Verdict {
    /// The server says that nobody signed it.
    Absent(Absence),
    /// There is trust data, and it is wrong.
    Invalid(InvalidTrust),
    /// It is signed.
    Signed(Box<SignedTarget>),
}

/// What there is none of.
#[derive(Debug)]
pub enum Absence {
    /// Trust data of the repository.
    Repository,
    /// The tag, in trust data that is good; to be remembered as after any verification.
    Tag(Remembered),
}

/// The digest of a tag, verified. Only [`verify`] and [`publish()`](super::publish()) make one.
pub struct SignedTarget {
    gun: Gun,
    tag: ImageTag,
    digest: Digest,
    size: u64,
    role: TrustRole,
    root_keys: Vec<KeyId>,
    remembered: Remembered,
}

impl SignedTarget {
    /// Returns the repository.
    pub fn gun(&self) -> &Gun {
        &self.gun
    }

    /// Returns the tag.
    pub fn tag(&self) -> &ImageTag {
        &self.tag
    }

    /// Returns the digest of the image manifest or index.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the number of bytes of that.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns which document says so.
    pub fn role(&self) -> TrustRole {
        self.role
    }

    /// Returns the ids of the root keys that all of it stands under.
    pub fn root_keys(&self) -> &[KeyId] {
        &self.root_keys
    }

    /// Returns what to give to the next verification.
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }
}

impl fmt::Debug for SignedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedTarget({}:{}@{} by {})", self.gun, self.tag, self.digest, self.role)
    }
}

/// Finds out which digest a tag has.
///
/// As docker does, `targets/releases` is looked at first and `targets` after it. Unlike docker,
/// this stops at a `targets/releases` that is wrong or expired.
///
/// An error says that there was no answer: nothing is known then, in particular not that the image
/// is unsigned.
pub async fn verify(
    session: &NotarySession,
    tag: &ImageTag,
    trust: Trust<'_>,
    now: OffsetDateTime,
) -> Result<Verdict, RegistryError> {
    let judged = match fetch_chain(session, trust, now, Expiry::Strict).await {
        Ok(None) => return Ok(Verdict::Absent(Absence::Repository)),
        Ok(Some(chain)) => judge(session.gun(), tag, chain),
        Err(Fault::Defect(defect)) => Err(defect),
        Err(Fault::Unanswered(error)) => return Err(error),
    };
    Ok(judged.unwrap_or_else(|defect| {
        Verdict::Invalid(InvalidTrust { gun: session.gun().clone(), defect })
    }))
}

fn judge(gun: &Gun, tag: &ImageTag, chain: Chain) -> Result<Verdict, TrustDefect> {
    let Some((role, meta)) = find(tag, &chain) else {
        return Ok(Verdict::Absent(Absence::Tag(chain.remembered)));
    };
    let digest = meta.sha256().ok_or(TrustDefect::Target { role })?;
    if meta.length == 0 {
        return Err(TrustDefect::Target { role });
    }
    Ok(Verdict::Signed(Box::new(SignedTarget {
        gun: gun.clone(),
        tag: tag.clone(),
        digest,
        size: meta.length,
        role,
        root_keys: chain.root.key_ids(),
        remembered: chain.remembered,
    })))
}

fn find<'a>(tag: &ImageTag, chain: &'a Chain) -> Option<(TrustRole, &'a FileMeta)> {
    let name = tag.as_str();
    let releases = chain.releases.as_ref().filter(|releases| releases.paths.include(name));
    let released = releases.and_then(|releases| releases.document.as_ref()?.body.targets.get(name));
    let released = released.map(|meta| (TrustRole::Releases, meta));
    released.or_else(|| Some((TrustRole::Targets, chain.targets.body.targets.get(name)?)))
}
