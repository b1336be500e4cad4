use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::process::ExitCode;

use sbs_client::{BuildClientError, CallError, DownloadError, UntrustedReason};

use crate::certificate::CertificateError;
use crate::config::OpenConfigError;
use crate::definition::MakeMembersError;
use crate::file::{ReadFileError, WriteFileError};
use crate::migrate::MigrateError;
use crate::part::PartError;

/// Why a command ended without what it was to do, with what the user can do about it.
#[derive(Debug)]
pub(crate) struct CommandError {
    hints: Vec<String>,
    kind: Kind,
    source: Box<dyn StdError + Send + Sync>,
}

/// What kind of fault ended a command; it decides the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// The reader of our output went away, which is its right.
    Closed,
    /// The configuration or a file that it names.
    Config,
    /// Our own bug.
    Internal,
    /// The server or the build said no.
    Refused,
    /// No connection, or the server's certificate is not trusted.
    Unreachable,
    /// A signature or digest did not verify.
    Unverified,
    /// The command line.
    Usage,
}

impl CommandError {
    pub(crate) fn new(kind: Kind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { hints: Vec::new(), kind, source: source.into() }
    }

    /// Says what the user can do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Makes of it an error of another kind.
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::Closed => 0,
            Kind::Refused => 1,
            Kind::Config | Kind::Usage => 2,
            Kind::Unreachable => 3,
            Kind::Unverified => 4,
            Kind::Internal => 70,
        })
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self.source.as_ref()))
    }
}

/// Returns an error and its causes in one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.ends_with(&cause_text) {
            let _infallible = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    text
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        let (kind, hint) = match &error {
            CallError::ClientCertificateRefused { alert } if alert.contains("expired") => {
                (Kind::Unreachable, NEW_CERTIFICATES)
            }
            CallError::ClientCertificateRefused { .. } => (
                Kind::Unreachable,
                "the server must be started with CLIENT_CA of this client; see: sbs instance-env",
            ),
            CallError::Lost { .. } => (
                Kind::Unreachable,
                "if the server runs, it may not accept this client's certificate; \
                 start it with what instance-env prints now",
            ),
            CallError::TimedOut { .. } => (Kind::Unreachable, "try again later"),
            CallError::Unreachable { .. } => (
                Kind::Unreachable,
                "check HOSTNAME and CICD_PORT in the configuration, that the server runs, and that \
                 the name resolves (an entry in /etc/hosts will do)",
            ),
            CallError::Untrusted { reason: UntrustedReason::WrongName } => (
                Kind::Unreachable,
                "HOSTNAME must be the name that create-server-cert made the certificate for",
            ),
            CallError::Untrusted { reason: UntrustedReason::Expired } => {
                (Kind::Unreachable, NEW_CERTIFICATES)
            }
            CallError::Untrusted { reason: UntrustedReason::NotYetValid } => (
                Kind::Unreachable,
                "look at the clock of this machine, and of the one that made the certificate",
            ),
            CallError::Untrusted { .. } => (
                Kind::Unreachable,
                "start the server with what instance-env prints, or set CAPATH to the certificate \
                 authority that issued its certificate",
            ),
            CallError::Refused { code, .. } => (Kind::Refused, refusal_hint(code)),
            _ => (Kind::Refused, ""),
        };
        let error = Self::new(kind, error);
        if hint.is_empty() { error } else { error.hint(hint) }
    }
}

impl From<BuildClientError> for CommandError {
    fn from(error: BuildClientError) -> Self {
        let hint = match &error {
            BuildClientError::Host => {
                "HOSTNAME is the name alone, without `https://`; the port stands in CICD_PORT"
            }
            BuildClientError::Identity => {
                "CLIENT_CRT_KEY names that file; sbs create-client-cert makes one if it is not there"
            }
            BuildClientError::Trust => "CAPATH names that file",
            _ => return Self::new(Kind::Config, error),
        };
        Self::new(Kind::Config, error).hint(hint)
    }
}

impl From<DownloadError> for CommandError {
    fn from(error: DownloadError) -> Self {
        let (kind, hint) = match error {
            DownloadError::Call(error) => return error.into(),
            DownloadError::Changed => {
                (Kind::Refused, "run it again; if that does not help, the server is at fault")
            }
            DownloadError::Digest => {
                (Kind::Unverified, "run it again: what was received is removed")
            }
            DownloadError::GaveUp { .. } => {
                (Kind::Unreachable, "run it again: it goes on where it stopped")
            }
            DownloadError::Write { .. } => {
                (Kind::Config, "make room and run it again: it goes on where it stopped")
            }
            _ => return Self::new(Kind::Refused, error),
        };
        Self::new(kind, error).hint(hint)
    }
}

impl From<MigrateError> for CommandError {
    fn from(error: MigrateError) -> Self {
        Self::new(Kind::Config, error)
    }
}

impl From<PartError> for CommandError {
    fn from(error: PartError) -> Self {
        Self::new(Kind::Config, error)
    }
}

impl From<OpenConfigError> for CommandError {
    fn from(error: OpenConfigError) -> Self {
        Self::new(Kind::Config, error)
    }
}

impl From<MakeMembersError> for CommandError {
    fn from(error: MakeMembersError) -> Self {
        Self::new(Kind::Config, error).hint("nothing was sent to the server")
    }
}

impl From<CertificateError> for CommandError {
    fn from(error: CertificateError) -> Self {
        let hint = match &error {
            CertificateError::Partial { .. } => {
                "restore the missing files, or move the others away to make a new set"
            }
            CertificateError::Read(ReadFileError::Missing { .. }) => {
                "make the certificates first: sbs create-client-cert, then sbs create-server-cert"
            }
            _ => return Self::new(Kind::Config, error),
        };
        Self::new(Kind::Config, error).hint(hint)
    }
}

impl From<ReadFileError> for CommandError {
    fn from(error: ReadFileError) -> Self {
        Self::new(Kind::Config, error)
    }
}

impl From<WriteFileError> for CommandError {
    fn from(error: WriteFileError) -> Self {
        Self::new(Kind::Config, error)
    }
}

fn refusal_hint(code: &str) -> &'static str {
    match code {
        "busy" => "wait for the build (sbs log --follow) or stop it (sbs clean)",
        "ca_mismatch" => {
            "the state image was made for clients of another CLIENT_CA; accept-other-client-ca in \
             the server's settings allows that"
        }
        "nothing_to_export" => {
            "there is nothing to save yet; tell the server what to build: sbs init"
        }
        "rollback" => {
            "a newer state image was saved; to import the older one all the same, give --min-epoch"
        }
        "state_not_empty" => {
            "a state image is for a new server: one without keys and without builds that succeeded"
        }
        "unknown_server_key" => {
            "the server needs the root secret that the state image was made under"
        }
        "wrong_secret_or_header" => {
            "SECRET must be the one of the export; after a change of SECRET it is in a backup of \
             the configuration, which --env can name"
        }
        "not_initialised" => "tell the server what to build: sbs init",
        "wrong_phase" | "wrong_secret" => {
            "the SECRET of before is in a backup of the configuration, beside it"
        }
        _ => "",
    }
}

const NEW_CERTIFICATES: &str = "look at this machine's clock; if it is right: sbs \
    create-client-cert --renew, sbs create-server-cert --renew, and start the server with what sbs \
    instance-env prints";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_in_one_line_and_only_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {source}")]
        struct Outer {
            source: Inner,
        }
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner(#[source] std::io::Error);
        let source = Inner(std::io::Error::other("cause"));
        let error = CommandError::new(Kind::Config, Outer { source });
        assert_eq!(error.to_string(), "outer: inner: cause");
    }

    #[test]
    fn every_kind_has_its_exit_code() {
        for (kind, expected) in [
            (Kind::Closed, 0),
            (Kind::Refused, 1),
            (Kind::Config, 2),
            (Kind::Usage, 2),
            (Kind::Unreachable, 3),
            (Kind::Unverified, 4),
            (Kind::Internal, 70),
        ] {
            assert_eq!(CommandError::new(kind, "x").exit_code(), ExitCode::from(expected));
        }
    }
}
