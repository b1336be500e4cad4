use std::fmt;

use sbs_crypto::{hmac_sha256, random_bytes};
use thiserror::Error;
use zeroize::Zeroizing;

/// The secret that everything a server keeps is protected by: 32 random bytes.
///
/// Whoever has it and the server's files has all keys of the server; without it the files are
/// lost. What it protects it protects through [`prf`](Self::prf).
pub struct RootSecret(Box<Zeroizing<[u8; BYTES]>>);

impl RootSecret {
    /// Parses the content of a secret file: 32 bytes, or 64 hex digits with or without a line
    /// feed at the end.
    ///
    /// Contents that cannot be random (all bytes equal) are refused: they are files that were
    /// never filled.
    pub fn parse(content: &[u8]) -> Result<Self, ParseRootSecretError> {
        // On the heap from the start, for a value on the stack leaves a copy where it was.
        let mut secret = Box::new(Zeroizing::new([0; BYTES]));
        if content.len() == BYTES {
            secret.copy_from_slice(content);
        } else {
            let digits = content.strip_suffix(b"\n").unwrap_or(content);
            if digits.len() != 2 * BYTES {
                return Err(ParseRootSecretError::WrongLength { got: content.len() });
            }
            hex::decode_to_slice(digits, secret.as_mut_slice())
                .map_err(|_| ParseRootSecretError::NotHex)?;
        }
        match **secret {
            [0, ref rest @ ..] if rest.iter().all(|&byte| byte == 0) => {
                Err(ParseRootSecretError::AllZero)
            }
            [first, ref rest @ ..] if rest.iter().all(|&byte| byte == first) => {
                Err(ParseRootSecretError::AllEqual)
            }
            _ => Ok(Self(secret)),
        }
    }

    /// Makes a new secret.
    pub fn generate() -> Self {
        Self(Box::new(Zeroizing::new(random_bytes())))
    }

    /// Derives 32 bytes for one use: HMAC-SHA-256 of `label`, with this secret as the key.
    ///
    /// `label` is a fixed ASCII text that no other use has.
    pub fn prf(&self, label: &str) -> Zeroizing<[u8; 32]> {
        hmac_sha256(self.0.as_slice(), label.as_bytes())
    }

    /// Returns the secret, for where it is to be kept. Whoever calls this answers for where it
    /// goes.
    pub fn expose_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }
}

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootSecret")
    }
}

/// Why the content of a secret file was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseRootSecretError {
    /// All bytes have one value.
    #[error(
        "root secret repeats one byte, so it is not random; on a new server make one with \
         `head -c 32 /dev/urandom > FILE`"
    )]
    AllEqual,

    /// All bytes are zero.
    #[error(
        "root secret is all zero; on a new server make one with `head -c 32 /dev/urandom > FILE`"
    )]
    AllZero,

    /// The length is that of hex digits, but some bytes are none.
    #[error(
        "root secret has the length of {} hex digits, but other characters; on a new server make one with \
         `head -c 32 /dev/urandom > FILE`",
        2 * BYTES
    )]
    NotHex,

    /// The content is too short or too long.
    #[error(
        "root secret has {got} bytes, expected {BYTES} bytes or {} hex digits; on a new server make one with \
         `head -c 32 /dev/urandom > FILE`",
        2 * BYTES
    )]
    WrongLength {
        /// The length of the content.
        got: usize,
    },
}

const BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> Vec<u8> {
        (0..32).collect()
    }

    #[test]
    fn takes_raw_bytes_and_hex_digits_alike() {
        let digits = hex::encode(counting());
        let forms = [
            counting(),
            digits.clone().into(),
            format!("{digits}\n").into(),
            digits.to_uppercase().into(),
        ];
        for content in forms {
            let secret = RootSecret::parse(&content).unwrap();
            assert_eq!(**secret.0, *counting(), "{}", content.escape_ascii());
        }
    }

    #[test]
    fn takes_raw_bytes_that_end_like_a_line() {
        let mut content = counting();
        content[31] = b'\n';
        assert_eq!(**RootSecret::parse(&content).unwrap().0, *content);
    }

    #[test]
    fn refuses_other_lengths() {
        let digits = hex::encode(counting());
        let too_many_ends = format!("{digits}\n\n");
        let dos_end = format!("{digits}\r\n");
        for content in [
            &b""[..],
            b"\n",
            &counting()[..31],
            &[counting(), vec![7]].concat(),
            &[counting(), vec![b'\n']].concat(),
            &digits.as_bytes()[..63],
            &[digits.as_bytes(), b"0"].concat(),
            too_many_ends.as_bytes(),
            dos_end.as_bytes(),
            &vec![7; 1 << 20],
        ] {
            let error = RootSecret::parse(content).unwrap_err();
            assert_eq!(error, ParseRootSecretError::WrongLength { got: content.len() });
        }
    }

    #[test]
    fn refuses_other_characters_than_hex_digits() {
        let digits = hex::encode(counting());
        for content in [digits.replace('f', "g"), digits.replacen("00", "0x", 1), " ".repeat(64)] {
            let error = RootSecret::parse(content.as_bytes()).unwrap_err();
            assert_eq!(error, ParseRootSecretError::NotHex, "{content}");
        }
    }

    #[test]
    fn refuses_contents_that_are_not_random() {
        for content in [vec![0; 32], b"0".repeat(64), [b"0".repeat(64), b"\n".to_vec()].concat()] {
            let error = RootSecret::parse(&content).unwrap_err();
            assert_eq!(error, ParseRootSecretError::AllZero);
        }
        for content in [vec![0xff; 32], b"a".repeat(32), b"ab".repeat(32)] {
            let error = RootSecret::parse(&content).unwrap_err();
            assert_eq!(error, ParseRootSecretError::AllEqual);
        }
    }

    #[test]
    fn one_different_byte_is_enough() {
        for place in [0, 15, 31] {
            let mut content = [0; 32];
            content[place] = 1;
            RootSecret::parse(&content).unwrap();
        }
    }

    #[test]
    fn errors_say_what_to_do_and_show_no_content() {
        let digits = format!("{}zz", "5e".repeat(31));
        for content in [&b"secret"[..], &[0; 32], &[0x5e; 32], digits.as_bytes()] {
            let text = RootSecret::parse(content).unwrap_err().to_string();
            assert!(text.contains("`head -c 32 /dev/urandom > FILE`"), "{text}");
            assert!(!text.contains("5e5e") && !text.contains("secret\""), "{text}");
        }
    }

    #[test]
    fn prf_is_hmac_with_the_secret_as_key() {
        // Computed with `openssl dgst -sha256 -mac HMAC -macopt hexkey:000102...1f`.
        let secret = RootSecret::parse(&counting()).unwrap();
        assert_eq!(
            hex::encode(secret.prf("sbs.state/v1 at rest")),
            "102958bb3b6a8f0e7354d17473685d503c6535fa3187375e81fc878537398a04"
        );
    }

    #[test]
    fn prf_differs_by_label_and_by_secret() {
        let one = RootSecret::parse(&counting()).unwrap();
        let other = RootSecret::parse(&(1..33).collect::<Vec<u8>>()).unwrap();
        assert_eq!(one.prf("a"), one.prf("a"));
        assert_ne!(one.prf("a"), one.prf("b"));
        assert_ne!(one.prf("a"), other.prf("a"));
    }

    #[test]
    fn new_secrets_differ_and_parse() {
        let (one, other) = (RootSecret::generate(), RootSecret::generate());
        assert_ne!(one.expose_bytes(), other.expose_bytes());
        let same = RootSecret::parse(one.expose_bytes()).unwrap();
        assert_eq!(same.expose_bytes(), one.expose_bytes());
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", RootSecret::parse(&counting()).unwrap()), "RootSecret");
    }
}
