use std::convert::Infallible;
use std::fmt;

use zeroize::Zeroizing;

use crate::RootSecret;

/// The server's half of what protects a state image, and the id that says which half it is.
///
/// ```text
/// share = prf("sbs.state/v1 server share")
/// kid   = prf("sbs.state/v1 kid")[0..8]
/// ```
pub struct ServerShare {
    kid: [u8; 8],
    share: Zeroizing<[u8; 32]>,
}

impl ServerShare {
    /// Derives the share with a server's PRF, HMAC-SHA-256 under its root secret.
    ///
    /// The root secret itself is not needed, so that it can stay in a device.
    pub fn derive<E>(
        mut prf: impl FnMut(&str) -> Result<Zeroizing<[u8; 32]>, E>,
    ) -> Result<Self, E> {
        let id = prf(KID_LABEL)?;
        let (kid, _) = id.split_first_chunk().expect("8 of 32 bytes");
        Ok(Self { kid: *kid, share: prf(SHARE_LABEL)? })
    }

    /// Derives the share of a root secret.
    pub fn of(root: &RootSecret) -> Self {
        let derived = Self::derive(|label| Ok::<_, Infallible>(root.prf(label)));
        match derived {
            Ok(share) => share,
        }
    }

    /// Returns the id, which is public: it says which share a state image wants.
    pub fn kid(&self) -> [u8; 8] {
        self.kid
    }

    pub(crate) fn expose_bytes(&self) -> &[u8; 32] {
        &self.share
    }
}

impl fmt::Debug for ServerShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerShare({})", hex::encode(self.kid))
    }
}

const KID_LABEL: &str = "sbs.state/v1 kid";
const SHARE_LABEL: &str = "sbs.state/v1 server share";

#[cfg(test)]
mod tests {
    use sbs_crypto::hmac_sha256;

    use super::*;

    /// Computed with the Python of `tests/data/read_state.py` from a root secret of 32 x 01.
    #[test]
    fn known_answer() {
        let prf = |label: &str| Ok::<_, Infallible>(hmac_sha256(&[1; 32], label.as_bytes()));
        let Ok(share) = ServerShare::derive(prf);
        assert_eq!(hex::encode(share.kid()), "eb882f9c37b35bc1");
        assert_eq!(
            hex::encode(share.expose_bytes()),
            "f532d7f12f29bf83bfdc8c39fe3c5b3e4df0cc776f464d05e0316117d69eef77"
        );
    }

    #[test]
    fn is_that_of_its_root_secret() {
        let [one, other] = [0, 1]
            .map(|first| RootSecret::parse(&(first..first + 32).collect::<Vec<u8>>()).unwrap());
        assert_eq!(ServerShare::of(&one).kid(), ServerShare::of(&one).kid());
        assert_ne!(ServerShare::of(&one).kid(), ServerShare::of(&other).kid());
        assert_ne!(ServerShare::of(&one).expose_bytes(), ServerShare::of(&other).expose_bytes());
    }

    #[test]
    fn a_provider_that_fails_is_told() {
        let failing = ServerShare::derive(|_| Err("no device"));
        assert_eq!(failing.err(), Some("no device"));
    }

    #[test]
    fn debug_shows_the_id_alone() {
        let Ok(share) = ServerShare::derive(|_| Ok::<_, Infallible>(Zeroizing::new([0x5e; 32])));
        assert_eq!(format!("{share:?}"), "ServerShare(5e5e5e5e5e5e5e5e)");
    }
}
