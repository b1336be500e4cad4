//! Downloads of manifests: in constant memory, resumed where a connection was cut, checked against
//! the digest that the server announced.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use sbs_crypto::Sha256;
use sbs_proto::v2::{self, FileKind, Selector, StoredFile};
use sbs_proto::{BuildSelector, DefinitionName, ManifestName, route};
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::client::selector;
use crate::observer::Event;
use crate::original::{Decoded, Keys, ReplyDecoder};
use crate::{CallError, Client, limits};

/// In which form a manifest is fetched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ManifestForm {
    /// With the source, `.sig.tbz`.
    Full,
    /// Without what the source's own repository brings again, `.thin.sig.tar.zst`.
    Thin,
}

/// What a server says that it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Offer {
    /// A file that it tells everything of: for [`Client::download`].
    Described(DescribedManifest),
    /// The server speaks v1 alone and tells nothing beforehand: for [`Client::download_v1`].
    Undescribed,
}

/// A manifest that a server has, as it tells. The name has the form of one; whether the manifest is
/// genuine is not decided here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DescribedManifest {
    /// Its name, a safe file name without extension.
    pub name: ManifestName,
    /// Its digest and length.
    pub file: StoredFile,
    route: String,
}

/// What is there of a file that is being downloaded.
#[derive(Clone)]
pub struct Received {
    hash: Sha256,
    length: u64,
}

impl Received {
    /// Nothing yet.
    pub fn nothing() -> Self {
        Self { hash: Sha256::new(), length: 0 }
    }

    /// What an earlier download left.
    pub fn read(mut part: impl Read) -> io::Result<Self> {
        let mut received = Self::nothing();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match part.read(&mut piece) {
                Ok(0) => return Ok(received),
                Ok(count) => received.add(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the number of bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Tells whether this is the whole file.
    pub fn is(&self, file: &StoredFile) -> bool {
        self.length == file.size && self.hash.clone().finish() == file.digest
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Client {
    /// Asks for the manifest of a build. A manifest over the limit is refused before a byte is sent.
    pub async fn find_manifest(
        &self,
        build: &Selector,
        form: ManifestForm,
    ) -> Result<Offer, CallError> {
        if self.info().await?.is_none() {
            return match (form, build) {
                (_, Selector::Id(_)) => Err(CallError::Unavailable { what: "builds by number" }),
                (ManifestForm::Full, _) => Ok(Offer::Undescribed),
                (ManifestForm::Thin, _) => Err(CallError::Unavailable { what: "thin manifests" }),
            };
        }
        let definition = DefinitionName::default_name();
        let asked = build;
        let build = self.describe_build(asked).await?;
        if matches!(asked, Selector::Id(id) if id.number() != build.id.number()) {
            return Err(CallError::UnexpectedReply { what: "it is of another build" });
        }
        let (kind, file, what) = match form {
            ManifestForm::Full => (FileKind::Manifest, build.manifest, "that manifest"),
            ManifestForm::Thin => {
                (FileKind::ThinManifest, build.thin_manifest, "a thin manifest of that build")
            }
        };
        let (Some(file), Some(name)) = (file, build.build_name) else {
            return Err(CallError::Unavailable { what });
        };
        let limit = self.settings().manifest_limit;
        if file.size > limit {
            return Err(CallError::TooLarge { limit });
        }
        // By its number: while it is downloaded another build can become the latest.
        let route = v2::file(&definition, &Selector::Id(build.id), kind);
        Ok(Offer::Described(DescribedManifest { name: name.manifest_name(), file, route }))
    }

    /// Downloads a manifest to its end, from where `received` stands: `sink` takes what is missing.
    ///
    /// A cut connection is made again, a bounded number of times in a row, and the download goes
    /// on. Without an error the file has the length and the digest that were announced. After one,
    /// what `sink` took is the beginning of the file, unless the error is [`DownloadError::Digest`].
    pub async fn download(
        &self,
        manifest: &DescribedManifest,
        mut received: Received,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), DownloadError> {
        let deadline = Instant::now() + self.settings().download_timeout;
        let mut failures = 0;
        while received.length < manifest.file.size {
            let before = received.length;
            let cause = match self.go_on(manifest, &mut received, sink, deadline).await {
                // The body ended as bodies do, and perhaps too early.
                Ok(()) => None,
                Err(DownloadError::Call(error)) if may_pass(&error) => Some(error),
                Err(error) => return Err(error),
            };
            if received.length == manifest.file.size {
                break;
            }
            if received.length - before >= PROGRESS_BYTES {
                failures = 0;
            }
            failures += 1;
            let bytes = received.length;
            let pause = pause_after(failures);
            if failures >= self.settings().download_attempts || Instant::now() + pause >= deadline {
                return Err(DownloadError::GaveUp { bytes, source: cause });
            }
            self.settings().observer.tell(&Event::Cut { bytes, pause });
            tokio::time::sleep(pause).await;
        }
        sink.flush().await.map_err(|source| DownloadError::Write { source })?;
        if received.is(&manifest.file) { Ok(()) } else { Err(DownloadError::Digest) }
    }

    /// Downloads the manifest of a build over v1, which tells nothing of it beforehand: neither its
    /// digest is checked nor can the download go on after a cut.
    pub async fn download_v1(
        &self,
        build: &BuildSelector,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ManifestName, DownloadError> {
        let time = self.settings().download_timeout;
        let response = self.send_v1(route::MANIFEST, selector(build), time);
        let response = self.observed(&Method::GET, route::MANIFEST, &[StatusCode::OK], response);
        let response = response.await?;
        let limit = self.settings().manifest_limit;
        let decoded = self.decode_v1(response, Keys::MANIFEST, limit, sink).await?;
        let name = ManifestName::parse(&decoded.name).map_err(|_| CallError::UnexpectedReply {
            what: "`manifest_name` is not the name of a manifest",
        });
        Ok(name?)
    }

    /// Reads a v1 reply that holds a file, of at most `limit` bytes, into `sink`.
    pub(crate) async fn decode_v1(
        &self,
        mut response: Response,
        keys: Keys,
        limit: u64,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Decoded, DownloadError> {
        let too_large = || CallError::TooLarge { limit };
        let total = response.content_length();
        // What base64 makes of the limit, and some for the rest of the object.
        let encoded = limit.div_ceil(3).saturating_mul(4).saturating_add(limits::REPLY_BYTES);
        if total.is_some_and(|total| total > encoded) {
            return Err(too_large().into());
        }
        let (mut decoder, mut out) = (ReplyDecoder::new(keys), Vec::new());
        let (mut bytes, mut written) = (0, 0);
        while let Some(chunk) = response.chunk().await.map_err(CallError::from_transport)? {
            decoder.push(&chunk, &mut out)?;
            written += out.len() as u64;
            if written > limit {
                return Err(too_large().into());
            }
            sink.write_all(&out).await.map_err(|source| DownloadError::Write { source })?;
            out.clear();
            bytes += chunk.len() as u64;
            self.settings().observer.tell(&Event::Downloaded { bytes, total });
        }
        sink.flush().await.map_err(|source| DownloadError::Write { source })?;
        Ok(decoder.finish()?)
    }

    /// Makes one request for what is missing, and reads what comes.
    async fn go_on(
        &self,
        manifest: &DescribedManifest,
        received: &mut Received,
        sink: &mut (impl AsyncWrite + Unpin),
        deadline: Instant,
    ) -> Result<(), DownloadError> {
        let mut headers = HeaderMap::new();
        let tag = manifest.file.entity_tag();
        if received.length > 0 {
            let put = |name: HeaderName, value: String, headers: &mut HeaderMap| {
                // Digits and hex digits: always a value.
                value.parse().ok().and_then(|value| headers.insert(name, value));
            };
            put(RANGE, format!("bytes={}-", received.length), &mut headers);
            put(IF_RANGE, tag.clone(), &mut headers);
        }
        let time = deadline.saturating_duration_since(Instant::now());
        let response = self.send_v2(&manifest.route, None, headers, time);
        let response = self.observed(&Method::GET, &manifest.route, &FILE_ANSWERS, response);
        let mut response = response.await?;
        let mut passed_over = check_head(&response, &manifest.file, &tag, received.length)?;
        while let Some(chunk) = response.chunk().await.map_err(CallError::from_transport)? {
            let known = usize::try_from(passed_over).unwrap_or(usize::MAX).min(chunk.len());
            passed_over -= known as u64;
            let new = chunk.get(known..).unwrap_or_default();
            if new.len() as u64 > manifest.file.size - received.length {
                return Err(DownloadError::Longer);
            }
            sink.write_all(new).await.map_err(|source| DownloadError::Write { source })?;
            received.add(new);
            let (bytes, total) = (received.length, Some(manifest.file.size));
            self.settings().observer.tell(&Event::Downloaded { bytes, total });
        }
        Ok(())
    }
}

/// Checks that a response is of the announced file and begins where it should; returns how many of
/// its first bytes are known already.
fn check_head(
    response: &Response,
    file: &StoredFile,
    tag: &str,
    received: u64,
) -> Result<u64, DownloadError> {
    let field = |name: &HeaderName| response.headers().get(name)?.to_str().ok();
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        return Err(DownloadError::Changed);
    }
    if field(&ETAG) != Some(tag) || repr_digest(response) != Some(*file.digest.as_bytes()) {
        return Err(DownloadError::Changed);
    }
    let part = response.status() == StatusCode::PARTIAL_CONTENT;
    if part {
        let expected = format!("bytes {received}-{}/{}", file.size - 1, file.size);
        if received == 0 || field(&CONTENT_RANGE) != Some(&expected) {
            let what = "it is another part of the file than was asked for";
            return Err(CallError::UnexpectedReply { what }.into());
        }
    }
    let expected = if part { file.size - received } else { file.size };
    match response.content_length() {
        Some(length) if length > expected => Err(DownloadError::Longer),
        Some(length) if length < expected => Err(DownloadError::Changed),
        // A server may answer with everything whatever is asked for (RFC 9110, 14.2).
        _ => Ok(if part { 0 } else { received }),
    }
}

/// Returns the SHA-256 digest in the field `Repr-Digest` (RFC 9530).
pub(crate) fn repr_digest(response: &Response) -> Option<[u8; 32]> {
    use base64::Engine as _;
    let value = response.headers().get("repr-digest")?.to_str().ok()?;
    let items = value.split(',').map(str::trim);
    let mut digests = items.filter_map(|item| item.strip_prefix("sha-256=:")?.strip_suffix(':'));
    let digest = base64::engine::general_purpose::STANDARD.decode(digests.next()?).ok()?;
    digest.try_into().ok()
}

/// Tells whether another attempt can succeed where this one failed.
fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::Lost { .. } | CallError::TimedOut { .. } | CallError::Unreachable { .. } => true,
        CallError::Refused { status, .. } => matches!(status, 502..=504),
        _ => false,
    }
}

/// Returns the pause after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let doubled = limits::FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(limits::LONGEST_PAUSE)
}

/// Why a download did not come to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The server was not reached, or said no.
    #[error(transparent)]
    Call(#[from] CallError),

    /// The server has another file there than the one it announced.
    #[error("the server has another file there than the one that it announced")]
    Changed,

    /// The file is complete, and not the one that was announced: what was received is of no use.
    #[error("what was received does not have the digest that the server announced")]
    Digest,

    /// The connection was cut too often, or everything took too long.
    #[error("the download was cut again and again; {bytes} bytes were received")]
    GaveUp {
        /// The bytes of the file that are there.
        bytes: u64,
        /// What happened last, unless the server ended its answer too early.
        source: Option<CallError>,
    },

    /// The server sends more than it announced.
    #[error("the server sends more bytes than it announced")]
    Longer,

    /// The sink took no more.
    #[error("what is received cannot be written")]
    Write {
        /// Why.
        source: io::Error,
    },
}

const FILE_ANSWERS: [StatusCode; 3] =
    [StatusCode::OK, StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE];
/// What a connection must bring to count as one that works.
const PROGRESS_BYTES: u64 = 64 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = (1..=8).map(|failures| pause_after(failures).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(pause_after(u32::MAX), limits::LONGEST_PAUSE);
    }

    #[test]
    fn what_was_received_is_the_file_or_is_not() {
        let digest = sbs_crypto::digest(b"abcdef");
        for (part, expected) in [("abcdef", true), ("abcde", false), ("abcdeF", false)] {
            let received = Received::read(part.as_bytes()).unwrap();
            assert_eq!(received.is(&StoredFile { digest, size: 6 }), expected, "{part}");
        }
    }
}
