//! The documents of a registry (OCI image specification 1.1; Docker image manifest v2, schema 2).

use std::collections::BTreeMap;

use sbs_proto::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// What a blob or an image manifest is, and where it is found.
///
/// Members that are not known here are kept; `urls` among them are never gone to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What it is an image manifest of, in a list of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// What an image runs on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Platform {
    /// As in `GOARCH`.
    pub architecture: String,
    /// As in `GOOS`.
    pub os: String,
    /// The variant of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// The manifest of an image.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    schema_version: u32,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// What is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A list of image manifests, one for each platform or for each referrer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    schema_version: u32,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The entries.
    pub manifests: Vec<Descriptor>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Which of the two a document is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DocumentKind {
    /// The manifest of one image.
    Image,
    /// A list of manifests.
    Index,
}

impl Descriptor {
    /// Makes the descriptor of a blob.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
            platform: None,
            other: Map::new(),
        }
    }

    /// Makes the descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, sbs_crypto::digest(bytes), bytes.len() as u64)
    }
}

impl ImageManifest {
    /// Makes an OCI image manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let media_type = Some(media_type::OCI_IMAGE.to_owned());
        Self {
            schema_version: 2,
            media_type,
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Parses an image manifest, OCI or Docker.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseDocumentError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.schema_version != 2 {
            return Err(ParseDocumentError::Version);
        }
        if manifest.layers.len() > MAX_LAYERS {
            return Err(ParseDocumentError::TooMany { max: MAX_LAYERS });
        }
        Ok(manifest)
    }

    /// Returns the text of the document.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the names of all members are strings")
    }

    /// Returns every blob that the image is made of, each once.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let mut blobs: Vec<&Descriptor> = Vec::new();
        for blob in std::iter::once(&self.config).chain(&self.layers) {
            if !blobs.iter().any(|seen| seen.digest == blob.digest) {
                blobs.push(blob);
            }
        }
        blobs
    }
}

impl ImageIndex {
    /// Makes an OCI image index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        let media_type = Some(media_type::OCI_INDEX.to_owned());
        Self { schema_version: 2, media_type, manifests, other: Map::new() }
    }

    /// Returns the text of the document.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the names of all members are strings")
    }

    /// Parses an image index, OCI or Docker.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseDocumentError> {
        let index: Self = serde_json::from_slice(bytes)?;
        if index.schema_version != 2 {
            return Err(ParseDocumentError::Version);
        }
        if index.manifests.len() > MAX_MANIFESTS {
            return Err(ParseDocumentError::TooMany { max: MAX_MANIFESTS });
        }
        Ok(index)
    }
}

impl DocumentKind {
    /// Returns what a media type stands for; `None` for what is not accepted.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::OCI_IMAGE | media_type::DOCKER_IMAGE => Some(Self::Image),
            media_type::OCI_INDEX | media_type::DOCKER_INDEX => Some(Self::Index),
            _ => None,
        }
    }
}

/// Why a text is not such a document.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParseDocumentError {
    /// It is not JSON of this form.
    #[error("image manifest or index is not of the form that the OCI image specification gives")]
    Form(#[from] serde_json::Error),

    /// It lists too much.
    #[error("image manifest or index lists more than {max} entries")]
    TooMany {
        /// The limit.
        max: usize,
    },

    /// It is of another version.
    #[error("image manifest or index is not of schema version 2")]
    Version,
}

/// Media types.
pub mod media_type {
    /// The configuration of a Docker image.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A Docker image manifest, version 2, schema 2.
    pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// The configuration of what needs none: the document `{}`.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// The configuration of an OCI image.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An OCI image manifest.
    pub const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
}

// Engines stop at 127 layers; signature manifests have one layer for each signature.
const MAX_LAYERS: usize = 1000;
// The largest official indexes list some thirty.
const MAX_MANIFESTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTOR: &str = r#"{"mediaType":"a","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    #[test]
    fn keeps_what_it_does_not_know() {
        let layer =
            DESCRIPTOR.replace("\"size\"", "\"urls\":[\"https://x\"],\"data\":\"\",\"size\"");
        let text = format!(
            r#"{{"schemaVersion":2,"artifactType":"t","config":{DESCRIPTOR},"layers":[{layer}],"subject":{layer},"annotations":{{"a":"b"}},"more":[1]}}"#
        );
        let manifest = ImageManifest::parse(text.as_bytes()).unwrap();
        let again: Value = serde_json::from_slice(&manifest.to_json()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(manifest.blobs().len(), 1, "the same blob is listed twice");

        let entry = layer.replace("\"size\"", "\"artifactType\":\"t\",\"size\"");
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{DESCRIPTOR},{entry}],"annotations":{{"a":"b"}}}}"#
        );
        let index = ImageIndex::parse(text.as_bytes()).unwrap();
        let again: Value = serde_json::from_slice(&index.to_json()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn r3_long_and_odd_documents_are_refused() {
        let image = |version: u32, layers: usize| {
            let layers = vec![DESCRIPTOR; layers].join(",");
            format!(r#"{{"schemaVersion":{version},"config":{DESCRIPTOR},"layers":[{layers}]}}"#)
        };
        let index = |entries: usize| {
            let entries = vec![DESCRIPTOR; entries].join(",");
            format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)
        };
        let parse_image = |text: String| ImageManifest::parse(text.as_bytes());
        parse_image(image(2, MAX_LAYERS)).unwrap();
        let result = parse_image(image(2, MAX_LAYERS + 1));
        assert!(matches!(result, Err(ParseDocumentError::TooMany { .. })), "{result:?}");
        let result = parse_image(image(1, 1));
        assert!(matches!(result, Err(ParseDocumentError::Version)), "{result:?}");
        for text in [
            image(2, 1).replace("sha256:e3", "sha512:e3"),
            image(2, 1).replace("\"size\":0", "\"size\":-1"),
            image(2, 1).replace("\"size\":0", "\"size\":0,\"size\":1"),
            index(1),
            "[]".to_owned(),
        ] {
            let result = parse_image(text.clone());
            assert!(matches!(result, Err(ParseDocumentError::Form(_))), "{text}");
        }
        ImageIndex::parse(index(MAX_MANIFESTS).as_bytes()).unwrap();
        let result = ImageIndex::parse(index(MAX_MANIFESTS + 1).as_bytes());
        assert!(matches!(result, Err(ParseDocumentError::TooMany { .. })), "{result:?}");
    }
}
