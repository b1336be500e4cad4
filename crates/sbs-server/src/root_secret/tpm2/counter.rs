use sbs_state::{CounterError, MonotonicCounter};

use crate::root_secret::Provider;
use crate::root_secret::tpm2::error::Tpm2Error;
use crate::root_secret::tpm2::tpm::Tpm;

/// A counter in the TPM's own memory. Restoring a disk does not turn it back, and neither does
/// making it again: the TPM starts a new counter above every one that it had.
#[derive(Debug)]
pub(super) struct Counter {
    tcti: String,
    index: u32,
}

impl Counter {
    pub(super) fn new(tcti: &str, index: u32) -> Self {
        Self { tcti: tcti.to_owned(), index }
    }

    // Connected anew each time: a connection that is held would keep others from the TPM.
    fn with_tpm(
        &self,
        act: impl FnOnce(&mut Tpm) -> Result<u64, Tpm2Error>,
    ) -> Result<u64, CounterError> {
        let result = Tpm::connect(&self.tcti).and_then(|mut tpm| act(&mut tpm));
        result.map_err(|error| CounterError {
            provider: Provider::Tpm2.name(),
            source: Box::new(error),
        })
    }
}

impl MonotonicCounter for Counter {
    fn value(&self) -> Result<u64, CounterError> {
        self.with_tpm(|tpm| tpm.read_counter(self.index))
    }

    fn increment(&self) -> Result<u64, CounterError> {
        self.with_tpm(|tpm| {
            tpm.increment_counter(self.index)?;
            tpm.read_counter(self.index)
        })
    }
}
