//! Public keys as they stand in trust data.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::TrustVerifyingKey;
use sbs_crypto::pki::CodeSigningCertificate;
use sbs_proto::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value, json};

use super::canonical::canonical;

/// The id of a key: the SHA-256 of its canonical JSON, 64 hex digits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct KeyId(Digest);

impl KeyId {
    /// Parses 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        Digest::parse_hex(text).ok().map(Self)
    }

    /// Returns the id of a P-256 key in this certificate, PEM; it goes by the text.
    pub fn of_certificate(pem: &str) -> Self {
        RawKey::new("ecdsa-x509", pem.as_bytes()).id()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("a key id is 64 hex digits"))
    }
}

/// A key as a document has it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RawKey {
    keytype: String,
    keyval: RawValue,
}

#[derive(Clone, Debug, Deserialize)]
struct RawValue {
    public: String,
}

impl RawKey {
    pub(super) fn new(keytype: &str, public: &[u8]) -> Self {
        let public = STANDARD.encode(public);
        Self { keytype: keytype.to_owned(), keyval: RawValue { public } }
    }

    /// Computes the id; the private half of the format is always empty.
    pub(super) fn id(&self) -> KeyId {
        let text = canonical(&self.to_json()).expect("a key has no numbers");
        KeyId(sbs_crypto::digest(text.as_bytes()))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "keytype": self.keytype, "keyval": { "private": null, "public": self.keyval.public } })
    }

    /// Reads the key; `None` for a kind that is not known here, whose signatures do not count.
    pub(super) fn parse(&self) -> Option<TrustKey> {
        let public = STANDARD.decode(&self.keyval.public).ok()?;
        let certificate = || {
            let text = str::from_utf8(&public).ok()?;
            CodeSigningCertificate::from_pem(text).ok()
        };
        let (method, verifying, certificate) = match &*self.keytype {
            "ecdsa" => (Method::Ecdsa, TrustVerifyingKey::ecdsa_p256(&public), None),
            "ed25519" => (Method::Eddsa, TrustVerifyingKey::ed25519(&public), None),
            "rsa" => (Method::RsaPss, TrustVerifyingKey::rsa_pss(&public), None),
            "ecdsa-x509" => {
                let certificate = certificate()?;
                let key = TrustVerifyingKey::ecdsa_p256(certificate.spki_der());
                (Method::Ecdsa, key, Some(certificate))
            }
            "rsa-x509" => {
                let certificate = certificate()?;
                let key = TrustVerifyingKey::rsa_pss(certificate.spki_der());
                (Method::RsaPss, key, Some(certificate))
            }
            _ => return None,
        };
        Some(TrustKey { id: self.id(), method, verifying: verifying.ok()?, certificate })
    }
}

/// A key whose signatures can be verified.
#[derive(Clone, Debug)]
pub(super) struct TrustKey {
    id: KeyId,
    method: Method,
    verifying: TrustVerifyingKey,
    certificate: Option<CodeSigningCertificate>,
}

impl TrustKey {
    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    /// Returns the certificate that the key came in, if it did.
    pub(super) fn certificate(&self) -> Option<&CodeSigningCertificate> {
        self.certificate.as_ref()
    }

    /// Returns what is the same for two forms of one key.
    pub(super) fn spki_der(&self) -> &[u8] {
        self.verifying.as_spki_der()
    }

    /// Returns the id that the key has outside of its certificate, by which `notary` files it.
    pub(super) fn plain_id(&self) -> KeyId {
        match (&self.certificate, self.method) {
            (Some(_), Method::Ecdsa) => RawKey::new("ecdsa", self.spki_der()).id(),
            (Some(_), Method::RsaPss) => RawKey::new("rsa", self.spki_der()).id(),
            _ => self.id,
        }
    }

    /// Tells whether this is a signature by this key and in the form that the key is for.
    pub(super) fn has_signed(&self, message: &str, signature: &Signature) -> bool {
        self.id == signature.keyid
            && self.method.as_str() == signature.method
            && STANDARD.decode(&signature.sig).is_ok_and(|signature| {
                self.verifying.verify(message.as_bytes(), &signature).is_ok()
            })
    }
}

/// A signature as it stands in a document.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Signature {
    pub(super) keyid: KeyId,
    pub(super) method: String,
    /// Base64.
    pub(super) sig: String,
}

/// The form of a signature. A key has one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Method {
    Ecdsa,
    Eddsa,
    RsaPss,
}

impl Method {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Eddsa => "eddsa",
            Self::RsaPss => "rsapss",
        }
    }
}
