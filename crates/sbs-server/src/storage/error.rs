use std::error::Error;
use std::io;

use http::StatusCode;
use sbs_proto::StorageKeyError;
use thiserror::Error;

use crate::storage::ParseObjectNameError;
use sbs_registry::{Remark, TransportError, find_cause};

/// Why an exchange with an object storage did not succeed.
///
/// No variant holds a credential. What a storage chose to say is its error code, at most 64 letters
/// and digits: its other words can repeat what was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum StorageError {
    /// The server stops.
    #[error("the transfer was ended because the server stops")]
    Cancelled,

    /// The object became another one between two parts of it.
    #[error("`{name}` in bucket `{bucket}` was changed while it was read; read it again")]
    Changed { bucket: String, name: String },

    /// The clocks differ too much for signed requests.
    #[error("storage `{host}` refused the time of this machine; set its clock")]
    Clock { host: String },

    /// The storage does not accept the credentials.
    #[error(
        "`{host}` does not accept the credentials ({code}); check the COS keys of the image \
         definition and run `update`"
    )]
    Credentials { host: String, code: Remark },

    /// The storage knows who asks and says no.
    #[error(
        "storage `{host}` does not permit this in bucket `{bucket}` ({code}); give the key write and \
         read access to it"
    )]
    Denied { host: String, bucket: String, code: Remark },

    /// The storage did not do what it was asked for, and may do so later.
    #[error("storage `{host}` does not work now (status {status}, {code})")]
    Failing { host: String, status: u16, code: Remark },

    /// A fault of ours.
    #[error("internal fault: {0}")]
    Internal(&'static str),

    /// A key of the definition is wrong.
    #[error("the image definition cannot be used: {0}")]
    Key(#[from] StorageKeyError),

    /// A local file could not be read or written.
    #[error("cannot read or write {what} on this machine")]
    Local { what: &'static str, source: io::Error },

    /// An answer is not what the API calls for.
    #[error("storage `{host}` gave an answer that makes no sense")]
    Malformed { host: String },

    /// The name cannot be one of an object.
    #[error(transparent)]
    Name(#[from] ParseObjectNameError),

    /// There is no such bucket.
    #[error("storage `{host}` has no bucket `{bucket}`; make it, or correct the bucket's name")]
    NoBucket { host: String, bucket: String },

    /// There is no such object.
    #[error("there is no `{name}` in bucket `{bucket}`")]
    NotFound { bucket: String, name: String },

    /// The storage answered with another status than was called for.
    #[error("storage `{host}` refused the request (status {status}, {code})")]
    Rejected { host: String, status: u16, code: Remark },

    /// The transfer took too long.
    #[error("the transfer to or from storage `{host}` took more than {seconds} seconds")]
    TimeLimit { host: String, seconds: u64 },

    /// The object is larger than is accepted.
    #[error("`{name}` in bucket `{bucket}` is larger than {max_bytes} bytes")]
    TooLarge { bucket: String, name: String, max_bytes: u64 },

    /// There is no answer.
    #[error("cannot reach `{host}`")]
    Unreachable { host: String, source: TransportError },

    /// The certificate is not trusted.
    #[error(
        "the certificate of `{host}` is not trusted; if it stands under an authority of your own, \
         give that as `storage.ca-file` in the settings"
    )]
    Untrusted { host: String, source: TransportError },
}

/// What went wrong in one exchange, before it is known what it was for. It travels inside of the
/// errors of `object_store`, whose own texts can hold what the storage said and are not used.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub(super) enum Fault {
    /// The token service did not hand out a token for the API key.
    #[error("no token: status {status}, {code}")]
    NoToken { host: String, status: StatusCode, code: Remark },

    /// An answer with another status than success.
    #[error("status {status}, {code}")]
    Status { status: StatusCode, code: Remark },

    /// An answer is larger than it can be, or unreadable.
    #[error("an answer that makes no sense")]
    Malformed { host: String },

    /// No answer came, or only a part.
    #[error("unreachable: {reason}")]
    Unreachable { host: String, reason: TransportError },

    /// The certificate is not trusted.
    #[error("untrusted: {reason}")]
    Untrusted { host: String, reason: TransportError },
}

impl Fault {
    /// Judges an error of the HTTP client.
    pub(super) fn from_transport(host: &str, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let host = host.to_owned();
        if let Some(rustls::Error::InvalidCertificate(cause)) = find_cause::<rustls::Error>(&error)
        {
            return Self::Untrusted { host, reason: TransportError::new(&cause.to_string()) };
        }
        let cut = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
        let reason = match find_cause::<io::Error>(&error) {
            _ if error.is_timeout() => TransportError::new("it does not answer in time"),
            Some(error) if cut(error) => TransportError::new("the connection ended early"),
            _ => TransportError::deepest(&error),
        };
        Self::Unreachable { host, reason }
    }

    /// Finds what happened in an error of `object_store`.
    pub(super) fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        find_cause(error)
    }
}

/// Where something was asked for, to judge a fault by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) bucket: &'a str,
    pub(super) host: &'a str,
    /// The object.
    pub(super) name: &'a str,
}

impl Place<'_> {
    /// Says who is at fault and what to do.
    pub(super) fn judge(&self, error: &(dyn Error + 'static)) -> StorageError {
        let here = self.host.to_owned();
        let bucket = self.bucket.to_owned();
        let Some(fault) = Fault::find(error) else {
            return StorageError::Malformed { host: here };
        };
        match fault.clone() {
            Fault::NoToken { host, status, code } if status.is_client_error() => {
                StorageError::Credentials { host, code }
            }
            Fault::NoToken { host, status, code } => {
                StorageError::Failing { host, status: status.as_u16(), code }
            }
            Fault::Malformed { host } => StorageError::Malformed { host },
            Fault::Unreachable { host, reason } => {
                StorageError::Unreachable { host, source: reason }
            }
            Fault::Untrusted { host, reason } => StorageError::Untrusted { host, source: reason },
            Fault::Status { status, code } => match (status, code.as_str()) {
                (_, "RequestTimeTooSkewed") => StorageError::Clock { host: here },
                (_, "InvalidAccessKeyId" | "NotSignedUp" | "SignatureDoesNotMatch")
                | (StatusCode::UNAUTHORIZED, _) => StorageError::Credentials { host: here, code },
                (StatusCode::FORBIDDEN, _) => StorageError::Denied { host: here, bucket, code },
                (StatusCode::NOT_FOUND, "NoSuchBucket") => {
                    StorageError::NoBucket { host: here, bucket }
                }
                (StatusCode::NOT_FOUND, _) => {
                    StorageError::NotFound { bucket, name: self.name.to_owned() }
                }
                (StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT, _) => {
                    StorageError::Failing { host: here, status: status.as_u16(), code }
                }
                _ if status.is_server_error() => {
                    StorageError::Failing { host: here, status: status.as_u16(), code }
                }
                _ => StorageError::Rejected { host: here, status: status.as_u16(), code },
            },
        }
    }
}
