//! One request and what can happen to it: logins, redirects, pauses, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode};
use reqwest::{Body, Request, Response};
use sbs_proto::NotaryServer;
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use url::{Host, Url};

use super::address::is_public;
use super::auth::Scope;
use super::blob::BlobSource;
use super::error::{Fault, RegistryError, Remark, Retry, TransportError};
use super::{Limits, Session};

/// A request in a form that can be sent more than once.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) scope: Scope<'a>,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload<'a>,
}

/// What is sent with a request.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    Blob { source: &'a BlobSource<'a>, offset: u64, bytes: u64, sent: Sent },
    Bytes(Bytes),
    None,
}

/// Counts the bytes of a body that the connection has taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent(Arc<AtomicU64>);

impl Sent {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, url: Url, scope: Scope<'a>) -> Self {
        Self { method, url, scope, headers: HeaderMap::new(), payload: Payload::None }
    }
}

impl Session {
    /// Sends a request until there is an answer that another attempt would not change.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let mut attempts = Attempts::new(self);
        loop {
            match self.once(call).await {
                Ok(response) => return Ok(response),
                Err(fault) => attempts.pause(fault).await?,
            }
        }
    }

    /// Sends a request once: it logs in where it must and follows redirects where it may.
    pub(super) async fn once(&self, call: &Call<'_>) -> Result<Response, Fault> {
        let known = self.authorization(call.scope);
        let (response, at) = self.follow(call, known.as_ref()).await?;
        // A challenge from where we were redirected to is none of the registry's.
        if response.status() != StatusCode::UNAUTHORIZED || !self.is_registry(&at) {
            return self.defer_if_busy(response);
        }
        let answer = self.authorize(response.headers(), call.scope).await?;
        if known.as_ref() == Some(&answer) {
            return Err(self.unauthorized().into());
        }
        let (response, at) = self.follow(call, Some(&answer)).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.is_registry(&at) {
            return Err(self.unauthorized().into());
        }
        self.defer_if_busy(response)
    }

    /// Sends a request once without logging in, whatever the answer says of that.
    pub(super) async fn bare(&self, call: &Call<'_>) -> Result<Response, Fault> {
        let (response, _) = self.follow(call, None).await?;
        self.defer_if_busy(response)
    }

    /// Sends a request and waits for the head of the answer, as long as the body moves.
    pub(super) async fn exchange(
        &self,
        client: &reqwest::Client,
        request: Request,
        sent: Option<&Sent>,
    ) -> Result<Response, Fault> {
        let progress = || sent.map_or(0, Sent::bytes);
        let mut exchange = std::pin::pin!(client.execute(request));
        let mut seen = progress();
        loop {
            tokio::select! {
                answer = &mut exchange => {
                    return answer.map_err(|error| Fault::from_transport(self.host(), error));
                }
                () = sleep(self.limits().idle) => {
                    let now = progress();
                    if now == seen {
                        return Err(self.stalled());
                    }
                    seen = now;
                }
            }
        }
    }

    /// Returns the next piece of an answer's body.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Fault> {
        match timeout(self.limits().idle, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Fault::from_transport(self.host(), error)),
            Err(_elapsed) => Err(self.stalled()),
        }
    }

    /// Reads the body of an answer that must be short.
    pub(super) async fn read(
        &self,
        mut response: Response,
        what: &'static str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, Fault> {
        let host = || self.host().to_owned();
        let too_large = || RegistryError::TooLarge { host: host(), what, max_bytes };
        if response.content_length().is_some_and(|bytes| bytes > max_bytes) {
            return Err(too_large().into());
        }
        let read = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = self.chunk(&mut response).await? {
                if (bytes.len() + chunk.len()) as u64 > max_bytes {
                    return Err(too_large().into());
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        timeout(self.limits().reply, read).await.unwrap_or_else(|_elapsed| {
            let seconds = self.limits().reply.as_secs();
            Err(RegistryError::TimeLimit { host: host(), seconds }.into())
        })
    }

    /// Turns the answers that ask to come back later into faults.
    pub(super) fn defer_if_busy(&self, response: Response) -> Result<Response, Fault> {
        if !matches!(response.status().as_u16(), 429 | 502 | 503 | 504) {
            return Ok(response);
        }
        // RFC 9110, 10.2.3. A date, which no registry is known to send, counts as nothing.
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| text.trim().parse().ok());
        let status = response.status().as_u16();
        let reason = Remark::new("it is busy");
        Err(Fault {
            error: RegistryError::Rejected { host: self.host().to_owned(), status, reason },
            retry: Retry::After(after),
        })
    }

    /// Returns the error that an answer with an unexpected status stands for.
    pub(super) async fn refusal(&self, response: Response, what: &'static str) -> Fault {
        let host = self.host().to_owned();
        match response.status().as_u16() {
            401 => self.unauthorized().into(),
            404 => RegistryError::NotFound { host, what }.into(),
            status => {
                let reason = Remark::new(&self.reason(response).await);
                match status {
                    403 => RegistryError::Denied { host, reason },
                    status => RegistryError::Rejected { host, status, reason },
                }
                .into()
            }
        }
    }

    /// Resolves the Location of an answer to a request that went to `at`.
    pub(super) fn location(&self, response: &Response, at: &Url) -> Result<Url, RegistryError> {
        let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let target = text.and_then(|text| at.join(text).ok());
        let target = target.ok_or_else(|| self.malformed("a Location is missing or no URL"))?;
        let refused = |why| RegistryError::RedirectNotAllowed {
            host: self.host().to_owned(),
            target: Remark::new(target.host_str().unwrap_or_default()),
            why,
        };
        if target.scheme() != "https" {
            return Err(refused("it is not https"));
        }
        if !target.username().is_empty() || target.password().is_some() {
            return Err(refused("it brings a user name of its own"));
        }
        let public = match target.host() {
            Some(Host::Ipv4(address)) => is_public(address.into()),
            Some(Host::Ipv6(address)) => is_public(address.into()),
            // Names are judged when they are resolved.
            _ => true,
        };
        if !public && !self.is_trusted(&target) {
            return Err(refused("it has a private address"));
        }
        Ok(target)
    }

    /// Tells whether a host is the registry's or one that the operator named.
    pub(super) fn is_trusted(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        let registry = &self.0.registry;
        let docker_hub = (registry.is_docker_hub()
            || registry.as_str() == NotaryServer::DOCKER_HUB)
            && with_port == DOCKER_HUB_TOKEN_HOST;
        let named = |trusted: &String| trusted == host || *trusted == with_port;
        Some(host) == self.0.base.host_str()
            || docker_hub
            || self.0.client.0.token_hosts.iter().any(named)
    }

    pub(super) fn malformed(&self, what: &'static str) -> RegistryError {
        RegistryError::Malformed { host: self.host().to_owned(), what }
    }

    /// Sends a request and follows the redirects of the answer; returns where it came from.
    async fn follow(
        &self,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, Url), Fault> {
        let mut at = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(call, &at, authorization).await?;
            let client = if self.is_trusted(&at) {
                &self.0.client.0.trusted
            } else {
                &self.0.client.0.untrusted
            };
            let sent = match &call.payload {
                Payload::Blob { sent, .. } => Some(sent),
                Payload::Bytes(_) | Payload::None => None,
            };
            let response = self.exchange(client, request, sent).await?;
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            // What is sent goes to the registry alone.
            if !redirect || !matches!(call.method, Method::GET | Method::HEAD) {
                return Ok((response, at));
            }
            at = self.location(&response, &at)?;
        }
        let target = Remark::new(at.host_str().unwrap_or_default());
        let why = "it is one redirect too many";
        let host = self.host().to_owned();
        Err(RegistryError::RedirectNotAllowed { host, target, why }.into())
    }

    async fn request(
        &self,
        call: &Call<'_>,
        at: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Request, Fault> {
        let mut request = Request::new(call.method.clone(), at.clone());
        *request.headers_mut() = call.headers.clone();
        // Whoever we are sent on to gets no credential, another port of the same host included.
        if let Some(value) = authorization.filter(|_| self.is_registry(at)) {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let body = match &call.payload {
            Payload::Blob { source, offset, bytes, sent } => {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(*bytes));
                source.body(*offset, *bytes, sent).await?
            }
            Payload::Bytes(bytes) => Body::from(bytes.clone()),
            Payload::None if call.method == Method::GET || call.method == Method::HEAD => {
                return Ok(request);
            }
            Payload::None => {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
                return Ok(request);
            }
        };
        *request.body_mut() = Some(body);
        Ok(request)
    }

    /// Tells whether an address is the registry's own.
    pub(super) fn is_registry(&self, url: &Url) -> bool {
        url.origin() == self.0.base.origin()
    }

    fn stalled(&self) -> Fault {
        let seconds = self.limits().idle.as_secs();
        let source = TransportError::new(&format!("nothing moved for {seconds} seconds"));
        Fault::interrupted(self.host().to_owned(), source)
    }

    /// Returns the registry's error code (OCI distribution specification, "Error codes").
    ///
    /// Its message is left out: it could repeat what was sent.
    async fn reason(&self, response: Response) -> String {
        let body = self.read(response, "error", MAX_ERROR_BYTES).await;
        let reply = body.ok().and_then(|bytes| serde_json::from_slice::<ErrorReply>(&bytes).ok());
        let code = reply.and_then(|reply| Some(reply.errors.into_iter().next()?.code));
        let sound = |c: u8| c.is_ascii_uppercase() || c == b'_';
        match code {
            Some(code) if code.len() <= 40 && code.bytes().all(sound) => code,
            _ => "it gave no reason".to_owned(),
        }
    }
}

#[derive(Deserialize)]
struct ErrorReply {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
}

/// Counts the attempts at one thing and makes the pauses between them.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    session: &'a Session,
    made: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self { session, made: 0 }
    }

    /// Forgets the attempts before: the last one got a part of the way.
    pub(super) fn progressed(&mut self) {
        self.made = 0;
    }

    /// Waits before the next attempt, or returns the error if there is to be none.
    pub(super) async fn pause(&mut self, fault: Fault) -> Result<(), RegistryError> {
        let limits = self.session.limits();
        self.made += 1;
        let after = match fault.retry {
            Retry::After(after) if self.made < limits.attempts => after,
            _ => return Err(fault.error),
        };
        let pause = pause(limits, self.made, after, sbs_crypto::random_bytes());
        let text = crate::error::chain(&fault.error);
        let (made, all) = (self.made, limits.attempts);
        let seconds = pause.as_secs_f32();
        self.session.0.log.warning(&format!(
            "attempt {made} of {all}: {text}; trying again in {seconds:.1} seconds"
        ));
        sleep(pause).await;
        Ok(())
    }
}

/// Returns how long to wait after `made` attempts: what the registry asks for, within the limit,
/// else a time that doubles and is between half and all of itself, so that many who were refused
/// at once do not come back at once.
fn pause(limits: &Limits, made: u32, after: Option<u64>, random: [u8; 2]) -> Duration {
    if let Some(seconds) = after {
        return Duration::from_secs(seconds).min(limits.longest_pause);
    }
    let whole = limits.first_pause.saturating_mul(1 << made.saturating_sub(1).min(16));
    let whole = whole.min(limits.longest_pause);
    let share = 0.5 + 0.5 * f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    whole.mul_f64(share)
}

const DOCKER_HUB_TOKEN_HOST: &str = "auth.docker.io:443";
const MAX_REDIRECTS: usize = 5;
const MAX_ERROR_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_have_a_limit() {
        let limits = Limits::default();
        let longest = |made| pause(&limits, made, None, [0xff; 2]).as_millis();
        assert_eq!([1, 2, 3, 4].map(longest), [500, 1000, 2000, 4000]);
        assert_eq!(longest(1000), 60_000);
        assert_eq!(pause(&limits, 2, None, [0; 2]).as_millis(), 500);
    }

    #[test]
    fn a_registry_cannot_ask_for_an_endless_pause() {
        let limits = Limits::default();
        assert_eq!(pause(&limits, 1, Some(7), [0; 2]).as_secs(), 7);
        assert_eq!(pause(&limits, 1, Some(u64::MAX), [0; 2]).as_secs(), 60);
    }
}
