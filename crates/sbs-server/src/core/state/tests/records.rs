//! The records in a state image and on the disk: those of before, and wrong ones.

use sbs_state::{ClientShare, Export, RecordName};

use super::*;

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
    let keys = slot.keep.load_keys(at()).unwrap().unwrap().keys.to_record();
    let other_keys = sbs_state::DefinitionKeys::generate(at()).unwrap();
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
    for bad in ["", "{}", ROOTS.replace("versions", "version").as_str()] {
        let file = forged(&[&good[..], &[(RecordName::NotaryRoots, bad.as_bytes())]].concat());
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
