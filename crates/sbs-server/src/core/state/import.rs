//! A state image becomes the state of this server, as a whole or not at all.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use sbs_proto::{DefinitionName, StateSecret};
use sbs_state::{AcceptedState, ClientShare, ImportPolicy, OpenStateError, RecordName};

use crate::build::notary_roots::{NotaryRoots, NotaryRootsError};
use crate::core::Core;
use crate::core::builds::{Builds, Phase};
use crate::core::error::KeepError;
use crate::core::kept::{Keep, Kept};
use crate::core::slot::Slot;
use crate::core::state::STAGING;
use crate::core::state::error::ImportStateError;
use crate::core::state::records::{Contents, KeptBuild};
use crate::store::{exchange, read_small_file, replace_file, sync_directory};

/// A state that was imported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ImportedState {
    /// Whether the image definition of the state is that of the server now.
    pub(crate) definition: bool,
    /// The epoch of the server now.
    pub(crate) epoch: u64,
}

impl Core {
    /// Imports a state image into this server, which must have neither keys nor builds that
    /// succeeded. After an error the server is as it was.
    ///
    /// An image definition that was set before stays; the secret must then be its own.
    pub(crate) async fn import_state(
        &self,
        name: &DefinitionName,
        secret: &StateSecret,
        min_epoch: u64,
        input: impl Read + Send + 'static,
    ) -> Result<ImportedState, ImportStateError> {
        let slot = self.slot_or_fault(name)?;
        let _writer = slot.writer.lock().await;
        self.check_empty(slot)?;
        self.0.attempts.check()?;
        let share = ClientShare::derive(secret);
        let own = slot.keep.load_definition()?;
        if own.as_ref().is_some_and(|own| !own.client_share().same_as(&share)) {
            self.0.attempts.wrong();
            return Err(ImportStateError::WrongSecret);
        }
        let own_epoch = own.as_ref().map_or(0, Kept::epoch);
        let policy = self.0.sealing.policy(min_epoch, own_epoch)?;
        let (state, mut contents) = self.open_state(secret, policy, input).await?;
        self.0.attempts.right();
        contents.notary_roots = merged_roots(slot, contents.notary_roots)?;

        // From here on nothing waits: who asks may go away, and this is done or not.
        let header = state.header();
        let epoch = self.0.sealing.next_epoch(own_epoch.max(header.epoch))?;
        let (from, from_epoch) = (contents.instance.instance_id.clone(), header.epoch);
        self.0.instance.exported_before(&self.0.sealing.at_rest, header.export_seq)?;
        let definition = own.is_none();
        self.replace_slot(slot, name, contents, |members| match own {
            Some(own) => own.with_epoch(epoch),
            None => Kept::new(members, share, epoch),
        })?;
        tracing::info!(definition = %name, from, from_epoch, epoch, "state imported");
        Ok(ImportedState { definition, epoch })
    }

    /// Makes a file without a name for a state image that is received. Sealed as it is, nobody can
    /// use it where it waits.
    pub(crate) fn receiving_file(&self) -> std::io::Result<File> {
        tempfile::tempfile_in(self.0.store.directory(STAGING)?)
    }

    /// Refuses to replace what is worth something.
    pub(super) fn check_empty(&self, slot: &Slot) -> Result<(), ImportStateError> {
        if self.0.stop.is_cancelled() {
            return Err(ImportStateError::Stopping);
        }
        if slot.now().running.is_some() {
            return Err(ImportStateError::Busy);
        }
        let succeeded = slot.builds.newest_first()?.into_iter();
        let mut succeeded = succeeded.filter(|(journal, _)| journal.phase == Phase::Succeeded);
        let empty = slot.now().keys.is_none() && succeeded.next().is_none();
        if empty { Ok(()) } else { Err(ImportStateError::NotEmpty) }
    }

    pub(super) fn slot_or_fault(&self, name: &DefinitionName) -> Result<&Slot, KeepError> {
        let none = || KeepError::Io { what: WHAT, source: std::io::ErrorKind::NotFound.into() };
        self.slot(name).ok_or_else(none)
    }

    /// Opens and judges a state image, on a thread of its own: it reads and computes.
    async fn open_state(
        &self,
        secret: &StateSecret,
        policy: ImportPolicy,
        input: impl Read + Send + 'static,
    ) -> Result<(AcceptedState, Contents), ImportStateError> {
        let share = ClientShare::derive(secret);
        let core = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let input = BufReader::with_capacity(READ_PIECE, input);
            let state = sbs_state::open(core.0.sealing.shares(), &share, input)?;
            let state = state.accept(&policy)?;
            let contents = Contents::read(&state, core.0.clock.now())?;
            Ok((state, contents))
        });
        let opened = opened.await.map_err(KeepError::damaged(WHAT))?;
        if matches!(opened, Err(ImportStateError::Open(OpenStateError::WrongSecretOrHeader))) {
            self.0.attempts.wrong();
        }
        opened
    }

    /// Writes the new state beside the old one and puts it in its place by one rename.
    fn replace_slot(
        &self,
        slot: &Slot,
        name: &DefinitionName,
        contents: Contents,
        keep: impl FnOnce(sbs_proto::Members) -> Kept,
    ) -> Result<(), KeepError> {
        let io = |source| KeepError::Io { what: WHAT, source };
        let staging = self.0.store.directory(STAGING).map_err(io)?;
        // Mode 0700. In the end it holds the old state, and is removed with it.
        let directory = tempfile::Builder::new().prefix("import-").tempdir_in(staging);
        let directory = directory.map_err(io)?;
        let path = directory.path();
        let Contents { builds, instance: _, keys, known_hosts, members, notary_roots } = contents;
        let kept = keep(members);
        let place = Keep::new(Arc::clone(&self.0.sealing), name, path);
        place.save_definition(&kept)?;
        place.save_keys(&keys)?;
        // A server whose known hosts come from a file of the operator's has none to give.
        let known_hosts = match known_hosts {
            Some(known_hosts) => Some(known_hosts.into()),
            None => read_small_file(&slot.known_hosts()).map_err(io)?,
        };
        if let Some(known_hosts) = known_hosts {
            replace_file(&Slot::known_hosts_in(path), &known_hosts).map_err(io)?;
        }
        if let Some(roots) = notary_roots {
            replace_file(&Slot::notary_roots_in(path), &roots).map_err(io)?;
        }
        save_builds(path, &builds)?;
        exchange(path, slot.directory()).map_err(io)?;
        slot.imported(kept, keys);
        Ok(())
    }
}

/// Adds what notaries have said to this server: who imports an older state must not make it believe
/// older versions again.
fn merged_roots(
    slot: &Slot,
    imported: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, ImportStateError> {
    let own = read_small_file(&slot.notary_roots()).map_err(KeepError::io(ROOTS))?;
    let (Some(own), Some(imported)) = (&own, &imported) else {
        return Ok(imported.or_else(|| own.map(|own| own.to_vec())));
    };
    match NotaryRoots::merge(imported, own) {
        Ok(merged) => Ok(Some(merged)),
        Err(NotaryRootsError::NoRoomForBoth) => Err(ImportStateError::Content {
            record: RecordName::NotaryRoots,
            reason: "with what notaries have said to this server it is too long; import into one \
                     with an empty data directory",
        }),
        Err(error) => Err(KeepError::damaged(ROOTS)(error).into()),
    }
}

/// Writes what is told of builds into the directory of an image definition.
fn save_builds(directory: &Path, kept: &[KeptBuild]) -> Result<(), KeepError> {
    let io = |source| KeepError::Io { what: WHAT, source };
    let builds = Builds::new(directory);
    for build in kept {
        let files = builds.files(&build.journal.id);
        std::fs::create_dir_all(files.directory()).map_err(io)?;
        if let Some(key) = &build.public_key {
            replace_file(&files.public_key(), key.as_bytes()).map_err(io)?;
        }
        files.save_journal(&build.journal)?;
    }
    if !kept.is_empty() {
        sync_directory(&directory.join("builds")).map_err(io)?;
    }
    sync_directory(directory).map_err(io)
}

const READ_PIECE: usize = 64 * 1024;
const ROOTS: &str = "the record of what notaries have said";
const WHAT: &str = "the imported state";
