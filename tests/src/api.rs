use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_proto::{Progress, StatusText};
use serde::Deserialize;
use serde_json::Value;

use crate::{Http, Reply, wait_until};

/// A client that puts the bytes on the wire that the original's client puts there.
#[derive(Debug)]
pub struct Api {
    base: String,
    http: Http,
}

/// A status, as it comes over the wire; a key that is missing is an empty string here.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Status {
    /// The tag of the server's own image, from `init`.
    pub build_image_tag: String,
    /// The name of the build.
    pub build_name: String,
    /// The tag of the image.
    pub image_tag: String,
    /// How the manifest key was made.
    pub manifest_key_gen: String,
    /// The name of the file of the manifest's key.
    pub manifest_public_key: String,
    /// What was done last, or what failed.
    pub status: StatusText,
}

impl Api {
    /// Makes a client of the server at `localhost:port`; `authority` and `identity` are PEM.
    pub fn new(port: u16, authority: &str, identity: Option<&str>) -> Result<Self> {
        let http = Http::new(authority, identity)?;
        Ok(Self { base: format!("https://localhost:{port}"), http })
    }

    /// Sends a request with the headers of the original's client.
    pub fn send(&self, method: &str, path: &str, body: &str) -> Result<Reply> {
        let url = format!("{}{path}", self.base);
        let headers = [
            ("user-agent", "python-requests/2.34.2"),
            ("accept", "*/*"),
            ("connection", "keep-alive"),
            ("content-type", "application/json"),
        ];
        self.http.send(method, &url, &headers, Some(body.as_bytes()))
    }

    /// Sends any body, of any type, as our own client may.
    pub fn send_bytes(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Reply> {
        let url = format!("{}{path}", self.base);
        self.http.send("POST", &url, &[("content-type", content_type)], Some(body))
    }

    /// Sends a request that has no body: the original sends the two bytes `""`.
    pub fn call(&self, method: &str, path: &str) -> Result<Reply> {
        self.send(method, path, "\"\"")
    }

    /// Returns the status.
    pub fn status(&self) -> Result<Status> {
        let reply = self.call("GET", "/image")?;
        ensure!(reply.status == 200, "GET /image: {} {}", reply.status, reply.text());
        Ok(serde_json::from_slice(&reply.body)?)
    }

    /// Returns the log of the last build; empty where there is none.
    pub fn log(&self) -> Result<String> {
        let reply = self.call("GET", "/log/build")?;
        if reply.status != 200 {
            return Ok(String::new());
        }
        Ok(reply.json()?["log"].as_str().context("no log in the reply")?.to_owned())
    }

    /// Returns the name and the bytes of the last build's manifest.
    pub fn manifest(&self) -> Result<(String, Vec<u8>)> {
        let reply = self.call("GET", "/manifest")?;
        ensure!(reply.status == 200, "GET /manifest: {} {}", reply.status, reply.text());
        let reply = reply.json()?;
        let text = |key: &str| reply[key].as_str().with_context(|| format!("no {key}"));
        Ok((text("manifest_name")?.to_owned(), STANDARD.decode(text("encoded_manifest")?)?))
    }

    /// Returns the public key of the last build's manifest, PEM.
    pub fn public_key(&self) -> Result<String> {
        let reply = self.call("GET", "/publickey")?;
        ensure!(reply.status == 200, "GET /publickey: {} {}", reply.status, reply.text());
        Ok(reply.json()?["public_key_pem"].as_str().context("no key in the reply")?.to_owned())
    }

    /// Returns `registry/repository@digest` of the last image.
    pub fn image_digest(&self) -> Result<String> {
        let reply = self.call("GET", "/imagedigest")?;
        ensure!(reply.status == 201, "GET /imagedigest: {} {}", reply.status, reply.text());
        let Value::String(digest) = reply.json()? else { anyhow::bail!("no JSON string") };
        Ok(digest)
    }

    /// Starts a build, which the server must accept.
    pub fn start_build(&self) -> Result<()> {
        let reply = self.call("PUT", "/image")?;
        ensure!(reply.status == 200, "PUT /image: {} {}", reply.status, reply.text());
        Ok(())
    }

    /// Waits for the end of the build that runs.
    pub fn wait_for_end(&self) -> Result<Status> {
        wait_until("the end of the build", BUILD_LIMIT, || {
            let status = self.status()?;
            Ok((status.status.progress() != Progress::Running).then_some(status))
        })
    }

    /// Builds, and fails with the log unless the build succeeds.
    pub fn build(&self) -> Result<Status> {
        self.start_build()?;
        let status = self.wait_for_end()?;
        ensure!(
            status.status.progress() == Progress::Succeeded,
            "the build ended with `{}`:\n{}",
            status.status,
            self.log()?
        );
        Ok(status)
    }

    /// Builds, and fails unless the build fails. Returns its status text and its log.
    pub fn build_failing(&self) -> Result<(String, String)> {
        self.start_build()?;
        let status = self.wait_for_end()?;
        let log = self.log()?;
        ensure!(
            status.status.progress() == Progress::Failed,
            "the build should fail and ended with `{}`:\n{log}",
            status.status
        );
        Ok((status.status.to_string(), log))
    }
}

const BUILD_LIMIT: Duration = Duration::from_mins(3);
