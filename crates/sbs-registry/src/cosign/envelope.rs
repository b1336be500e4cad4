//! A sigstore bundle, version 0.3, that holds a DSSE envelope: its bytes.
//!
//! The JSON is that of protobuf: bytes are standard base64 with padding, members in lower camel case.
//! Of the two writings that protobuf's parsers take for some members, this takes the one that is
//! written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::{ImageSigningKey, ImageVerifyingKey, SignError, SignatureValid, dsse};
use sbs_proto::{Digest, parse_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::statement::{ParseStatementError, Statement};
use super::{InvalidSignature, key_id};

/// A statement, signed by a key that whoever verifies it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    document: Document,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// A statement whose signature was verified. Only [`Bundle::verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedStatement {
    key: Digest,
    statement: Statement,
    _valid: SignatureValid,
}

impl VerifiedStatement {
    /// Returns the digest of the key (`SubjectPublicKeyInfo`, DER) that verified it.
    pub fn key(&self) -> Digest {
        self.key
    }

    /// Returns the statement. What it says of what has to be checked still.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }
}

impl Bundle {
    /// Signs a statement.
    pub fn sign(statement: &Statement, key: &ImageSigningKey) -> Result<Self, SignError> {
        let payload = statement.to_json();
        let signature = dsse::sign(key, PAYLOAD_TYPE, &payload)?;
        let hint = STANDARD.encode(key_id(&key.verifying_key()).as_bytes());
        let entry = Signature { sig: STANDARD.encode(&signature), keyid: hint.clone() };
        let document = Document {
            media_type: BUNDLE_TYPE.to_owned(),
            verification_material: Material {
                public_key: PublicKey { hint },
                tlog_entries: Vec::new(),
                timestamp_verification_data: None,
            },
            dsse_envelope: Envelope {
                payload: STANDARD.encode(&payload),
                payload_type: PAYLOAD_TYPE.to_owned(),
                signatures: vec![entry],
            },
        };
        Ok(Self { document, payload, signature })
    }

    /// Parses a bundle with a statement and one signature by a key, of at most 4 MiB.
    ///
    /// Refused are keys that stand in an object twice, members that are not known, certificates in
    /// place of a key, and an envelope that names another key than the bundle.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseBundleError> {
        if bytes.len() as u64 > MAX_BUNDLE_BYTES {
            return Err(ParseBundleError::TooLarge);
        }
        let document: Document = parse_json(bytes)?;
        let envelope = &document.dsse_envelope;
        if document.media_type != BUNDLE_TYPE || envelope.payload_type != PAYLOAD_TYPE {
            return Err(ParseBundleError::Type);
        }
        let [entry] = envelope.signatures.as_slice() else {
            return Err(ParseBundleError::Signatures);
        };
        if entry.keyid != document.verification_material.public_key.hint {
            return Err(ParseBundleError::Keys);
        }
        let payload = STANDARD.decode(&envelope.payload)?;
        let signature = STANDARD.decode(&entry.sig)?;
        Ok(Self { document, payload, signature })
    }

    /// Returns the text of the bundle.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.document).expect("the names of all members are strings")
    }

    /// Verifies that `key` signed the statement. Log entries and timestamps are not looked at.
    pub fn verify(&self, key: &ImageVerifyingKey) -> Result<VerifiedStatement, InvalidSignature> {
        let id = key_id(key);
        if self.document.verification_material.public_key.hint != STANDARD.encode(id.as_bytes()) {
            return Err(InvalidSignature::OtherKey);
        }
        let valid = dsse::verify(key, PAYLOAD_TYPE, &self.payload, &self.signature)?;
        let statement = Statement::parse(&self.payload).map_err(ParseBundleError::Statement)?;
        Ok(VerifiedStatement { key: id, statement, _valid: valid })
    }

    /// Returns the bytes that are signed as a statement.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Material {
    public_key: PublicKey,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tlog_entries: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<Value>,
}

/// The digest of the key (`SubjectPublicKeyInfo`, DER) in base64.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct PublicKey {
    hint: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    keyid: String,
}

/// Why bytes are no bundle that is accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParseBundleError {
    /// Payload or signature is not base64.
    #[error("payload or signature of the bundle is not base64")]
    Base64(#[from] base64::DecodeError),

    /// They are not JSON of this form.
    #[error("not a bundle with a DSSE envelope by a key")]
    Form(#[from] serde_json::Error),

    /// Bundle and envelope do not name the same key.
    #[error("the bundle names two keys")]
    Keys,

    /// There is not one signature.
    #[error("the bundle does not have exactly one signature")]
    Signatures,

    /// The payload is no statement.
    #[error("the payload of the bundle is no statement")]
    Statement(#[source] ParseStatementError),

    /// It is larger than is read.
    #[error("the bundle is larger than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,

    /// It is of another version or holds something else.
    #[error("not a bundle of version 0.3 that holds a statement of in-toto")]
    Type,
}

/// The media type of a bundle, and the artifact type of what refers to an image with one.
pub(super) const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A list of what an image is made of can have megabytes; a signature has two kilobytes.
pub(super) const MAX_BUNDLE_BYTES: u64 = 4 * 1024 * 1024;

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[cfg(test)]
mod tests;
