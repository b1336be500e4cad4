use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use super::*;

fn key(byte: u8) -> SealingKey {
    SealingKey::from_bytes(Zeroizing::new([byte; 32]))
}

#[test]
fn opens_what_it_sealed() {
    for length in [0, 1, 15, 16, 17, 1000] {
        let plaintext = vec![7; length];
        let sealed = key(1).seal(b"context", &plaintext).unwrap();
        assert_eq!(sealed.len(), length + OVERHEAD_BYTES);
        assert_eq!(*key(1).open(b"context", &sealed).unwrap(), plaintext);
    }
}

#[test]
fn refuses_any_flipped_bit() {
    let sealed = key(1).seal(b"context", b"some plaintext").unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key(1).open(b"context", &changed), Err(OpenError), "bit {bit}");
    }
}

#[test]
fn refuses_any_prefix_and_any_addition() {
    let sealed = key(1).seal(b"context", b"some plaintext").unwrap();
    for length in 0..sealed.len() {
        assert_eq!(key(1).open(b"context", &sealed[..length]), Err(OpenError), "{length}");
    }
    for byte in [0, 0xff] {
        assert_eq!(key(1).open(b"context", &[&sealed[..], &[byte]].concat()), Err(OpenError));
    }
}

#[test]
fn refuses_another_key() {
    let sealed = key(1).seal(b"context", b"some plaintext").unwrap();
    assert_eq!(key(2).open(b"context", &sealed), Err(OpenError));
}

#[test]
fn refuses_another_context() {
    let sealed = key(1).seal(b"context", b"some plaintext").unwrap();
    for context in [&b""[..], b"contexT", b"context\0", b"contex", digest(b"context").as_bytes()] {
        let opened = key(1).open(context, &sealed);
        assert_eq!(opened, Err(OpenError), "{}", context.escape_ascii());
    }
}

#[test]
fn refuses_a_body_under_the_header_of_another_object() {
    let first = key(1).seal(b"context", b"some plaintext").unwrap();
    let second = key(1).seal(b"context", b"some plaintext").unwrap();
    let spliced = [&first[..HEADER_BYTES], &second[HEADER_BYTES..]].concat();
    assert_eq!(key(1).open(b"context", &spliced), Err(OpenError));
}

#[test]
fn never_seals_twice_alike() {
    let first = key(1).seal(b"context", b"some plaintext").unwrap();
    let second = key(1).seal(b"context", b"some plaintext").unwrap();
    assert_ne!(
        first[MAGIC_AND_VERSION.len()..HEADER_BYTES],
        second[MAGIC_AND_VERSION.len()..HEADER_BYTES]
    );
    assert_ne!(first[HEADER_BYTES..], second[HEADER_BYTES..]);
}

#[test]
fn seals_up_to_the_limit() {
    let mut plaintext = vec![0; MAX_PLAINTEXT_BYTES];
    let mut sealed = key(1).seal(b"", &plaintext).unwrap();
    assert_eq!(key(1).open(b"", &sealed).unwrap().len(), MAX_PLAINTEXT_BYTES);
    plaintext.push(0);
    assert_eq!(key(1).seal(b"", &plaintext), Err(SealError::TooLarge));
    sealed.push(0);
    assert_eq!(key(1).open(b"", &sealed), Err(OpenError));
}

#[test]
fn follows_the_written_format() {
    // A second implementation, with another library for each step.
    let (salt, context, plaintext) = ([3; SALT_BYTES], b"a name", b"hello");
    let sealed = key(1).seal_with_salt(&salt, context, plaintext).unwrap();

    let info = [&b"sbs.seal/v1 "[..], digest(context).as_bytes()].concat();
    let prk = aws_lc_rs::hkdf::Salt::new(aws_lc_rs::hkdf::HKDF_SHA256, &salt).extract(&[1; 32]);
    let mut object_key = [0; 32];
    prk.expand(&[&info], &AES_256_GCM).unwrap().fill(&mut object_key).unwrap();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &object_key).unwrap());

    let header = [&hex::decode("93534253450d0a1a01").unwrap()[..], &salt].concat();
    let mut body = plaintext.to_vec();
    let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key([0; 12]);
    cipher.seal_in_place_append_tag(nonce, Aad::from(&header), &mut body).unwrap();
    assert_eq!(hex::encode(sealed), hex::encode([header, body].concat()));
}

#[test]
fn opens_the_committed_object() {
    // Frozen: objects of this version must open for ever. Key 32 x 01, salt 32 x 03.
    let sealed = hex::decode(include_str!("../../tests/data/sealed-v1.hex").trim()).unwrap();
    assert_eq!(*key(1).open(b"a name", &sealed).unwrap(), b"hello");
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", key(1)), "SealingKey");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn opens_anything_sealed(bytes: Vec<u8>, context: Vec<u8>, secret in any::<[u8; 32]>()) {
        let key = SealingKey::from_bytes(Zeroizing::new(secret));
        let sealed = key.seal(&context, &bytes).unwrap();
        prop_assert_eq!(&*key.open(&context, &sealed).unwrap(), &bytes);
    }

    #[test]
    fn refuses_noise(bytes: Vec<u8>) {
        let framed = [&MAGIC_AND_VERSION[..], &bytes].concat();
        prop_assert_eq!(key(1).open(b"", &bytes), Err(OpenError));
        prop_assert_eq!(key(1).open(b"", &framed), Err(OpenError));
    }
}
