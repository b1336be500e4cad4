//! One image definition: what is kept of it, its builds, and what it does now.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sbs_proto::{Definition, DefinitionName, RESTARTED_CICD, RuntimeType, StatusText};
use sbs_registry::notary::NotaryKeys;
use sbs_state::{ClientShare, DefinitionKeys};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::build::job::{Recorded, Stopped};
use crate::build::log::{BuildLog, Masks};
use crate::clock::Clock;
use crate::core::builds::{BuildFiles, Builds, Current, Journal, Manifests, Phase};
use crate::core::error::{KeepError, SetKeysError, StartBuildError};
use crate::core::kept::{Keep, Kept};
use crate::core::state::Sealing;
use crate::core::trust::gun;
use crate::store::{KNOWN_HOSTS, NOTARY_ROOTS, Store};

/// One image definition.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) keep: Keep,
    pub(super) builds: Builds,
    /// Held by whoever changes the slot, across its I/O.
    pub(super) writer: tokio::sync::Mutex<()>,
    /// What the slot is now; locked for moments only.
    now: Mutex<Now>,
}

#[derive(Debug)]
pub(super) struct Now {
    pub(super) known: Option<Known>,
    pub(super) keys: Option<Arc<DefinitionKeys>>,
    pub(super) status: StatusText,
    /// The journal of the build that the status tells of.
    pub(super) journal: Option<Journal>,
    pub(super) running: Option<Running>,
}

/// What is in memory of an image definition. The rest, with its credentials, is opened when a build
/// starts.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) build_image_tag: String,
    pub(super) client_share: ClientShare,
    pub(super) epoch: u64,
    pub(super) runtime_type: Option<RuntimeType>,
}

/// A build that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) cancel: CancellationToken,
    /// Cancelled when the build has ended and that is noted, or its task has panicked.
    pub(super) ended: CancellationToken,
}

impl Known {
    fn of(kept: Kept) -> Self {
        // A definition that this version does not take is told of when it is to be built.
        let definition = kept.definition().ok();
        let runtime_type = definition.as_ref().map(|definition| definition.runtime_type);
        let build_image_tag = definition.map(|definition| definition.build_image_tag);
        Self {
            build_image_tag: build_image_tag.unwrap_or_default(),
            epoch: kept.epoch(),
            runtime_type,
            client_share: kept.into_client_share(),
        }
    }
}

impl Slot {
    pub(super) fn load(
        store: &Store,
        sealing: &Arc<Sealing>,
        name: &DefinitionName,
        now: OffsetDateTime,
    ) -> Result<Self, KeepError> {
        let directory = store
            .definition_directory(name)
            .map_err(KeepError::io("the image definition's directory"))?;
        let keep = Keep::new(Arc::clone(sealing), name, &directory);
        let builds = Builds::new(&directory);
        // A definition that a newer server accepted and this one does not is told when it is built.
        let kept = keep.load_definition()?;
        let kept = kept.map(|kept| not_revoked(kept, &keep, sealing)).transpose()?;
        let (kept, keys) = match (kept, keep.load_keys(now)?) {
            (Some(kept), Some(loaded)) if loaded.made => {
                let kept = begin_epoch(kept, &loaded.keys, &keep, sealing)?;
                (Some(kept), Some(Arc::new(loaded.keys)))
            }
            (kept, loaded) => (kept, loaded.map(|loaded| Arc::new(loaded.keys))),
        };
        let known = kept.map(Known::of);
        for (journal, files) in builds.newest_first()? {
            let journal = described(journal, &files)?;
            interrupted(journal, &files)?;
        }
        let (status, journal) = match builds.load_current()? {
            Current::Nothing => (StatusText::default(), None),
            Current::Cleaned => (StatusText::new(RESTARTED_CICD), None),
            Current::Build(id) => (StatusText::default(), builds.files(&id).load_journal()?),
        };
        let now = Now { known, keys, status, journal, running: None };
        Ok(Self { keep, builds, writer: tokio::sync::Mutex::new(()), now: Mutex::new(now) })
    }

    pub(super) fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a definition on the disk, then in memory.
    pub(super) fn set(&self, kept: Kept) -> Result<(), KeepError> {
        let saved = self.keep.save_definition(&kept);
        if saved.is_ok() {
            self.now().known = Some(Known::of(kept));
        } else if let Ok(Some(kept)) = self.keep.load_definition() {
            // It may stand there all the same: only that it lasts is not known.
            self.now().known = Some(Known::of(kept));
        }
        saved
    }

    /// Takes a state that now stands on the disk in the place of the one that this was loaded from.
    pub(super) fn imported(&self, kept: Kept, keys: DefinitionKeys) {
        let known = Some(Known::of(kept));
        let keys = Some(Arc::new(keys));
        let status = StatusText::default();
        *self.now() = Now { known, keys, status, journal: None, running: None };
    }

    /// Returns the directory with everything that is kept of the image definition.
    pub(super) fn directory(&self) -> &Path {
        self.keep.directory()
    }

    /// Returns the file with the ssh host keys that were believed at first use.
    pub(super) fn known_hosts(&self) -> PathBuf {
        Self::known_hosts_in(self.directory())
    }

    pub(super) fn known_hosts_in(directory: &Path) -> PathBuf {
        directory.join(KNOWN_HOSTS)
    }

    /// Returns the file with what notaries have said of repositories.
    pub(super) fn notary_roots(&self) -> PathBuf {
        Self::notary_roots_in(self.directory())
    }

    pub(super) fn notary_roots_in(directory: &Path) -> PathBuf {
        directory.join(NOTARY_ROOTS)
    }

    /// Returns the keys of the definition that is kept; they are made at the first build.
    ///
    /// They begin an epoch: a state with other keys never has the epoch of one without.
    pub(super) async fn keys(
        &self,
        kept: Kept,
        definition: &Definition,
        sealing: &Sealing,
        now: OffsetDateTime,
    ) -> Result<Arc<DefinitionKeys>, StartBuildError> {
        let before = self.now().keys.clone();
        // Each repository that is announced by a notary has keys of its own there.
        let gun = definition.notary.as_ref().map(|_| gun(definition));
        let gun = gun.filter(|gun| {
            before.as_ref().is_none_or(|keys| keys.notary(&gun.to_string()).is_none())
        });
        if let (Some(keys), None) = (&before, &gun) {
            return Ok(Arc::clone(keys));
        }
        let made = move || -> Result<DefinitionKeys, Box<dyn Error + Send + Sync>> {
            let mut keys = match before {
                Some(keys) => DefinitionKeys::from_record(&keys.to_record(), now)?.keys,
                None => DefinitionKeys::generate(now)?,
            };
            if let Some(gun) = gun {
                keys.set_notary(&gun.to_string(), NotaryKeys::generate(&gun, now)?.to_record());
            }
            Ok(keys)
        };
        let made = tokio::task::spawn_blocking(made).await;
        let made = made.map_err(|error| StartBuildError::Keys(Box::new(error)))?;
        Ok(self.set_keys(kept, made.map_err(StartBuildError::Keys)?, sealing)?)
    }

    /// Keeps keys in the place of those before, on the disk and then in memory.
    pub(super) fn set_keys(
        &self,
        kept: Kept,
        keys: DefinitionKeys,
        sealing: &Sealing,
    ) -> Result<Arc<DefinitionKeys>, SetKeysError> {
        // What cannot be read again must not be written: the server would not start with it.
        if keys.to_record().len() > DefinitionKeys::MAX_RECORD_BYTES {
            return Err(SetKeysError::Full);
        }
        let begun = begin_epoch(kept, &keys, &self.keep, sealing);
        let kept = begun.inspect_err(|_| {
            // Its epoch may stand there all the same.
            if let Ok(Some(kept)) = self.keep.load_definition() {
                self.now().known = Some(Known::of(kept));
            }
        })?;
        let keys = Arc::new(keys);
        let mut now = self.now();
        now.known = Some(Known::of(kept));
        now.keys = Some(Arc::clone(&keys));
        Ok(keys)
    }
}

/// Keeps new keys, which begin an epoch; it is on the disk before them.
fn begin_epoch(
    kept: Kept,
    keys: &DefinitionKeys,
    keep: &Keep,
    sealing: &Sealing,
) -> Result<Kept, KeepError> {
    let epoch = sealing.next_epoch(kept.epoch()).map_err(KeepError::Counter)?;
    let kept = kept.with_epoch(epoch);
    keep.save_definition(&kept)?;
    keep.save_keys(keys)?;
    Ok(kept)
}

/// Brings the epoch up to the counter: a server that died over a new secret may have turned it on,
/// and what is exported from now on must not count as revoked.
fn not_revoked(kept: Kept, keep: &Keep, sealing: &Sealing) -> Result<Kept, KeepError> {
    let floor = sealing.floor().map_err(KeepError::Counter)?;
    if floor <= kept.epoch() {
        return Ok(kept);
    }
    let kept = kept.with_epoch(floor);
    keep.save_definition(&kept)?;
    Ok(kept)
}

/// Describes the manifest of a build that a server of before v2 stored.
fn described(mut journal: Journal, files: &BuildFiles) -> Result<Journal, KeepError> {
    let Some(name) = &journal.build_name else { return Ok(journal) };
    if journal.manifests.manifest.is_none() {
        journal.manifests = files.describe(name)?;
        files.save_journal(&journal)?;
    }
    Ok(journal)
}

/// Marks a build if it was running when the server died.
fn interrupted(mut journal: Journal, files: &BuildFiles) -> Result<(), KeepError> {
    if journal.phase == Phase::Running {
        let after = journal.status.status.clone();
        note_end(&mut journal, Phase::Interrupted, Err(Stopped::interrupted(after.as_str())));
        files.save_journal(&journal)?;
        let message = format!("the server stopped after `{after}`: the build was interrupted");
        tell_in_log(files, &message);
        tracing::warn!(build = journal.id, %after, "a build was interrupted");
    }
    Ok(())
}

/// Adds a line to the log of a build that has no writer any more. The server may have died before
/// the build had a log.
fn tell_in_log(files: &BuildFiles, message: &str) {
    match File::options().create(true).append(true).mode(0o600).open(files.log()) {
        Ok(file) => BuildLog::new(file, Clock::system(), Masks::default(), 0).error(message),
        Err(error) => tracing::warn!(%error, "the log of the interrupted build was not written"),
    }
}

/// Notes how a build ended.
pub(super) fn note_end(
    journal: &mut Journal,
    phase: Phase,
    result: Result<(Recorded, Manifests), Stopped>,
) {
    journal.phase = phase;
    match result {
        Ok((recorded, manifests)) => {
            journal.manifests = manifests;
            journal.status = recorded.status;
            journal.image = Some(recorded.image);
            journal.build_name = Some(recorded.build_name);
        }
        Err(_) if phase == Phase::Cancelled => {
            journal.status.status = StatusText::new(RESTARTED_CICD);
        }
        Err(stopped) => {
            journal.failure = Some(stopped.code.to_owned());
            journal.status.status = StatusText::failed(stopped.return_code, &stopped.command);
        }
    }
}
