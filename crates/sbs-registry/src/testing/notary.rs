//! Debian's `notary-server`, and the `notary` client as the judge of what is on it.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::Authority;

/// A Notary server on `127.0.0.1` that keeps everything in memory. It ends when dropped.
pub struct RealNotary {
    child: Child,
    directory: TempDir,
    port: u16,
    clients: AtomicU32,
}

impl RealNotary {
    pub async fn start() -> Self {
        Self::start_with(&json!({})).await
    }

    /// Starts a server that wants tokens of the server at `realm`.
    pub async fn start_with_tokens(realm: &str) -> Self {
        // The certificates are put in when their place is known.
        let options = json!({
            "realm": realm, "service": "the notary", "issuer": "i", "rootcertbundle": "",
        });
        Self::start_with(&json!({ "type": "token", "options": options })).await
    }

    async fn start_with(auth: &Value) -> Self {
        for _ in 0..5 {
            if let Some(started) = Self::try_start(auth.clone()).await {
                return started;
            }
        }
        panic!("notary-server does not start; is Debian's package `notary` installed?");
    }

    /// Returns `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns a client that has never seen anything.
    pub fn client(&self) -> NotaryClient {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        NotaryClient {
            directory: self.directory.path().join(format!("client{number}")),
            ca: self.directory.path().join("ca.pem"),
            server: format!("https://{}", self.host()),
        }
    }

    /// Returns such a client of another server, whose certificate is by the same authority.
    pub fn client_of(&self, host: &str) -> NotaryClient {
        NotaryClient { server: format!("https://{host}"), ..self.client() }
    }

    /// Asks for something without a token; returns what the server wants.
    pub async fn challenge(&self, path: &str) -> String {
        let response = self.ask(path).await;
        response.headers()["www-authenticate"].to_str().unwrap().to_owned()
    }

    /// Returns a document.
    pub async fn get(&self, path: &str) -> String {
        self.ask(path).await.error_for_status().unwrap().text().await.unwrap()
    }

    async fn ask(&self, path: &str) -> reqwest::Response {
        let authority = reqwest::Certificate::from_pem(Authority::get().ca_pem.as_bytes());
        let client = reqwest::Client::builder().tls_certs_merge([authority.unwrap()]);
        let url = format!("https://{}{path}", self.host());
        client.build().unwrap().get(url).send().await.unwrap()
    }

    async fn try_start(mut auth: Value) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (certificate, key) = Authority::get().identity("127.0.0.1");
        std::fs::write(at("ca.pem"), &Authority::get().ca_pem).unwrap();
        std::fs::write(at("server.pem"), certificate).unwrap();
        std::fs::write(at("server.key"), key).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if let Some(bundle) = auth.pointer_mut("/options/rootcertbundle") {
            *bundle = json!(at("ca.pem"));
        }
        let config = json!({
            "server": {
                "http_addr": format!("127.0.0.1:{port}"),
                "tls_cert_file": at("server.pem"),
                "tls_key_file": at("server.key"),
            },
            "trust_service": { "type": "local" },
            "storage": { "backend": "memory" },
            "auth": auth,
            "logging": { "level": "error" },
        });
        std::fs::write(at("server.json"), config.to_string()).unwrap();
        let child = start(&at("server.json"));
        let mut started = Self { child, directory, port, clients: AtomicU32::new(0) };
        for _ in 0..400 {
            if TcpStream::connect(started.host()).await.is_ok() {
                return Some(started);
            }
            // Another process took the port in between.
            if started.child.try_wait().unwrap().is_some() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        None
    }
}

impl Drop for RealNotary {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The `notary` client with what it remembers.
pub struct NotaryClient {
    directory: PathBuf,
    ca: PathBuf,
    server: String,
}

impl NotaryClient {
    /// Runs the client; returns what it prints, or what it complains of.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.run_with(arguments, "")
    }

    /// Runs the client and says yes to what it asks.
    pub fn confirm(&self, arguments: &[&str]) -> Result<String, String> {
        self.run_with(arguments, "yes\n")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        #[expect(clippy::disallowed_methods, reason = "a judge runs as its users run it")]
        let mut command = std::process::Command::new("notary");
        command.arg("-s").arg(&self.server).arg("-d").arg(&self.directory);
        command.arg("--tlscacert").arg(&self.ca).args(arguments);
        for role in ["ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"] {
            command.env(format!("NOTARY_{role}_PASSPHRASE"), "a passphrase");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Not an error: most of what it does, it does without asking.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Makes a repository whose owner is this client.
    pub fn create(&self, gun: &str) {
        self.run(&["init", gun]).unwrap();
        self.run(&["key", "rotate", gun, "snapshot", "-r"]).unwrap();
        self.run(&["publish", gun]).unwrap();
    }

    /// Signs a digest for a name.
    pub fn add(&self, gun: &str, name: &str, hex: &str, size: u64, options: &[&str]) {
        let size = size.to_string();
        let arguments = ["addhash", gun, name, &size, "--sha256", hex, "-p"];
        self.run(&[&arguments[..], options].concat()).unwrap();
    }

    /// Returns name, digest, size and role of everything that is signed, sorted.
    pub fn list(&self, gun: &str) -> Vec<String> {
        let text = self.run(&["list", gun]).unwrap();
        // Two lines of heads.
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).skip(2);
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

fn start(config: &Path) -> Child {
    #[expect(clippy::disallowed_methods, reason = "a server for tests is no tool of a build")]
    let mut command = std::process::Command::new("notary-server");
    command.arg("-config").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}
