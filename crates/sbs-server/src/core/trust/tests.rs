use std::fs;
use std::path::Path;

use sbs_state::RotateKeyError;
use zeroize::Zeroizing;

use super::*;
use crate::core::error::{SetKeysError, StartBuildError};
use crate::core::tests::{Act, at, built_with, ended, name, open, root_secret, sealing, set};

/// The secret of the definition that is set here.
fn own() -> StateSecret {
    StateSecret::from_bytes([1; 128])
}

fn ids(keys: &[PublicKey]) -> Vec<(&str, bool)> {
    keys.iter().map(|key| (key.id.as_str(), key.retiring)).collect()
}

fn epoch(core: &Core) -> u64 {
    core.slot(&name()).unwrap().now().known.as_ref().unwrap().epoch
}

#[tokio::test]
async fn before_the_first_build_there_is_nothing_to_tell() {
    let directory = tempfile::tempdir().unwrap();
    let core = open(directory.path(), Act::Succeed);
    assert!(matches!(core.trust(&name()), Err(TrustError::NoKeys)));
    let rotated = core.rotate_key(&name(), KeyRole::Image, &own()).await;
    assert!(matches!(rotated, Err(RotateError::NotInitialised)));
    set(&core, &[]).await;
    assert!(matches!(core.trust(&name()), Err(TrustError::NoKeys)));
    assert!(matches!(core.registration(&name()), Err(TrustError::NoKeys)));
    let rotated = core.rotate_key(&name(), KeyRole::Image, &own()).await;
    assert!(matches!(rotated, Err(RotateError::Keys(TrustError::NoKeys))));
    let other = DefinitionName::parse("other").unwrap();
    assert!(matches!(core.trust(&other), Err(TrustError::NoSuchDefinition)));
}

#[tokio::test]
async fn every_role_has_a_key_of_its_own_in_the_bundle() {
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &[]).await;
    let bundle = core.trust(&name()).unwrap();
    let [image, attestation, manifest] =
        [&bundle.image_keys, &bundle.attestation_keys, &bundle.manifest_keys].map(|keys| &keys[0]);
    assert!(image.id != attestation.id && attestation.id != manifest.id && image.id != manifest.id);
    let pem = sbs_crypto::ImageVerifyingKey::from_pem(&image.pem).unwrap();
    assert_eq!(digest(pem.spki_der()).to_hex(), image.id);
    assert_eq!(bundle.openpgp_keys.len(), 1);
    assert_eq!(bundle.repository.to_string(), "docker.io/ns/app");
    assert_eq!((bundle.notary, bundle.lookaside), (None, None));
}

#[tokio::test]
async fn a_notary_has_keys_for_each_repository_which_stay() {
    let directory = tempfile::tempdir().unwrap();
    let notary = ("DOCKER_CONTENT_TRUST_PUSH_SERVER", "https://notary.example".to_owned());
    let core = built_with(directory.path(), std::slice::from_ref(&notary)).await;
    let build_of = async |repository: &str| {
        set(&core, &[notary.clone(), ("DOCKER_REPO", repository.to_owned())]).await;
        core.start_build(&name()).await.unwrap();
        ended(&core).await;
        core.trust(&name()).unwrap().notary.unwrap()
    };
    let first = build_of("ns/app").await;
    let before = epoch(&core);
    assert_eq!(
        (first.gun.as_str(), first.server.to_string().as_str()),
        ("docker.io/ns/app", "https://notary.example")
    );
    let other = build_of("ns/other").await;
    assert_ne!(other.root_key_id, first.root_key_id);
    assert_eq!(epoch(&core), before + 1, "new keys begin an epoch");
    assert_eq!(build_of("ns/app").await, first);
    assert_eq!(epoch(&core), before + 1);

    drop(core);
    let core = open(directory.path(), Act::Succeed);
    assert_eq!(core.trust(&name()).unwrap().notary, Some(first.clone()));
    let registration = core.registration(&name()).unwrap();
    assert_eq!(registration.public_key_id, first.root_key_id);
    assert_eq!(registration.public_key, STANDARD.encode(first.root_certificate));
}

#[tokio::test]
async fn the_key_of_a_registration_has_the_form_that_the_originals_client_wants() {
    for (keys, encoded) in [
        (vec![], true),
        (vec![("DOCKER_PUSH_SERVER", "de.icr.io".to_owned())], false),
        (
            vec![
                ("DOCKER_PUSH_SERVER", "de.icr.io".to_owned()),
                ("RUNTIME_TYPE", "classic".to_owned()),
            ],
            true,
        ),
        (
            vec![
                ("DOCKER_PUSH_SERVER", "de.icr.io".to_owned()),
                ("DOCKER_CONTENT_TRUST_PUSH_SERVER", "de.icr.io".to_owned()),
            ],
            false,
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let core = built_with(directory.path(), &keys).await;
        let openpgp = core.trust(&name()).unwrap().openpgp_keys.remove(0);
        let registration = core.registration(&name()).unwrap();
        let expected = if encoded { STANDARD.encode(&openpgp.armored) } else { openpgp.armored };
        assert_eq!(registration.public_key, expected, "{keys:?}");
        assert_eq!(registration.public_key_id, openpgp.fingerprint);
        assert_eq!(registration.docker_username, "");
        assert_eq!(registration.docker_password.expose(), "");
    }
}

#[tokio::test]
async fn a_rotation_lasts_over_a_restart_and_begins_an_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &[]).await;
    let first = core.trust(&name()).unwrap();
    let before = epoch(&core);
    core.rotate_key(&name(), KeyRole::Image, &own()).await.unwrap();
    let rotated = core.trust(&name()).unwrap();
    let [(new, false), (old, true)] = ids(&rotated.image_keys)[..] else { panic!("{rotated:?}") };
    assert_eq!(old, first.image_keys[0].id);
    assert_ne!(new, old);
    assert_eq!(ids(&rotated.attestation_keys), ids(&first.attestation_keys));
    assert_eq!(epoch(&core), before + 1);
    let again = core.rotate_key(&name(), KeyRole::Image, &own()).await;
    assert!(matches!(again, Err(RotateError::Rotate(RotateKeyError::NotRetired))));
    let none = core.retire_key(&name(), KeyRole::Manifest, &own()).await;
    assert!(matches!(none, Err(RotateError::Rotate(RotateKeyError::NotRotating))));
    assert_eq!(epoch(&core), before + 1, "what was refused changed nothing");

    drop(core);
    let core = open(directory.path(), Act::Succeed);
    assert_eq!(core.trust(&name()).unwrap(), rotated);
    core.retire_key(&name(), KeyRole::Image, &own()).await.unwrap();
    assert_eq!(ids(&core.trust(&name()).unwrap().image_keys), [(new, false)]);
    assert_eq!(epoch(&core), before + 2);
}

#[tokio::test]
async fn keys_are_not_rotated_under_a_build() {
    let directory = tempfile::tempdir().unwrap();
    let core = open(directory.path(), Act::WaitForCancel);
    set(&core, &[]).await;
    core.start_build(&name()).await.unwrap();
    for result in [
        core.rotate_key(&name(), KeyRole::Image, &own()).await,
        core.retire_key(&name(), KeyRole::Image, &own()).await,
    ] {
        assert!(matches!(result, Err(RotateError::Busy)), "{result:?}");
    }
    core.clean(&name()).await.unwrap();
    core.rotate_key(&name(), KeyRole::Image, &own()).await.unwrap();
}

#[tokio::test]
async fn t10_nobody_rotates_or_retires_a_key_without_the_secret() {
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &[]).await;
    core.rotate_key(&name(), KeyRole::Image, &own()).await.unwrap();
    let (before, first) = (core.trust(&name()).unwrap(), epoch(&core));
    let other = StateSecret::from_bytes([2; 128]);
    let try_both = async |secret: &StateSecret| {
        let rotated = core.rotate_key(&name(), KeyRole::OpenPgp, secret).await;
        (rotated, core.retire_key(&name(), KeyRole::Image, secret).await)
    };
    // Each is counted with the others, and after ten no secret is tried any more.
    for _ in 0..5 {
        let tried = try_both(&other).await;
        assert!(
            matches!(tried, (Err(RotateError::WrongSecret), Err(RotateError::WrongSecret))),
            "{tried:?}"
        );
    }
    for secret in [other, own()] {
        let (rotated, retired) = try_both(&secret).await;
        assert!(matches!(rotated, Err(RotateError::TooManyAttempts(_))), "{rotated:?}");
        assert!(matches!(retired, Err(RotateError::TooManyAttempts(_))), "{retired:?}");
    }
    assert_eq!((core.trust(&name()).unwrap(), epoch(&core)), (before, first));
}

/// Returns keys whose record has this many bytes: those at notaries fill it.
fn keys_of_length(core: &Core, length: usize) -> DefinitionKeys {
    let copy = |gun: String| {
        let kept = core.slot(&name()).unwrap().keep.load_keys(at()).unwrap().unwrap();
        let mut keys = kept.keys;
        keys.set_notary(&gun, Zeroizing::new(vec![7; 180_000]));
        keys
    };
    let room = length - copy("g".to_owned()).to_record().len();
    let keys = copy("g".repeat(room + 1));
    assert_eq!(keys.to_record().len(), length);
    keys
}

#[tokio::test]
async fn keys_that_would_not_be_read_again_are_not_kept() {
    let notary = ("DOCKER_CONTENT_TRUST_PUSH_SERVER", "https://notary.example".to_owned());
    let directory = tempfile::tempdir().unwrap();
    let mut core = built_with(directory.path(), &[]).await;
    let before = epoch(&core);
    let limit = DefinitionKeys::MAX_RECORD_BYTES;
    for (length, fits) in [(limit + 1, false), (limit, true)] {
        let slot = core.slot(&name()).unwrap();
        let kept = slot.keep.load_definition().unwrap().unwrap();
        let set = slot.set_keys(kept, keys_of_length(&core, length), &core.0.sealing);
        assert_eq!(set.is_ok(), fits, "{length}");
        assert_eq!(epoch(&core), before + u64::from(fits), "what was refused changed nothing");
        drop(core);
        core = open(directory.path(), Act::Succeed);
    }
    // Both ways to more keys say so, and the server starts as before.
    set(&core, std::slice::from_ref(&notary)).await;
    let started = core.start_build(&name()).await;
    assert!(matches!(started, Err(StartBuildError::SetKeys(SetKeysError::Full))), "{started:?}");
    let rotated = core.rotate_key(&name(), KeyRole::Image, &own()).await;
    assert!(matches!(rotated, Err(RotateError::SetKeys(SetKeysError::Full))), "{rotated:?}");
    drop(core);
    assert_eq!(epoch(&open(directory.path(), Act::Succeed)), before + 1);
}

/// Puts the keys of a server of before, which had two, in the place of those that are there.
fn put_old_keys(directory: &Path) {
    let ring = sbs_state::KeyRing::new(Box::new(root_secret(1)), Vec::new()).unwrap();
    let label = "definitions/default/keys";
    let record = include_bytes!("../../../../sbs-state/tests/data/definition-keys-v1.json");
    let sealed = sealing(&ring).at_rest.seal(label, record).unwrap();
    fs::write(directory.join(format!("{label}.sealed")), sealed).unwrap();
}

#[tokio::test]
async fn a_server_with_keys_of_before_makes_the_others_at_its_start_once() {
    let directory = tempfile::tempdir().unwrap();
    let core = built_with(directory.path(), &[]).await;
    let before = epoch(&core);
    drop(core);
    put_old_keys(directory.path());
    let image = include_str!("../../../../sbs-state/tests/data/definition-keys-v1.image.pem");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let core = open(directory.path(), Act::Succeed);
        let bundle = core.trust(&name()).unwrap();
        assert_eq!(bundle.image_keys[0].pem, image);
        seen.push((bundle.openpgp_keys[0].fingerprint.clone(), epoch(&core)));
        let kept = core.slot(&name()).unwrap().keep.load_keys(at()).unwrap().unwrap();
        assert!(!kept.made, "they are on the disk");
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].1, before + 1);
}

#[tokio::test]
async fn r5_a_root_is_not_forgotten_under_a_build_that_would_remember_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let core = open(directory.path(), Act::WaitForCancel);
    set(&core, &[]).await;
    let server = NotaryServer::parse("notary.example").unwrap();
    let [app, other] = ["r.example/app", "r.example/other"].map(|text| {
        let image = sbs_proto::ImageReference::parse(text).unwrap();
        Gun::new(image.registry(), image.repository())
    });
    let entry = |gun: &Gun| {
        let said = serde_json::json!({ "gun": gun.to_string(), "root": "{}", "versions": {} });
        (format!("{server} {gun}"), said)
    };
    let entries = [&app, &other].map(entry);
    let entries: serde_json::Map<_, _> = entries.into_iter().collect();
    let path = core.slot(&name()).unwrap().notary_roots();
    fs::write(&path, serde_json::json!({ "repositories": entries }).to_string()).unwrap();

    core.start_build(&name()).await.unwrap();
    let busy = core.forget_notary_root(&name(), &server, &app).await;
    assert!(matches!(busy, Err(ForgetNotaryRootError::Busy)), "{busy:?}");
    core.clean(&name()).await.unwrap();
    core.forget_notary_root(&name(), &server, &app).await.unwrap();
    let roots = NotaryRoots::load(&path).unwrap();
    assert_eq!(roots.get(&server, &app).unwrap(), None);
    assert!(roots.get(&server, &other).unwrap().is_some());
    let again = core.forget_notary_root(&name(), &server, &app).await;
    assert!(matches!(again, Err(ForgetNotaryRootError::Unknown { .. })), "{again:?}");
}
