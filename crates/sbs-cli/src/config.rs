//! The configuration file: a JSON object shared with the original's client.

mod change;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sbs_crypto::random_bytes;
use sbs_proto::{ParseDefinitionError, RuntimeType, StateSecret, key};
use serde_json::Value;
use thiserror::Error;
use time::OffsetDateTime;
use time::macros::format_description;
use zeroize::Zeroizing;

pub(crate) use crate::config::change::Pin;
use crate::file::{self, Access, Existing, ReadFileError, WriteFileError};
use crate::json::{Json, Object};
use crate::limits::CONFIG_BYTES;

/// The configuration, with what every command needs.
#[derive(Debug)]
pub(crate) struct Config {
    members: Object,
    path: PathBuf,
}

/// What a user should know about the configuration file that was just opened.
#[derive(Debug, Eq, Error, PartialEq)]
pub(crate) enum Notice {
    #[error("added {} to `{}` and made it readable by you alone; the old file is `{}`",
        added.join(", "), path.display(), backup.display())]
    Completed { added: Vec<&'static str>, backup: PathBuf, path: PathBuf },

    #[error("`{}` holds secrets and others can read it (mode {mode:04o}); run: chmod 600 {}",
        path.display(), path.display())]
    ReadableByOthers { mode: u32, path: PathBuf },
}

impl Config {
    /// Reads the file at `path`; on first use it adds what the client itself makes up and keeps the
    /// old file beside it.
    pub(crate) fn open(
        path: &Path,
        now: OffsetDateTime,
    ) -> Result<(Self, Vec<Notice>), OpenConfigError> {
        let path = expand(path);
        let bytes = file::read(&path, CONFIG_BYTES)?;
        let mut config = Self { members: parse(&bytes)?, path };
        config.runtime_type()?;
        let added = config.complete();
        if added.is_empty() {
            config.uuid()?;
            // After completing it there is always a SECRET in it.
            let notice = Notice::of_mode(&config.path)?;
            return Ok((config, notice.into_iter().collect()));
        }
        config.uuid()?;
        let backup = config.rewrite(&bytes, now)?;
        let notice = Notice::Completed { added, backup, path: config.path.clone() };
        Ok((config, vec![notice]))
    }

    /// Writes a new file with these keys and what the client itself makes up.
    pub(crate) fn create(path: &Path, members: Object) -> Result<Self, OpenConfigError> {
        let mut config = Self { members, path: expand(path) };
        config.complete();
        let text = Zeroizing::new(config.members.to_text());
        file::write(&config.path, text.as_bytes(), Access::Owner, Existing::Keep)?;
        Ok(config)
    }

    /// Sets keys for this run; the file stays as it is.
    pub(crate) fn override_with<'a>(
        &mut self,
        keys: impl IntoIterator<Item = (&'static str, &'a str)>,
    ) {
        for (key, value) in keys {
            self.members.set(key, value);
        }
    }

    /// Returns the value of a key; an empty string or `null` counts as absent.
    pub(crate) fn value(&self, key: &str) -> Option<Value> {
        self.members.value(key).filter(|value| !value.is_nothing()).map(Json::to_value)
    }

    /// Returns the text of a key; an empty one counts as absent.
    pub(crate) fn text(&self, key: &'static str) -> Result<Option<&str>, OpenConfigError> {
        match self.members.value(key) {
            None => Ok(None),
            Some(value) if value.is_nothing() => Ok(None),
            Some(value) => {
                let wrong = OpenConfigError::Value { expected: "a string", key };
                value.as_str().map(Some).ok_or(wrong)
            }
        }
    }

    /// Returns SECRET.
    pub(crate) fn secret(&self) -> Result<StateSecret, OpenConfigError> {
        self.secret_at(key::SECRET)?.ok_or(OpenConfigError::Missing { key: key::SECRET })
    }

    /// Returns the secret that takes the place of SECRET once the server is known to have it.
    pub(crate) fn pending_secret(&self) -> Result<Option<StateSecret>, OpenConfigError> {
        self.secret_at(PENDING_SECRET)
    }

    /// Returns the lowest epoch of a state image that may be imported.
    pub(crate) fn min_epoch(&self) -> Result<Option<u64>, OpenConfigError> {
        let epoch = match self.value(STATE_MIN_EPOCH) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
        };
        let wrong = OpenConfigError::Value { expected: "a number", key: STATE_MIN_EPOCH };
        epoch.map(Some).ok_or(wrong)
    }

    fn secret_at(&self, key: &'static str) -> Result<Option<StateSecret>, OpenConfigError> {
        let wrong = |_| OpenConfigError::Value { expected: "the base64 of 128 bytes", key };
        self.text(key)?.map(StateSecret::parse).transpose().map_err(wrong)
    }

    /// Returns the path that a key holds, with `~` expanded.
    pub(crate) fn path(&self, key: &'static str) -> Result<Option<PathBuf>, OpenConfigError> {
        Ok(self.text(key)?.map(|text| expand(Path::new(text))))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.keys()
    }

    /// Returns where the file is.
    pub(crate) fn file(&self) -> &Path {
        &self.path
    }

    /// Returns the server's host name.
    pub(crate) fn hostname(&self) -> Result<&str, OpenConfigError> {
        self.text(HOSTNAME)?.ok_or(OpenConfigError::Missing { key: HOSTNAME })
    }

    /// Returns the server's port, 443 where none is set.
    pub(crate) fn port(&self) -> Result<u16, OpenConfigError> {
        let port = match self.value(CICD_PORT) {
            None => Some(443),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64().and_then(|port| port.try_into().ok()),
        };
        port.filter(|port| *port > 0)
            .ok_or(OpenConfigError::Value { expected: "a port, from 1 to 65535", key: CICD_PORT })
    }

    /// Returns where the image is meant to run, `vpc` where nothing is set.
    pub(crate) fn runtime_type(&self) -> Result<RuntimeType, OpenConfigError> {
        match self.text(key::RUNTIME_TYPE)? {
            None => Ok(RuntimeType::Vpc),
            Some(text) => Ok(RuntimeType::parse(text)?),
        }
    }

    /// Returns the name of the certificate files, `.<CONTAINER_NAME>-<UUID>`.
    pub(crate) fn certificate_stem(&self) -> Result<String, OpenConfigError> {
        let container = self.text(CONTAINER_NAME)?.unwrap_or("container");
        // It is part of a file name.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if container.len() > 100 || !container.chars().all(plain) {
            let expected = "at most 100 letters, digits, `.`, `_` and `-`";
            return Err(OpenConfigError::Value { expected, key: CONTAINER_NAME });
        }
        Ok(format!(".{container}-{}", self.uuid()?))
    }

    fn uuid(&self) -> Result<&str, OpenConfigError> {
        let missing = OpenConfigError::Missing { key: UUID };
        let uuid = self.text(UUID)?.ok_or(missing)?;
        // It is part of a file name.
        if uuid.len() > 64 || !uuid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(OpenConfigError::Value { expected: "a UUID", key: UUID });
        }
        Ok(uuid)
    }

    /// Sets what the client makes up and is not there; returns the keys.
    fn complete(&mut self) -> Vec<&'static str> {
        let mut added = Vec::new();
        for key in [key::RUNTIME_TYPE, UUID, key::SECRET] {
            if self.members.value(key).is_some_and(|value| !value.is_nothing()) {
                continue;
            }
            match key {
                UUID => self.members.set(key, &random_uuid()),
                key::SECRET => {
                    let secret = StateSecret::from_bytes(random_bytes()).expose_base64();
                    self.members.set(key, &secret);
                }
                _ => self.members.set(key, RuntimeType::Vpc.as_str()),
            }
            added.push(key);
        }
        added
    }

    /// Writes the file anew, with its old bytes beside it. At every moment one of the two is whole.
    fn rewrite(&self, old: &[u8], now: OffsetDateTime) -> Result<PathBuf, OpenConfigError> {
        // The file that a link points to is meant, not the link.
        let failed = |source| ReadFileError::Io { path: self.path.clone(), source };
        let target = fs::canonicalize(&self.path).map_err(failed)?;
        let mut backup = target.clone().into_os_string();
        backup.push(format!(".{}", stamp(now)));
        let backup = PathBuf::from(backup);
        file::write(&backup, old, Access::Owner, Existing::Keep)?;
        let text = self.members.to_text();
        file::write(&target, text.as_bytes(), Access::Owner, Existing::Replace)?;
        Ok(backup)
    }
}

impl Notice {
    /// Returns what a user should know of the mode of a file with secrets, if anything.
    pub(crate) fn of_mode(path: &Path) -> Result<Option<Self>, ReadFileError> {
        let failed = |source: io::Error| ReadFileError::Io { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
        let notice = || Self::ReadableByOthers { mode, path: path.to_owned() };
        Ok((mode & 0o077 != 0).then(notice))
    }
}

/// Puts the user's home directory in the place of a leading `~`.
pub(crate) fn expand(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Parses a JSON object without doubled keys.
pub(crate) fn parse(bytes: &[u8]) -> Result<Object, OpenConfigError> {
    // serde_json's own message can repeat a value, which may be a secret.
    let not_json = |error: serde_json::Error| OpenConfigError::NotJson {
        column: error.column(),
        line: error.line(),
    };
    let Json::Object(members) = serde_json::from_slice(bytes).map_err(not_json)? else {
        return Err(OpenConfigError::NotAnObject);
    };
    let mut seen = Vec::new();
    for key in members.keys() {
        let upper = key.to_ascii_uppercase();
        if seen.contains(&upper) {
            let key = sbs_client::Shown::short(&upper, 64).to_string();
            return Err(OpenConfigError::Doubled { key });
        }
        seen.push(upper);
    }
    Ok(members)
}

/// Makes a random UUID (RFC 9562, 5.4).
fn random_uuid() -> String {
    let mut bits = u128::from_be_bytes(random_bytes());
    bits = bits & !(0xf << 76) | 0x4 << 76;
    bits = bits & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let part = |range| hex.get(range).expect("the text has 32 digits");
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

/// Returns a UTC time as the original writes it, `YYYY-MM-DD_HH-MM-SS.ffffff`.
fn stamp(now: OffsetDateTime) -> String {
    let form =
        format_description!("[year]-[month]-[day]_[hour]-[minute]-[second].[subsecond digits:6]");
    now.to_offset(time::UtcOffset::UTC).format(form).expect("the form has only parts of a time")
}

/// Why there is no configuration. It repeats no value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum OpenConfigError {
    #[error("another program changed the configuration meanwhile; run it again")]
    Changed,

    #[error("the configuration has key `{key}` twice (upper and lower case are the same)")]
    Doubled { key: String },

    #[error("{key} is missing in the configuration")]
    Missing { key: &'static str },

    #[error("the configuration is not a JSON object")]
    NotAnObject,

    #[error("the configuration is not JSON (line {line}, column {column})")]
    NotJson { column: usize, line: usize },

    #[error(transparent)]
    Read(#[from] ReadFileError),

    #[error(transparent)]
    RuntimeType(#[from] ParseDefinitionError),

    #[error("{key} must be {expected}")]
    Value { expected: &'static str, key: &'static str },

    #[error(transparent)]
    Write(#[from] WriteFileError),
}

pub(crate) const HOSTNAME: &str = "HOSTNAME";
pub(crate) const CICD_PORT: &str = "CICD_PORT";
pub(crate) const CONTAINER_NAME: &str = "CONTAINER_NAME";
pub(crate) const UUID: &str = "UUID";
/// Not `NEW_SECRET`: the original's client would send that in every `init` and `update`, and then
/// forget it.
pub(crate) const PENDING_SECRET: &str = "PENDING_SECRET";
pub(crate) const STATE_MIN_EPOCH: &str = "STATE_MIN_EPOCH";

#[cfg(test)]
pub(crate) mod tests;
