use std::fmt;

use sbs_crypto::{OpenError, SealError, SealingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{KeyId, KeyRing, PrfError, RootSecretProvider};

/// Seals the records that a server keeps, and opens them again.
///
/// ```text
/// offset size  field
/// 0      8     magic 93 53 42 53 41 0d 0a 1a
/// 8      1     version = 2
/// 9      8     number of the root secret
/// 17     n     what SealingKey made with prf("sbs.state/v1 at rest"); the context is the name
/// ```
///
/// Version 1 had only the last field; it opens under every secret of the ring. The number is not
/// authenticated by itself: a changed one chooses another key, which does not open the rest.
pub struct AtRest {
    current: Key,
    previous: Vec<Key>,
}

struct Key {
    kid: KeyId,
    sealing_key: SealingKey,
}

impl AtRest {
    /// Derives the keys from the root secrets.
    pub fn new(ring: &KeyRing) -> Result<Self, PrfError> {
        let current = Key::new(ring.current_kid(), ring.current())?;
        let previous = ring.iter().skip(1).map(|(kid, provider)| Key::new(kid, provider));
        let previous = previous.collect::<Result<_, _>>()?;
        Ok(Self { current, previous })
    }

    /// Seals a record of at most 16 MiB under its name, with the current secret.
    ///
    /// The name says what the record is and whose, such as its path below the state directory.
    /// It is not stored: a record that was moved to another name does not open there.
    pub fn seal(&self, name: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealed = self.current.sealing_key.seal(name.as_bytes(), plaintext)?;
        Ok([MAGIC_AND_VERSION.as_slice(), self.current.kid.as_bytes(), &sealed].concat())
    }

    /// Opens a record that was sealed under this name with a root secret of the ring.
    ///
    /// An older record of the same name opens too: freshness is not what sealing can give.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenRecordError> {
        let Some((kid, rest)) = split(sealed) else {
            return self
                .keys()
                .find_map(|key| key.sealing_key.open(name.as_bytes(), sealed).ok())
                .ok_or(OpenRecordError::Rejected(OpenError));
        };
        let key = self.keys().find(|key| key.kid == kid);
        let key = key.ok_or(OpenRecordError::UnknownSecret { kid })?;
        key.sealing_key.open(name.as_bytes(), rest).map_err(OpenRecordError::Rejected)
    }

    /// Tells whether a sealed record says that it is of the current version and secret.
    ///
    /// What is not is to be sealed again.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        split(sealed).is_some_and(|(kid, _)| kid == self.current.kid)
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl Key {
    fn new(kid: KeyId, provider: &dyn RootSecretProvider) -> Result<Self, PrfError> {
        Ok(Self { kid, sealing_key: SealingKey::from_bytes(provider.prf(LABEL)?) })
    }
}

impl fmt::Debug for AtRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtRest")
    }
}

/// Why a record was not opened.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum OpenRecordError {
    /// Another secret or name, damaged, cut, or never sealed.
    #[error("sealed record cannot be opened with the root secrets that are here")]
    Rejected(#[source] OpenError),

    /// The record names a root secret that is not in the ring.
    #[error(
        "sealed record is under root secret {kid}, which is not here; give it as the current or a \
         previous one"
    )]
    UnknownSecret {
        /// The number in the record; nothing proves it.
        kid: KeyId,
    },
}

/// Splits a record of version 2 into the number of its secret and what was sealed.
fn split(sealed: &[u8]) -> Option<(KeyId, &[u8])> {
    let (kid, rest) = sealed.strip_prefix(MAGIC_AND_VERSION)?.split_first_chunk()?;
    Some((KeyId::from_bytes(*kid), rest))
}

const LABEL: &str = "sbs.state/v1 at rest";

// Built like that of `SealingKey`, with another letter.
const MAGIC_AND_VERSION: &[u8; 9] = b"\x93SBSA\r\n\x1a\x02";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RootSecret;

    fn secret(first: u8) -> Box<dyn RootSecretProvider> {
        let content: Vec<u8> = (first..first + 32).collect();
        Box::new(RootSecret::parse(&content).unwrap())
    }

    fn at_rest(first: u8) -> AtRest {
        after(first, &[])
    }

    fn after(first: u8, previous: &[u8]) -> AtRest {
        let previous = previous.iter().map(|first| secret(*first)).collect();
        AtRest::new(&KeyRing::new(secret(first), previous).unwrap()).unwrap()
    }

    const REJECTED: OpenRecordError = OpenRecordError::Rejected(OpenError);

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
        assert_eq!(at_rest.open("definition/one/keys", &two), Err(REJECTED));
        assert_eq!(at_rest.open("definition/two/keys", &one), Err(REJECTED));
        for name in ["", "definition/one/key", "definition/one/keys/", "definition/One/keys"] {
            assert_eq!(at_rest.open(name, &one), Err(REJECTED), "{name}");
        }
    }

    #[test]
    fn refuses_the_files_of_another_server() {
        let sealed = at_rest(0).seal("definition/app/keys", b"a record").unwrap();
        let kid = KeyId::of(&*secret(0)).unwrap();
        let expected = Err(OpenRecordError::UnknownSecret { kid });
        assert_eq!(at_rest(1).open("definition/app/keys", &sealed), expected);
        // Nor does it open by calling itself this server's.
        let mut renamed = sealed;
        renamed[9..17].copy_from_slice(KeyId::of(&*secret(1)).unwrap().as_bytes());
        assert_eq!(at_rest(1).open("definition/app/keys", &renamed), Err(REJECTED));
    }

    #[test]
    fn refuses_changed_files() {
        let at_rest = at_rest(0);
        let sealed = at_rest.seal("definition/app/keys", b"a record").unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 0x10;
            let error = at_rest.open("definition/app/keys", &changed).unwrap_err();
            let in_kid = (9..17).contains(&place);
            assert_eq!(matches!(error, OpenRecordError::UnknownSecret { .. }), in_kid, "{place}");
            let cut = &sealed[..place];
            assert_eq!(at_rest.open("definition/app/keys", cut), Err(REJECTED), "{place}");
        }
        assert_eq!(at_rest.open("definition/app/keys", b""), Err(REJECTED));
    }

    #[test]
    fn sealed_records_do_not_show_their_content() {
        let sealed = at_rest(0).seal("name", &b"canary".repeat(10)).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
    }

    #[test]
    fn k6_a_file_of_any_previous_secret_opens_and_one_of_none_does_not() {
        let now = after(9, &[3, 1, 4, 2]);
        for first in [1, 2, 3, 4, 9] {
            let sealed = at_rest(first).seal("name", b"a record").unwrap();
            assert_eq!(*now.open("name", &sealed).unwrap(), b"a record");
            assert_eq!(now.is_current(&sealed), first == 9);
        }
        let sealed = at_rest(5).seal("name", b"a record").unwrap();
        assert!(matches!(now.open("name", &sealed), Err(OpenRecordError::UnknownSecret { .. })));
    }

    #[test]
    fn what_is_sealed_again_needs_no_previous_secret() {
        let old = at_rest(1).seal("name", b"a record").unwrap();
        let now = after(2, &[1]);
        let sealed = now.seal("name", &now.open("name", &old).unwrap()).unwrap();
        assert!(now.is_current(&sealed));
        assert_eq!(*at_rest(2).open("name", &sealed).unwrap(), b"a record");
    }

    // Frozen: records of these versions must open for ever. Root secret 00 01 .. 1f.
    #[test]
    fn opens_the_committed_records() {
        for text in [V1, V2] {
            let sealed = hex::decode(text.trim()).unwrap();
            for at_rest in [at_rest(0), after(1, &[2, 0])] {
                assert_eq!(*at_rest.open("definition/app/keys", &sealed).unwrap(), b"a record");
            }
            at_rest(1).open("definition/app/keys", &sealed).unwrap_err();
            assert_eq!(at_rest(0).is_current(&sealed), text == V2);
        }
    }

    const V1: &str = include_str!("../tests/data/at-rest-v1.hex");
    const V2: &str = include_str!("../tests/data/at-rest-v2.hex");

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", at_rest(0)), "AtRest");
    }
}
