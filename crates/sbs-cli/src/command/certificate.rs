use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::pki;
use sbs_proto::RuntimeType;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::certificate::Outcome;
use crate::command::Context;
use crate::error::CommandError;
use crate::file;
use crate::limits::{EARLY_WARNING, PEM_BYTES};

/// Makes the certificate authority and the client certificate.
pub(crate) fn create_client(
    context: &Context<'_>,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    let path = context.certificates.client.display();
    match context.certificates.create_client(now)? {
        Outcome::Found => {
            context.ui.note("using supplied pem files");
            warn_of_end(context, "client", &context.certificates.client_certificate()?, now);
        }
        _ => context.ui.note("made a certificate authority and a client certificate"),
    }
    context.ui.result(&path, json!({"client_certificate": path.to_string()}))
}

/// Makes the server's certificate.
pub(crate) fn create_server(
    context: &Context<'_>,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    let host = context.config.hostname()?;
    match context.certificates.create_server(host, now)? {
        Outcome::Found => {
            context.ui.note(format_args!("using supplied pem files for {host}"));
            warn_of_end(context, "server", &context.certificates.server_pair()?.0, now);
        }
        Outcome::Made => context.ui.note(format_args!("made a server certificate for {host}")),
        Outcome::Remade { old_names } => context.ui.warning(format_args!(
            "replaced the server certificate for {old_names} by one for {host}; start the server \
             with what instance-env prints now"
        )),
    }
    context.ui.result(host, json!({"hostname": host}))
}

/// Tells of a certificate that soon ends or has ended: it is not replaced without being asked for.
fn warn_of_end(context: &Context<'_>, whose: &str, pem: &str, now: OffsetDateTime) {
    if let Ok(certificate) = pki::describe(pem)
        && certificate.not_after < now + EARLY_WARNING
    {
        let end = certificate.not_after.date();
        context.ui.warning(format_args!(
            "the {whose} certificate is valid until {end} and not longer; to make new ones, move \
             `{path}` and `{path}.d` away, then: sbs create-client-cert, sbs create-server-cert, \
             and start the server with what instance-env prints",
            path = context.certificates.client.display()
        ));
    }
}

/// Prints the variables that the server is started with.
pub(crate) fn instance_env(context: &Context<'_>) -> Result<(), CommandError> {
    let variables = variables(context)?;
    let classic = context.config.runtime_type()? == RuntimeType::Classic;
    let lines: Vec<String> = variables
        .iter()
        .map(|(name, value)| {
            if classic {
                format!("-e {name}={}", **value)
            } else {
                // A line for each, followed by an empty one, as the original prints them.
                format!("{name}: \"{}\"\n", **value)
            }
        })
        .collect();
    let text = Zeroizing::new(lines.join(if classic { " " } else { "\n" }));
    let json: Map<String, Value> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    context.ui.note("SERVER_KEY is the server's private key: give it to the server alone");
    context.ui.result(&*text, json.into())
}

fn variables(
    context: &Context<'_>,
) -> Result<Vec<(&'static str, Zeroizing<String>)>, CommandError> {
    let encode = |pem: &str| Zeroizing::new(STANDARD.encode(pem));
    let certificates = &context.certificates;
    let mut variables = Vec::new();
    if let Some(path) = context.config.path("ROOT_SSH_KEY_FILE")? {
        variables.push(("ROOT_SSH_KEY", encode(&file::read_text(&path, PEM_BYTES)?)));
    }
    let authority = certificates.authority_certificate()?;
    let (server, key) = certificates.server_pair()?;
    variables.push(("CLIENT_CRT", encode(&certificates.client_certificate()?)));
    variables.push(("CLIENT_CA", encode(&authority)));
    variables.push(("SERVER_CRT", encode(&server)));
    variables.push(("SERVER_KEY", encode(&key)));
    Ok(variables)
}
