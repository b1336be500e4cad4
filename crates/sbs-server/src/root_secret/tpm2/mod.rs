//! The root secret sealed by a TPM 2.0: it comes out only on this machine, and only while the
//! chosen PCRs have the values that they had when it was sealed.

mod counter;
mod error;
mod record;
mod tpm;

use std::path::Path;
use std::sync::Arc;

use sbs_state::{KeyId, Portability, RootSecret};

use crate::root_secret::settings::Tpm2Settings;
use crate::root_secret::tpm2::counter::Counter;
pub(crate) use crate::root_secret::tpm2::error::Tpm2Error;
use crate::root_secret::tpm2::record::Record;
use crate::root_secret::tpm2::tpm::{Tpm, UnsealError};
use crate::root_secret::{Held, Provider, file};

/// Brings the secret out of the TPM.
pub(super) fn open(settings: &Tpm2Settings) -> Result<Held, Tpm2Error> {
    let record = Record::load(&settings.file)?;
    let lost = |what: String| Tpm2Error::Lost { what, recovery: record.recovery(&settings.file) };
    let mut tpm = Tpm::connect(&settings.tcti)?;
    let secret = match tpm.unseal(&record) {
        Ok(secret) => secret,
        Err(UnsealError::OtherTpm) => {
            return Err(lost("another TPM sealed it, or this one was cleared".to_owned()));
        }
        Err(UnsealError::Policy) => {
            let changed = tpm.changed_pcrs(&record.pcrs)?;
            return Err(lost(format!("the machine has started other software ({changed})")));
        }
        Err(UnsealError::Command(source)) => return Err(source),
    };
    let damaged = || Tpm2Error::Damaged { path: settings.file.clone() };
    let secret = RootSecret::parse(&secret).map_err(|_| damaged())?;
    if KeyId::of(&secret).map_err(|_| damaged())?.to_string() != record.kid {
        return Err(damaged());
    }
    Ok(Held {
        name: Provider::Tpm2.name(),
        portability: Portability::ThisImage,
        secret,
        counter: Some(Arc::new(Counter::new(&settings.tcti, record.counter_index))),
    })
}

/// Seals a secret to the values that the chosen PCRs have now, and makes the counter.
pub(super) fn init(
    settings: &Tpm2Settings,
    secret: &RootSecret,
    backup: Option<&Path>,
) -> Result<(), Tpm2Error> {
    // The TPM is asked for nothing if the record would not be kept.
    if settings.file.symlink_metadata().is_ok() {
        let source = crate::root_secret::error::WriteNewError::Exists;
        return Err(Tpm2Error::Write { path: settings.file.clone(), source });
    }
    let mut tpm = Tpm::connect(&settings.tcti)?;
    let pcrs = tpm.measured_pcrs(&settings.pcrs)?;
    let sealed = tpm.seal(secret, &pcrs)?;
    tpm.define_counter(settings.counter_index)?;
    let kid = KeyId::of(secret).map_err(|_| Tpm2Error::Damaged { path: settings.file.clone() })?;
    let record = Record::new(kid, pcrs, sealed, settings.counter_index, backup);
    file::write_new(&settings.file, &record.to_bytes())
        .map_err(|source| Tpm2Error::Write { path: settings.file.clone(), source })
}

/// Says what `root-secret show` shows of the sealed secret.
pub(super) fn details(settings: &Tpm2Settings) -> Result<String, Tpm2Error> {
    let record = Record::load(&settings.file)?;
    let pcrs: Vec<String> = record.pcrs.keys().map(ToString::to_string).collect();
    let path = settings.file.display();
    Ok(format!("file={path} pcrs=sha256:{} tcti={}", pcrs.join("+"), settings.tcti))
}

#[cfg(test)]
pub(super) mod tests;
