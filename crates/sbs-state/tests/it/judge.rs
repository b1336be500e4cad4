//! A reader in another language, with another library: `tests/data/read_state.py`.

use std::fs;
use std::process::Command;

use sbs_state::{RecordName, seal};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{CHUNK, RECORDS, client, export, seal_bytes, server};

/// Lets Python open a file with these secrets; its complaint if it refuses.
fn read(file: &[u8], secret: u8, form: &str) -> Result<Value, String> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state");
    fs::write(&path, file).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "a test of a crate below the server's tool runner, with fixed arguments"
    )]
    // Debian's own, for which Debian's packages of Python are.
    let output = Command::new("/usr/bin/python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/read_state.py"))
        .args([form, &"01".repeat(32), &format!("{secret:02x}").repeat(128)])
        .arg(&path)
        .output()
        .expect("the tests need Debian's packages python3 and python3-cryptography");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        // What is missing on the machine is no verdict.
        assert!(complaint.contains("refused: "), "{complaint}");
        Err(complaint)
    }
}

#[test]
fn python_opens_our_bytes() {
    for length in [0, 1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 100] {
        let content: Vec<u8> = (0..=250).cycle().take(length).collect();
        let opened = read(&seal_bytes(export(), &content), 2, "bytes").unwrap();
        assert!(opened["content"] == hex::encode(&content), "{length}");
        assert_eq!(opened["meta"]["name"], "x");
        assert_eq!((&opened["epoch"], &opened["export_seq"]), (&5.into(), &9.into()));
    }
}

#[test]
fn python_opens_our_state() {
    let long = vec![0x5a; 100_000];
    let mut records = RECORDS.to_vec();
    records.push((RecordName::Builds, &long));
    records.push((RecordName::KnownHosts, b"hosts"));
    let file = seal(export(), &server(1), &client(2), &records, Vec::new()).unwrap();
    let opened = read(&file, 2, "records").unwrap();
    let found = opened["records"].as_object().unwrap();
    assert_eq!(found.len(), records.len());
    for (name, bytes) in records {
        assert!(found[name.as_str()] == hex::encode(bytes), "{name}");
    }
}

#[test]
fn python_refuses_what_we_refuse() {
    let file = seal(export(), &server(1), &client(2), &RECORDS, Vec::new()).unwrap();
    let last = file.len() - 1;
    let changed = |place: usize| {
        let mut file = file.clone();
        file[place] ^= 1;
        file
    };
    for (file, secret) in [
        (file.clone(), 3),
        (changed(0), 2),
        (changed(16), 2),
        (changed(31), 2),
        (changed(61), 2),
        (changed(100), 2),
        (changed(last), 2),
        (file[..last].to_vec(), 2),
        ([&file[..], b"x"].concat(), 2),
    ] {
        read(&file, secret, "records").unwrap_err();
    }
}
