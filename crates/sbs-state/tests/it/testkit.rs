//! The frozen files of `tests/data/sealed`: what they are said to be, they must be for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_proto::Digest;
use sbs_state::{CaBinding, ImportPolicy};

use crate::cases::cases;
use crate::common::{client, server};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sealed");

/// Every code word that opening and accepting have.
const CODES: [&str; 12] = [
    "bad_content",
    "bad_magic",
    "ca_mismatch",
    "payload",
    "rollback",
    "success",
    "too_large",
    "truncated",
    "unknown_server_key",
    "unknown_suite",
    "unknown_version",
    "wrong_secret_or_header",
];

/// Reads each file: its name, its head and its bytes.
fn files() -> BTreeMap<String, (String, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(Path::new(DIRECTORY)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "README.md" {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let (head, body) = text.split_once("\n\n").unwrap();
        let body = STANDARD.decode(body.replace('\n', "")).unwrap();
        files.insert(name, (head.to_owned(), body));
    }
    files
}

fn expected(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("expect: ")).unwrap()
}

#[test]
fn every_file_is_what_it_says() {
    let policy = ImportPolicy {
        min_epoch: 5,
        own_epoch: 0,
        client_ca_sha256: Digest::from_bytes([7; 32]),
        ca_binding: CaBinding::Enforced,
    };
    for (name, (head, file)) in files() {
        let opened = sbs_state::open(&[server(1)], &client(2), &file[..]);
        let accepted = opened.and_then(|opened| opened.accept(&policy));
        let code = accepted.map_or_else(|error| error.code(), |_| "success");
        assert_eq!(code, expected(&head), "{name}");
    }
}

#[test]
fn every_way_to_be_refused_has_a_file() {
    let files = files();
    let found: BTreeSet<&str> = files.values().map(|(head, _)| expected(head)).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), CODES);
}

#[test]
fn the_files_are_the_ones_that_are_made() {
    let made = cases().into_iter().map(|case| (case.name.to_owned(), (case.head(), case.file)));
    assert!(made.collect::<BTreeMap<_, _>>() == files(), "see tests/data/sealed/README.md");
}
