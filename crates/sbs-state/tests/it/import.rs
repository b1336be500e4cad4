use sbs_proto::{Digest, StateMeta};
use sbs_state::{AcceptedState, CaBinding, Export, ImportPolicy, OpenStateError, RecordName};

use crate::common::{RECORDS, client, export, seal_records, server};

fn with_ca(byte: u8) -> Export {
    let meta =
        StateMeta { client_ca_sha256: Some(Digest::from_bytes([byte; 32])), ..export().meta };
    Export { meta, ..export() }
}

fn policy() -> ImportPolicy {
    ImportPolicy {
        min_epoch: 0,
        own_epoch: 0,
        client_ca_sha256: Digest::from_bytes([7; 32]),
        ca_binding: CaBinding::Enforced,
    }
}

fn import(export: Export, policy: &ImportPolicy) -> Result<AcceptedState, OpenStateError> {
    let file = seal_records(export, &RECORDS);
    sbs_state::open(&[server(1)], &client(2), &file[..])?.accept(policy)
}

fn code(export: Export, policy: &ImportPolicy) -> &'static str {
    import(export, policy).map_or_else(|error| error.code(), |_| "success")
}

#[test]
fn an_accepted_state_gives_its_records() {
    let state = import(with_ca(7), &policy()).unwrap();
    for (name, bytes) in RECORDS {
        assert_eq!(state.record(name), Some(bytes));
        assert_eq!(state.schema(name), Some(1));
    }
    for name in [RecordName::Builds, RecordName::KnownHosts, RecordName::Manifest] {
        assert_eq!((state.record(name), state.schema(name)), (None, None));
    }
    assert_eq!((state.header().epoch, state.header().export_seq), (5, 9));
}

#[test]
fn s12_an_old_epoch_is_a_rollback() {
    for (min_epoch, own_epoch, expected) in [
        (0, 0, "success"),
        (5, 0, "success"),
        (0, 5, "success"),
        (5, 5, "success"),
        (6, 0, "rollback"),
        (0, 6, "rollback"),
        (6, 5, "rollback"),
        (u64::MAX, 0, "rollback"),
    ] {
        let policy = ImportPolicy { min_epoch, own_epoch, ..policy() };
        assert_eq!(code(with_ca(7), &policy), expected, "{min_epoch}, {own_epoch}");
    }
    let policy = ImportPolicy { min_epoch: 6, own_epoch: 9, ..policy() };
    let error = import(with_ca(7), &policy).unwrap_err();
    assert_eq!(error.to_string(), "state image is of epoch 5, expected epoch 9 or a later one");
}

#[test]
fn s13_s23_a_server_with_other_clients_refuses_it() {
    assert_eq!(code(with_ca(8), &policy()), "ca_mismatch");
    // An image that names no authority is not one of every authority.
    assert_eq!(code(export(), &policy()), "ca_mismatch");
    let ignoring = ImportPolicy { ca_binding: CaBinding::DangerIgnored, ..policy() };
    assert_eq!(code(with_ca(8), &ignoring), "success");
    assert_eq!(code(export(), &ignoring), "success");
    // The one does not switch off the other.
    let old = ImportPolicy { min_epoch: 6, ..ignoring };
    assert_eq!(code(with_ca(8), &old), "rollback");
}

#[test]
fn the_policy_comes_after_the_secrets() {
    // A file that cannot be opened does not tell by its error what the policy would say.
    let file = seal_records(with_ca(8), &RECORDS);
    let error = sbs_state::open(&[server(1)], &client(3), &file[..]).unwrap_err();
    assert_eq!(error.code(), "wrong_secret_or_header");
}

#[test]
fn debug_shows_no_record() {
    let file = seal_records(with_ca(7), &RECORDS);
    let opened = sbs_state::open(&[server(1)], &client(2), &file[..]).unwrap();
    let text = format!("{opened:?}");
    let accepted = opened.accept(&policy()).unwrap();
    for text in [text, format!("{accepted:?}")] {
        assert!(text.contains("epoch: 5"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("104, 117"), "{text}");
    }
}
