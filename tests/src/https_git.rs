use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{Account, Authority, Daemon, Repository, program};

/// `git http-backend` behind a small HTTPS server on loopback, which wants a password.
#[derive(Debug)]
pub struct HttpsGit {
    account: Account,
    daemon: Daemon,
    directory: PathBuf,
    port: u16,
}

impl HttpsGit {
    /// Starts a server in `directory`, which must not exist yet.
    pub fn start(authority: &Authority, directory: &Path, account: Account) -> Result<Self> {
        let root = directory.join("repositories");
        fs::create_dir_all(&root)?;
        let leaf = authority.issue_loopback("git")?;
        let (certificate, key) = (directory.join("tls.pem"), directory.join("tls.key"));
        fs::write(&certificate, &leaf.certificate)?;
        fs::write(&key, &leaf.key)?;
        // Not as arguments: tests search the process list for the password.
        let login = directory.join("account");
        fs::write(&login, format!("{}:{}", account.user, account.password))?;
        let mut command = program("python3");
        command.args(["-c", include_str!("https_git.py")]).arg(&root).arg(certificate).arg(key);
        command.arg(login);
        let mut daemon =
            Daemon::spawn("the https git server", &mut command, &directory.join("log"))?;
        let line = daemon.wait_for("listening on port ")?;
        let port = line.rsplit(' ').next().unwrap_or_default();
        let port = port.parse().with_context(|| format!("no port in `{line}`"))?;
        Ok(Self { account, daemon, directory: directory.to_owned(), port })
    }

    /// Makes an empty repository that this server serves.
    pub fn repository(&self, name: &str) -> Result<Repository> {
        Repository::new(&self.directory.join("repositories"), name)
    }

    /// Returns the URL of a repository, without credentials.
    pub fn url(&self, repository: &Repository) -> String {
        let name = repository.path().file_name().unwrap_or_default().to_string_lossy();
        format!("https://localhost:{}/{name}", self.port)
    }

    /// Returns the URL of a repository with the user and the password in it.
    pub fn url_with_password(&self, repository: &Repository) -> String {
        self.url_with(repository, &self.account.password)
    }

    /// Returns the URL of a repository with the user and another password in it.
    pub fn url_with(&self, repository: &Repository, password: &str) -> String {
        let user = &self.account.user;
        self.url(repository).replacen("https://", &format!("https://{user}:{password}@"), 1)
    }

    /// Returns what the server has logged: every request.
    pub fn log_text(&self) -> String {
        self.daemon.log_text()
    }
}
