use std::path::PathBuf;

use sbs_crypto::GenerateKeyError;
use sbs_crypto::pki::{DescribeError, IssueError, ParseServerChainError};
use thiserror::Error;
use time::OffsetDateTime;

use crate::core::error::KeepError;
use crate::store::ReadSecretFileError;
use crate::tls::MakeTlsError;

/// Why no certificate was requested.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum RequestCertificateError {
    /// The key could not be made.
    #[error("cannot make the key of the certificate")]
    Generate(#[from] GenerateKeyError),

    /// The request could not be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),

    /// The request could not be written.
    #[error("cannot write the request")]
    Make(#[from] IssueError),

    /// The host is none.
    #[error("the host is neither a DNS name nor an IP address; give it without port or brackets")]
    NotAHost,

    /// The task that made the key ended.
    #[error("the key of the certificate was not made")]
    Task(#[source] tokio::task::JoinError),
}

/// Why a certificate was not installed. The one of before is still there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum InstallCertificateError {
    /// Clients would not accept it.
    #[error(transparent)]
    Check(#[from] CheckCertificateError),

    /// The certificate could not be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),

    /// No key waits for a certificate.
    #[error("no certificate was asked for; get a request for one first")]
    NoRequest,

    /// The certificate is one of another key.
    #[error(
        "the certificate is not of the key in the last request; sign that request, or get \
         another one"
    )]
    OtherKey,

    /// The text is no chain of certificates.
    #[error(transparent)]
    Parse(#[from] ParseServerChainError),

    /// Connections cannot be accepted with it.
    #[error(transparent)]
    Tls(#[from] MakeTlsError),
}

/// Why clients would not accept a certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum CheckCertificateError {
    /// There is nothing to hold it against.
    #[error("the authorities of clients cannot be used")]
    Authorities,

    /// It is expired, or not valid yet, or one between it and the authority is.
    #[error(
        "the certificate, or one behind it, is not valid now (it is from {not_before} to \
         {not_after}); make a new one, or correct the clock"
    )]
    NotValidNow { not_before: OffsetDateTime, not_after: OffsetDateTime },

    /// Another authority signed it.
    #[error("the certificate is not signed by an authority in CLIENT_CA, which clients trust")]
    OtherAuthority,

    /// It is for another host.
    #[error("the certificate has no subject alternative name for `{host}`, which it was asked for")]
    OtherHost { host: String },

    /// It is not for servers.
    #[error("the certificate is not for servers (extended key usage serverAuth)")]
    OtherPurpose,

    /// Something else is wrong with it.
    #[error("clients would not accept the certificate")]
    Rejected { source: rustls::Error },
}

/// Why certificates could not be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum LoadCertificatesError {
    /// A certificate cannot be read.
    #[error("{what} cannot be read")]
    Describe { what: &'static str, source: DescribeError },

    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    File { path: PathBuf, source: std::io::Error },

    /// What is kept cannot be read.
    #[error(transparent)]
    Keep(#[from] KeepError),

    /// The file of the key cannot be read, or is not kept as a secret must be.
    #[error("the server's key cannot be loaded")]
    KeyFile(#[from] ReadSecretFileError),

    /// A certificate of the server's own could not be made.
    #[error("the server's own certificate cannot be made")]
    Make(#[from] RequestCertificateError),

    /// The text is not UTF-8.
    #[error("`{}` is not text", path.display())]
    NotText { path: PathBuf },

    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] MakeTlsError),
}
