//! The v1 routes: the original's wire over the core (`docs/formats/wire.md`).

use std::io;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{StatusCode, header};
use sbs_proto::{
    BuildSelector, BuildStatus, DefinitionName, LogName, PublicKeyReply, Registration, StatusReply,
    route, v2,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::core::Core;
use crate::core::error::ReadError;
use crate::http::body;
use crate::http::error::ApiError;
use crate::limits;

type Answer<T> = Result<T, ApiError>;

pub(crate) fn router(core: Core) -> Router {
    let image = get(status).post(init).patch(update).put(build).delete(clean);
    Router::new()
        .route(route::IMAGE, image)
        .route(route::LOG_PATTERN, get(log))
        .route(route::MANIFEST, get(manifest))
        .route(route::PUBLIC_KEY, get(public_key))
        .route(route::IMAGE_DIGEST, get(image_digest))
        .route(route::CONFIG_JSON, get(config_json))
        .route(route::CONFIG_PYTHON, get(config_python))
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .with_state(core)
}

async fn status(State(core): State<Core>, request_body: Body) -> Answer<Json<BuildStatus>> {
    body::optional_object(request_body).await?;
    Ok(Json(core.status(&the_definition())))
}

async fn init(State(core): State<Core>, request_body: Body) -> Answer<Json<StatusReply>> {
    let members = body::object(request_body).await?;
    core.initialise(&the_definition(), members).await?;
    Ok(Json(StatusReply::ok()))
}

async fn update(State(core): State<Core>, request_body: Body) -> Answer<Json<StatusReply>> {
    let members = body::object(request_body).await?;
    core.update(&the_definition(), members).await?;
    Ok(Json(StatusReply::ok()))
}

async fn build(State(core): State<Core>, request_body: Body) -> Answer<Json<StatusReply>> {
    body::optional_object(request_body).await?;
    core.start_build(&the_definition()).await?;
    Ok(Json(StatusReply::build_started()))
}

async fn clean(State(core): State<Core>, request_body: Body) -> Answer<Json<StatusReply>> {
    body::optional_object(request_body).await?;
    core.clean(&the_definition()).await?;
    Ok(Json(StatusReply::ok()))
}

async fn log(
    State(core): State<Core>,
    Path(name): Path<String>,
    request_body: Body,
) -> Answer<Response> {
    body::optional_object(request_body).await?;
    let LogName::Build = LogName::parse(&name).map_err(|_| ApiError::not_found())?;
    let file = core.log(&the_definition())?;
    Ok(stream_json("{\"log\":\"", file, TextEncoder, "\"}".to_owned()))
}

async fn manifest(State(core): State<Core>, request_body: Body) -> Answer<Response> {
    let selector = BuildSelector::from_members(&body::optional_object(request_body).await?)?;
    let found = core.manifest(&the_definition(), &selector, limits::V1_MANIFEST);
    let (name, file) = found.map_err(|error| match &error {
        ReadError::TooLarge { build, .. } => {
            let route = format!("{}/{build}/manifest", v2::builds(&the_definition()));
            let hint = format!("fetch it from {route}, as `sbs get-manifest` does");
            ApiError::from(error).with_hint(&hint)
        }
        _ => error.into(),
    })?;
    // A manifest's name has no character that JSON escapes.
    let end = format!("\",\"manifest_name\":\"{name}\"}}");
    Ok(stream_json("{\"encoded_manifest\":\"", Some(file), Base64Encoder, end))
}

async fn public_key(State(core): State<Core>, request_body: Body) -> Answer<Json<PublicKeyReply>> {
    let selector = BuildSelector::from_members(&body::optional_object(request_body).await?)?;
    let (name, public_key_pem) = core.public_key(&the_definition(), &selector)?;
    Ok(Json(PublicKeyReply { build_name: name.to_string(), public_key_pem }))
}

/// Answers with 201: the only status that the original's client takes here.
async fn image_digest(State(core): State<Core>, request_body: Body) -> Answer<Response> {
    let read = body::optional_object(request_body).await;
    read.map_err(|error| ApiError::from(error).into_text())?;
    let image = core.image_digest(&the_definition());
    let image = image.map_err(|error| ApiError::from(error).into_text())?;
    Ok((StatusCode::CREATED, Json(image)).into_response())
}

/// Answers with 201, and with errors that are no JSON: the original's client takes nothing else
/// here.
async fn config_json(State(core): State<Core>, request_body: Body) -> Answer<Response> {
    let registration = registration(&core, request_body).await.map_err(ApiError::into_text)?;
    Ok((StatusCode::CREATED, Json(registration)).into_response())
}

/// Answers as [`config_json`] does.
async fn config_python(State(core): State<Core>, request_body: Body) -> Answer<Response> {
    let registration = registration(&core, request_body).await.map_err(ApiError::into_text)?;
    let text = registration.expose_python().to_string();
    let headers = [(header::CONTENT_TYPE, "text/x-python; charset=utf-8")];
    Ok((StatusCode::CREATED, headers, text).into_response())
}

async fn registration(core: &Core, request_body: Body) -> Answer<Registration> {
    body::optional_object(request_body).await?;
    Ok(core.registration(&the_definition())?)
}

/// The v1 wire knows one image definition.
fn the_definition() -> DefinitionName {
    DefinitionName::default_name()
}

/// Answers with a JSON object that holds a file as one long string, in constant memory: a piece is
/// read when the one before is sent.
pub(super) fn stream_json(
    start: &'static str,
    file: Option<std::fs::File>,
    encoder: impl Encoder,
    end: String,
) -> Response {
    let file = file.map(|file| Pieces { file: tokio::fs::File::from_std(file), kept: Vec::new() });
    let head = stream::iter([Ok(Bytes::from_static(start.as_bytes()))]);
    let body = stream::try_unfold(file, move |pieces| async move {
        let Some(mut pieces) = pieces else { return Ok(None) };
        // An error in the stream cuts the answer: it never looks whole.
        let piece = pieces.next(encoder).await?;
        Ok::<_, io::Error>(piece.map(|piece| (Bytes::from(piece), Some(pieces))))
    });
    let tail = stream::iter([Ok(Bytes::from(end))]);
    let body = Body::from_stream(head.chain(body).chain(tail));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Reads a file in pieces and encodes each.
struct Pieces<R> {
    file: R,
    /// Bytes that were read and can be encoded only with those that follow.
    kept: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pieces<R> {
    /// Returns the next piece; `None` at the end of the file.
    async fn next(&mut self, encoder: impl Encoder) -> io::Result<Option<String>> {
        loop {
            let mut chunk = vec![0; PIECE_BYTES];
            let read = self.file.read(&mut chunk).await?;
            chunk.truncate(read);
            self.kept.append(&mut chunk);
            // Whole units only, but for the end of the file.
            let whole = if read == 0 { self.kept.len() } else { encoder.whole(&self.kept) };
            let rest = self.kept.split_off(whole);
            let now = std::mem::replace(&mut self.kept, rest);
            if !now.is_empty() {
                return Ok(Some(encoder.encode(&now)));
            }
            if read == 0 {
                return Ok(None);
            }
        }
    }
}

/// Turns bytes into the inside of a JSON string.
pub(super) trait Encoder: Copy + Send + 'static {
    /// Returns how many of the first bytes can be encoded without those that follow; the others are
    /// few.
    fn whole(self, bytes: &[u8]) -> usize;
    fn encode(self, bytes: &[u8]) -> String;
}

#[derive(Clone, Copy)]
pub(super) struct Base64Encoder;

impl Encoder for Base64Encoder {
    fn whole(self, bytes: &[u8]) -> usize {
        bytes.len() / 3 * 3
    }

    fn encode(self, bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }
}

#[derive(Clone, Copy)]
struct TextEncoder;

impl Encoder for TextEncoder {
    /// All but a character that the bytes cut in two.
    fn whole(self, bytes: &[u8]) -> usize {
        match std::str::from_utf8(bytes) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => bytes.len(),
        }
    }

    fn encode(self, bytes: &[u8]) -> String {
        let text = serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string();
        let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        inside.unwrap_or_default().to_owned()
    }
}

/// What a reader who does not read on holds in memory, some times over.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    async fn encoded(bytes: &[u8], encoder: impl Encoder) -> String {
        let mut pieces = Pieces { file: bytes, kept: Vec::new() };
        let mut text = String::new();
        while let Some(piece) = pieces.next(encoder).await.unwrap() {
            assert!(piece.len() <= 6 * (PIECE_BYTES + 4));
            text.push_str(&piece);
        }
        text
    }

    #[tokio::test]
    async fn a_streamed_file_is_one_base64_text() {
        for length in [0, 1, 2, 3, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 1] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            assert_eq!(encoded(&bytes, Base64Encoder).await, STANDARD.encode(&bytes), "{length}");
        }
    }

    #[tokio::test]
    async fn a_streamed_log_is_one_json_string() {
        let line = "ümläut \"quoted\" \\ \u{1f980}\n";
        let text = line.repeat(3 * PIECE_BYTES / line.len());
        let json = format!("\"{}\"", encoded(text.as_bytes(), TextEncoder).await);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        assert_eq!(
            encoded(b"no \xff line end \xc3", TextEncoder).await,
            "no \u{fffd} line end \u{fffd}"
        );
    }
}
