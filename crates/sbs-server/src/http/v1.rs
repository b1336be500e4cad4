//! The v1 routes: the original's wire over the core (`docs/formats/wire.md`).

use std::io::Read;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{StatusCode, Uri, header};
use sbs_proto::{
    BuildSelector, BuildStatus, DefinitionName, LogName, PublicKeyReply, StatusReply, route,
};
use tokio::sync::mpsc;

use crate::core::Core;
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
        .fallback(|uri: Uri| async move { no_such_route(uri.path()) })
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
    let (name, file) = core.manifest(&the_definition(), &selector, limits::V1_MANIFEST)?;
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

fn no_such_route(path: &str) -> ApiError {
    let error = ApiError::not_found();
    // Routes of the original that this server does not have, and whose errors its client cannot
    // read as JSON.
    if matches!(path, "/config-json" | "/config-python") { error.into_text() } else { error }
}

/// The v1 wire knows one image definition.
fn the_definition() -> DefinitionName {
    DefinitionName::default_name()
}

/// Answers with a JSON object that holds a file as one long string, in constant memory.
fn stream_json(
    start: &'static str,
    file: Option<std::fs::File>,
    encoder: impl Encoder,
    end: String,
) -> Response {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(2);
    tokio::task::spawn_blocking(move || {
        let send = |bytes: Bytes| sender.blocking_send(Ok(bytes)).is_ok();
        let _reader_is_gone = send(Bytes::from_static(start.as_bytes()))
            && match file.map(|file| send_encoded(file, &encoder, &send)) {
                None | Some(Ok(true)) => true,
                Some(Ok(false)) => false,
                // An error in the stream cuts the answer: it never looks whole.
                Some(Err(error)) => {
                    let _told = sender.blocking_send(Err(error));
                    false
                }
            }
            && send(Bytes::from(end));
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response()
}

fn send_encoded(
    mut file: impl Read,
    encoder: &impl Encoder,
    send: &impl Fn(Bytes) -> bool,
) -> std::io::Result<bool> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut kept = 0;
    loop {
        let room = buffer.get_mut(kept..).unwrap_or_default();
        let read = file.read(room)?;
        let filled = kept + read;
        let chunk = buffer.get(..filled).unwrap_or_default();
        // Whole units only, but for the end of the file.
        let whole = if read == 0 { filled } else { encoder.whole(chunk) };
        let (now, later) = chunk.split_at(whole);
        if !now.is_empty() && !send(Bytes::from(encoder.encode(now))) {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
        kept = later.len();
        buffer.copy_within(whole..filled, 0);
    }
}

/// Turns bytes into the inside of a JSON string.
trait Encoder: Send + 'static {
    /// Returns how many of the first bytes can be encoded without those that follow.
    fn whole(&self, bytes: &[u8]) -> usize;
    fn encode(&self, bytes: &[u8]) -> String;
}

struct Base64Encoder;

impl Encoder for Base64Encoder {
    fn whole(&self, bytes: &[u8]) -> usize {
        bytes.len() / 3 * 3
    }

    fn encode(&self, bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }
}

struct TextEncoder;

impl Encoder for TextEncoder {
    /// Up to the last line end: no character is cut in two.
    fn whole(&self, bytes: &[u8]) -> usize {
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        end.unwrap_or(if bytes.len() == CHUNK_BYTES { bytes.len() } else { 0 })
    }

    fn encode(&self, bytes: &[u8]) -> String {
        let text = serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string();
        let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        inside.unwrap_or_default().to_owned()
    }
}

/// Holds more than the longest line of a log.
const CHUNK_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn encoded(bytes: &[u8], encoder: &impl Encoder) -> String {
        let text = RefCell::new(String::new());
        let send = |bytes: Bytes| {
            text.borrow_mut().push_str(std::str::from_utf8(&bytes).unwrap());
            true
        };
        assert!(send_encoded(bytes, encoder, &send).unwrap());
        text.into_inner()
    }

    #[test]
    fn a_streamed_file_is_one_base64_text() {
        for length in [0, 1, 2, 3, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            assert_eq!(encoded(&bytes, &Base64Encoder), STANDARD.encode(&bytes), "{length}");
        }
    }

    #[test]
    fn a_streamed_log_is_one_json_string() {
        let line = "ümläut \"quoted\" \\ \u{1f980}\n";
        let text = line.repeat(3 * CHUNK_BYTES / line.len());
        let json = format!("\"{}\"", encoded(text.as_bytes(), &TextEncoder));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        assert_eq!(encoded(b"no line end", &TextEncoder), "no line end");
    }
}
