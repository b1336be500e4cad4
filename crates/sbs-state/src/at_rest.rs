use std::fmt;

use sbs_crypto::{OpenError, SealError, SealingKey};
use zeroize::Zeroizing;

use crate::RootSecret;

/// Seals the records that a server keeps, and opens them again.
pub struct AtRest(SealingKey);

impl AtRest {
    /// Derives the key from the root secret.
    pub fn new(root: &RootSecret) -> Self {
        Self(SealingKey::from_bytes(root.prf(LABEL)))
    }

    /// Seals a record of at most 16 MiB under its name.
    ///
    /// The name says what the record is and whose, such as its path below the state directory.
    /// It is not stored: a record that was moved to another name does not open there.
    pub fn seal(&self, name: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.seal(name.as_bytes(), plaintext)
    }

    /// Opens a record that was sealed under this name with this root secret.
    ///
    /// An older record of the same name opens too: freshness is not what sealing can give.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.0.open(name.as_bytes(), sealed)
    }
}

impl fmt::Debug for AtRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtRest")
    }
}

const LABEL: &str = "sbs.state/v1 at rest";

#[cfg(test)]
mod tests {
    use super::*;

    fn at_rest(first: u8) -> AtRest {
        let content: Vec<u8> = (first..first + 32).collect();
        AtRest::new(&RootSecret::parse(&content).unwrap())
    }

    #[test]
    fn opens_after_a_restart() {
        let sealed = at_rest(0).seal("definition/app/keys", b"a record").unwrap();
        assert_eq!(*at_rest(0).open("definition/app/keys", &sealed).unwrap(), b"a record");
    }

    #[test]
    fn refuses_swapped_files() {
        let at_rest = at_rest(0);
        let one = at_rest.seal("definition/one/keys", b"a record").unwrap();
        let two = at_rest.seal("definition/two/keys", b"a record").unwrap();
        assert_eq!(at_rest.open("definition/one/keys", &two), Err(OpenError));
        assert_eq!(at_rest.open("definition/two/keys", &one), Err(OpenError));
        for name in ["", "definition/one/key", "definition/one/keys/", "definition/One/keys"] {
            assert_eq!(at_rest.open(name, &one), Err(OpenError), "{name}");
        }
    }

    #[test]
    fn refuses_the_files_of_another_server() {
        let sealed = at_rest(0).seal("definition/app/keys", b"a record").unwrap();
        assert_eq!(at_rest(1).open("definition/app/keys", &sealed), Err(OpenError));
    }

    #[test]
    fn refuses_changed_files() {
        let at_rest = at_rest(0);
        let sealed = at_rest.seal("definition/app/keys", b"a record").unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 0x10;
            assert_eq!(at_rest.open("definition/app/keys", &changed), Err(OpenError), "{place}");
        }
        assert_eq!(at_rest.open("definition/app/keys", b""), Err(OpenError));
    }

    #[test]
    fn sealed_records_do_not_show_their_content() {
        let sealed = at_rest(0).seal("name", &b"canary".repeat(10)).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
    }

    #[test]
    fn opens_the_committed_record() {
        // Frozen: records of this version must open for ever. Root secret 00 01 .. 1f.
        let sealed = hex::decode(include_str!("../tests/data/at-rest-v1.hex").trim()).unwrap();
        assert_eq!(*at_rest(0).open("definition/app/keys", &sealed).unwrap(), b"a record");
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", at_rest(0)), "AtRest");
    }
}
