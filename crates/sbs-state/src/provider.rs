use std::error::Error;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::RootSecret;

/// Where a server's root secret is, seen from where it is used: it computes, and never hands the
/// secret out.
///
/// A file, a TPM or a hardware token can stand behind it.
pub trait RootSecretProvider: fmt::Debug + Send + Sync {
    /// Returns the word for this provider, such as `file`; it is shown to operators and auditors.
    fn name(&self) -> &'static str;

    /// Derives 32 bytes for one use: HMAC-SHA-256 of `label`, with the root secret as the key.
    ///
    /// `label` is a fixed ASCII text that no other use has.
    fn prf(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, PrfError>;

    /// Returns where the same secret can be had again.
    fn portability(&self) -> Portability;

    /// Returns a counter that cannot be turned back, if there is one.
    fn counter(&self) -> Option<Arc<dyn MonotonicCounter>> {
        None
    }
}

/// A counter that only goes up, and that whoever can write the server's disk cannot turn back.
pub trait MonotonicCounter: fmt::Debug + Send + Sync {
    /// Returns the value.
    fn value(&self) -> Result<u64, CounterError>;

    /// Adds one and returns the new value, which is kept before this returns.
    fn increment(&self) -> Result<u64, CounterError>;
}

/// Where a root secret can be had again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Portability {
    /// On any machine that the secret is copied to.
    Anywhere,
    /// On this machine only.
    ThisHost,
    /// On this machine only, and only while it runs what it ran when the secret was sealed.
    ThisImage,
}

impl fmt::Display for Portability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anywhere => "anywhere",
            Self::ThisHost => "this-host",
            Self::ThisImage => "this-image",
        })
    }
}

/// The number of a root secret: `prf("sbs.state/v1 kid")[0..8]`. It is public, and says nothing
/// about the secret.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// Computes the number of a provider's secret.
    pub fn of(provider: &dyn RootSecretProvider) -> Result<Self, PrfError> {
        let prf = provider.prf(KID_LABEL)?;
        let (kid, _) = prf.split_first_chunk().expect("32 bytes begin with 8");
        Ok(Self(*kid))
    }

    /// Takes the eight bytes of a number that was read.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Returns the eight bytes.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The provider could not compute.
#[derive(Debug, Error)]
#[error("the root secret of the provider `{provider}` cannot be used")]
pub struct PrfError {
    /// The provider's [name](RootSecretProvider::name).
    pub provider: &'static str,
    /// Why; it holds no secret.
    pub source: Box<dyn Error + Send + Sync>,
}

/// The counter could not be read or advanced.
#[derive(Debug, Error)]
#[error("the counter of the provider `{provider}` cannot be used")]
pub struct CounterError {
    /// The provider's [name](RootSecretProvider::name).
    pub provider: &'static str,
    /// Why.
    pub source: Box<dyn Error + Send + Sync>,
}

/// A secret in memory is its own provider, for tests and for tools that were given one.
impl RootSecretProvider for RootSecret {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn prf(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, PrfError> {
        Ok(Self::prf(self, label))
    }

    fn portability(&self) -> Portability {
        Portability::Anywhere
    }
}

const KID_LABEL: &str = "sbs.state/v1 kid";

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(first: u8) -> RootSecret {
        let content: Vec<u8> = (first..first + 32).collect();
        RootSecret::parse(&content).unwrap()
    }

    /// Computed with `openssl dgst -sha256 -mac HMAC -macopt hexkey:000102...1f`, cut to 8 bytes.
    #[test]
    fn known_answer_of_the_number() {
        let kid = KeyId::of(&secret(0)).unwrap();
        assert_eq!(kid.to_string(), "f51edb0762a2ca15");
        assert_eq!(KeyId::from_bytes(*kid.as_bytes()), kid);
    }

    #[test]
    fn each_secret_has_its_number() {
        assert_eq!(KeyId::of(&secret(0)).unwrap(), KeyId::of(&secret(0)).unwrap());
        assert_ne!(KeyId::of(&secret(0)).unwrap(), KeyId::of(&secret(1)).unwrap());
    }
}
