//! New secrets, counters and lowest epochs: what is old does not come back.

use std::sync::atomic::{AtomicU64, Ordering};

use sbs_proto::key;
use sbs_state::{CounterError, MonotonicCounter, Portability, PrfError, RootSecret};
use zeroize::Zeroizing;

use super::*;
use crate::build::failure::chain;
use crate::core::error::SetDefinitionError;
use crate::core::tests::secret;

#[tokio::test]
async fn s12_a_state_older_than_the_client_knows_is_refused() {
    let file = Server::built().await.export().await;
    let fresh = Server::fresh();
    for min_epoch in [2, u64::MAX] {
        let error = fresh.import_with(&file, 1, min_epoch).await.unwrap_err();
        let rollback = OpenStateError::Rollback { floor: min_epoch, got: 1 };
        assert_eq!(error.to_string(), rollback.to_string());
    }
    fresh.import_with(&file, 1, 1).await.unwrap();
}

#[tokio::test]
async fn s12_s13_a_counter_refuses_what_a_new_secret_revoked() {
    let counter = Arc::new(Counter(AtomicU64::new(40)));
    let server = counting(&counter).build().await;
    assert_eq!((server.epoch(), counter.value().unwrap()), (41, 40));
    let old = server.export().await;
    // Before a new secret, a state can be imported as often as it must.
    for _ in 0..2 {
        assert_eq!(counting(&counter).import(&old).await.unwrap().epoch, 42);
    }
    rotate(&server, 1, 2).await.unwrap();
    assert_eq!((server.epoch(), counter.value().unwrap()), (42, 42));
    let error = counting(&counter).import(&old).await.unwrap_err();
    assert!(matches!(
        error,
        ImportStateError::Open(OpenStateError::Rollback { floor: 42, got: 41 })
    ));
    let new = server.export().await;
    assert_eq!(counting(&counter).import_with(&new, 2, 0).await.unwrap().epoch, 43);
}

#[tokio::test]
async fn a_server_that_died_over_a_new_secret_exports_what_can_be_imported() {
    let counter = Arc::new(Counter::default());
    let server = counting(&counter).build().await;
    counter.increment().unwrap();
    counter.increment().unwrap();
    let Server { core, directory } = server;
    drop(core);
    let sealing = sealed_for(&counting_ring(&counter), 7);
    let core = open_with(directory.path(), Act::Succeed, sealing).unwrap();
    let server = Server { core, directory };
    assert_eq!(server.epoch(), 2);
    counting(&counter).import(&server.export().await).await.unwrap();
}

#[tokio::test]
async fn a_counter_that_cannot_be_read_is_called_by_its_name() {
    let counter = Arc::new(Counter::default());
    let server = counting(&counter);
    server.core.initialise(&name(), body(1)).await.unwrap();
    counter.0.store(BROKEN, Ordering::SeqCst);
    let told = chain(&server.core.start_build(&name()).await.unwrap_err());
    let reason = "the counter of the root secret cannot be read: \
                  the counter of the provider `counting` cannot be used: the device is away";
    assert_eq!(told, format!("the new keys were not kept: {reason}"));
    let Server { core, directory } = server;
    drop(core);
    let sealing = sealed_for(&counting_ring(&counter), 7);
    let error = open_with(directory.path(), Act::Succeed, sealing).unwrap_err();
    assert_eq!(chain(&error), reason);
}

#[tokio::test]
async fn s13_s23_an_old_file_and_its_secret_are_of_no_use_to_another_authority() {
    let server = Server::built().await;
    let old = server.export().await;
    rotate(&server, 1, 2).await.unwrap();
    assert_eq!(server.epoch(), 2);
    let attacker = Server::with(&ring(1, &[]), 8);
    attacker.refuses(&old, "ca_mismatch").await;
    // With the new secret the old file does not open at all.
    let error = Server::fresh().import_with(&old, 2, 0).await.unwrap_err();
    assert!(matches!(error, ImportStateError::Open(OpenStateError::WrongSecretOrHeader)));
    // The operator of a server can say that the authority was lost.
    let sealing =
        Sealing::new(&ring(1, &[]), Digest::from_bytes([8; 32]), CaBinding::DangerIgnored).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let core = open_with(directory.path(), Act::Succeed, sealing).unwrap();
    Server { core, directory }.import(&old).await.unwrap();
}

#[tokio::test]
async fn s20_nobody_sets_a_secret_without_the_one_of_before() {
    let server = Server::built().await;
    assert!(matches!(rotate(&server, 3, 4).await, Err(SetDefinitionError::WrongSecret)));
    let again = server.core.initialise(&name(), body(4)).await;
    assert!(matches!(again, Err(SetDefinitionError::KeysExist)));
    let file = server.export().await;
    Server::fresh().import_with(&file, 1, 0).await.unwrap();
    let error = Server::fresh().import_with(&file, 4, 0).await.unwrap_err();
    assert!(matches!(error, ImportStateError::Open(OpenStateError::WrongSecretOrHeader)));
}

#[tokio::test]
async fn s21_wrong_secrets_of_updates_and_inits_are_counted_together() {
    let server = Server::built().await;
    for round in 0..10 {
        if round % 2 == 0 {
            assert!(matches!(rotate(&server, 3, 4).await, Err(SetDefinitionError::WrongSecret)));
        } else {
            let again = server.core.initialise(&name(), body(4)).await;
            assert!(matches!(again, Err(SetDefinitionError::KeysExist)));
        }
    }
    let right = server.core.update(&name(), body(1)).await;
    assert!(matches!(right, Err(SetDefinitionError::TooManyAttempts(_))));
    let init = server.core.initialise(&name(), body(1)).await;
    assert!(matches!(init, Err(SetDefinitionError::TooManyAttempts(_))));
}

async fn rotate(server: &Server, from: u8, to: u8) -> Result<(), SetDefinitionError> {
    let mut members = body(from);
    members.insert(key::NEW_SECRET, secret(to));
    server.core.update(&name(), members).await
}

#[derive(Debug)]
struct Counting(RootSecret, Arc<Counter>);

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl RootSecretProvider for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn prf(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, PrfError> {
        Ok(self.0.prf(label))
    }

    fn portability(&self) -> Portability {
        Portability::ThisHost
    }

    fn counter(&self) -> Option<Arc<dyn MonotonicCounter>> {
        let Self(_, counter) = self;
        Some(Arc::<Counter>::clone(counter))
    }
}

impl MonotonicCounter for Counter {
    fn value(&self) -> Result<u64, CounterError> {
        match self.0.load(Ordering::SeqCst) {
            BROKEN => {
                Err(CounterError { provider: "counting", source: "the device is away".into() })
            }
            value => Ok(value),
        }
    }

    fn increment(&self) -> Result<u64, CounterError> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

fn counting(counter: &Arc<Counter>) -> Server {
    Server::with(&counting_ring(counter), 7)
}

fn counting_ring(counter: &Arc<Counter>) -> KeyRing {
    let provider = Counting(root_secret(1), Arc::clone(counter));
    KeyRing::new(Box::new(provider), Vec::new()).unwrap()
}

/// The value of a counter that cannot be read.
const BROKEN: u64 = u64::MAX;
