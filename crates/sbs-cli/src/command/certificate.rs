use std::path::PathBuf;

use sbs_crypto::pki;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::certificate::{CertificateError, Outcome, Removed, Renewal, SignedRequest};
use crate::command::Context;
use crate::error::{CommandError, Kind};
use crate::file::Existing;
use crate::limits::EARLY_WARNING;

/// Makes the certificate authority and the client certificate.
pub(crate) fn create_client(
    context: &Context<'_>,
    renewal: Renewal,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    let path = context.certificates.client.display();
    let outcome = context.certificates.create_client(renewal, now)?;
    let certificate = context.certificates.client_certificate()?;
    match outcome {
        Outcome::Found => {
            context.ui.note("using supplied pem files");
            warn_of_end(context, "client", &certificate, now);
        }
        Outcome::Renewed => context.ui.note(
            "made a new client certificate; a server that takes only the one before is to be \
             started with what instance-env prints now",
        ),
        _ => context.ui.note("made a certificate authority and a client certificate"),
    }
    let ends = Ends::of(context, &certificate, now)?;
    let mut json = ends.to_json();
    json.insert("client_certificate".to_owned(), path.to_string().into());
    context.ui.result(&path, json.into())
}

/// Makes the server's certificate.
pub(crate) fn create_server(
    context: &Context<'_>,
    renewal: Renewal,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    let host = context.config.hostname()?;
    let outcome = context.certificates.create_server(host, renewal, now)?;
    let certificate = context.certificates.server_certificate()?;
    match outcome {
        Outcome::Found => {
            context.ui.note(format_args!("using supplied pem files for {host}"));
            warn_of_end(context, "server", &certificate, now);
        }
        Outcome::Made => context.ui.note(format_args!("made a server certificate for {host}")),
        Outcome::Renewed => context.ui.note(format_args!(
            "made a new server certificate for {host}; start the server with what instance-env \
             prints now"
        )),
        Outcome::Remade { old_names } => context.ui.warning(format_args!(
            "replaced the server certificate for {old_names} by one for {host}; start the server \
             with what instance-env prints now"
        )),
    }
    let ends = Ends::of(context, &certificate, now)?;
    let mut json = ends.to_json();
    json.insert("hostname".to_owned(), host.into());
    context.ui.result(host, json.into())
}

/// Makes the certificate for a server's request.
pub(crate) fn sign_request(
    context: &Context<'_>,
    existing: Existing,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    let host = context.config.hostname()?;
    let signed = context.certificates.sign_request(host, existing, now)?;
    let SignedRequest { certificate, path, request } = signed;
    let key = request.public_key_sha256();
    context.ui.note(format_args!("made a certificate for {host} and the key {key}"));
    let mut json = Ends::of(context, &certificate, now)?.to_json();
    let path = path.display().to_string();
    json.insert("file".to_owned(), path.clone().into());
    json.insert("public_key".to_owned(), key.to_string().into());
    context.ui.result(&path, json.into())
}

/// Removes what the commands above made.
pub(crate) fn delete(context: &Context<'_>) -> Result<(), CommandError> {
    let deleted = context.certificates.delete().map_err(CertificateError::from)?;
    match &deleted {
        None => context.ui.warning(
            "nothing is removed: CLIENT_CRT_KEY names a certificate and key of your own, and what \
             is beside it is yours, too",
        ),
        Some(Removed { removed, .. }) if removed.is_empty() => {
            context.ui.note("there is nothing to remove");
        }
        Some(_) => {}
    }
    let Removed { kept, removed } = deleted.unwrap_or_default();
    let shown = |paths: &[PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    };
    let (kept, removed) = (shown(&kept), shown(&removed));
    if !kept.is_empty() {
        context.ui.warning(format_args!("left as it is: {}", kept.join(", ")));
    }
    context.ui.result(removed.join("\n"), json!({"kept": kept, "removed": removed}))
}

/// When a certificate and its authority end.
struct Ends {
    authority: OffsetDateTime,
    certificate: OffsetDateTime,
}

impl Ends {
    /// Reads and tells them.
    fn of(
        context: &Context<'_>,
        certificate: &str,
        now: OffsetDateTime,
    ) -> Result<Self, CommandError> {
        let end = |pem: &str| {
            let info = pki::describe(pem).map_err(|error| CommandError::new(Kind::Config, error));
            info.map(|info| info.not_after)
        };
        let authority = end(&context.certificates.authority_certificate()?)?;
        let certificate = end(certificate)?;
        context.ui.note(format_args!(
            "valid until {}, its authority until {}",
            certificate.date(),
            authority.date()
        ));
        if authority < now + EARLY_WARNING {
            context.ui.warning(
                "the certificate authority ends soon, and all certificates with it: make everything \
                 anew with delete-certificates, create-client-cert and create-server-cert",
            );
        }
        Ok(Self { authority, certificate })
    }

    fn to_json(&self) -> Map<String, Value> {
        let text = |time: OffsetDateTime| Value::from(time.format(&Rfc3339).unwrap_or_default());
        let members =
            [("authority_not_after", text(self.authority)), ("not_after", text(self.certificate))];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Tells of a certificate that soon ends or has ended: it is not replaced without being asked for.
fn warn_of_end(context: &Context<'_>, whose: &str, pem: &str, now: OffsetDateTime) {
    if let Ok(certificate) = pki::describe(pem)
        && certificate.not_after < now + EARLY_WARNING
    {
        let end = certificate.not_after.date();
        context.ui.warning(format_args!(
            "the {whose} certificate is valid until {end} and not longer; to make a new one under \
             the same authority: sbs create-{whose}-cert --renew"
        ));
    }
}
