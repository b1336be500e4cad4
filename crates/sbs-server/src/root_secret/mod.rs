//! Where the root secret comes from: a file, a credential of systemd, or a TPM.

mod command;
mod error;
mod file;
mod settings;
mod systemd;
#[cfg(feature = "tpm2")]
mod tpm2;

use std::path::Path;
use std::sync::Arc;

use sbs_state::{KeyRing, MonotonicCounter, Portability, PrfError, RootSecret, RootSecretProvider};
use zeroize::Zeroizing;

pub(crate) use crate::root_secret::command::{init, show};
pub(crate) use crate::root_secret::error::{InitRootSecretError, OpenRootSecretError};
pub(crate) use crate::root_secret::settings::{Provider, RootSecretSettings};

/// Opens the root secret that the settings name, and the previous ones.
///
/// `credentials` is the directory in which systemd gives credentials to this service.
pub(crate) fn open(
    settings: &RootSecretSettings,
    credentials: Option<&Path>,
) -> Result<KeyRing, OpenRootSecretError> {
    let current = open_one(settings, credentials)?;
    let mut previous: Vec<Box<dyn RootSecretProvider>> = Vec::new();
    for settings in &settings.previous {
        if !settings.previous.is_empty() {
            return Err(OpenRootSecretError::NestedPrevious);
        }
        previous.push(Box::new(open_one(settings, credentials)?));
    }
    Ok(KeyRing::new(Box::new(current), previous)?)
}

/// Tells whether the settings name a file for the secret that is not there. A credential of systemd
/// is the operator's to make.
pub(crate) fn is_missing(settings: &RootSecretSettings) -> bool {
    match settings.provider {
        Provider::File => !settings.file.exists(),
        Provider::Systemd => false,
        Provider::Tpm2 => !settings.tpm2.file.exists(),
    }
}

/// Tells whether the secret is kept in a way that is for development only, as every one is that is
/// not named here.
pub(crate) fn is_for_development(provider: &dyn RootSecretProvider) -> bool {
    let for_production = [Provider::Systemd, Provider::Tpm2];
    !for_production.iter().any(|known| known.name() == provider.name())
}

fn open_one(
    settings: &RootSecretSettings,
    credentials: Option<&Path>,
) -> Result<Held, OpenRootSecretError> {
    match settings.provider {
        Provider::File => file::open(&settings.file),
        Provider::Systemd => systemd::open(&settings.credential, credentials),
        #[cfg(feature = "tpm2")]
        Provider::Tpm2 => Ok(tpm2::open(&settings.tpm2)?),
        #[cfg(not(feature = "tpm2"))]
        Provider::Tpm2 => Err(OpenRootSecretError::NotBuilt),
    }
}

/// A root secret that was brought into memory, and where it came from.
#[derive(Debug)]
struct Held {
    name: &'static str,
    portability: Portability,
    secret: RootSecret,
    counter: Option<Arc<dyn MonotonicCounter>>,
}

impl RootSecretProvider for Held {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prf(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, PrfError> {
        Ok(self.secret.prf(label))
    }

    fn portability(&self) -> Portability {
        self.portability
    }

    fn counter(&self) -> Option<Arc<dyn MonotonicCounter>> {
        self.counter.clone()
    }
}

#[cfg(test)]
mod tests;
