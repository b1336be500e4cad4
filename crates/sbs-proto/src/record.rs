use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{BuildStatus, CommitId, Digest, ImageReference, RelativePath};

/// The value of [`BuildRecord::schema`] that this crate reads and writes.
pub const RECORD_SCHEMA: &str = "sbs-build-record-1";

/// What is known of one build: the content of `data/build.json` in its manifest.
///
/// The first fields are the status object of the original; the rest are ours. It holds no secret:
/// build arguments are recorded by value because they are part of the recipe and of the image's
/// history.
///
/// One from outside is read by [`parse_json`](crate::parse_json), which refuses doubled keys.
///
/// Format: `docs/formats/manifest.md`, "Build record".
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BuildRecord {
    /// The status object, as it was once the image was pushed.
    #[serde(flatten)]
    pub status: BuildStatus,
    /// The external images that the build used, in the order of the Dockerfile.
    pub bases: Vec<BaseImage>,
    /// What built the image, and how.
    pub engine: EngineRecord,
    /// When the build ended: UTC, RFC 3339, seconds.
    pub finished_at: String,
    /// The image that was built, pushed and signed.
    pub image: ImageRecord,
    /// The public key that verifies this manifest, PEM. It proves nothing by itself: hold it
    /// against the key that you have from elsewhere.
    pub manifest_public_key_pem: String,
    /// The files of this build's manifests; absent in records that are older than the thin form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<ManifestFiles>,
    /// The form of this record: [`RECORD_SCHEMA`].
    pub schema: String,
    /// The version of the server that built.
    pub server_version: String,
    /// What was built from.
    pub source: SourceRecord,
    /// When the build began: UTC, RFC 3339, seconds.
    pub started_at: String,
}

/// The source of a build.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SourceRecord {
    /// The commit, whole.
    pub commit: CommitId,
    /// The committer's time of that commit, in seconds since 1970: the `SOURCE_DATE_EPOCH`.
    pub commit_time: i64,
    /// The fingerprint (`SHA256:…`) of the ssh host key that was accepted, if ssh was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// The branch, tag or commit that was asked for; absent for the remote's HEAD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The path and commit of every submodule that was checked out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub submodules: BTreeMap<String, CommitId>,
    /// The git id of the commit's tree.
    pub tree: CommitId,
    /// Where it was fetched from, without credentials.
    pub url: String,
}

/// An external image that a build used.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BaseImage {
    /// The digest that the reference was resolved to, before the build.
    pub digest: Digest,
    /// The platform manifest's digest, where `digest` is that of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_digest: Option<Digest>,
    /// The reference as it stands in the Dockerfile, with registry and tag filled in.
    pub reference: ImageReference,
    /// The signature that vouches for the digest; absent where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<BaseSignature>,
}

/// The signature by which a base image was trusted, before the build.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BaseSignature {
    /// The key that signed: for cosign the SHA-256 of the SubjectPublicKeyInfo, for OpenPGP the
    /// fingerprint, for a notary the id of the root key; hex.
    pub key_id: String,
    /// The kind of signature.
    pub kind: SignatureKind,
}

/// A kind of signature.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureKind {
    /// cosign: its tag form or a sigstore bundle.
    Cosign,
    /// Docker Content Trust (Notary v1).
    Notary,
    /// Red Hat simple signing.
    #[serde(rename = "openpgp")]
    OpenPgp,
}

impl SignatureKind {
    /// Returns the word of the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cosign => "cosign",
            Self::Notary => "notary",
            Self::OpenPgp => "openpgp",
        }
    }
}

/// What built an image, and how.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EngineRecord {
    /// The build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    /// The build context inside the repository; empty for the top.
    pub context: RelativePath,
    /// The Dockerfile inside the repository.
    pub dockerfile: RelativePath,
    /// How the build's processes were kept apart, such as `oci (runc)` or `chroot`.
    pub isolation: String,
    /// The engine, such as `buildah`.
    pub name: String,
    /// What the build's processes could reach: `none` or `host`.
    pub network: String,
    /// The storage driver of the engine.
    pub storage_driver: String,
    /// The engine's version, as it prints it.
    pub version: String,
}

/// An image that was built.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ImageRecord {
    /// The digest of its image manifest.
    pub digest: Digest,
    /// The SubjectPublicKeyInfo (PEM) of the key that signed it.
    pub public_key_pem: String,
    /// Where it was pushed, with its tag.
    pub reference: ImageReference,
}

/// The names of the files that a build's manifests are kept in.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ManifestFiles {
    /// The full form, with the source.
    pub full: String,
    /// The thin form, with the proof of the Dockerfile alone.
    pub thin: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildName, ImageTag, StatusText, Step, parse_json};

    fn record() -> BuildRecord {
        let name = BuildName::parse("r.example.app.v1-0a1b2c3.2026-01-02_03-04-05.000006").unwrap();
        let tag = ImageTag::parse("v1-0a1b2c3").unwrap();
        let commit = CommitId::parse(&"0a1b2c3d".repeat(5)).unwrap();
        let reference = ImageReference::parse("r.example/app").unwrap();
        BuildRecord {
            status: BuildStatus::unfinished("", StatusText::done(Step::ImagePushed))
                .named(&name, &tag),
            bases: vec![BaseImage {
                digest: Digest::from_bytes([1; 32]),
                platform_digest: None,
                reference: ImageReference::parse("debian:12").unwrap(),
                signature: None,
            }],
            engine: EngineRecord {
                arguments: BTreeMap::from([("A".to_owned(), "B".to_owned())]),
                context: RelativePath::default(),
                dockerfile: RelativePath::parse("Dockerfile").unwrap(),
                isolation: "oci (runc)".to_owned(),
                name: "buildah".to_owned(),
                network: "none".to_owned(),
                storage_driver: "overlay".to_owned(),
                version: "1.28.2".to_owned(),
            },
            finished_at: "2026-01-02T03:05:05Z".to_owned(),
            image: ImageRecord {
                digest: Digest::from_bytes([2; 32]),
                public_key_pem: "-----BEGIN PUBLIC KEY-----\n".to_owned(),
                reference: reference.with_tag(tag),
            },
            manifest_public_key_pem: "-----BEGIN PUBLIC KEY-----\n".to_owned(),
            manifests: Some(name.manifest_name().files()),
            schema: RECORD_SCHEMA.to_owned(),
            server_version: "0.1.0".to_owned(),
            source: SourceRecord {
                commit: commit.clone(),
                commit_time: 1_700_000_000,
                host_key: None,
                reference: Some("main".to_owned()),
                submodules: BTreeMap::new(),
                tree: commit,
                url: "git@git.example:u/r.git".to_owned(),
            },
            started_at: "2026-01-02T03:04:05Z".to_owned(),
        }
    }

    #[test]
    fn a_record_is_the_status_object_and_more() {
        let json = serde_json::to_value(record()).unwrap();
        assert_eq!(json["status"], "image pushed");
        assert_eq!(json["manifest_key_gen"], "soft_crypto");
        assert_eq!(json["bases"][0]["reference"], "docker.io/library/debian:12");
        assert_eq!(json["image"]["reference"], "r.example/app:v1-0a1b2c3");
    }

    #[test]
    fn c1_a_doubled_key_is_refused_wherever_it_stands() {
        let json = serde_json::to_string(&record()).unwrap();
        for (once, twice) in [
            (r#"{"A":"B"}"#, r#"{"A":"B","A":"C"}"#),
            (r#""schema":"#, r#""schema":"x","schema":"#),
            (r#"{"build_image_tag""#, r#"{"later":1,"later":2,"build_image_tag""#),
            (r#"{"build_image_tag""#, r#"{"later":[{"a":1,"a":1}],"build_image_tag""#),
            (r#""engine":{"#, r#""engine":{"later":1,"later":1,"#),
        ] {
            let doubled = json.replacen(once, twice, 1);
            assert_ne!(doubled, json, "{once}");
            let error = parse_json::<BuildRecord>(doubled.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("twice"), "{twice}: {error}");
        }
        assert_eq!(parse_json::<BuildRecord>(json.as_bytes()).unwrap(), record());
    }

    #[test]
    fn reads_what_it_writes_with_unknown_keys_besides() {
        let mut json = serde_json::to_value(record()).unwrap();
        json["later"] = 1.into();
        let read: BuildRecord = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(read, record());
        json.as_object_mut().unwrap().remove("manifests");
        let old: BuildRecord = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(old, BuildRecord { manifests: None, ..record() });
        json.as_object_mut().unwrap().remove("image");
        serde_json::from_value::<BuildRecord>(json).unwrap_err();
    }
}
