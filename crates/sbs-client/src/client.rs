use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode};
use sbs_proto::v2::{self, Build, BuildId, BuildPage, Info, Selector};
use sbs_proto::{
    BuildName, BuildSelector, BuildStatus, DefinitionName, ImageReference, KeyRole, LogName,
    LogReply, Members, PublicKeyReply, Registration, SecretText, StateSecret, StatusReply,
    TRUST_SCHEMA, TrustBundle, key, route,
};
use serde_json::Value;
use url::Url;

use crate::builder::{BuildClientError, ClientBuilder, Settings, WantsTrust};
use crate::observer::Event;
use crate::{CallError, Shown, body, limits};

/// A client of one server, over mutual TLS.
///
/// A call is sent once: nothing is tried again, but for a [download](Client::download) that was cut.
#[derive(Clone, Debug)]
pub struct Client {
    base: Url,
    http: reqwest::Client,
    /// Waits for an answer as long as a call may take.
    patient: reqwest::Client,
    settings: std::sync::Arc<Settings>,
}

/// A public key as the server sent it. The build's name has the form of one; nothing else is
/// checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchedKey {
    /// The build whose manifest the key is said to verify, a safe file name.
    pub build_name: BuildName,
    /// The key, said to be a `SubjectPublicKeyInfo` in PEM.
    pub pem: String,
}

impl Client {
    /// Starts to make a client of the server at `host` and `port`.
    pub fn builder(host: &str, port: u16) -> Result<ClientBuilder<WantsTrust>, BuildClientError> {
        ClientBuilder::new(host, port)
    }

    pub(crate) fn new(
        http: reqwest::Client,
        patient: reqwest::Client,
        base: Url,
        settings: Settings,
    ) -> Self {
        Self { base, http, patient, settings: settings.into() }
    }

    /// Asks how far the build is.
    pub async fn status(&self) -> Result<BuildStatus, CallError> {
        body::parse_object(&self.short(Method::GET, route::IMAGE, NOTHING.to_owned()).await?)
    }

    /// Sets what is built; for a server that has not been told yet. `members` holds secrets.
    pub async fn init(&self, members: &Members) -> Result<StatusReply, CallError> {
        accepted(&self.short(Method::POST, route::IMAGE, members.expose_json().to_string()).await?)
    }

    /// Sets what is built, from now on. `members` holds secrets.
    pub async fn update(&self, members: &Members) -> Result<StatusReply, CallError> {
        accepted(&self.short(Method::PATCH, route::IMAGE, members.expose_json().to_string()).await?)
    }

    /// Starts a build and does not wait for it.
    pub async fn build(&self) -> Result<StatusReply, CallError> {
        accepted(&self.short(Method::PUT, route::IMAGE, NOTHING.to_owned()).await?)
    }

    /// Stops the build, if one runs, and removes what it left.
    pub async fn clean(&self) -> Result<StatusReply, CallError> {
        // What the original answers is not documented, but that it is JSON: any will do.
        let reply = self.short(Method::DELETE, route::IMAGE, NOTHING.to_owned()).await?;
        let reply: Value = body::parse(&reply)?;
        let status = reply.get("status").unwrap_or(&reply);
        let status = status.as_str().map_or_else(|| status.to_string(), str::to_owned);
        Ok(StatusReply { status })
    }

    /// Fetches a log, whole. It holds whatever the build printed: show it by [`Shown::line`].
    pub async fn log(&self, name: LogName) -> Result<String, CallError> {
        let route = route::log(name);
        let reply = self.long(&route, NOTHING.to_owned(), limits::LOG_BYTES).await?;
        Ok(body::parse_object::<LogReply>(&reply)?.log)
    }

    /// Fetches the public key of a build's manifest.
    pub async fn public_key(&self, build: &BuildSelector) -> Result<FetchedKey, CallError> {
        let reply = self.short(Method::GET, route::PUBLIC_KEY, selector(build)).await?;
        let reply: PublicKeyReply = body::parse_object(&reply)?;
        let build_name = BuildName::parse(&reply.build_name).map_err(|_| {
            CallError::UnexpectedReply { what: "`build_name` is not the name of a build" }
        })?;
        Ok(FetchedKey { build_name, pem: reply.public_key_pem })
    }

    /// Asks for the digest reference of the last image built.
    pub async fn image_digest(&self) -> Result<ImageReference, CallError> {
        let reply = self.short(Method::GET, route::IMAGE_DIGEST, NOTHING.to_owned()).await?;
        let reply: String = body::parse(&reply)?;
        ImageReference::parse(&reply).ok().filter(|image| image.digest().is_some()).ok_or(
            CallError::UnexpectedReply { what: "it is not an image reference with a digest" },
        )
    }

    /// Asks for what a runtime is told of the image, with the credentials for pulling it.
    pub async fn registration(&self) -> Result<Registration, CallError> {
        body::parse_object(&self.short(Method::GET, route::CONFIG_JSON, NOTHING.to_owned()).await?)
    }

    /// Asks for the same as a text of Python. It holds the credentials for pulling.
    pub async fn registration_python(&self) -> Result<SecretText, CallError> {
        let reply = self.short(Method::GET, route::CONFIG_PYTHON, NOTHING.to_owned()).await?;
        let text = String::from_utf8(reply);
        let not_text = |_| CallError::UnexpectedReply { what: "it is not text" };
        text.map(SecretText::new).map_err(not_text)
    }

    /// Asks for what relying parties need to check the images: every public key.
    pub async fn trust(&self) -> Result<TrustBundle, CallError> {
        if self.info().await?.is_none() {
            return Err(CallError::Unavailable { what: "the keys of its images" });
        }
        let route = v2::trust(&DefinitionName::default_name());
        trust_bundle(&self.read_v2(&route, None).await?)
    }

    /// Makes a new key for a role; the one before it signs beside it until it is retired. `secret` is
    /// that of the image definition.
    pub async fn rotate_key(
        &self,
        role: KeyRole,
        secret: &StateSecret,
    ) -> Result<TrustBundle, CallError> {
        self.change_key(Method::POST, role, secret).await
    }

    /// Ends the rotation of a role: the key before the present one is gone for good. `secret` is that
    /// of the image definition.
    pub async fn retire_key(
        &self,
        role: KeyRole,
        secret: &StateSecret,
    ) -> Result<TrustBundle, CallError> {
        self.change_key(Method::DELETE, role, secret).await
    }

    async fn change_key(
        &self,
        method: Method,
        role: KeyRole,
        secret: &StateSecret,
    ) -> Result<TrustBundle, CallError> {
        let route = v2::rotation(&DefinitionName::default_name(), role);
        let mut members = Members::default();
        members.insert(key::SECRET, &**secret.expose_base64());
        trust_bundle(&self.short(method, &route, members.expose_json().to_string()).await?)
    }

    /// Asks what the server is and can do; `None` if it speaks v1 alone, as the original does.
    pub async fn info(&self) -> Result<Option<Info>, CallError> {
        match self.read_v2(v2::INFO, None).await {
            Ok(reply) => body::parse_object(&reply).map(Some),
            Err(CallError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for builds, newest first: at most `limit`, which is at most
    /// [`PAGE_BUILDS`](sbs_proto::v2::PAGE_BUILDS), of those that are older than `before`.
    pub async fn builds(
        &self,
        before: Option<&BuildId>,
        limit: usize,
    ) -> Result<BuildPage, CallError> {
        if self.info().await?.is_none() {
            return Err(CallError::Unavailable { what: "a list of builds" });
        }
        let before = before.map(|id| format!("&before={id}")).unwrap_or_default();
        let query = format!("limit={limit}{before}");
        let route = v2::builds(&DefinitionName::default_name());
        let page: BuildPage = body::parse_object(&self.read_v2(&route, Some(&query)).await?)?;
        if page.builds.len() > limit {
            return Err(CallError::UnexpectedReply { what: "it has more builds than asked for" });
        }
        Ok(page)
    }

    pub(crate) async fn describe_build(&self, build: &Selector) -> Result<Build, CallError> {
        let route = v2::build(&DefinitionName::default_name(), build);
        body::parse_object(&self.read_v2(&route, None).await?)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Makes a call of v1 with a short answer that may come late: the server moves a file first.
    pub(crate) async fn late(
        &self,
        method: Method,
        route: &str,
        body: String,
    ) -> Result<Vec<u8>, CallError> {
        let bounds = Bounds { bytes: limits::REPLY_BYTES, time: limits::STATE_TIMEOUT };
        self.call(&self.patient, method, route, body, bounds).await
    }

    /// Sends a file by v2; the answer is short and may come late.
    pub(crate) async fn upload(
        &self,
        route: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Vec<u8>, CallError> {
        let mut url = self.base.clone();
        url.set_path(route);
        let request = self.patient.post(url).headers(headers).body(body);
        let response = async {
            let sent = request.timeout(limits::STATE_TIMEOUT).send().await;
            sent.map_err(CallError::from_transport)
        };
        let response = self.observed(&Method::POST, route, &[StatusCode::OK], response).await?;
        body::read(response, limits::REPLY_BYTES, route, &self.settings.observer).await
    }

    /// Sends a request of v1, whose answer may be long.
    pub(crate) async fn send_v1(
        &self,
        route: &str,
        body: String,
        time: Duration,
    ) -> Result<Response, CallError> {
        self.send(&self.http, Method::GET, route, body, time).await
    }

    /// Sends a request of v2.
    pub(crate) async fn send_v2(
        &self,
        route: &str,
        query: Option<&str>,
        headers: HeaderMap,
        time: Duration,
    ) -> Result<Response, CallError> {
        let mut url = self.base.clone();
        url.set_path(route);
        url.set_query(query);
        let request = self.http.get(url).headers(headers).timeout(time);
        request.send().await.map_err(CallError::from_transport)
    }

    /// Waits for the head of an answer whose body is read as it comes, and tells of it. Another
    /// status than these is a refusal.
    pub(crate) async fn observed(
        &self,
        method: &Method,
        route: &str,
        accepted: &[StatusCode],
        response: impl Future<Output = Result<Response, CallError>>,
    ) -> Result<Response, CallError> {
        let started = Instant::now();
        let response = response.await.inspect(|response| self.settings.observer.answered(response));
        let status = response.as_ref().ok().map(|response| response.status().as_u16());
        let elapsed = started.elapsed();
        let method = method.as_str();
        self.settings.observer.tell(&Event::Ended { elapsed, method, route, status });
        let response = response?;
        if accepted.contains(&response.status()) {
            return Ok(response);
        }
        Err(body::read_refusal(response).await)
    }

    /// Reads a short answer of v2.
    async fn read_v2(&self, route: &str, query: Option<&str>) -> Result<Vec<u8>, CallError> {
        let response = self.send_v2(route, query, HeaderMap::new(), self.settings.timeout);
        let response = self.observed(&Method::GET, route, &[StatusCode::OK], response).await?;
        body::read(response, limits::REPLY_BYTES, route, &self.settings.observer).await
    }

    async fn short(&self, method: Method, route: &str, body: String) -> Result<Vec<u8>, CallError> {
        let bounds = Bounds { bytes: limits::REPLY_BYTES, time: self.settings.timeout };
        self.call(&self.http, method, route, body, bounds).await
    }

    async fn long(&self, route: &str, body: String, bytes: u64) -> Result<Vec<u8>, CallError> {
        let time = self.settings.download_timeout;
        self.call(&self.http, Method::GET, route, body, Bounds { bytes, time }).await
    }

    async fn call(
        &self,
        http: &reqwest::Client,
        method: Method,
        route: &str,
        body: String,
        bounds: Bounds,
    ) -> Result<Vec<u8>, CallError> {
        let started = Instant::now();
        let mut status = None;
        let result = match self.send(http, method.clone(), route, body, bounds.time).await {
            Ok(response) => {
                self.settings.observer.answered(&response);
                status = Some(response.status().as_u16());
                self.receive(response, route, bounds.bytes).await
            }
            Err(error) => Err(error),
        };
        let (method, elapsed) = (method.as_str(), started.elapsed());
        self.settings.observer.tell(&Event::Ended { elapsed, method, route, status });
        result
    }

    async fn send(
        &self,
        http: &reqwest::Client,
        method: Method,
        route: &str,
        body: String,
        time: Duration,
    ) -> Result<Response, CallError> {
        let mut url = self.base.clone();
        url.set_path(route);
        // As the original's client: every request has a JSON body, also a GET.
        http.request(method, url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body)
            .timeout(time)
            .send()
            .await
            .map_err(CallError::from_transport)
    }

    async fn receive(
        &self,
        response: Response,
        route: &str,
        limit: u64,
    ) -> Result<Vec<u8>, CallError> {
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => {
                body::read(response, limit, route, &self.settings.observer).await
            }
            _ => Err(body::read_refusal(response).await),
        }
    }
}

struct Bounds {
    bytes: u64,
    time: Duration,
}

/// Returns the body that asks for a build.
pub(crate) fn selector(build: &BuildSelector) -> String {
    match build {
        BuildSelector::Latest => NOTHING.to_owned(),
        BuildSelector::Named(_) => build.to_members().expose_json().to_string(),
    }
}

/// Reads the reply to a call that the server may refuse with status 200, as the original may.
pub(crate) fn accepted(reply: &[u8]) -> Result<StatusReply, CallError> {
    let reply: StatusReply = body::parse_object(reply)?;
    if reply.status == "OK" || reply.status.starts_with("OK:") {
        return Ok(reply);
    }
    let message = Shown::short(&reply.status, limits::SHOWN_CHARACTERS).to_string();
    Err(CallError::Refused { code: String::new(), message, status: StatusCode::OK.as_u16() })
}

fn trust_bundle(reply: &[u8]) -> Result<TrustBundle, CallError> {
    let bundle: TrustBundle = body::parse_object(reply)?;
    if bundle.schema != TRUST_SCHEMA {
        return Err(CallError::UnexpectedReply {
            what: "its keys are in a form of another version",
        });
    }
    Ok(bundle)
}

/// What the original's client sends where it has nothing to say: an empty JSON string.
pub(crate) const NOTHING: &str = "\"\"";
