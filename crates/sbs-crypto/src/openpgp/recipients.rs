//! Whom a message is for.

use sequoia_openpgp::Packet;
use sequoia_openpgp::parse::{PacketParser, PacketParserResult, Parse as _};

use super::encrypt::MAX_ENCRYPTED_BYTES;
use super::key::OpenPgpDecryptionKey;
use super::read::{MAX_RECIPIENTS, fenced};

impl OpenPgpDecryptionKey {
    /// Returns the ids of its keys, 16 hex digits each: the primary key first.
    pub fn key_ids(&self) -> Vec<String> {
        self.0.keys().map(|key| key.key().keyid().to_hex()).collect()
    }
}

/// Returns the ids of the keys that an encrypted message says it is for, in hex digits: at most 16,
/// and none of what is no encrypted message. Nothing proves them.
pub fn recipients(message: &[u8]) -> Vec<String> {
    if message.len() > MAX_ENCRYPTED_BYTES {
        return Vec::new();
    }
    let read = || {
        let mut ids = Vec::new();
        let mut next = PacketParser::from_bytes(message).ok()?;
        while let PacketParserResult::Some(parser) = next {
            let Packet::PKESK(recipient) = &parser.packet else { break };
            ids.extend(recipient.recipient().map(|handle| handle.to_hex()));
            if ids.len() == MAX_RECIPIENTS {
                break;
            }
            next = parser.next().ok()?.1;
        }
        Some(ids)
    };
    fenced(read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::openpgp::OpenPgpRecipient;

    #[test]
    fn a_message_names_the_key_that_it_is_for() {
        let now = datetime!(2026-01-01 00:00 UTC);
        let key = OpenPgpDecryptionKey::generate("server", now).unwrap();
        let certificate = key.to_armored_certificate();
        let recipient = OpenPgpRecipient::parse(certificate.as_bytes(), now).unwrap();
        let message = recipient.encrypt(b"payload", now).unwrap();
        let ids = key.key_ids();
        // The primary key certifies; the other one decrypts.
        assert_eq!(ids.len(), 2);
        assert!(key.fingerprint().to_string().to_uppercase().ends_with(&ids[0]));
        assert_eq!(recipients(message.as_bytes()), ids[1..]);
        for other in [&b""[..], b"x", certificate.as_bytes(), &message.as_bytes()[..60]] {
            assert_eq!(recipients(other), Vec::<String>::new());
        }
    }
}
