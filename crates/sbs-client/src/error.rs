use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError};
use thiserror::Error;

/// Why a call brought no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server did not accept the client certificate.
    #[error("the server refused the client certificate ({alert})")]
    ClientCertificateRefused {
        /// The TLS alert that it sent.
        alert: &'static str,
    },

    /// The connection ended before the whole reply was there. A server that does not accept the
    /// client certificate can look like this, because under TLS 1.3 it says so only after the
    /// client has begun to send.
    #[error("the connection ended before the server's reply was complete")]
    Lost {
        /// What happened.
        source: reqwest::Error,
    },

    /// What is to be sent cannot be read.
    #[error("what is to be sent cannot be read")]
    Read {
        /// Why.
        source: io::Error,
    },

    /// The server answered that it will not.
    #[error("{}", refusal(*status, code, message))]
    Refused {
        /// A stable word such as `busy`; empty where the server sent none.
        code: String,
        /// The server's explanation, made safe to show and cut to
        /// [`SHOWN_CHARACTERS`](crate::limits::SHOWN_CHARACTERS); may be empty.
        message: String,
        /// The HTTP status.
        status: u16,
    },

    /// The server did not answer in time.
    #[error("the server did not answer in time")]
    TimedOut {
        /// What was being waited for.
        source: reqwest::Error,
    },

    /// The reply is longer than the limit.
    #[error("the server's reply is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },

    /// The server speaks an older API, or did not keep what is asked for.
    #[error("the server does not have {what}")]
    Unavailable {
        /// What it does not have.
        what: &'static str,
    },

    /// The reply is not of the form that the call answers with.
    #[error("the server's reply is not understood: {what}")]
    UnexpectedReply {
        /// What is wrong with it.
        what: &'static str,
    },

    /// There was no connection.
    #[error("the server cannot be reached")]
    Unreachable {
        /// Why.
        source: reqwest::Error,
    },

    /// The server's certificate was not accepted. Nothing was sent.
    #[error("the server's certificate is not trusted: {reason}")]
    Untrusted {
        /// Why.
        reason: UntrustedReason,
    },
}

/// Why a server's certificate was not accepted.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum UntrustedReason {
    /// It is past its end.
    #[error("it has expired")]
    Expired,

    /// It is valid only from a later time on.
    #[error("it is not valid yet")]
    NotYetValid,

    /// Anything else.
    #[error("it is not a valid server certificate")]
    Other,

    /// It is not the certificate that the caller expects.
    #[error("its SHA-256 fingerprint is another one than expected")]
    OtherFingerprint,

    /// The certificate authority that the client trusts did not issue it.
    #[error("it does not come from the certificate authority of this client")]
    UnknownIssuer,

    /// It was issued for another host name.
    #[error("it was issued for another host name")]
    WrongName,
}

impl CallError {
    /// Says what an error of the HTTP library means here.
    pub(crate) fn from_transport(error: reqwest::Error) -> Self {
        // The URL adds nothing: there is one server.
        let source = error.without_url();
        match tls_error(&source) {
            Some(rustls::Error::InvalidCertificate(fault)) => {
                Self::Untrusted { reason: UntrustedReason::from_fault(fault) }
            }
            Some(rustls::Error::AlertReceived(alert))
                if let Some(alert) = refusal_alert(*alert) =>
            {
                Self::ClientCertificateRefused { alert }
            }
            _ if source.is_timeout() && !source.is_connect() => Self::TimedOut { source },
            _ if source.is_connect() => Self::Unreachable { source },
            _ => Self::Lost { source },
        }
    }
}

impl UntrustedReason {
    fn from_fault(fault: &CertificateError) -> Self {
        use CertificateError as Fault;
        match fault {
            Fault::Expired | Fault::ExpiredContext { .. } => Self::Expired,
            Fault::NotValidYet | Fault::NotValidYetContext { .. } => Self::NotYetValid,
            // A certificate of another authority that bears the same name fails by its signature.
            Fault::UnknownIssuer | Fault::BadSignature => Self::UnknownIssuer,
            // What the verifier for first contact says.
            Fault::ApplicationVerificationFailure => Self::OtherFingerprint,
            Fault::NotValidForName | Fault::NotValidForNameContext { .. } => Self::WrongName,
            _ => Self::Other,
        }
    }
}

/// Finds the TLS library's own error, which sits inside I/O errors at a depth that changes.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // `io::Error::source` skips the error that it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Returns the name of an alert that tells that the client's certificate is missing or unwelcome
/// (RFC 8446, 6.2).
fn refusal_alert(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::CertificateExpired => "certificate expired",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::CertificateRevoked => "certificate revoked",
        AlertDescription::CertificateUnknown => "certificate unknown",
        AlertDescription::DecryptError => "its signature does not verify",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        _ => return None,
    })
}

fn refusal(status: u16, code: &str, message: &str) -> String {
    let code = if code.is_empty() { String::new() } else { format!(" `{code}`") };
    let message = if message.is_empty() { "no explanation" } else { message };
    match status {
        200..300 => format!("the server refused{code}: {message}"),
        _ => format!("the server refused with status {status}{code}: {message}"),
    }
}
