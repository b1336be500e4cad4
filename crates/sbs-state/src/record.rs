use std::fmt;

use sbs_proto::Digest;
use serde::{Deserialize, Serialize};

use crate::ContentError;

/// The records of a state, in the order in which they stand in it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub enum RecordName {
    /// What the server is.
    #[serde(rename = "instance.json")]
    Instance,
    /// The image definition as the client gave it, with its credentials.
    #[serde(rename = "definition.json")]
    Definition,
    /// The signing keys.
    #[serde(rename = "keys.json")]
    Keys,
    /// The builds of the past; not in every state.
    #[serde(rename = "builds.json")]
    Builds,
    /// Host keys of first use, as ssh keeps them; not in every state.
    #[serde(rename = "known-hosts")]
    KnownHosts,
    /// The roots of trust of first use, of the notaries of base images; not in every state.
    #[serde(rename = "notary-roots.json")]
    NotaryRoots,
    /// The list of the others. It is made here, never given.
    #[serde(rename = "manifest.json")]
    Manifest,
}

impl RecordName {
    /// Every record, in order.
    pub const ALL: [Self; 7] = [
        Self::Instance,
        Self::Definition,
        Self::Keys,
        Self::Builds,
        Self::KnownHosts,
        Self::NotaryRoots,
        Self::Manifest,
    ];

    /// The records that every state has, besides `manifest.json`.
    pub const REQUIRED: [Self; 3] = [Self::Instance, Self::Definition, Self::Keys];

    /// Returns the name as it stands in a state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance.json",
            Self::Definition => "definition.json",
            Self::Keys => "keys.json",
            Self::Builds => "builds.json",
            Self::KnownHosts => "known-hosts",
            Self::NotaryRoots => "notary-roots.json",
            Self::Manifest => "manifest.json",
        }
    }

    /// Returns the greatest number of bytes of the record.
    pub fn max_bytes(self) -> u64 {
        match self {
            // A few lines each.
            Self::Instance | Self::Manifest => 64 << 10,
            // The body of a request is at most 1 MiB; keys take 16 KiB a definition, a root 8 KiB.
            Self::Definition | Self::Keys | Self::KnownHosts | Self::NotaryRoots => 1 << 20,
            // A build takes a few KiB.
            Self::Builds => 8 << 20,
        }
    }

    /// Returns the schema in which the record is written; those below are read, too. What a record
    /// holds may have a number of its own inside, as `keys.json` does.
    pub fn schema(self) -> u32 {
        1
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str().as_bytes() == bytes)
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The last record of a state: which export it is of, and what the others are.
// The fields are in alphabetical order, for that is how they are written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RecordManifest {
    pub(crate) epoch: u64,
    pub(crate) export_seq: u64,
    pub(crate) records: Vec<RecordEntry>,
    pub(crate) schema: u32,
}

impl RecordManifest {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ContentError> {
        let parsed: Self = serde_json::from_slice(json).map_err(|_| ContentError::Manifest)?;
        // One form for each meaning: no spaces, no escapes, keys in order.
        if parsed.to_bytes() != json {
            return Err(ContentError::Manifest);
        }
        check_schema(RecordName::Manifest, parsed.schema)?;
        for entry in &parsed.records {
            check_schema(entry.name, entry.schema)?;
        }
        Ok(parsed)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can be written")
    }

    /// Returns the epoch of the export.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the number of the export.
    pub fn export_seq(&self) -> u64 {
        self.export_seq
    }

    /// Returns the schema of a record, if the state has that record.
    pub fn schema(&self, name: RecordName) -> Option<u32> {
        self.records.iter().find(|entry| entry.name == name).map(|entry| entry.schema)
    }
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordEntry {
    pub(crate) bytes: u64,
    pub(crate) name: RecordName,
    pub(crate) schema: u32,
    pub(crate) sha256: Digest,
}

fn check_schema(name: RecordName, got: u32) -> Result<(), ContentError> {
    let newest = name.schema();
    if (1..=newest).contains(&got) {
        Ok(())
    } else {
        Err(ContentError::Schema { name, newest, got })
    }
}

/// Returns the length to which a content of `length` bytes is filled with zeros.
///
/// The next multiple of 4 KiB, and of a power of two that keeps only as many digits of the length
/// as its exponent has ("Padmé", PURBs, Nikitin et al. 2019): at most 12 % are added to what is
/// longer than 32 KiB.
pub(crate) fn padded(length: u64) -> u64 {
    let exponent = length.max(2).ilog2();
    let kept = exponent.ilog2() + 1;
    let step = 1_u64 << (exponent - kept.min(exponent));
    length.max(1).next_multiple_of(step.max(MIN_STEP))
}

const MIN_STEP: u64 = 4 << 10;

/// The greatest number of bytes of all records together, with what stands around them. It is one
/// that padding leaves as it is, so that it holds for the padded content, too.
pub(crate) const MAX_CONTENT_BYTES: u64 = 10 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_are_listed() {
        for name in RecordName::ALL {
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(RecordName::parse(name.as_str().as_bytes()), Some(name));
        }
        assert!(RecordName::ALL.is_sorted());
        for bytes in [&b""[..], b"keys.jso", b"keys.json ", b"Keys.json", b"../keys.json", b"\xff"]
        {
            assert_eq!(RecordName::parse(bytes), None);
        }
    }

    #[test]
    fn lengths_are_padded_to_few_values() {
        for (length, expected) in [
            (0, 4096),
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (20_000, 20_480),
            (300_000, 303_104),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, (1 << 20) + (1 << 15)),
            (MAX_CONTENT_BYTES, MAX_CONTENT_BYTES),
            (MAX_CONTENT_BYTES - 1, MAX_CONTENT_BYTES),
        ] {
            assert_eq!(padded(length), expected, "{length}");
        }
        for length in (1..MAX_CONTENT_BYTES).step_by(9973) {
            let padded = padded(length);
            assert!(padded >= length && padded <= MAX_CONTENT_BYTES);
            let added = padded - length;
            assert!(added < 4096 || added * 100 <= length * 12, "{length}: {added}");
            assert_eq!(super::padded(padded), padded, "{length}");
        }
    }
}
