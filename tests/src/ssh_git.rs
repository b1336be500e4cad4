use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{Daemon, Repository, output, program};

/// OpenSSH's server on loopback; the user `git` may read the repositories in its folder, and
/// nothing else.
#[derive(Debug)]
pub struct SshGit {
    /// Held for its Drop.
    _daemon: Daemon,
    directory: PathBuf,
    port: u16,
}

impl SshGit {
    /// Starts a server in `directory`, which must not exist yet.
    pub fn start(directory: &Path) -> Result<Self> {
        fs::create_dir(directory)?;
        fs::create_dir(directory.join("repositories"))?;
        for name in ["host-key", "user-key", "other-host-key", "other-user-key"] {
            make_key(&directory.join(name))?;
        }
        let allowed = fs::read_to_string(directory.join("user-key.pub"))?;
        fs::write(directory.join("authorized"), format!("restrict {allowed}"))?;
        write_accounts(directory)?;
        // sshd cannot choose a port, so another process may take it first: try again then.
        for _attempt in 0..5 {
            let port = free_port()?;
            if let Some(daemon) = start(directory, port)? {
                return Ok(Self { _daemon: daemon, directory: directory.to_owned(), port });
            }
        }
        bail!("found no free port for sshd")
    }

    /// Makes an empty repository that this server serves.
    pub fn repository(&self, name: &str) -> Result<Repository> {
        Repository::new(&self.directory.join("repositories"), name)
    }

    /// Returns the URL of a repository.
    pub fn url(&self, repository: &Repository) -> String {
        format!("ssh://git@127.0.0.1:{}{}", self.port, repository.path().display())
    }

    /// Returns the URL of a repository that does not exist.
    pub fn missing_url(&self) -> String {
        format!("ssh://git@127.0.0.1:{}/nothing/here.git", self.port)
    }

    /// Returns the port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the home directory of the user `git`, where relative paths begin.
    pub fn home(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of the private key that may read.
    pub fn key_file(&self) -> PathBuf {
        self.directory.join("user-key")
    }

    /// Returns the path of a private key that the server does not know.
    pub fn other_key_file(&self) -> PathBuf {
        self.directory.join("other-user-key")
    }

    /// Returns the line of `known_hosts` that pins this server's key.
    pub fn known_hosts(&self) -> Result<String> {
        self.known_hosts_with("host-key.pub")
    }

    /// Returns a line of `known_hosts` that pins another key for this server.
    pub fn wrong_known_hosts(&self) -> Result<String> {
        self.known_hosts_with("other-host-key.pub")
    }

    /// Returns the fingerprint of the server's key, `SHA256:…`.
    pub fn fingerprint(&self) -> Result<String> {
        let mut keygen = program("ssh-keygen");
        let line = output(keygen.args(["-l", "-f"]).arg(self.directory.join("host-key.pub")))?;
        Ok(line.split_whitespace().nth(1).context("no fingerprint")?.to_owned())
    }

    fn known_hosts_with(&self, key: &str) -> Result<String> {
        let key = fs::read_to_string(self.directory.join(key))?;
        let words: Vec<_> = key.split_whitespace().take(2).collect();
        Ok(format!("[127.0.0.1]:{} {}\n", self.port, words.join(" ")))
    }
}

/// Starts sshd; returns nothing if the port was taken.
fn start(directory: &Path, port: u16) -> Result<Option<Daemon>> {
    let config = directory.join("sshd_config");
    fs::write(&config, sshd_config(directory, port))?;
    // sshd insists on /run/sshd and on the system's accounts. In a mount namespace of its own it
    // sees ours there, and the machine's stay as they are.
    let mut command = program("unshare");
    command.args(["--mount", "sh", "-euc", SCRIPT, "sh"]).arg(directory).arg(&config);
    let mut daemon = Daemon::spawn("sshd", &mut command, &directory.join("log"))?;
    match daemon.wait_for("Server listening on 127.0.0.1") {
        Ok(_line) => Ok(Some(daemon)),
        Err(error) if error.to_string().contains("Address already in use") => Ok(None),
        Err(error) => Err(error),
    }
}

fn sshd_config(directory: &Path, port: u16) -> String {
    let path = directory.display();
    format!(
        "ListenAddress 127.0.0.1:{port}\n\
         HostKey {path}/host-key\n\
         PidFile none\n\
         UsePAM no\n\
         StrictModes no\n\
         AllowUsers git\n\
         PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         AuthorizedKeysFile {path}/authorized\n\
         AcceptEnv GIT_PROTOCOL\n\
         PrintMotd no\n\
         MaxStartups 100\n\
         ForceCommand /usr/bin/git-shell -c \"$SSH_ORIGINAL_COMMAND\"\n"
    )
}

/// Writes the accounts that sshd sees: `git` has the numbers of whoever runs the tests.
fn write_accounts(directory: &Path) -> Result<()> {
    let home = directory.display();
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/sh\n\
         git:x:0:0:git:{home}:/bin/sh\n\
         sshd:x:65533:65534:sshd:/run/sshd:/bin/false\n\
         nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    );
    fs::write(directory.join("passwd"), passwd)?;
    fs::write(directory.join("shadow"), "root:*:1::::::\ngit:*:1::::::\nsshd:*:1::::::\n")?;
    Ok(())
}

fn make_key(path: &Path) -> Result<()> {
    let mut keygen = program("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f"]);
    output(keygen.arg(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

const SCRIPT: &str = "\
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
mount --bind \"$1/passwd\" /etc/passwd
mount --bind \"$1/shadow\" /etc/shadow
exec /usr/sbin/sshd -D -e -f \"$2\"";
