//! What `init` would refuse of a configuration, as far as that stands in the configuration itself.

use sbs_proto::{
    Definition, Members, ParseDefinitionError, StoragePurpose, key, parse_state_secret,
};

use super::Migration;
use crate::definition;
use crate::json::Json;

/// Leaves to the user what `init` would refuse, each key once.
pub(super) fn leave_to_user(migration: &mut Migration) {
    let mut body = definition::standing(|key| {
        migration.members.value(key).filter(|value| !value.is_nothing()).map(Json::to_value)
    });
    // The contents of files are not looked at here.
    for (file, key) in definition::KEY_FILES {
        if migration.has(file) {
            body.insert(key, "the content of a file");
        }
    }
    for error in refusals(&mut body) {
        let (key, reason) = (in_configuration(error.key()), reason_of(&error));
        if !migration.to_do.iter().any(|to_do| to_do.key == key) {
            migration.leave_to_user(key, &reason);
        }
    }
}

/// Returns what is refused. A body that was mended of one fault tells the next one.
fn refusals(body: &mut Members) -> Vec<ParseDefinitionError> {
    let mut refusals = Vec::new();
    if body.value(key::SECRET).is_some()
        && let Err(error) = parse_state_secret(body)
    {
        refusals.push(error);
    }
    for _ in 0..MAX_FAULTS {
        match Definition::parse(body) {
            Ok(definition) => {
                refusals.extend(in_clear(&definition));
                break;
            }
            Err(error) => {
                mend(body, &error);
                refusals.push(error);
            }
        }
    }
    refusals
}

/// Returns which storages would be spoken to in clear.
fn in_clear(definition: &Definition) -> impl Iterator<Item = ParseDefinitionError> {
    let manifest = definition.manifest_storage.as_ref().map(|storage| &storage.access);
    let state = definition.state_storage.as_ref().map(|storage| &storage.access);
    [(manifest, StoragePurpose::Manifest), (state, StoragePurpose::State)]
        .into_iter()
        .filter_map(|(access, purpose)| access?.require_https(purpose).err())
        .map(ParseDefinitionError::Storage)
}

/// Puts something good in the place of what is missing, and takes out what is wrong.
fn mend(body: &mut Members, error: &ParseDefinitionError) {
    let key = error.key();
    match error {
        ParseDefinitionError::Missing { .. } => body.insert(key, good(key)),
        ParseDefinitionError::Storage(_) => {
            // One key says what another one must be: they are told one by one, by `init`.
            let family = key.split_inclusive('_').next().unwrap_or(key);
            let keys: Vec<_> =
                body.keys().filter(|key| key.starts_with(family)).map(str::to_owned).collect();
            for key in keys {
                body.remove(&key);
            }
        }
        _ => {
            body.remove(key);
        }
    }
}

fn good(key: &str) -> &'static str {
    match key {
        key::GITHUB_URL => "https://git.example/app.git",
        _ => "app",
    }
}

/// Returns the key of the configuration that a key of the wire is made of.
fn in_configuration(key: &'static str) -> &'static str {
    definition::KEY_FILES.into_iter().find(|(_, wire)| *wire == key).map_or(key, |(file, _)| file)
}

/// Returns an error's text without the key at its beginning.
fn reason_of(error: &ParseDefinitionError) -> String {
    let text = error.to_string();
    let rest = text.strip_prefix(error.key()).unwrap_or(&text);
    rest.trim_start_matches([':', ' ']).to_owned()
}

/// There are fewer keys than that.
const MAX_FAULTS: usize = 100;
