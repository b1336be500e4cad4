use std::fmt::Write as _;

use sbs_client::{Client, Shown};
use sbs_proto::{BuildStatus, Members, StatusReply};
use serde_json::{Value, json};

use crate::command::Context;
use crate::definition;
use crate::error::{CommandError, Kind};
use crate::file::{self, Access, Existing, ReadFileError};

/// Tells a new server what to build.
pub(crate) async fn init(context: &Context<'_>) -> Result<(), CommandError> {
    let members = definition::members(&context.config)?;
    warn_of_unknown_keys(context);
    let client = context.client()?;
    remember_runtime_type(context, Existing::Replace)?;
    print_reply(context, &client.init(&members).await?)
}

/// Tells the server that the configuration changed.
pub(crate) async fn update(context: &Context<'_>) -> Result<(), CommandError> {
    let (client, members) = prepare_update(context)?;
    print_reply(context, &client.update(&members).await?)
}

/// Makes what `update` needs, and refuses what `update` cannot change.
pub(crate) fn prepare_update(context: &Context<'_>) -> Result<(Client, Members), CommandError> {
    let members = definition::members(&context.config)?;
    warn_of_unknown_keys(context);
    let client = context.client()?;
    remember_runtime_type(context, Existing::Keep)?;
    Ok((client, members))
}

/// Stops and removes the build.
pub(crate) async fn clean(context: &Context<'_>) -> Result<(), CommandError> {
    print_reply(context, &context.client()?.clean().await?)
}

/// Prints the reference of the last image.
pub(crate) async fn digest(context: &Context<'_>) -> Result<(), CommandError> {
    let image = context.client()?.image_digest().await?;
    context.ui.result(&image, json!({"image": image.to_string()}))
}

/// Prints a status as lines of `name: value`.
pub(crate) fn print_status(
    context: &Context<'_>,
    status: &BuildStatus,
) -> Result<(), CommandError> {
    let json =
        serde_json::to_value(status).map_err(|error| CommandError::new(Kind::Internal, error))?;
    let mut text = String::new();
    for (name, value) in json.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let _infallible = writeln!(text, "{name}: {}", Shown::line(&value));
    }
    context.ui.result(text.trim_end_matches('\n'), json)
}

pub(crate) fn print_reply(context: &Context<'_>, reply: &StatusReply) -> Result<(), CommandError> {
    let json: Value = json!({"status": reply.status});
    context.ui.result(Shown::line(&reply.status), json)
}

/// Keeps the `RUNTIME_TYPE` that the server was told, which `update` cannot change.
fn remember_runtime_type(context: &Context<'_>, existing: Existing) -> Result<(), CommandError> {
    let path = context.certificates.runtime_type_file()?;
    let now = context.config.runtime_type()?.as_str();
    if existing == Existing::Keep {
        match file::read_text(&path, 64) {
            Ok(before) if before.trim_end() == now => return Ok(()),
            Err(ReadFileError::Missing { .. }) => (),
            Ok(_) => {
                let text = "RUNTIME_TYPE is not the one that init was called with";
                return Err(CommandError::new(Kind::Config, text).hint(
                    "update cannot change it: set it back, or start a new server with init",
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(file::write(&path, now.as_bytes(), Access::Everyone, Existing::Replace)?)
}

fn warn_of_unknown_keys(context: &Context<'_>) {
    let keys = definition::unknown_keys(&context.config);
    if !keys.is_empty() {
        let keys = keys.join(", ");
        let keys = Shown::short(&keys, 300);
        context.ui.warning(format_args!("unknown in the configuration, and not sent: {keys}"));
    }
}
