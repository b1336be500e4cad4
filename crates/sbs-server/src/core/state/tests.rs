use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sbs_crypto::digest;
use sbs_proto::{BuildSelector, Digest, Members, Progress, StateHeader, StateSecret, key};
use sbs_state::{
    CaBinding, ClientShare, CounterError, Export, KeyRing, MonotonicCounter, OpenStateError,
    Portability, PrfError, RecordName, RootSecret, RootSecretProvider, ServerShare,
};
use zeroize::Zeroizing;

use super::Sealing;
use super::error::{BucketError, ExportStateError, ImportStateError};
use crate::core::Core;
use crate::core::error::{ReadError, SetDefinitionError, StartBuildError};
use crate::core::state::import::ImportedState;
use crate::core::tests::{Act, CANARY, body, ended, name, open, open_with, root_secret, secret};
use crate::storage::testing::{self, Security, TestStorage, client, quick, well};
use crate::storage::{Plaintext, StorageError};

/// A server and its data.
struct Server {
    core: Core,
    directory: tempfile::TempDir,
}

impl Server {
    fn fresh() -> Self {
        Self::with(&ring(1, &[]), 7)
    }

    fn with(ring: &KeyRing, client_ca: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let core = open_with(directory.path(), Act::Succeed, sealed_for(ring, client_ca)).unwrap();
        Self { core, directory }
    }

    /// One that has built once.
    async fn built() -> Self {
        Self::fresh().build().await
    }

    async fn build(self) -> Self {
        if self.core.slot(&name()).unwrap().now().known.is_none() {
            self.core.initialise(&name(), body(1)).await.unwrap();
        }
        self.core.start_build(&name()).await.unwrap();
        assert_eq!(ended(&self.core).await.progress(), Progress::Succeeded);
        self
    }

    fn restarted(self) -> Self {
        let Self { core, directory } = self;
        drop(core);
        let core = open(directory.path(), Act::Succeed);
        Self { core, directory }
    }

    async fn export(&self) -> Vec<u8> {
        let opened = self.core.export_state(&name()).await.unwrap().into_opened().unwrap();
        let mut bytes = Vec::new();
        let mut file = opened.file.take(u64::MAX);
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len() as u64, Some(digest(&bytes))), (opened.length, opened.digest));
        bytes
    }

    async fn import(&self, file: &[u8]) -> Result<ImportedState, ImportStateError> {
        self.import_with(file, 1, 0).await
    }

    async fn import_with(
        &self,
        file: &[u8],
        secret: u8,
        min_epoch: u64,
    ) -> Result<ImportedState, ImportStateError> {
        let secret = StateSecret::from_bytes([secret; 128]);
        self.core.import_state(&name(), &secret, min_epoch, Cursor::new(file.to_vec())).await
    }

    /// Imports, which must be refused with this word and change nothing on the disk.
    async fn refuses(&self, file: &[u8], code: &str) {
        let before = tree(self.directory.path());
        match self.import(file).await.unwrap_err() {
            ImportStateError::Open(error) => assert_eq!(error.code(), code, "{error}"),
            ImportStateError::Content { .. } => assert_eq!(code, "bad_content"),
            error => panic!("{error:?}"),
        }
        assert_eq!(tree(self.directory.path()), before);
    }

    fn image_key(&self) -> String {
        let now = self.core.slot(&name()).unwrap().now();
        now.keys.as_ref().unwrap().image().verifying_key().to_pem()
    }

    fn epoch(&self) -> u64 {
        self.core.slot(&name()).unwrap().now().known.as_ref().unwrap().epoch
    }
}

fn ring(current: u8, previous: &[u8]) -> KeyRing {
    let previous =
        previous.iter().map(|first| Box::new(root_secret(*first)) as Box<dyn RootSecretProvider>);
    KeyRing::new(Box::new(root_secret(current)), previous.collect()).unwrap()
}

fn sealed_for(ring: &KeyRing, client_ca: u8) -> Sealing {
    Sealing::new(ring, Digest::from_bytes([client_ca; 32]), CaBinding::Enforced).unwrap()
}

fn header(file: &[u8]) -> StateHeader {
    StateHeader::read(&mut &file[..]).unwrap()
}

/// Returns mode and content of everything below a directory.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.metadata().unwrap().permissions().mode();
            let content = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            if path.is_dir() {
                waiting.push(path.clone());
            }
            found.insert(path, (mode, content));
        }
    }
    found
}

#[tokio::test]
async fn a_state_moves_to_a_fresh_server() {
    let old = Server::built().await.build().await;
    let known_hosts = old.core.slot(&name()).unwrap().known_hosts();
    fs::write(known_hosts, "git.example ssh-ed25519 AAAA\n").unwrap();
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
#[derive(Debug)]
struct Counting(RootSecret, Arc<Counter>);

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl RootSecretProvider for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn prf(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, PrfError> {
        Ok(self.0.prf(label))
    }

    fn portability(&self) -> Portability {
        Portability::ThisHost
    }

    fn counter(&self) -> Option<Arc<dyn MonotonicCounter>> {
        let Self(_, counter) = self;
        Some(Arc::<Counter>::clone(counter))
    }
}

impl MonotonicCounter for Counter {
    fn value(&self) -> Result<u64, CounterError> {
        Ok(self.0.load(Ordering::SeqCst))
    }

    fn increment(&self) -> Result<u64, CounterError> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

fn counting(counter: &Arc<Counter>) -> Server {
    let provider = Counting(root_secret(1), Arc::clone(counter));
    Server::with(&KeyRing::new(Box::new(provider), Vec::new()).unwrap(), 7)
}

async fn rotate(server: &Server, from: u8, to: u8) -> Result<(), SetDefinitionError> {
    let mut members = body(from);
    members.insert(key::NEW_SECRET, secret(to));
    server.core.update(&name(), members).await
}

#[tokio::test]
async fn s12_a_state_older_than_the_client_knows_is_refused() {
    let file = Server::built().await.export().await;
    let fresh = Server::fresh();
    for min_epoch in [2, u64::MAX] {
        let error = fresh.import_with(&file, 1, min_epoch).await.unwrap_err();
        let rollback = OpenStateError::Rollback { floor: min_epoch, got: 1 };
        assert_eq!(error.to_string(), rollback.to_string());
    }
    fresh.import_with(&file, 1, 1).await.unwrap();
}

#[tokio::test]
async fn s12_s13_a_counter_refuses_what_a_new_secret_revoked() {
    let counter = Arc::new(Counter(AtomicU64::new(40)));
    let server = counting(&counter).build().await;
    assert_eq!((server.epoch(), counter.value().unwrap()), (41, 40));
    let old = server.export().await;
    // Before a new secret, a state can be imported as often as it must.
    for _ in 0..2 {
        assert_eq!(counting(&counter).import(&old).await.unwrap().epoch, 42);
    }
    rotate(&server, 1, 2).await.unwrap();
    assert_eq!((server.epoch(), counter.value().unwrap()), (42, 42));
    let error = counting(&counter).import(&old).await.unwrap_err();
    assert!(matches!(
        error,
        ImportStateError::Open(OpenStateError::Rollback { floor: 42, got: 41 })
    ));
    let new = server.export().await;
    assert_eq!(counting(&counter).import_with(&new, 2, 0).await.unwrap().epoch, 43);
}

#[tokio::test]
async fn a_server_that_died_over_a_new_secret_exports_what_can_be_imported() {
    let counter = Arc::new(Counter::default());
    let server = counting(&counter).build().await;
    counter.increment().unwrap();
    counter.increment().unwrap();
    let provider = Counting(root_secret(1), Arc::clone(&counter));
    let ring = KeyRing::new(Box::new(provider), Vec::new()).unwrap();
    let Server { core, directory } = server;
    drop(core);
    let core = open_with(directory.path(), Act::Succeed, sealing_of(&ring)).unwrap();
    let server = Server { core, directory };
    assert_eq!(server.epoch(), 2);
    counting(&counter).import(&server.export().await).await.unwrap();
}

fn sealing_of(ring: &KeyRing) -> Sealing {
    sealed_for(ring, 7)
}

#[tokio::test]
async fn s13_s23_an_old_file_and_its_secret_are_of_no_use_to_another_authority() {
    let server = Server::built().await;
    let old = server.export().await;
    rotate(&server, 1, 2).await.unwrap();
    assert_eq!(server.epoch(), 2);
    let attacker = Server::with(&ring(1, &[]), 8);
    attacker.refuses(&old, "ca_mismatch").await;
    // With the new secret the old file does not open at all.
    let error = Server::fresh().import_with(&old, 2, 0).await.unwrap_err();
    assert!(matches!(error, ImportStateError::Open(OpenStateError::WrongSecretOrHeader)));
    // The operator of a server can say that the authority was lost.
    let sealing =
        Sealing::new(&ring(1, &[]), Digest::from_bytes([8; 32]), CaBinding::DangerIgnored).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let core = open_with(directory.path(), Act::Succeed, sealing).unwrap();
    Server { core, directory }.import(&old).await.unwrap();
}

#[tokio::test]
async fn s20_nobody_sets_a_secret_without_the_one_of_before() {
    let server = Server::built().await;
    assert!(matches!(rotate(&server, 3, 4).await, Err(SetDefinitionError::WrongSecret)));
    let again = server.core.initialise(&name(), body(4)).await;
    assert!(matches!(again, Err(SetDefinitionError::KeysExist)));
    let file = server.export().await;
    Server::fresh().import_with(&file, 1, 0).await.unwrap();
    let error = Server::fresh().import_with(&file, 4, 0).await.unwrap_err();
    assert!(matches!(error, ImportStateError::Open(OpenStateError::WrongSecretOrHeader)));
}

#[tokio::test]
async fn s21_wrong_secrets_of_updates_and_inits_are_counted_together() {
    let server = Server::built().await;
    for round in 0..10 {
        if round % 2 == 0 {
            assert!(matches!(rotate(&server, 3, 4).await, Err(SetDefinitionError::WrongSecret)));
        } else {
            let again = server.core.initialise(&name(), body(4)).await;
            assert!(matches!(again, Err(SetDefinitionError::KeysExist)));
        }
    }
    let right = server.core.update(&name(), body(1)).await;
    assert!(matches!(right, Err(SetDefinitionError::TooManyAttempts(_))));
    let init = server.core.initialise(&name(), body(1)).await;
    assert!(matches!(init, Err(SetDefinitionError::TooManyAttempts(_))));
}

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

/// Seals records that no server would.
fn forged(records: &[(RecordName, &[u8])]) -> Vec<u8> {
    let client = ClientShare::derive(&StateSecret::from_bytes([1; 128]));
    let client_ca_sha256 = Some(Digest::from_bytes([7; 32]));
    let meta = sbs_proto::StateMeta { client_ca_sha256, ..Default::default() };
    let export = Export { epoch: 1, export_seq: 1, created_ms: 0, meta };
    let server = ServerShare::of(&root_secret(1));
    sbs_state::seal(export, &server, &client, records, Vec::new()).unwrap()
}

#[tokio::test]
async fn s17_a_genuine_state_with_a_wrong_record_is_refused() {
    let built = Server::built().await;
    let slot = built.core.slot(&name()).unwrap();
    let keys = slot.keep.load_keys().unwrap().unwrap().to_record();
    let other_keys = sbs_state::DefinitionKeys::generate().unwrap();
    let instance = br#"{"instance_id":"x","server_version":"1"}"#;
    let (journal, _) = slot.builds.newest_first().unwrap().remove(0);
    let builds = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut journal = serde_json::to_value(&journal).unwrap();
        edit(&mut journal);
        serde_json::json!({ "builds": [{ "journal": journal }] }).to_string()
    };
    let server = Server::fresh();
    let good: [(RecordName, &[u8]); 3] = [
        (RecordName::Instance, instance),
        (RecordName::Definition, b"{}"),
        (RecordName::Keys, &keys),
    ];
    let twice = {
        let one = builds(&|_| {});
        let inner = one.strip_prefix("{\"builds\":[").unwrap().strip_suffix("]}").unwrap();
        format!("{{\"builds\":[{inner},{inner}]}}")
    };
    for bad in [
        builds(&|journal| journal["id"] = "../../../etc".into()),
        builds(&|journal| journal["id"] = "".into()),
        builds(&|journal| journal["phase"] = "running".into()),
        builds(&|journal| journal["build_name"] = "../x".into()),
        builds(&|journal| journal["build_name"] = serde_json::Value::Null),
        twice,
        "{\"builds\":[],\"builds\":[]}".to_owned(),
        "{\"builds\":[{\"journal\":{}}]}".to_owned(),
        "[]".to_owned(),
        String::new(),
    ] {
        let file = forged(&[&good[..], &[(RecordName::Builds, bad.as_bytes())]].concat());
        server.refuses(&file, "bad_content").await;
    }
    let key = serde_json::json!({ "builds": [{ "journal": journal, "public_key": "no key" }] });
    let key = key.to_string();
    let file = forged(&[&good[..], &[(RecordName::Builds, key.as_bytes())]].concat());
    server.refuses(&file, "bad_content").await;
    for (place, bad) in [
        (0, &b"{}"[..]),
        (0, br#"{"instance_id":"x","server_version":"1","x":1}"#),
        (1, b"[]"),
        (1, b"{\"A\":1,\"A\":2}"),
        (1, b"\xff"),
        (2, b"{}"),
        (2, &keys[..keys.len() - 2]),
        (2, &other_keys.to_record()[..40]),
    ] {
        let mut records = good;
        records[place].1 = bad;
        server.refuses(&forged(&records), "bad_content").await;
    }
    server.import(&forged(&good)).await.unwrap();
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
        let kept = server.core.slot(&name()).unwrap().keep.load_keys().unwrap().unwrap();
        assert_eq!(server.image_key(), kept.image().verifying_key().to_pem());
    }
}

#[tokio::test]
async fn a_definition_of_before_there_were_epochs_is_of_epoch_0() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), Act::Succeed));
    let share = ClientShare::derive(&StateSecret::from_bytes([1; 128])).expose_hex();
    let record = |schema: u32| {
        serde_json::json!({ "client_share": *share, "members": "{}", "schema": schema }).to_string()
    };
    let label = "definitions/default/definition";
    let path = directory.path().join(format!("{label}.sealed"));
    let write = |schema| {
        let sealed = sealed_for(&ring(1, &[]), 7).at_rest.seal(label, record(schema).as_bytes());
        fs::write(&path, sealed.unwrap()).unwrap();
    };
    write(1);
    let core = open(directory.path(), Act::Succeed);
    assert_eq!(core.slot(&name()).unwrap().now().known.as_ref().unwrap().epoch, 0);
    drop(core);
    write(3);
    let error = open_with(directory.path(), Act::Succeed, sealed_for(&ring(1, &[]), 7));
    assert!(error.unwrap_err().to_string().contains("schema 3"));
}

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
