//! The files of `tests/data/sealed`, as they are made: one for each way to be refused, and more.

use sbs_proto::{Digest, StateMeta};
use sbs_state::{Export, RecordName};

use crate::common::{
    CHUNK, RECORDS, SALT, chunks, client, content, entry, export, header_bytes, manifest, padded,
    record, seal_bytes, seal_records, server,
};

/// A file, and what a server says to it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) expect: &'static str,
    pub(crate) comment: &'static str,
    pub(crate) file: Vec<u8>,
}

impl Case {
    /// What stands above the file.
    pub(crate) fn head(&self) -> String {
        format!("expect: {}\ncomment: {}", self.expect, self.comment)
    }
}

/// Makes every file, the same bytes each time.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, expect, comment, file| cases.push(Case { name, expect, comment, file });
    let good = good();
    let sealed = header_bytes(&good);

    add("success", "success", "the records that every state has", good.clone());
    add("success-all-records", "success", "every record, in two chunks", all_records());

    add("magic-lower-case", "bad_magic", "sbs-seal", with(&good, 0, b"sbs-seal"));
    add("not-a-state", "bad_magic", "JSON", b"{\"state\":\"\"}".to_vec());
    add("version-0", "unknown_version", "", with(&good, 8, &[0, 0]));
    add("version-2", "unknown_version", "", with(&good, 8, &[0, 2]));
    add("suite-2", "unknown_suite", "", with(&good, 10, &[0, 2]));
    add("meta-4-gib", "too_large", "meta_len 2^32-1", with(&good, 12, &[0xff; 4]));
    add("meta-unknown", "bad_content", "a cipher in the meta", meta(&good, r#"{"cipher":"none"}"#));
    add("meta-twice", "bad_content", "a key twice", meta(&good, r#"{"name":"x","name":"x"}"#));
    add("kid", "unknown_server_key", "kid of another server", with(&good, 16, &server(7).kid()));
    add("epoch-changed", "wrong_secret_or_header", "", with(&good, 31, &[9]));
    add("meta-changed", "wrong_secret_or_header", "", meta(&good, r#"{"name":"y"}"#));
    add("other-secret", "wrong_secret_or_header", "SECRET 128 x 03", of_another_client());
    add("salt", "wrong_secret_or_header", "salt 04 03 03 ..", with(&good, sealed, &[4]));
    add("commitment", "wrong_secret_or_header", "all zero", with(&good, sealed + 24, &[0; 32]));
    add("tag", "payload", "last byte changed", flipped_last(&good));
    add("appended", "payload", "one byte more", [&good[..], &[0]].concat());
    add("chunks-swapped", "payload", "the first two of three", swapped());
    add("cut-in-chunk", "payload", "one byte less", good[..good.len() - 1].to_vec());
    add("cut-in-header", "truncated", "", good[..40].to_vec());
    add("cut-in-commitment", "truncated", "", good[..sealed + 50].to_vec());
    add("cut-at-chunk", "truncated", "without the last chunk", without_last());
    add("record-huge", "too_large", "keys.json of 2^64-1 bytes", sealed_content(huge_record()));
    add(
        "record-unknown",
        "bad_content",
        "../keys.json",
        sealed_content(record("../keys.json", b"")),
    );
    add("record-twice", "bad_content", "keys.json twice", sealed_content(twice()));
    add("record-missing", "bad_content", "no keys.json", sealed_content(missing()));
    add("record-changed", "bad_content", "keys.json not as listed", sealed_content(changed()));
    add("schema-2", "bad_content", "keys.json of schema 2", sealed_content(schema()));
    add("padding", "bad_content", "not zero", sealed_content([content(), vec![1]].concat()));
    add("padding-none", "bad_content", "not padded", seal_bytes(with_ca(5, 7), &content()));
    add("epoch-inside", "bad_content", "5 inside, 6 in the header", epoch_inside());
    add("epoch-4", "rollback", "older than min_epoch", seal_records(with_ca(4, 7), &RECORDS));
    add("ca", "ca_mismatch", "authority 32 x 08", seal_records(with_ca(5, 8), &RECORDS));
    add("ca-none", "ca_mismatch", "no authority", seal_records(export(), &RECORDS));
    cases
}

/// The export of the known answer, with another epoch and the authority 32 times `ca`.
fn with_ca(epoch: u64, ca: u8) -> Export {
    let ca = Some(Digest::from_bytes([ca; 32]));
    let meta = StateMeta { client_ca_sha256: ca, ..export().meta };
    Export { epoch, meta, ..export() }
}

fn good() -> Vec<u8> {
    seal_records(with_ca(5, 7), &RECORDS)
}

fn all_records() -> Vec<u8> {
    let builds = b"[\"a build\"]\n".repeat(1500);
    let records =
        [(RecordName::Builds, &builds[..]), (RecordName::KnownHosts, b"host ssh-ed25519 AAAA\n")];
    seal_records(with_ca(5, 7), &[&RECORDS[..], &records].concat())
}

fn with(file: &[u8], place: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[place..place + bytes.len()].copy_from_slice(bytes);
    file
}

fn flipped_last(file: &[u8]) -> Vec<u8> {
    let last = file.len() - 1;
    with(file, last, &[file[last] ^ 1])
}

fn meta(file: &[u8], json: &str) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap();
    let fixed = with(&file[..48], 12, &length.to_be_bytes());
    [&fixed, json.as_bytes(), &file[header_bytes(file)..]].concat()
}

fn of_another_client() -> Vec<u8> {
    let mut writer = sbs_state::StateWriter::danger_with_salt(
        &SALT,
        with_ca(5, 7),
        &server(1),
        &client(3),
        Vec::new(),
    )
    .unwrap();
    for (name, bytes) in RECORDS {
        writer.record(name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

fn swapped() -> Vec<u8> {
    let (front, mut chunks) = chunks(&seal_bytes(with_ca(5, 7), &vec![0; 2 * CHUNK + 1]));
    chunks.swap(0, 1);
    [front, chunks.concat()].concat()
}

fn without_last() -> Vec<u8> {
    let all = all_records();
    let (front, chunks) = chunks(&all);
    all[..front.len() + chunks[0].len()].to_vec()
}

fn sealed_content(content: Vec<u8>) -> Vec<u8> {
    seal_bytes(with_ca(5, 7), &padded(content))
}

fn huge_record() -> Vec<u8> {
    [
        record("instance.json", b"{}"),
        record("definition.json", b"{}"),
        [b"\0\x09keys.json", &[0xff; 8][..]].concat(),
    ]
    .concat()
}

/// A content of these records, and a list of what [`RECORDS`] has.
fn listed_as_usual(records: &[(RecordName, &[u8])]) -> Vec<u8> {
    listed(records, &RECORDS.map(|(name, bytes)| entry(name.as_str(), bytes)))
}

fn listed(records: &[(RecordName, &[u8])], entries: &[String]) -> Vec<u8> {
    let records = records.iter().map(|(name, bytes)| record(name.as_str(), bytes));
    records
        .chain([record("manifest.json", manifest(entries).as_bytes())])
        .collect::<Vec<_>>()
        .concat()
}

fn twice() -> Vec<u8> {
    listed_as_usual(&[RECORDS[0], RECORDS[1], RECORDS[2], RECORDS[2]])
}

fn missing() -> Vec<u8> {
    listed_as_usual(&RECORDS[..2])
}

fn changed() -> Vec<u8> {
    listed_as_usual(&[RECORDS[0], RECORDS[1], (RecordName::Keys, b"{\"keys\":\"mine\"}")])
}

fn schema() -> Vec<u8> {
    let [one, two, three] = RECORDS.map(|(name, bytes)| entry(name.as_str(), bytes));
    listed(&RECORDS, &[one, two, three.replace(r#""schema":1"#, r#""schema":2"#)])
}

fn epoch_inside() -> Vec<u8> {
    seal_bytes(with_ca(6, 7), &padded(content()))
}
