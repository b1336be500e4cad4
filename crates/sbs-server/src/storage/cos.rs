//! IBM Cloud Object Storage with an API key: the key is exchanged for tokens, and requests carry a
//! token in place of a signature.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use md5::{Digest as _, Md5};
use object_store::client::{HttpError, HttpRequest, HttpResponse, HttpService};
use sbs_proto::{SecretText, StorageEndpoint};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::storage::StorageError;
use crate::storage::error::Fault;
use crate::storage::transport::{Transport, wrap};
use sbs_registry::Remark;

/// Requests with a token.
#[derive(Debug)]
pub(super) struct CosService {
    instance: Option<HeaderValue>,
    tokens: Arc<TokenSource>,
    transport: Transport,
}

impl CosService {
    pub(super) fn new(
        transport: Transport,
        tokens: Arc<TokenSource>,
        instance: Option<&SecretText>,
    ) -> Result<Self, StorageError> {
        let header = |instance: &SecretText| {
            let mut value = HeaderValue::from_str(instance.expose()).map_err(|_| {
                StorageError::Internal("a service instance that is no header value")
            })?;
            value.set_sensitive(true);
            Ok::<_, StorageError>(value)
        };
        let instance = instance.map(header).transpose()?;
        Ok(Self { instance, tokens, transport })
    }

    async fn send(&self, request: &HttpRequest, token: &Token) -> Result<HttpResponse, HttpError> {
        let mut request = request.clone();
        request.headers_mut().insert(AUTHORIZATION, token.header.clone());
        if let Some(instance) = &self.instance {
            request.headers_mut().insert(SERVICE_INSTANCE, instance.clone());
        }
        self.transport.exchange(request).await
    }
}

#[async_trait]
impl HttpService for CosService {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.method() == Method::PUT {
            // Without a signature the storage has nothing else to hold the bytes against.
            let body = request.body().clone().collect().await?.to_bytes();
            let sum = HeaderValue::try_from(STANDARD.encode(Md5::digest(&body)))
                .expect("base64 is a header value");
            request.headers_mut().insert(CONTENT_MD5, sum);
        }
        let token = self.tokens.token().await.map_err(wrap)?;
        let answer = self.send(&request, &token).await;
        if token.fresh || !is_refused(&answer) {
            return answer;
        }
        // A token can end before its time; it is not known here whether this one has.
        self.tokens.forget().await;
        let token = self.tokens.token().await.map_err(wrap)?;
        self.send(&request, &token).await
    }
}

fn is_refused(answer: &Result<HttpResponse, HttpError>) -> bool {
    let Err(error) = answer else { return false };
    matches!(
        Fault::find(error),
        Some(Fault::Status { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. })
    )
}

/// Where tokens come from: the service is asked once for many requests.
pub(super) struct TokenSource {
    api_key: SecretText,
    endpoint: StorageEndpoint,
    kept: Mutex<Option<Kept>>,
    transport: Transport,
}

struct Kept {
    header: HeaderValue,
    until: Instant,
}

/// A token as it stands in a request.
struct Token {
    /// Whether it was had for this request.
    fresh: bool,
    header: HeaderValue,
}

impl TokenSource {
    pub(super) fn new(
        transport: Transport,
        endpoint: &StorageEndpoint,
        api_key: &SecretText,
    ) -> Self {
        let api_key = SecretText::new(api_key.expose().to_owned());
        Self { api_key, endpoint: endpoint.clone(), kept: Mutex::new(None), transport }
    }

    /// Returns the token that is kept, or a new one.
    async fn token(&self) -> Result<Token, Fault> {
        // It is held while a token is asked for: whoever comes meanwhile waits for the same one.
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Ok(Token { fresh: false, header: kept.header.clone() });
        }
        let granted = self.ask().await?;
        let text = Zeroizing::new(format!("Bearer {}", granted.access_token.as_str()));
        let malformed = || Fault::Malformed { host: self.endpoint.host().to_owned() };
        let mut header = HeaderValue::from_str(&text).map_err(|_| malformed())?;
        header.set_sensitive(true);
        let lifetime = Duration::from_secs(granted.expires_in.min(LONGEST_LIFETIME_SECONDS));
        let until = Instant::now() + lifetime.saturating_sub(RENEW_BEFORE.min(lifetime / 2));
        *kept = Some(Kept { header: header.clone(), until });
        Ok(Token { fresh: true, header })
    }

    /// Forgets the token that is kept.
    async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn ask(&self) -> Result<Granted, Fault> {
        let host = self.endpoint.host();
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ibm:params:oauth:grant-type:apikey")
            .append_pair("apikey", self.api_key.expose())
            .finish();
        let (status, answer) = self.transport.post_form(self.endpoint.as_str(), host, form).await?;
        if !status.is_success() {
            let code = serde_json::from_slice::<Refused>(&answer).ok();
            let good =
                |code: &str| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
            let code = code.map(|refused| refused.error_code).filter(|code| good(code));
            let code = Remark::new(code.as_deref().unwrap_or("no error code"));
            return Err(Fault::NoToken { host: host.to_owned(), status, code });
        }
        serde_json::from_slice(&answer).map_err(|_| Fault::Malformed { host: host.to_owned() })
    }
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenSource({})", self.endpoint.as_str())
    }
}

/// What the token service grants.
#[derive(Deserialize)]
struct Granted {
    access_token: Zeroizing<String>,
    /// Seconds.
    expires_in: u64,
}

/// What it says otherwise.
#[derive(Deserialize)]
struct Refused {
    #[serde(rename = "errorCode")]
    error_code: String,
}

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const SERVICE_INSTANCE: HeaderName = HeaderName::from_static("ibm-service-instance-id");

/// A request that begins now must still be good when it arrives.
const RENEW_BEFORE: Duration = Duration::from_mins(5);

/// IBM's tokens last an hour; no token is kept longer than a day, whatever is said of it.
const LONGEST_LIFETIME_SECONDS: u64 = 24 * 60 * 60;
