use std::path::PathBuf;

use thiserror::Error;

use crate::root_secret::error::WriteNewError;
use crate::store::ReadSecretFileError;

/// Why the TPM did not seal or unseal.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum Tpm2Error {
    /// The TPM does not do what it was asked for.
    #[error("the TPM does not {what}")]
    Command { what: &'static str, source: tss_esapi::Error },

    /// No TPM answers.
    #[error("no TPM answers at `{tcti}`; set `root-secret.tpm2.tcti`")]
    Connect { tcti: String, source: tss_esapi::Error },

    /// The index is of something else than a counter of ours.
    #[error(
        "the TPM's index {index:#010x} is taken by something else; set \
         `root-secret.tpm2.counter-index` to another one"
    )]
    CounterTaken { index: u32 },

    /// The file with the sealed secret is not one.
    #[error("`{}` is damaged, or not the file of a sealed root secret", path.display())]
    Damaged { path: PathBuf },

    /// The file with the sealed secret cannot be read.
    #[error(
        "the file of the sealed root secret cannot be used; `sbs-server root-secret init` makes it"
    )]
    File(#[from] ReadSecretFileError),

    /// The secret cannot be had from this TPM any more, or not as the machine is now.
    #[error("{what}; {recovery}")]
    Lost { what: String, recovery: String },

    /// The list of PCRs is not one.
    #[error("`root-secret.tpm2.pcrs` must name 1 to 24 PCRs from 0 to 23, each once")]
    Pcrs,

    /// Nothing is measured into a PCR.
    #[error(
        "PCR {pcr} has nothing measured into it (all {bits}), so sealing to it would bind to \
         nothing; leave it out of `root-secret.tpm2.pcrs`, or start the machine by what measures"
    )]
    Unmeasured { pcr: u8, bits: &'static str },

    /// The TPM has no SHA-256 value of a PCR.
    #[error("the TPM has no SHA-256 value of PCR {pcr}; switch that bank on in the firmware")]
    NoBank { pcr: u8 },

    /// The file with the sealed secret cannot be written.
    #[error("`{}` cannot be written", path.display())]
    Write { path: PathBuf, source: WriteNewError },
}

impl Tpm2Error {
    pub(super) fn command(what: &'static str) -> impl FnOnce(tss_esapi::Error) -> Self {
        move |source| Self::Command { what, source }
    }
}
