use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sbs_proto::SecretText;
use thiserror::Error;
use zeroize::Zeroizing;

use super::command::Git;
use super::{FetchFault, HostKeys};
use crate::tool::Tool;

/// A private key in a file that only its owner can read; dropping it removes the file.
#[derive(Debug)]
pub(super) struct KeyFile {
    directory: PathBuf,
}

impl KeyFile {
    /// Writes the key below `parent`, with the line ends that ssh wants, and checks that ssh can
    /// read it.
    pub(super) async fn create(
        git: &Git<'_>,
        parent: &Path,
        key: &SecretText,
    ) -> Result<Self, FetchFault> {
        let directory = parent.join("key");
        DirBuilder::new().mode(0o700).create(&directory)?;
        let file = Self { directory };
        file.write(key)?;
        // Without a passphrase to try, ssh would only say that the server refused the key.
        let tool = Tool::new("ssh-keygen").args(["-y", "-P", "", "-f"]).arg(file.path());
        match git.ask(tool).await? {
            Ok(()) => Ok(file),
            Err(complaint) if complaint.contains("passphrase") => Err(KeyError::Passphrase.into()),
            Err(_) => Err(KeyError::Format.into()),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("identity")
    }

    fn write(&self, key: &SecretText) -> io::Result<()> {
        let path = self.path();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let text = Zeroizing::new(key.expose().replace('\r', ""));
        file.write_all(text.trim().as_bytes())?;
        file.write_all(b"\n")
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::error!(%error, "cannot remove the file of a git key");
        }
    }
}

/// Why a private key cannot be used. It never repeats the key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub(crate) enum KeyError {
    /// ssh does not understand the text.
    #[error("it is not an ssh private key in the OpenSSH or PEM format")]
    Format,

    /// The key is encrypted.
    #[error("it is protected by a passphrase; give a deploy key without one")]
    Passphrase,
}

/// Returns the value of `GIT_SSH_COMMAND`, which git hands to a shell.
pub(super) fn command(known_hosts: &HostKeys, key: Option<&KeyFile>) -> Result<String, FetchFault> {
    let (checking, file) = match known_hosts {
        HostKeys::FirstUse(file) => ("accept-new", file),
        HostKeys::Pinned(file) => ("yes", file),
    };
    let identity = match key {
        Some(key) => option_path(&key.path())?,
        // Otherwise ssh tries the files in the home directory of its user.
        None => "none".to_owned(),
    };
    let mut command = "ssh -F none".to_owned();
    let options = OPTIONS.iter().map(|&option| option.to_owned()).chain([
        format!("StrictHostKeyChecking={checking}"),
        format!("UserKnownHostsFile={}", option_path(file)?),
        format!("IdentityFile={identity}"),
    ]);
    for option in options {
        command.push_str(" -o ");
        command.push_str(&shell_quote(&option));
    }
    Ok(command)
}

/// Returns a path as ssh reads it in an option: it takes quotes and `%` for itself.
fn option_path(path: &Path) -> Result<String, FetchFault> {
    let refused = |c: char| c.is_control() || matches!(c, '"' | '\\' | '$');
    match path.to_str() {
        Some(text) if path.is_absolute() && !text.contains(refused) => {
            Ok(format!("\"{}\"", text.replace('%', "%%")))
        }
        _ => Err(FetchFault::Internal("a path for ssh is relative or has a character of ssh's")),
    }
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

const OPTIONS: [&str; 26] = [
    "AddKeysToAgent=no",
    "BatchMode=yes",
    "CanonicalizeHostname=no",
    "CheckHostIP=no",
    "ClearAllForwardings=yes",
    "ConnectTimeout=10",
    "ControlMaster=no",
    "ControlPath=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "GSSAPIAuthentication=no",
    "GlobalKnownHostsFile=/dev/null",
    "HashKnownHosts=no",
    "HostbasedAuthentication=no",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "KbdInteractiveAuthentication=no",
    // At this level ssh says which host key the server proved to have.
    "LogLevel=DEBUG1",
    "PasswordAuthentication=no",
    "PermitLocalCommand=no",
    "ProxyCommand=none",
    "ServerAliveCountMax=4",
    "ServerAliveInterval=15",
    "Tunnel=no",
    "UpdateHostKeys=no",
    "VerifyHostKeyDNS=no",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_reads_no_configuration_and_trusts_no_other_file() {
        let known_hosts = HostKeys::Pinned("/a b/it's 100%".into());
        let command = command(&known_hosts, None).unwrap();
        assert!(command.starts_with("ssh -F none -o 'AddKeysToAgent=no' "), "{command}");
        for option in [
            "'StrictHostKeyChecking=yes'",
            r#"'UserKnownHostsFile="/a b/it'\''s 100%%"'"#,
            "'GlobalKnownHostsFile=/dev/null'",
            "'IdentityFile=none'",
            "'IdentityAgent=none'",
        ] {
            assert!(command.contains(&format!(" -o {option}")), "{command}");
        }
    }

    #[test]
    fn a_path_that_ssh_would_expand_is_refused() {
        for path in ["known_hosts", "/a\"b", "/a${HOME}", "/a\\b", "/a\nb"] {
            let known_hosts = HostKeys::FirstUse(path.into());
            let result = command(&known_hosts, None);
            assert!(matches!(result, Err(FetchFault::Internal(_))), "{path:?}");
        }
    }
}
