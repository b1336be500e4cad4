use std::path::Path;

use sbs_client::{Client, FetchedKey, FetchedManifest};
use sbs_manifest::Compatibility;
use sbs_proto::{BuildName, BuildSelector};
use serde_json::json;

use crate::command::Context;
use crate::command::verify::{self, KeySource};
use crate::error::{CommandError, Kind};
use crate::file::{self, Access, Existing};

/// Saves the manifest of a build and, with a key, verifies it.
pub(crate) async fn fetch(
    context: &Context<'_>,
    build: Option<&BuildName>,
    key: Option<KeySource>,
    form: Compatibility,
) -> Result<(), CommandError> {
    let client = context.client()?;
    let manifest = client.manifest(&selector(build)).await?;
    let name = &manifest.name;
    if build.is_some_and(|build| *build != name.build_name()) {
        return Err(CommandError::new(
            Kind::Refused,
            "the server sent the manifest of another build",
        ));
    }
    let path = format!("{name}.sig.tbz");
    file::write(Path::new(&path), &manifest.bytes, Access::Everyone, Existing::Keep)?;
    match key {
        None => context.ui.result(&path, json!({"file": path, "manifest": name.as_str()})),
        Some(key) => {
            context.ui.note(format_args!("saved {path}"));
            verify(context, &client, &manifest, &key, form).await
        }
    }
}

/// Saves the public key of a build's manifest.
pub(crate) async fn fetch_key(
    context: &Context<'_>,
    build: Option<&BuildName>,
) -> Result<(), CommandError> {
    let key = context.client()?.public_key(&selector(build)).await?;
    if build.is_some_and(|build| *build != key.build_name) {
        return Err(CommandError::new(Kind::Refused, "the server sent the key of another build"));
    }
    let path = save_key(&key)?;
    let json = json!({
        "build_name": key.build_name.as_str(), "file": path, "public_key_pem": key.pem,
    });
    context.ui.result(&path, json)
}

async fn verify(
    context: &Context<'_>,
    client: &Client,
    manifest: &FetchedManifest,
    source: &KeySource,
    form: Compatibility,
) -> Result<(), CommandError> {
    let key = match source {
        KeySource::File(path) => verify::read_key(path)?,
        KeySource::Server => {
            let build = manifest.name.build_name();
            let key = client.public_key(&BuildSelector::Named(build.clone())).await?;
            if key.build_name != build {
                let text = "the server sent the key of another build than that of the manifest";
                return Err(CommandError::new(Kind::Unverified, text));
            }
            let path = save_key(&key)?;
            context.ui.note(format_args!("saved {path}"));
            parse_server_key(&key)?
        }
    };
    let mut opened = verify::open(&*manifest.bytes, &key, form)?;
    // The parts, for those who repeat the check with other tools.
    let name = &manifest.name;
    file::write_from(Path::new(&format!("{name}.tbz")), &opened.inner)?;
    let signature = opened.signature.to_string();
    file::write_from(Path::new(&format!("{name}.sig")), signature.as_bytes())?;
    opened.report(source, context.ui)
}

fn selector(build: Option<&BuildName>) -> BuildSelector {
    build.map_or(BuildSelector::Latest, |build| BuildSelector::Named(build.clone()))
}

/// Saves a key that the server sent, after a look at whether it is one.
fn save_key(key: &FetchedKey) -> Result<String, CommandError> {
    parse_server_key(key)?;
    let path = key.build_name.public_key_file();
    file::write(Path::new(&path), key.pem.as_bytes(), Access::Everyone, Existing::Keep)?;
    Ok(path)
}

fn parse_server_key(key: &FetchedKey) -> Result<sbs_crypto::ManifestVerifyingKey, CommandError> {
    sbs_crypto::ManifestVerifyingKey::from_pem(&key.pem)
        .map_err(|error| CommandError::new(Kind::Unverified, error))
}
