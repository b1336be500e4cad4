use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// A password, a token or a private key in text form.
///
/// It is wiped when dropped, prints as its type alone and is compared in constant time.
pub struct SecretText(SecretString);

impl SecretText {
    /// Takes the text of a secret.
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// Returns the secret. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Tells whether two secrets are the same, in a time that depends on their lengths alone.
    pub fn same_as(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

/// The client's half of what protects a state image: 128 random bytes.
///
/// On the wire and in the client's configuration it is standard base64, 172 characters.
pub struct StateSecret(Zeroizing<Vec<u8>>);

impl StateSecret {
    /// Number of bytes of the secret.
    pub const BYTES: usize = 128;

    /// Takes 128 random bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// Parses standard, padded, canonical base64 of exactly 128 bytes.
    pub fn parse(text: &str) -> Result<Self, ParseStateSecretError> {
        let bytes = STANDARD.decode(text).map(Zeroizing::new).map_err(|_| ParseStateSecretError)?;
        if bytes.len() != Self::BYTES {
            return Err(ParseStateSecretError);
        }
        Ok(Self(bytes))
    }

    /// Returns the bytes. Whoever calls this answers for where they go.
    pub fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the text form. Whoever calls this answers for where it goes.
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&*self.0))
    }

    /// Tells whether two secrets are the same, in constant time.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for StateSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateSecret")
    }
}

/// The text is not the base64 of 128 bytes. It says no more: the text is a secret.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("SECRET is not the standard base64 text of exactly 128 bytes (172 characters)")]
pub struct ParseStateSecretError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s21_only_canonical_base64_of_128_bytes_is_a_state_secret() {
        let good = STANDARD.encode([7; 128]);
        StateSecret::parse(&good).unwrap();
        for bad in [
            String::new(),
            STANDARD.encode([7; 127]),
            STANDARD.encode([7; 129]),
            good.trim_end_matches('=').to_owned(),
            format!("{good}\n"),
            // 128 bytes leave four unused bits in the last character before the padding.
            format!("{}x=", good.get(..170).unwrap()),
            base64::engine::general_purpose::URL_SAFE.encode([0xff; 128]),
        ] {
            assert_eq!(StateSecret::parse(&bad).err(), Some(ParseStateSecretError), "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", SecretText::new("hunter2".to_owned())), "SecretText");
        assert_eq!(format!("{:?}", StateSecret::from_bytes([1; 128])), "StateSecret");
    }

    #[test]
    fn compares_by_value() {
        let [a, b] = ["one", "two"].map(|text| SecretText::new(text.to_owned()));
        assert!(a.same_as(&a) && !a.same_as(&b));
        let [a, b] = [[1; 128], [2; 128]].map(StateSecret::from_bytes);
        assert!(a.same_as(&a) && !a.same_as(&b));
    }
}
