//! State images in a bucket, with the credentials of the kept image definition.

use std::fs::File;

use sbs_proto::{BucketName, DefinitionName, StateImageName, StateSecret, StoragePurpose};

use crate::core::Core;
use crate::core::error::KeepError;
use crate::core::state::STAGING;
use crate::core::state::error::{BucketError, ExportStateError, ImportStateError};
use crate::core::state::import::ImportedState;
use crate::limits;
use crate::storage::{ObjectName, OpenStorage, Storage, StorageError};

impl Core {
    /// Exports the state into a bucket; returns the name of the object, which replaces one of that
    /// name.
    pub(crate) async fn export_state_into(
        &self,
        name: &DefinitionName,
        bucket: &BucketName,
        storages: &dyn OpenStorage,
    ) -> Result<StateImageName, ExportStateError> {
        let storage = self.state_bucket(name, bucket, storages)?;
        let exported = self.export_state(name).await?;
        let object = object_name(&exported.name)?;
        let sent = storage.put_file(&object, exported.file.path(), &self.0.stop).await;
        sent.map_err(BucketError::Storage)?;
        tracing::info!(%object, %bucket, "state image uploaded");
        Ok(exported.name)
    }

    /// Imports a state image from a bucket: [`import_state`](Self::import_state).
    pub(crate) async fn import_state_from(
        &self,
        name: &DefinitionName,
        secret: &StateSecret,
        min_epoch: u64,
        (bucket, object): (&BucketName, &StateImageName),
        storages: &dyn OpenStorage,
    ) -> Result<ImportedState, ImportStateError> {
        // Before anything is fetched; looked at again when it is imported.
        self.check_empty(self.slot_or_fault(name)?)?;
        let storage = self.state_bucket(name, bucket, storages)?;
        let io = |source| KeepError::Io { what: WHAT, source };
        let staging = self.0.store.directory(STAGING).map_err(io)?;
        let directory = tempfile::tempdir_in(staging).map_err(io)?;
        let path = directory.path().join("state");
        let fetched = storage.fetch(&object_name(object)?, &path, limits::STATE_FILE).await;
        fetched.map_err(BucketError::Storage)?;
        let file = File::open(&path).map_err(io)?;
        self.import_state(name, secret, min_epoch, file).await
    }

    fn state_bucket(
        &self,
        name: &DefinitionName,
        bucket: &BucketName,
        storages: &dyn OpenStorage,
    ) -> Result<Box<dyn Storage>, BucketError> {
        let kept = self.slot_or_fault(name)?.keep.load_definition()?;
        let definition = kept.ok_or(BucketError::NoAccess)?.definition();
        let definition = definition.map_err(BucketError::Definition)?;
        let target = definition.state_storage.ok_or(BucketError::NoAccess)?;
        Ok(storages.open(&target.access, bucket, StoragePurpose::State)?)
    }
}

fn object_name(name: &StateImageName) -> Result<ObjectName, BucketError> {
    Ok(ObjectName::parse(name.as_str()).map_err(StorageError::Name)?)
}

const WHAT: &str = "the state image";
