use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;

use sbs_client::{CallError, ExportedState, ImportedState, Shown, StateImport};
use sbs_proto::state::EXPORT_TAG;
use sbs_proto::{BucketName, ReadStateHeaderError, StateHeader, StateImageName, key};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::command::Context;
use crate::config::Pin;
use crate::error::{CommandError, Kind};
use crate::file::{self, Access, Existing, WriteFileError};
use crate::state_file::{OpenStateFileError, StateFile, write_json};
use crate::ui::Ui;

/// How the state is saved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Export<'a> {
    /// Where to, instead of the bucket in the configuration.
    pub(crate) bucket: Option<&'a BucketName>,
    pub(crate) existing: Existing,
    pub(crate) raw: bool,
}

/// What is imported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Import<'a> {
    pub(crate) bucket: Option<&'a BucketName>,
    pub(crate) file: Option<&'a Path>,
    pub(crate) min_epoch: Option<u64>,
    pub(crate) name: Option<&'a StateImageName>,
}

/// Saves the server's state in a file, or has the server put it into a bucket.
pub(crate) async fn export(context: &Context<'_>, how: &Export<'_>) -> Result<(), CommandError> {
    match bucket(context, how.bucket)? {
        None => export_to_file(context, how).await,
        Some(_) if how.raw => {
            let text = "STATE_BUCKET_NAME is set, and nothing comes here that --raw could save";
            Err(CommandError::new(Kind::Usage, text).hint(WITHOUT_BUCKET))
        }
        Some(bucket) => {
            let exported = context.client()?.export_state_to_bucket(&bucket).await?;
            let path = save(&exported, None, how)?;
            context.ui.note(format_args!(
                "the state image is in bucket {bucket}, as {}; its epoch was not told and is not \
                 pinned",
                exported.name
            ));
            let json = json!({
                "bucket": bucket.as_str(), "file": path, "name": exported.name.as_str(),
            });
            context.ui.result(path, json)
        }
    }
}

async fn export_to_file(context: &Context<'_>, how: &Export<'_>) -> Result<(), CommandError> {
    let mut spool = tempfile::tempfile().map_err(local)?;
    let mut sink = tokio::fs::File::from_std(spool.try_clone().map_err(local)?);
    let exported = context.client()?.export_state(&mut sink).await?;
    spool.rewind().map_err(local)?;
    let header = match StateHeader::read(&mut spool) {
        Ok(header) => Some(header),
        // The original seals in a form of its own.
        Err(ReadStateHeaderError::NotAStateImage) if exported.export_tag.is_some() => None,
        Err(error) => return Err(CommandError::new(Kind::Unverified, error)),
    };
    let path = save(&exported, Some((&mut spool, header.as_ref())), how)?;
    let size = spool.metadata().map_err(local)?.len();
    if let Some(header) = &header {
        pin(context, header.epoch)?;
    }
    let json = json!({
        "file": path, "name": exported.name.as_str(), "size": size,
        "epoch": header.as_ref().map(|header| header.epoch),
        "export_sequence": header.as_ref().map(|header| header.export_seq),
    });
    context.ui.result(path, json)
}

/// Writes what is kept of an export; returns the file's name.
fn save(
    exported: &ExportedState,
    image: Option<(&mut File, Option<&StateHeader>)>,
    how: &Export<'_>,
) -> Result<String, CommandError> {
    let ExportedState { export_tag, name } = exported;
    let path = if how.raw { format!("{name}.sbs-state") } else { name.to_string() };
    let target = Path::new(&path);
    let mut out = file::begin(Path::new(".")).map_err(local)?;
    let told = |header: Option<&StateHeader>| {
        let of_header = header.and_then(|header| header.meta.export_tag.as_ref());
        let of_header = of_header.map_or_else(|| EXPORT_TAG.into(), |tag| tag.as_str().into());
        export_tag.clone().unwrap_or(of_header)
    };
    let written = match image {
        None => write_json(&mut out, name, &told(None), None),
        Some((image, header)) => {
            image.rewind().map_err(local)?;
            if how.raw {
                io::copy(image, &mut out).map(drop)
            } else {
                write_json(&mut out, name, &told(header), Some(image as &mut dyn Read))
            }
        }
    };
    written.map_err(local)?;
    match file::keep(out, target, Access::Owner, how.existing) {
        Ok(_) => Ok(path),
        Err(error @ WriteFileError::Exists { .. }) => Err(CommandError::from(error)
            .hint("each export is another file; --overwrite puts this one in its place")),
        Err(error) => Err(error.into()),
    }
}

fn pin(context: &Context<'_>, epoch: u64) -> Result<(), CommandError> {
    match context.config.pin_epoch(epoch, OffsetDateTime::now_utc())? {
        Pin::Pinned => {}
        Pin::Higher(pinned) => context.ui.warning(format_args!(
            "this state image has epoch {epoch} and STATE_MIN_EPOCH is {pinned}: the server was set \
             back, or is another one; if that is as it should be, remove STATE_MIN_EPOCH"
        )),
    }
    Ok(())
}

/// Gives a new server the state of another.
pub(crate) async fn import(context: &Context<'_>, what: &Import<'_>) -> Result<(), CommandError> {
    let pinned = context.config.min_epoch()?;
    let min_epoch = what.min_epoch.or(pinned);
    let import = StateImport { min_epoch, secret: context.config.secret()? };
    let imported = match source(context, what)? {
        Source::Bucket(bucket, name) => {
            let client = context.client()?;
            client.import_state_from_bucket(import, &bucket, &name).await
        }
        Source::File(mut file) => {
            check_epoch(&mut file, min_epoch)?;
            let bytes = tokio::fs::File::from_std(file.bytes);
            context.client()?.import_state(import, file.size, bytes).await
        }
    };
    let imported = imported.map_err(|error| {
        let lost = matches!(error, CallError::Lost { .. } | CallError::TimedOut { .. });
        let error = CommandError::from(error);
        let hint = "run it again: `state_not_empty` then says that it was done";
        if lost { error.hint(hint) } else { error }
    })?;
    tell(context, imported)
}

enum Source {
    Bucket(BucketName, StateImageName),
    File(StateFile),
}

fn source(context: &Context<'_>, what: &Import<'_>) -> Result<Source, CommandError> {
    let usage = |text: &'static str| CommandError::new(Kind::Usage, text);
    let bucket = bucket(context, what.bucket)?;
    let file = match what.file {
        Some(path) => Some(path.to_owned()),
        None => context.config.path("STATE_IMAGE")?,
    };
    match (bucket, file) {
        (Some(_), Some(_)) => {
            let text =
                "STATE_BUCKET_NAME is set: the state image comes from there and not from a file";
            Err(usage(text).hint(WITHOUT_BUCKET))
        }
        (Some(bucket), None) => {
            let name = match what.name {
                Some(name) => name.clone(),
                None => named(context)?,
            };
            Ok(Source::Bucket(bucket, name))
        }
        (None, Some(_)) if what.name.is_some() => Err(usage("--name is for a bucket only")),
        (None, Some(path)) => Ok(Source::File(StateFile::open(&path)?)),
        (None, None) => Err(usage(
            "where is the state image? give --state-image FILE, or --name \
             NAME for one in a bucket with --state-bucket-name NAME",
        )),
    }
}

fn named(context: &Context<'_>) -> Result<StateImageName, CommandError> {
    let Some(name) = context.config.text("NAME")? else {
        return Err(CommandError::new(
            Kind::Usage,
            "which state image of the bucket? give --name NAME",
        ));
    };
    StateImageName::parse(name).map_err(|error| CommandError::new(Kind::Config, error))
}

/// Returns the bucket that is meant, if any.
fn bucket(
    context: &Context<'_>,
    given: Option<&BucketName>,
) -> Result<Option<BucketName>, CommandError> {
    if let Some(bucket) = given {
        return Ok(Some(bucket.clone()));
    }
    let bucket = context.config.text(key::STATE_BUCKET_NAME)?.map(BucketName::parse);
    bucket.transpose().map_err(|error| {
        CommandError::new(
            Kind::Config,
            format!("{} cannot be used: {error}", key::STATE_BUCKET_NAME),
        )
    })
}

/// Refuses a state image that says itself that it is too old. The server does so, too, after it knows
/// that it says the truth.
fn check_epoch(file: &mut StateFile, min_epoch: Option<u64>) -> Result<(), CommandError> {
    let header = match file.header() {
        Ok(header) => header,
        // It may be one of the original, for a server of the original: that one must say.
        Err(ReadStateHeaderError::NotAStateImage) => {
            return file.bytes.rewind().map_err(local);
        }
        Err(error) => return Err(CommandError::new(Kind::Unverified, error)),
    };
    match min_epoch {
        Some(least) if header.epoch < least => {
            let text =
                format!("the state image has epoch {}, and {least} is the least", header.epoch);
            Err(CommandError::new(Kind::Unverified, text).hint(
                "a newer one was saved (STATE_MIN_EPOCH); to import this one all the same, give \
                 --min-epoch",
            ))
        }
        _ => Ok(()),
    }
}

fn tell(context: &Context<'_>, imported: ImportedState) -> Result<(), CommandError> {
    let ImportedState { definition, epoch } = imported;
    if definition == Some(false) {
        context.ui.note("the image definition that the server had already stays");
    }
    let text = match epoch {
        Some(epoch) => format!("OK: epoch {epoch}"),
        None => "OK".to_owned(),
    };
    context.ui.result(text, json!({"status": "OK", "definition": definition, "epoch": epoch}))
}

/// Prints what a state image tells without a secret.
pub(crate) fn info(path: &Path, ui: &Ui) -> Result<(), CommandError> {
    let mut file = StateFile::open(path)?;
    let StateHeader { server_kid, epoch, export_seq, created_ms, meta } =
        file.header().map_err(|error| CommandError::new(Kind::Unverified, error))?;
    let kid = format!("{:016x}", u64::from_be_bytes(server_kid));
    let created = OffsetDateTime::from_unix_timestamp_nanos(i128::from(created_ms) * 1_000_000);
    let created = created.ok().and_then(|time| time.format(&Rfc3339).ok());
    let label = |label: Option<&sbs_proto::StateLabel>| label.map(ToString::to_string);
    let members: Vec<(&str, Value)> = vec![
        ("name", meta.name.as_ref().map(ToString::to_string).into()),
        ("epoch", epoch.into()),
        ("export_sequence", export_seq.into()),
        ("created", created.into()),
        ("server_kid", kid.into()),
        ("provider", label(meta.provider.as_ref()).into()),
        ("client_ca_sha256", meta.client_ca_sha256.map(|digest| digest.to_string()).into()),
        ("export_tag", label(meta.export_tag.as_ref()).into()),
        ("image_tag", label(meta.image_tag.as_ref()).into()),
        ("server_version", label(meta.server_version.as_ref()).into()),
        ("form", file.form.as_str().into()),
        ("size", file.size.into()),
    ];
    let line = |(name, value): &(&str, Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(format!("{name}: {}", Shown::line(text))),
        value => Some(format!("{name}: {value}")),
    };
    let text: Vec<String> = members.iter().filter_map(line).collect();
    let beside = file.name.as_deref();
    if beside.is_some_and(|beside| Some(beside) != meta.name.as_ref().map(StateImageName::as_str)) {
        ui.warning("the name beside the state image is not the one in it");
    }
    ui.note("nothing of this is proved: only who has both secrets can open the state image");
    let json = members.into_iter().map(|(name, value)| (name.to_owned(), value));
    ui.result(text.join("\n"), Value::Object(json.collect()))
}

fn local(error: io::Error) -> CommandError {
    CommandError::new(Kind::Config, error)
}

impl From<OpenStateFileError> for CommandError {
    fn from(error: OpenStateFileError) -> Self {
        let elsewhere = matches!(error, OpenStateFileError::Elsewhere { .. });
        let error = Self::new(Kind::Config, error);
        let hint = "give --state-bucket-name and --name instead of the file";
        if elsewhere { error.hint(hint) } else { error }
    }
}

const WITHOUT_BUCKET: &str = "to work with a file, use a configuration without STATE_BUCKET_NAME";
