use std::io::Read as _;

use sbs_state::{
    ContentError, OpenReader, OpenStateError, RecordName, SealStateError, StateWriter, read_records,
};

use crate::common::{
    RECORDS, SALT, client, code, content, entry, export, header_bytes, manifest, padded, record,
    seal_bytes, seal_records, server, state,
};

/// Opens a content that was sealed with the right secrets.
fn refused(content: &[u8]) -> OpenStateError {
    let file = seal_bytes(export(), content);
    sbs_state::open(&[server(1)], &client(2), &file[..]).unwrap_err()
}

#[track_caller]
fn assert_content(content: impl AsRef<[u8]>, expected: ContentError) {
    match refused(content.as_ref()) {
        OpenStateError::BadContent(found) => assert_eq!(found, expected),
        other => panic!("{other:?}"),
    }
}

/// A content with these records, and a list of these.
fn content_of(records: &[(&str, &[u8])], entries: &[String]) -> Vec<u8> {
    let mut content: Vec<u8> =
        records.iter().flat_map(|(name, bytes)| record(name, bytes)).collect();
    content.extend(record("manifest.json", manifest(entries).as_bytes()));
    padded(content)
}

const ALL: [(&str, &[u8]); 3] =
    [("instance.json", b"{}"), ("definition.json", b"[]"), ("keys.json", b"0")];

fn entries() -> Vec<String> {
    ALL.iter().map(|(name, bytes)| entry(name, bytes)).collect()
}

#[test]
fn writes_what_is_written_by_hand() {
    assert_eq!(state(), seal_bytes(export(), &padded(content())));
    assert_eq!(code(&state()), "success");
    assert_eq!(code(&seal_bytes(export(), &content_of(&ALL, &entries()))), "success");
}

#[test]
fn gives_back_every_record() {
    let long = vec![0x5a; 100_000];
    let records: [(RecordName, &[u8]); 5] = [
        (RecordName::Instance, b"{}"),
        (RecordName::Definition, b"definition"),
        (RecordName::Keys, b""),
        (RecordName::Builds, &long),
        (RecordName::KnownHosts, b"hosts"),
    ];
    let file = seal_records(export(), &records);
    let mut reader = OpenReader::new(&[server(1)], &client(2), 1 << 20, &file[..]).unwrap();
    let mut found = Vec::new();
    let list = read_records(&mut reader, |name, length, body| {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, length);
        found.push((name, bytes));
        Ok(())
    })
    .unwrap();
    assert_eq!(found.len(), records.len());
    for ((name, bytes), (found_name, found_bytes)) in records.iter().zip(&found) {
        assert_eq!((name, *bytes), (found_name, found_bytes.as_slice()));
        assert_eq!(list.schema(*name), Some(1));
    }
    assert_eq!((list.epoch(), list.export_seq()), (5, 9));
}

#[test]
fn what_is_not_read_is_checked_all_the_same() {
    let list = read_records(&padded(content())[..], |_, _, _| Ok(())).unwrap();
    assert_eq!(list.schema(RecordName::Keys), Some(1));
    let changed = content().iter().map(|b| if *b == b'h' { b'H' } else { *b }).collect();
    let error = read_records(&padded(changed)[..], |_, _, _| Ok(())).unwrap_err();
    assert_eq!(error.code(), "bad_content");
}

#[test]
fn a_keeper_that_fails_ends_it() {
    let full = |_, _, _: &mut dyn std::io::Read| Err(std::io::ErrorKind::StorageFull.into());
    let error = read_records(&padded(content())[..], full).unwrap_err();
    assert_eq!(error.code(), "unreadable");
}

#[test]
fn damage_between_the_chunks_is_told_as_such() {
    // The record layer must not make something else of it.
    let builds = vec![7; 40_000];
    let records = [RECORDS[0], RECORDS[1], RECORDS[2], (RecordName::Builds, &builds)];
    let mut file = seal_records(export(), &records);
    let place = file.len() - 1;
    file[place] ^= 1;
    assert_eq!(code(&file), "payload");
    let cut = header_bytes(&file) + 56 + 16400;
    assert_eq!(code(&file[..cut]), "truncated");
}

#[test]
fn s14_lengths_are_refused_before_anything_is_made_of_them() {
    for (name, limit) in RecordName::ALL.map(|name| (name, name.max_bytes())) {
        for length in [limit + 1, 1 << 40, u64::MAX] {
            let name = name.as_str();
            let name_length = u16::try_from(name.len()).unwrap().to_be_bytes();
            let start = [&name_length[..], name.as_bytes(), &length.to_be_bytes()].concat();
            assert_eq!(refused(&padded(start)).code(), "too_large", "{name}, {length}");
        }
    }
    // A name that is longer than any.
    assert_content(padded(vec![0xff; 40]), ContentError::UnknownRecord);
}

#[test]
fn s14_all_records_together_have_a_limit() {
    // Each is below its own limit.
    let (record_bytes, builds) = (vec![0; 1 << 20], vec![0; 8 << 20]);
    let sink = std::io::sink();
    let mut writer = StateWriter::new(export(), &server(1), &client(2), sink).unwrap();
    let mut content = Vec::new();
    for (name, bytes) in [
        (RecordName::Instance, &b""[..]),
        (RecordName::Definition, &record_bytes),
        (RecordName::Keys, &record_bytes),
    ] {
        writer.record(name, bytes).unwrap();
        content.extend(record(name.as_str(), bytes));
    }
    let error = writer.record(RecordName::Builds, &builds).unwrap_err();
    assert!(matches!(error, SealStateError::TooLarge { name: RecordName::Builds }));

    // The reader refuses the last one before it reads it.
    content.extend(record("builds.json", &builds));
    let mut kept = Vec::new();
    let error = read_records(&content[..], |name, _, _| {
        kept.push(name);
        Ok(())
    });
    assert_eq!(error.unwrap_err().code(), "too_large");
    assert_eq!(kept, RecordName::REQUIRED);
}

#[test]
fn s15_there_is_nothing_that_expands() {
    // Nothing is compressed: no field says so, and what is put in comes out, however well it
    // could be compressed.
    let zeros = vec![0; 200_000];
    let file = seal_records(export(), &[RECORDS[0], (RecordName::Definition, &zeros), RECORDS[2]]);
    assert!(file.len() > zeros.len());
    // And the bytes that come out have a limit.
    for (max, expected) in [(file.len() as u64, "success"), (zeros.len() as u64, "too_large")] {
        let mut reader = OpenReader::new(&[server(1)], &client(2), max, &file[..]).unwrap();
        let read = std::io::copy(&mut reader, &mut std::io::sink());
        let code = read.map_or_else(|error| OpenStateError::from(error).code(), |_| "success");
        assert_eq!(code, expected, "{max}");
    }
    for field in [r#""encoding":"zstd""#, r#""compressed":true"#] {
        let listed =
            manifest(&entries()).replacen("{\"bytes\"", &format!("{{{field},\"bytes\""), 1);
        let records = ALL.iter().flat_map(|(name, bytes)| record(name, bytes));
        let content = records.chain(record("manifest.json", listed.as_bytes())).collect();
        assert_content(padded(content), ContentError::Manifest);
    }
}

#[test]
fn a_limit_holds_to_the_byte() {
    for (length, max, good) in [
        (0, 0, true),
        (1, 0, false),
        (100, 100, true),
        (101, 100, false),
        (16384, 16384, true),
        (16385, 16384, false),
    ] {
        let file = seal_bytes(export(), &vec![7; length]);
        let mut reader = OpenReader::new(&[server(1)], &client(2), max, &file[..]).unwrap();
        let mut read = Vec::new();
        // In pieces, so that the limit is not one of a piece.
        let result = loop {
            let mut piece = [0; 60];
            match reader.read(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(count) => read.extend_from_slice(&piece[..count]),
                Err(error) => break Err(OpenStateError::from(error).code()),
            }
        };
        assert_eq!(result, if good { Ok(()) } else { Err("too_large") }, "{length} of {max}");
        assert!(read.len() as u64 <= max);
    }
}

#[test]
fn s17_other_names_are_refused() {
    let long = "n".repeat(300);
    for name in ["", "keys", "Keys.json", "keys.json\0", "../keys.json", "/etc/passwd", &long] {
        let mut records = ALL.to_vec();
        records.push((name, b""));
        let mut entries = entries();
        entries.push(entry("builds.json", b""));
        if name.len() < 100 {
            assert_content(content_of(&records, &entries), ContentError::UnknownRecord);
        }
    }
    // In the list, too.
    let mut entries = entries();
    entries.push(entry("../keys.json", b""));
    assert_content(content_of(&ALL, &entries), ContentError::Manifest);
}

#[test]
fn s17_no_record_comes_twice_or_late() {
    let [instance, definition, keys] = ALL;
    for (records, name) in [
        (vec![instance, instance, definition, keys], RecordName::Instance),
        (vec![instance, definition, keys, keys], RecordName::Keys),
        (vec![definition, instance, keys], RecordName::Instance),
        (vec![keys, definition], RecordName::Definition),
    ] {
        assert_content(content_of(&records, &entries()), ContentError::Order { name });
    }
}

#[test]
fn s17_no_record_is_missing() {
    for (place, name) in RecordName::REQUIRED.into_iter().enumerate() {
        // From the records and the list, from the records alone, from the list alone.
        let (mut records, mut listed) = (ALL.to_vec(), entries());
        records.remove(place);
        assert_content(content_of(&records, &entries()), ContentError::Missing { name });
        listed.remove(place);
        assert_content(content_of(&records, &listed), ContentError::Missing { name });
    }
    let mut listed = entries();
    listed.push(entry("builds.json", b""));
    let name = RecordName::Builds;
    assert_content(content_of(&ALL, &listed), ContentError::Missing { name });
    let mut records = ALL.to_vec();
    records.push(("builds.json", b""));
    assert_content(content_of(&records, &entries()), ContentError::Digest { name });
    // No list at all.
    let content: Vec<u8> = ALL.iter().flat_map(|(name, bytes)| record(name, bytes)).collect();
    assert_content(content, ContentError::Cut);
    assert_content(Vec::new(), ContentError::Cut);
}

#[test]
fn s17_every_record_is_the_listed_one() {
    for (place, name) in RecordName::REQUIRED.into_iter().enumerate() {
        let mut records = ALL;
        records[place].1 = b"xx";
        assert_content(content_of(&records, &entries()), ContentError::Digest { name });
    }
    let wrong_length = entries()[1].replace(r#""bytes":2"#, r#""bytes":3"#);
    let listed = [entries()[0].clone(), wrong_length, entries()[2].clone()];
    let name = RecordName::Definition;
    assert_content(content_of(&ALL, &listed), ContentError::Digest { name });
}

#[test]
fn s17_the_list_has_one_form() {
    let good = manifest(&entries());
    for bad in [
        String::new(),
        "{}".to_owned(),
        format!("{good} "),
        format!("{good}{good}"),
        good.replacen(':', ": ", 1),
        good.replacen(r#""epoch":5"#, r#""epoch":5,"epoch":5"#, 1),
        good.replacen(r#""epoch":5"#, r#""epoch":5.0"#, 1),
        good.replacen(r#""epoch":5,"#, "", 1),
        good.replacen(r#""schema":1}"#, r#""schema":1,"x":0}"#, 1),
        good.replacen("instance.json", r"\u0069nstance.json", 1),
    ] {
        assert_ne!(bad, good);
        let records = ALL.iter().flat_map(|(name, bytes)| record(name, bytes));
        let content = records.chain(record("manifest.json", bad.as_bytes())).collect();
        assert_content(padded(content), ContentError::Manifest);
    }
}

#[test]
fn s17_a_schema_of_the_future_is_refused_by_its_number() {
    for got in [0, 2, u32::MAX] {
        let listed = entries()[2].replace(r#""schema":1"#, &format!(r#""schema":{got}"#));
        let listed = [entries()[0].clone(), entries()[1].clone(), listed];
        let name = RecordName::Keys;
        assert_content(content_of(&ALL, &listed), ContentError::Schema { name, newest: 1, got });

        let whole = manifest(&entries());
        let whole = format!("{}{got}}}", whole.strip_suffix("1}").unwrap());
        let records = ALL.iter().flat_map(|(name, bytes)| record(name, bytes));
        let content = records.chain(record("manifest.json", whole.as_bytes())).collect();
        let name = RecordName::Manifest;
        assert_content(padded(content), ContentError::Schema { name, newest: 1, got });
    }
}

#[test]
fn s17_nothing_stands_behind_the_list_but_zeros() {
    let good = padded(content());
    for place in content().len()..good.len() {
        let mut changed = good.clone();
        changed[place] = 1;
        assert_eq!(refused_by_records(&changed), ContentError::Padding, "{place}");
    }
    for bad in [content(), good[..4095].to_vec(), [&good[..], &[0]].concat()] {
        assert_content(bad, ContentError::Padding);
    }
    let more = [content(), record("manifest.json", b"{}")].concat();
    assert_content(padded(more), ContentError::Padding);
}

#[test]
fn every_prefix_of_a_content_is_refused() {
    let content = padded(content());
    for length in 0..content.len() {
        let error = refused_by_records(&content[..length]);
        assert!(matches!(error, ContentError::Cut | ContentError::Padding), "{length}: {error:?}");
    }
}

fn refused_by_records(content: &[u8]) -> ContentError {
    match read_records(content, |_, _, _| Ok(())).unwrap_err() {
        OpenStateError::BadContent(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_content_of_another_export_is_refused() {
    for (from, to) in [(r#""epoch":5"#, r#""epoch":4"#), (r#""export_seq":9"#, r#""export_seq":8"#)]
    {
        let listed = manifest(&entries()).replace(from, to);
        let records = ALL.iter().flat_map(|(name, bytes)| record(name, bytes));
        let content = records.chain(record("manifest.json", listed.as_bytes())).collect();
        assert_content(padded(content), ContentError::Epoch);
    }
}

#[test]
fn a_writer_refuses_what_could_not_be_opened() {
    let new = || StateWriter::new(export(), &server(1), &client(2), Vec::new()).unwrap();
    for name in RecordName::REQUIRED {
        let mut writer = new();
        for other in RecordName::REQUIRED.into_iter().filter(|other| *other != name) {
            writer.record(other, b"").unwrap();
        }
        let error = writer.finish().unwrap_err();
        assert!(matches!(error, SealStateError::Missing { name: found } if found == name));
    }
    for (first, then) in [
        (RecordName::Keys, RecordName::Keys),
        (RecordName::Keys, RecordName::Instance),
        (RecordName::Instance, RecordName::Manifest),
    ] {
        let mut writer = new();
        writer.record(first, b"").unwrap();
        let error = writer.record(then, b"").unwrap_err();
        assert!(matches!(error, SealStateError::Order { name } if name == then));
    }
    for name in RecordName::REQUIRED {
        let limit = usize::try_from(name.max_bytes()).unwrap();
        new().record(name, &vec![0; limit]).unwrap();
        let error = new().record(name, &vec![0; limit + 1]).unwrap_err();
        assert!(matches!(error, SealStateError::TooLarge { name: found } if found == name));
    }
}

#[test]
fn s22_sizes_do_not_tell_what_is_in_it() {
    let size = |definition: &str| {
        let records = [RECORDS[0], (RecordName::Definition, definition.as_bytes()), RECORDS[2]];
        seal_records(export(), &records).len()
    };
    let password = "the-registry-password-of-this-server";
    // A text that repeats the password, one that does not, and one of another length.
    let matching = size(&format!("{password} {password}"));
    let other = size(&format!("{password} {}", "#".repeat(password.len())));
    assert_eq!(matching, other);
    assert_eq!(matching, size(password));
    assert_eq!(matching, size(&format!("{password} {}", "repeats and repeats ".repeat(20))));
}

#[test]
fn s24_what_can_be_read_is_what_may_be_read() {
    use sbs_proto::{Digest, StateImageName, StateLabel, StateMeta};
    let label = |text| Some(StateLabel::parse(text).unwrap());
    let meta = StateMeta {
        client_ca_sha256: Some(Digest::from_bytes([0xab; 32])),
        export_tag: label("sbs-seal-1"),
        image_tag: label("1.3.0.20"),
        name: Some(StateImageName::parse("docker.io.ns.app.v1-0a1b2c3").unwrap()),
        provider: label("file"),
        server_version: label("0.1.0"),
    };
    let definition = "REGISTRY_PASSWORD hunter2 ".repeat(100);
    let export = sbs_state::Export { meta, ..export() };
    let records = [RECORDS[0], (RecordName::Definition, definition.as_bytes()), RECORDS[2]];
    let file = sbs_state::seal(export, &server(1), &client(2), &records, Vec::new()).unwrap();

    // As `strings -n 7` would: what is sealed shows seven such bytes in a row only by chance, and
    // not the ones that are looked for.
    let clear = header_bytes(&file);
    let printable = |bytes: &[u8]| {
        let runs = bytes.split(|b| !(b' '..=b'~').contains(b)).filter(|run| run.len() >= 7);
        runs.map(|run| String::from_utf8(run.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let meta = concat!(
        r#"{"client_ca_sha256":"sha256:abababababababababababababababababababababababababababababababab","#,
        r#""export_tag":"sbs-seal-1","image_tag":"1.3.0.20","name":"docker.io.ns.app.v1-0a1b2c3","#,
        r#""provider":"file","server_version":"0.1.0"}"#
    );
    assert_eq!(printable(&file[..clear]), ["SBS-SEAL", meta]);
    for word in ["hunter2", "PASSWORD", ".json", "sha256", "schema"] {
        let found = file[clear..].windows(word.len()).any(|window| window == word.as_bytes());
        assert!(!found, "{word}");
    }
    // Nor does anything that is derived from a secret alone: the server's id is the one exception.
    let share = client(2).expose_hex();
    let share = hex::decode(&*share).unwrap();
    for part in share.windows(4) {
        assert!(!file.windows(4).any(|window| window == part));
    }
    assert_eq!(SALT.len(), 24);
}
