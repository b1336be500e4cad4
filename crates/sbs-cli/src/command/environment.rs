//! The variables that a server is started with.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::openpgp::OpenPgpRecipient;
use sbs_proto::RuntimeType;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::args::Layout;
use crate::command::Context;
use crate::error::{CommandError, Kind};
use crate::file;
use crate::limits::PEM_BYTES;

/// A variable's name and value.
type Variable = (&'static str, Zeroizing<String>);

/// Prints the variables that the server is started with.
pub(crate) fn print(
    context: &Context<'_>,
    layout: Option<Layout>,
    recipient: Option<&Path>,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    let variables = variables(context, recipient, now)?;
    let layout = match layout {
        Some(layout) => layout,
        None if context.config.runtime_type()? == RuntimeType::Classic => Layout::Classic,
        None => Layout::Contract,
    };
    let json: Map<String, Value> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    context.ui.result(&*text(&variables, layout), json.into())
}

/// Returns the text of a file with these variables, one a line.
pub(crate) fn file(
    context: &Context<'_>,
    now: OffsetDateTime,
) -> Result<Zeroizing<String>, CommandError> {
    let mut text = text(&variables(context, None, now)?, Layout::Env);
    text.push('\n');
    Ok(text)
}

/// Who alone can read the server's key.
struct Recipient {
    certificate: OpenPgpRecipient,
    path: PathBuf,
}

impl Recipient {
    fn read(path: &Path, now: OffsetDateTime) -> Result<Self, CommandError> {
        let certificate = parse_recipient(&file::read(path, PEM_BYTES)?, now);
        let certificate = certificate.map_err(|error| {
            error.hint(format!(
                "`{}` must be the OpenPGP certificate of the server that SERVER_KEY is for",
                path.display()
            ))
        })?;
        Ok(Self { certificate, path: path.to_owned() })
    }

    fn encrypt(&self, key: &str, now: OffsetDateTime) -> Result<String, CommandError> {
        let message = self.certificate.encrypt(key.as_bytes(), now);
        message.map_err(|error| CommandError::new(Kind::Config, error))
    }
}

fn parse_recipient(bytes: &[u8], now: OffsetDateTime) -> Result<OpenPgpRecipient, CommandError> {
    OpenPgpRecipient::parse(bytes, now).map_err(|error| CommandError::new(Kind::Config, error))
}

fn variables(
    context: &Context<'_>,
    recipient: Option<&Path>,
    now: OffsetDateTime,
) -> Result<Vec<Variable>, CommandError> {
    let recipient = match recipient {
        Some(path) => Some(path.to_owned()),
        None => context.config.path(SERVER_KEY_RECIPIENT_FILE)?,
    };
    let recipient = recipient.map(|path| Recipient::read(&path, now)).transpose()?;
    let encode = |text: &str| Zeroizing::new(STANDARD.encode(text));
    let certificates = &context.certificates;
    let mut variables = Vec::new();
    if let Some(path) = context.config.path("ROOT_SSH_KEY_FILE")? {
        variables.push(("ROOT_SSH_KEY", encode(&file::read_text(&path, PEM_BYTES)?)));
    }
    let authority = certificates.authority_certificate()?;
    variables.push(("CLIENT_CRT", encode(&certificates.client_certificate()?)));
    variables.push(("CLIENT_CA", encode(&authority)));
    let Some((server, key)) = certificates.server_pair()? else {
        context.ui.note(
            "the server makes its own key: it is started without SERVER_CRT and SERVER_KEY, and \
             has its certificate from post-server-cert",
        );
        return Ok(variables);
    };
    variables.push(("SERVER_CRT", encode(&server)));
    let key = if let Some(recipient) = &recipient {
        let (path, name) = (recipient.path.display(), recipient.certificate.fingerprint());
        context.ui.note(format_args!("SERVER_KEY is encrypted to {name}, of `{path}`"));
        encode(&recipient.encrypt(&key, now)?)
    } else {
        context.ui.note("SERVER_KEY is the server's private key: give it to the server alone");
        encode(&key)
    };
    variables.push(("SERVER_KEY", key));
    Ok(variables)
}

/// Returns the lines of a layout. Values are base64, which none of them has to quote.
fn text(variables: &[Variable], layout: Layout) -> Zeroizing<String> {
    let (before, between, after, separator) = match layout {
        Layout::Classic => ("-e ", "=", "", " "),
        // The original prints an empty line behind the last one: the end of this one ends it.
        Layout::Contract => ("", ": \"", "\"\n", ""),
        Layout::Env => ("", "=", "", "\n"),
        Layout::Systemd => ("", "=\"", "\"", "\n"),
    };
    // The whole room at once: a string that grows leaves copies of a secret behind.
    let room = variables.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    let mut text = Zeroizing::new(String::with_capacity(room));
    for (index, (name, value)) in variables.iter().enumerate() {
        let separator = if index == 0 { "" } else { separator };
        for part in [separator, before, name, between, value, after] {
            text.push_str(part);
        }
    }
    text
}

const SERVER_KEY_RECIPIENT_FILE: &str = "SERVER_KEY_RECIPIENT_FILE";

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    /// The key that the original's client embeds.
    const ISV_USER: &[u8] = include_bytes!("../../tests/data/isv-user.asc");

    #[test]
    fn the_originals_key_is_taken_until_it_expired_and_then_refused_by_name_and_date() {
        parse_recipient(ISV_USER, datetime!(2026-11-15 11:59 UTC)).unwrap();
        for now in [datetime!(2026-11-15 12:01 UTC), datetime!(2030-01-01 0:00 UTC)] {
            let error = parse_recipient(ISV_USER, now).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            let text = error.to_string();
            for part in
                ["68308EFC34880986E5F32E591BEA4515C279F44A", "`isv_user`", "expired on 2026-11-15"]
            {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
