use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use rustix::process::{Pid, Signal, kill_process};
use sbs_proto::Digest;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::tls::connect;
use crate::{Api, Authority, Leaf, ServerSetup, TestServer, TlsStream, outcome, program};

/// A server with an authority of clients and nothing to work with: for what is decided before a
/// build is asked for.
#[derive(Debug)]
pub struct BareServer {
    // The server ends before its directory is removed.
    /// The server.
    pub server: TestServer,
    /// The authority of its clients.
    pub authority: Authority,
    /// A certificate of a client, with its key.
    pub client: Leaf,
    directory: TempDir,
}

impl BareServer {
    /// Starts a server that has no certificate.
    pub fn start() -> Result<Self> {
        let authority = Authority::new("Client CA")?;
        Self::start_with(authority, None, |_| String::new())
    }

    /// Starts a server with this authority of clients, with `SERVER_CRT` and `SERVER_KEY`, if any, and
    /// with the tables of settings that `settings` makes of the path of its directory.
    pub fn start_with(
        authority: Authority,
        server: Option<&Leaf>,
        settings: impl FnOnce(&Path) -> String,
    ) -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        let directory = temporary.path().join("server");
        fs::create_dir(&directory)?;
        let mut environment = vec![variable("CLIENT_CA", &authority.pem)];
        if let Some(server) = server {
            environment.push(variable("SERVER_CRT", &server.certificate));
            environment.push(variable("SERVER_KEY", &server.key));
        }
        let settings = settings(&directory);
        let now = OffsetDateTime::now_utc();
        let client =
            authority.issue_client(now - Duration::days(1), Duration::days(2), &[ClientAuth])?;
        let server = TestServer::start(ServerSetup { directory, environment, settings })?;
        Ok(Self { server, authority, client, directory: temporary })
    }

    /// Makes a client that believes what stands under `trusted` (PEM).
    pub fn api(&self, trusted: &str) -> Result<Api> {
        Api::new(self.server.port(), trusted, Some(&self.client.bundle()))
    }

    /// Connects with the client's certificate, for what no client would send.
    pub fn connect(&self) -> Result<TlsStream> {
        connect(self.server.port(), &self.authority.pem, &self.client.bundle())
    }

    /// Has the server load its files again.
    pub fn hang_up(&self) -> Result<()> {
        let id = self.server.process_id().context("the server runs")?;
        let id = Pid::from_raw(i32::try_from(id)?).context("a number of a process")?;
        Ok(kill_process(id, Signal::HUP)?)
    }

    /// Returns the certificate that the server shows, PEM, as openssl prints it.
    pub fn shown(&self) -> Result<String> {
        let connect = format!("localhost:{}", self.server.port());
        let mut openssl = program("openssl");
        openssl.args(["s_client", "-connect", &connect, "-showcerts"]);
        // Its exit code tells that no client certificate was given.
        let told = outcome(&mut openssl)?.stdout;
        let end = "-----END CERTIFICATE-----\n";
        let (_, text) = told.split_once("-----BEGIN").with_context(|| told.clone())?;
        let (pem, _) = text.split_once(end).with_context(|| told.clone())?;
        Ok(format!("-----BEGIN{pem}{end}"))
    }

    /// Returns the digest of the certificate that the server shows.
    pub fn shown_digest(&self) -> Result<Digest> {
        Ok(sbs_crypto::pki::describe(&self.shown()?)?.sha256)
    }

    /// Asks for a request for this host, over v1.
    pub fn request(&self, api: &Api, host: &str) -> Result<String> {
        let reply = api.call("GET", &format!("/csr/{host}"))?;
        anyhow::ensure!(reply.status == 200, "GET /csr: {} {}", reply.status, reply.text());
        Ok(reply.json()?["csr"].as_str().context("no csr in the reply")?.to_owned())
    }

    /// Returns a path beside the server's settings and data.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("server").join(name)
    }
}

/// Makes a variable of the server's environment of a PEM text.
pub fn variable(name: &str, pem: &str) -> (String, String) {
    (name.to_owned(), STANDARD.encode(pem))
}
