//! Servers, clients and files for the tests.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};

use sbs_crypto::{digest, hmac_sha256};
use sbs_proto::{StateHeader, StateImageName, StateMeta, StateSecret};
use sbs_state::{
    ClientShare, Export, OpenReader, OpenStateError, RecordName, SealWriter, ServerShare,
    StateWriter,
};

pub(crate) const CHUNK: usize = 16 * 1024;
pub(crate) const SEALED_CHUNK: usize = CHUNK + 16;
pub(crate) const SALT: [u8; 24] = [3; 24];

/// The share of the server whose root secret is 32 times `byte`.
pub(crate) fn server(byte: u8) -> ServerShare {
    let prf = |label: &str| Ok::<_, Infallible>(hmac_sha256(&[byte; 32], label.as_bytes()));
    let Ok(share) = ServerShare::derive(prf);
    share
}

/// The share of the client whose SECRET is 128 times `byte`.
pub(crate) fn client(byte: u8) -> ClientShare {
    ClientShare::derive(&StateSecret::from_bytes([byte; 128]))
}

/// The export of the known answer.
pub(crate) fn export() -> Export {
    let name = StateImageName::parse("x").unwrap();
    let meta = StateMeta { name: Some(name), ..StateMeta::default() };
    Export { epoch: 5, export_seq: 9, created_ms: 1, meta }
}

/// Seals any bytes, with the salt, the server and the client of the known answer.
pub(crate) fn seal_bytes(export: Export, content: &[u8]) -> Vec<u8> {
    let mut writer =
        SealWriter::danger_with_salt(&SALT, export, &server(1), &client(2), Vec::new()).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

/// Opens a file as bytes: as far as it goes, and why not further.
pub(crate) fn open_bytes(file: &[u8]) -> (Vec<u8>, Result<(), OpenStateError>) {
    let mut content = Vec::new();
    let result = OpenReader::new(&[server(1)], &client(2), u64::MAX, file)
        .and_then(|mut reader| Ok(reader.read_to_end(&mut content).map(drop)?));
    (content, result)
}

/// Returns the code word with which a file of bytes is refused.
pub(crate) fn bytes_code(file: &[u8]) -> &'static str {
    open_bytes(file).1.map_or_else(|error| error.code(), |()| "success")
}

/// Returns the code word with which a state image is refused.
pub(crate) fn code(file: &[u8]) -> &'static str {
    sbs_state::open(&[server(1)], &client(2), file).map_or_else(|error| error.code(), |_| "success")
}

/// The records that every state has.
pub(crate) const RECORDS: [(RecordName, &[u8]); 3] = [
    (RecordName::Instance, b"{\"schema\":1}"),
    (RecordName::Definition, b"{\"REGISTRY_PASSWORD\":\"hunter2\"}"),
    (RecordName::Keys, b"{\"keys\":\"none\"}"),
];

/// A state image of those records.
pub(crate) fn state() -> Vec<u8> {
    seal_records(export(), &RECORDS)
}

pub(crate) fn seal_records(export: Export, records: &[(RecordName, &[u8])]) -> Vec<u8> {
    let mut writer =
        StateWriter::danger_with_salt(&SALT, export, &server(1), &client(2), Vec::new()).unwrap();
    for (name, bytes) in records {
        writer.record(*name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// Writes a record as it stands in a state, whatever its name.
pub(crate) fn record(name: &str, bytes: &[u8]) -> Vec<u8> {
    let name_length = u16::try_from(name.len()).unwrap().to_be_bytes();
    let length = (bytes.len() as u64).to_be_bytes();
    [&name_length[..], name.as_bytes(), &length, bytes].concat()
}

/// Writes one line of `manifest.json`.
pub(crate) fn entry(name: &str, bytes: &[u8]) -> String {
    let (length, sha256) = (bytes.len(), digest(bytes));
    format!(r#"{{"bytes":{length},"name":"{name}","schema":1,"sha256":"{sha256}"}}"#)
}

/// Writes `manifest.json` of the export of the known answer.
pub(crate) fn manifest(entries: &[String]) -> String {
    let entries = entries.join(",");
    format!(r#"{{"epoch":5,"export_seq":9,"records":[{entries}],"schema":1}}"#)
}

/// Fills a short content with zeros.
pub(crate) fn padded(mut content: Vec<u8>) -> Vec<u8> {
    assert!(content.len() <= 4096, "{}", content.len());
    content.resize(4096, 0);
    content
}

/// The content of [`state`], written by hand.
pub(crate) fn content() -> Vec<u8> {
    let mut entries = Vec::new();
    let mut content = Vec::new();
    for (name, bytes) in RECORDS {
        entries.push(entry(name.as_str(), bytes));
        content.extend(record(name.as_str(), bytes));
    }
    content.extend(record("manifest.json", manifest(&entries).as_bytes()));
    content
}

/// Returns where the sealed part of a file begins.
pub(crate) fn header_bytes(mut file: &[u8]) -> usize {
    StateHeader::read(&mut file).unwrap().to_bytes().len()
}

/// Cuts a file into what stands in front of the chunks, and the chunks.
pub(crate) fn chunks(file: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (front, rest) = file.split_at(header_bytes(file) + 56);
    (front.to_vec(), rest.chunks(SEALED_CHUNK).map(<[u8]>::to_vec).collect())
}
