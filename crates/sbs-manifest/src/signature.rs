use std::fmt;

use sbs_crypto::{ManifestSigningKey, SignError};
use sbs_proto::Digest;
use thiserror::Error;

/// The signature of a manifest, the content of its `.sig` file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestSignature(Vec<u8>);

impl ManifestSignature {
    /// Parses 1 to 4,096 bytes as lower-case hex digits, without a line end.
    pub fn parse(text: &[u8]) -> Result<Self, ParseSignatureError> {
        if text.len() > MAX_DIGITS {
            return Err(ParseSignatureError::TooLong);
        }
        if text.ends_with(b"\n") {
            return Err(ParseSignatureError::LineEnd);
        }
        if text.iter().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseSignatureError::Digit);
        }
        if text.is_empty() || !text.len().is_multiple_of(2) {
            return Err(ParseSignatureError::Length);
        }
        hex::decode(text).map(Self).map_err(|_| ParseSignatureError::Digit)
    }

    /// Returns the signature itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ManifestSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// Signs the digest of an inner archive.
///
/// The 32 bytes of the digest are the message, so that they are hashed once more: the original
/// does it so.
pub fn sign(digest: &Digest, key: &ManifestSigningKey) -> Result<ManifestSignature, SignError> {
    key.sign(digest.as_bytes()).map(ManifestSignature)
}

/// Why a text is not the signature of a manifest.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseSignatureError {
    /// There is something else than a lower-case hex digit.
    #[error("signature has something else than lower-case hex digits")]
    Digit,

    /// The number of digits is zero or odd.
    #[error("signature is empty or has an odd number of digits")]
    Length,

    /// The text ends in a line end.
    #[error("signature ends in a line end")]
    LineEnd,

    /// There are more than 8,192 digits.
    #[error("signature has more than {MAX_DIGITS} digits")]
    TooLong,
}

/// Four times what an RSA key of 8,192 bits needs.
pub(crate) const MAX_DIGITS: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        let signature = ManifestSignature::parse(b"00ff10").unwrap();
        assert_eq!(
            (signature.as_bytes(), signature.to_string()),
            (&[0, 255, 16][..], "00ff10".into())
        );
    }

    #[test]
    fn has_one_form() {
        use ParseSignatureError as E;
        for (text, expected) in [
            (&b""[..], E::Length),
            (b"abc", E::Length),
            (b"ab\n", E::LineEnd),
            (b"ab\r", E::Digit),
            (b"AB", E::Digit),
            (b" ab ", E::Digit),
            (b"0x", E::Digit),
            (&[b'a'; MAX_DIGITS + 2], E::TooLong),
        ] {
            assert_eq!(ManifestSignature::parse(text), Err(expected), "{}", text.escape_ascii());
        }
        ManifestSignature::parse(&[b'a'; MAX_DIGITS]).unwrap();
    }
}
