//! The commands `root-secret init` and `root-secret show`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sbs_state::{KeyId, RootSecret};

use crate::root_secret::{
    InitRootSecretError, OpenRootSecretError, Provider, RootSecretSettings, file, open,
};

/// Makes a root secret where the settings say; nothing that exists is overwritten.
///
/// `from` is a secret file to take instead of a new secret, and `backup` where a copy is written
/// that is to be kept elsewhere. Returns what to tell.
pub(crate) fn init(
    settings: &RootSecretSettings,
    from: Option<&Path>,
    backup: Option<&Path>,
) -> Result<String, InitRootSecretError> {
    let secret = match from {
        Some(path) => file::read(path).map_err(InitRootSecretError::From)?,
        None => RootSecret::generate(),
    };
    // First, so that nothing is ever sealed under a secret whose backup could not be written.
    if let Some(path) = backup {
        file::write_secret(path, &secret)
            .map_err(|source| InitRootSecretError::Backup { path: path.to_owned(), source })?;
    }
    let place = keep(settings, &secret, backup).inspect_err(|_| {
        // A backup of what does not exist would be taken for that of what does.
        if let Some(path) = backup {
            let _gone = fs::remove_file(path);
        }
    })?;
    let mut text = format!("root secret {} is in `{}`\n", KeyId::of(&secret)?, place.display());
    if let Some(path) = backup {
        let _written =
            writeln!(text, "its backup is in `{}`; keep it off this machine", path.display());
    }
    Ok(text)
}

/// Gives the secret to the provider and returns the file that now has it.
fn keep<'a>(
    settings: &'a RootSecretSettings,
    secret: &RootSecret,
    #[cfg_attr(not(feature = "tpm2"), expect(unused_variables, reason = "only a TPM tells of it"))]
    backup: Option<&Path>,
) -> Result<&'a Path, InitRootSecretError> {
    match settings.provider {
        Provider::File => {
            let path = &settings.file;
            file::write_secret(path, secret)
                .map_err(|source| InitRootSecretError::Write { path: path.clone(), source })?;
            Ok(path)
        }
        Provider::Systemd => {
            Err(InitRootSecretError::Systemd { credential: settings.credential.clone() })
        }
        #[cfg(feature = "tpm2")]
        Provider::Tpm2 => {
            super::tpm2::init(&settings.tpm2, secret, backup)?;
            Ok(&settings.tpm2.file)
        }
        #[cfg(not(feature = "tpm2"))]
        Provider::Tpm2 => Err(InitRootSecretError::NotBuilt),
    }
}

/// Tells what the settings' root secret and the previous ones are, without the secrets.
pub(crate) fn show(
    settings: &RootSecretSettings,
    credentials: Option<&Path>,
) -> Result<String, OpenRootSecretError> {
    let ring = open(settings, credentials)?;
    let mut text = String::new();
    let each = std::iter::once(settings).chain(&settings.previous);
    for ((kid, provider), settings) in ring.iter().zip(each) {
        let role = if kid == ring.current_kid() { "current" } else { "previous" };
        let (name, portability) = (provider.name(), provider.portability());
        let details = details(settings)?;
        let counter = match provider.counter().map(|counter| counter.value()) {
            None => String::new(),
            Some(Ok(value)) => format!(" counter={value}"),
            Some(Err(error)) => format!(" counter: {}", crate::build::failure::chain(&error)),
        };
        let _written = writeln!(
            text,
            "{role} kid={kid} provider={name} portability={portability} {details}{counter}"
        );
    }
    Ok(text)
}

fn details(settings: &RootSecretSettings) -> Result<String, OpenRootSecretError> {
    match settings.provider {
        Provider::File => Ok(format!("file={} for=development", settings.file.display())),
        Provider::Systemd => Ok(format!("credential={}", settings.credential)),
        #[cfg(feature = "tpm2")]
        Provider::Tpm2 => Ok(super::tpm2::details(&settings.tpm2)?),
        #[cfg(not(feature = "tpm2"))]
        Provider::Tpm2 => Err(OpenRootSecretError::NotBuilt),
    }
}
