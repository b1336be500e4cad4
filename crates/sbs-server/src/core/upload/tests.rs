use std::sync::atomic::AtomicUsize;

use super::*;
use crate::core::tests::{Act, built_with, name, open, set};
use crate::storage::testing::{self, Security, TestStorage, client, quick, well};
use crate::storage::{Plaintext, StorageClient};

/// An uploader that runs; it ends when dropped.
struct Running {
    _end: tokio_util::sync::DropGuard,
}

fn storages() -> StorageClient {
    client(quick(), Plaintext::Refused)
}

fn upload_with(core: &Core, attempts: u32) -> Running {
    let (cancel, first) = (CancellationToken::new(), Duration::from_millis(5));
    let pauses = UploadPauses { attempts, first, longest: Duration::from_millis(20) };
    let end = cancel.clone().drop_guard();
    tokio::spawn(Uploader::new(core.clone(), Arc::new(storages()), pauses, cancel).run());
    Running { _end: end }
}

/// Returns the upload of the latest build, from its journal on the disk.
fn upload(core: &Core) -> Option<Upload> {
    let builds = core.slot(&name()).unwrap().builds.newest_first().unwrap();
    builds.into_iter().next().unwrap().0.upload
}

/// Waits until the upload of the latest build is as it should be.
async fn until(core: &Core, is: impl Fn(&Upload) -> bool) -> Upload {
    loop {
        if let Some(upload) = upload(core).filter(|upload| is(upload)) {
            return upload;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_done(upload: &Upload) -> bool {
    upload.state == UploadState::Done
}

/// Fails the first `failures` requests.
fn fails(failures: usize) -> Box<testing::Script> {
    let seen = AtomicUsize::new(0);
    Box::new(move |_, _| {
        let down = seen.fetch_add(1, Ordering::SeqCst) < failures;
        if down { testing::Act::Refuse(500, "InternalError") } else { testing::Act::Pass }
    })
}

#[tokio::test]
async fn a_manifest_and_its_thin_form_go_into_the_bucket() {
    let server = TestStorage::start(Security::Tls, well()).await;
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &server.keys()).await;
    let (_, files) = core.slot(&name()).unwrap().builds.newest_first().unwrap().remove(0);
    let thin = "manifest.r.example.app.0.thin.sig.tar.zst";
    std::fs::write(files.directory().join(thin), "thin").unwrap();
    let _running = upload_with(&core, 5);
    let done = until(&core, is_done).await;
    assert_eq!((&*done.bucket, done.attempts, done.reason), ("manifests", 0, None));
    let object = server.object("manifest.r.example.app.0.sig.tbz");
    assert_eq!(std::fs::read(object).unwrap(), b"a manifest");
    assert_eq!(std::fs::read(server.object(thin)).unwrap(), b"thin");
    // What `GET /image` tells from is what is on the disk.
    let now = core.slot(&name()).unwrap().now().journal.clone().unwrap();
    assert!(is_done(&now.upload.unwrap()));
}

#[tokio::test]
async fn without_a_bucket_nothing_is_noted() {
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &[]).await;
    assert_eq!(upload(&core), None);
}

#[tokio::test]
async fn a_storage_that_is_down_fails_no_build_and_gets_the_manifest_later() {
    let server = TestStorage::start(Security::Tls, fails(2 * quick().attempts)).await;
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &server.keys()).await;
    assert!(upload(&core).unwrap().is_pending());
    let _running = upload_with(&core, 100);
    let done = until(&core, is_done).await;
    assert_eq!(done.attempts, 2);
    assert!(server.object("manifest.r.example.app.0.sig.tbz").exists());
}

#[tokio::test]
async fn an_upload_survives_the_end_of_the_server() {
    let server = TestStorage::start(Security::Tls, fails(quick().attempts)).await;
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &server.keys()).await;
    let running = upload_with(&core, 100);
    let reason = until(&core, |upload| upload.attempts > 0).await.reason.unwrap();
    assert_eq!(reason, "storage `127.0.0.1` does not work now (status 500, InternalError)");
    drop(running);
    // The uploader may be about to end; the directory is locked until it has.
    while Arc::strong_count(&core.0) > 1 {
        tokio::task::yield_now().await;
    }
    drop(core);
    let core = open(directory.path(), Act::Succeed);
    let _running = upload_with(&core, 100);
    assert!(until(&core, is_done).await.attempts > 0);
}

#[tokio::test]
async fn l1_what_is_given_up_says_why_and_a_change_of_the_definition_helps() {
    let server = TestStorage::start(Security::Tls, well()).await;
    let directory = tempfile::tempdir().unwrap();
    let mut wrong = server.keys();
    wrong[3].1 = "canary-wrong".to_owned();
    let core = built_with(directory.path(), &wrong).await;
    let _running = upload_with(&core, 3);
    let failed = until(&core, |upload| upload.state == UploadState::Failed).await;
    let reason = failed.reason.unwrap();
    assert_eq!(failed.attempts, 3);
    assert!(reason.contains("does not accept the credentials (SignatureDoesNotMatch)"), "{reason}");
    assert!(!reason.contains("canary"), "{reason}");
    set(&core, &server.keys()).await;
    assert_eq!(until(&core, is_done).await.attempts, 0);
}

#[tokio::test]
async fn a_definition_that_names_no_bucket_any_more_ends_the_upload() {
    let server = TestStorage::start(Security::Tls, well()).await;
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &server.keys()).await;
    set(&core, &[]).await;
    let _running = upload_with(&core, 100);
    let failed = until(&core, |upload| upload.state == UploadState::Failed).await;
    assert!(failed.reason.unwrap().contains("names no bucket any more"));
    assert!(server.seen().is_empty());
}

#[test]
fn pauses_double_up_to_the_longest() {
    let pauses = UploadPauses::default();
    let seconds = [1, 2, 3, 7, 8, 9, 40, u32::MAX].map(|n| pauses.after(n).as_secs());
    assert_eq!(seconds, [30, 60, 120, 1920, 3600, 3600, 3600, 3600]);
}
