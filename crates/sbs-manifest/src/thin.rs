//! What a thin manifest has instead of the source: a proof of the Dockerfile, and the digest of the
//! full manifest.
//!
//! Format: `docs/formats/manifest.md`, "Thin form".

use std::collections::BTreeSet;

use sbs_crypto::git::ObjectFormat;
use sbs_proto::{CommitId, Digest, ManifestName};
use serde::{Deserialize, Serialize};

use crate::form::Form;
use crate::header::EntryKind;
use crate::path::shown;
use crate::report::CheckError;
use crate::source::{Extent, Item, ItemKind, SourceError, blob_kind, items};

/// Says which full manifest a thin one belongs to: the content of `data/full.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FullManifest {
    /// The digest of the inner archive of the full form: what its signature is over.
    pub digest: Digest,
    /// The name of that archive, `<manifest name>.tbz`.
    pub name: String,
    /// The form of this object: 1.
    pub schema: u32,
    /// The size of that archive in bytes.
    pub size: u64,
}

impl FullManifest {
    /// Describes a full manifest of that name, whose inner archive has this digest and size.
    pub fn new(name: &ManifestName, digest: Digest, size: u64) -> Self {
        Self { digest, name: archive_name(name), schema: SCHEMA, size }
    }

    /// Parses the object. A later schema is told apart from what is no object of any.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, CheckError> {
        #[derive(Deserialize)]
        struct Schema {
            schema: u32,
        }
        let Schema { schema } = sbs_proto::parse_json(json).map_err(CheckError::Full)?;
        if schema != SCHEMA {
            return Err(CheckError::Differs {
                what: "schema of `data/full.json`",
                expected: SCHEMA.to_string(),
                got: schema.to_string(),
            });
        }
        sbs_proto::parse_json(json).map_err(CheckError::Full)
    }
}

/// Returns the name that the inner archive of a full manifest has.
pub(crate) fn archive_name(name: &ManifestName) -> String {
    format!("{name}{}", Form::Full.archive_suffix())
}

/// Returns the part of a listing that proves a file: every entry directly in the top and directly
/// in each directory on the way to the file.
pub(crate) fn part_of(listing: &[u8], file: &[u8]) -> Result<Vec<u8>, SourceError> {
    let mut part = Vec::new();
    for item in items(listing) {
        let (item, line) = item?;
        if Extent::Towards(file).opens(parent(item.path)) {
            part.extend_from_slice(line);
        }
    }
    Ok(part)
}

/// Compares the entries of a thin manifest, as they come, with its part of the tree listing.
#[derive(Debug)]
pub(crate) struct ThinProof {
    format: ObjectFormat,
    dockerfile: Vec<u8>,
    /// What the commit has in the Dockerfile's place, or on the way to it.
    listed: Listed,
    seen: bool,
}

#[derive(Debug)]
enum Listed {
    File(EntryKind, CommitId),
    Submodule(Vec<u8>),
}

impl ThinProof {
    pub(crate) fn new(
        listing: &[u8],
        dockerfile: &[u8],
        format: ObjectFormat,
    ) -> Result<Self, SourceError> {
        let listed = find(listing, dockerfile)?;
        Ok(Self { format, dockerfile: dockerfile.to_vec(), listed, seen: false })
    }

    pub(crate) fn format(&self) -> ObjectFormat {
        self.format
    }

    /// Finds what the next file or directory must be; returns the id that its content must have,
    /// if the listing has one for it.
    pub(crate) fn expect(
        &mut self,
        path: &[u8],
        kind: EntryKind,
    ) -> Result<Option<CommitId>, SourceError> {
        let wrong_kind = || Err(SourceError::Mode(shown(path)));
        if path != self.dockerfile {
            if !Extent::Towards(&self.dockerfile).opens(path) {
                return Err(SourceError::Beyond(shown(path)));
            }
            return if kind == EntryKind::Directory { Ok(None) } else { wrong_kind() };
        }
        self.seen = true;
        match &self.listed {
            Listed::File(listed, id) if *listed == kind => Ok(Some(id.clone())),
            Listed::Submodule(_) if kind.is_file() => Ok(None),
            Listed::File(..) | Listed::Submodule(_) => wrong_kind(),
        }
    }

    /// Ends the comparison; returns the submodule that the Dockerfile is in, if it is in one.
    pub(crate) fn finish(self) -> Result<BTreeSet<Vec<u8>>, SourceError> {
        if !self.seen {
            return Err(SourceError::Missing(shown(&self.dockerfile)));
        }
        Ok(match self.listed {
            Listed::File(..) => BTreeSet::new(),
            Listed::Submodule(path) => BTreeSet::from([path]),
        })
    }
}

/// Returns what kind of entry the Dockerfile is in a manifest.
pub(crate) fn dockerfile_kind(listing: &[u8], dockerfile: &[u8]) -> Result<EntryKind, SourceError> {
    Ok(match find(listing, dockerfile)? {
        Listed::File(kind, _) => kind,
        // No listing of this commit tells.
        Listed::Submodule(_) => EntryKind::File,
    })
}

/// Finds a file, or the submodule that it is in, in a listing. A link is no Dockerfile: the server
/// reads none through a link, and its content would be that of another file.
fn find(listing: &[u8], file: &[u8]) -> Result<Listed, SourceError> {
    let mut found = None;
    for item in items(listing) {
        let (Item { kind, id, path, .. }, _) = item?;
        let listed = if path == file {
            let kind = blob_kind(kind).ok_or_else(|| SourceError::Mode(shown(path)))?;
            Listed::File(kind, id)
        } else if kind == ItemKind::Submodule && Extent::Towards(file).opens(path) {
            Listed::Submodule(path.to_vec())
        } else {
            continue;
        };
        // A tree with a name twice has an id, too.
        if found.replace(listed).is_some() {
            return Err(SourceError::Listing);
        }
    }
    found.ok_or_else(|| SourceError::Unlisted(shown(file)))
}

/// Returns the directory that a path is in; empty for the top.
fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

const SCHEMA: u32 = 1;
/// Bytes: a name of the greatest length, a digest and a number, many times over.
pub(crate) const FULL_BYTES: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(lines: &[&str]) -> Vec<u8> {
        let id = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let line = |line: &&str| {
            let (facts, path) = line.split_once(' ').unwrap();
            let kind = match facts {
                "040000" => "tree",
                "160000" => "commit",
                _ => "blob",
            };
            format!("{facts} {kind} {id}\t{path}\0").into_bytes()
        };
        lines.iter().flat_map(line).collect()
    }

    #[test]
    fn a_part_has_what_is_beside_the_way_and_nothing_below_it() {
        let whole = listing(&[
            "100644 a.b",
            "040000 a",
            "100644 a/Dockerfile",
            "040000 a/x",
            "100644 a/x/y",
            "040000 ab",
            "100644 ab/c",
            "160000 sub",
        ]);
        let part = listing(&[
            "100644 a.b",
            "040000 a",
            "100644 a/Dockerfile",
            "040000 a/x",
            "040000 ab",
            "160000 sub",
        ]);
        assert_eq!(part_of(&whole, b"a/Dockerfile").unwrap(), part);
        let top = listing(&["100644 a.b", "040000 a", "040000 ab", "160000 sub"]);
        assert_eq!(part_of(&whole, b"Dockerfile").unwrap(), top);
        assert_eq!(part_of(&part, b"a/Dockerfile").unwrap(), part);
        assert_eq!(part_of(b"x", b"Dockerfile"), Err(SourceError::Listing));
    }

    #[test]
    fn a_dockerfile_is_one_regular_file_of_the_commit() {
        let kind = |lines: &[&str]| dockerfile_kind(&listing(lines), b"d/f");
        assert_eq!(kind(&["040000 d", "100644 d/f"]), Ok(EntryKind::File));
        assert_eq!(kind(&["040000 d", "100755 d/f"]), Ok(EntryKind::Executable));
        assert_eq!(kind(&["160000 d"]), Ok(EntryKind::File));
        for other in ["120000 d/f", "040000 d/f", "160000 d/f"] {
            assert_eq!(kind(&["040000 d", other]), Err(SourceError::Mode("d/f".to_owned())));
        }
        assert_eq!(kind(&["040000 d"]), Err(SourceError::Unlisted("d/f".to_owned())));
        assert_eq!(kind(&["160000 de"]), Err(SourceError::Unlisted("d/f".to_owned())));
        assert_eq!(kind(&["100644 d/f", "100755 d/f"]), Err(SourceError::Listing));
    }

    #[test]
    fn a_later_schema_is_told_from_what_is_none() {
        let name = ManifestName::parse("manifest.a").unwrap();
        let full = FullManifest::new(&name, Digest::from_bytes([7; 32]), 5);
        let json = serde_json::to_string(&full).unwrap();
        assert_eq!(FullManifest::parse(json.as_bytes()).unwrap(), full);
        for (text, expected) in [
            (json.replace("\"schema\":1", "\"schema\":2"), "schema of `data/full.json` is `2`"),
            (json.replace("\"schema\":1", "\"schema\":2,\"more\":1"), "is `2`, expected `1`"),
            (json.replace("\"schema\":1", "\"schema\":1,\"more\":1"), "does not parse"),
            (json.replace("\"size\":5", "\"size\":5,\"size\":6"), "does not parse"),
            (json.replace("\"size\":5", "\"size\":-5"), "does not parse"),
            (String::new(), "does not parse"),
        ] {
            let error = FullManifest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
