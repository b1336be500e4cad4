//! Old configurations made new: what the original's clients of all versions read, in the form of today.
//!
//! Nothing is read or written here, and nothing that is said repeats a value.

mod keys;
mod refusals;
mod workers;

use sbs_client::Shown;
use sbs_proto::RuntimeType;
use serde::Serialize;
use thiserror::Error;

use crate::config::{self, OpenConfigError};
use crate::json::{Json, Object};

/// A new configuration, and how it came to be.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) changes: Vec<Change>,
    pub(crate) members: Object,
    pub(crate) to_do: Vec<ToDo>,
}

/// What was changed, and why.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Change {
    pub(crate) action: Action,
    pub(crate) key: String,
    pub(crate) reason: String,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Changed,
    Removed,
    Set,
}

/// What only a person can do.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct ToDo {
    pub(crate) key: String,
    pub(crate) reason: String,
}

/// Makes a configuration of today of an old one: JSON for `build.py`, or YAML for `hpvs sb`.
pub(crate) fn migrate(old: &str, runtime: Option<RuntimeType>) -> Result<Migration, MigrateError> {
    let mut migration = if old.trim_start().starts_with('{') {
        Migration::new(config::parse(old.as_bytes())?)
    } else {
        workers::migrate(&parse_yaml(old)?, runtime)?
    };
    keys::migrate(&mut migration, runtime);
    refusals::leave_to_user(&mut migration);
    Ok(migration)
}

impl Migration {
    fn new(members: Object) -> Self {
        Self { changes: Vec::new(), members, to_do: Vec::new() }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.members.value(key).and_then(Json::as_str).filter(|text| !text.is_empty())
    }

    fn has(&self, key: &str) -> bool {
        self.members.value(key).is_some_and(|value| !value.is_nothing())
    }

    /// Gives a key another value than it had, or one.
    fn set(&mut self, key: &str, value: Json, reason: &str) {
        let action = if self.has(key) { Action::Changed } else { Action::Set };
        self.members.put(key, value);
        self.note(action, key, reason);
    }

    /// Takes a key out, if it is there.
    fn remove(&mut self, key: &str, reason: &str) {
        if self.members.value(key).is_some() {
            self.members.remove(key);
            self.note(Action::Removed, key, reason);
        }
    }

    fn note(&mut self, action: Action, key: &str, reason: &str) {
        self.changes.push(Change { action, key: shown(key), reason: reason.to_owned() });
    }

    fn leave_to_user(&mut self, key: &str, reason: &str) {
        self.to_do.push(ToDo { key: shown(key), reason: reason.to_owned() });
    }
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Set => "set",
        }
    }
}

fn parse_yaml(text: &str) -> Result<Object, MigrateError> {
    // The parser's own message repeats lines, which may hold secrets.
    let parsed = serde_saphyr::from_str::<Json>(text).map_err(|error| {
        let place = error.location();
        let (line, column) = place.map_or((0, 0), |place| (place.line(), place.column()));
        MigrateError::NotYaml { column, line }
    })?;
    match parsed {
        Json::Object(object) => Ok(object),
        Json::Array(_) | Json::Plain(_) => Err(MigrateError::NotAConfiguration),
    }
}

/// The name of a key, which may be anything.
fn shown(key: &str) -> String {
    Shown::short(key, 64).to_string()
}

/// Why an old configuration is not understood. It repeats no value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum MigrateError {
    #[error(transparent)]
    Json(#[from] OpenConfigError),

    #[error(
        "neither the JSON of build.py nor the YAML of hpvs sb, which has `secure_build_workers`, \
         `sbs`, `github` or `docker`"
    )]
    NotAConfiguration,

    #[error("neither JSON nor YAML (line {line}, column {column})")]
    NotYaml { column: u64, line: u64 },
}

#[cfg(test)]
mod tests;
