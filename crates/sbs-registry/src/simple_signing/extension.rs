//! Signatures that a registry keeps: the extension of `OpenShift` and of IBM's registry, which a header
//! announces (`X-Registry-Supports-Signatures`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use sbs_crypto::openpgp::OpenPgpSigningKey;
use sbs_proto::{Digest, ImageReference, Repository};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use url::Url;

use super::{MAX_SIGNATURES, Published, SignImageError, is_there, sign};
use crate::auth::{Access, Scope};
use crate::transport::{Attempts, Call, Payload};
use crate::{RegistryError, Session};

/// Signs an image and has the registry keep the signature, unless it has one by this key that says
/// the same. What was written is read again.
pub async fn publish(
    session: &Session,
    key: &OpenPgpSigningKey,
    image: &ImageReference,
    digest: Digest,
    at: OffsetDateTime,
) -> Result<Published, SignImageError> {
    let host = || session.host().to_owned();
    let repository = image.repository();
    let signature = sign(key, image, digest, at)?;
    if !session.keeps_signatures(repository).await? {
        return Err(SignImageError::NotOffered { host: host() });
    }
    let there = session.kept_signatures(repository, digest).await?;
    if is_there(&there, key, image, digest, at)? {
        return Ok(Published::Before);
    }
    let put = session.put_signature(repository, digest, &signature).await;
    // An answer can be lost: what counts is what the registry has.
    let there = session.kept_signatures(repository, digest).await;
    match (put, there) {
        (_, Ok(there)) if is_there(&there, key, image, digest, at)? => Ok(Published::Now),
        (Ok(()), Ok(_)) => Err(SignImageError::NotKept { host: host() }),
        (Err(error), _) | (Ok(()), Err(error)) => Err(error.into()),
    }
}

impl Session {
    /// Tells whether the registry keeps simple signatures.
    pub async fn keeps_signatures(&self, repository: &Repository) -> Result<bool, RegistryError> {
        let scope = Scope { repository, access: Access::Pull };
        let call = Call::new(Method::GET, self.url("")?, scope);
        let mut attempts = Attempts::new(self);
        // Without logging in: the header also stands in the answer that asks for a login.
        let response = loop {
            match self.bare(&call).await {
                Ok(response) => break response,
                Err(fault) => attempts.pause(fault).await?,
            }
        };
        if !matches!(response.status(), StatusCode::OK | StatusCode::UNAUTHORIZED) {
            return Err(self.refusal(response, "API").await.error);
        }
        Ok(response.headers().get(SUPPORTS_SIGNATURES).is_some_and(|value| value == "1"))
    }

    /// Returns the simple signatures that the registry keeps for a digest.
    pub(super) async fn kept_signatures(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Vec<Vec<u8>>, RegistryError> {
        let url = self.signatures_url(repository, digest)?;
        let call = Call::new(Method::GET, url, Scope { repository, access: Access::Pull });
        let Some(list) = self.fetch(&call, "list of signatures", MAX_LIST_BYTES).await? else {
            return Ok(Vec::new());
        };
        let malformed = || self.malformed("a list of signatures of another form");
        let list: List = serde_json::from_slice(&list).map_err(|_| malformed())?;
        let simple = |entry: &Entry| entry.schema_version == VERSION && entry.kind == KIND;
        let simple: Vec<_> =
            list.signatures.unwrap_or_default().into_iter().filter(simple).collect();
        if simple.len() > MAX_SIGNATURES {
            return Err(self.malformed("more signatures than are read"));
        }
        simple
            .iter()
            .map(|entry| STANDARD.decode(&entry.content).map_err(|_| malformed()))
            .collect()
    }

    async fn put_signature(
        &self,
        repository: &Repository,
        digest: Digest,
        signature: &[u8],
    ) -> Result<(), RegistryError> {
        // A name of its own, so that nobody's is written over; the registry takes each once.
        let unique = u128::from_be_bytes(sbs_crypto::random_bytes());
        let entry = Entry {
            schema_version: VERSION,
            name: format!("{digest}@{unique:032x}"),
            kind: KIND.to_owned(),
            content: STANDARD.encode(signature),
        };
        let entry = serde_json::to_vec(&entry)
            .map_err(|_| RegistryError::Internal("a signature makes no JSON"))?;
        let url = self.signatures_url(repository, digest)?;
        let mut call = Call::new(Method::PUT, url, Scope { repository, access: Access::Push });
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        call.payload = Payload::Bytes(Bytes::from(entry));
        let response = self.call(&call).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(());
        }
        Err(self.refusal(response, "image").await.error)
    }

    fn signatures_url(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Url, RegistryError> {
        self.url(&format!("/extensions/v2/{repository}/signatures/{digest}"))
    }

    /// Fetches something short that may be missing.
    pub(super) async fn fetch(
        &self,
        call: &Call<'_>,
        what: &'static str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let attempt = async || {
            let response = self.once(call).await?;
            match response.status() {
                StatusCode::OK => self.read(response, what, max_bytes).await.map(Some),
                StatusCode::NOT_FOUND => Ok(None),
                _ => Err(self.refusal(response, what).await),
            }
        };
        let mut attempts = Attempts::new(self);
        loop {
            match attempt().await {
                Ok(fetched) => return Ok(fetched),
                Err(fault) => attempts.pause(fault).await?,
            }
        }
    }
}

#[derive(Deserialize)]
struct List {
    signatures: Option<Vec<Entry>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    schema_version: u64,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    content: String,
}

const SUPPORTS_SIGNATURES: &str = "x-registry-supports-signatures";
const VERSION: u64 = 2;
const KIND: &str = "atomic";
// As containers/image.
const MAX_LIST_BYTES: u64 = 4 * 1024 * 1024;
