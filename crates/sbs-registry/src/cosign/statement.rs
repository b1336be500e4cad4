//! Statements of in-toto (attestation framework, Statement v1): what is said of which artifacts.

use std::collections::BTreeMap;

use sbs_proto::v2::BuildId;
use sbs_proto::{Digest, ImageReference, ImageTag, parse_json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Expected, names};

/// A statement about artifacts.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    /// What it is about.
    pub subject: Vec<Subject>,
    /// What kind of thing is said, a URI.
    pub predicate_type: String,
    /// What is said.
    #[serde(default)]
    pub predicate: Map<String, Value>,
}

/// An artifact that a statement is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Subject {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its digests by the name of their algorithm, in hex.
    pub digest: BTreeMap<String, String>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

/// What a statement that an image is signed says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SignedImage {
    pub(super) image: ImageReference,
    pub(super) digest: Digest,
    pub(super) build: Option<BuildId>,
}

impl Statement {
    /// Makes a statement.
    pub fn new(subject: Vec<Subject>, predicate_type: &str, predicate: Map<String, Value>) -> Self {
        let (kind, predicate_type) = (STATEMENT_TYPE.to_owned(), predicate_type.to_owned());
        Self { kind, subject, predicate_type, predicate }
    }

    /// Says that `digest` is the image `image`, a reference with a tag, that this build made.
    ///
    /// cosign's own statement has the digest alone. The name is the repository; tag and build are
    /// annotations, which `cosign verify -a tag=TAG` checks.
    pub fn signed_image(image: &ImageReference, digest: Digest, build: &BuildId) -> Self {
        let mut subject = Subject::new(digest);
        subject.name = Some(name(image));
        let tag = image.tag().map(ImageTag::as_str).unwrap_or_default();
        for (key, value) in [(TAG, tag), (BUILD, build.as_str())] {
            subject.annotations.insert(key.to_owned(), value.into());
        }
        Self::new(vec![subject], SIGNED_IMAGE, Map::new())
    }

    /// Parses the bytes of a statement. A key that stands in an object twice is refused; members
    /// that are not known are ignored, as the framework wants it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseStatementError> {
        let statement: Self = parse_json(bytes)?;
        if statement.kind != STATEMENT_TYPE {
            return Err(ParseStatementError::Type);
        }
        Ok(statement)
    }

    /// Returns the bytes that are signed.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the names of all members are strings")
    }

    /// Tells whether this says that an image is signed; any other predicate says something else,
    /// whoever signed it.
    pub(super) fn is_signed_image(&self) -> bool {
        self.predicate_type == SIGNED_IMAGE
    }

    /// Returns what is said of the image that is expected, with a name and a tag in any case.
    pub(super) fn about(&self, expected: Expected<'_>) -> Option<SignedImage> {
        let [subject] = self.subject.as_slice() else { return None };
        let [(algorithm, hex)] = subject.digest.iter().collect::<Vec<_>>()[..] else { return None };
        let text = |key| subject.annotations.get(key).map(Value::as_str);
        let tag = ImageTag::parse(text(TAG)??).ok()?;
        let image = expected.image.with_tag(tag);
        let build = match text(BUILD) {
            Some(build) => Some(BuildId::parse(build?).ok()?),
            None => None,
        };
        let said = SignedImage { image, digest: expected.digest, build };
        let same = algorithm == SHA256
            && *hex == expected.digest.to_hex()
            && subject.name.as_deref() == Some(&name(expected.image))
            && names(&said.image, expected.image);
        same.then_some(said)
    }
}

impl Subject {
    /// Takes an artifact by its digest alone.
    pub fn new(digest: Digest) -> Self {
        let digest = BTreeMap::from([(SHA256.to_owned(), digest.to_hex())]);
        Self { name: None, digest, annotations: BTreeMap::new() }
    }
}

/// Why bytes are no statement.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParseStatementError {
    /// They are not JSON of this form.
    #[error("what is signed is not of the form that in-toto gives")]
    Form(#[from] serde_json::Error),

    /// It is another version, or something else.
    #[error("what is signed is not a Statement v1 of in-toto")]
    Type,
}

/// Returns the registry and repository of an image.
fn name(image: &ImageReference) -> String {
    format!("{}/{}", image.registry(), image.repository())
}

/// The predicate type of cosign's signatures for images.
pub const SIGNED_IMAGE: &str = "https://sigstore.dev/cosign/sign/v1";

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const SHA256: &str = "sha256";
const TAG: &str = "tag";
const BUILD: &str = "build-id";
