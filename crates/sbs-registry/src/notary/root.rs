//! The root of trust: whether it is the right one.

use time::OffsetDateTime;

use super::TrustDefect;
use super::client::NotarySession;
use super::error::Fault;
use super::key::{KeyId, TrustKey};
use super::metadata::{RoleKeys, RootBody, TrustRole, Unverified, Verified};
use super::name::Gun;
use super::trust::{Remembered, RootPin, Trust};
use crate::RegistryError;

/// A root that may be trusted, and the bytes it was served as.
#[derive(Debug)]
pub(super) struct TrustedRoot {
    pub(super) bytes: Vec<u8>,
    pub(super) document: Verified<RootBody>,
    /// The root keys with a certificate in the repository's name.
    pub(super) keys: RoleKeys,
    /// The pin has put it in the place of what is remembered, which says nothing any more.
    pub(super) begins_anew: bool,
}

impl TrustedRoot {
    pub(super) fn key_ids(&self) -> Vec<KeyId> {
        self.keys.keys.iter().map(TrustKey::id).collect()
    }
}

/// Fetches the root, and follows the chain from the root that is remembered to it. `None` if there
/// is no trust data.
///
/// A root of the key that was pinned needs no chain from one that this key has not signed: whoever
/// gives a pin has been told who the owner is now.
pub(super) async fn fetch_root(
    session: &NotarySession,
    trust: Trust<'_>,
    now: OffsetDateTime,
) -> Result<Option<TrustedRoot>, Fault> {
    let remembered = trust.remembered;
    if remembered.is_some_and(|remembered| !remembered.is_for(session.gun())) {
        let fault = "what is remembered of trust data is another repository's";
        return Err(RegistryError::Internal(fault).into());
    }
    let Some(bytes) = session.latest(TrustRole::Root).await? else {
        return if remembered.is_some() { Err(TrustDefect::Vanished.into()) } else { Ok(None) };
    };
    let root = Unverified::parse_root(&bytes)?;
    let begins_anew = match remembered {
        None => false,
        Some(remembered) => match follow(session, remembered, (&root, &bytes)).await {
            Ok(()) => false,
            Err(Fault::Defect(_)) if is_another(trust.pin, remembered)? => true,
            Err(fault) => return Err(fault),
        },
    };
    let keys = own_keys(session.gun(), &root, now)?;
    check_pin(trust.pin, &root, &keys)?;
    let document = root.verify(&keys)?;
    if document.expires <= now {
        return Err(TrustDefect::Expired { role: TrustRole::Root, at: document.expires }.into());
    }
    if begins_anew {
        session.log().warning(&format!(
            "{}: the root of its image trust data that was remembered is replaced by the given one",
            session.gun()
        ));
    }
    Ok(Some(TrustedRoot { bytes, document, keys, begins_anew }))
}

/// Tells whether a key is pinned that has not signed the root that is remembered. If it has, that root
/// is what the pin asks for, and whatever does not follow from it is old or forged.
fn is_another(pin: &RootPin, remembered: &Remembered) -> Result<bool, TrustDefect> {
    let root = Unverified::parse_root(remembered.root())?;
    let keys = root.unverified_body().role(TrustRole::Root)?;
    Ok(*pin != RootPin::FirstUse && !is_signed_by_pinned(pin, &root, &keys))
}

/// Checks that the remembered root leads to this one: each version is signed by the keys of the one
/// before. That each is signed by its own keys, too, is what made it count then.
async fn follow(
    session: &NotarySession,
    remembered: &Remembered,
    (root, bytes): (&Unverified<RootBody>, &[u8]),
) -> Result<(), Fault> {
    if remembered.root() == bytes {
        return Ok(());
    }
    let mut before = Unverified::parse_root(remembered.root())?;
    let (seen, offered) = (before.unverified_version(), root.unverified_version());
    if offered < seen {
        return Err(TrustDefect::Rollback { role: TrustRole::Root, seen, offered }.into());
    }
    if offered == seen || offered - seen > MAX_ROTATIONS {
        return Err(TrustDefect::RootReplaced.into());
    }
    for version in seen + 1..=offered {
        let next = if version == offered {
            root.clone()
        } else {
            let missing = TrustDefect::Missing { role: TrustRole::Root };
            Unverified::parse_root(&session.root_version(version).await?.ok_or(missing)?)?
        };
        let old = before.unverified_body().role(TrustRole::Root)?;
        let own = next.unverified_body().role(TrustRole::Root)?;
        let signed = next.is_signed_by(&old) && next.is_signed_by(&own);
        if !signed || next.unverified_version() != version {
            return Err(TrustDefect::RootReplaced.into());
        }
        before = next;
    }
    Ok(())
}

/// Returns the root keys that count: those with a valid certificate in the repository's name.
fn own_keys(
    gun: &Gun,
    root: &Unverified<RootBody>,
    now: OffsetDateTime,
) -> Result<RoleKeys, TrustDefect> {
    let mut keys = root.unverified_body().role(TrustRole::Root)?;
    let name = gun.to_string();
    keys.keys.retain(|key| {
        key.certificate().is_some_and(|found| found.common_name() == name && found.is_valid_at(now))
    });
    if keys.keys.is_empty() { Err(TrustDefect::Certificate) } else { Ok(keys) }
}

/// Checks that the key that was given has signed. That it is listed says nothing: whoever makes a
/// root can list any key.
fn check_pin(
    pin: &RootPin,
    root: &Unverified<RootBody>,
    keys: &RoleKeys,
) -> Result<(), TrustDefect> {
    if *pin == RootPin::FirstUse || is_signed_by_pinned(pin, root, keys) {
        return Ok(());
    }
    let signed =
        |key: &&TrustKey| root.is_signed_by(&RoleKeys { keys: vec![(*key).clone()], threshold: 1 });
    let found = keys.keys.iter().filter(signed).map(TrustKey::id).collect();
    Err(TrustDefect::WrongRoot { found })
}

fn is_signed_by_pinned(pin: &RootPin, root: &Unverified<RootBody>, keys: &RoleKeys) -> bool {
    let pinned = keys.keys.iter().filter(|key| pin.is(key)).cloned().collect();
    root.is_signed_by(&RoleKeys { keys: pinned, threshold: 1 })
}

// A root changes once in years.
const MAX_ROTATIONS: u64 = 64;
