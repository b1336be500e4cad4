//! Manifests and state images in buckets: what arrives there is what the server has, a storage that
//! is down fails no build, and a lost server is recovered from its bucket.

mod storage;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sbs_tests::{Authority, World, judge, wait_until};
use serde_json::{Value, json};

use self::storage::Storage;
use crate::state::image_key_of_last;

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
    let told = json!({ "state": "pending", "attempts": 1, "reason": reason });
    assert_eq!(listed_upload(&world)?, told);
    let table = world.sbs.run(&["list"])?;
    assert!(table.stdout.trim_end().ends_with("pending (1 in vain)"), "{}", table.text());
    let warning = format!("warning: 1 manifest is not in its bucket; build 00000001: {reason}\n");
    assert_eq!((table.code, &*table.stderr), (0, &*warning));
    shown_nowhere(&world, &storage)?;

    world.server.terminate()?;
    assert_eq!(upload(&world)?, waits);
    storage.listen()?;
    world.start_server_again()?;
    let done = wait_for_upload(&world, "done")?;
    assert_eq!(done, json!({ "state": "done", "bucket": Storage::BUCKET, "attempts": 1 }));
    assert_eq!(listed_upload(&world)?, json!({ "state": "done", "attempts": 1 }));
    let table = world.sbs.run(&["list"])?;
    assert!(table.stdout.trim_end().ends_with("done (1 in vain)"), "{}", table.text());
    assert_eq!(table.stderr, "");
    let (name, manifest) = world.api()?.manifest()?;
    assert!(storage.object(&format!("{name}.sig.tbz"))? == Some(manifest));
    assert!(storage.object(&format!("{name}.thin.sig.tar.zst"))?.is_some());
    assert_eq!(world.api()?.status()?, status);
    shown_nowhere(&world, &storage)
}

#[test]
fn a_server_that_was_lost_is_recovered_from_a_bucket() -> Result<()> {
    let mut world = World::start()?;
    let storage = Storage::start(world.parts.path(), &world.parts.authority)?;
    storage.configure(&world, "STATE")?;
    let mut repository =
        world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let old = world.init_and_build()?;
    let image_key = image_key_of_last(&world)?;
    let manifest_key = world.api()?.public_key()?;

    let told: Value =
        serde_json::from_str(&world.sbs.ok(&["--format", "json", "get-state-image"])?)?;
    let name = told["name"].as_str().context("a name")?;
    assert_eq!((name, &told["bucket"]), (&*old.build_name, &json!(Storage::BUCKET)));
    assert_eq!(storage.objects()?, [name]);
    let state = storage.object(name)?.context("the object")?;
    // It is sealed: neither the passwords of the definition nor the keys of the bucket are in it.
    let text = String::from_utf8_lossy(&state);
    assert!(text.starts_with("SBS-SEAL") && !text.contains(&storage.secret));
    assert_eq!(world.parts.secrets.found_in(&text), None);

    world.start_server_anew()?;
    let import = ["post-state-image", "--name", name];
    refused(&world, &import, "does not say how to get into a bucket")?;
    world.sbs.set("STATE_COS_SECRET_ACCESS_KEY", "canary-of-another")?;
    world.sbs.ok(&["init"])?;
    let told = refused(&world, &import, "does not accept the credentials")?;
    assert!(!told.contains("canary"), "{told}");
    storage.configure(&world, "STATE")?;
    world.sbs.ok(&["update"])?;
    refused(&world, &["post-state-image", "--name", "another"], "there is no `another` in bucket")?;
    world.sbs.ok(&import)?;
    refused(&world, &import, "state_not_empty")?;
    assert_eq!(world.api()?.public_key()?, manifest_key);

    repository.commit_files(&[("Dockerfile", &world.dockerfile("LABEL a=c"))])?;
    let new = world.update_and_build()?;
    assert_ne!(new.image_tag, old.image_tag);
    for tag in [&old.image_tag, &new.image_tag] {
        judge::openssl_image(&world.parts.registry, tag, &image_key)?;
    }
    assert_eq!(storage.objects()?, [name]);
    shown_nowhere(&world, &storage)
}

#[test]
fn keys_that_the_bucket_does_not_take_are_told_and_nothing_is_kept() -> Result<()> {
    let world = World::start()?;
    let storage = Storage::start(world.parts.path(), &world.parts.authority)?;
    storage.configure(&world, "STATE")?;
    world.sbs.set("STATE_COS_SECRET_ACCESS_KEY", "canary-of-another")?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let name = world.init_and_build()?.build_name;
    let told = refused(&world, &["get-state-image"], "does not accept the credentials")?;
    assert!(!told.contains("canary"), "{told}");
    assert!(!world.sbs.directory().join(&name).exists());
    assert_eq!(storage.objects()?, Vec::<String>::new());

    storage.configure(&world, "STATE")?;
    world.sbs.set("STATE_COS_ACCESS_KEY_ID", "AKIDOFANOTHER")?;
    world.sbs.ok(&["update"])?;
    refused(&world, &["get-state-image"], "does not accept the credentials")?;
    // Nor does the server give the right keys to who only says to be the storage.
    let impostor = Storage::start(world.sbs.directory(), &Authority::new("Other CA")?)?;
    impostor.configure(&world, "STATE")?;
    world.sbs.ok(&["update"])?;
    let told = refused(&world, &["get-state-image"], "is not trusted")?;
    assert!(told.contains("storage.ca-file"), "{told}");
    assert_eq!(impostor.objects()?, Vec::<String>::new());

    storage.configure(&world, "STATE")?;
    world.sbs.ok(&["update"])?;
    world.sbs.ok(&["get-state-image"])?;
    assert_eq!(storage.objects()?, [&*name]);
    assert!(world.sbs.directory().join(&name).exists());
    Ok(())
}

/// Runs a command that the server must refuse, with exit code 1 and this in its words.
fn refused(world: &World, arguments: &[&str], why: &str) -> Result<String> {
    let told = world.sbs.run(arguments)?;
    assert!(told.code == 1 && told.stderr.contains(why), "{}: {}", told.code, told.text());
    Ok(told.text())
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

/// Returns what `sbs list` says, to programs, of the upload of the newest build.
fn listed_upload(world: &World) -> Result<Value> {
    let listed: Value = serde_json::from_str(&world.sbs.ok(&["--format", "json", "list"])?)?;
    listed.pointer("/builds/0/upload").cloned().context("the build has no upload")
}

/// Checks that the secret of the storage is in no log, in no journal and in no list.
fn shown_nowhere(world: &World, storage: &Storage) -> Result<()> {
    let journal = fs::read_to_string(world.server.data_directory().join(JOURNAL))?;
    let list = world.api()?.call("GET", "/v2/images/default/builds")?.text();
    for text in [world.server.log_text(), world.api()?.log()?, journal, list] {
        assert!(!text.is_empty() && !text.contains(&storage.secret), "{text}");
    }
    Ok(())
}

const JOURNAL: &str = "definitions/default/builds/00000001/journal.json";
