//! `doctor`: looks at all that a build depends on, and says what is not as it should be.

use std::fmt::Write as _;

use sbs_client::Shown;
use sbs_crypto::pki::{self, CertificateInfo};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::certificate::CertificateError;
use crate::command::Context;
use crate::config::Notice;
use crate::definition;
use crate::error::{CommandError, Kind};
use crate::limits::EARLY_WARNING;

/// Looks at the configuration, the certificates, the server and the saved state. A fault is an error,
/// of the kind of the first one, after everything was looked at.
pub(crate) async fn run(context: &Context<'_>, now: OffsetDateTime) -> Result<(), CommandError> {
    let mut findings = Vec::new();
    findings.extend(configuration(context));
    findings.extend(certificates(context, now));
    findings.extend(server(context).await);
    findings.extend(secrets(context));
    let checks: Vec<Value> = findings.iter().map(Finding::to_json).collect();
    let text: Vec<String> = findings.iter().map(Finding::to_text).collect();
    context.ui.result(text.join("\n"), json!({"checks": checks}))?;
    let faults: Vec<Kind> = findings.iter().filter_map(|finding| finding.fault).collect();
    match faults.first() {
        None => Ok(()),
        Some(kind) => {
            let text = format!("{} of {} checks found a fault", faults.len(), findings.len());
            Err(CommandError::new(*kind, text))
        }
    }
}

/// What a look at one thing came to.
#[derive(Debug)]
struct Finding {
    /// The kind of the fault, if it is one.
    fault: Option<Kind>,
    /// What the user can do; what there is to do makes a warning of what is no fault.
    hints: Vec<String>,
    subject: &'static str,
    text: String,
}

impl Finding {
    fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self { fault: None, hints: Vec::new(), subject, text: text.into() }
    }

    fn warning(subject: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { fault: None, hints: vec![hint.into()], subject, text: text.into() }
    }

    fn fault(subject: &'static str, error: impl Into<CommandError>) -> Self {
        let error = error.into();
        let (hints, text) = (error.hints().to_vec(), error.to_string());
        Self { fault: Some(error.kind()), hints, subject, text }
    }

    fn outcome(&self) -> &'static str {
        match (self.fault, self.hints.is_empty()) {
            (Some(_), _) => "fault",
            (None, false) => "warning",
            (None, true) => "ok",
        }
    }

    fn to_text(&self) -> String {
        let mut line =
            format!("{:<8} {:<19} {}", self.outcome(), self.subject, Shown::line(&self.text));
        for hint in &self.hints {
            let _infallible = write!(line, "\n{:28} {}", "", Shown::line(hint));
        }
        line
    }

    fn to_json(&self) -> Value {
        json!({
            "hints": self.hints, "outcome": self.outcome(), "subject": self.subject,
            "text": self.text,
        })
    }
}

fn configuration(context: &Context<'_>) -> Vec<Finding> {
    const SUBJECT: &str = "configuration";
    let config = &context.config;
    let mut findings = vec![match definition::members(config) {
        Ok(_) => Finding::good(SUBJECT, format!("`{}`", config.file().display())),
        Err(error) => Finding::fault(SUBJECT, error),
    }];
    let unknown = definition::unknown_keys(config).join(", ");
    if !unknown.is_empty() {
        let text = format!("keys that mean nothing: {}", Shown::short(&unknown, 300));
        findings.push(Finding::warning(SUBJECT, text, "look for a mistyped name, or remove them"));
    }
    for path in [config.file(), &context.certificates.client] {
        if let Ok(Some(Notice::ReadableByOthers { path, .. })) = Notice::of_mode(path) {
            let path = path.display();
            let text = format!("others can read the secrets in `{path}`");
            findings.push(Finding::warning("permissions", text, format!("chmod 600 {path}")));
        }
    }
    findings
}

fn certificates(context: &Context<'_>, now: OffsetDateTime) -> Vec<Finding> {
    let certificates = &context.certificates;
    let mut findings = vec![
        ends("client certificate", certificates.client_certificate(), now, RENEW_CLIENT),
        ends("authority", certificates.authority_certificate(), now, RENEW_AUTHORITY),
    ];
    // It is not here where the server has it from elsewhere.
    if let Ok(pem) = certificates.server_certificate() {
        findings.push(ends("server certificate", Ok(pem.clone()), now, RENEW_SERVER));
        if let (Ok(host), Ok(info)) = (context.config.hostname(), pki::describe(&pem))
            && !info.is_for_host(host)
        {
            let text = format!("it is for {}, and HOSTNAME is {host}", info.sans.join(", "));
            findings.push(Finding::warning("server certificate", text, RENEW_SERVER));
        }
    }
    findings
}

/// Says until when a certificate is valid.
fn ends(
    subject: &'static str,
    pem: Result<String, CertificateError>,
    now: OffsetDateTime,
    hint: &str,
) -> Finding {
    let info = pem.map_err(CommandError::from).and_then(|pem| {
        pki::describe(&pem).map_err(|error| CommandError::new(Kind::Config, error))
    });
    match info {
        Err(error) => Finding::fault(subject, error),
        Ok(CertificateInfo { not_after, .. }) if not_after < now => {
            let text = format!("it ended on {}", not_after.date());
            Finding::fault(subject, CommandError::new(Kind::Config, text).hint(hint))
        }
        Ok(CertificateInfo { not_after, .. }) => {
            let text = format!("valid until {}", not_after.date());
            if not_after < now + EARLY_WARNING {
                Finding::warning(subject, text, hint)
            } else {
                Finding::good(subject, text)
            }
        }
    }
}

async fn server(context: &Context<'_>) -> Vec<Finding> {
    const SUBJECT: &str = "server";
    let client = match context.client() {
        Ok(client) => client,
        Err(error) => return vec![Finding::fault(SUBJECT, error)],
    };
    let status = match client.status().await {
        Ok(status) => status.status.to_string(),
        Err(error) => return vec![Finding::fault(SUBJECT, error)],
    };
    let info = match client.info().await {
        Ok(info) => info,
        Err(error) => return vec![Finding::fault(SUBJECT, error)],
    };
    let version = info.as_ref().map_or_else(
        || "it knows the API of the original alone".to_owned(),
        |info| format!("sbs-server {}", info.server_version),
    );
    let mut findings = vec![Finding::good(SUBJECT, format!("{version}; status: {status}"))];
    if let Some(secret) = info.and_then(|info| info.root_secret) {
        findings.push(if secret.development {
            let text = "kept in a file: who copies the server's disk may have its keys";
            Finding::warning("root secret", text, "`provider` in [root-secret]: systemd or tpm2")
        } else {
            Finding::good("root secret", format!("kept by {}", secret.provider))
        });
    }
    findings
}

fn secrets(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Ok(Some(_)) = context.config.pending_secret() {
        let text = "a change of SECRET was interrupted";
        findings.push(Finding::warning("secret", text, "finish it: sbs update"));
    }
    findings.push(match context.config.min_epoch() {
        Ok(Some(epoch)) => Finding::good("saved state", format!("epoch {epoch}")),
        Ok(None) => {
            let text = "none: if the server is lost, so are its keys";
            Finding::warning("saved state", text, "after the first build: sbs get-state-image")
        }
        Err(error) => Finding::fault("saved state", error),
    });
    findings
}

pub(crate) const RENEW_CLIENT: &str =
    "sbs create-client-cert --renew, unless it was made elsewhere";
pub(crate) const RENEW_AUTHORITY: &str =
    "all certificates end with it: make everything anew, see docs/operations.md";
pub(crate) const RENEW_SERVER: &str = "sbs create-server-cert --renew, and start the server with \
    what sbs prepare --overwrite writes; or get-server-csr, sign-csr and post-server-cert";
