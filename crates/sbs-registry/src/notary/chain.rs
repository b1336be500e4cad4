//! The way from a trusted root to what is signed now (TUF specification 1.0, 5.3 to 5.6).

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::TrustDefect;
use super::client::{NotarySession, check_listed};
use super::error::Fault;
use super::metadata::{
    Body, FileMeta, Paths, RoleKeys, SnapshotBody, TargetsBody, TimestampBody, TrustRole,
    Unverified, Verified,
};
use super::root::{TrustedRoot, fetch_root};
use super::trust::{Remembered, Trust};

/// Everything that a repository's trust data says, verified.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) root: TrustedRoot,
    pub(super) targets: Verified<TargetsBody>,
    pub(super) releases: Option<Releases>,
    pub(super) remembered: Remembered,
}

/// The delegation that docker looks at first.
#[derive(Debug)]
pub(super) struct Releases {
    pub(super) keys: RoleKeys,
    pub(super) paths: Paths,
    /// `None` as long as nothing was published there.
    pub(super) document: Option<Verified<TargetsBody>>,
}

/// What may be expired.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expiry {
    /// Nothing.
    Strict,
    /// What a publisher is about to sign again.
    Renewing,
}

/// Fetches and verifies the trust data of a repository; `None` if there is none.
pub(super) async fn fetch_chain(
    session: &NotarySession,
    trust: Trust<'_>,
    now: OffsetDateTime,
    expiry: Expiry,
) -> Result<Option<Chain>, Fault> {
    match fetch_once(session, trust, now, expiry).await {
        // The root may have been replaced between the first request and the third.
        Err(Fault::Defect(TrustDefect::HashMismatch { role: TrustRole::Root, .. })) => {
            fetch_once(session, trust, now, expiry).await
        }
        other => other,
    }
}

async fn fetch_once(
    session: &NotarySession,
    trust: Trust<'_>,
    now: OffsetDateTime,
    expiry: Expiry,
) -> Result<Option<Chain>, Fault> {
    let Some(root) = fetch_root(session, trust, now).await? else { return Ok(None) };
    let remembered = trust.remembered.filter(|_| !root.begins_anew);
    let mut chain = Fetch { session, remembered, now, expiry, versions: BTreeMap::new() };
    chain.versions.insert(TrustRole::Root, root.document.version);

    let role = TrustRole::Timestamp;
    let bytes = session.latest(role).await?.ok_or(TrustDefect::Missing { role })?;
    let document = Unverified::<TimestampBody>::parse(role, &bytes)?;
    let timestamp = chain.accept(role, document, &root.document.body.role(role)?)?;

    let (by, role) = (role, TrustRole::Snapshot);
    let bytes = session.listed(role, by, listed(&timestamp.body.meta, role, by)?).await?;
    let document = Unverified::<SnapshotBody>::parse(role, &bytes)?;
    let snapshot = chain.accept(role, document, &root.document.body.role(role)?)?;

    let by = role;
    let meta = listed(&snapshot.body.meta, TrustRole::Root, by)?;
    let digest = meta.sha256().ok_or(TrustDefect::Malformed { role: by })?;
    check_listed(TrustRole::Root, by, &root.bytes, (digest, meta.length))?;

    let role = TrustRole::Targets;
    let bytes = session.listed(role, by, listed(&snapshot.body.meta, role, by)?).await?;
    let document = Unverified::parse_targets(role, &bytes)?;
    let targets = chain.accept(role, document, &root.document.body.role(role)?)?;

    let releases = match targets.body.releases()? {
        Some((keys, paths)) => {
            let document = chain.releases(&keys, &snapshot.body.meta).await?;
            Some(Releases { keys, paths, document })
        }
        None => None,
    };
    let remembered = Remembered::new(session.gun(), &root.bytes, chain.versions);
    Ok(Some(Chain { root, targets, releases, remembered }))
}

struct Fetch<'a> {
    session: &'a NotarySession,
    remembered: Option<&'a Remembered>,
    now: OffsetDateTime,
    expiry: Expiry,
    versions: BTreeMap<TrustRole, u64>,
}

impl Fetch<'_> {
    /// Verifies a document: its signatures, that it is not older than what was seen, and that it
    /// has not expired.
    fn accept<T: Body>(
        &mut self,
        role: TrustRole,
        document: Unverified<T>,
        keys: &RoleKeys,
    ) -> Result<Verified<T>, TrustDefect> {
        let document = document.verify(keys)?;
        let offered = document.version;
        match self.remembered.and_then(|remembered| remembered.version(role)) {
            Some(seen) if offered < seen => {
                return Err(TrustDefect::Rollback { role, seen, offered });
            }
            _ => {}
        }
        let renewing = self.expiry == Expiry::Renewing
            && matches!(role, TrustRole::Targets | TrustRole::Releases);
        if document.expires <= self.now && !renewing {
            return Err(TrustDefect::Expired { role, at: document.expires });
        }
        self.versions.insert(role, offered);
        Ok(document)
    }

    /// Fetches the delegation, which is there once something was published in it.
    async fn releases(
        &mut self,
        keys: &RoleKeys,
        meta: &BTreeMap<String, FileMeta>,
    ) -> Result<Option<Verified<TargetsBody>>, Fault> {
        let (role, by) = (TrustRole::Releases, TrustRole::Snapshot);
        let Some(meta) = meta.get(role.as_str()) else {
            let seen = self.remembered.and_then(|remembered| remembered.version(role));
            return match seen {
                Some(_) => Err(TrustDefect::Missing { role }.into()),
                None => Ok(None),
            };
        };
        let bytes = self.session.listed(role, by, meta).await?;
        let document = Unverified::parse_targets(role, &bytes)?;
        Ok(Some(self.accept(role, document, keys)?))
    }
}

fn listed(
    meta: &BTreeMap<String, FileMeta>,
    role: TrustRole,
    by: TrustRole,
) -> Result<&FileMeta, TrustDefect> {
    meta.get(role.as_str()).ok_or(TrustDefect::Malformed { role: by })
}
