//! A registry in memory that can be made to misbehave.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{Authority, media_type};

/// A server with TLS whose answers a closure gives; it ends when dropped.
pub struct Double {
    host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    accepting: JoinHandle<()>,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(|value| value.to_str().unwrap())
    }

    pub fn is(&self, method: &Method, part_of_path: &str) -> bool {
        self.method == *method && self.path.contains(part_of_path)
    }
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl Double {
    /// Starts a server on `127.0.0.1` or `localhost`, whichever its certificate is to be for.
    pub async fn start(
        host: &str,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = acceptor(host);
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let recorded = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _): (_, SocketAddr) = listener.accept().await.unwrap();
                let (acceptor, recorded) = (acceptor.clone(), Arc::clone(&recorded));
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        // In a task of its own: what came of a body that is cut counts, and hyper
                        // drops the service when the connection ends.
                        let (recorded, answer) = (Arc::clone(&recorded), Arc::clone(&answer));
                        tokio::spawn(serve(request, recorded, answer))
                    });
                    let _ended = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { host: format!("{host}:{port}"), seen, accepting }
    }

    /// Starts a registry that keeps what it is given; `fault` can answer in its place.
    pub async fn registry(fault: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::keeping(Memory::default(), fault).await
    }

    /// Starts a registry that also lists referrers (OCI distribution specification 1.1), `page`
    /// entries at a time.
    pub async fn registry_with_referrers(
        page: usize,
        fault: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::keeping(Memory { page, ..Memory::default() }, fault).await
    }

    async fn keeping(
        memory: Memory,
        fault: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let memory = Mutex::new(memory);
        let answer =
            move |seen: &Seen| fault(seen).unwrap_or_else(|| memory.lock().unwrap().answer(seen));
        Self::start("127.0.0.1", answer).await
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns what came in so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Counts the requests of this method with this in their path.
    pub fn count(&self, method: &Method, part_of_path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method, part_of_path)).count()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    request: Request<Incoming>,
    recorded: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<impl Fn(&Seen) -> Reply + Send + Sync>,
) -> Response<Full<Bytes>> {
    let (parts, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().unwrap());
    }
    let body = Bytes::from(bytes);
    let path = parts.uri.to_string();
    let seen = Seen { method: parts.method, path, headers: parts.headers, body };
    let reply = answer(&seen);
    recorded.lock().unwrap().push(seen);
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Full::from(reply.body)).unwrap()
}

pub fn acceptor(host: &str) -> TlsAcceptor {
    let (certificate, key) = Authority::get().identity(host);
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Returns the digest of what an image manifest refers to.
fn subject(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    Some(manifest["subject"]["digest"].as_str()?.to_owned())
}

#[derive(Default)]
struct Memory {
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, (String, Bytes)>,
    uploads: HashMap<String, Vec<u8>>,
    /// How many referrers are listed at a time; 0 if none are.
    page: usize,
}

impl Memory {
    fn answer(&mut self, seen: &Seen) -> Reply {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let last = path.rsplit('/').next().unwrap().to_owned();
        if path.contains("/manifests/") {
            return self.manifest(seen, &last);
        }
        if path.contains("/referrers/") && self.page > 0 {
            return self.referrers(path, query, &last);
        }
        if path.contains("/uploads/") {
            return self.upload(seen, path, query, &last);
        }
        match self.blobs.get(&last) {
            Some(_) if seen.method == Method::HEAD => Reply::status(200),
            Some(blob) => Reply::status(200).body(blob.to_vec()),
            None => Reply::status(404),
        }
    }

    fn manifest(&mut self, seen: &Seen, reference: &str) -> Reply {
        if seen.method == Method::PUT {
            let digest = sbs_crypto::digest(&seen.body).to_string();
            let media_type = seen.headers["content-type"].to_str().unwrap().to_owned();
            self.manifests.insert(digest.clone(), (media_type.clone(), seen.body.clone()));
            self.manifests.insert(reference.to_owned(), (media_type, seen.body.clone()));
            let reply = Reply::status(201).header("docker-content-digest", digest);
            let subject = subject(&seen.body).filter(|_| self.page > 0);
            return match subject {
                Some(subject) => reply.header("oci-subject", subject),
                None => reply,
            };
        }
        match self.manifests.get(reference) {
            Some((media_type, body)) => {
                Reply::status(200).header("content-type", media_type).body(body.to_vec())
            }
            None => Reply::status(404),
        }
    }

    fn referrers(&self, path: &str, query: &str, digest: &str) -> Reply {
        let refers = |(reference, (_, body)): &(&String, &(String, Bytes))| {
            reference.starts_with("sha256:") && subject(body).as_deref() == Some(digest)
        };
        let mut found: Vec<_> = self.manifests.iter().filter(refers).collect();
        found.sort_by_key(|(digest, _)| digest.as_str());
        let entries: Vec<Value> = found
            .into_iter()
            .map(|(digest, (media_type, body))| {
                let manifest: Value = serde_json::from_slice(body).unwrap();
                json!({
                    "mediaType": media_type, "digest": digest, "size": body.len(),
                    "artifactType": manifest["artifactType"],
                    "annotations": manifest["annotations"],
                })
            })
            .collect();
        let from: usize = query.strip_prefix("from=").map_or(0, |from| from.parse().unwrap());
        let to = entries.len().min(from + self.page);
        let index = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries[from..to],
        });
        let reply = Reply::status(200).header("content-type", media_type::OCI_INDEX);
        let reply = reply.body(index.to_string());
        if to == entries.len() {
            return reply;
        }
        reply.header("link", format!("<{path}?from={to}>; rel=\"next\""))
    }

    fn upload(&mut self, seen: &Seen, path: &str, query: &str, id: &str) -> Reply {
        if seen.method == Method::POST {
            let id = format!("u{}", self.uploads.len());
            self.uploads.insert(id.clone(), Vec::new());
            return Reply::status(202).header("location", format!("{path}{id}?state=0"));
        }
        let Some(upload) = self.uploads.get_mut(id) else { return Reply::status(404) };
        let begins = seen
            .headers
            .get("content-range")
            .map_or("0", |range| range.to_str().unwrap().split('-').next().unwrap());
        let appends = begins == upload.len().to_string();
        if seen.method == Method::PATCH && !appends {
            return Reply::status(416);
        }
        upload.extend_from_slice(&seen.body);
        let range = format!("0-{}", upload.len().saturating_sub(1));
        let next = format!("{path}?state={}", upload.len());
        if seen.method == Method::GET {
            return Reply::status(204).header("range", range).header("location", next);
        }
        if seen.method == Method::PATCH {
            return Reply::status(202).header("range", range).header("location", next);
        }
        let upload = Bytes::from(self.uploads.remove(id).unwrap());
        let digest = sbs_crypto::digest(&upload).to_string();
        let claimed = query.replace("%3A", ":");
        if !claimed.ends_with(&digest) {
            let body = r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#;
            return Reply::status(400).body(body);
        }
        self.blobs.insert(digest.clone(), upload);
        Reply::status(201).header("docker-content-digest", digest)
    }
}
