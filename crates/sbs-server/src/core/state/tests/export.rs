//! What leaves a server: what an export holds, shows and leaves behind.

use super::*;

#[tokio::test]
async fn there_is_nothing_to_export_before_the_first_build() {
    let server = Server::fresh();
    for _ in 0..2 {
        let error = server.core.export_state(&name()).await.unwrap_err();
        assert!(matches!(error, ExportStateError::Nothing { .. }), "{error:?}");
        server.core.initialise(&name(), body(1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_build_that_failed_has_made_keys_which_are_exported() {
    let directory = tempfile::tempdir().unwrap();
    let core = open(directory.path(), Act::Fail);
    core.initialise(&name(), body(1)).await.unwrap();
    core.start_build(&name()).await.unwrap();
    ended(&core).await;
    let server = Server { core, directory };
    let file = server.export().await;
    let state_name = header(&file).meta.name.unwrap();
    assert!(state_name.as_str().starts_with("state.ns.app.20"), "{state_name}");
    let new = Server::fresh();
    new.import(&file).await.unwrap();
    assert_eq!(new.image_key(), server.image_key());
}

#[tokio::test]
async fn an_exported_file_leaves_nothing_in_the_data_directory() {
    let server = Server::built().await;
    let staging = server.directory.path().join("staging");
    let exported = server.core.export_state(&name()).await.unwrap();
    let files = tree(&staging);
    assert!(files.values().all(|(mode, _)| mode & 0o777 == 0o600));
    assert_eq!(files.len(), 1);
    let plain = |content: &[u8]| content.windows(CANARY.len()).any(|at| at == CANARY.as_bytes());
    assert!(!files.values().any(|(_, content)| plain(content)));
    let opened = exported.into_opened().unwrap();
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    assert!(opened.file.metadata().unwrap().len() > 4096);
    // What a server that died left is removed by the next one.
    fs::create_dir(staging.join("import-x")).unwrap();
    fs::write(staging.join("import-x/keys.sealed"), "x").unwrap();
    drop(server.restarted());
    assert_eq!(fs::read_dir(&staging).map(Iterator::count).unwrap_or_default(), 0);
}

#[tokio::test]
async fn s9_no_two_exports_have_the_same_number() {
    let mut server = Server::built().await;
    let mut last = 0;
    for round in 0..3 {
        let [one, two] = [server.export().await, server.export().await];
        assert_eq!((header(&one).export_seq, header(&two).export_seq), (last + 1, last + 2));
        assert_ne!(one[one.len() - 4096..], two[two.len() - 4096..], "{round}");
        last += 2;
        server = server.restarted();
    }
}

#[tokio::test]
async fn s22_the_length_of_an_export_does_not_tell_what_is_in_it() {
    let mut lengths = Vec::new();
    for guess in [CANARY.to_owned(), "x".repeat(CANARY.len())] {
        let server = Server::fresh();
        let mut members = body(1);
        members.insert("ARG", serde_json::json!({ "GUESS": guess }));
        server.core.initialise(&name(), members).await.unwrap();
        lengths.push(server.build().await.export().await.len());
    }
    assert_eq!(lengths[0], lengths[1]);
}

#[tokio::test]
async fn s24_the_clear_part_names_no_more_than_it_may() {
    let file = Server::built().await.export().await;
    let meta = serde_json::to_value(header(&file).meta).unwrap();
    let keys: Vec<_> = meta.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["client_ca_sha256", "export_tag", "name", "provider", "server_version"]);
    assert_eq!((&meta["export_tag"], &meta["provider"]), (&"sbs-seal-1".into(), &"memory".into()));
}
