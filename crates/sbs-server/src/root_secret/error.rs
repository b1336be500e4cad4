use std::io;
use std::path::PathBuf;

use sbs_state::{MakeKeyRingError, ParseRootSecretError, PrfError};
use thiserror::Error;

#[cfg(feature = "tpm2")]
use crate::root_secret::tpm2::Tpm2Error;
use crate::store::ReadSecretFileError;

/// Why the root secret cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum OpenRootSecretError {
    /// A credential's name is a path.
    #[error("`{name}` is no name of a credential; set `root-secret.credential` to a file name")]
    CredentialName { name: String },

    /// The secret file cannot be used.
    #[error(
        "the root secret cannot be used; on a new server make one with `sbs-server root-secret init`, on \
         an old one bring it back: with another nothing that is kept can be opened"
    )]
    File(#[from] ReadSecretFileError),

    /// A previous secret has previous ones.
    #[error(
        "a previous root secret has previous ones of its own; list them all in `root-secret.previous`"
    )]
    NestedPrevious,

    /// There is no directory of credentials.
    #[error(
        "CREDENTIALS_DIRECTORY is not set; start the server as a systemd service with \
         `LoadCredentialEncrypted={credential}`"
    )]
    NoCredentials { credential: String },

    /// The program lacks the feature.
    #[cfg(not(feature = "tpm2"))]
    #[error("this sbs-server cannot use a TPM; build it with `--features tpm2`")]
    NotBuilt,

    /// The secret is malformed.
    #[error("`{}` holds no root secret", path.display())]
    Parse { path: PathBuf, source: ParseRootSecretError },

    /// The secrets do not go together.
    #[error("the root secrets of the settings do not go together")]
    Ring(#[from] MakeKeyRingError),

    /// The TPM does not give the secret.
    #[cfg(feature = "tpm2")]
    #[error("the TPM does not give the root secret")]
    Tpm2(#[from] Tpm2Error),
}

/// Why no root secret was made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum InitRootSecretError {
    /// The backup cannot be written.
    #[error("the backup `{}` cannot be written", path.display())]
    Backup { path: PathBuf, source: WriteNewError },

    /// The secret to start from cannot be used.
    #[error("the secret given by `--from` cannot be used")]
    From(#[source] OpenRootSecretError),

    /// The program lacks the feature.
    #[cfg(not(feature = "tpm2"))]
    #[error("this sbs-server cannot use a TPM; build it with `--features tpm2`")]
    NotBuilt,

    /// The secret's number cannot be computed.
    #[error("the root secret that was made cannot be used")]
    Prf(#[from] PrfError),

    /// systemd makes its credentials itself.
    #[error(
        "a credential is made by systemd: `head -c 32 /dev/urandom | systemd-creds encrypt \
         --name={credential} --with-key=host+tpm2 - /etc/credstore.encrypted/{credential}`"
    )]
    Systemd { credential: String },

    /// The TPM does not seal the secret.
    #[cfg(feature = "tpm2")]
    #[error("the TPM does not seal the root secret")]
    Tpm2(#[from] Tpm2Error),

    /// The secret file cannot be written.
    #[error("`{}` cannot be written", path.display())]
    Write { path: PathBuf, source: WriteNewError },
}

/// Why a new file with a secret was not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum WriteNewError {
    /// The directory is not safe.
    #[error("its directory is not safe for a secret")]
    Directory(#[from] ReadSecretFileError),

    /// There is such a file.
    #[error("it exists, and may be all that opens what is kept; move it away if it is of no use")]
    Exists,

    /// Writing failed.
    #[error("writing failed")]
    Io(#[source] io::Error),
}
