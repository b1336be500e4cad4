use std::fmt;

use serde_json::Value;
use thiserror::Error;
use url::Url;

use crate::{Members, SecretText, key};

/// A bucket of an object storage and how to get into it.
#[derive(Debug)]
pub struct StorageTarget {
    /// How to get in.
    pub access: StorageAccess,
    /// The bucket.
    pub bucket: BucketName,
}

/// Where state images are kept: a request may name another bucket than the definition does.
#[derive(Debug)]
pub struct StateStorage {
    /// How to get in.
    pub access: StorageAccess,
    /// The bucket of requests that name none.
    pub bucket: Option<BucketName>,
}

/// An object storage that speaks the S3 API, and who we are there.
#[derive(Debug)]
pub struct StorageAccess {
    /// Who we are.
    pub credentials: StorageCredentials,
    /// The storage; it has no path.
    pub endpoint: StorageEndpoint,
    /// The region that requests are signed for; `us-east-1` where none is set.
    pub region: String,
}

/// Who we are at an object storage.
#[derive(Debug)]
pub enum StorageCredentials {
    /// An S3 access key; every request is signed with its secret (AWS Signature Version 4). IBM
    /// Cloud Object Storage calls such a pair HMAC credentials.
    AccessKey {
        /// The name of the key.
        id: String,
        /// The secret.
        secret: SecretText,
    },
    /// An API key of IBM Cloud, which is exchanged for tokens.
    IbmApiKey {
        /// The API key.
        api_key: SecretText,
        /// Where tokens are had, such as `https://iam.cloud.ibm.com/oidc/token`.
        auth_endpoint: StorageEndpoint,
        /// The name (CRN) of the storage's service instance, for storages that ask for it. It is
        /// no key, but the original masks it in its logs.
        instance: Option<SecretText>,
    },
}

impl StorageAccess {
    /// Makes sure that nothing travels in clear.
    pub fn require_https(&self, purpose: StoragePurpose) -> Result<(), StorageKeyError> {
        let keys = purpose.keys();
        let plaintext = |key| Err(StorageKeyError { key, source: ParseStorageError::Plaintext });
        if !self.endpoint.is_https() {
            return plaintext(keys.endpoint);
        }
        match &self.credentials {
            StorageCredentials::IbmApiKey { auth_endpoint, .. } if !auth_endpoint.is_https() => {
                plaintext(keys.auth_endpoint)
            }
            _ => Ok(()),
        }
    }
}

/// What an object storage is for; each purpose has keys of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoragePurpose {
    /// Manifests are put there after each build.
    Manifest,
    /// State images are exported to and imported from there.
    State,
}

/// The URL of an object storage or of its token service: `https://`, or `http://` where the operator
/// of the server allows that. It never has a user, a query or a fragment.
#[derive(Clone, Eq, PartialEq)]
pub struct StorageEndpoint(Url);

impl StorageEndpoint {
    fn parse(text: &str, path: EndpointPath) -> Option<Self> {
        // The parser of URLs forgives white space and backslashes; a setting that has them is wrong.
        let odd = |c: char| !c.is_ascii_graphic() || c == '\\';
        if text.len() > MAX_VALUE_BYTES || text.contains(odd) {
            return None;
        }
        let url = Url::parse(text).ok()?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let scheme = matches!(url.scheme(), "http" | "https");
        let path = path == EndpointPath::Any || url.path() == "/";
        (bare && scheme && path && url.has_host()).then_some(Self(url))
    }

    /// Returns the URL. An endpoint of a storage ends without a slash.
    pub fn as_str(&self) -> &str {
        let text = self.0.as_str();
        if self.0.path() == "/" { text.trim_end_matches('/') } else { text }
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Tells whether the exchange is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Debug for StorageEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BucketName(String);

impl BucketName {
    /// Parses a name by the rules of S3 for new buckets, which are also those of IBM Cloud.
    pub fn parse(text: &str) -> Result<Self, ParseStorageError> {
        let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let inner = |c: char| outer(c) || c == '-' || c == '.';
        let address = text.chars().all(|c| c.is_ascii_digit() || c == '.');
        let good = (3..=63).contains(&text.len())
            && text.chars().all(inner)
            && text.starts_with(outer)
            && text.ends_with(outer)
            && !address
            && !["..", ".-", "-."].iter().any(|pair| text.contains(pair));
        if good { Ok(Self(text.to_owned())) } else { Err(ParseStorageError::Bucket) }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads where manifests go; `None` where no bucket is named.
pub(crate) fn parse_manifest_storage(
    members: &Members,
) -> Result<Option<StorageTarget>, StorageKeyError> {
    let keys = StoragePurpose::Manifest.keys();
    let Some(bucket) = parse_bucket(members, keys)? else { return Ok(None) };
    let access = parse_access(members, keys)?.ok_or_else(|| keys.missing(keys.endpoint))?;
    Ok(Some(StorageTarget { access, bucket }))
}

/// Reads where state images are kept; `None` where nothing is said of it.
pub(crate) fn parse_state_storage(
    members: &Members,
) -> Result<Option<StateStorage>, StorageKeyError> {
    let keys = StoragePurpose::State.keys();
    let bucket = parse_bucket(members, keys)?;
    match parse_access(members, keys)? {
        Some(access) => Ok(Some(StateStorage { access, bucket })),
        None if bucket.is_some() => Err(keys.missing(keys.endpoint)),
        None => Ok(None),
    }
}

/// Returns the key that stands for this one where this one is absent: `COS_X` for `MANIFEST_COS_X` and
/// `STATE_COS_X`. Bucket names have none.
pub fn shared_storage_key(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("MANIFEST_").or_else(|| key.strip_prefix("STATE_"))?;
    rest.starts_with("COS_").then_some(rest)
}

fn parse_bucket(members: &Members, keys: &Keys) -> Result<Option<BucketName>, StorageKeyError> {
    let name = text(members, keys.bucket)?;
    name.map(BucketName::parse).transpose().map_err(at(keys.bucket))
}

/// Reads how to get in. It is either there or not at all: half of it is a mistake that is better told
/// at once than when the first manifest is to be kept.
fn parse_access(members: &Members, keys: &Keys) -> Result<Option<StorageAccess>, StorageKeyError> {
    let all = [
        keys.endpoint,
        keys.access_key_id,
        keys.secret_access_key,
        keys.api_key,
        keys.auth_endpoint,
        keys.resource_crn,
    ];
    if !all.iter().any(|key| value(members, key).is_some()) {
        return Ok(None);
    }
    let endpoint = required(members, keys, keys.endpoint)?;
    let endpoint = StorageEndpoint::parse(endpoint, EndpointPath::None)
        .ok_or(ParseStorageError::Endpoint)
        .map_err(at(keys.endpoint))?;
    let region = plain(members, keys.region)?.unwrap_or(DEFAULT_REGION).to_owned();
    Ok(Some(StorageAccess { credentials: parse_credentials(members, keys)?, endpoint, region }))
}

fn parse_credentials(
    members: &Members,
    keys: &Keys,
) -> Result<StorageCredentials, StorageKeyError> {
    let given = |key| value(members, key).is_some();
    let secret = |key| required(members, keys, key).map(|text| SecretText::new(text.to_owned()));
    let pair = given(keys.access_key_id) || given(keys.secret_access_key);
    // An authentication endpoint or a CRN without a key says nothing of who we are.
    if pair && given(keys.api_key) {
        return Err(at(keys.access_key_id)(ParseStorageError::TwoAccesses));
    }
    if pair {
        let id = required(members, keys, keys.access_key_id)?.to_owned();
        return Ok(StorageCredentials::AccessKey { id, secret: secret(keys.secret_access_key)? });
    }
    let any_of_ibm = [keys.api_key, keys.auth_endpoint, keys.resource_crn].into_iter().any(given);
    if !any_of_ibm {
        return Err(at(keys.access_key_id)(ParseStorageError::NoAccess));
    }
    let api_key = secret(keys.api_key)?;
    let auth_endpoint = plain(members, keys.auth_endpoint)?.unwrap_or(DEFAULT_AUTH_ENDPOINT);
    let auth_endpoint = StorageEndpoint::parse(auth_endpoint, EndpointPath::Any)
        .ok_or(ParseStorageError::AuthEndpoint)
        .map_err(at(keys.auth_endpoint))?;
    let instance = plain(members, keys.resource_crn)?;
    let instance = instance.map(|text| SecretText::new(text.to_owned()));
    Ok(StorageCredentials::IbmApiKey { api_key, auth_endpoint, instance })
}

/// The keys of one purpose.
struct Keys {
    access_key_id: &'static str,
    api_key: &'static str,
    auth_endpoint: &'static str,
    bucket: &'static str,
    endpoint: &'static str,
    region: &'static str,
    resource_crn: &'static str,
    secret_access_key: &'static str,
}

impl Keys {
    fn missing(&self, key: &'static str) -> StorageKeyError {
        at(key)(ParseStorageError::Missing { bucket: self.bucket })
    }
}

impl StoragePurpose {
    fn keys(self) -> &'static Keys {
        match self {
            Self::Manifest => &MANIFEST,
            Self::State => &STATE,
        }
    }
}

const MANIFEST: Keys = Keys {
    access_key_id: key::MANIFEST_COS_ACCESS_KEY_ID,
    api_key: key::MANIFEST_COS_API_KEY_ID,
    auth_endpoint: key::MANIFEST_COS_AUTH_ENDPOINT,
    bucket: key::MANIFEST_BUCKET_NAME,
    endpoint: key::MANIFEST_COS_ENDPOINT,
    region: key::MANIFEST_COS_REGION,
    resource_crn: key::MANIFEST_COS_RESOURCE_CRN,
    secret_access_key: key::MANIFEST_COS_SECRET_ACCESS_KEY,
};

const STATE: Keys = Keys {
    access_key_id: key::STATE_COS_ACCESS_KEY_ID,
    api_key: key::STATE_COS_API_KEY_ID,
    auth_endpoint: key::STATE_COS_AUTH_ENDPOINT,
    bucket: key::STATE_BUCKET_NAME,
    endpoint: key::STATE_COS_ENDPOINT,
    region: key::STATE_COS_REGION,
    resource_crn: key::STATE_COS_RESOURCE_CRN,
    secret_access_key: key::STATE_COS_SECRET_ACCESS_KEY,
};

fn value<'a>(members: &'a Members, key: &'static str) -> Option<&'a Value> {
    members.value(key).or_else(|| members.value(shared_storage_key(key)?))
}

fn text<'a>(members: &'a Members, key: &'static str) -> Result<Option<&'a str>, StorageKeyError> {
    match value(members, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(at(key)(ParseStorageError::Value)),
    }
}

/// Reads a text that will stand in the head of a request.
fn plain<'a>(members: &'a Members, key: &'static str) -> Result<Option<&'a str>, StorageKeyError> {
    let text = text(members, key)?;
    let good = |text: &str| {
        text.len() <= MAX_VALUE_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if text.is_some_and(|text| !good(text)) {
        return Err(at(key)(ParseStorageError::Value));
    }
    Ok(text)
}

fn required<'a>(
    members: &'a Members,
    keys: &Keys,
    key: &'static str,
) -> Result<&'a str, StorageKeyError> {
    plain(members, key)?.ok_or_else(|| keys.missing(key))
}

fn at(key: &'static str) -> impl FnOnce(ParseStorageError) -> StorageKeyError {
    move |source| StorageKeyError { key, source }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum EndpointPath {
    Any,
    None,
}

/// Which key of an object storage is wrong, and why. It never repeats a value.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{key}: {source}")]
pub struct StorageKeyError {
    /// The key; its `COS_` form may stand for it.
    pub key: &'static str,
    /// Why.
    pub source: ParseStorageError,
}

/// Why a value is not what an object storage needs. It never repeats the value.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseStorageError {
    /// The URL of the token service is malformed.
    #[error("must be the URL of the token service, such as `https://iam.cloud.ibm.com/oidc/token`")]
    AuthEndpoint,

    /// The name of the bucket is malformed.
    #[error(
        "must be the name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens, with \
         a letter or digit at both ends, and no address"
    )]
    Bucket,

    /// The URL of the storage is malformed.
    #[error("must be `https://` and the host of the storage, without user, path or query")]
    Endpoint,

    /// Something that belongs to the rest is not there.
    #[error("is missing; {bucket} and the other COS keys cannot be used without it")]
    Missing {
        /// The key of the bucket.
        bucket: &'static str,
    },

    /// Nothing says who we are.
    #[error("is missing; set it with its SECRET_ACCESS_KEY, or set API_KEY_ID in its place")]
    NoAccess,

    /// The exchange would not be encrypted.
    #[error(
        "must begin with `https://`: over http, data and keys can be read on the way; the operator \
         of the server can allow it for tests"
    )]
    Plaintext,

    /// Two ways to get in are set.
    #[error("is set, and API_KEY_ID too; remove one of them")]
    TwoAccesses,

    /// The value cannot stand in a request.
    #[error("must be a string of at most 2048 printable ASCII characters without spaces")]
    Value,
}

/// The token service of IBM Cloud, as the original's guides name it.
const DEFAULT_AUTH_ENDPOINT: &str = "https://iam.cloud.ibm.com/oidc/token";

/// Signing needs a region; storages that have none take this one.
const DEFAULT_REGION: &str = "us-east-1";

/// A CRN has under 200 characters, an API key under 100.
const MAX_VALUE_BYTES: usize = 2048;

#[cfg(test)]
mod tests;
