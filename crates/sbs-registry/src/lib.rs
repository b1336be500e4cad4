//! Container registries: a client (OCI distribution specification 1.1) for images by digest and for
//! every form of signature that refers to them.
//!
//! A registry is believed in nothing: every byte is held against a digest that was known before or
//! is computed here, every answer has a limit, and credentials go to the registry and to the token
//! servers that the operator trusts, nowhere else. To a Notary server go those that
//! [`for_notary`](RegistryClient::for_notary) is given; [`notary::shares_logins`] tells where these may
//! be the registry's.

mod address;
mod auth;
mod blob;
pub mod cosign;
mod document;
mod error;
pub mod image_trust;
mod log;
pub mod notary;
mod patience;
mod push;
mod referrers;
mod shared;
pub mod simple_signing;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Response};
use sbs_proto::{Credentials, Digest, ImageTag, RegistryHost, Repository};
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use self::address::PublicOnly;
use self::auth::{Access, Login, Scope};
use self::error::Fault;
use self::shared::Locks;
use self::transport::{Attempts, Call, Payload};

pub use self::blob::BlobSource;
pub use self::document::{
    Descriptor, DocumentKind, ImageIndex, ImageManifest, ParseDocumentError, Platform, media_type,
};
pub use self::error::{RegistryError, Remark, TransportError, chain, find_cause};
pub use self::log::Log;
pub use self::patience::Patience;

/// Whom the client trusts.
#[derive(Clone, Debug, Default)]
pub struct RegistryTrust {
    /// Certificates of authorities, PEM, that count beside those of the system. May be empty.
    pub extra_ca_pem: Vec<u8>,
    /// Hosts, each `host` or `host:port`, beside a registry's own, that a registry may name as its
    /// token server, which gets the credentials, and that may have private addresses. Docker Hub's
    /// is built in.
    pub token_hosts: Vec<String>,
}

/// The limits of the exchange with a registry.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts at one thing without any progress.
    pub attempts: u32,
    /// How long setting up a connection may take.
    pub connect: Duration,
    /// The first pause between attempts; the next ones double.
    pub first_pause: Duration,
    /// How long a connection may stand still.
    pub idle: Duration,
    /// The longest pause, also if the registry asks for a longer one.
    pub longest_pause: Duration,
    /// How long an image manifest or another short answer may take.
    pub reply: Duration,
    /// How long a blob may take, pauses included.
    pub transfer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: 6,
            connect: Duration::from_secs(10),
            first_pause: Duration::from_millis(500),
            idle: Duration::from_mins(1),
            longest_pause: Duration::from_mins(1),
            reply: Duration::from_mins(2),
            // 10 GiB at 1.5 MB/s.
            transfer: Duration::from_hours(2),
        }
    }
}

/// A client of any number of registries; clones share its connections.
#[derive(Clone, Debug)]
pub struct RegistryClient(Arc<Client>);

#[derive(Debug)]
struct Client {
    limits: Limits,
    locks: Locks,
    token_hosts: Vec<String>,
    /// For the registry itself and the hosts that the operator named.
    trusted: reqwest::Client,
    /// For hosts that a registry named; it connects to public addresses only.
    untrusted: reqwest::Client,
}

impl RegistryClient {
    /// Makes a client.
    pub fn new(trust: &RegistryTrust, limits: Limits) -> Result<Self, MakeRegistryClientError> {
        let extra = Certificate::from_pem_bundle(&trust.extra_ca_pem)
            .map_err(|_| MakeRegistryClientError::Authorities)?;
        if extra.is_empty() && !trust.extra_ca_pem.trim_ascii().is_empty() {
            return Err(MakeRegistryClientError::Authorities);
        }
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(limits.connect)
                .https_only(true)
                .no_proxy()
                .redirect(Policy::none())
                .referer(false)
                .tls_certs_merge(extra.clone())
                .user_agent(concat!("sbs/", env!("CARGO_PKG_VERSION")))
        };
        let trusted = builder().build().map_err(MakeRegistryClientError::Build)?;
        let untrusted = builder().dns_resolver(PublicOnly).build();
        let untrusted = untrusted.map_err(MakeRegistryClientError::Build)?;
        let token_hosts = trust.token_hosts.clone();
        let locks = Locks::default();
        Ok(Self(Arc::new(Client { limits, locks, token_hosts, trusted, untrusted })))
    }

    /// Begins a session with one registry; attempts that are repeated show in the log.
    ///
    /// Nothing is sent until something is asked for.
    pub fn for_registry(
        &self,
        registry: &RegistryHost,
        credentials: Option<&Credentials>,
        log: &(impl Log + Clone + 'static),
    ) -> Result<Session, RegistryError> {
        let base = Url::parse(&format!("https://{}/v2/", registry.api_host()))
            .map_err(|_| RegistryError::Internal("a registry's name makes no URL"))?;
        Ok(Session(Arc::new(Inner {
            base,
            client: self.clone(),
            log: Arc::new(log.clone()),
            login: Login::new(credentials),
            registry: registry.clone(),
            scope_prefix: String::new(),
        })))
    }
}

/// Why a client could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MakeRegistryClientError {
    /// The certificates of authorities are no PEM.
    #[error("the certificates of the registry's authority are not PEM certificates")]
    Authorities,

    /// There is no trust to begin with.
    #[error(
        "cannot set up TLS for registries; are the system's certificates (ca-certificates) \
         installed?"
    )]
    Build(#[source] reqwest::Error),
}

/// The exchange with one registry as one user. Clones share logins and connections.
///
/// Every method can be dropped in the middle: what was asked for then is not done or done in part,
/// never done wrong.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    base: Url,
    client: RegistryClient,
    log: Arc<dyn Log>,
    login: Login,
    registry: RegistryHost,
    /// What stands before a repository's name in the scope of a token.
    scope_prefix: String,
}

/// By what an image manifest is asked for or pushed.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// By its digest.
    Digest(Digest),
    /// By a tag, which may point elsewhere at any time.
    Tag(&'a ImageTag),
}

/// An image manifest or index as the registry served it.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// Exactly as served.
    pub bytes: Vec<u8>,
    /// Computed here.
    pub digest: Digest,
    /// Which of the two it is.
    pub kind: DocumentKind,
    /// The media type, in which the registry and the document agree.
    pub media_type: String,
}

impl Session {
    /// Returns the log of the session.
    pub fn log(&self) -> &dyn Log {
        &*self.0.log
    }

    /// Fetches an image manifest or index of at most 4 MiB. Asked for by digest, it has it.
    pub async fn manifest(
        &self,
        repository: &Repository,
        target: Target<'_>,
    ) -> Result<FetchedManifest, RegistryError> {
        let url = self.manifest_url(repository, target)?;
        let scope = Scope { repository, access: Access::Pull };
        let mut call = Call::new(Method::GET, url, scope);
        call.headers.insert(ACCEPT, ACCEPTED);
        let mut attempts = Attempts::new(self);
        let (response_type, bytes) = loop {
            match self.fetch_manifest(&call).await {
                Ok(fetched) => break fetched,
                Err(fault) => attempts.pause(fault).await?,
            }
        };
        let digest = sbs_crypto::digest(&bytes);
        if let Target::Digest(expected) = target
            && digest != expected
        {
            let (host, what) = (self.host().to_owned(), "image manifest");
            return Err(RegistryError::DigestMismatch { host, what, expected, actual: digest });
        }
        let (kind, media_type) = self.judge_type(response_type, &bytes)?;
        Ok(FetchedManifest { bytes, digest, kind, media_type })
    }

    /// Pushes an image manifest whose blobs are there.
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        target: Target<'_>,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        self.put_manifest(repository, target, media_type, bytes).await?;
        Ok(())
    }

    /// Pushes an image manifest and returns the headers of the answer.
    async fn put_manifest(
        &self,
        repository: &Repository,
        target: Target<'_>,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<HeaderMap, RegistryError> {
        let scope = Scope { repository, access: Access::Push };
        let mut call = Call::new(Method::PUT, self.manifest_url(repository, target)?, scope);
        let media_type = HeaderValue::from_str(media_type);
        let media_type = media_type.map_err(|_| RegistryError::Internal("a media type"))?;
        call.headers.insert(CONTENT_TYPE, media_type);
        let digest = sbs_crypto::digest(&bytes);
        call.payload = Payload::Bytes(bytes);
        let response = self.call(&call).await?;
        if !matches!(response.status(), StatusCode::CREATED | StatusCode::OK) {
            return Err(self.refusal(response, "repository").await.error);
        }
        self.check_stored(&response, "image manifest", digest)?;
        Ok(response.headers().clone())
    }

    fn host(&self) -> &str {
        self.0.registry.as_str()
    }

    /// Returns the limits of the session.
    pub fn limits(&self) -> &Limits {
        &self.0.client.0.limits
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        // Names, tags and digests hold no character that a URL would read otherwise.
        self.0.base.join(path).map_err(|_| RegistryError::Internal("a path makes no URL"))
    }

    fn manifest_url(
        &self,
        repository: &Repository,
        target: Target<'_>,
    ) -> Result<Url, RegistryError> {
        match target {
            Target::Digest(digest) => self.url(&format!("{repository}/manifests/{digest}")),
            Target::Tag(tag) => self.url(&format!("{repository}/manifests/{tag}")),
        }
    }

    async fn fetch_manifest(&self, call: &Call<'_>) -> Result<(Option<String>, Vec<u8>), Fault> {
        let response = self.once(call).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response, "image").await);
        }
        let media_type = content_type(&response);
        Ok((media_type, self.read(response, "image manifest", MAX_MANIFEST_BYTES).await?))
    }

    /// Returns what a document is: its own word and the registry's must be the same one.
    fn judge_type(
        &self,
        response_type: Option<String>,
        bytes: &[u8],
    ) -> Result<(DocumentKind, String), RegistryError> {
        let own: OwnType = serde_json::from_slice(bytes)
            .map_err(|_| self.malformed("an image manifest that is not JSON"))?;
        if let (Some(theirs), Some(own)) = (&response_type, &own.media_type)
            && theirs != own
        {
            return Err(self.malformed("an image manifest of two types at once"));
        }
        let media_type = response_type.or(own.media_type);
        let media_type =
            media_type.ok_or_else(|| self.malformed("an image manifest without type"))?;
        let kind = DocumentKind::of(&media_type);
        Ok((kind.ok_or_else(|| self.malformed("an image manifest of another type"))?, media_type))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.host()).finish()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnType {
    media_type: Option<String>,
}

fn content_type(response: &Response) -> Option<String> {
    let value = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim().to_owned())
}

const ACCEPTED: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json",
);
/// What the OCI distribution specification asks registries to accept at least.
const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
