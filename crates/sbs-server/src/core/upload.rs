//! Manifests on their way into a bucket.
//!
//! A build that succeeds notes in its journal that its manifest is to be uploaded. One task works
//! through these notes, oldest first, and through those that an earlier server left. A storage that
//! does not work holds up neither a build nor another upload.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sbs_proto::{
    BucketName, BuildName, DefinitionName, ManifestName, StoragePurpose, StorageTarget,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::build::failure::chain;
use crate::core::Core;
use crate::core::builds::{BuildFiles, Journal};
use crate::core::error::KeepError;
use crate::storage::{ObjectName, OpenStorage, StorageError};

/// How far the upload of a build's manifest is; it stands in the journal of the build.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Upload {
    pub(crate) state: UploadState,
    /// The bucket; where the definition was changed since, that of the last attempt.
    pub(crate) bucket: String,
    /// How often it was tried in vain.
    #[serde(default)]
    pub(crate) attempts: u32,
    /// Why the last attempt was in vain. It holds no credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UploadState {
    /// The manifest is in the bucket.
    Done,
    /// It was given up; a change of the image definition has it tried again.
    Failed,
    /// It will be tried, or tried again.
    Pending,
}

impl Upload {
    pub(crate) fn pending(bucket: &BucketName) -> Self {
        let bucket = bucket.to_string();
        Self { state: UploadState::Pending, bucket, attempts: 0, reason: None }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.state == UploadState::Pending
    }
}

/// How the uploader is told that there is something to do.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    notify: Notify,
    anew: AtomicBool,
}

impl Wanted {
    /// A build has left a manifest.
    pub(super) fn more(&self) {
        self.notify.notify_one();
    }

    /// A definition has changed: what failed may work now.
    pub(super) fn anew(&self) {
        self.anew.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }
}

/// How often an upload is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadPauses {
    /// The attempts after which an upload is given up.
    pub(crate) attempts: u32,
    /// The pause after the first attempt; the next ones double.
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Default for UploadPauses {
    fn default() -> Self {
        // A week.
        Self { attempts: 175, first: Duration::from_secs(30), longest: Duration::from_hours(1) }
    }
}

impl UploadPauses {
    fn after(&self, attempts: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// The one task that uploads manifests.
#[derive(Debug)]
pub(crate) struct Uploader {
    cancel: CancellationToken,
    core: Core,
    due: HashMap<(DefinitionName, String), Instant>,
    pauses: UploadPauses,
    storages: Arc<dyn OpenStorage>,
}

impl Uploader {
    pub(crate) fn new(
        core: Core,
        storages: Arc<dyn OpenStorage>,
        pauses: UploadPauses,
        cancel: CancellationToken,
    ) -> Self {
        Self { cancel, core, due: HashMap::new(), pauses, storages }
    }

    /// Uploads what is to be uploaded, until it is cancelled.
    pub(crate) async fn run(mut self) {
        while !self.cancel.is_cancelled() {
            if self.core.0.wanted.anew.swap(false, Ordering::SeqCst) {
                self.due.clear();
                self.core.revive_uploads();
            }
            self.round().await;
            let next = self.due.values().min().copied();
            let pause = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = self.core.0.wanted.notify.notified() => {}
                () = self.cancel.cancelled() => {}
            }
        }
    }

    /// Tries every upload whose time has come.
    async fn round(&mut self) {
        let pending = self.core.pending_uploads();
        let waits: Vec<_> = pending.iter().map(|(name, build)| (name, &build.journal.id)).collect();
        self.due.retain(|(name, id), _| waits.contains(&(name, id)));
        for (name, build) in pending {
            let key = (name, build.journal.id.clone());
            let is_due = self.due.get(&key).is_none_or(|due| *due <= Instant::now());
            if self.cancel.is_cancelled() {
                return;
            }
            if is_due {
                self.attempt(key, &build).await;
            }
        }
    }

    async fn attempt(&mut self, key: (DefinitionName, String), build: &PendingUpload) {
        let (name, id) = &key;
        let result = self.upload(name, build).await;
        let mut upload = build.upload.clone();
        match result {
            Err(UploadError::Storage(StorageError::Cancelled)) => return,
            Ok(bucket) => {
                tracing::info!(definition = %name, build = id, bucket, "manifest uploaded");
                upload = Upload { state: UploadState::Done, bucket, reason: None, ..upload };
            }
            Err(error) => {
                upload.attempts = upload.attempts.saturating_add(1);
                let is_final = error.is_final() || upload.attempts >= self.pauses.attempts;
                upload.reason = Some(chain(&error));
                if let UploadError::Storage(_) = &error
                    && let Some(bucket) = self.core.bucket(name)
                {
                    upload.bucket = bucket;
                }
                if is_final {
                    upload.state = UploadState::Failed;
                }
                let (error, attempts) = (chain(&error), upload.attempts);
                tracing::warn!(
                    definition = %name, build = id, error, attempts, given_up = is_final,
                    "the manifest was not uploaded"
                );
            }
        }
        if upload.is_pending() {
            let next = Instant::now() + self.pauses.after(upload.attempts);
            self.due.insert(key.clone(), next);
        } else {
            self.due.remove(&key);
        }
        if let Err(error) = self.core.note_upload(name, id, upload) {
            // It is tried again; that changes nothing in the bucket.
            tracing::error!(%error, "how the upload went was not noted down");
            self.due.insert(key, Instant::now() + self.pauses.longest);
        }
    }

    /// Uploads the manifest of a build, and its thin form if it has one; returns the bucket.
    async fn upload(
        &self,
        name: &DefinitionName,
        build: &PendingUpload,
    ) -> Result<String, UploadError> {
        let target = self.core.manifest_storage(name)?.ok_or(UploadError::NoBucket)?;
        let (access, bucket) = (&target.access, &target.bucket);
        let storage = self.storages.open(access, bucket, StoragePurpose::Manifest)?;
        let (files, manifest) = (&build.files, &build.manifest);
        let thin = files.thin_manifest(manifest);
        if thin.exists() {
            let name = ObjectName::thin_manifest(manifest).map_err(StorageError::Name)?;
            storage.put_file(&name, &thin, &self.cancel).await?;
        }
        let name = ObjectName::manifest(manifest).map_err(StorageError::Name)?;
        storage.put_file(&name, &files.manifest(manifest), &self.cancel).await?;
        Ok(bucket.to_string())
    }
}

/// An upload that is to be made.
#[derive(Debug)]
struct PendingUpload {
    files: BuildFiles,
    journal: Journal,
    manifest: ManifestName,
    upload: Upload,
}

/// Why a manifest was not uploaded.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    /// The definition cannot be read.
    #[error("the image definition cannot be read")]
    Definition(#[from] KeepError),

    /// The definition was changed and names no bucket any more.
    #[error("the image definition names no bucket any more; set MANIFEST_BUCKET_NAME again")]
    NoBucket,

    /// The storage did not take it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl UploadError {
    /// Tells whether only a change of the definition can help.
    fn is_final(&self) -> bool {
        matches!(self, Self::NoBucket)
    }
}

impl Core {
    /// Returns the uploads that are to be made, oldest first.
    fn pending_uploads(&self) -> Vec<(DefinitionName, PendingUpload)> {
        let mut pending = Vec::new();
        for (name, slot) in &self.0.slots {
            let builds = slot.builds.newest_first().unwrap_or_else(|error| {
                tracing::error!(definition = %name, %error, "uploads may wait");
                Vec::new()
            });
            for (journal, files) in builds.into_iter().rev() {
                let upload = journal.upload.clone().filter(Upload::is_pending);
                let manifest = journal.build_name.as_ref().map(BuildName::manifest_name);
                if let (Some(upload), Some(manifest)) = (upload, manifest) {
                    let build = PendingUpload { files, journal, manifest, upload };
                    pending.push((name.clone(), build));
                }
            }
        }
        pending
    }

    /// Notes how an upload went.
    fn note_upload(
        &self,
        name: &DefinitionName,
        id: &str,
        upload: Upload,
    ) -> Result<(), KeepError> {
        let Some(slot) = self.slot(name) else { return Ok(()) };
        let done = !upload.is_pending();
        {
            // The lock keeps the journal from being written by a build at the same time.
            let mut now = slot.now();
            let files = slot.builds.files(id);
            let Some(mut journal) = files.load_journal()? else { return Ok(()) };
            journal.upload = Some(upload);
            files.save_journal(&journal)?;
            if let Some(current) = now.journal.as_mut().filter(|current| current.id == id) {
                current.upload = journal.upload;
            }
        }
        // A build may have been kept only because of this.
        if done { slot.builds.retain(self.0.keep_builds.max(1)) } else { Ok(()) }
    }

    /// Has uploads that were given up tried again.
    fn revive_uploads(&self) {
        for (name, slot) in &self.0.slots {
            for (journal, _) in slot.builds.newest_first().unwrap_or_default() {
                let failed = |upload: &Upload| upload.state == UploadState::Failed;
                let Some(upload) = journal.upload.filter(failed) else { continue };
                let upload = Upload { state: UploadState::Pending, attempts: 0, ..upload };
                if let Err(error) = self.note_upload(name, &journal.id, upload) {
                    tracing::error!(%error, "an upload that was given up stays so");
                }
            }
        }
    }

    /// Returns where the manifests of a definition go, as it is now.
    fn manifest_storage(&self, name: &DefinitionName) -> Result<Option<StorageTarget>, KeepError> {
        let Some(slot) = self.slot(name) else { return Ok(None) };
        let Some(kept) = slot.keep.load_definition()? else { return Ok(None) };
        let definition = kept.definition();
        let definition = definition.map_err(KeepError::damaged("the image definition"))?;
        Ok(definition.manifest_storage)
    }

    fn bucket(&self, name: &DefinitionName) -> Option<String> {
        let target = self.manifest_storage(name).ok().flatten();
        target.map(|target| target.bucket.to_string())
    }
}

#[cfg(test)]
mod tests;
