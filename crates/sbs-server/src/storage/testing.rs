//! A real S3 server (s3s on a directory) in the test's own process, with a place in front of it
//! where a test can be the fault, and a double for IBM's token service.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, RANGE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use sbs_proto::{Definition, Members};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{OpenStorage as _, Plaintext, Storage, StorageClient, StorageError, StorageLimits};
use sbs_registry::testing::Authority;
use sbs_registry::testing::double::acceptor;

pub(crate) const ID: &str = "AKIDTESTTESTTESTTEST";
pub(crate) const SECRET: &str = "canary-secret-key/+7f31";
pub(crate) const API_KEY: &str = "canary api key/+&=%41";
pub(crate) const CRN: &str = "crn:v1:bluemix:public:cloud-object-storage:global:a/1:2::";

/// What happens to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Act {
    /// The connection ends after so many bytes of the answer.
    Cut(usize),
    /// One bit of what was sent is another one when it arrives.
    Flip,
    /// There is no answer.
    Hang,
    Pass,
    /// An answer of this status, with this error code; 503 asks for a second's pause.
    Refuse(u16, &'static str),
}

pub(crate) type Script = dyn Fn(&Parts, usize) -> Act + Send + Sync;

/// An S3 server; it ends when dropped.
pub(crate) struct TestStorage {
    accepting: JoinHandle<()>,
    directory: tempfile::TempDir,
    seen: Arc<Mutex<Vec<String>>>,
    url: String,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Security {
    Http,
    Tls,
}

#[derive(Clone)]
struct Front {
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<String>>>,
    service: S3Service,
    tokens: Option<Arc<Tokens>>,
}

/// What the double of IBM's services knows of tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    granted: Mutex<usize>,
    /// Tokens up to this number are refused.
    pub(crate) ended: Mutex<usize>,
    /// Seconds that a token is said to live; an hour where none.
    pub(crate) lifetime: Mutex<Option<u64>>,
}

impl TestStorage {
    /// Starts a server with the bucket `manifests` that takes one access key.
    pub(crate) async fn start(security: Security, script: Box<Script>) -> Self {
        Self::start_with(security, script, None).await
    }

    /// Starts a server that takes tokens, which it also hands out for one API key.
    pub(crate) async fn start_ibm(tokens: Arc<Tokens>, script: Box<Script>) -> Self {
        Self::start_with(Security::Tls, script, Some(tokens)).await
    }

    async fn start_with(
        security: Security,
        script: Box<Script>,
        tokens: Option<Arc<Tokens>>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("manifests")).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory.path()).unwrap());
        if tokens.is_none() {
            builder.set_auth(SimpleAuth::from_single(ID, SECRET));
        }
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (script, service) = (Arc::from(script), builder.build());
        let front = Front { script, seen: Arc::clone(&seen), service, tokens };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let front = front.clone();
                tokio::spawn(async move {
                    let service =
                        hyper::service::service_fn(move |request| front.clone().serve(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ended = match security {
                        Security::Http => {
                            http.serve_connection(TokioIo::new(stream), service).await
                        }
                        Security::Tls => {
                            let Ok(stream) = acceptor("127.0.0.1").accept(stream).await else {
                                return;
                            };
                            http.serve_connection(TokioIo::new(stream), service).await
                        }
                    };
                });
            }
        });
        let scheme = if security == Security::Tls { "https" } else { "http" };
        Self { accepting, directory, seen, url: format!("{scheme}://{address}") }
    }

    /// Returns where an object is kept.
    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.directory.path().join("manifests").join(name)
    }

    /// Returns the names of everything that the server keeps, parts of uploads included.
    pub(crate) fn everything(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut directories = vec![self.directory.path().to_owned()];
        while let Some(at) = directories.pop() {
            for entry in std::fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        names.sort();
        names
    }

    /// Returns the requests so far, as `METHOD path?query range`.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|request| request.contains(part)).count()
    }

    /// Returns the keys of a definition whose manifests go here.
    pub(crate) fn keys(&self) -> Vec<(&'static str, String)> {
        vec![
            ("MANIFEST_BUCKET_NAME", "manifests".to_owned()),
            ("MANIFEST_COS_ENDPOINT", self.url.clone()),
            ("MANIFEST_COS_ACCESS_KEY_ID", ID.to_owned()),
            ("MANIFEST_COS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// Returns the same for the double of IBM's services.
    pub(crate) fn ibm_keys(&self) -> Vec<(&'static str, String)> {
        vec![
            ("MANIFEST_BUCKET_NAME", "manifests".to_owned()),
            ("MANIFEST_COS_ENDPOINT", self.url.clone()),
            ("MANIFEST_COS_API_KEY_ID", API_KEY.replace(' ', "_")),
            ("MANIFEST_COS_RESOURCE_CRN", CRN.to_owned()),
            ("MANIFEST_COS_AUTH_ENDPOINT", format!("{}/oidc/token", self.url)),
        ]
    }
}

impl Drop for TestStorage {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

impl Front {
    async fn serve(self, request: Request<Incoming>) -> Result<Answer, io::Error> {
        let (mut parts, body) = request.into_parts();
        let before = {
            let mut seen = self.seen.lock().unwrap();
            let range = parts.headers.get(RANGE).and_then(|range| range.to_str().ok());
            seen.push(format!("{} {} {}", parts.method, parts.uri, range.unwrap_or_default()));
            seen.len() - 1
        };
        let mut body = match body.collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            Err(_) => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        let act = (self.script)(&parts, before);
        match act {
            Act::Hang => std::future::pending().await,
            Act::Refuse(status, code) => return Ok(refusal(status, code)),
            Act::Flip => body[0] ^= 1,
            Act::Cut(_) | Act::Pass => {}
        }
        if let Some(tokens) = &self.tokens
            && let Some(answer) = tokens.answer(&parts, &body)
        {
            return Ok(answer);
        }
        if self.tokens.is_some() {
            parts.headers.remove(AUTHORIZATION);
        }
        let request = Request::from_parts(parts, s3s::Body::from(body));
        let answer = self.service.call(request).await.unwrap();
        let (mut parts, body) = answer.into_parts();
        let body = BodyExt::collect(body).await.unwrap().to_bytes();
        parts.headers.remove(TRANSFER_ENCODING);
        parts.headers.entry(CONTENT_LENGTH).or_insert(body.len().into());
        let Act::Cut(at) = act else { return Ok(Response::from_parts(parts, full(body))) };
        let cut = io::Error::from(io::ErrorKind::ConnectionReset);
        let data = stream::iter([Ok(Frame::data(body.slice(..at)))]);
        let pieces = data.chain(stream::once(async {
            // What hyper has not sent yet would be lost with the connection.
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(cut)
        }));
        Ok(Response::from_parts(parts, BodyExt::boxed(StreamBody::new(pieces))))
    }
}

impl Tokens {
    pub(crate) fn granted(&self) -> usize {
        *self.granted.lock().unwrap()
    }

    /// Answers what IBM's services would not pass on to a bucket.
    fn answer(&self, parts: &Parts, body: &[u8]) -> Option<Answer> {
        if parts.uri.path() == "/oidc/token" {
            return Some(self.grant(parts, body));
        }
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let token = header("authorization").and_then(|text| text.strip_prefix("Bearer token-"));
        let number = token.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
        if number == 0 || number > self.granted() || number <= *self.ended.lock().unwrap() {
            return Some(refusal(401, "TokenExpired"));
        }
        // Objects of a bucket are had without it, too.
        if header("ibm-service-instance-id").is_some_and(|instance| instance != CRN) {
            return Some(refusal(400, "WrongServiceInstance"));
        }
        None
    }

    fn grant(&self, parts: &Parts, body: &[u8]) -> Answer {
        let fields: Vec<(String, String)> =
            url::form_urlencoded::parse(body).into_owned().collect();
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, v)| &**v);
        let good = parts.method == Method::POST
            && field("grant_type") == Some("urn:ibm:params:oauth:grant-type:apikey")
            && field("apikey") == Some(&API_KEY.replace(' ', "_"));
        if !good {
            let text = r#"{"errorCode":"BXNIM0415E","errorMessage":"canary: key not found"}"#;
            return Response::builder().status(400).body(full(Bytes::from(text))).unwrap();
        }
        let mut granted = self.granted.lock().unwrap();
        *granted += 1;
        let lifetime = self.lifetime.lock().unwrap().unwrap_or(3600);
        let json = serde_json::json!({
            "access_token": format!("token-{granted}"), "refresh_token": "not_supported",
            "token_type": "Bearer", "expires_in": lifetime,
        });
        Response::new(full(Bytes::from(json.to_string())))
    }
}

fn refusal(status: u16, code: &str) -> Answer {
    let text = format!("<Error><Code>{code}</Code><Message>canary</Message></Error>");
    let mut answer = Response::builder().status(status);
    if status == 503 {
        answer = answer.header("retry-after", "1");
    }
    answer.body(full(Bytes::from(text))).unwrap()
}

fn full(bytes: Bytes) -> BoxBody<Bytes, io::Error> {
    BodyExt::boxed(Full::new(bytes).map_err(|never| match never {}))
}

/// A script in which nothing goes wrong.
pub(crate) fn well() -> Box<Script> {
    Box::new(|_, _| Act::Pass)
}

/// Limits with which a test does not wait.
pub(crate) fn quick() -> StorageLimits {
    StorageLimits {
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(10),
        ..StorageLimits::default()
    }
}

pub(crate) fn client(limits: StorageLimits, plaintext: Plaintext) -> StorageClient {
    StorageClient::new(Authority::get().ca_pem.as_bytes(), limits, plaintext).unwrap()
}

/// Opens the bucket that these keys of a definition name.
pub(crate) fn open(
    client: &StorageClient,
    keys: &[(&'static str, String)],
) -> Result<Box<dyn Storage>, StorageError> {
    let definition = definition(keys);
    let target = definition.manifest_storage.unwrap();
    client.open(&target.access, &target.bucket, sbs_proto::StoragePurpose::Manifest)
}

/// Returns a definition with these keys.
pub(crate) fn definition(keys: &[(&'static str, String)]) -> Definition {
    let json = serde_json::json!({
        "RUNTIME_TYPE": "vpc", "GITHUB_URL": "git@git.example:u/r.git", "DOCKER_REPO": "ns/app",
        "DOCKER_USER": "u", "DOCKER_PASSWORD": "p",
    });
    let mut members = Members::parse(json.to_string().as_bytes()).unwrap();
    for (key, value) in keys {
        members.insert(key, value.clone());
    }
    Definition::parse(&members).unwrap()
}
