//! The command line saves the state of a server in files, proves that they can be restored, and
//! restores them: with a SECRET that changes in between.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::{digest, random_bytes};
use sbs_tests::{Outcome, World, judge};
use serde_json::{Value, json};

use crate::state::image_key_of_last;

#[test]
fn a_lost_server_is_restored_by_file_after_its_secret_has_changed() -> Result<()> {
    let mut world = World::start()?;
    let mut repository =
        world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    refused(&world.sbs.run(&["get-state-image"])?, 1, "nothing_to_export");
    let first = world.init_and_build()?;
    let image_key = image_key_of_last(&world)?;

    let old = both_forms_are_saved_and_told(&world)?;

    let old_secret = world.secret()?;
    world.sbs.ok(&["update", "--new-secret"])?;
    let new_secret = world.secret()?;
    assert_ne!(old_secret, new_secret);
    assert!(!world.sbs.config()?.contains_key("PENDING_SECRET"));
    repository.commit_files(&[("Dockerfile", &world.dockerfile("LABEL a=c"))])?;
    let second = world.api()?.build()?;
    assert_ne!(first.image_tag, second.image_tag);
    world.sbs.set("SECRET", &*old_secret)?;
    refused(&world.sbs.run(&["update"])?, 1, "wrong_secret");
    world.sbs.set("SECRET", &*new_secret)?;

    let new = printed(&world.sbs.ok(&["get-state-image"])?);
    assert_eq!(world.sbs.config()?["STATE_MIN_EPOCH"], "2");
    the_drill_proves_it(&world, &new)?;

    world.start_server_anew()?;
    let import = |file: &str, more: &[&str]| {
        world.sbs.run(&[&["post-state-image", "--state-image", file], more].concat())
    };
    refused(&import(&old, &[])?, 4, "STATE_MIN_EPOCH");
    // Even for who insists: it opens with the SECRET of its time only.
    refused(&import(&old, &["--min-epoch", "0"])?, 1, "wrong_secret_or_header");
    let imported = import(&new, &[])?;
    assert_eq!((imported.code, imported.stdout.trim()), (0, "OK: epoch 3"), "{}", imported.text());
    refused(&import(&new, &[])?, 1, "state_not_empty");

    world.sbs.ok(&["update"])?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("LABEL a=d"))])?;
    world.sbs.ok(&["build", "--wait"])?;
    let third = world.api()?.status()?;
    for tag in [&first.image_tag, &second.image_tag, &third.image_tag] {
        judge::openssl_image(&world.parts.registry, tag, &image_key)?;
    }
    assert_ne!(second.image_tag, third.image_tag);
    assert_eq!(image_key_of_last(&world)?, image_key);
    Ok(())
}

/// Saves the state in both forms; returns the name of the file in JSON.
fn both_forms_are_saved_and_told(world: &World) -> Result<String> {
    let json = printed(&world.sbs.ok(&["get-state-image"])?);
    let raw = printed(&world.sbs.ok(&["get-state-image", "--raw"])?);
    assert_eq!(raw, format!("{json}.sbs-state"));
    refused(&world.sbs.run(&["get-state-image"])?, 2, "--overwrite");
    assert_eq!(world.sbs.config()?.get("STATE_MIN_EPOCH"), Some(&json!("1")));

    let directory = world.sbs.directory();
    let saved: Value = serde_json::from_slice(&fs::read(directory.join(&json))?)?;
    let saved_state =
        STANDARD.decode(saved.get("state").and_then(Value::as_str).context("a state")?)?;
    let raw_state = fs::read(directory.join(&raw))?;
    assert_ne!(digest(&saved_state), digest(&raw_state));
    let secret = STANDARD.decode(world.secret()?)?;
    let root = world.server.root_secret()?;
    for (file, state) in [(&json, saved_state), (&raw, raw_state)] {
        let bytes = directory.join("bytes");
        fs::write(&bytes, &state)?;
        assert!(judge::python_state(&bytes, &root, &secret)?.contains("keys.json"), "{file}");
        private(&directory.join(file))?;
        let told = world.sbs.ok(&["--format", "json", "state", "info", file])?;
        let told: Value = serde_json::from_str(&told)?;
        for key in ["name", "export_tag"] {
            assert_eq!(told.get(key), saved.get(key), "{told}");
        }
        assert_eq!(told.get("epoch"), Some(&json!(1)), "{told}");
        assert_eq!(told.get("size"), Some(&json!(state.len())), "{told}");
    }
    let told = world.sbs.ok(&["state", "info", &raw])?;
    assert!(told.contains("\nepoch: 1\n") && told.contains("\nform: raw\n"), "{told}");
    the_drill_proves_it(world, &raw)?;
    let other = directory.join("other-root-secret");
    fs::write(&other, random_bytes::<32>())?;
    fs::set_permissions(&other, Permissions::from_mode(0o600))?;
    refused(&drill(world, &raw, &other)?, 4, "unknown_server_key");
    Ok(json)
}

/// Has a server of the drill restore a file; the real server is not touched.
fn the_drill_proves_it(world: &World, file: &str) -> Result<()> {
    let proved = drill(world, file, &world.server.root_secret_file())?;
    assert_eq!(proved.code, 0, "{}", proved.text());
    assert!(proved.stdout.starts_with("verify=OK"), "{}", proved.text());
    assert_eq!(world.api()?.status()?.status.as_str(), "success");
    Ok(())
}

fn drill(world: &World, file: &str, root_secret: &Path) -> Result<Outcome> {
    let root_secret = root_secret.to_string_lossy();
    world.sbs.run(&["state", "verify", file, "--root-secret", &root_secret])
}

fn refused(outcome: &Outcome, code: i32, reason: &str) {
    assert_eq!((outcome.code, &*outcome.stdout), (code, ""), "{}", outcome.text());
    assert!(outcome.stderr.contains(reason), "no `{reason}` in {}", outcome.text());
}

/// Checks that only the owner may read a file.
fn private(file: &Path) -> Result<()> {
    let mode = fs::metadata(file)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    Ok(())
}

/// Returns the one line that a command has printed.
fn printed(text: &str) -> String {
    text.trim_end().to_owned()
}
