use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use serde::Deserialize;

use super::*;
use crate::digest;

fn key(byte: u8) -> ChunkedKey {
    ChunkedKey::from_bytes(Zeroizing::new([byte; 32]))
}

fn sealed(context: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut writer = key(1).seal(&[3; 24], context, Vec::new()).unwrap();
    writer.write_all(plaintext).unwrap();
    writer.finish().unwrap()
}

/// Opens a stream as far as it goes.
fn opened(
    key: &ChunkedKey,
    context: &[u8],
    stream: impl Read,
) -> (Vec<u8>, Result<(), OpenChunksError>) {
    let mut plaintext = Vec::new();
    let mut reader = match key.open(context, stream) {
        Ok(reader) => reader,
        Err(error) => return (plaintext, Err(error)),
    };
    loop {
        match reader.bytes() {
            Ok([]) => return (plaintext, Ok(())),
            Ok(bytes) => {
                plaintext.extend_from_slice(bytes);
                let count = bytes.len();
                reader.consume(count);
            }
            Err(error) => return (plaintext, Err(error)),
        }
    }
}

/// From `cryptography-vectors` 50.0.2 (`PyPI`), file `chunked-encryption/vectors.json`, of the
/// Python Cryptographic Authority, under the Apache-2.0 licence: those of AES-256-GCM. Bytes that
/// repeat themselves are written as `<how often>x<byte>`.
const VECTORS: &str = include_str!("../../tests/data/chunked-encryption.json");

#[derive(Deserialize)]
struct Vector {
    name: String,
    expect: String,
    key: String,
    context: String,
    ciphertext: String,
    #[serde(default)]
    payload_length: usize,
    payload_sha256: Option<String>,
}

impl Vector {
    fn stream(&self) -> Vec<u8> {
        let pieces = self.ciphertext.split_whitespace().map(|piece| match piece.split_once('x') {
            Some((count, byte)) => hex::decode(byte).unwrap().repeat(count.parse().unwrap()),
            None => hex::decode(piece).unwrap(),
        });
        pieces.collect::<Vec<_>>().concat()
    }
}

#[test]
fn agrees_with_the_public_vectors() {
    let vectors: Vec<Vector> = serde_json::from_str(VECTORS).unwrap();
    let (mut good, mut bad) = (0, 0);
    for vector in vectors {
        let name = &vector.name;
        let context = hex::decode(&vector.context).unwrap();
        let key = hex::decode(&vector.key).unwrap();
        let Ok(key) = <[u8; 32]>::try_from(key) else {
            // Keys of another length cannot be given to us.
            assert_eq!(vector.expect, "failure", "{name}");
            bad += 1;
            continue;
        };
        let key = ChunkedKey::from_bytes(Zeroizing::new(key));
        let (plaintext, result) = opened(&key, &context, &vector.stream()[..]);
        // What was given before the damage is exactly what was genuine.
        assert_eq!(plaintext.len(), vector.payload_length, "{name}");
        if let Some(expected) = &vector.payload_sha256 {
            assert_eq!(&digest(&plaintext).to_hex(), expected, "{name}");
        }
        match (&*vector.expect, result) {
            ("success", Ok(())) => good += 1,
            ("failure", Err(_)) => bad += 1,
            (expected, result) => panic!("{name}: expected {expected}, got {result:?}"),
        }
        if vector.expect == "success" {
            let salt = vector.stream()[..24].try_into().unwrap();
            let mut writer = key.seal(&salt, &context, Vec::new()).unwrap();
            writer.write_all(&plaintext).unwrap();
            assert!(writer.finish().unwrap() == vector.stream(), "{name}");
        }
    }
    assert_eq!((good, bad), (9, 25));
}

#[test]
fn the_way_of_writing_changes_nothing() {
    let plaintext: Vec<u8> = (0..=250).cycle().take(3 * CHUNK_BYTES + 5).collect();
    let whole = sealed(b"context", &plaintext);
    for size in [1, 15, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES] {
        let mut writer = key(1).seal(&[3; 24], b"context", Vec::new()).unwrap();
        for piece in plaintext.chunks(size) {
            writer.write_all(piece).unwrap();
        }
        assert!(writer.finish().unwrap() == whole, "{size}");
    }
}

#[test]
fn the_last_chunk_is_always_short() {
    for (length, tags) in
        [(0, 1), (1, 1), (CHUNK_BYTES - 1, 1), (CHUNK_BYTES, 2), (2 * CHUNK_BYTES, 3)]
    {
        let stream = sealed(b"", &vec![7; length]);
        assert_eq!(stream.len(), 56 + length + tags * TAG_BYTES);
        let (plaintext, result) = opened(&key(1), b"", &stream[..]);
        result.unwrap();
        assert_eq!(plaintext, vec![7; length]);
    }
}

#[test]
fn refuses_another_key_and_another_context_before_any_chunk() {
    let stream = sealed(b"context", b"plaintext");
    for (key, context) in [(key(2), &b"context"[..]), (key(1), b"contexT"), (key(1), b"")] {
        // An input that ends after the commitment: nothing behind it was asked for.
        let error = key.open(context, &stream[..56]).unwrap_err();
        assert!(matches!(error, OpenChunksError::Commitment), "{error}");
    }
}

#[test]
fn stays_failed() {
    let plaintext = vec![7; 3 * CHUNK_BYTES];
    let mut stream = sealed(b"", &plaintext);
    stream[56 + CHUNK_BYTES + TAG_BYTES] ^= 1;
    let mut reader = key(1).open(b"", &stream[..]).unwrap();
    assert_eq!(reader.bytes().unwrap().len(), CHUNK_BYTES);
    reader.consume(CHUNK_BYTES);
    assert!(matches!(reader.bytes(), Err(OpenChunksError::Damaged)));
    // The chunks behind the damaged one are genuine, but are not given.
    for _ in 0..3 {
        assert!(matches!(reader.bytes(), Err(OpenChunksError::Failed)));
    }
    assert!(reader.buffer.iter().all(|&byte| byte == 0), "plaintext is left");
}

#[test]
fn stays_failed_after_a_fault_of_the_input() {
    struct Faulty(u8);
    impl Read for Faulty {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 == 1 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(0) }
        }
    }
    let stream = sealed(b"", &[7; CHUNK_BYTES]);
    let mut reader = key(1).open(b"", (&stream[..]).take(60).chain(Faulty(0))).unwrap();
    assert!(matches!(reader.bytes(), Err(OpenChunksError::Read(_))));
    assert!(matches!(reader.bytes(), Err(OpenChunksError::Failed)));
}

#[test]
fn a_writer_stays_failed() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= 1;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for piece in [CHUNK_BYTES, CHUNK_BYTES / 2] {
        let mut writer = key(1).seal(&[3; 24], b"", Full(2)).unwrap();
        let mut write =
            || writer.write(&vec![7; piece]).and_then(|_| writer.write(&vec![7; piece]));
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::StorageFull);
        // Else another plaintext would be sealed under the nonce that was used.
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::Other);
        assert_eq!(writer.flush().unwrap_err().kind(), io::ErrorKind::Other);
        writer.finish().map(drop).unwrap_err();
    }
}

#[test]
fn takes_pieces_and_interruptions_as_they_come() {
    struct Slow<'a>(&'a [u8], bool);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let room = buffer.len().min(1000);
            self.0.read(&mut buffer[..room])
        }
    }
    let plaintext = vec![7; CHUNK_BYTES + 10];
    let stream = sealed(b"", &plaintext);
    let (found, result) = opened(&key(1), b"", Slow(&stream, false));
    result.unwrap();
    assert_eq!(found, plaintext);
}

#[test]
fn no_nonce_comes_twice() {
    let (mut cipher, _) = key(1).cipher(&[3; 24], b"");
    let first = cipher.next_nonce().unwrap();
    assert_eq!(first[..], cipher.base_nonce[..]);
    let second = cipher.next_nonce().unwrap();
    assert_eq!(first[..11], second[..11]);
    assert_eq!(first[11] ^ second[11], 1);

    cipher.next = u64::from(u32::MAX);
    let last = cipher.next_nonce().unwrap();
    assert_eq!(first[..8], last[..8]);
    assert!(first[8..].iter().zip(&last[8..]).all(|(a, b)| a ^ b == 0xff));
    for _ in 0..2 {
        assert_eq!(cipher.next_nonce(), None);
    }
    assert!(matches!(cipher.open(&mut [], &Tag::default()), Err(OpenChunksError::TooLarge)));
    let sealed = cipher.seal((&mut [0_u8; 1][..]).into());
    assert_eq!(sealed.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", key(1)), "ChunkedKey");
    let writer = key(1).seal(&[3; 24], b"", Vec::new()).unwrap();
    assert_eq!(format!("{writer:?}"), "ChunkWriter");
    let reader = key(1).open(b"", &sealed(b"", b"text")[..]).map(|reader| format!("{reader:?}"));
    assert_eq!(reader.unwrap(), "ChunkReader { state: Open, .. }");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn opens_anything_sealed(bytes: Vec<u8>, context: Vec<u8>, salt in any::<[u8; 24]>()) {
        let mut writer = key(1).seal(&salt, &context, Vec::new()).unwrap();
        writer.write_all(&bytes).unwrap();
        let stream = writer.finish().unwrap();
        let (plaintext, result) = opened(&key(1), &context, &stream[..]);
        result.unwrap();
        prop_assert_eq!(plaintext, bytes);
    }
}
