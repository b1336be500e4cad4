use std::path::Path;

use anyhow::Result;
use sbs_crypto::random_bytes;
use tempfile::TempDir;

use crate::{Account, Authority, HttpsGit, Registry, SshGit, push_base_image};

/// What a server works with: a registry that wants a password and holds a base image, and an ssh
/// server with repositories.
#[derive(Debug)]
pub struct Parts {
    /// The registry.
    pub registry: Registry,
    /// The ssh server.
    pub ssh: SshGit,
    /// The authority of the registry and of [`start_https_git`](Self::start_https_git).
    pub authority: Authority,
    /// The reference of the base image.
    pub base: String,
    /// The secrets that nothing may show.
    pub secrets: Secrets,
    directory: TempDir,
}

/// Accounts whose passwords are new in every test: searched for where they must not be.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// For pushing.
    pub push: Account,
    /// For base images.
    pub base: Account,
    /// For git over https.
    pub git: Account,
}

impl Secrets {
    fn new() -> Self {
        let password = || format!("canary-{}", hex::encode(random_bytes::<12>()));
        Self {
            push: Account::new("pusher", &password()),
            base: Account::new("reader", &password()),
            git: Account::new("developer", &password()),
        }
    }

    /// Returns the password that stands in `text`, if one does.
    pub fn found_in(&self, text: &str) -> Option<&str> {
        let passwords = [&self.push, &self.base, &self.git].map(|account| &*account.password);
        passwords.into_iter().find(|password| text.contains(password))
    }
}

impl Parts {
    /// Starts everything, in a new directory that is removed with this.
    pub fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("sbs-tests-").tempdir()?;
        let authority = Authority::new("Tests CA")?;
        let secrets = Secrets::new();
        let accounts = [secrets.push.clone(), secrets.base.clone()];
        let registry = Registry::start(&authority, &directory.path().join("registry"), &accounts)?;
        let base = push_base_image(&registry, directory.path())?;
        let ssh = SshGit::start(&directory.path().join("ssh"))?;
        Ok(Self { registry, ssh, authority, base, secrets, directory })
    }

    /// Starts a git server over https, with the account of [`Secrets::git`].
    pub fn start_https_git(&self) -> Result<HttpsGit> {
        HttpsGit::start(&self.authority, &self.path().join("https"), self.secrets.git.clone())
    }

    /// Starts a second registry, which wants no password.
    pub fn start_open_registry(&self) -> Result<Registry> {
        Registry::start(&self.authority, &self.path().join("open-registry"), &[])
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}
