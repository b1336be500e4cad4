//! The keys of images: what relying parties get, and new keys in the place of old ones.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_client::Shown;
use sbs_proto::{KeyRole, RuntimeType, TRUST_FILE, TrustBundle};
use sbs_registry::image_trust::ImageTrust;
use serde_json::json;
use time::OffsetDateTime;

use crate::command::Context;
use crate::error::{CommandError, Kind};
use crate::file::{self, Access, Existing, WriteFileError};

/// Saves the trust bundle and the files that the usual tools read.
pub(crate) async fn save(
    context: &Context<'_>,
    output: Option<&Path>,
    existing: Existing,
) -> Result<(), CommandError> {
    let bundle = context.client()?.trust().await?;
    check(&bundle)?;
    let directory = output.map_or_else(|| directory_of(&bundle), Path::to_owned);
    let text = serde_json::to_string_pretty(&bundle)
        .map_err(|error| CommandError::new(Kind::Internal, error))?;
    write(&directory.join(TRUST_FILE), &(text + "\n"), existing)?;
    let files = bundle.files();
    for file in &files {
        write(&directory.join(file.path), &file.content, existing)?;
    }
    let shown = directory.display();
    let names: Vec<_> = files.iter().map(|file| file.path).collect();
    context.ui.note(format_args!("saved in {shown}: {TRUST_FILE}, {}", names.join(", ")));
    let commands = bundle.commands();
    // Users run these.
    let lines = commands.iter().map(|(_, command)| format!("{}\n", Shown::line(command)));
    let text: String = [format!("cd {}\n", quoted(&directory))].into_iter().chain(lines).collect();
    let commands: serde_json::Map<_, _> =
        commands.into_iter().map(|(tool, command)| (tool.to_owned(), command.into())).collect();
    let json = json!({ "commands": commands, "directory": shown.to_string(), "files": names });
    context.ui.result(text.trim_end(), json)
}

/// Makes a new key for a role, or ends the rotation that an earlier call began. The server wants
/// SECRET for either, as for `update`.
pub(crate) async fn rotate(
    context: &Context<'_>,
    role: KeyRole,
    retire: bool,
) -> Result<(), CommandError> {
    let (client, secret) = (context.client()?, context.config.secret()?);
    let bundle = if retire {
        client.retire_key(role, &secret).await?
    } else {
        client.rotate_key(role, &secret).await?
    };
    check(&bundle)?;
    if retire {
        context.ui.note("relying parties that know only the key of before refuse new images now");
    } else {
        context.ui.note("new images are signed with both keys until you run this with --retire");
        context.ui.note("give relying parties what `sbs get-trust` saves, and save the state");
    }
    let keys = keys_of(&bundle, role);
    let text: Vec<_> = keys
        .iter()
        .map(|(id, retiring)| format!("{id}{}", if *retiring { " (retiring)" } else { "" }))
        .collect();
    let json: Vec<_> =
        keys.iter().map(|(id, retiring)| json!({ "id": id, "retiring": retiring })).collect();
    context.ui.result(text.join("\n"), json!({ "keys": json, "role": role.as_str() }))
}

/// The end of the name of the file with the key of signed images.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeySuffix {
    /// That of `get-dct-publickey`, as the command was called in 1.3.0.6.
    Dct,
    Public,
}

/// Saves the key of signed images under the name and in the form of the original's client.
pub(crate) async fn save_image_key(
    context: &Context<'_>,
    suffix: KeySuffix,
    existing: Existing,
) -> Result<(), CommandError> {
    let registration = context.client()?.registration().await?;
    let repository = &registration.repository_name;
    // The server wrote base64 of the key for these, and leaves it to us elsewhere.
    let verbatim = repository.starts_with("docker.io/")
        || context.config.runtime_type()? == RuntimeType::Classic;
    let key = registration.public_key;
    let text = if verbatim { key } else { STANDARD.encode(key) };
    let name = repository.replace('/', "-");
    let safe = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(safe) {
        let error = "the server sent the name of a repository that cannot be a file's";
        return Err(CommandError::new(Kind::Refused, error));
    }
    let path = match suffix {
        KeySuffix::Dct => format!("{name}-dct-public.key"),
        KeySuffix::Public => format!("{name}-public.key"),
    };
    let written = file::write(Path::new(&path), text.as_bytes(), Access::Everyone, existing);
    written.map_err(|error| match error {
        error @ WriteFileError::Exists { .. } => CommandError::from(error)
            .hint("after rotate-key the key is another one; --overwrite puts it in its place"),
        error => error.into(),
    })?;
    context.ui.result(&path, json!({ "file": path, "key_id": registration.public_key_id }))
}

/// Makes sure that what a server sent is a bundle that can be saved, printed and relied on: keys are
/// those that their names say, and addresses are addresses.
fn check(bundle: &TrustBundle) -> Result<(), CommandError> {
    let checked = ImageTrust::read(bundle, OffsetDateTime::now_utc());
    checked.map(drop).map_err(|error| CommandError::new(Kind::Refused, error))
}

/// Quotes a path for a POSIX shell, if it needs that.
fn quoted(path: &Path) -> String {
    let text = Shown::line(&path.display().to_string()).to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn keys_of(bundle: &TrustBundle, role: KeyRole) -> Vec<(&str, bool)> {
    let keys = match role {
        KeyRole::Attestation => &bundle.attestation_keys,
        KeyRole::Image => &bundle.image_keys,
        KeyRole::Manifest => &bundle.manifest_keys,
        KeyRole::OpenPgp => {
            let keys = bundle.openpgp_keys.iter();
            return keys.map(|key| (key.fingerprint.as_str(), key.retiring)).collect();
        }
    };
    keys.iter().map(|key| (key.id.as_str(), key.retiring)).collect()
}

fn directory_of(bundle: &TrustBundle) -> PathBuf {
    // An image reference has no character that is not safe in a name, but for the slashes.
    format!("trust.{}", bundle.repository.to_string().replace('/', "-")).into()
}

fn write(path: &Path, text: &str, existing: Existing) -> Result<(), CommandError> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|error| CommandError::new(Kind::Config, error))?;
    }
    Ok(file::write(path, text.as_bytes(), Access::Everyone, existing)?)
}
