use std::path::Path;

use sbs_proto::RuntimeType;
use serde_json::json;

use crate::config::expand;
use crate::error::CommandError;
use crate::file::{self, Access, Existing};
use crate::limits::CONFIG_BYTES;
use crate::migrate::{self, Migration};
use crate::ui::Ui;

/// Makes a new configuration of an old one and says what changed; the old one stays.
pub(crate) fn run(
    old: &Path,
    output: Option<&Path>,
    runtime: Option<RuntimeType>,
    ui: &Ui,
) -> Result<(), CommandError> {
    let old = expand(old);
    let text = file::read_text(&old, CONFIG_BYTES)?;
    let migration = migrate::migrate(&text, runtime)?;
    let output = output.map_or_else(|| old.with_extension("migrated.json"), expand);
    let bytes = migration.members.to_text();
    file::write(&output, bytes.as_bytes(), Access::Owner, Existing::Keep)?;
    let file = output.display().to_string();
    let Migration { changes, to_do, .. } = &migration;
    let json = json!({ "changes": changes, "file": file, "to_do": to_do });
    ui.result(report(&migration, &file), json)
}

fn report(migration: &Migration, file: &str) -> String {
    let changes = migration.changes.iter();
    let changes = changes
        .map(|change| format!("{} {}: {}", change.action.as_str(), change.key, change.reason));
    let to_do =
        migration.to_do.iter().map(|to_do| format!("to do: {}: {}", to_do.key, to_do.reason));
    changes.chain(to_do).chain([format!("written to {file}")]).collect::<Vec<_>>().join("\n")
}
