use std::error::Error;
use std::fmt;
use std::io;

use sbs_proto::Digest;
use thiserror::Error;

use super::address::PrivateAddress;

/// Why an exchange with a registry did not succeed.
///
/// No variant holds a credential. What a registry chose to say is cut to 120 harmless characters.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry knows who asks and says no (403).
    #[error(
        "registry `{host}` does not permit this ({reason}); is the user allowed to use the repository?"
    )]
    Denied {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// What the registry said.
        reason: Remark,
    },

    /// What was served is not what its digest says.
    #[error("{what} from registry `{host}` has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// What it is about.
        what: &'static str,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },

    /// A fault of ours.
    #[error("internal fault: {0}")]
    Internal(&'static str),

    /// A local file could not be read or written.
    #[error("cannot read or write {what} on this machine")]
    Local {
        /// What it is about.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },

    /// The answer is not what the OCI distribution specification calls for.
    #[error("registry `{host}` gave an answer that makes no sense: {what}")]
    Malformed {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// What it is about.
        what: &'static str,
    },

    /// The registry has no such thing.
    #[error("registry `{host}` has no such {what}")]
    NotFound {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// What it is about.
        what: &'static str,
    },

    /// The registry took something and does not serve it.
    #[error(
        "registry `{host}` accepted a {what} and does not serve it; does someone else write there?"
    )]
    NotKept {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// What it is about.
        what: &'static str,
    },

    /// The registry named a token server that credentials must not go to.
    #[error(
        "registry `{host}` wants its users to log in at `{realm}`, which is not trusted; if that \
         is right, add the host to `registry.token-hosts` in the settings"
    )]
    RealmNotAllowed {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// Where credentials should have gone.
        realm: Remark,
    },

    /// The registry sent us to a place that we do not go to.
    #[error("registry `{host}` sent us to `{target}`, which is refused: {why}")]
    RedirectNotAllowed {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// Where the registry sent us.
        target: Remark,
        /// Why we do not go there.
        why: &'static str,
    },

    /// The registry answered with another status than was called for.
    #[error("registry `{host}` answered with status {status} ({reason})")]
    Rejected {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        reason: Remark,
    },

    /// What was served has another size than it should have.
    #[error(
        "{what} from registry `{host}` has another size than the {expected} bytes it should have"
    )]
    SizeMismatch {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// What it is about.
        what: &'static str,
        /// What it should be.
        expected: u64,
    },

    /// The transfer took too long.
    #[error("the transfer to or from registry `{host}` took more than {seconds} seconds")]
    TimeLimit {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// The limit.
        seconds: u64,
    },

    /// What was served, or is to be served, is larger than is accepted.
    #[error("{what} from registry `{host}` is larger than {max_bytes} bytes")]
    TooLarge {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// What it is about.
        what: &'static str,
        /// The limit.
        max_bytes: u64,
    },

    /// The registry does not accept the credentials, or wants some where there are none (401).
    #[error("registry `{host}` refused {what}")]
    Unauthorized {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// What it is about.
        what: &'static str,
    },

    /// There is no answer.
    #[error("cannot reach registry `{host}`")]
    Unreachable {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// The cause.
        source: TransportError,
    },

    /// The registry's certificate is not trusted.
    #[error(
        "the certificate of `{host}` is not trusted; if it stands under an authority of your own, \
         give that as `registry.ca-file` in the settings"
    )]
    Untrusted {
        /// The registry, as `host` or `host:port`.
        host: String,
        /// The cause.
        source: TransportError,
    },
}

/// A short text that a registry chose, harmless to print.
#[derive(Clone, Eq, PartialEq)]
pub struct Remark(String);

impl Remark {
    /// Keeps 120 characters at most; whatever is not printable ASCII becomes `?`.
    pub fn new(text: &str) -> Self {
        let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        Self(text.chars().take(MAX_REMARK_CHARS).map(printable).collect())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What went wrong below HTTP.
///
/// It is kept as text: the chain below can hold addresses with queries, and names that the other
/// side put into its certificate.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub struct TransportError(Remark);

impl TransportError {
    /// Takes a cause of our own.
    pub fn new(text: &str) -> Self {
        Self(Remark::new(text))
    }

    /// Takes the first cause.
    pub fn deepest(error: &(dyn Error + 'static)) -> Self {
        Self::new(&deepest(error).to_string())
    }
}

impl RegistryError {
    /// Returns a stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized { .. } => "registry_login",
            Self::Denied { .. } => "registry_denied",
            Self::NotFound { .. } => "registry_not_found",
            Self::Unreachable { .. } | Self::TimeLimit { .. } => "registry_unreachable",
            Self::Untrusted { .. } | Self::RealmNotAllowed { .. } => "registry_untrusted",
            Self::Internal(_) | Self::Local { .. } => "internal",
            Self::DigestMismatch { .. }
            | Self::Malformed { .. }
            | Self::NotKept { .. }
            | Self::RedirectNotAllowed { .. }
            | Self::Rejected { .. }
            | Self::SizeMismatch { .. }
            | Self::TooLarge { .. } => "registry",
        }
    }

    /// Tells whether the registry answered, and the answer is not what it should be; otherwise there
    /// is no answer that says anything about what was asked for.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::DigestMismatch { .. }
                | Self::Malformed { .. }
                | Self::NotFound { .. }
                | Self::SizeMismatch { .. }
                | Self::TooLarge { .. }
        )
    }

    /// Tells whether the registry has no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// What one attempt came to, and whether another one makes sense.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: RegistryError,
    pub(super) retry: Retry,
}

/// Whether another attempt makes sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Retry {
    /// After a pause; the registry may have said how long, in seconds.
    After(Option<u64>),
    /// It would come to the same.
    Never,
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Self {
        Self { error, retry: Retry::Never }
    }
}

impl Fault {
    /// Judges an error of the HTTP client.
    pub(super) fn from_transport(host: &str, error: reqwest::Error) -> Self {
        // The address stands in the error's text otherwise, and with it its query.
        let error = error.without_url();
        let host = host.to_owned();
        if let Some(private) = find_cause::<PrivateAddress>(&error) {
            let target = Remark::new(&private.host);
            let why = "it has a private address";
            return RegistryError::RedirectNotAllowed { host, target, why }.into();
        }
        if let Some(rustls::Error::InvalidCertificate(cause)) = find_cause::<rustls::Error>(&error)
        {
            let source = TransportError::new(&cause.to_string());
            return RegistryError::Untrusted { host, source }.into();
        }
        let cut = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
        let source = match find_cause::<io::Error>(&error) {
            // What rustls says here is a link to its manual.
            Some(error) if cut(error) => TransportError::new("the connection ended early"),
            _ => TransportError::deepest(&error),
        };
        Self::interrupted(host, source)
    }

    /// Makes the fault of a connection that ended or stood still.
    pub(super) fn interrupted(host: String, source: TransportError) -> Self {
        Self { error: RegistryError::Unreachable { host, source }, retry: Retry::After(None) }
    }
}

/// Finds an error of this type among the causes, also inside of `io::Error`, whose `source` skips
/// what it wraps.
pub fn find_cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = below(error);
    }
    None
}

fn deepest<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut deepest = error;
    while let Some(cause) = below(deepest) {
        deepest = cause;
    }
    deepest
}

fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped as &(dyn Error + 'static)))
}

const MAX_REMARK_CHARS: usize = 120;

/// Returns an error with its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_short_and_cannot_move_a_cursor() {
        let remark = Remark::new(&format!("a\x1b[2K\n\u{202e}{}", "x".repeat(500)));
        assert_eq!(remark.to_string().len(), 120);
        assert!(remark.to_string().starts_with("a?[2K??x"), "{remark}");
    }

    #[test]
    fn finds_a_cause_inside_an_io_error() {
        let inner = io::Error::other(PrivateAddress { host: "h".to_owned() });
        let outer = io::Error::other(inner);
        assert_eq!(find_cause::<PrivateAddress>(&outer).unwrap().host, "h");
        assert!(find_cause::<rustls::Error>(&outer).is_none());
    }
}
