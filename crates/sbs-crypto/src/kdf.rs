use aws_lc_rs::hmac;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Derives 32 bytes with HKDF-SHA-256 (RFC 5869).
///
/// `ikm` is the secret; `salt` and `info` are public. Put secrets in `ikm` only: as a salt, a
/// secret and the same secret followed by zero bytes would be one key.
pub fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut output = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), ikm)
        .expand(info, output.as_mut_slice())
        .expect("32 bytes are within the limit of HKDF");
    output
}

/// Expands a key of 32 random bytes to `N` with HKDF-Expand of SHA-256 (RFC 5869, 2.3).
///
/// `info` is the concatenation of its parts; at most one of them may have a length of its own.
pub fn hkdf_expand_sha256<const N: usize>(prk: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "HKDF has a limit") };
    let mut output = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::from_prk(prk)
        .expect("32 bytes are enough for a key")
        .expand_multi_info(info, output.as_mut_slice())
        .expect("the length was checked when this was compiled");
    output
}

/// Computes HMAC-SHA-256 (RFC 2104) of `message`.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut output = Zeroizing::new([0; 32]);
    output.copy_from_slice(tag.as_ref());
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hkdf_matches_rfc_5869() {
        let long = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
        // Appendix A, test cases 1 to 3, the first 32 bytes of each output.
        for (salt, ikm, info, expected) in [
            (
                long(0x00, 0x0c),
                vec![0x0b; 22],
                long(0xf0, 0xf9),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
            ),
            (
                long(0x60, 0xaf),
                long(0x00, 0x4f),
                long(0xb0, 0xff),
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
            ),
            (
                vec![],
                vec![0x0b; 22],
                vec![],
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
            ),
        ] {
            assert_eq!(hex::encode(hkdf_sha256(&salt, &ikm, &info)), expected);
        }
    }

    #[test]
    fn hmac_matches_rfc_4231() {
        // Section 4, test cases 1, 2, 3 and 6 (a key longer than a block).
        for (key, message, expected) in [
            (
                vec![0x0b; 20],
                b"Hi There".to_vec(),
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 20],
                vec![0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(hex::encode(hmac_sha256(&key, &message)), expected);
        }
    }

    #[test]
    fn every_input_changes_the_key() {
        let base = hkdf_sha256(b"salt", b"ikm", b"info");
        for other in [
            hkdf_sha256(b"salT", b"ikm", b"info"),
            hkdf_sha256(b"salt", b"ikM", b"info"),
            hkdf_sha256(b"salt", b"ikm", b"infO"),
        ] {
            assert_ne!(*base, *other);
        }
    }
}
