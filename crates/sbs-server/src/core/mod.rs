//! The core: image definitions, their builds and their keys. It knows nothing of HTTP.
//!
//! Every image definition has a name and a slot; a slot's changes are made one at a time, and what
//! a slot answers is always what is on the disk.

pub(crate) mod builds;
pub(crate) mod error;
mod kept;
pub(crate) mod read;
mod slot;
pub(crate) mod state;
mod trust;
pub(crate) mod upload;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use sbs_proto::v2::BuildId;
use sbs_proto::{
    BuildName, BuildSelector, BuildStatus, Definition, DefinitionName, ManifestName, Members,
    RESTARTED_CICD, RESTARTED_NGINX, StatusText, Step, key, parse_new_state_secret,
    parse_state_secret,
};
use sbs_state::ClientShare;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::build::job::{Builder, Job, Stopped};
use crate::clock::Clock;
use crate::core::builds::{BuildFiles, Current, Journal, Phase};
use crate::core::error::{CleanError, KeepError, ReadError, SetDefinitionError, StartBuildError};
use crate::core::kept::Kept;
use crate::core::slot::{Running, Slot, note_end};
use crate::core::state::attempts::Attempts;
use crate::core::state::instance::Instance;
use crate::core::state::{STAGING, Sealing};
use crate::core::upload::{Upload, Wanted};
use crate::store::Store;

/// The core. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Core(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    keep_builds: usize,
    builder: Arc<dyn Builder>,
    sealing: Arc<Sealing>,
    instance: Instance,
    /// Wrong secrets, whatever they were sent for.
    attempts: Attempts,
    stop: CancellationToken,
    slots: HashMap<DefinitionName, Slot>,
    /// Told when there is something to upload.
    wanted: Wanted,
}

impl Core {
    /// Loads what is in the data directory. A build that was running when the server died is
    /// marked as interrupted. Of builds that ended, `keep_builds` are kept.
    pub(crate) fn load(
        store: Store,
        sealing: Sealing,
        clock: Clock,
        builder: Arc<dyn Builder>,
        keep_builds: usize,
    ) -> Result<Self, KeepError> {
        // Left by a server that died over an export or an import.
        crate::store::remove_directory(&store.path(STAGING))
            .map_err(KeepError::io("the directory of state images"))?;
        store.directory(STAGING).map_err(KeepError::io("the directory of state images"))?;
        let sealing = Arc::new(sealing);
        let instance = Instance::load(&store, &sealing.at_rest)?;
        let mut slots = HashMap::new();
        let name = DefinitionName::default_name();
        slots.insert(name.clone(), Slot::load(&store, &sealing, &name, clock.now())?);
        let stop = CancellationToken::new();
        let wanted = Wanted::default();
        Ok(Self(Arc::new(Inner {
            store,
            clock,
            keep_builds,
            builder,
            sealing,
            instance,
            attempts: Attempts::default(),
            stop,
            slots,
            wanted,
        })))
    }

    /// Returns the status of an image definition.
    pub(crate) fn status(&self, name: &DefinitionName) -> BuildStatus {
        let Some(slot) = self.0.slots.get(name) else { return BuildStatus::fresh() };
        let now = slot.now();
        if let Some(journal) = &now.journal {
            return journal.status.clone();
        }
        match &now.known {
            None => BuildStatus { status: now.status.clone(), ..BuildStatus::fresh() },
            Some(known) => BuildStatus::unfinished(&known.build_image_tag, now.status.clone()),
        }
    }

    /// Sets an image definition for the first time, or again as long as no key depends on it.
    pub(crate) async fn initialise(
        &self,
        name: &DefinitionName,
        members: Members,
    ) -> Result<(), SetDefinitionError> {
        if members.value(key::NEW_SECRET).is_some() {
            return Err(SetDefinitionError::NewSecretOnInit);
        }
        let slot = self.slot(name).ok_or(SetDefinitionError::NotInitialised)?;
        let share = self.check(&members)?;
        let _writer = slot.writer.lock().await;
        let epoch = {
            let now = slot.now();
            let same = now.known.as_ref().is_some_and(|known| known.client_share.same_as(&share));
            if now.keys.is_some() {
                // The answer tells whether the secret is right.
                self.0.attempts.check()?;
                if !same {
                    self.0.attempts.wrong();
                    return Err(SetDefinitionError::KeysExist);
                }
            }
            now.known.as_ref().map_or(0, |known| known.epoch)
        };
        slot.set(Kept::new(members, share, epoch))?;
        self.0.wanted.anew();
        Ok(())
    }

    /// Replaces an image definition, and its secret if the body brings a new one.
    pub(crate) async fn update(
        &self,
        name: &DefinitionName,
        mut members: Members,
    ) -> Result<(), SetDefinitionError> {
        let slot = self.slot(name).ok_or(SetDefinitionError::NotInitialised)?;
        let share = self.check(&members)?;
        let new = parse_new_state_secret(&members).map_err(SetDefinitionError::Secret)?;
        let _writer = slot.writer.lock().await;
        let epoch = {
            let now = slot.now();
            let known = now.known.as_ref().ok_or(SetDefinitionError::NotInitialised)?;
            self.0.attempts.check()?;
            if !known.client_share.same_as(&share) {
                self.0.attempts.wrong();
                return Err(SetDefinitionError::WrongSecret);
            }
            self.0.attempts.right();
            // A client that does not know of runtime types changes none.
            if members.value(key::RUNTIME_TYPE).is_none()
                && let Some(runtime_type) = known.runtime_type
            {
                members.insert(key::RUNTIME_TYPE, runtime_type.as_str());
            }
            known.epoch
        };
        let kept = match new {
            None => Kept::new(members, share, epoch),
            Some(new) => {
                let epoch = self.0.sealing.next_epoch(epoch)?;
                // Before the secret: a server that dies between the two has revoked too much, which
                // the next export makes good, and not too little.
                self.0.sealing.revoke_before(epoch)?;
                Kept::new(members, ClientShare::derive(&new), epoch)
            }
        };
        slot.set(kept)?;
        self.0.wanted.anew();
        Ok(())
    }

    /// Starts a build of an image definition as it is now.
    pub(crate) async fn start_build(&self, name: &DefinitionName) -> Result<(), StartBuildError> {
        let slot = self.slot(name).ok_or(StartBuildError::NotInitialised)?;
        let _writer = slot.writer.lock().await;
        if self.0.stop.is_cancelled() {
            return Err(StartBuildError::Stopping);
        }
        if slot.now().running.is_some() {
            return Err(StartBuildError::Busy);
        }
        let kept = slot.keep.load_definition()?.ok_or(StartBuildError::NotInitialised)?;
        let definition = kept.definition().map_err(StartBuildError::Definition)?;
        let keys = slot.keys(kept, &definition, &self.0.sealing, self.0.clock.now()).await?;
        let work = self.0.store.path("work").join(name.as_str());
        crate::store::remove_directory(&work).map_err(KeepError::io("the work directory"))?;
        let started = self.0.clock.now();
        let (id, files) = slot.builds.create()?;
        let build_id = BuildId::parse(&id);
        let build_id = build_id.map_err(KeepError::damaged("the number of a build"))?;
        let status = StatusText::done(Step::CleanedUp);
        let status = BuildStatus::unfinished(&definition.build_image_tag, status);
        let mut journal = Journal::new(id.clone(), Phase::Running, status);
        journal.started_at = started.format(&Rfc3339).ok();
        files.save_journal(&journal)?;
        slot.builds.save_current(&Current::Build(id.clone()))?;
        let job = Job {
            cancel: self.0.stop.child_token(),
            definition,
            files: files.clone(),
            id: build_id,
            keys,
            notary_roots: slot.notary_roots(),
            started,
            work,
        };
        let mut now = slot.now();
        now.journal = Some(journal);
        let (cancel, ended) = (job.cancel.clone(), CancellationToken::new());
        let guard = ended.clone().drop_guard();
        tokio::spawn(self.clone().supervise(name.clone(), job, guard));
        now.running = Some(Running { cancel, ended });
        tracing::info!(definition = %name, build = id, "build started");
        Ok(())
    }

    /// Ends a build that runs, with all its processes, and removes what failed builds left.
    pub(crate) async fn clean(&self, name: &DefinitionName) -> Result<(), CleanError> {
        let Some(slot) = self.slot(name) else { return Ok(()) };
        let _writer = slot.writer.lock().await;
        // The build stays in the slot until it has ended: whoever asks for the clean may go away
        // while it waits, and no other build may start beside one that still ends.
        let running = slot.now().running.clone();
        if let Some(running) = running {
            running.cancel.cancel();
            running.ended.cancelled().await;
            slot.now().running = None;
        }
        crate::store::remove_directory(&self.0.store.path("work").join(name.as_str()))
            .map_err(KeepError::io("the work directory"))?;
        slot.builds.clean()?;
        slot.builds.save_current(&Current::Cleaned)?;
        let mut now = slot.now();
        now.journal = None;
        now.status = StatusText::new(RESTARTED_CICD);
        Ok(())
    }

    /// Has the status say that another certificate of the server is shown, as the original's does
    /// after it has restarted its front. What is told of a build stays.
    pub(crate) fn certificate_replaced(&self) {
        for slot in self.0.slots.values() {
            slot.now().status = StatusText::new(RESTARTED_NGINX);
        }
    }

    /// Opens the log of the build that the status tells of; `None` if there is none.
    pub(crate) fn log(&self, name: &DefinitionName) -> Result<Option<File>, ReadError> {
        let Some(slot) = self.0.slots.get(name) else { return Ok(None) };
        let id = slot.now().journal.as_ref().map(|journal| journal.id.clone());
        let Some(id) = id else { return Ok(None) };
        match File::open(slot.builds.files(&id).log()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeepError::Io { what: "the log", source }.into()),
        }
    }

    /// Opens the manifest of a build that succeeded, if it has at most `limit` bytes.
    pub(crate) fn manifest(
        &self,
        name: &DefinitionName,
        selector: &BuildSelector,
        limit: u64,
    ) -> Result<(ManifestName, File), ReadError> {
        let what = "the manifest";
        let (build_name, journal, files) = self.succeeded(name, selector)?;
        let manifest = build_name.manifest_name();
        let file = File::open(files.manifest(&manifest)).map_err(|source| match source.kind() {
            // An imported build: its manifest stayed where it was made.
            io::ErrorKind::NotFound => ReadError::NotHere { what, build: journal.id.clone() },
            _ => KeepError::Io { what, source }.into(),
        })?;
        let size = file.metadata().map_err(KeepError::io(what))?.len();
        if size > limit {
            return Err(ReadError::TooLarge { build: journal.id, limit, size });
        }
        Ok((manifest, file))
    }

    /// Returns the public key (PEM) of the manifest of a build that succeeded.
    pub(crate) fn public_key(
        &self,
        name: &DefinitionName,
        selector: &BuildSelector,
    ) -> Result<(BuildName, String), ReadError> {
        let (build_name, _, files) = self.succeeded(name, selector)?;
        let pem = std::fs::read_to_string(files.public_key())
            .map_err(KeepError::io("the manifest's public key"))?;
        Ok((build_name, pem))
    }

    /// Returns `registry/repository@digest` of the last image that was built.
    pub(crate) fn image_digest(&self, name: &DefinitionName) -> Result<String, ReadError> {
        let (_, journal, _) = self.succeeded(name, &BuildSelector::Latest)?;
        journal.image.ok_or(ReadError::NothingBuilt)
    }

    /// Ends the build that runs; it is marked as interrupted. No other is started from now on.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        for slot in self.0.slots.values() {
            let _writer = slot.writer.lock().await;
            let running = slot.now().running.clone();
            if let Some(running) = running {
                running.ended.cancelled().await;
            }
        }
    }

    /// Checks a body before anything is changed, and returns what is made of its secret.
    fn check(&self, members: &Members) -> Result<ClientShare, SetDefinitionError> {
        let definition = Definition::parse(members).map_err(SetDefinitionError::Definition)?;
        self.0.builder.check(&definition).map_err(SetDefinitionError::Definition)?;
        let secret = parse_state_secret(members).map_err(SetDefinitionError::Secret)?;
        Ok(ClientShare::derive(&secret))
    }

    fn slot(&self, name: &DefinitionName) -> Option<&Slot> {
        self.0.slots.get(name)
    }

    fn succeeded(
        &self,
        name: &DefinitionName,
        selector: &BuildSelector,
    ) -> Result<(BuildName, Journal, BuildFiles), ReadError> {
        let missing = match selector {
            BuildSelector::Latest => ReadError::NothingBuilt,
            BuildSelector::Named(_) => ReadError::NoSuchBuild,
        };
        let Some(slot) = self.slot(name) else { return Err(missing) };
        for (journal, files) in slot.builds.newest_first()? {
            let Some(build_name) = journal.build_name.clone() else { continue };
            let selected = match selector {
                BuildSelector::Latest => true,
                BuildSelector::Named(name) => *name == build_name,
            };
            if selected && journal.phase == Phase::Succeeded {
                return Ok((build_name, journal, files));
            }
        }
        Err(missing)
    }

    /// Runs a build to its end and notes how it ended, whatever happens in it. Dropping the guard
    /// tells those who wait for that.
    async fn supervise(self, name: DefinitionName, job: Job, _ended: DropGuard) {
        let Some(slot) = self.slot(&name) else { return };
        let files = job.files.clone();
        let (work, cancel) = (job.work.clone(), job.cancel.clone());
        let storage = job.definition.manifest_storage.as_ref();
        let upload = storage.map(|storage| Upload::pending(&storage.bucket));
        let builder = Arc::clone(&self.0.builder);
        let core = self.clone();
        let of = name.clone();
        // A thread of its own: a panic in the pipeline must not take the note-keeping with it, and
        // the kernel ends the tools of a build when the thread that started them ends.
        let run = tokio::task::spawn_blocking(move || {
            let recorded = builder.build(&job, &|status| core.report(&of, status))?;
            // Read while they are in the page cache; told with every download from now on.
            let manifests = job.files.describe(&recorded.build_name).map_err(|error| {
                tracing::error!(%error, "the manifest was not described");
                Stopped::not_kept()
            })?;
            Ok((recorded, manifests))
        });
        let result = run.await.unwrap_or_else(|_panicked| Err(Stopped::panicked()));
        let stopping = self.0.stop.is_cancelled();
        let phase = match &result {
            Ok(_) => Phase::Succeeded,
            Err(_) if stopping => Phase::Interrupted,
            Err(_) if cancel.is_cancelled() => Phase::Cancelled,
            Err(_) => Phase::Failed,
        };
        if let Err(error) = crate::store::remove_directory(&work) {
            tracing::warn!(%error, "the work directory was not removed");
        }
        let mut now = slot.now();
        if let Some(journal) = &mut now.journal {
            note_end(journal, phase, result);
            // With the success itself: a server that dies now still knows of it.
            journal.upload = upload.filter(|_| journal.phase == Phase::Succeeded);
            if let Err(error) = files.save_journal(journal) {
                journal.upload = None;
                // What would be forgotten at the next start must not be told as done now.
                tracing::error!(%error, "the end of the build was not kept");
                note_end(journal, Phase::Failed, Err(Stopped::not_kept()));
            }
            let status = journal.status.status.as_str();
            tracing::info!(definition = %name, build = journal.id, status, "build ended");
        }
        now.running = None;
        drop(now);
        if let Err(error) = slot.builds.retain(self.0.keep_builds.max(1)) {
            tracing::warn!(%error, "old builds were not removed");
        }
        self.0.wanted.more();
    }

    /// Notes that a step is done.
    fn report(&self, name: &DefinitionName, status: StatusText) {
        let Some(slot) = self.slot(name) else { return };
        let mut now = slot.now();
        let Some(journal) = &mut now.journal else { return };
        journal.status.status = status;
        if let Err(error) = slot.builds.files(&journal.id).save_journal(journal) {
            tracing::error!(%error, "the step was not noted down");
        }
    }
}

#[cfg(test)]
mod tests;
