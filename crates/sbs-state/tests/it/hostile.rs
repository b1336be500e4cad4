use std::convert::Infallible;
use std::io::{Read as _, Write as _};

use sbs_crypto::hmac_sha256;
use sbs_state::{Export, OpenReader, OpenStateError, SealWriter, ServerShare};

use crate::common::{
    CHUNK, RECORDS, SALT, bytes_code, chunks, client, code, export, header_bytes, open_bytes,
    seal_bytes, server, state,
};

fn code_with(servers: &[ServerShare], secret: u8, file: &[u8]) -> &'static str {
    sbs_state::open(servers, &client(secret), file).map_or_else(|error| error.code(), |_| "success")
}

#[test]
fn s1_another_server_does_not_open_it() {
    let file = state();
    assert_eq!(code_with(&[server(1)], 2, &file), "success");
    assert_eq!(code_with(&[server(7)], 2, &file), "unknown_server_key");
    assert_eq!(code_with(&[], 2, &file), "unknown_server_key");

    // A server that claims the same id: its PRF differs only where the share is made.
    let Ok(liar) = ServerShare::derive(|label| {
        let byte = if label.ends_with("kid") { 1 } else { 7 };
        Ok::<_, Infallible>(hmac_sha256(&[byte; 32], label.as_bytes()))
    });
    assert_eq!(liar.kid(), server(1).kid());
    assert_eq!(code_with(&[liar], 2, &file), "wrong_secret_or_header");

    // The id of another server, written into the header.
    let mut renamed = file;
    renamed[16..24].copy_from_slice(&server(7).kid());
    assert_eq!(code_with(&[server(7)], 2, &renamed), "wrong_secret_or_header");
}

#[test]
fn s1_an_earlier_secret_of_the_server_opens_it() {
    let file = state();
    assert_eq!(code_with(&[server(7), server(8), server(1)], 2, &file), "success");
    assert_eq!(code_with(&[server(1), server(7)], 2, &file), "success");
}

#[test]
fn s2_another_secret_does_not_open_it() {
    let file = state();
    for secret in [0, 1, 3, 0xff] {
        assert_eq!(code_with(&[server(1)], secret, &file), "wrong_secret_or_header");
    }
}

#[test]
fn s3_no_bit_can_be_flipped() {
    let content: Vec<u8> = (0..=255).cycle().take(300).collect();
    let file = seal_bytes(export(), &content);
    let sealed = header_bytes(&file);
    let mut codes = std::collections::BTreeMap::<_, usize>::new();
    for bit in 0..file.len() * 8 {
        let place = bit / 8;
        let mut changed = file.clone();
        changed[place] ^= 1 << (bit % 8);
        let (given, result) = open_bytes(&changed);
        assert_eq!(given, b"", "bit {bit} gives something");
        let code = result.unwrap_err().code();
        let expected: &[&str] = match place {
            0..8 => &["bad_magic"],
            8..10 => &["unknown_version"],
            10..12 => &["unknown_suite"],
            12..16 => &["too_large", "truncated", "bad_content"],
            16..24 => &["unknown_server_key"],
            24..48 => &["wrong_secret_or_header"],
            _ if place < sealed => &["bad_content", "wrong_secret_or_header"],
            _ if place < sealed + 56 => &["wrong_secret_or_header"],
            _ => &["payload"],
        };
        assert!(expected.contains(&code), "bit {bit}: {code}");
        *codes.entry(code).or_default() += 1;
    }
    assert_eq!(codes["payload"], (300 + 16) * 8);
}

#[test]
fn s4_no_prefix_opens() {
    let file = seal_bytes(export(), &[7; 300]);
    for length in 0..file.len() {
        let code = bytes_code(&file[..length]);
        let expected = match length.checked_sub(header_bytes(&file) + 56 + 16) {
            None => "truncated",
            Some(_) => "payload",
        };
        assert_eq!(code, expected, "{length}");
    }
}

#[test]
fn s4_no_chunk_edge_is_an_end() {
    for length in [CHUNK, 2 * CHUNK, 2 * CHUNK + 5] {
        let file = seal_bytes(export(), &vec![7; length]);
        let (front, chunks) = chunks(&file);
        let mut end = front.len();
        for (index, chunk) in chunks.iter().enumerate() {
            for cut in [end.saturating_sub(1), end, end + 1, end + 15, end + 16, end + 17] {
                if cut >= file.len() {
                    continue;
                }
                let (given, result) = open_bytes(&file[..cut]);
                let code = result.unwrap_err().code();
                assert!(code == "truncated" || code == "payload", "{length}, {cut}: {code}");
                assert!(given.len() <= index * CHUNK);
            }
            // Exactly at the edge, the last chunk is missing: this has a name.
            assert_eq!(bytes_code(&file[..end]), "truncated");
            end += chunk.len();
        }
        assert_eq!(bytes_code(&file), "success");
    }
}

#[test]
fn s5_nothing_can_be_appended() {
    for length in [0, 5, CHUNK - 1, CHUNK, CHUNK + 1] {
        let content = vec![7; length];
        let file = seal_bytes(export(), &content);
        let last = chunks(&file).1.pop().unwrap();
        let zeros = vec![0; 2 * CHUNK];
        let other = seal_bytes(Export { export_seq: 10, ..export() }, b"other");
        for addition in [&[0][..], &[0; 16], &[0; 20], &zeros, &last, &file, &other] {
            let (given, result) = open_bytes(&[&file, addition].concat());
            assert_eq!(result.unwrap_err().code(), "payload", "{length}, {}", addition.len());
            assert!(given.len() <= length / CHUNK * CHUNK, "{length}, {}", addition.len());
        }
    }
}

#[test]
fn s6_chunks_cannot_be_moved() {
    let content: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 100).collect();
    let file = seal_bytes(export(), &content);
    // Another export with the same secrets, and the same one with another salt.
    let other = seal_bytes(Export { export_seq: 10, ..export() }, &content);
    let mut again = SealWriter::new(export(), &server(1), &client(2), Vec::new()).unwrap();
    again.write_all(&content).unwrap();
    let again = again.finish().unwrap();

    let (front, own) = chunks(&file);
    let [other, again] = [other, again].map(|file| chunks(&file).1);
    let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut chunks = own.clone();
        change(&mut chunks);
        [front.clone(), chunks.concat()].concat()
    };
    assert_eq!(with(&|_| {}), file);
    for (what, changed, genuine) in [
        ("swap of the first two", with(&|chunks| chunks.swap(0, 1)), 0),
        ("swap of the second and third", with(&|chunks| chunks.swap(1, 2)), 1),
        ("drop of the first", with(&|chunks| drop(chunks.remove(0))), 0),
        ("drop of the third", with(&|chunks| drop(chunks.remove(2))), 2),
        ("drop of the last", with(&|chunks| drop(chunks.pop())), 3),
        ("double of the first", with(&|chunks| chunks.insert(1, chunks[0].clone())), 1),
        ("double of the last", with(&|chunks| chunks.push(chunks[3].clone())), 3),
        ("the last one first", with(&|chunks| chunks.swap(0, 3)), 0),
        ("splice of another export", with(&|chunks| chunks[1] = other[1].clone()), 1),
        ("splice of another salt", with(&|chunks| chunks[0] = again[0].clone()), 0),
        ("the last of another export", with(&|chunks| chunks[3] = other[3].clone()), 3),
        ("all of another export", with(&|chunks| chunks.clone_from(&other)), 0),
    ] {
        let (given, result) = open_bytes(&changed);
        let expected = if what == "drop of the last" { "truncated" } else { "payload" };
        assert_eq!(result.unwrap_err().code(), expected, "{what}");
        assert!(given == content[..genuine * CHUNK], "{what}: {}", given.len());
    }
}

#[test]
fn s6_a_reader_stays_failed() {
    let mut file = seal_bytes(export(), &vec![7; 3 * CHUNK]);
    let place = header_bytes(&file) + 56 + CHUNK + 16;
    file[place] ^= 1;
    let mut reader = OpenReader::new(&[server(1)], &client(2), u64::MAX, &file[..]).unwrap();
    let mut buffer = vec![0; CHUNK];
    reader.read_exact(&mut buffer).unwrap();
    for _ in 0..3 {
        let error = OpenStateError::from(reader.read(&mut buffer).unwrap_err());
        assert_eq!(error.code(), "payload");
        assert_eq!(buffer, vec![7; CHUNK], "something was written into the buffer");
    }
}

#[test]
fn s7_other_versions_are_not_tried() {
    for (place, bytes, expected) in [
        (8, [0, 0], "unknown_version"),
        (8, [0, 2], "unknown_version"),
        (8, [0xff, 0xff], "unknown_version"),
        (10, [0, 0], "unknown_suite"),
        (10, [0, 2], "unknown_suite"),
        (10, [0xff, 0xff], "unknown_suite"),
        (0, *b"sb", "bad_magic"),
    ] {
        let mut file = state();
        file[place..place + 2].copy_from_slice(&bytes);
        assert_eq!(code(&file), expected);
    }
}

#[test]
fn s8_no_field_chooses_an_algorithm() {
    let file = state();
    let (fixed, sealed) = (&file[..48], &file[header_bytes(&file)..]);
    for (meta, expected) in [
        (r#"{"name":"x"}"#, "success"),
        (r#"{"cipher":"none","name":"x"}"#, "bad_content"),
        (r#"{"name":"x","chunk_bytes":"0"}"#, "bad_content"),
        (r#"{"kdf":"none"}"#, "bad_content"),
        // Of the right form, but another one than was sealed.
        (r#"{"name":"y"}"#, "wrong_secret_or_header"),
        (r#"{"provider":"none"}"#, "wrong_secret_or_header"),
        ("{}", "wrong_secret_or_header"),
    ] {
        let mut fixed = fixed.to_vec();
        fixed[12..16].copy_from_slice(&u32::try_from(meta.len()).unwrap().to_be_bytes());
        assert_eq!(code(&[&fixed, meta.as_bytes(), sealed].concat()), expected, "{meta}");
    }
}

#[test]
fn s9_a_random_generator_that_repeats_itself_gives_nothing_away() {
    let content = vec![7; 100];
    let first = seal_bytes(export(), &content);
    for other in [
        Export { export_seq: 10, ..export() },
        Export { epoch: 6, ..export() },
        Export { created_ms: 2, ..export() },
    ] {
        let second = seal_bytes(other, &content);
        let [(first_front, first), (second_front, second)] = [chunks(&first), chunks(&second)];
        let salt = first_front.len() - 56..first_front.len() - 32;
        assert_eq!(first_front[salt.clone()], SALT);
        assert_eq!(first_front[salt.clone()], second_front[salt]);
        // Under one key and nonce, the difference would be zero: the content is the same.
        let same = first[0].iter().zip(&second[0]).filter(|(a, b)| a == b).count();
        assert!(same < 10, "{same} of {} bytes", first[0].len());
    }
}

#[test]
fn s9_salts_are_drawn_anew() {
    let files = [(); 2]
        .map(|()| sbs_state::seal(export(), &server(1), &client(2), &RECORDS, Vec::new()).unwrap());
    let [one, other] = &files;
    let sealed = header_bytes(one);
    assert_eq!(one[..sealed], other[..sealed]);
    assert_ne!(one[sealed..sealed + 24], other[sealed..sealed + 24]);
    assert_ne!(one[sealed + 24..], other[sealed + 24..]);
    for file in &files {
        assert_eq!(code(file), "success");
    }
}
