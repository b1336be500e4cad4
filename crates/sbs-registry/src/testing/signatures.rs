//! A registry that keeps signatures: `docker-registry` behind a proxy that adds the extension.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::double::{Double, Reply, Seen};
use super::real::RealRegistry;
use super::{Authority, PASSWORD, USER};

/// The proxy; it ends when dropped. Needs a runtime of several threads.
pub struct SignatureRegistry {
    double: Double,
    kept: Kept,
}

/// The list of signatures for each path.
type Kept = Arc<Mutex<HashMap<String, Vec<Value>>>>;

impl SignatureRegistry {
    /// Starts a proxy in front of `registry`; `fault` can answer in its place.
    pub async fn start(
        registry: &RealRegistry,
        fault: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::get().ca_pem.clone();
        let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
        let client =
            reqwest::Client::builder().tls_certs_merge([authority]).no_proxy().build().unwrap();
        let (origin, kept) = (format!("https://{}", registry.host()), Kept::default());
        let answering = Arc::clone(&kept);
        let double = Double::start("127.0.0.1", move |seen| {
            fault(seen).unwrap_or_else(|| match seen.path.strip_prefix("/extensions/v2/") {
                Some(path) => extension(&answering, seen, path),
                None => tokio::task::block_in_place(|| {
                    Handle::current().block_on(forward(&client, &origin, seen))
                }),
            })
        })
        .await;
        Self { double, kept }
    }

    pub fn host(&self) -> &str {
        self.double.host()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.double.seen()
    }

    /// Returns everything that was put here.
    pub fn kept(&self) -> Vec<Value> {
        self.kept.lock().unwrap().values().flatten().cloned().collect()
    }

    /// Puts something among the signatures for an image.
    pub fn keep(&self, repository: &str, digest: &str, entry: Value) {
        let path = format!("{repository}/signatures/{digest}");
        self.kept.lock().unwrap().entry(path).or_default().push(entry);
    }
}

fn extension(kept: &Kept, seen: &Seen, path: &str) -> Reply {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    if seen.authorization() != Some(&format!("Basic {pair}")) {
        return Reply::status(401).header("www-authenticate", "Basic realm=\"r\"");
    }
    let mut kept = kept.lock().unwrap();
    if seen.method != Method::PUT {
        let list = json!({ "signatures": kept.get(path) });
        return Reply::status(200).body(list.to_string());
    }
    let entry: Value = serde_json::from_slice(&seen.body).unwrap();
    let there = kept.entry(path.to_owned()).or_default();
    if there.iter().any(|other| other["name"] == entry["name"]) {
        return Reply::status(409);
    }
    there.push(entry);
    Reply::status(201)
}

async fn forward(client: &reqwest::Client, origin: &str, seen: &Seen) -> Reply {
    let mut request = client.request(seen.method.clone(), format!("{origin}{}", seen.path));
    for (name, value) in &seen.headers {
        if name != "host" {
            request = request.header(name, value);
        }
    }
    let answer = request.body(seen.body.clone()).send().await.unwrap();
    let mut reply = Reply::status(answer.status().as_u16());
    for name in PASSED_ON {
        for value in answer.headers().get_all(name) {
            // Uploads go on here, too.
            let own = format!("https://{}", seen.headers["host"].to_str().unwrap());
            reply = reply.header(name, value.to_str().unwrap().replace(origin, &own));
        }
    }
    if seen.path == "/v2/" {
        reply = reply.header("x-registry-supports-signatures", "1");
    }
    reply.body(answer.bytes().await.unwrap())
}

const PASSED_ON: [&str; 5] = [
    "content-type",
    "docker-content-digest",
    "docker-distribution-api-version",
    "location",
    "www-authenticate",
];
