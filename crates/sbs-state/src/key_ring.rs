use thiserror::Error;

use crate::{KeyId, PrfError, RootSecretProvider};

/// The root secret that a server seals under, and those before it, which still open.
///
/// Secrets are found by their [number](KeyId), so their order does not matter.
#[derive(Debug)]
pub struct KeyRing {
    current: Numbered,
    previous: Vec<Numbered>,
}

/// A root secret with its number.
#[derive(Debug)]
struct Numbered {
    kid: KeyId,
    provider: Box<dyn RootSecretProvider>,
}

impl KeyRing {
    /// Makes a ring of the secret of now and at most [`MAX_PREVIOUS`](Self::MAX_PREVIOUS) of
    /// before.
    pub fn new(
        current: Box<dyn RootSecretProvider>,
        previous: Vec<Box<dyn RootSecretProvider>>,
    ) -> Result<Self, MakeKeyRingError> {
        if previous.len() > Self::MAX_PREVIOUS {
            return Err(MakeKeyRingError::TooMany { got: previous.len() });
        }
        let mut ring = Self { current: Numbered::new(current)?, previous: Vec::new() };
        for provider in previous {
            let numbered = Numbered::new(provider)?;
            if ring.find(numbered.kid).is_some() {
                return Err(MakeKeyRingError::Twice { kid: numbered.kid });
            }
            ring.previous.push(numbered);
        }
        Ok(ring)
    }

    /// Returns the secret that is sealed under.
    pub fn current(&self) -> &dyn RootSecretProvider {
        &*self.current.provider
    }

    /// Returns the number of the secret that is sealed under.
    pub fn current_kid(&self) -> KeyId {
        self.current.kid
    }

    /// Finds the secret with a number, current or previous.
    pub fn find(&self, kid: KeyId) -> Option<&dyn RootSecretProvider> {
        self.iter().find(|(number, _)| *number == kid).map(|(_, provider)| provider)
    }

    /// Iterates over all secrets with their numbers, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = (KeyId, &dyn RootSecretProvider)> {
        let all = std::iter::once(&self.current).chain(&self.previous);
        all.map(|numbered| (numbered.kid, &*numbered.provider))
    }

    /// How many secrets of before a ring takes. Each is one more that opens everything, so a list
    /// that only grows is a fault.
    pub const MAX_PREVIOUS: usize = 4;
}

impl Numbered {
    fn new(provider: Box<dyn RootSecretProvider>) -> Result<Self, PrfError> {
        Ok(Self { kid: KeyId::of(&*provider)?, provider })
    }
}

/// Why a ring was not made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MakeKeyRingError {
    /// A secret cannot be used.
    #[error("a root secret cannot be used")]
    Prf(#[from] PrfError),

    /// There are more secrets of before than the limit.
    #[error(
        "{got} previous root secrets are more than {}; reseal under the current one and remove \
         those that nothing is sealed under",
        KeyRing::MAX_PREVIOUS
    )]
    TooMany {
        /// How many there are.
        got: usize,
    },

    /// Two are the same.
    #[error("root secret {kid} is given twice; name each once, as the current or a previous one")]
    Twice {
        /// The number of the secret.
        kid: KeyId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RootSecret;

    fn secret(first: u8) -> Box<dyn RootSecretProvider> {
        let content: Vec<u8> = (first..first + 32).collect();
        Box::new(RootSecret::parse(&content).unwrap())
    }

    #[test]
    fn secrets_are_found_by_their_number() {
        let ring = KeyRing::new(secret(0), vec![secret(1), secret(2)]).unwrap();
        assert_eq!(ring.current_kid(), KeyId::of(&*secret(0)).unwrap());
        for first in 0..3 {
            let found = ring.find(KeyId::of(&*secret(first)).unwrap()).unwrap();
            assert_eq!(found.prf("a").unwrap(), secret(first).prf("a").unwrap());
        }
        assert!(ring.find(KeyId::of(&*secret(3)).unwrap()).is_none());
    }

    #[test]
    fn k6_the_list_of_previous_secrets_does_not_grow_for_ever() {
        let previous = |count| (1..=count).map(secret).collect();
        KeyRing::new(secret(0), previous(4)).unwrap();
        let error = KeyRing::new(secret(0), previous(5)).unwrap_err();
        assert!(matches!(error, MakeKeyRingError::TooMany { got: 5 }), "{error}");
    }

    #[test]
    fn the_same_secret_twice_is_a_mistake() {
        for previous in [vec![secret(0)], vec![secret(1), secret(1)]] {
            let error = KeyRing::new(secret(0), previous).unwrap_err();
            assert!(matches!(error, MakeKeyRingError::Twice { .. }), "{error}");
        }
    }

    #[test]
    fn debug_shows_numbers_and_no_secret() {
        let text = format!("{:?}", KeyRing::new(secret(0), vec![secret(1)]).unwrap());
        assert!(text.contains("RootSecret") && !text.contains("1, 2, 3, 4, 5, 6, 7"), "{text}");
    }
}
