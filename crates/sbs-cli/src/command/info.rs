use sbs_client::{CallError, Shown};
use sbs_proto::v2::Info;
use serde_json::{Value, json};

use crate::command::Context;
use crate::error::{CommandError, Kind};

/// Prints what the server is and can do; warns of a root secret that is kept as for development.
pub(crate) async fn print(context: &Context<'_>) -> Result<(), CommandError> {
    let info = context.client()?.info().await?;
    let info = info.ok_or(CallError::Unavailable { what: "a description of itself" })?;
    let provider = info.root_secret.as_ref().filter(|secret| secret.development);
    if let Some(secret) = provider {
        context.ui.warning(format_args!(
            "the server keeps its root secret as for development ({}): who copies its disk may have \
             its keys",
            secret.provider
        ));
    }
    let fault = |error| CommandError::new(Kind::Internal, error);
    context.ui.result(text(&info), serde_json::to_value(&info).map_err(fault)?)
}

/// Returns lines of `name: value`.
fn text(info: &Info) -> String {
    let Info { api, certificates, features, limits, root_secret, server_version } = info;
    let root_secret = root_secret.as_ref().map(|secret| {
        let purpose = if secret.development { " (for development)" } else { "" };
        format!("{}{purpose}", secret.provider)
    });
    let not_told = || "not told".to_owned();
    let (server, authority) = match certificates {
        Some(dates) => (dates.server_not_after.clone(), dates.client_authority_not_after.clone()),
        None => (not_told(), not_told()),
    };
    let members: [(&str, Value); 9] = [
        ("server_version", json!(server_version)),
        ("api", json!(api)),
        ("features", json!(features.join(", "))),
        ("root_secret", json!(root_secret.unwrap_or_else(not_told))),
        ("server_certificate_ends", json!(server)),
        ("client_authority_ends", json!(authority)),
        ("page_builds", json!(limits.page_builds)),
        ("request_body_bytes", json!(limits.request_body_bytes)),
        ("v1_manifest_bytes", json!(limits.v1_manifest_bytes)),
    ];
    let line = |(name, value): &(&str, Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        format!("{name}: {}", Shown::line(&value))
    };
    members.iter().map(line).collect::<Vec<_>>().join("\n")
}
