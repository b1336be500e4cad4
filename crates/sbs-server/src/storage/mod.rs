//! Object storages: where manifests and state images go besides the data directory.
//!
//! A storage is believed in nothing: what is sent carries a checksum that the storage must verify,
//! what is read has a limit and is one object from its first byte to its last, and credentials go
//! to the endpoint of the definition and nowhere else. Redirects are not followed.

mod cos;
mod error;
mod s3;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt::{self, Debug};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Certificate;
use reqwest::redirect::Policy;
use sbs_proto::{
    BucketName, Digest, ManifestName, StorageAccess, StorageCredentials, StoragePurpose,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use self::cos::{CosService, TokenSource};
use self::s3::S3Storage;
use self::transport::Transport;

pub(crate) use self::error::StorageError;
use crate::config::StorageSettings;

/// One bucket.
#[async_trait]
pub(crate) trait Storage: Debug + Send + Sync {
    /// Puts a file into the bucket under this name, in place of what has that name. Either the
    /// whole file is there afterwards or nothing of it.
    async fn put_file(
        &self,
        name: &ObjectName,
        file: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), StorageError>;

    /// Reads an object of at most `max_bytes` into the file `to`, which appears when all of it is
    /// there. An exchange that is cut is taken up again where it was.
    async fn fetch(
        &self,
        name: &ObjectName,
        to: &Path,
        max_bytes: u64,
    ) -> Result<FetchedObject, StorageError>;
}

/// What opens buckets.
pub(crate) trait OpenStorage: Debug + Send + Sync {
    /// Begins with a bucket. Nothing is sent until something is asked for.
    fn open(
        &self,
        access: &StorageAccess,
        bucket: &BucketName,
        purpose: StoragePurpose,
    ) -> Result<Box<dyn Storage>, StorageError>;
}

/// An object that was fetched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FetchedObject {
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// The name of an object: one part of a path, of letters, digits and `.`, `_`, `-`, `+`, `@`.
///
/// Names become parts of URLs here and of paths elsewhere; no name of ours needs more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ObjectName(String);

impl ObjectName {
    /// Parses a name.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseObjectNameError> {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-+@".contains(c);
        let dots = text.starts_with('.');
        if text.is_empty() || text.len() > MAX_NAME_BYTES || dots || !text.chars().all(good) {
            return Err(ParseObjectNameError);
        }
        Ok(Self(text.to_owned()))
    }

    /// Names the manifest of a build.
    pub(crate) fn manifest(name: &ManifestName) -> Result<Self, ParseObjectNameError> {
        Self::parse(&format!("{name}.sig.tbz"))
    }

    /// Names the thin form of a manifest.
    pub(crate) fn thin_manifest(name: &ManifestName) -> Result<Self, ParseObjectNameError> {
        Self::parse(&format!("{name}.thin.sig.tar.zst"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no name of an object.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "the name of an object has 1 to 1024 letters, digits, `.`, `_`, `-`, `+` and `@`, and does not \
     begin with a dot"
)]
pub(crate) struct ParseObjectNameError;

/// The limits of the exchange with a storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageLimits {
    /// Attempts at one request.
    pub(crate) attempts: usize,
    /// How long setting up a connection may take.
    pub(crate) connect: Duration,
    /// The first pause between attempts; the next ones double.
    pub(crate) first_pause: Duration,
    /// How long an answer may stand still. It must be enough for sending one part.
    pub(crate) idle: Duration,
    /// The longest pause, also if the storage asks for a longer one.
    pub(crate) longest_pause: Duration,
    /// How long an object may take in all.
    pub(crate) transfer: Duration,
}

impl Default for StorageLimits {
    fn default() -> Self {
        Self {
            attempts: 5,
            connect: Duration::from_secs(10),
            first_pause: Duration::from_millis(500),
            // A part of 8 MiB at 70 kB/s.
            idle: Duration::from_mins(2),
            longest_pause: Duration::from_secs(30),
            // 4 GiB at 1.2 MB/s.
            transfer: Duration::from_hours(1),
        }
    }
}

/// Whether an endpoint may be reached by http.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Plaintext {
    Allowed,
    Refused,
}

/// The client of all object storages; clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct StorageClient {
    http: reqwest::Client,
    limits: StorageLimits,
    plaintext: Plaintext,
}

impl StorageClient {
    /// Makes the client that the settings ask for.
    pub(crate) fn from_settings(
        settings: &StorageSettings,
        limits: StorageLimits,
    ) -> Result<Self, MakeStorageClientError> {
        let extra_ca_pem = match &settings.ca_file {
            None => Vec::new(),
            Some(path) => std::fs::read(path).map_err(|source| {
                MakeStorageClientError::ReadAuthorities { path: path.clone(), source }
            })?,
        };
        let plaintext =
            if settings.danger_allow_http { Plaintext::Allowed } else { Plaintext::Refused };
        Self::new(&extra_ca_pem, limits, plaintext)
    }

    /// Makes a client that trusts the system's authorities and those in `extra_ca_pem`, which may
    /// be empty.
    pub(crate) fn new(
        extra_ca_pem: &[u8],
        limits: StorageLimits,
        plaintext: Plaintext,
    ) -> Result<Self, MakeStorageClientError> {
        let extra = Certificate::from_pem_bundle(extra_ca_pem)
            .map_err(|_| MakeStorageClientError::Authorities)?;
        if extra.is_empty() && !extra_ca_pem.trim_ascii().is_empty() {
            return Err(MakeStorageClientError::Authorities);
        }
        let http = reqwest::Client::builder()
            .connect_timeout(limits.connect)
            .http1_only()
            .https_only(plaintext == Plaintext::Refused)
            .no_proxy()
            .read_timeout(limits.idle)
            .redirect(Policy::none())
            .referer(false)
            .tls_certs_merge(extra)
            .user_agent(concat!("sbs/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(MakeStorageClientError::Build)?;
        Ok(Self { http, limits, plaintext })
    }
}

impl OpenStorage for StorageClient {
    fn open(
        &self,
        access: &StorageAccess,
        bucket: &BucketName,
        purpose: StoragePurpose,
    ) -> Result<Box<dyn Storage>, StorageError> {
        if self.plaintext == Plaintext::Refused {
            access.require_https(purpose)?;
        }
        let transport = Transport::new(self.http.clone(), &self.limits);
        let storage = match &access.credentials {
            StorageCredentials::AccessKey { id, secret } => {
                S3Storage::with_access_key(transport, access, bucket, (id, secret), self.limits)?
            }
            StorageCredentials::IbmApiKey { api_key, auth_endpoint, instance } => {
                let tokens = TokenSource::new(transport.clone(), auth_endpoint, api_key);
                let service = CosService::new(transport, Arc::new(tokens), instance.as_ref())?;
                S3Storage::with_service(service, access, bucket, self.limits)?
            }
        };
        Ok(Box::new(storage))
    }
}

/// Why there is no client of object storages.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum MakeStorageClientError {
    /// The authorities to trust are not PEM certificates.
    #[error("`storage.ca-file` holds no certificates in PEM")]
    Authorities,

    /// The HTTP client cannot be made.
    #[error("the client of object storages cannot be made")]
    Build(#[source] reqwest::Error),

    /// The file of the authorities cannot be read.
    #[error("cannot read `{}`", path.display())]
    ReadAuthorities { path: PathBuf, source: io::Error },
}

/// The limit of S3.
const MAX_NAME_BYTES: usize = 1024;
