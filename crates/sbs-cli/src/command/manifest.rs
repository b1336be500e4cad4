use std::fs::File;
use std::io::Seek as _;
use std::path::Path;

use sbs_client::{
    Client, DescribedManifest, DownloadError, FetchedKey, ManifestForm, Offer, Received,
};
use sbs_manifest::{Compatibility, Detail};
use sbs_proto::v2::Selector;
use sbs_proto::{BuildName, BuildSelector, ManifestName};
use serde_json::json;

use crate::command::Context;
use crate::command::verify::{self, KeySource};
use crate::error::{CommandError, Kind};
use crate::file::{self, Access, Existing, ReadFileError, WriteFileError};
use crate::part::Part;

/// A manifest that was saved.
struct Saved {
    /// The file itself, whatever its name stands for meanwhile.
    file: File,
    name: ManifestName,
    path: String,
}

/// How a manifest that was saved is verified.
pub(crate) struct Verification {
    pub(crate) key: KeySource,
    /// Whether a changed copy is tried, too, which must be refused.
    pub(crate) test: bool,
}

/// Saves the manifest of a build and, with a key, verifies it.
pub(crate) async fn fetch(
    context: &Context<'_>,
    build: &Selector,
    verification: Option<Verification>,
    compatibility: Compatibility,
    form: ManifestForm,
) -> Result<(), CommandError> {
    let client = context.client()?;
    let saved = match client.find_manifest(build, form).await? {
        Offer::Described(manifest) => {
            check_build(name_of(build), &manifest.name)?;
            save(context, &client, &manifest, form).await?
        }
        Offer::Undescribed => save_v1(&client, name_of(build)).await?,
    };
    let Saved { name, path, .. } = &saved;
    match verification {
        None => context.ui.result(path, json!({"file": path, "manifest": name.as_str()})),
        Some(verification) => {
            context.ui.note(format_args!("saved {path}"));
            verify(context, &client, saved, &verification, compatibility).await
        }
    }
}

/// Downloads a manifest that the server describes, or what is missing of it.
async fn save(
    context: &Context<'_>,
    client: &Client,
    manifest: &DescribedManifest,
    form: ManifestForm,
) -> Result<Saved, CommandError> {
    let name = manifest.name.clone();
    let path = file_name(&name, form);
    let target = Path::new(&path);
    match file::open(target) {
        Err(ReadFileError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
        Ok(file) => {
            let there = Received::read(&file).map_err(local)?;
            if there.is(&manifest.file) {
                return Ok(Saved { file, name, path });
            }
            return Err(WriteFileError::Exists { path: target.to_owned() }.into());
        }
    }
    let (part, received) = Part::open(target, &manifest.file)?;
    if received.length() > 0 {
        let (there, all) = (received.length(), manifest.file.size);
        context.ui.note(format_args!("going on at {there} of {all} bytes"));
    }
    let mut sink = tokio::fs::File::from_std(part.file.try_clone().map_err(local)?);
    match client.download(manifest, received, &mut sink).await {
        Ok(()) => Ok(Saved { file: part.complete(target)?, name, path }),
        Err(error) => {
            if matches!(error, DownloadError::Digest) {
                part.discard();
            }
            Err(error.into())
        }
    }
}

/// Downloads the manifest of a build over v1.
async fn save_v1(client: &Client, build: Option<&BuildName>) -> Result<Saved, CommandError> {
    // The name comes last.
    let spool = file::begin(Path::new(".")).map_err(local)?;
    let mut sink = tokio::fs::File::from_std(spool.as_file().try_clone().map_err(local)?);
    let name = client.download_v1(&selector(build), &mut sink).await?;
    check_build(build, &name)?;
    let path = file_name(&name, ManifestForm::Full);
    let file = file::keep(spool, Path::new(&path), Access::Everyone, Existing::Keep)?;
    Ok(Saved { file, name, path })
}

fn check_build(build: Option<&BuildName>, name: &ManifestName) -> Result<(), CommandError> {
    if build.is_some_and(|build| *build != name.build_name()) {
        let text = "the server sent the manifest of another build";
        return Err(CommandError::new(Kind::Refused, text));
    }
    Ok(())
}

/// Returns the name of the build that was asked for by name.
fn name_of(build: &Selector) -> Option<&BuildName> {
    match build {
        Selector::Named(name) => Some(name),
        Selector::Id(_) | Selector::Latest => None,
    }
}

/// Returns the name of the build that is meant, if it has one: the given one, or `BUILD_NAME`.
pub(crate) fn named(
    context: &Context<'_>,
    given: Option<&BuildName>,
) -> Result<Option<BuildName>, CommandError> {
    if let Some(name) = given {
        return Ok(Some(name.clone()));
    }
    let name = context.config.text(BUILD_NAME)?.map(BuildName::parse);
    name.transpose().map_err(|error| {
        CommandError::new(Kind::Config, format!("{BUILD_NAME} cannot be used: {error}"))
    })
}

fn file_name(name: &ManifestName, form: ManifestForm) -> String {
    let files = name.files();
    match form {
        ManifestForm::Full => files.full,
        ManifestForm::Thin => files.thin,
    }
}

fn local(error: std::io::Error) -> CommandError {
    CommandError::new(Kind::Config, error)
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
    mut saved: Saved,
    verification: &Verification,
    form: Compatibility,
) -> Result<(), CommandError> {
    let source = &verification.key;
    let key = match source {
        KeySource::File(path) => verify::read_key(path)?,
        KeySource::Server => {
            let build = saved.name.build_name();
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
    saved.file.rewind().map_err(local)?;
    let mut opened = verify::open(saved.file, &key, form)?;
    // The parts, for those who repeat the check with other tools.
    let (name, form) = (&saved.name, opened.form());
    let archive = format!("{name}{}", form.archive_suffix());
    file::write_from(Path::new(&archive), opened.inner()?)?;
    let signature = opened.signature.to_string();
    let signature_file = format!("{name}{}", form.signature_suffix());
    file::write_from(Path::new(&signature_file), signature.as_bytes())?;
    if verification.test {
        opened.refuses_changes(&key)?;
        context.ui.note("a changed copy of the manifest was refused, as it must be");
    }
    opened.report(source, Detail::Outcome, context.ui)
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

const BUILD_NAME: &str = "BUILD_NAME";
