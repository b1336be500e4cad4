//! Signing a tag: the owner's side.

use sbs_crypto::SignError;
use sbs_proto::{Digest, ImageTag};
use serde_json::{Value, json};
use thiserror::Error;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::time::sleep;

use super::TrustDefect;
use super::chain::{Chain, Expiry, fetch_chain};
use super::client::{NotarySession, Publishing};
use super::error::{Fault, InvalidTrust};
use super::key::{KeyId, TrustKey};
use super::keys::NotaryKeys;
use super::metadata::{RoleKeys, TargetsBody, TrustRole, Verified};
use super::name::Gun;
use super::trust::{Remembered, Trust};
use super::verify::{SignedTarget, Verdict, verify};
use crate::RegistryError;

/// A tag that is to have a digest.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The tag.
    pub tag: &'a ImageTag,
    /// The digest of the image manifest or index.
    pub digest: Digest,
    /// The number of bytes of that.
    pub size: u64,
    /// The keys of the repository.
    pub keys: &'a NotaryKeys,
    /// What the last publication gave; protects from signing again what was taken back.
    pub remembered: Option<&'a Remembered>,
}

/// A tag that is signed, and verified after that.
#[derive(Debug)]
pub struct Published {
    /// What the server says now.
    pub target: SignedTarget,
    /// Whether anything was published for it.
    pub change: Change,
}

/// What a publication changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// There was no trust data.
    Created,
    /// Nothing: it was there.
    Unchanged,
    /// A new version was published.
    Updated,
}

/// Signs the digest of a tag, and verifies afterwards that this is what the server says.
///
/// What others have signed stays. Where there is a delegation `targets/releases` that our key may
/// sign, it goes there, and into `targets` otherwise, as docker does. Where it stands already,
/// nothing is published, unless it is about to expire.
pub async fn publish(
    session: &NotarySession,
    publication: Publication<'_>,
    now: OffsetDateTime,
) -> Result<Published, PublishError> {
    let gun = session.gun();
    if !publication.keys.are_for(gun) {
        return Err(PublishError::OtherKeys { gun: gun.clone() });
    }
    let trust = Trust { pin: &publication.keys.pin(), remembered: publication.remembered };
    let change = write(session, publication, trust, now).await?;
    let target = read_back(session, publication, trust, now).await?;
    let (tag, digest, role) = (publication.tag, publication.digest, target.role());
    session.log().info(&match change {
        Change::Unchanged => format!("{gun}:{tag}: image trust data has {digest} already"),
        Change::Created | Change::Updated => {
            format!("{gun}:{tag}: signed {digest} in image trust data, as {role}")
        }
    });
    Ok(Published { target, change })
}

/// Why a tag was not signed, or is not known to be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Others published again and again.
    #[error(
        "others changed the image trust data of `{gun}` at the same time, {attempts} times; try again"
    )]
    Conflict {
        /// The repository.
        gun: Gun,
        /// How often it was tried.
        attempts: u32,
    },

    /// What is there is wrong.
    #[error(transparent)]
    Invalid(InvalidTrust),

    /// Whoever else has our root key has taken the right to sign from our other key.
    #[error(
        "`{role}` of `{gun}` is not for the key {key} to sign alone any more: its root was changed by \
         another program that has the root key"
    )]
    NotASigner {
        /// The repository.
        gun: Gun,
        /// The document.
        role: TrustRole,
        /// Our key.
        key: KeyId,
    },

    /// What was published does not show.
    #[error(
        "the server took image trust data for `{gun}:{tag}` and shows {}",
        found.map_or_else(|| "none".to_owned(), |found| format!("another digest, {found}"))
    )]
    NotShown {
        /// The repository.
        gun: Gun,
        /// The tag.
        tag: ImageTag,
        /// What it shows.
        found: Option<Digest>,
    },

    /// The keys were made for another repository.
    #[error("the keys for image trust data are not those of `{gun}`")]
    OtherKeys {
        /// The repository.
        gun: Gun,
    },

    /// The exchange with the server did not succeed.
    #[error(transparent)]
    Registry(#[from] RegistryError),

    /// A signature could not be made.
    #[error("cannot sign image trust data")]
    Sign(#[from] SignError),

    /// The repository's root key is one that we do not have.
    #[error(
        "`{gun}` has image trust data that stands under another root key, {}, than ours, {ours}: it \
         was signed by another server or by a state that is lost; import the state image of the \
         server that signed it, or push to another repository",
        found.first().map_or_else(|| "which is not known".to_owned(), ToString::to_string)
    )]
    Stranded {
        /// The repository.
        gun: Gun,
        /// The root keys that it stands under.
        found: Vec<KeyId>,
        /// Our root key.
        ours: KeyId,
    },
}

/// Publishes until it stands there.
async fn write(
    session: &NotarySession,
    publication: Publication<'_>,
    trust: Trust<'_>,
    now: OffsetDateTime,
) -> Result<Change, PublishError> {
    let attempts = session.limits().attempts;
    let mut pause = session.limits().first_pause;
    for attempt in 1..=attempts {
        let chain = fetch_chain(session, trust, now, Expiry::Renewing).await;
        let (documents, change) =
            match chain.map_err(|fault| refused(session.gun(), publication, fault))? {
                Some(chain) => match update(session.gun(), publication, &chain, now)? {
                    Some(documents) => (documents, Change::Updated),
                    None => return Ok(Change::Unchanged),
                },
                None => (create(session, publication, now).await?, Change::Created),
            };
        match session.publish(&documents).await? {
            Publishing::Done => return Ok(change),
            Publishing::Conflict => session.log().warning(&format!(
                "{}: others changed the image trust data; attempt {attempt} of {attempts}",
                session.gun()
            )),
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(session.limits().longest_pause);
    }
    Err(PublishError::Conflict { gun: session.gun().clone(), attempts })
}

/// Makes the first documents. The server keeps the keys of snapshot and timestamp, so that both are
/// made anew whenever something is published or runs out.
pub(super) async fn create(
    session: &NotarySession,
    publication: Publication<'_>,
    now: OffsetDateTime,
) -> Result<Vec<(TrustRole, String)>, PublishError> {
    let keys = publication.keys;
    let holders = [
        (TrustRole::Root, keys.root_key()),
        (TrustRole::Targets, keys.targets_key()),
        (TrustRole::Snapshot, session.server_key(TrustRole::Snapshot).await?),
        (TrustRole::Timestamp, session.server_key(TrustRole::Timestamp).await?),
    ];
    let role = |id| json!({ "keyids": [id], "threshold": 1 });
    let expires = expiry(now, ROOT_LIFETIME)?.min(keys.certificate().not_after());
    let root = json!({
        "_type": "Root",
        "consistent_snapshot": false,
        "expires": date(expires)?,
        "keys": holders.iter().map(|(_, key)| (key.id().to_string(), key.to_json())).collect::<serde_json::Map<_, _>>(),
        "roles": holders.iter().map(|(name, key)| (name.to_string(), role(key.id()))).collect::<serde_json::Map<_, _>>(),
        "version": 1,
    });
    let targets = signed_targets(&empty_targets(), 1, publication, now)?;
    Ok(vec![
        (TrustRole::Root, keys.sign_root(&root)?),
        (TrustRole::Targets, keys.sign_targets(keys.targets_key().id(), &targets)?),
    ])
}

/// Makes the next version of the document that the tag goes into; `None` if it stands there.
fn update(
    gun: &Gun,
    publication: Publication<'_>,
    chain: &Chain,
    now: OffsetDateTime,
) -> Result<Option<Vec<(TrustRole, String)>>, PublishError> {
    let (role, id, document) = choose(gun, publication, chain)?;
    if document.is_some_and(|document| stands(document, publication, now)) {
        return Ok(None);
    }
    let empty = empty_targets();
    let (before, version) =
        document.map_or((&empty, 0), |document| (&document.signed, document.version));
    let targets = signed_targets(before, version + 1, publication, now)?;
    Ok(Some(vec![(role, publication.keys.sign_targets(id, &targets)?)]))
}

/// Chooses where the tag goes, and the id that our key has there.
fn choose<'a>(
    gun: &Gun,
    publication: Publication<'_>,
    chain: &'a Chain,
) -> Result<(TrustRole, KeyId, Option<&'a Verified<TargetsBody>>), PublishError> {
    let ours = publication.keys.targets_key();
    let may_sign = |keys: &RoleKeys| {
        let key = ours.parse()?;
        let same = |found: &&TrustKey| found.spki_der() == key.spki_der();
        keys.keys.iter().find(same).filter(|_| keys.threshold == 1).map(TrustKey::id)
    };
    if let Some(releases) = &chain.releases
        && releases.paths.include(publication.tag.as_str())
        && let Some(id) = may_sign(&releases.keys)
    {
        return Ok((TrustRole::Releases, id, releases.document.as_ref()));
    }
    let role = TrustRole::Targets;
    let keys = chain.root.document.body.role(role);
    match keys.ok().as_ref().and_then(may_sign) {
        Some(id) => Ok((role, id, Some(&chain.targets))),
        None => Err(PublishError::NotASigner { gun: gun.clone(), role, key: ours.id() }),
    }
}

fn stands(
    document: &Verified<TargetsBody>,
    publication: Publication<'_>,
    now: OffsetDateTime,
) -> bool {
    document.body.targets.get(publication.tag.as_str()).is_some_and(|found| {
        found.sha256() == Some(publication.digest) && found.length == publication.size
    }) && document.expires > now.saturating_add(RENEWAL)
}

/// Returns a document with the tag in it, and everything that was in it before.
fn signed_targets(
    before: &Value,
    version: u64,
    publication: Publication<'_>,
    now: OffsetDateTime,
) -> Result<Value, PublishError> {
    use base64::Engine as _;
    let sha256 = base64::engine::general_purpose::STANDARD.encode(publication.digest.as_bytes());
    let mut signed = before.clone();
    let no_object = RegistryError::Internal("targets that are no object");
    let Some(members) = signed.as_object_mut() else { return Err(no_object.into()) };
    members.insert("version".to_owned(), version.into());
    members.insert("expires".to_owned(), date(expiry(now, TARGETS_LIFETIME)?)?.into());
    let Some(targets) = members.get_mut("targets").and_then(Value::as_object_mut) else {
        return Err(no_object.into());
    };
    let target = json!({ "hashes": { "sha256": sha256 }, "length": publication.size });
    targets.insert(publication.tag.to_string(), target);
    Ok(signed)
}

fn empty_targets() -> Value {
    json!({ "_type": "Targets", "delegations": { "keys": {}, "roles": [] }, "targets": {} })
}

/// Verifies that the server shows what was published, which may take it a while.
async fn read_back(
    session: &NotarySession,
    publication: Publication<'_>,
    trust: Trust<'_>,
    now: OffsetDateTime,
) -> Result<SignedTarget, PublishError> {
    let mut pause = session.limits().first_pause;
    let mut left = session.limits().attempts;
    loop {
        left = left.saturating_sub(1);
        let found = match verify(session, publication.tag, trust, now).await? {
            Verdict::Invalid(invalid) if left == 0 => return Err(PublishError::Invalid(invalid)),
            Verdict::Signed(target)
                if (target.digest(), target.size()) == (publication.digest, publication.size) =>
            {
                return Ok(*target);
            }
            Verdict::Signed(target) => Some(target.digest()),
            Verdict::Absent(_) | Verdict::Invalid(_) => None,
        };
        if left == 0 {
            let (gun, tag) = (session.gun().clone(), publication.tag.clone());
            return Err(PublishError::NotShown { gun, tag, found });
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(session.limits().longest_pause);
    }
}

fn refused(gun: &Gun, publication: Publication<'_>, fault: Fault) -> PublishError {
    let gun = gun.clone();
    match fault {
        Fault::Defect(TrustDefect::WrongRoot { found }) => {
            PublishError::Stranded { gun, found, ours: publication.keys.root_key_id() }
        }
        Fault::Defect(defect) => PublishError::Invalid(InvalidTrust { gun, defect }),
        Fault::Unanswered(error) => PublishError::Registry(error),
    }
}

fn expiry(now: OffsetDateTime, lifetime: Duration) -> Result<OffsetDateTime, RegistryError> {
    now.checked_add(lifetime).ok_or(RegistryError::Internal("a time that is out of range"))
}

/// Writes a time in whole seconds: a fraction would be written in more than one way.
fn date(time: OffsetDateTime) -> Result<String, RegistryError> {
    let time = time.to_offset(time::UtcOffset::UTC).truncate_to_second();
    time.format(&Rfc3339).map_err(|_| RegistryError::Internal("a time that is out of range"))
}

// As docker's client has them.
const ROOT_LIFETIME: Duration = Duration::days(3650);
const TARGETS_LIFETIME: Duration = Duration::days(3 * 365);
/// What expires sooner is signed again.
const RENEWAL: Duration = Duration::days(183);
