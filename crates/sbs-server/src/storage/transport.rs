//! One HTTP exchange with a storage: limits on what it says, and faults by their kind.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use crate::storage::StorageLimits;
use crate::storage::error::Fault;
use sbs_registry::Remark;

/// The connections to a storage and its token service.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    longest_pause: Duration,
}

impl Transport {
    pub(super) fn new(http: reqwest::Client, limits: &StorageLimits) -> Self {
        Self { http, longest_pause: limits.longest_pause }
    }

    /// Posts a form and returns the status and the answer, of at most 64 KiB.
    pub(super) async fn post_form(
        &self,
        url: &str,
        host: &str,
        form: String,
    ) -> Result<(StatusCode, Bytes), Fault> {
        let request = self
            .http
            .post(url)
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(http::header::ACCEPT, "application/json")
            .body(form);
        let response = request.send().await.map_err(|error| Fault::from_transport(host, error))?;
        let response: Response<reqwest::Body> = response.into();
        let status = response.status();
        Ok((status, collect(response.into_body(), host, MAX_WORDS_BYTES).await?))
    }

    /// Makes one exchange. An answer that is no success is a fault, which says whether another
    /// attempt makes sense.
    pub(super) async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let is_object = request.method() == Method::GET;
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string();
        let body = body.collect().await?.to_bytes();
        let sent = self.http.request(parts.method, url).headers(parts.headers).body(body).send();
        let response: Response<reqwest::Body> =
            sent.await.map_err(|error| wrap(Fault::from_transport(&host, error)))?.into();
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            let words = collect(body, &host, MAX_WORDS_BYTES).await.unwrap_or_default();
            let code = error_code(&words);
            self.pause(parts.status, &parts.headers).await;
            return Err(wrap(Fault::Status { status: parts.status, code }));
        }
        let body = if is_object {
            HttpResponseBody::new(Judged { body, host })
        } else {
            let answer = collect(body, &host, MAX_WORDS_BYTES).await.map_err(wrap)?;
            HttpResponseBody::new(Full::new(answer).map_err(|never| match never {}))
        };
        Ok(HttpResponse::from_parts(parts, body))
    }

    /// Waits as long as a storage that has too much to do asks for, within our limit.
    async fn pause(&self, status: StatusCode, headers: &HeaderMap) {
        if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(seconds) = asked {
            tokio::time::sleep(Duration::from_secs(seconds).min(self.longest_pause)).await;
        }
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.exchange(request).await
    }
}

/// Wraps a fault for `object_store`, which repeats a request by the kind of its error.
pub(super) fn wrap(fault: Fault) -> HttpError {
    let again = |status: StatusCode| {
        status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
    };
    let kind = match &fault {
        // Every request that is made here may be repeated, whatever came of it.
        Fault::Unreachable { .. } => HttpErrorKind::Request,
        Fault::Status { status, .. } | Fault::NoToken { status, .. } if again(*status) => {
            HttpErrorKind::Request
        }
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, fault)
}

/// Reads a whole answer, of at most `limit` bytes.
async fn collect(mut body: reqwest::Body, host: &str, limit: usize) -> Result<Bytes, Fault> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Fault::from_transport(host, error))?;
        let data = frame.into_data().unwrap_or_default();
        if bytes.len().saturating_add(data.len()) > limit {
            return Err(Fault::Malformed { host: host.to_owned() });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Finds the error code in what a storage says, and nothing else of it.
fn error_code(words: &[u8]) -> Remark {
    let text = std::str::from_utf8(words).unwrap_or_default();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map_or("", |(code, _)| code);
    let good =
        !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    Remark::new(if good { code } else { "no error code" })
}

/// The body of an object; its errors are faults. Its size is limited by whoever reads it.
struct Judged {
    body: reqwest::Body,
    host: String,
}

impl Body for Judged {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map(|frame| {
            frame.map(|frame| frame.map_err(|error| wrap(Fault::from_transport(&self.host, error))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an error document, of a token, and of what is told of a transfer in parts. Each has under
/// 8 KiB.
const MAX_WORDS_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l1_of_what_a_storage_says_only_its_code_is_kept() {
        for (words, expected) in [
            ("<Error><Code>NoSuchBucket</Code><Message>secret</Message></Error>", "NoSuchBucket"),
            ("<Error><Code>a b</Code></Error>", "no error code"),
            ("<Error><Code></Code></Error>", "no error code"),
            ("<Code>\u{1b}[2K</Code>", "no error code"),
            ("AWSAccessKeyId secret", "no error code"),
            ("<Code>NoSuchBucket", "no error code"),
        ] {
            assert_eq!(error_code(words.as_bytes()).as_str(), expected, "{words}");
        }
        let long = format!("<Code>{}</Code>", "x".repeat(65));
        assert_eq!(error_code(long.as_bytes()).as_str(), "no error code");
    }
}
