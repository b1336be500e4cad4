//! Pushing a blob: one stream, taken up where it was cut.

use http::header::{CONNECTION, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use http::{HeaderName, Method};
use reqwest::Response;
use sbs_proto::{Digest, Repository};
use tokio::time::timeout;
use url::Url;

use super::Session;
use super::auth::{Access, Scope};
use super::blob::BlobSource;
use super::error::{Fault, RegistryError, Retry, TransportError};
use super::transport::{Attempts, Call, Payload, Sent};

impl Session {
    /// Pushes a blob unless the repository has it.
    ///
    /// The registry checks the digest before it accepts the blob. An upload that is cut goes on
    /// from what the registry says it has; with one that cannot say (distribution 2.8 among them)
    /// the blob begins anew.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
        source: &BlobSource<'_>,
    ) -> Result<(), RegistryError> {
        let scope = Scope { repository, access: Access::Push };
        if self.has_blob_for(scope, digest).await? {
            return Ok(());
        }
        let limit = self.limits().transfer;
        let session = self;
        let (at, have, resent, resumed) = (None, 0, 0, false);
        let pace = Pace::Whole;
        let upload =
            Upload { session, scope, digest, size, source, at, have, pace, resent, resumed };
        timeout(limit, upload.run()).await.unwrap_or_else(|_elapsed| {
            Err(RegistryError::TimeLimit { host: self.host().to_owned(), seconds: limit.as_secs() })
        })
    }

    /// Compares the digest that the registry says it stored, if it says one, with ours.
    pub(super) fn check_stored(
        &self,
        response: &Response,
        what: &'static str,
        expected: Digest,
    ) -> Result<(), RegistryError> {
        let Some(value) = response.headers().get(DOCKER_CONTENT_DIGEST) else { return Ok(()) };
        let stored = value.to_str().ok().and_then(|text| Digest::parse(text).ok());
        let actual = stored.ok_or_else(|| self.malformed("a digest that is no SHA-256 digest"))?;
        if actual == expected {
            return Ok(());
        }
        Err(RegistryError::DigestMismatch { host: self.host().to_owned(), what, expected, actual })
    }
}

/// How much of a blob goes in one request.
///
/// What a cut loses is what was on the way, in buffers too. Where connections are cut again and
/// again, pieces that get through whole lose nothing.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// So many bytes, each time over a connection of its own; `through` such pieces got through.
    Pieces { bytes: u64, through: u32 },
    /// All that is left, as long as no connection was cut.
    Whole,
}

impl Pace {
    /// Slows down after a connection that was cut when so many bytes had got through.
    fn after(progress: u64) -> Self {
        Self::Pieces { bytes: (progress / 4 * 3).max(MIN_PIECE_BYTES), through: 0 }
    }

    /// Returns how many of the bytes that are left go next.
    fn next(self, left: u64) -> u64 {
        match self {
            Self::Pieces { bytes, .. } => bytes.min(left),
            Self::Whole => left,
        }
    }

    /// Notes that a piece got through: after some the pieces are larger.
    fn succeeded(&mut self) {
        if let Self::Pieces { bytes, through } = self {
            *through += 1;
            if *through == PIECES_BEFORE_MORE {
                *self = Self::Pieces { bytes: bytes.saturating_mul(2), through: 0 };
            }
        }
    }
}

struct Upload<'a> {
    session: &'a Session,
    scope: Scope<'a>,
    digest: Digest,
    size: u64,
    source: &'a BlobSource<'a>,
    /// Where the registry wants the rest; `None` before an upload is begun.
    at: Option<Url>,
    /// Bytes that the registry has.
    have: u64,
    pace: Pace,
    /// Bytes that were sent and lost.
    resent: u64,
    /// The upload was taken up again.
    resumed: bool,
}

impl Upload<'_> {
    async fn run(mut self) -> Result<(), RegistryError> {
        let mut attempts = Attempts::new(self.session);
        let mut furthest = 0;
        loop {
            let (sent, began) = (Sent::default(), self.have);
            let Err(fault) = self.attempt(&sent).await else { return Ok(()) };
            attempts.pause(fault).await?;
            let reached = began + sent.bytes();
            self.find_out().await?;
            if self.at.is_none() && self.session.has_blob_for(self.scope, self.digest).await? {
                // Only the answer was lost.
                return Ok(());
            }
            if self.have > furthest {
                self.pace = Pace::after(self.have - furthest);
                furthest = self.have;
                attempts.progressed();
            }
            self.resent += reached.saturating_sub(self.have);
            if self.resent > self.size.saturating_mul(2).saturating_add(RESENT_BYTES) {
                let source = TransportError::new("the blob was lost on the way more than twice");
                return Err(Fault::interrupted(self.session.host().to_owned(), source).error);
            }
        }
    }

    /// Does what is left to do: begins an upload, sends the rest, closes it.
    async fn attempt(&mut self, sent: &Sent) -> Result<(), Fault> {
        let session = self.session;
        if self.at.is_none() {
            let url = session.url(&format!("{}/blobs/uploads/", self.scope.repository))?;
            let call = Call::new(Method::POST, url.clone(), self.scope);
            let response = session.once(&call).await?;
            if response.status() != http::StatusCode::ACCEPTED {
                return Err(session.refusal(response, "repository").await);
            }
            self.at = Some(session.location(&response, &url)?);
        }
        while self.have < self.size {
            self.send_piece(sent).await?;
        }
        let mut url = self.at()?;
        url.query_pairs_mut().append_pair("digest", &self.digest.to_string());
        let mut call = Call::new(Method::PUT, url, self.scope);
        call.headers.insert(CONTENT_TYPE, OCTET_STREAM);
        let response = session.once(&call).await?;
        match response.status().as_u16() {
            201 => Ok(session.check_stored(&response, "blob", self.digest)?),
            _ => Err(self.lost(response).await),
        }
    }

    async fn send_piece(&mut self, sent: &Sent) -> Result<(), Fault> {
        let (session, at) = (self.session, self.at()?);
        let bytes = self.pace.next(self.size - self.have);
        let mut call = Call::new(Method::PATCH, at.clone(), self.scope);
        call.headers.insert(CONTENT_TYPE, OCTET_STREAM);
        // A whole blob goes as one stream, the form that every registry takes; only what is taken
        // up again says where it belongs.
        if bytes < self.size {
            let last = self.have + bytes - 1;
            let range = HeaderValue::from_str(&format!("{}-{last}", self.have));
            let range = range.map_err(|_| RegistryError::Internal("a range is no header value"))?;
            call.headers.insert(CONTENT_RANGE, range);
        }
        let (source, offset) = (self.source, self.have);
        if matches!(self.pace, Pace::Pieces { .. }) {
            // A connection that is cut after so many bytes would be cut in the next piece.
            call.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        call.payload = Payload::Blob { source, offset, bytes, sent: sent.clone() };
        let response = session.once(&call).await?;
        if !matches!(response.status().as_u16(), 201 | 202 | 204) {
            return Err(self.lost(response).await);
        }
        self.at = Some(session.location(&response, &at)?);
        self.have += bytes;
        self.pace.succeeded();
        Ok(())
    }

    /// Judges an answer that says that the upload is not as we think it is.
    async fn lost(&mut self, response: Response) -> Fault {
        let status = response.status().as_u16();
        let mut fault = self.session.refusal(response, "upload").await;
        // 404: the registry forgot the upload; 416: it has another part of it. 400 after a resumed
        // upload: it put the parts together in another way.
        if matches!(status, 404 | 416) || (status == 400 && self.resumed) {
            fault.retry = Retry::After(None);
            self.resumed = false;
            if status != 416 {
                self.at = None;
            }
        }
        fault
    }

    /// Asks the registry how much of the upload it has; the upload begins anew where that cannot
    /// be known.
    async fn find_out(&mut self) -> Result<(), RegistryError> {
        self.have = 0;
        let Some(at) = self.at.take() else { return Ok(()) };
        let call = Call::new(Method::GET, at.clone(), self.scope);
        let response = self.session.call(&call).await?;
        if !matches!(response.status().as_u16(), 200 | 202 | 204) {
            return Ok(());
        }
        let range = response.headers().get(RANGE).and_then(|value| value.to_str().ok());
        // `0-0` stands for one byte and, with some registries, for none.
        if let Some(last) = range.and_then(last_byte).filter(|last| (1..self.size).contains(last)) {
            self.have = last + 1;
            self.resumed = true;
            // The address can hold the state of the upload; the newest one counts.
            self.at = Some(self.session.location(&response, &at).unwrap_or(at));
        }
        Ok(())
    }

    fn at(&self) -> Result<Url, RegistryError> {
        self.at.clone().ok_or(RegistryError::Internal("an upload was not begun"))
    }
}

/// Parses the `0-<last>` of an upload's Range, in which `bytes=` is not called for but seen.
fn last_byte(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    range.strip_prefix("0-")?.parse().ok()
}

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// A connection that carries less is of no use.
const MIN_PIECE_BYTES: u64 = 16 * 1024;
const PIECES_BEFORE_MORE: u32 = 8;
/// Bytes that may be sent again beyond twice the size of a blob, so that small ones have some tries.
const RESENT_BYTES: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_range_of_an_upload() {
        for (text, last) in [
            ("0-0", Some(0)),
            ("0-1023", Some(1023)),
            ("bytes=0-7", Some(7)),
            ("5-7", None),
            ("0-", None),
            ("0--1", None),
            ("0-99999999999999999999999", None),
            ("", None),
        ] {
            assert_eq!(last_byte(text), last, "{text}");
        }
    }
}
