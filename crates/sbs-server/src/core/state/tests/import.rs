//! What comes into a server: where it is taken, refused, and what it changes.

use super::*;
use crate::core::error::{ReadError, StartBuildError};

#[tokio::test]
async fn a_state_moves_to_a_fresh_server() {
    let old = Server::built().await.build().await;
    let known_hosts = old.core.slot(&name()).unwrap().known_hosts();
    fs::write(known_hosts, "git.example ssh-ed25519 AAAA\n").unwrap();
    fs::write(old.core.slot(&name()).unwrap().notary_roots(), ROOTS).unwrap();
    let latest = old.core.public_key(&name(), &BuildSelector::Latest).unwrap();
    let image = old.core.image_digest(&name()).unwrap();
    let (file, image_key) = (old.export().await, old.image_key());
    assert_eq!((header(&file).epoch, header(&file).export_seq), (1, 1));
    assert_eq!(header(&file).meta.name.unwrap().as_str(), latest.0.as_str());
    drop(old);

    let new = Server::fresh();
    let imported = new.import_with(&file, 1, 1).await.unwrap();
    assert_eq!(imported, ImportedState { definition: true, epoch: 2 });
    for new in [new.restarted(), Server::fresh()] {
        if new.core.slot(&name()).unwrap().now().known.is_none() {
            new.import(&file).await.unwrap();
        }
        let status = new.core.status(&name());
        assert_eq!((status.status.as_str(), &*status.build_image_tag.unwrap()), ("", "1.3.0.20"));
        assert_eq!((new.image_key(), new.epoch()), (image_key.clone(), 2));
        assert_eq!(new.core.public_key(&name(), &BuildSelector::Latest).unwrap(), latest);
        assert_eq!(new.core.image_digest(&name()).unwrap(), image);
        let ids = new.core.builds(&name()).unwrap().into_iter().map(|(journal, _)| journal.id);
        assert!(ids.eq(["00000002", "00000001"]));
        let manifest = new.core.manifest(&name(), &BuildSelector::Latest, u64::MAX);
        assert!(matches!(manifest, Err(ReadError::NotHere { .. })));
        let known_hosts = fs::read(new.core.slot(&name()).unwrap().known_hosts()).unwrap();
        assert_eq!(known_hosts, b"git.example ssh-ed25519 AAAA\n");
        let roots = fs::read(new.core.slot(&name()).unwrap().notary_roots()).unwrap();
        assert_eq!(roots, ROOTS.as_bytes());

        // The secret came with it, and the next builds and exports go on from there.
        new.core.update(&name(), body(1)).await.unwrap();
        let new = new.build().await;
        assert_eq!(new.core.builds(&name()).unwrap().first().unwrap().0.id, "00000003");
        assert_eq!(new.image_key(), image_key);
        let again = header(&new.export().await);
        assert_eq!((again.epoch, again.export_seq), (2, 2));
    }
}

#[tokio::test]
async fn what_notaries_said_to_the_server_is_not_forgotten_over_an_import() {
    let old = Server::built().await;
    let without = old.export().await;
    fs::write(old.core.slot(&name()).unwrap().notary_roots(), ROOTS).unwrap();
    let with = old.export().await;
    let own = ROOTS.replace(":3}", ":4}");
    let others = ROOTS.replace("/app", "/other");
    let both = format!(r#"{{"repositories":{{{},{}}}}}"#, inside(ROOTS), inside(&others));
    for (file, own, expected) in [
        (&without, &own, &own),
        (&with, &own, &own),
        (&with, &ROOTS.replace(":3}", ":2}"), &ROOTS.to_owned()),
        (&with, &others, &both),
    ] {
        let server = Server::fresh();
        let roots = || server.core.slot(&name()).unwrap().notary_roots();
        fs::write(roots(), own).unwrap();
        server.import(file).await.unwrap();
        assert_eq!(&fs::read_to_string(roots()).unwrap(), expected);
    }
}

/// Returns the one repository of a file of what notaries have said.
fn inside(roots: &str) -> &str {
    roots.strip_prefix(r#"{"repositories":{"#).and_then(|text| text.strip_suffix("}}")).unwrap()
}

#[tokio::test]
async fn s1_a_server_with_another_root_secret_refuses() {
    let mut file = Server::built().await.export().await;
    let other = Server::with(&ring(2, &[]), 7);
    other.refuses(&file, "unknown_server_key").await;
    // Nor does it open by calling itself the other server's.
    let kid = ServerShare::of(&root_secret(2)).kid();
    file[16..24].copy_from_slice(&kid);
    other.refuses(&file, "wrong_secret_or_header").await;
    let next = Server::with(&ring(2, &[1]), 7);
    file[16..24].copy_from_slice(&ServerShare::of(&root_secret(1)).kid());
    next.import(&file).await.unwrap();
    // From now on it is sealed under the new root secret.
    assert_eq!(header(&next.export().await).server_kid, kid);
}

#[tokio::test]
async fn s2_another_secret_is_refused_and_counted() {
    let file = Server::built().await.export().await;
    let server = Server::fresh();
    let before = tree(server.directory.path());
    for _ in 0..10 {
        let error = server.import_with(&file, 2, 0).await.unwrap_err();
        assert!(matches!(error, ImportStateError::Open(OpenStateError::WrongSecretOrHeader)));
    }
    for secret in [1, 2] {
        let error = server.import_with(&file, secret, 0).await.unwrap_err();
        assert!(matches!(error, ImportStateError::TooManyAttempts(_)), "{error:?}");
    }
    assert_eq!(tree(server.directory.path()), before);
    // A server that is initialised knows its secret: others are not tried on a file at all.
    let server = Server::fresh();
    server.core.initialise(&name(), body(2)).await.unwrap();
    let error = server.import(&file).await.unwrap_err();
    assert!(matches!(error, ImportStateError::WrongSecret), "{error:?}");
}

#[tokio::test]
async fn s5_s7_what_is_no_state_image_of_ours_changes_nothing() {
    let file = Server::built().await.export().await;
    let server = Server::fresh();
    let changed = |place: usize, byte: u8| {
        let mut changed = file.clone();
        changed[place] = byte;
        changed
    };
    for (file, code) in [
        (Vec::new(), "truncated"),
        (changed(0, b's'), "bad_magic"),
        (changed(9, 2), "unknown_version"),
        (changed(11, 2), "unknown_suite"),
        (changed(12, 0xff), "too_large"),
        (changed(31, 9), "wrong_secret_or_header"),
        (changed(file.len() - 1, !file[file.len() - 1]), "payload"),
        (file[..file.len() / 2].to_vec(), "payload"),
        (file[..60].to_vec(), "truncated"),
        ([&file[..], b"x"].concat(), "payload"),
    ] {
        server.refuses(&file, code).await;
    }
    server.import(&file).await.unwrap();
}

#[tokio::test]
async fn s11_a_server_with_keys_imports_nothing() {
    let server = Server::built().await;
    let file = server.export().await;
    let before = tree(server.directory.path());
    for secret in [1, 2] {
        let error = server.import_with(&file, secret, 0).await.unwrap_err();
        assert!(matches!(error, ImportStateError::NotEmpty), "{error:?}");
    }
    assert_eq!(tree(server.directory.path()), before);
    let fresh = Server::fresh();
    fresh.import(&file).await.unwrap();
    let error = fresh.import(&file).await.unwrap_err();
    assert!(matches!(error, ImportStateError::NotEmpty), "{error:?}");
}

/// A root secret with a counter beside it.

#[tokio::test]
async fn a_definition_that_was_set_before_the_import_stays() {
    let file = Server::built().await.export().await;
    let server = Server::fresh();
    let mut newer = body(1);
    newer.insert("GITHUB_URL", "git@git.example:u/newer.git");
    server.core.initialise(&name(), newer).await.unwrap();
    let imported = server.import(&file).await.unwrap();
    assert_eq!(imported, ImportedState { definition: false, epoch: 2 });
    let server = server.restarted();
    let kept = server.core.slot(&name()).unwrap().keep.load_definition().unwrap().unwrap();
    let members = String::from_utf8(kept.expose_members().to_vec()).unwrap();
    assert!(members.contains("newer.git"), "another definition");
    // The secret is still the one that both share.
    server.core.update(&name(), body(1)).await.unwrap();
}

#[tokio::test]
async fn a_running_build_and_an_import_exclude_each_other() {
    let file = Server::built().await.export().await;
    let directory = tempfile::tempdir().unwrap();
    let core = open(directory.path(), Act::WaitForCancel);
    core.initialise(&name(), body(1)).await.unwrap();
    core.start_build(&name()).await.unwrap();
    let server = Server { core, directory };
    let error = server.import(&file).await.unwrap_err();
    assert!(matches!(error, ImportStateError::Busy), "{error:?}");
    // What is known of a server that was made before anything was built is exported meanwhile.
    server.export().await;
    server.core.clean(&name()).await.unwrap();
    assert!(matches!(server.import(&file).await, Err(ImportStateError::NotEmpty)));
    server.core.stop().await;
    assert!(matches!(server.import(&file).await, Err(ImportStateError::Stopping)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t8_of_many_imports_and_builds_at_once_one_makes_the_keys() {
    let old = Server::built().await;
    let (file, old_key) = (Arc::new(old.export().await), old.image_key());
    for _ in 0..5 {
        let server = Server::fresh();
        server.core.initialise(&name(), body(1)).await.unwrap();
        let mut tasks = Vec::new();
        for round in 0..8 {
            let (core, file) = (server.core.clone(), Arc::clone(&file));
            tasks.push(tokio::spawn(async move {
                if round % 4 == 1 {
                    let started = core.start_build(&name()).await;
                    assert!(matches!(started, Ok(()) | Err(StartBuildError::Busy)), "{started:?}");
                    return None;
                }
                let secret = StateSecret::from_bytes([1; 128]);
                let input = Cursor::new(file.to_vec());
                Some(core.import_state(&name(), &secret, 0, input).await)
            }));
        }
        let mut imported = 0;
        for task in tasks {
            match task.await.unwrap() {
                None | Some(Err(ImportStateError::NotEmpty | ImportStateError::Busy)) => {}
                Some(Ok(_)) => imported += 1,
                Some(Err(error)) => panic!("{error:?}"),
            }
        }
        ended(&server.core).await;
        assert!(imported <= 1);
        assert_eq!(server.image_key() == old_key, imported == 1);
        // What is in memory is what is on the disk.
        let kept = server.core.slot(&name()).unwrap().keep.load_keys(at()).unwrap().unwrap().keys;
        assert_eq!(server.image_key(), kept.image().current.verifying_key().to_pem());
    }
}
