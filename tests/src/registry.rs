use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::digest;
use sbs_proto::Digest;
use serde_json::{Value, json};

use crate::{Authority, Daemon, Http, Leaf, output, program};

/// Debian's docker-registry on loopback, with TLS and, if it has an account, with a password.
#[derive(Debug)]
pub struct Registry {
    account: Option<Account>,
    authority: String,
    daemon: Option<Daemon>,
    directory: PathBuf,
    http: Http,
    port: u16,
}

/// A user of a registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// The password.
    pub password: String,
    /// The user name.
    pub user: String,
}

impl Account {
    /// Names a user and the password.
    pub fn new(user: &str, password: &str) -> Self {
        Self { password: password.to_owned(), user: user.to_owned() }
    }
}

impl Registry {
    /// Starts a registry in `directory`, which must not exist yet. With `accounts`, every request
    /// needs the password of one of them; without, none does.
    pub fn start(authority: &Authority, directory: &Path, accounts: &[Account]) -> Result<Self> {
        let leaf = authority.issue_loopback("registry")?;
        Self::start_as(&leaf, authority, directory, accounts)
    }

    /// Starts a registry with this certificate.
    pub fn start_as(
        leaf: &Leaf,
        authority: &Authority,
        directory: &Path,
        accounts: &[Account],
    ) -> Result<Self> {
        fs::create_dir(directory)?;
        fs::write(directory.join("tls.pem"), &leaf.certificate)?;
        fs::write(directory.join("tls.key"), &leaf.key)?;
        fs::create_dir(directory.join("trust"))?;
        fs::write(directory.join("trust/ca.crt"), &authority.pem)?;
        write_passwords(directory, accounts)?;
        let mut registry = Self {
            account: accounts.first().cloned(),
            authority: authority.pem.clone(),
            daemon: None,
            directory: directory.to_owned(),
            http: Http::new(&authority.pem, None)?,
            port: 0,
        };
        registry.start_again()?;
        registry.write_authfile()?;
        Ok(registry)
    }

    /// Starts the registry after [`stop`](Self::stop), on the same port and with what it holds.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the registry runs");
        let config = self.directory.join("config.yml");
        fs::write(&config, self.config())?;
        let mut command = program("docker-registry");
        command.arg("serve").arg(&config);
        let log = self.directory.join("log");
        let mut daemon = Daemon::spawn("docker-registry", &mut command, &log)?;
        let line = daemon.wait_for("listening on ")?;
        let port = line.split("listening on 127.0.0.1:").nth(1).unwrap_or_default();
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        self.port = port.parse().with_context(|| format!("no port in `{line}`"))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops the registry; what it holds is kept.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Has the registry answer nothing until [`thaw`](Self::thaw); connections stay open.
    pub fn freeze(&self) -> Result<()> {
        self.daemon.as_ref().context("the registry does not run")?.freeze()
    }

    /// Has a frozen registry answer again.
    pub fn thaw(&self) -> Result<()> {
        self.daemon.as_ref().context("the registry does not run")?.thaw()
    }

    /// Returns `127.0.0.1:port`, the first part of this registry's image references.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns what the registry has logged since its start: every request that it answered.
    pub fn log_text(&self) -> String {
        self.daemon.as_ref().map(Daemon::log_text).unwrap_or_default()
    }

    /// Returns the certificate of the authority to trust, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the folder with the authority, as `--cert-dir` of containers' tools has it.
    pub fn certificate_directory(&self) -> PathBuf {
        self.directory.join("trust")
    }

    /// Returns the file with the first account, as `--authfile` of containers' tools has it.
    pub fn authfile(&self) -> PathBuf {
        self.directory.join("auth.json")
    }

    /// Returns the first account.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Returns the tags of a repository, sorted; none where there is no such repository.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let reply = self.get(&format!("{repository}/tags/list"), "application/json")?;
        if reply.status == 404 {
            return Ok(Vec::new());
        }
        ensure!(reply.status == 200, "tags of {repository}: {} {}", reply.status, reply.text());
        let tags: Option<Vec<String>> = serde_json::from_value(reply.json()?["tags"].take())?;
        let mut tags = tags.unwrap_or_default();
        tags.sort();
        Ok(tags)
    }

    /// Returns the image manifest of a tag or digest with its digest, if it is there.
    pub fn manifest(&self, repository: &str, reference: &str) -> Result<Option<(Digest, Value)>> {
        let reply = self.get(&format!("{repository}/manifests/{reference}"), MANIFEST_TYPES)?;
        match reply.status {
            200 => Ok(Some((digest(&reply.body), reply.json()?))),
            404 => Ok(None),
            status => bail!("manifest {repository} {reference}: {status} {}", reply.text()),
        }
    }

    /// Returns a blob. Its digest is checked.
    pub fn blob(&self, repository: &str, expected: &Digest) -> Result<Vec<u8>> {
        let reply = self.get(&format!("{repository}/blobs/{expected}"), "*/*")?;
        ensure!(reply.status == 200, "blob {expected}: {} {}", reply.status, reply.text());
        ensure!(digest(&reply.body) == *expected, "blob {expected} has another digest");
        Ok(reply.body)
    }

    /// Unpacks the layers of an image into `directory`, one over the other.
    pub fn unpack(&self, repository: &str, reference: &str, directory: &Path) -> Result<()> {
        let manifest = self.manifest(repository, reference)?;
        let (_digest, manifest) = manifest.with_context(|| format!("no image {reference}"))?;
        fs::create_dir_all(directory)?;
        let layers = manifest["layers"].as_array().context("an image without layers")?;
        for layer in layers {
            let layer = Digest::parse(layer["digest"].as_str().unwrap_or_default())?;
            let file = directory.with_extension("layer");
            fs::write(&file, self.blob(repository, &layer)?)?;
            output(program("tar").arg("-xf").arg(&file).arg("-C").arg(directory))?;
            fs::remove_file(&file)?;
        }
        Ok(())
    }

    fn get(&self, path: &str, accept: &str) -> Result<crate::Reply> {
        let url = format!("https://{}/v2/{path}", self.host());
        let basic = self.account.as_ref().map(|account| format!("Basic {}", encode(account)));
        let mut headers = vec![("accept", accept)];
        headers.extend(basic.as_deref().map(|basic| ("authorization", basic)));
        self.http.send("GET", &url, &headers, None)
    }

    fn config(&self) -> String {
        let directory = self.directory.display();
        let auth = match self.account {
            Some(_) => {
                format!("auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}\n")
            }
            None => String::new(),
        };
        format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n\
             http:\n\
             \x20 addr: 127.0.0.1:{}\n\
             \x20 secret: only-for-tests\n\
             \x20 tls: {{certificate: {directory}/tls.pem, key: {directory}/tls.key}}\n\
             {auth}",
            self.port
        )
    }

    fn write_authfile(&self) -> Result<()> {
        let mut auths = json!({});
        if let Some(account) = &self.account {
            auths[self.host()] = json!({ "auth": encode(account) });
        }
        fs::write(self.authfile(), json!({ "auths": auths }).to_string())?;
        Ok(())
    }
}

fn write_passwords(directory: &Path, accounts: &[Account]) -> Result<()> {
    let mut passwords = String::new();
    for Account { password, user } in accounts {
        // docker-registry takes bcrypt only; 4 is its cheapest cost.
        let line = output(program("htpasswd").args(["-nbB", "-C", "4", user, password]))?;
        passwords.push_str(line.trim());
        passwords.push('\n');
    }
    fs::write(directory.join("htpasswd"), passwords)?;
    Ok(())
}

fn encode(account: &Account) -> String {
    STANDARD.encode(format!("{}:{}", account.user, account.password))
}

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";
