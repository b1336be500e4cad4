use std::error::Error;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder, Identity, Method, Version};
use tokio::runtime::{Builder, Runtime};

/// An HTTPS client for one call after the other, which trusts one authority.
#[derive(Debug)]
pub struct Http {
    client: reqwest::Client,
    runtime: Runtime,
}

/// A reply, whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The body.
    pub body: Vec<u8>,
    /// The media type, as it came.
    pub content_type: String,
    /// The status.
    pub status: u16,
}

impl Reply {
    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }
}

impl Http {
    /// Makes a client that trusts `authority` (PEM) and presents `identity`, a certificate followed
    /// by its key (PEM), if there is one.
    pub fn new(authority: &str, identity: Option<&str>) -> Result<Self> {
        let trust = Certificate::from_pem_bundle(authority.as_bytes())?;
        let mut builder = ClientBuilder::new()
            .tls_certs_only(trust)
            .https_only(true)
            .no_proxy()
            .redirect(Policy::none())
            // Nothing runs between two calls: a connection that the server closes meanwhile would
            // be found closed too late.
            .pool_idle_timeout(Duration::from_secs(1))
            .timeout(Duration::from_mins(1));
        if let Some(identity) = identity {
            builder = builder.identity(Identity::from_pem(identity.as_bytes())?);
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client: builder.build()?, runtime })
    }

    /// Sends a request and reads its reply. An error shows its causes.
    pub fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Reply> {
        let method = Method::from_bytes(method.as_bytes())?;
        let mut request = self.client.request(method, url).version(Version::HTTP_11);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body.to_vec());
        }
        self.runtime.block_on(async {
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => bail!("{url}: {}", chain(&error)),
            };
            let content_type = response.headers().get("content-type");
            let content_type = content_type.and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or_default().to_owned();
            let status = response.status().as_u16();
            Ok(Reply { body: response.bytes().await?.to_vec(), content_type, status })
        })
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
