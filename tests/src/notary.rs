use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{Account, Authority, Daemon, Outcome, Registry, outcome, output, program, wait_until};

/// Debian's notary-server on loopback, with TLS, that keeps everything in memory.
#[derive(Debug)]
pub struct Notary {
    directory: PathBuf,
    port: u16,
    #[expect(dead_code, reason = "it ends with its handle")]
    daemon: Daemon,
}

impl Notary {
    /// Starts a server in `directory`, which must not exist yet.
    pub fn start(authority: &Authority, directory: &Path) -> Result<Self> {
        fs::create_dir(directory)?;
        let leaf = authority.issue_loopback("notary")?;
        let at = |name: &str| directory.join(name);
        fs::write(at("ca.pem"), &authority.pem)?;
        fs::write(at("server.pem"), &leaf.certificate)?;
        fs::write(at("server.key"), &leaf.key)?;
        // It cannot tell which port it was given: one that was free a moment ago is named.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = json!({
            "server": {
                "http_addr": format!("127.0.0.1:{port}"),
                "tls_cert_file": at("server.pem"),
                "tls_key_file": at("server.key"),
            },
            "trust_service": { "type": "local" },
            "storage": { "backend": "memory" },
            "logging": { "level": "info" },
        });
        fs::write(at("server.json"), config.to_string())?;
        let mut command = program("notary-server");
        command.arg("-config").arg(at("server.json"));
        let mut daemon = Daemon::spawn("notary-server", &mut command, &at("log"))?;
        let address = format!("127.0.0.1:{port}");
        wait_until("the notary", crate::process::START_LIMIT, || {
            daemon.ensure_running()?;
            Ok(std::net::TcpStream::connect(&address).ok())
        })?;
        Ok(Self { directory: directory.to_owned(), port, daemon })
    }

    /// Returns `https://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Runs the `notary` client, which keeps its own keys and what it has seen under `name`.
    pub fn client(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let mut command = program("notary");
        command.args(["-s", &self.url()]).arg("-d").arg(self.directory.join(name));
        command.arg("--tlscacert").arg(self.directory.join("ca.pem")).args(arguments);
        for role in ["ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"] {
            command.env(format!("NOTARY_{role}_PASSPHRASE"), "a passphrase");
        }
        output(&mut command)
    }

    /// Signs a digest for a tag of a repository whose owner is the client `name`.
    pub fn sign(&self, name: &str, gun: &str, tag: &str, (hex, size): (&str, u64)) -> Result<()> {
        if self.client(name, &["list", gun]).is_err() {
            self.client(name, &["init", gun])?;
            self.client(name, &["key", "rotate", gun, "snapshot", "-r"])?;
            self.client(name, &["publish", gun])?;
        }
        let size = size.to_string();
        self.client(name, &["addhash", gun, tag, &size, "--sha256", hex, "-p"])?;
        Ok(())
    }
}

/// Docker's daemon and its client, with content trust: the judge of what a notary says.
#[derive(Debug)]
pub struct Docker {
    directory: PathBuf,
    notary: String,
    #[expect(dead_code, reason = "it ends with its handle")]
    daemon: Daemon,
}

impl Docker {
    /// Starts a daemon in `directory`, which must not exist yet, and logs its client in.
    pub fn start(
        directory: &Path,
        authority: &Authority,
        registry: &Registry,
        account: &Account,
        notary: &Notary,
    ) -> Result<Self> {
        let config = directory.join("config");
        let host = notary.url().trim_start_matches("https://").to_owned();
        fs::create_dir_all(config.join("tls").join(&host))?;
        fs::write(config.join("tls").join(&host).join("ca.crt"), &authority.pem)?;
        let auth = {
            use base64::Engine as _;
            let pair = format!("{}:{}", account.user, account.password);
            base64::engine::general_purpose::STANDARD.encode(pair)
        };
        let auths = json!({ "auths": { registry.host(): { "auth": auth } } });
        fs::write(config.join("config.json"), auths.to_string())?;
        let mut command = program("dockerd");
        command.arg("--data-root").arg(directory.join("data"));
        command.arg("--exec-root").arg(directory.join("exec"));
        command.arg("--pidfile").arg(directory.join("pid"));
        command.arg("--host").arg(socket(directory));
        // Nothing of the machine's network is changed, and nothing runs.
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.args(["--storage-driver=vfs"]);
        let mut daemon = Daemon::spawn("dockerd", &mut command, &directory.join("log"))?;
        daemon.wait_for("API listen on")?;
        Ok(Self { directory: directory.to_owned(), notary: notary.url(), daemon })
    }

    /// Runs the client with content trust, as somebody who has seen nothing yet of any notary but
    /// what this client has seen.
    pub fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        outcome(&mut self.command(arguments))
    }

    /// Returns what `docker trust inspect` says of a repository or a tag of it.
    pub fn trust_inspect(&self, image: &str) -> Result<serde_json::Value> {
        let text = output(&mut self.command(&["trust", "inspect", image]))?;
        serde_json::from_str(&text).context("what docker trust inspect prints")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program("docker");
        command.args(arguments);
        command.env("DOCKER_HOST", socket(&self.directory));
        command.env("DOCKER_CONFIG", self.directory.join("config"));
        command.env("DOCKER_CONTENT_TRUST", "1");
        command.env("DOCKER_CONTENT_TRUST_SERVER", &self.notary);
        command
    }
}

fn socket(directory: &Path) -> String {
    format!("unix://{}", directory.join("docker.sock").display())
}
