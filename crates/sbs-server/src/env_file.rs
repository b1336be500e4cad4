//! The file of `run --env-file`: what `sbs prepare` writes, with the server's private key in it.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{Identity, LoadIdentityError};
use crate::store::{ReadSecretFileError, read_secret_file};

/// Reads the variables of a file instead of those of the process. The file must be the server's own
/// and closed to others.
pub(crate) fn read(path: &Path) -> Result<Identity, ReadEnvFileError> {
    let content = read_secret_file(path)?;
    let form = |line| ReadEnvFileError::Form { line, path: path.to_owned() };
    let text = str::from_utf8(&content).map_err(|_| form(1))?;
    let variables = parse(text).map_err(form)?;
    let get = |name: &str| {
        // As for an environment, the last one counts.
        let found = variables.iter().rev().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Identity::from_variables(get)
        .map_err(|source| ReadEnvFileError::Variables { path: path.to_owned(), source })
}

/// Parses lines `NAME=value` or `NAME="value"`, empty ones and comments (`#`): what systemd, podman
/// and shells read alike, as the values are base64. Returns the number of a line that is none of it.
fn parse(text: &str) -> Result<Vec<(&str, &str)>, usize> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        variables.push((name.trim(), unquoted.unwrap_or(value)));
    }
    Ok(variables)
}

/// Why a file with variables was not read. No variant holds what stands in it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReadEnvFileError {
    /// The file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] ReadSecretFileError),

    /// A line is no variable.
    #[error("line {line} of `{}` is not NAME=value; `sbs prepare` writes such a file", path.display())]
    Form { line: usize, path: PathBuf },

    /// A variable is missing or wrong.
    #[error("the variables in `{}` cannot be used", path.display())]
    Variables { path: PathBuf, source: LoadIdentityError },
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The base64 of `-----BEGIN CERTIFICATE-----`.
    const CERTIFICATE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==";

    fn read_text(text: &str, mode: u32) -> Result<Identity, ReadEnvFileError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sbs.env");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        read(&path)
    }

    #[test]
    fn takes_the_forms_that_are_printed() {
        for text in [
            format!("CLIENT_CA={CERTIFICATE}"),
            format!("# ours\n\nCLIENT_CA=\"{CERTIFICATE}\"\nOTHER=x=y\n"),
            format!("CLIENT_CA=old\nCLIENT_CA={CERTIFICATE}\n"),
        ] {
            let identity = read_text(&text, 0o600).unwrap();
            assert_eq!(identity.client_ca, "-----BEGIN CERTIFICATE-----\n", "{text}");
            assert!(identity.server.is_none());
        }
    }

    #[test]
    fn refuses_what_others_can_read_and_what_is_no_variable() {
        let good = format!("CLIENT_CA={CERTIFICATE}\n");
        let result = read_text(&good, 0o640);
        assert!(matches!(result, Err(ReadEnvFileError::File(_))), "{result:?}");
        let result = read_text(&format!("{good}canary-secret\n"), 0o600);
        assert!(matches!(result, Err(ReadEnvFileError::Form { line: 2, .. })), "{result:?}");
        assert!(!result.unwrap_err().to_string().contains("canary"));
        let result = read_text("CLIENT_CRT=\n", 0o600);
        assert!(matches!(result, Err(ReadEnvFileError::Variables { .. })), "{result:?}");
    }
}
