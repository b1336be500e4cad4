//! The server's state: exported and imported as a state image, which is sealed.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode};
use sbs_crypto::{Sha256, random_bytes};
use sbs_proto::state::{
    STATE_MEDIA_TYPE, StateExportRequest, StateImportReply, StateImportRequest, StateSource, form,
};
use sbs_proto::{BucketName, SecretText, StateImageName, StateSecret, route, v2};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::{InspectReader, ReaderStream};
use zeroize::Zeroizing;

use crate::client::accepted;
use crate::download::repr_digest;
use crate::observer::Event;
use crate::original::Keys;
use crate::{CallError, Client, DownloadError, body, limits};

/// What a server tells of a state image that it exported.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportedState {
    /// The tag that v1 tells, as it came; v2 tells it in the header of the state image.
    pub export_tag: Option<Value>,
    /// The name, a safe file name.
    pub name: StateImageName,
}

/// What an import needs besides the state image.
#[derive(Debug)]
pub struct StateImport {
    /// The lowest epoch that is accepted; only servers of ours heed it.
    pub min_epoch: Option<u64>,
    /// SECRET as it was when the state was exported.
    pub secret: StateSecret,
}

/// What a server tells of an import.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ImportedState {
    /// Whether the image definition of the state is now that of the server; v1 does not tell.
    pub definition: Option<bool>,
    /// The epoch of the server now; v1 does not tell.
    pub epoch: Option<u64>,
}

impl Client {
    /// Exports the server's state into `sink`, at most [`STATE_BYTES`](limits::STATE_BYTES).
    ///
    /// After an error, what `sink` took is of no use. Whether the state image opens is not decided
    /// here. Over v1, which tells no digest, what is cut is found by its JSON.
    pub async fn export_state(
        &self,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ExportedState, DownloadError> {
        let time = self.settings().download_timeout;
        let (method, ok) = (Method::GET, [StatusCode::OK]);
        if self.has_state_routes().await? {
            let response = self.send_v2(v2::STATE, None, HeaderMap::new(), time);
            let response = self.observed(&method, v2::STATE, &ok, response).await?;
            return self.receive_state(response, sink).await;
        }
        let body = StateExportRequest::default().to_members().expose_json().to_string();
        let response = self.send_v1(route::STATE_IMAGE, body, time);
        let response = self.observed(&method, route::STATE_IMAGE, &ok, response).await?;
        let decoded = self.decode_v1(response, Keys::STATE, limits::STATE_BYTES, sink).await?;
        Ok(ExportedState { export_tag: decoded.kept, name: parse_name(&decoded.name)? })
    }

    /// Has the server export its state into a bucket, with the credentials that it has.
    pub async fn export_state_to_bucket(
        &self,
        bucket: &BucketName,
    ) -> Result<ExportedState, CallError> {
        /// With a tag of any type, for nobody has said which type it has.
        #[derive(Deserialize)]
        struct Reply {
            export_tag: Option<Value>,
            name: String,
        }
        let request = StateExportRequest { bucket: Some(bucket.clone()) };
        let request = request.to_members().expose_json().to_string();
        let reply = self.late(Method::GET, route::STATE_IMAGE, request).await?;
        let Reply { export_tag, name } = body::parse_object(&reply)?;
        Ok(ExportedState { export_tag, name: parse_name(&name)? })
    }

    /// Imports a state image of `size` bytes, at most [`STATE_BYTES`](limits::STATE_BYTES), into a
    /// server that has no keys and no builds.
    ///
    /// It is read as it is sent; for a server without v2 it is held in memory, in base64.
    pub async fn import_state(
        &self,
        import: StateImport,
        size: u64,
        image: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<ImportedState, CallError> {
        if size > limits::STATE_BYTES {
            return Err(CallError::TooLarge { limit: limits::STATE_BYTES });
        }
        let observer = self.settings().observer.clone();
        let mut bytes = 0;
        let image = InspectReader::new(image.take(size), move |piece: &[u8]| {
            bytes += piece.len() as u64;
            observer.tell(&Event::Uploaded { bytes, total: size });
        });
        if self.has_state_routes().await? {
            let (headers, body) = multipart(&import, size, image);
            let reply = self.upload(v2::STATE, headers, body).await?;
            let reply: StateImportReply = body::parse_object(&reply)?;
            let (definition, epoch) = (Some(reply.definition), Some(reply.epoch));
            return Ok(ImportedState { definition, epoch });
        }
        self.import_v1(import, StateSource::Inline(encode(image, size).await?)).await
    }

    /// Has the server import a state image from a bucket, with the credentials that it has.
    pub async fn import_state_from_bucket(
        &self,
        import: StateImport,
        bucket: &BucketName,
        name: &StateImageName,
    ) -> Result<ImportedState, CallError> {
        let source = StateSource::Bucket { bucket: bucket.clone(), name: name.clone() };
        self.import_v1(import, source).await
    }

    async fn has_state_routes(&self) -> Result<bool, CallError> {
        let info = self.info().await?;
        Ok(info.is_some_and(|info| info.features.iter().any(|word| word == FEATURE)))
    }

    /// Reads a state image that comes by v2, and holds it against its digest.
    async fn receive_state(
        &self,
        mut response: Response,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ExportedState, DownloadError> {
        let name = parse_name(file_name(&response).unwrap_or_default())?;
        let announced = repr_digest(&response).ok_or(CallError::UnexpectedReply {
            what: "it has no SHA-256 digest in its field `Repr-Digest`",
        })?;
        let (limit, total) = (limits::STATE_BYTES, response.content_length());
        let too_large = || DownloadError::from(CallError::TooLarge { limit });
        if total.is_some_and(|total| total > limit) {
            return Err(too_large());
        }
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(CallError::from_transport)? {
            bytes += chunk.len() as u64;
            if bytes > limit {
                return Err(too_large());
            }
            hash.update(&chunk);
            sink.write_all(&chunk).await.map_err(|source| DownloadError::Write { source })?;
            self.settings().observer.tell(&Event::Downloaded { bytes, total });
        }
        sink.flush().await.map_err(|source| DownloadError::Write { source })?;
        if *hash.finish().as_bytes() != announced {
            return Err(DownloadError::Digest);
        }
        Ok(ExportedState { export_tag: None, name })
    }

    async fn import_v1(
        &self,
        import: StateImport,
        source: StateSource,
    ) -> Result<ImportedState, CallError> {
        let StateImport { min_epoch, secret } = import;
        let request = StateImportRequest { min_epoch, secret, source };
        let body = request.expose_members().expose_json().to_string();
        accepted(&self.late(Method::POST, route::STATE_IMAGE, body).await?)?;
        Ok(ImportedState { definition: None, epoch: None })
    }
}

fn parse_name(name: &str) -> Result<StateImageName, CallError> {
    StateImageName::parse(name).map_err(|_| CallError::UnexpectedReply {
        what: "it has no name of a state image that is safe as a file name",
    })
}

/// Returns the file name in the field `Content-Disposition` (RFC 6266), in the one form in which
/// names are sent that need no escapes.
fn file_name(response: &Response) -> Option<&str> {
    let value = response.headers().get(CONTENT_DISPOSITION)?.to_str().ok()?;
    value.strip_prefix("attachment; filename=\"")?.strip_suffix('"')
}

/// Makes the form that carries an import (RFC 7578), the state image last.
fn multipart(
    import: &StateImport,
    size: u64,
    image: impl AsyncRead + Send + Unpin + 'static,
) -> (HeaderMap, Body) {
    // No state image holds 128 random bits by chance.
    let boundary = format!("sbs-{:032x}", u128::from_be_bytes(random_bytes()));
    let mut head = Zeroizing::new(String::with_capacity(FORM_HEAD_BYTES));
    let mut field = |name: &str, value: &str| {
        for part in ["--", &boundary, "\r\n", DISPOSITION, name, "\"\r\n\r\n", value, "\r\n"] {
            head.push_str(part);
        }
    };
    field(form::SECRET, &import.secret.expose_base64());
    if let Some(min_epoch) = import.min_epoch {
        field(form::MIN_EPOCH, &min_epoch.to_string());
    }
    for part in ["--", &boundary, "\r\n", DISPOSITION, form::STATE, "\"; filename=\"state\"\r\n"] {
        head.push_str(part);
    }
    for part in ["Content-Type: ", STATE_MEDIA_TYPE, "\r\n\r\n"] {
        head.push_str(part);
    }
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + size + tail.len() as u64;
    let media_type = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"));
    let media_type = media_type.expect("a boundary has only letters, digits and a hyphen");
    let headers = [(CONTENT_TYPE, media_type), (CONTENT_LENGTH, length.into())];
    let body = Cursor::new(head).chain(image).chain(Cursor::new(tail));
    (headers.into_iter().collect(), Body::wrap_stream(ReaderStream::new(body)))
}

/// Reads a state image as base64. It is sealed and no secret, but wiped like one.
async fn encode(mut image: impl AsyncRead + Unpin, size: u64) -> Result<SecretText, CallError> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    image.read_to_end(&mut bytes).await.map_err(|source| CallError::Read { source })?;
    Ok(SecretText::new(STANDARD.encode(bytes)))
}

/// The word of a server that has the v2 routes.
const FEATURE: &str = "state";
const DISPOSITION: &str = "Content-Disposition: form-data; name=\"";
/// Enough for the secret and all that stands around it, so that nothing of it is moved and left.
const FORM_HEAD_BYTES: usize = 1024;
