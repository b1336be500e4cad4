//! The root secret as a credential of systemd (systemd.exec(5), "Credentials"): it is decrypted,
//! with a key of the host or of its TPM, into a directory that only this service has.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use sbs_state::Portability;

use crate::root_secret::{Held, OpenRootSecretError, Provider, file};
use crate::store::ReadSecretFileError;

pub(super) fn open(
    credential: &str,
    directory: Option<&Path>,
) -> Result<Held, OpenRootSecretError> {
    let mut components = Path::new(credential).components();
    let (Some(Component::Normal(name)), None) = (components.next(), components.next()) else {
        return Err(OpenRootSecretError::CredentialName { name: credential.to_owned() });
    };
    let directory = directory
        .ok_or_else(|| OpenRootSecretError::NoCredentials { credential: credential.to_owned() })?;
    check(directory)?;
    Ok(Held {
        name: Provider::Systemd.name(),
        // Whether the host's key or the TPM's, systemd does not tell.
        portability: Portability::ThisHost,
        secret: file::read(&directory.join(name))?,
        counter: None,
    })
}

/// Checks that nobody else can look into the directory, or put another file there.
fn check(directory: &Path) -> Result<(), ReadSecretFileError> {
    let at = |source| ReadSecretFileError::Read { path: directory.to_owned(), source };
    let refuse = |what| ReadSecretFileError::Unsafe { path: directory.to_owned(), what };
    let metadata = directory.symlink_metadata().map_err(at)?;
    if !metadata.is_dir() {
        return Err(refuse("is not a directory, as CREDENTIALS_DIRECTORY must be"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse("belongs to another user; run the service as the user of its unit"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse("is open to others; set its mode to 0700"));
    }
    Ok(())
}
