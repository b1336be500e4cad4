//! A ciphertext that AES-GCM opens under two keys, and why it does not help.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use sbs_crypto::{digest, hkdf_expand_sha256, hmac_sha256};
use sbs_state::OpenReader;

use crate::common::{SALT, client, export, header_bytes, seal_bytes, server};

#[test]
fn s10_a_file_for_two_secrets_opens_with_one() {
    // One header and one salt, and the keys that they give with two SECRETs.
    let file = seal_bytes(export(), b"");
    let header = &file[..header_bytes(&file)];
    let keys = [2, 3].map(|secret| Keys::derive(header, secret));
    let sealed = sealed_for_both(&keys);

    // AES-GCM alone opens it under both, to different plaintexts.
    let [one, other] = keys.each_ref().map(|keys| keys.open(&sealed).unwrap());
    assert_ne!(one, other);

    // With the commitment of the one, the other is refused, and the other way round.
    for (committed, plaintext) in [(0, one), (1, other)] {
        let file = [header, &SALT, &keys[committed].commitment, &sealed].concat();
        for (asked, secret) in [2, 3].into_iter().enumerate() {
            let opened = OpenReader::new(&[server(1)], &client(secret), 1 << 20, &file[..]);
            if asked == committed {
                let mut found = Vec::new();
                std::io::Read::read_to_end(&mut opened.unwrap(), &mut found).unwrap();
                assert_eq!(found, plaintext);
            } else {
                assert_eq!(opened.unwrap_err().code(), "wrong_secret_or_header");
            }
        }
    }
}

/// Makes two blocks and a tag that is right under both keys: the tag is linear in each block.
fn sealed_for_both(keys: &[Keys; 2]) -> Vec<u8> {
    let [one, other] = keys;
    let first = u128::from_be_bytes(*b"anything at all!");
    let lengths = 256;
    // tag = first h^3 + second h^2 + lengths h + mask; both tags are to be the same.
    let cubes = one.power(3) ^ other.power(3);
    let squares = one.power(2) ^ other.power(2);
    let rest = multiply(first, cubes)
        ^ multiply(lengths, one.hash_key ^ other.hash_key)
        ^ one.mask
        ^ other.mask;
    let second = multiply(rest, inverse(squares));
    let tag = multiply(first, one.power(3))
        ^ multiply(second, one.power(2))
        ^ multiply(lengths, one.hash_key)
        ^ one.mask;
    [first, second, tag].map(u128::to_be_bytes).concat()
}

/// What a file's first chunk is sealed with.
struct Keys {
    key: [u8; 32],
    nonce: [u8; 12],
    commitment: [u8; 32],
    hash_key: u128,
    mask: u128,
}

impl Keys {
    /// The key schedule, written down a second time.
    fn derive(header: &[u8], secret: u8) -> Self {
        let server = hmac_sha256(&[1; 32], b"sbs.state/v1 server share");
        let client = hmac_sha256(b"sbs.state/v1 client share", &[secret; 128]);
        let both = [server.as_slice(), client.as_slice()].concat();
        let prk = hmac_sha256(b"sbs.state/v1 combine", &both);
        let input_key = hkdf_expand_sha256::<32>(&prk, &[b"sbs.state/v1 payload"]);
        let header = digest(header);
        let info: [&[u8]; 4] = [
            b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0",
            &SALT,
            b"sbs.state/v1 header ",
            header.as_bytes(),
        ];
        let okm = hkdf_expand_sha256::<76>(&input_key, &info);
        let key = okm[..32].try_into().unwrap();
        let nonce: [u8; 12] = okm[32..44].try_into().unwrap();
        let mut counter = [0; 16];
        counter[..12].copy_from_slice(&nonce);
        counter[15] = 1;
        Self {
            key,
            nonce,
            commitment: okm[44..].try_into().unwrap(),
            hash_key: encrypt_block(&key, [0; 16]),
            mask: encrypt_block(&key, counter),
        }
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (body, tag) = sealed.split_at(sealed.len() - 16);
        let mut plaintext = body.to_vec();
        Aes256Gcm::new(&self.key.into())
            .decrypt_inout_detached(
                &Nonce::from(self.nonce),
                b"",
                (&mut plaintext[..]).into(),
                tag.try_into().unwrap(),
            )
            .is_ok()
            .then_some(plaintext)
    }

    fn power(&self, exponent: u32) -> u128 {
        (1..exponent).fold(self.hash_key, |product, _| multiply(product, self.hash_key))
    }
}

fn encrypt_block(key: &[u8; 32], mut block: [u8; 16]) -> u128 {
    let key = UnboundCipherKey::new(&AES_256, key).unwrap();
    EncryptingKey::ecb(key).unwrap().encrypt(&mut block).unwrap();
    u128::from_be_bytes(block)
}

/// Multiplies in the field of GHASH: SP 800-38D, 6.3, algorithm 1.
fn multiply(x: u128, y: u128) -> u128 {
    let (mut z, mut v) = (0, y);
    for bit in (0..128).rev() {
        if x >> bit & 1 == 1 {
            z ^= v;
        }
        v = if v & 1 == 1 { v >> 1 ^ 0xe1 << 120 } else { v >> 1 };
    }
    z
}

/// Inverts in that field: to the power of 2^128 - 2.
fn inverse(x: u128) -> u128 {
    let one = 1 << 127;
    let (mut result, mut square) = (one, x);
    for _ in 1..128 {
        square = multiply(square, square);
        result = multiply(result, square);
    }
    assert_eq!(multiply(result, x), one);
    result
}
