use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::tls::connect;
use crate::{Api, Parts, Repository, Sbs, ServerSetup, Status, TestServer, TlsStream};

/// Everything: the parts, a server that knows them, and a command line that is configured for it.
///
/// The image goes to the repository `team/app` of the registry.
#[derive(Debug)]
pub struct World {
    // In the order of their end: the server first, the directory, which is in the parts, last.
    /// The server.
    pub server: TestServer,
    /// The command line, configured with everything but `GITHUB_URL`.
    pub sbs: Sbs,
    /// What the server works with.
    pub parts: Parts,
}

impl World {
    /// The repository that images are pushed to.
    pub const REPOSITORY: &str = "team/app";

    /// Starts everything. Steps of a Dockerfile have no network.
    pub fn start() -> Result<Self> {
        Self::start_with("network = \"none\"\n")
    }

    /// Starts everything, with other lines in the table `[build]` of the server's settings.
    pub fn start_with(build_settings: &str) -> Result<Self> {
        let parts = Parts::start()?;
        let settings = Self::settings(&parts, build_settings)?;
        Self::start_on(parts, settings)
    }

    /// Starts a server and a command line on these parts, with these tables of settings.
    pub fn start_on(parts: Parts, settings: String) -> Result<Self> {
        let sbs = Self::configure(&parts)?;
        let environment = sbs.make_certificates()?;
        let directory = parts.path().join("server");
        fs::create_dir(&directory)?;
        let server = TestServer::start(ServerSetup { directory, environment, settings })?;
        sbs.set("CICD_PORT", server.port().to_string())?;
        Ok(Self { server, sbs, parts })
    }

    /// Starts another server, with other keys, on the parts and the configuration of a world whose
    /// server has ended.
    pub fn start_beside(world: Self) -> Result<Self> {
        let Self { server, sbs, parts } = world;
        drop(server);
        let settings = Self::settings(&parts, "network = \"none\"\n")?;
        let environment = sbs.make_certificates()?;
        let directory = parts.path().join("second-server");
        fs::create_dir(&directory)?;
        let server = TestServer::start(ServerSetup { directory, environment, settings })?;
        sbs.set("CICD_PORT", server.port().to_string())?;
        Ok(Self { server, sbs, parts })
    }

    /// Writes what the settings name, and returns the tables of the server's settings.
    pub fn settings(parts: &Parts, build_settings: &str) -> Result<String> {
        let authority = parts.path().join("authority.pem");
        fs::write(&authority, &parts.authority.pem)?;
        let known_hosts = parts.path().join("known_hosts");
        fs::write(&known_hosts, parts.ssh.known_hosts()?)?;
        let (authority, known_hosts) = (authority.display(), known_hosts.display());
        Ok(format!(
            "[build]\n{build_settings}\
             [git]\nknown-hosts = \"{known_hosts}\"\nca-file = \"{authority}\"\n\
             [registry]\nca-file = \"{authority}\"\n\
             [storage]\nca-file = \"{authority}\"\n"
        ))
    }

    /// Makes a command line that is configured for the parts; the server's port is not yet known.
    pub fn configure(parts: &Parts) -> Result<Sbs> {
        let Value::Object(config) = json!({
            "HOSTNAME": "localhost",
            "IMAGE_TAG": "1.0.0",
            "GITHUB_KEY_FILE": parts.ssh.key_file(),
            "DOCKER_REPO": Self::REPOSITORY,
            "DOCKER_PUSH_SERVER": parts.registry.host(),
            "DOCKER_USER": parts.secrets.push.user,
            "DOCKER_PASSWORD": parts.secrets.push.password,
            "DOCKER_BASE_SERVER": parts.registry.host(),
            "DOCKER_BASE_USER": parts.secrets.base.user,
            "DOCKER_BASE_PASSWORD": parts.secrets.base.password,
            "IMAGE_TAG_PREFIX": "v1",
        }) else {
            anyhow::bail!("no object");
        };
        Sbs::new(&parts.path().join("client"), &config)
    }

    /// Makes a repository on the ssh server with these files, in one commit, and configures it.
    pub fn with_repository(&self, files: &[(&str, &str)]) -> Result<Repository> {
        let mut repository = self.parts.ssh.repository("app")?;
        repository.commit_files(files)?;
        self.sbs.set("GITHUB_URL", self.parts.ssh.url(&repository))?;
        Ok(repository)
    }

    /// Starts a server that was killed or ended again, and tells the command line where it is.
    pub fn start_server_again(&mut self) -> Result<()> {
        self.server.start_again()?;
        self.sbs.set("CICD_PORT", self.server.port().to_string())?;
        Ok(())
    }

    /// Puts a server without data in the place of the one that runs:
    /// [`TestServer::start_anew`].
    pub fn start_server_anew(&mut self) -> Result<()> {
        self.server.start_anew()?;
        self.sbs.set("CICD_PORT", self.server.port().to_string())?;
        Ok(())
    }

    /// Returns the client's SECRET, which the command line made at its first use.
    pub fn secret(&self) -> Result<String> {
        let config = self.sbs.config()?;
        let secret = config.get("SECRET").and_then(Value::as_str);
        Ok(secret.context("the configuration has no SECRET")?.to_owned())
    }

    /// Makes a client that speaks as the original's does, with the client certificate.
    pub fn api(&self) -> Result<Api> {
        let authority = self.sbs.certificate_file("client-ca.pem")?;
        Api::new(self.server.port(), &authority, Some(&self.sbs.identity()?))
    }

    /// Connects to the server with the client certificate, for what no client would send.
    pub fn connect(&self) -> Result<TlsStream> {
        let authority = self.sbs.certificate_file("client-ca.pem")?;
        connect(self.server.port(), &authority, &self.sbs.identity()?)
    }

    /// Initialises the server and builds once, which must succeed.
    pub fn init_and_build(&self) -> Result<Status> {
        self.sbs.ok(&["init"])?;
        self.api()?.build()
    }

    /// Tells the server of a changed configuration and builds once, which must succeed.
    pub fn update_and_build(&self) -> Result<Status> {
        self.sbs.ok(&["update"])?;
        self.api()?.build()
    }

    /// Returns a Dockerfile that starts from the base image and goes on with `steps`.
    pub fn dockerfile(&self, steps: &str) -> String {
        format!("FROM {}\n{steps}\n", self.parts.base)
    }
}
