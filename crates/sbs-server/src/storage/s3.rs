//! A bucket behind the S3 API.

use std::io;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::client::{HttpClient, HttpConnector, HttpService};
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, ClientOptions, GetResult, MultipartUpload, ObjectMeta, ObjectStoreExt as _,
    PutPayload, RetryConfig,
};
use sbs_crypto::Sha256;
use sbs_proto::{BucketName, SecretText, StorageAccess};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::storage::error::Place;
use crate::storage::transport::Transport;
use crate::storage::{FetchedObject, ObjectName, Storage, StorageError, StorageLimits};
use crate::store::move_into_place;

/// A bucket behind the S3 API.
#[derive(Debug)]
pub(super) struct S3Storage {
    bucket: BucketName,
    host: String,
    limits: StorageLimits,
    store: AmazonS3,
}

impl S3Storage {
    /// Opens a bucket by a key that signs every request, and with it every byte that is sent.
    pub(super) fn with_access_key(
        transport: Transport,
        access: &StorageAccess,
        bucket: &BucketName,
        (id, secret): (&str, &SecretText),
        limits: StorageLimits,
    ) -> Result<Self, StorageError> {
        let builder =
            AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret.expose());
        Self::open(builder, transport, access, bucket, limits)
    }

    /// Opens a bucket whose requests the service authenticates.
    pub(super) fn with_service(
        service: impl HttpService,
        access: &StorageAccess,
        bucket: &BucketName,
        limits: StorageLimits,
    ) -> Result<Self, StorageError> {
        let builder = AmazonS3Builder::new().with_skip_signature(true);
        Self::open(builder, service, access, bucket, limits)
    }

    fn open(
        builder: AmazonS3Builder,
        service: impl HttpService,
        access: &StorageAccess,
        bucket: &BucketName,
        limits: StorageLimits,
    ) -> Result<Self, StorageError> {
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: limits.first_pause,
                max_backoff: limits.longest_pause,
                base: 2.0,
            },
            max_retries: limits.attempts.saturating_sub(1),
            // A request keeps the time of its signature when it is repeated.
            retry_timeout: RETRY_TIME,
        };
        let store = builder
            .with_allow_http(true) // The connector decides.
            .with_bucket_name(bucket.as_str())
            .with_checksum_algorithm(Checksum::SHA256)
            .with_endpoint(access.endpoint.as_str())
            .with_http_connector(Connector(HttpClient::new(service)))
            .with_region(&access.region)
            .with_retry(retry)
            .with_virtual_hosted_style_request(false)
            .build()
            .map_err(|_| StorageError::Internal("a storage that cannot be opened"))?;
        let host = access.endpoint.host().to_owned();
        Ok(Self { bucket: bucket.clone(), host, limits, store })
    }

    fn place<'a>(&'a self, name: &'a str) -> Place<'a> {
        Place { bucket: self.bucket.as_str(), host: &self.host, name }
    }

    /// Gives a transfer the time it may take.
    async fn in_time<T>(
        &self,
        transfer: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let limit = self.limits.transfer;
        let late = || StorageError::TimeLimit { host: self.host.clone(), seconds: limit.as_secs() };
        tokio::time::timeout(limit, transfer).await.unwrap_or_else(|_| Err(late()))
    }

    async fn put_whole(
        &self,
        name: &ObjectName,
        file: File,
        size: u64,
    ) -> Result<(), StorageError> {
        let bytes = read_part(&mut { file }, size).await?;
        let put = self.store.put(&path(name), PutPayload::from(bytes)).await;
        put.map(drop).map_err(|error| self.place(name.as_str()).judge(&error))
    }

    async fn put_in_parts(
        &self,
        name: &ObjectName,
        file: File,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<(), StorageError> {
        let place = self.place(name.as_str());
        let at = path(name);
        let begun = tokio::select! {
            begun = self.store.put_multipart(&at) => begun.map_err(|error| place.judge(&error)),
            () = cancel.cancelled() => Err(StorageError::Cancelled),
        };
        let mut upload = begun?;
        let sent = tokio::select! {
            sent = self.in_time(send_parts(upload.as_mut(), file, size, place)) => sent,
            () = cancel.cancelled() => Err(StorageError::Cancelled),
        };
        if sent.is_err() {
            // What was sent is paid for until it is given up. That is tried once: the storage may
            // be what failed.
            let given_up = tokio::time::timeout(ABORT_TIME, upload.abort()).await;
            if !matches!(given_up, Ok(Ok(()))) {
                tracing::warn!(
                    bucket = %self.bucket, object = %name,
                    "parts of an upload are left in the bucket; a rule there can remove them"
                );
            }
        }
        sent
    }

    /// Writes an object to a file while it comes in.
    async fn receive(
        &self,
        name: &ObjectName,
        object: GetResult,
        out: &mut File,
        max_bytes: u64,
    ) -> Result<FetchedObject, StorageError> {
        let meta = object.meta.clone();
        let mut stream = object.into_stream();
        let mut hasher = Sha256::new();
        let mut bytes = 0_u64;
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => return Err(self.cut(name, &meta, &error).await),
            };
            bytes = bytes.saturating_add(chunk.len() as u64);
            if bytes > max_bytes.min(meta.size) {
                return Err(self.too_large(name, max_bytes));
            }
            hasher.update(&chunk);
            out.write_all(&chunk).await.map_err(local("the object's file"))?;
        }
        if bytes != meta.size {
            return Err(StorageError::Malformed { host: self.host.clone() });
        }
        out.sync_all().await.map_err(local("the object's file"))?;
        Ok(FetchedObject { bytes, digest: hasher.finish() })
    }

    /// Says why an object stopped coming in: it may be another one by now, of which the rest would
    /// not fit.
    async fn cut(
        &self,
        name: &ObjectName,
        begun: &ObjectMeta,
        error: &object_store::Error,
    ) -> StorageError {
        let place = self.place(name.as_str());
        match self.store.head(&path(name)).await {
            Ok(now) if now.e_tag == begun.e_tag && now.size == begun.size => place.judge(error),
            Ok(_) => {
                let bucket = self.bucket.to_string();
                StorageError::Changed { bucket, name: name.to_string() }
            }
            Err(_) => place.judge(error),
        }
    }

    fn too_large(&self, name: &ObjectName, max_bytes: u64) -> StorageError {
        StorageError::TooLarge {
            bucket: self.bucket.to_string(),
            name: name.to_string(),
            max_bytes,
        }
    }
}

#[async_trait]
impl Storage for S3Storage {
    async fn put_file(
        &self,
        name: &ObjectName,
        file: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), StorageError> {
        let file = File::open(file).await.map_err(local("the file to be sent"))?;
        let size = file.metadata().await.map_err(local("the file to be sent"))?.len();
        if size > PART_BYTES {
            return self.put_in_parts(name, file, size, cancel).await;
        }
        tokio::select! {
            put = self.in_time(self.put_whole(name, file, size)) => put,
            () = cancel.cancelled() => Err(StorageError::Cancelled),
        }
    }

    async fn fetch(
        &self,
        name: &ObjectName,
        to: &Path,
        max_bytes: u64,
    ) -> Result<FetchedObject, StorageError> {
        let directory = to.parent().ok_or(StorageError::Internal("a file without a directory"))?;
        let partial = tempfile::Builder::new().prefix(".new-").tempfile_in(directory);
        let (out, partial) = partial.map_err(local("the object's file"))?.into_parts();
        let mut out = File::from_std(out);
        let fetched = self
            .in_time(async {
                let object = self.store.get(&path(name)).await;
                let object = object.map_err(|error| self.place(name.as_str()).judge(&error))?;
                if object.meta.size > max_bytes {
                    return Err(self.too_large(name, max_bytes));
                }
                self.receive(name, object, &mut out, max_bytes).await
            })
            .await?;
        let kept =
            partial.keep().map_err(|error| error.error).map_err(local("the object's file"))?;
        move_into_place(&kept, to).map_err(local("the object's file"))?;
        Ok(fetched)
    }
}

/// Sends a file part by part. Only one part is in memory.
async fn send_parts(
    upload: &mut dyn MultipartUpload,
    mut file: File,
    size: u64,
    place: Place<'_>,
) -> Result<(), StorageError> {
    let mut left = size;
    while left > 0 {
        let part = read_part(&mut file, left.min(PART_BYTES)).await?;
        left = left.saturating_sub(part.len() as u64);
        let put = upload.put_part(PutPayload::from(part)).await;
        put.map_err(|error| place.judge(&error))?;
    }
    upload.complete().await.map(drop).map_err(|error| place.judge(&error))
}

/// Reads so many bytes; a file that ends before them was changed.
async fn read_part(file: &mut File, bytes: u64) -> Result<Bytes, StorageError> {
    let length = usize::try_from(bytes).map_err(|_| StorageError::Internal("a part too large"))?;
    let mut part = vec![0; length];
    file.read_exact(&mut part).await.map_err(local("the file to be sent"))?;
    Ok(part.into())
}

fn path(name: &ObjectName) -> ObjectPath {
    ObjectPath::from(name.as_str())
}

fn local(what: &'static str) -> impl Fn(io::Error) -> StorageError {
    move |source| StorageError::Local { what, source }
}

/// Gives `object_store` the connections that it is to use, whatever it thinks of them.
#[derive(Debug)]
struct Connector(HttpClient);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

/// Bytes of a part, and of the largest file that is sent in one piece. S3 wants 5 MiB at least and
/// takes 10,000 parts: 78 GiB.
const PART_BYTES: u64 = 8 * 1024 * 1024;

/// How long one request is repeated; storages take signatures of the last 15 minutes.
const RETRY_TIME: Duration = Duration::from_mins(5);

/// How long giving up an upload may take; the server may be about to stop.
const ABORT_TIME: Duration = Duration::from_secs(5);
