//! Blobs: read with digest and size checked while they stream.

use std::io::SeekFrom;
use std::path::Path;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::Method;
use http::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Body, Response};
use sbs_crypto::Sha256;
use sbs_proto::{Digest, Repository};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::Session;
use super::auth::{Access, Scope};
use super::document::Descriptor;
use super::error::{Fault, RegistryError, Retry};
use super::transport::{Attempts, Call, Sent};

/// Where the bytes of a blob are that is pushed.
#[derive(Clone, Debug)]
pub enum BlobSource<'a> {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(&'a Path),
}

impl BlobSource<'_> {
    /// Makes the body of a request from `bytes` bytes at `offset`.
    pub(super) async fn body(&self, offset: u64, bytes: u64, sent: &Sent) -> Result<Body, Fault> {
        match self {
            Self::Bytes(all) => {
                let range = usize::try_from(offset).ok().zip(usize::try_from(bytes).ok());
                let part = range.and_then(|(offset, bytes)| all.get(offset..offset + bytes));
                let part =
                    part.ok_or(RegistryError::Internal("a blob is shorter than its size"))?;
                sent.add(part.len());
                Ok(Body::from(all.slice_ref(part)))
            }
            Self::File(path) => {
                let failed = |source| RegistryError::Local { what: "a blob", source };
                let mut file = File::open(path).await.map_err(failed)?;
                file.seek(SeekFrom::Start(offset)).await.map_err(failed)?;
                let stream = ReaderStream::with_capacity(file.take(bytes), READ_BYTES);
                let sent = sent.clone();
                Ok(Body::wrap_stream(stream.inspect_ok(move |chunk| sent.add(chunk.len()))))
            }
        }
    }
}

impl Session {
    /// Fetches a blob into `writer`; its digest and size are checked.
    ///
    /// What was written before an error is not to be used. A connection that is cut is taken up
    /// where it ended.
    pub async fn blob_to(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        writer: &mut (impl AsyncWrite + Send + Unpin),
    ) -> Result<(), RegistryError> {
        let limit = self.limits().transfer;
        let fetch =
            Download { session: self, repository, blob, writer, have: 0, hash: Sha256::new() };
        timeout(limit, fetch.run()).await.unwrap_or_else(|_elapsed| {
            Err(RegistryError::TimeLimit { host: self.host().to_owned(), seconds: limit.as_secs() })
        })
    }

    /// Fetches a blob of at most `max_bytes` into memory; its digest and size are checked.
    pub async fn blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        max_bytes: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        if blob.size > max_bytes {
            let host = self.host().to_owned();
            return Err(RegistryError::TooLarge { host, what: "blob", max_bytes });
        }
        let mut bytes = Vec::new();
        self.blob_to(repository, blob, &mut bytes).await?;
        Ok(bytes)
    }

    /// Tells whether the repository has a blob.
    pub async fn has_blob(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        self.has_blob_for(Scope { repository, access: Access::Pull }, digest).await
    }

    pub(super) async fn has_blob_for(
        &self,
        scope: Scope<'_>,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let url = self.url(&format!("{}/blobs/{digest}", scope.repository))?;
        let response = self.call(&Call::new(Method::HEAD, url, scope)).await?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refusal(response, "blob").await.error),
        }
    }
}

struct Download<'a, W> {
    session: &'a Session,
    repository: &'a Repository,
    blob: &'a Descriptor,
    writer: &'a mut W,
    /// Bytes that are written and hashed.
    have: u64,
    hash: Sha256,
}

impl<W: AsyncWrite + Send + Unpin> Download<'_, W> {
    async fn run(mut self) -> Result<(), RegistryError> {
        let mut attempts = Attempts::new(self.session);
        loop {
            let before = self.have;
            let Err(fault) = self.attempt().await else { break };
            if self.have == self.blob.size && fault.retry != Retry::Never {
                break;
            }
            if self.have > before {
                attempts.progressed();
            }
            attempts.pause(fault).await?;
        }
        self.writer.flush().await.map_err(local)?;
        let actual = self.hash.finish();
        if actual == self.blob.digest {
            return Ok(());
        }
        let host = self.session.host().to_owned();
        let expected = self.blob.digest;
        Err(RegistryError::DigestMismatch { host, what: "blob", expected, actual })
    }

    async fn attempt(&mut self) -> Result<(), Fault> {
        let (session, repository) = (self.session, self.repository);
        let url = session.url(&format!("{repository}/blobs/{}", self.blob.digest))?;
        let scope = Scope { repository, access: Access::Pull };
        let mut call = Call::new(Method::GET, url, scope);
        if self.have > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.have));
            let range = range.map_err(|_| RegistryError::Internal("a range is no header value"))?;
            call.headers.insert(RANGE, range);
        }
        let mut response = session.once(&call).await?;
        let mut skip = match response.status().as_u16() {
            206 if self.have > 0 && starts_at(&response, self.have) => 0,
            200 => self.have,
            206 => return Err(session.malformed("a part that was not asked for").into()),
            _ => return Err(session.refusal(response, "blob").await),
        };
        let coming = self.blob.size - self.have + skip;
        if response.content_length().is_some_and(|bytes| bytes != coming) {
            return Err(self.size_mismatch());
        }
        while let Some(chunk) = session.chunk(&mut response).await? {
            let skipped = usize::try_from(skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
            skip -= skipped as u64;
            self.take(chunk.get(skipped..).unwrap_or_default()).await?;
        }
        // A connection that is cut shows as an error: what ends here was meant to end here.
        if self.have == self.blob.size { Ok(()) } else { Err(self.size_mismatch()) }
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() as u64 > self.blob.size - self.have {
            return Err(self.size_mismatch());
        }
        self.writer.write_all(bytes).await.map_err(local)?;
        self.hash.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    fn size_mismatch(&self) -> Fault {
        let host = self.session.host().to_owned();
        let expected = self.blob.size;
        Fault {
            error: RegistryError::SizeMismatch { host, what: "blob", expected },
            retry: Retry::Never,
        }
    }
}

/// Tells whether the answer is the part of a blob that begins at `offset` (RFC 9110, 14.4).
fn starts_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

fn local(source: std::io::Error) -> RegistryError {
    RegistryError::Local { what: "a blob", source }
}

const READ_BYTES: usize = 128 * 1024;
