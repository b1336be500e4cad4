//! What becomes of certificates by itself: their files change, and they end.

use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::build::failure::chain;
use crate::certificates::Certificates;
use crate::certificates::expiry::{Nearness, Warned};

impl Certificates {
    /// Loads the files again when one has changed and at every signal, and warns before certificates
    /// end, until `stop`.
    pub(crate) async fn watch(self, mut hangup: Signal, stop: CancellationToken) {
        let mut loaded = self.0.version;
        let mut warned = Warned::default();
        loop {
            self.warn(&mut warned);
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                signal = hangup.recv() => signal.is_some(),
                () = tokio::time::sleep(POLL) => false,
            };
            // Before they are loaded: what changes meanwhile is seen the next time.
            let version = self.0.sources.version();
            if !asked && version == loaded {
                continue;
            }
            loaded = version;
            if let Err(error) = self.reload().await {
                let error = chain(&error);
                tracing::error!(error, "the certificates of before are used on");
            }
        }
    }

    fn warn(&self, warned: &mut Warned) {
        let at = self.0.clock.now();
        let now = self.0.now();
        let authorities = now.authorities.iter().map(|info| ("an authority of clients", info));
        for (what, info) in authorities.chain([("the server", &now.server)]) {
            let (sha256, not_after) = (info.sha256, info.not_after);
            match warned.next(sha256, not_after, at) {
                None => {}
                Some(Nearness::Ended) => {
                    tracing::error!(%sha256, %not_after, "the certificate of {what} has ended");
                }
                Some(nearness) => {
                    tracing::warn!(%sha256, %not_after, ?nearness, "the certificate of {what} ends");
                }
            }
        }
        for list in &now.given.lists {
            let Some(next_update) = list.next_update() else { continue };
            // Lists are made for days: that one will end soon is no news.
            if warned.next(list.sha256(), next_update, at) == Some(Nearness::Ended) {
                let issuer = list.issuer();
                tracing::warn!(
                    issuer, %next_update,
                    "a revocation list is out of date and is used on; put a new one into `client.crl-file`"
                );
            }
        }
    }
}

// A few calls of stat; nobody waits longer for a file than for a restart.
const POLL: Duration = Duration::from_secs(10);
