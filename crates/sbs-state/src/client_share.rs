use std::fmt;

use sbs_crypto::hmac_sha256;
use sbs_proto::StateSecret;
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// What a server keeps of the client's SECRET: enough to seal a state image and to know the SECRET
/// again, not enough to tell it.
///
/// `HKDF-Extract(salt = "sbs.state/v1 client share", ikm = the 128 bytes of SECRET)`, RFC 5869.
pub struct ClientShare(Zeroizing<[u8; 32]>);

impl ClientShare {
    /// Derives the share of a secret.
    pub fn derive(secret: &StateSecret) -> Self {
        // HKDF-Extract is HMAC with the salt as its key: RFC 5869, 2.2.
        Self(hmac_sha256(SALT, secret.expose_bytes()))
    }

    /// Parses the 64 hex digits that [`expose_hex`](Self::expose_hex) gave.
    pub fn parse_hex(text: &str) -> Result<Self, ParseClientShareError> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, &mut *bytes).map_err(|_| ParseClientShareError)?;
        Ok(Self(bytes))
    }

    /// Returns the share as 64 hex digits. Whoever calls this answers for where it goes.
    pub fn expose_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(*self.0))
    }

    pub(crate) fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Tells whether two shares are of the same secret, in constant time.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl fmt::Debug for ClientShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientShare")
    }
}

/// The text is not 64 hex digits. It says no more: the text is a secret.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("client share is not 64 hex digits")]
pub struct ParseClientShareError;

const SALT: &[u8] = b"sbs.state/v1 client share";

#[cfg(test)]
mod tests {
    use super::*;

    fn share(byte: u8) -> ClientShare {
        ClientShare::derive(&StateSecret::from_bytes([byte; 128]))
    }

    #[test]
    fn a_share_is_that_of_one_secret() {
        assert!(share(1).same_as(&share(1)));
        assert!(!share(1).same_as(&share(2)));
    }

    /// Computed with Python: `hmac.digest(b"sbs.state/v1 client share", bytes([1]) * 128, "sha256")`.
    #[test]
    fn known_answer() {
        let expected = "258ee89434d2800522a0dcfd3cc2a22631f587c3d6c740c87bc0eb6bbd3c0e52";
        assert_eq!(*share(1).expose_hex(), expected);
    }

    #[test]
    fn survives_as_hex_and_nothing_else_parses() {
        let text = share(3).expose_hex();
        assert!(ClientShare::parse_hex(&text).unwrap().same_as(&share(3)));
        for text in ["", "zz", text.get(1..).unwrap(), &format!("{}0", *text)] {
            assert_eq!(ClientShare::parse_hex(text).err(), Some(ParseClientShareError));
        }
        assert_eq!(format!("{:?}", share(3)), "ClientShare");
    }
}
