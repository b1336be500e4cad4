//! The keys of a publisher.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::pki::{CodeSigningCertificate, IssueError};
use sbs_crypto::{GenerateKeyError, SignError, TrustSigningKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::canonical::{as_stored, canonical};
use super::key::{KeyId, Method, RawKey, Signature};
use super::name::Gun;
use super::trust::RootPin;

/// The keys of one repository's owner: the root key with its certificate, and the key of `targets`.
pub struct NotaryKeys {
    root: TrustSigningKey,
    certificate_pem: String,
    certificate: CodeSigningCertificate,
    targets: TrustSigningKey,
}

impl NotaryKeys {
    /// Makes fresh keys for a repository. The certificate is valid for ten years.
    pub fn generate(gun: &Gun, now: OffsetDateTime) -> Result<Self, GenerateNotaryKeysError> {
        let (root, targets) = (TrustSigningKey::generate()?, TrustSigningKey::generate()?);
        let certificate_pem = CodeSigningCertificate::self_sign(&root, &gun.to_string(), now)?;
        let certificate = CodeSigningCertificate::from_pem(&certificate_pem);
        let certificate = certificate.expect("a written certificate can be read");
        Ok(Self { root, certificate_pem, certificate, targets })
    }

    /// Reads a record of [`to_record`](Self::to_record), at most 64 KiB.
    pub fn from_record(record: &[u8]) -> Result<Self, ParseNotaryKeysError> {
        // What the parsers have to say is dropped: it quotes the record.
        let parse = || {
            let record: Record<'_> = serde_json::from_slice(record).ok()?;
            let key = |text| {
                let der = Zeroizing::new(STANDARD.decode(text).ok()?);
                TrustSigningKey::from_pkcs8_der(&der).ok()
            };
            let (root, targets) = (key(record.root)?, key(record.targets)?);
            let certificate_pem = STANDARD.decode(record.certificate).ok()?;
            let certificate_pem = String::from_utf8(certificate_pem).ok()?;
            let certificate = CodeSigningCertificate::from_pem(&certificate_pem).ok()?;
            let belongs = certificate.spki_der() == root.verifying_key().as_spki_der();
            (record.schema == SCHEMA && belongs).then_some(Self {
                root,
                certificate_pem,
                certificate,
                targets,
            })
        };
        if record.len() > MAX_RECORD_BYTES { None } else { parse() }.ok_or(ParseNotaryKeysError)
    }

    /// Writes the keys as JSON: the number of the schema, each key as PKCS#8 and the certificate as
    /// PEM, all in base64.
    ///
    /// Secret: store it sealed.
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        let encode = |der: &[u8]| Zeroizing::new(STANDARD.encode(der));
        let (root, targets) =
            (encode(&self.root.to_pkcs8_der()), encode(&self.targets.to_pkcs8_der()));
        let certificate = self.public_key();
        let record =
            Record { schema: SCHEMA, root: &root, certificate: &certificate, targets: &targets };
        // The whole room at once: a vector that grows leaves copies of the secret behind.
        let room = root.len() + certificate.len() + targets.len() + FRAME_BYTES;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *bytes, &record).expect("texts and numbers can be written");
        bytes
    }

    /// Tells whether the keys are this repository's.
    pub fn are_for(&self, gun: &Gun) -> bool {
        self.certificate.common_name() == gun.to_string()
    }

    /// Returns the id of the root key, as `docker trust inspect` shows it.
    pub fn root_key_id(&self) -> KeyId {
        self.root_key().id()
    }

    /// Returns the certificate of the root key as PEM in base64, which is how it stands in the root,
    /// and in what deployments of images are given as public key.
    pub fn public_key(&self) -> String {
        STANDARD.encode(&self.certificate_pem)
    }

    /// Returns that certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns what verifiers pin.
    pub fn pin(&self) -> RootPin {
        RootPin::Certificate(self.certificate.clone())
    }

    pub(super) fn certificate(&self) -> &CodeSigningCertificate {
        &self.certificate
    }

    pub(super) fn root_key(&self) -> RawKey {
        RawKey::new("ecdsa-x509", self.certificate_pem.as_bytes())
    }

    pub(super) fn targets_key(&self) -> RawKey {
        RawKey::new("ecdsa", self.targets.verifying_key().as_spki_der())
    }

    /// Signs a document as the root key, and returns it as it is published.
    pub(super) fn sign_root(&self, signed: &serde_json::Value) -> Result<String, SignError> {
        sign(&self.root, self.root_key_id(), signed)
    }

    /// Signs a document as the key of `targets`, under the id that the key has for the role.
    pub(super) fn sign_targets(
        &self,
        id: KeyId,
        signed: &serde_json::Value,
    ) -> Result<String, SignError> {
        sign(&self.targets, id, signed)
    }
}

impl fmt::Debug for NotaryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotaryKeys({})", self.certificate.common_name())
    }
}

/// Why keys could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenerateNotaryKeysError {
    /// The certificate was not made.
    #[error("cannot make the certificate of the root key of image trust data")]
    Certificate(#[from] IssueError),

    /// A key was not made.
    #[error("cannot make a key of image trust data")]
    Key(#[from] GenerateKeyError),
}

/// A record of keys is damaged, or of another version. Says nothing about its content.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the record of the keys of image trust data is damaged or of a later version")]
pub struct ParseNotaryKeysError;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record<'a> {
    schema: u32,
    root: &'a str,
    certificate: &'a str,
    targets: &'a str,
}

fn sign(key: &TrustSigningKey, id: KeyId, signed: &serde_json::Value) -> Result<String, SignError> {
    let text = canonical(signed).ok_or(SignError)?;
    let sig = STANDARD.encode(key.sign(text.as_bytes())?);
    let signature = Signature { keyid: id, method: Method::Ecdsa.as_str().to_owned(), sig };
    let signatures = serde_json::to_string(&[signature]).map_err(|_| SignError)?;
    // `signed` stands first. The server stores these bytes, but makes the snapshot over what its own
    // encoder writes for them, which must be the same.
    Ok(format!("{{\"signed\":{},\"signatures\":{signatures}}}", as_stored(&text)))
}

const SCHEMA: u32 = 1;
const MAX_RECORD_BYTES: usize = 64 * 1024;
// The names and the punctuation of a record.
const FRAME_BYTES: usize = 80;
