use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Digest, StateImageName, StateLabel};

/// The clear part of a state image: what can be told of it without a secret.
///
/// Nothing of it is to be believed before the image is opened, for the sealed part alone shows
/// that it was not changed. Form: `docs/formats/state.md`, "Header".
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateHeader {
    /// Which secret of a server the image is sealed under.
    pub server_kid: [u8; 8],
    /// Grows with every change of keys, import and new SECRET.
    pub epoch: u64,
    /// Grows with every export.
    pub export_seq: u64,
    /// When the image was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// What people want to know.
    pub meta: StateMeta,
}

impl StateHeader {
    /// Reads the header at the start of a state image, and nothing behind it.
    ///
    /// At most 16 KiB and 48 bytes are read.
    pub fn read(input: &mut impl Read) -> Result<Self, ReadStateHeaderError> {
        let mut fixed = [0; FIXED_BYTES];
        let count = read_full(input, &mut fixed)?;
        let start = MAGIC.len().min(count);
        if fixed.get(..start) != MAGIC.get(..start) {
            return Err(ReadStateHeaderError::NotAStateImage);
        }
        if count < FIXED_BYTES {
            return Err(ReadStateHeaderError::Truncated);
        }
        let (_, mut fields) = fixed.split_at(MAGIC.len());
        let version = u16::from_be_bytes(take(&mut fields));
        if version != VERSION {
            return Err(ReadStateHeaderError::UnknownVersion { got: version });
        }
        let suite = u16::from_be_bytes(take(&mut fields));
        if suite != SUITE {
            return Err(ReadStateHeaderError::UnknownSuite { got: suite });
        }
        let meta_bytes = u32::from_be_bytes(take(&mut fields)) as usize;
        if meta_bytes > MAX_META_BYTES {
            return Err(ReadStateHeaderError::TooLarge);
        }
        Ok(Self {
            server_kid: take(&mut fields),
            epoch: u64::from_be_bytes(take(&mut fields)),
            export_seq: u64::from_be_bytes(take(&mut fields)),
            created_ms: u64::from_be_bytes(take(&mut fields)),
            meta: StateMeta::read(input, meta_bytes)?,
        })
    }

    /// Returns the bytes of the header: for one that was read, exactly those that were read.
    pub fn to_bytes(&self) -> Vec<u8> {
        let meta = self.meta.to_bytes();
        let meta_bytes = u32::try_from(meta.len()).expect("the texts are short");
        [
            &MAGIC[..],
            &VERSION.to_be_bytes(),
            &SUITE.to_be_bytes(),
            &meta_bytes.to_be_bytes(),
            &self.server_kid,
            &self.epoch.to_be_bytes(),
            &self.export_seq.to_be_bytes(),
            &self.created_ms.to_be_bytes(),
            &meta,
        ]
        .concat()
    }
}

/// The texts in the header of a state image.
///
/// Version 1 has these and no others: whoever has the file can read them, and a reader that
/// ignored one that it does not know would ignore what that one binds.
// In alphabetical order, for that is how they are written.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StateMeta {
    /// The authority of the clients that the image was made for: SHA-256 of its certificate, DER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_sha256: Option<Digest>,
    /// The form of the export, as the v1 wire tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_tag: Option<StateLabel>,
    /// The tag of the server's own image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<StateLabel>,
    /// The name of the state image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<StateImageName>,
    /// Where the server keeps its secret: tells why another machine cannot open the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<StateLabel>,
    /// The version of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<StateLabel>,
}

impl StateMeta {
    fn read(input: &mut impl Read, length: usize) -> Result<Self, ReadStateHeaderError> {
        let mut json = vec![0; length];
        if read_full(input, &mut json)? < length {
            return Err(ReadStateHeaderError::Truncated);
        }
        let meta: Self =
            serde_json::from_slice(&json).map_err(|_| ReadStateHeaderError::MalformedMeta)?;
        // One form for each meaning: no spaces, no escapes, no `null`, keys in order.
        if meta.to_bytes() != json {
            return Err(ReadStateHeaderError::MalformedMeta);
        }
        Ok(meta)
    }

    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts can be written")
    }
}

/// Why the start of a file was not read as the header of a state image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadStateHeaderError {
    /// The texts are not JSON of the one form that they can have.
    #[error("header of the state image has other texts than those of version {VERSION}")]
    MalformedMeta,

    /// The magic number is missing.
    #[error("not a state image")]
    NotAStateImage,

    /// The file cannot be read.
    #[error("state image cannot be read")]
    Read(#[from] io::Error),

    /// The texts are longer than they may be.
    #[error("header of the state image is larger than {} KiB", MAX_META_BYTES / 1024)]
    TooLarge,

    /// The file ends inside the header.
    #[error("state image ends inside its header")]
    Truncated,

    /// The algorithms are others.
    #[error("state image is of suite {got}, this program knows suite {SUITE}")]
    UnknownSuite {
        /// The number found.
        got: u16,
    },

    /// The form is another.
    #[error("state image is of version {got}, this program knows version {VERSION}")]
    UnknownVersion {
        /// The number found.
        got: u16,
    },
}

impl ReadStateHeaderError {
    /// Returns the stable word for this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MalformedMeta => "bad_content",
            Self::NotAStateImage => "bad_magic",
            Self::Read(_) => "unreadable",
            Self::TooLarge => "too_large",
            Self::Truncated => "truncated",
            Self::UnknownSuite { .. } => "unknown_suite",
            Self::UnknownVersion { .. } => "unknown_version",
        }
    }
}

/// Takes the first `N` bytes, which are there.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (first, rest) = bytes.split_first_chunk().expect("the fields make up the fixed part");
    *bytes = rest;
    *first
}

/// Fills `bytes` as far as the input goes, and returns how many it gave.
fn read_full(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match input.read(free) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

const MAGIC: &[u8; 8] = b"SBS-SEAL";
const VERSION: u16 = 1;
// HKDF-SHA-256 and AES-256-GCM in chunks.
const SUITE: u16 = 1;
const FIXED_BYTES: usize = 48;
// The texts of version 1 take less than 2 KiB.
const MAX_META_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> StateHeader {
        let label = |text| Some(StateLabel::parse(text).unwrap());
        StateHeader {
            server_kid: *b"kid-kid-",
            epoch: 5,
            export_seq: 9,
            created_ms: 1,
            meta: StateMeta {
                client_ca_sha256: Some(Digest::from_bytes([7; 32])),
                export_tag: label("sbs-seal-1"),
                image_tag: label("1.3.0.20"),
                name: Some(StateImageName::parse("docker.io.ns.app.v1-0a1b2c3").unwrap()),
                provider: label("file"),
                server_version: label("0.1.0+1"),
            },
        }
    }

    fn with_meta(json: &str) -> Vec<u8> {
        let mut bytes = StateHeader { meta: StateMeta::default(), ..header() }.to_bytes();
        bytes.truncate(FIXED_BYTES);
        bytes[12..16].copy_from_slice(&u32::try_from(json.len()).unwrap().to_be_bytes());
        [&bytes, json.as_bytes()].concat()
    }

    fn code(mut bytes: &[u8]) -> &'static str {
        StateHeader::read(&mut bytes).map_or_else(|error| error.code(), |_| "read")
    }

    #[test]
    fn golden() {
        let expected = concat!(
            r#"{"client_ca_sha256":"sha256:0707070707070707070707070707070707070707070707070707070707070707","#,
            r#""export_tag":"sbs-seal-1","image_tag":"1.3.0.20","name":"docker.io.ns.app.v1-0a1b2c3","#,
            r#""provider":"file","server_version":"0.1.0+1"}"#
        );
        let bytes = header().to_bytes();
        assert_eq!(&bytes[..12], b"SBS-SEAL\0\x01\0\x01");
        assert_eq!(&bytes[16..24], b"kid-kid-");
        assert_eq!(bytes[FIXED_BYTES..].escape_ascii().to_string(), expected.replace('"', "\\\""));
    }

    #[test]
    fn reads_itself_and_nothing_behind() {
        let bytes = [&header().to_bytes()[..], b"rest"].concat();
        let mut input = &bytes[..];
        assert_eq!(StateHeader::read(&mut input).unwrap(), header());
        assert_eq!(input, b"rest");
    }

    #[test]
    fn every_prefix_is_truncated() {
        let bytes = header().to_bytes();
        for length in 0..bytes.len() {
            assert_eq!(code(&bytes[..length]), "truncated", "{length}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (place, value, expected) in [
            (0, b's', "bad_magic"),
            (7, b'l', "bad_magic"),
            (8, 1, "unknown_version"),
            (9, 0, "unknown_version"),
            (9, 2, "unknown_version"),
            (10, 1, "unknown_suite"),
            (11, 0, "unknown_suite"),
            (11, 2, "unknown_suite"),
        ] {
            let mut bytes = header().to_bytes();
            bytes[place] = value;
            assert_eq!(code(&bytes), expected, "{place}");
        }
        for text in [&b"{"[..], b"PK\x03\x04", b"SBS-SEAX"] {
            assert_eq!(code(text), "bad_magic");
        }
    }

    #[test]
    fn s14_a_long_header_is_refused_before_it_is_read() {
        for (length, expected) in
            [(u32::MAX, "too_large"), (16 * 1024 + 1, "too_large"), (16 * 1024, "truncated")]
        {
            let mut bytes = header().to_bytes();
            bytes[12..16].copy_from_slice(&length.to_be_bytes());
            assert_eq!(code(&bytes), expected, "{length}");
        }
    }

    #[test]
    fn s8_the_texts_have_one_form() {
        assert_eq!(code(&with_meta(r#"{"name":"x"}"#)), "read");
        assert_eq!(code(&with_meta("{}")), "read");
        for json in [
            "",
            "[]",
            "null",
            r#"{"cipher":"none"}"#,
            r#"{"chunk_bytes":1,"name":"x"}"#,
            r#"{"name":"x","name":"x"}"#,
            r#"{"name": "x"}"#,
            r#"{"name":"x"} "#,
            r#"{"name":"\u0078"}"#,
            r#"{"name":null}"#,
            r#"{"name":""}"#,
            r#"{"name":"../x"}"#,
            r#"{"name":"a/b"}"#,
            r#"{"provider":"file","name":"x"}"#,
            r#"{"provider":"\u001b[2J"}"#,
            r#"{"client_ca_sha256":"00"}"#,
            r#"{"image_tag":1}"#,
        ] {
            assert_eq!(code(&with_meta(json)), "bad_content", "{json}");
        }
    }

    #[test]
    fn the_longest_texts_fit() {
        let label = || Some(StateLabel::parse(&"x".repeat(128)).unwrap());
        let meta = StateMeta {
            client_ca_sha256: Some(Digest::from_bytes([0; 32])),
            export_tag: label(),
            image_tag: label(),
            name: Some(StateImageName::parse(&"x".repeat(255)).unwrap()),
            provider: label(),
            server_version: label(),
        };
        let bytes = StateHeader { meta, ..header() }.to_bytes();
        assert!(bytes.len() < 2 * 1024, "{}", bytes.len());
        assert_eq!(code(&bytes), "read");
    }

    #[test]
    fn a_fault_of_the_input_is_no_header() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        assert_eq!(StateHeader::read(&mut Broken).unwrap_err().code(), "unreadable");
    }
}
