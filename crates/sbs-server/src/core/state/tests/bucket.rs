//! State images by way of a bucket.

use sbs_proto::Members;

use super::*;
use crate::core::state::error::BucketError;
use crate::storage::testing::{self, Security, TestStorage, client, quick, well};
use crate::storage::{Plaintext, StorageError};

/// Returns a body with what gets into a storage for state images.
fn with_storage(storage: &TestStorage) -> Members {
    let mut members = body(1);
    for (key, value) in storage.keys() {
        if let Some(key) = key.strip_prefix("MANIFEST_COS_") {
            members.insert(&format!("STATE_COS_{key}"), value);
        }
    }
    members
}

#[tokio::test]
async fn a_state_goes_through_a_bucket() {
    let storage = TestStorage::start(Security::Tls, well()).await;
    let storages = client(quick(), Plaintext::Refused);
    let bucket = sbs_proto::BucketName::parse("manifests").unwrap();
    let old = Server::fresh();
    old.core.initialise(&name(), with_storage(&storage)).await.unwrap();
    let old = old.build().await;
    let object = old.core.export_state_into(&name(), &bucket, &storages).await.unwrap();
    let staging = old.directory.path().join("staging");
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);

    let new = Server::fresh();
    let secret = StateSecret::from_bytes([1; 128]);
    let from = (&bucket, &object);
    let default = name();
    let import = || new.core.import_state_from(&default, &secret, 0, from, &storages);
    // Credentials come with `init`.
    let error = import().await.unwrap_err();
    assert!(matches!(error, ImportStateError::Bucket(BucketError::NoAccess)), "{error:?}");
    new.core.initialise(&name(), with_storage(&storage)).await.unwrap();
    let other = sbs_proto::StateImageName::parse("other").unwrap();
    let none = new.core.import_state_from(&name(), &secret, 0, (&bucket, &other), &storages).await;
    let error = none.unwrap_err();
    let not_found = matches!(
        error,
        ImportStateError::Bucket(BucketError::Storage(StorageError::NotFound { .. }))
    );
    assert!(not_found, "{error:?}");
    assert_eq!(import().await.unwrap(), ImportedState { definition: false, epoch: 2 });
    assert_eq!(new.image_key(), old.image_key());
    assert!(matches!(import().await, Err(ImportStateError::NotEmpty)));
}

#[tokio::test]
async fn a_storage_that_is_down_leaves_the_state_as_it_is() {
    let down =
        Box::new(|_: &http::request::Parts, _: usize| testing::Act::Refuse(500, "InternalError"));
    let storage = TestStorage::start(Security::Tls, down).await;
    let server = Server::fresh();
    server.core.initialise(&name(), with_storage(&storage)).await.unwrap();
    let server = server.build().await;
    let storages = client(quick(), Plaintext::Refused);
    let bucket = sbs_proto::BucketName::parse("manifests").unwrap();
    let error = server.core.export_state_into(&name(), &bucket, &storages).await.unwrap_err();
    let failing = matches!(
        error,
        ExportStateError::Bucket(BucketError::Storage(StorageError::Failing { .. }))
    );
    assert!(failing, "{error:?}");
    assert_eq!(fs::read_dir(server.directory.path().join("staging")).unwrap().count(), 0);
    server.export().await;
}
