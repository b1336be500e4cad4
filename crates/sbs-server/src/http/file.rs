//! A file of a build as an answer, in constant memory.

use std::io::{Seek as _, SeekFrom};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use crate::core::error::{KeepError, ReadError};
use crate::core::read::OpenedFile;
use crate::http::conditional::{self, Answer};
use crate::http::error::ApiError;
use crate::http::v1::PIECE_BYTES;

/// Answers a request for a file with what it asks for: the whole, a range, or that it has it.
pub(crate) fn respond(
    method: &Method,
    headers: &HeaderMap,
    mut opened: OpenedFile,
    content_type: &'static str,
) -> Result<Response, ApiError> {
    let tag = format!("\"{}\"", opened.version);
    let whole = opened.length;
    let (first, length) = match conditional::answer(method, headers, &tag, whole) {
        Answer::Failed => return Err(failed()),
        Answer::NotModified => {
            return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
        }
        Answer::Unsatisfiable => return Ok(unsatisfiable(whole)),
        Answer::Whole => (None, whole),
        Answer::Part { first, last } => (Some(first), last - first + 1),
    };
    let at = |source| ApiError::from(ReadError::from(KeepError::Io { what: "a file", source }));
    opened.file.seek(SeekFrom::Start(first.unwrap_or(0))).map_err(at)?;
    // A piece is read when the one before is sent. A file that ends too early cuts the answer.
    let file = tokio::fs::File::from_std(opened.file).take(length);
    let body = Body::from_stream(ReaderStream::with_capacity(file, PIECE_BYTES));

    let mut response = body.into_response();
    let mut put = |name: HeaderName, text: String| {
        // Digits, base64, safe names: always a value.
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    };
    put(header::ACCEPT_RANGES, "bytes".to_owned());
    put(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", opened.name));
    put(header::CONTENT_LENGTH, length.to_string());
    put(header::CONTENT_TYPE, content_type.to_owned());
    put(header::ETAG, tag);
    if let Some(digest) = opened.digest {
        // RFC 9530: of the whole file, also with a part of it.
        put(REPR_DIGEST, format!("sha-256=:{}:", STANDARD.encode(digest.as_bytes())));
    }
    if let Some(first) = first {
        put(header::CONTENT_RANGE, format!("bytes {first}-{}/{whole}", first + length - 1));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn failed() -> ApiError {
    let message = "the file is not the version that If-Match names";
    ApiError::plain(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
}

fn unsatisfiable(whole: u64) -> Response {
    let message = format!("the range begins behind the end of the file, which has {whole} bytes");
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let error = ApiError::plain(status, "range_not_satisfiable", &message);
    ([(header::CONTENT_RANGE, format!("bytes */{whole}"))], error).into_response()
}

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
