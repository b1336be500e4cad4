use std::fmt;
use std::sync::Arc;

use sbs_proto::v2::RootSecret;
use sbs_proto::{Digest, StateLabel};
use sbs_state::{
    AtRest, CaBinding, CounterError, ImportPolicy, KeyRing, MonotonicCounter, PrfError, ServerShare,
};
use thiserror::Error;

use crate::root_secret::is_for_development;

/// What this server seals with, and what it holds a state image against: made of its root secrets,
/// which are not needed any more afterwards.
pub(crate) struct Sealing {
    pub(crate) at_rest: AtRest,
    ca_binding: CaBinding,
    client_ca_sha256: Digest,
    counter: Option<Arc<dyn MonotonicCounter>>,
    is_for_development: bool,
    provider: StateLabel,
    /// The share of the current root secret, and those of the previous ones.
    shares: Vec<ServerShare>,
}

impl Sealing {
    /// Derives what is needed. `client_ca_sha256` is that of the authority of this server's clients.
    pub(crate) fn new(
        ring: &KeyRing,
        client_ca_sha256: Digest,
        ca_binding: CaBinding,
    ) -> Result<Self, PrfError> {
        let shares =
            ring.iter().map(|(_, provider)| ServerShare::derive(|label| provider.prf(label)));
        let provider = StateLabel::parse(ring.current().name());
        Ok(Self {
            at_rest: AtRest::new(ring)?,
            ca_binding,
            client_ca_sha256,
            counter: ring.current().counter(),
            is_for_development: is_for_development(ring.current()),
            provider: provider.expect("the name of a provider is a word"),
            shares: shares.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the share that is sealed under.
    pub(super) fn current(&self) -> &ServerShare {
        self.shares.first().expect("a ring has a current secret")
    }

    /// Returns every share that opens.
    pub(super) fn shares(&self) -> &[ServerShare] {
        &self.shares
    }

    pub(super) fn client_ca_sha256(&self) -> Digest {
        self.client_ca_sha256
    }

    pub(super) fn provider(&self) -> &StateLabel {
        &self.provider
    }

    /// Returns what is told of the root secret that is sealed under.
    pub(in crate::core) fn root_secret(&self) -> RootSecret {
        RootSecret { development: self.is_for_development, provider: self.provider.clone() }
    }

    /// Returns the epoch after `epoch`, which is also above the counter.
    pub(in crate::core) fn next_epoch(&self, epoch: u64) -> Result<u64, SealingError> {
        Ok(epoch.max(self.floor()?).saturating_add(1))
    }

    /// Returns the lowest epoch that the counter leaves; 0 without one.
    pub(in crate::core) fn floor(&self) -> Result<u64, SealingError> {
        match &self.counter {
            None => Ok(0),
            Some(counter) => counter.value().map_err(SealingError::Counter),
        }
    }

    /// Turns the counter on to `epoch`: what was exported before it is not imported any more.
    pub(in crate::core) fn revoke_before(&self, epoch: u64) -> Result<(), SealingError> {
        let Some(counter) = &self.counter else { return Ok(()) };
        let mut value = counter.value().map_err(SealingError::Counter)?;
        if epoch.saturating_sub(value) > MAX_STEPS {
            return Err(SealingError::FarBehind { epoch, value });
        }
        while value < epoch {
            value = counter.increment().map_err(SealingError::Counter)?;
        }
        Ok(())
    }

    /// Returns which state images an empty server accepts.
    pub(super) fn policy(
        &self,
        min_epoch: u64,
        own_epoch: u64,
    ) -> Result<ImportPolicy, SealingError> {
        Ok(ImportPolicy {
            min_epoch,
            own_epoch: own_epoch.max(self.floor()?),
            client_ca_sha256: self.client_ca_sha256,
            ca_binding: self.ca_binding,
        })
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("shares", &self.shares).finish_non_exhaustive()
    }
}

/// Why the counter of the root secret's provider was not read or turned on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum SealingError {
    /// The device does not do it.
    #[error(transparent)]
    Counter(CounterError),

    /// It would take too long and wear out the device.
    #[error("the counter stands at {value}, too far below epoch {epoch} to be turned on")]
    FarBehind { epoch: u64, value: u64 },
}

/// A counter is at most as many steps behind as there were imports and new keys since the last new
/// SECRET. A TPM takes some milliseconds for a step, and bears a limited number of them.
const MAX_STEPS: u64 = 1000;
