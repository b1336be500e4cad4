//! Manifests and state images in buckets: what arrives there is what the server has, a storage that
//! is down fails no build, and a lost server is recovered from its bucket.

mod storage;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sbs_tests::{World, judge, wait_until};
use serde_json::{Value, json};

use self::storage::Storage;

#[test]
fn a_build_puts_both_forms_of_its_manifest_into_the_bucket() -> Result<()> {
    let world = World::start()?;
    let storage = Storage::start(world.parts.path(), &world.parts.authority)?;
    storage.configure(&world, "MANIFEST")?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    world.init_and_build()?;
    wait_for_upload(&world, "done")?;

    world.sbs.ok(&["get-manifest"])?;
    world.sbs.ok(&["get-manifest", "--thin"])?;
    let thin = world.sbs.file(".thin.sig.tar.zst")?;
    let full = world.sbs.file(".sig.tbz")?;
    let mut names = Vec::new();
    for file in [&full, &thin] {
        let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
        assert!(storage.object(name)? == Some(fs::read(file)?), "{name}");
        names.push(name.to_owned());
    }
    assert_eq!(storage.objects()?, names);
    let key = world.api()?.public_key()?;
    judge::openssl_manifest(&full, &key)?;
    shown_nowhere(&world, &storage)
}

#[test]
fn a_storage_that_is_down_fails_no_build_and_a_restart_brings_what_waits() -> Result<()> {
    let mut world = World::start()?;
    let mut storage = Storage::prepare(world.parts.path(), &world.parts.authority)?;
    storage.configure(&world, "MANIFEST")?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let status = world.init_and_build()?;
    assert_eq!(status.status.to_string(), "success");
    let builds = world.api()?.call("GET", "/v2/images/default/builds")?.json()?;
    assert_eq!(builds["builds"][0]["phase"], "succeeded", "{builds}");
    let waits = wait_until("an attempt in vain", Duration::from_mins(1), || {
        let upload = upload(&world)?;
        Ok((upload["attempts"] == 1).then_some(upload))
    })?;
    let reason = waits["reason"].as_str().context("a reason")?;
    assert_eq!((&waits["state"], &waits["bucket"]), (&json!("pending"), &json!(Storage::BUCKET)));
    assert!(reason.contains("cannot reach `127.0.0.1`"), "{reason}");
    assert_eq!(storage.objects()?, Vec::<String>::new());
    shown_nowhere(&world, &storage)?;

    world.server.terminate()?;
    assert_eq!(upload(&world)?, waits);
    storage.listen()?;
    world.start_server_again()?;
    let done = wait_for_upload(&world, "done")?;
    assert_eq!(done, json!({ "state": "done", "bucket": Storage::BUCKET, "attempts": 1 }));
    let (name, manifest) = world.api()?.manifest()?;
    assert!(storage.object(&format!("{name}.sig.tbz"))? == Some(manifest));
    assert!(storage.object(&format!("{name}.thin.sig.tar.zst"))?.is_some());
    assert_eq!(world.api()?.status()?, status);
    shown_nowhere(&world, &storage)
}

/// Waits until the journal of the first build says this of its upload; returns what it says.
fn wait_for_upload(world: &World, state: &str) -> Result<Value> {
    wait_until(&format!("an upload that is {state}"), Duration::from_mins(1), || {
        let upload = upload(world)?;
        Ok((upload.get("state") == Some(&json!(state))).then_some(upload))
    })
}

/// Returns what the journal of the first build says of its upload.
fn upload(world: &World) -> Result<Value> {
    let journal = fs::read(world.server.data_directory().join(JOURNAL))?;
    let mut journal: Value = serde_json::from_slice(&journal)?;
    Ok(journal.get_mut("upload").context("the journal has no upload")?.take())
}

/// Checks that the secret of the storage is in no log and in no journal.
fn shown_nowhere(world: &World, storage: &Storage) -> Result<()> {
    let journal = fs::read_to_string(world.server.data_directory().join(JOURNAL))?;
    for text in [world.server.log_text(), world.api()?.log()?, journal] {
        assert!(!text.is_empty() && !text.contains(&storage.secret), "{text}");
    }
    Ok(())
}

const JOURNAL: &str = "definitions/default/builds/00000001/journal.json";
