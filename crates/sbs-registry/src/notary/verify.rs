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
    /// The tag, or a tag with the digest, in trust data that is good; to be remembered as after any
    /// verification.
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
    look_up(session, trust, now, |chain| Some((tag.clone(), find(tag, chain)?))).await
}

/// Finds out whether some tag has this digest; the first one is told.
///
/// An error says that there was no answer, as with [`verify`].
pub async fn verify_digest(
    session: &NotarySession,
    digest: Digest,
    trust: Trust<'_>,
    now: OffsetDateTime,
) -> Result<Verdict, RegistryError> {
    look_up(session, trust, now, |chain| find_digest(digest, chain)).await
}

/// A tag, and the entry that counts for it.
type Found<'a> = (ImageTag, (TrustRole, &'a FileMeta));

async fn look_up(
    session: &NotarySession,
    trust: Trust<'_>,
    now: OffsetDateTime,
    find: impl Fn(&Chain) -> Option<Found<'_>>,
) -> Result<Verdict, RegistryError> {
    let judged = match fetch_chain(session, trust, now, Expiry::Strict).await {
        Ok(None) => return Ok(Verdict::Absent(Absence::Repository)),
        Ok(Some(chain)) => judge(session.gun(), chain, find),
        Err(Fault::Defect(defect)) => Err(defect),
        Err(Fault::Unanswered(error)) => return Err(error),
    };
    Ok(judged.unwrap_or_else(|defect| {
        Verdict::Invalid(InvalidTrust { gun: session.gun().clone(), defect })
    }))
}

fn judge(
    gun: &Gun,
    chain: Chain,
    find: impl Fn(&Chain) -> Option<Found<'_>>,
) -> Result<Verdict, TrustDefect> {
    let Some((tag, (role, meta))) = find(&chain) else {
        return Ok(Verdict::Absent(Absence::Tag(chain.remembered)));
    };
    let digest = meta.sha256().ok_or(TrustDefect::Target { role })?;
    if meta.length == 0 {
        return Err(TrustDefect::Target { role });
    }
    Ok(Verdict::Signed(Box::new(SignedTarget {
        gun: gun.clone(),
        tag,
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

/// Looks at every tag as [`find`] does: an entry that another document overrides says nothing.
fn find_digest(digest: Digest, chain: &Chain) -> Option<Found<'_>> {
    let released = chain.releases.iter().filter_map(|releases| releases.document.as_ref());
    let documents = released.chain([&chain.targets]);
    let names = documents.flat_map(|document| document.body.targets.keys());
    let mut tags = names.filter_map(|name| ImageTag::parse(name).ok());
    tags.find_map(|tag| {
        let (role, meta) = find(&tag, chain)?;
        (meta.sha256() == Some(digest)).then_some((tag, (role, meta)))
    })
}
