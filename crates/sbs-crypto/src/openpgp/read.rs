//! Reading messages: what signed and what encrypted ones have in common.

use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, SystemTime};

use sequoia_openpgp::crypto::{KeyPair, SessionKey};
use sequoia_openpgp::packet::{PKESK, SKESK};
use sequoia_openpgp::parse::stream::{
    DecryptionHelper, DecryptorBuilder, MessageLayer, MessageStructure, VerificationHelper,
    VerifierBuilder,
};
use sequoia_openpgp::parse::{PacketParser, Parse as _};
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::types::SymmetricAlgorithm;
use sequoia_openpgp::{Cert, Error, KeyHandle};
use thiserror::Error as ThisError;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::encrypt::MAX_ENCRYPTED_BYTES;
use super::key::OpenPgpDecryptionKey;
use super::verify::{GoodSignature, MAX_SIGNED_BYTES, OpenPgpVerifier, VerifyMessageError};

impl OpenPgpDecryptionKey {
    /// Decrypts a message, armored or binary. A signature in it is not looked at.
    pub fn decrypt(
        &self,
        message: &[u8],
        at: OffsetDateTime,
    ) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        self.read(message, None, at.into())
    }

    /// Decrypts a message, armored or binary, that has one good signature of this verifier's.
    pub fn decrypt_and_verify(
        &self,
        message: &[u8],
        signers: &OpenPgpVerifier,
    ) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        self.read(message, Some(signers), signers.at)
    }

    fn read(
        &self,
        message: &[u8],
        signers: Option<&OpenPgpVerifier>,
        at: SystemTime,
    ) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        if message.len() > MAX_ENCRYPTED_BYTES {
            return Err(DecryptError::TooLong);
        }
        let policy = StandardPolicy::at(at);
        let keys = self
            .0
            .keys()
            .with_policy(&policy, at)
            .for_transport_encryption()
            .for_storage_encryption()
            .unencrypted_secret()
            .filter_map(|key| key.key().clone().into_keypair().ok())
            .collect();
        let mut verdict = None;
        let reader =
            Reader { form: Form::Encrypted { keys }, signers, packets: 0, verdict: &mut verdict };
        let opened = fenced(|| {
            let builder = DecryptorBuilder::from_bytes(message).ok()?;
            let builder = builder.buffer_size(MAX_ENCRYPTED_BYTES);
            let mut decryptor = builder.with_policy(&policy, at, reader).ok()?;
            let payload = read_whole(&mut decryptor, MAX_ENCRYPTED_BYTES)?;
            decryptor.message_processed().then_some(payload)
        });
        match (opened, verdict) {
            (Some(payload), Some(Ok(_))) => Ok(payload),
            (_, Some(Err(why))) => Err(DecryptError::Signature(why)),
            _ => Err(DecryptError::Rejected),
        }
    }
}

/// Why a message was not decrypted.
#[derive(Clone, Debug, Eq, PartialEq, ThisError)]
#[non_exhaustive]
pub enum DecryptError {
    /// It is not for this key, damaged, or not a message.
    #[error("the OpenPGP message cannot be decrypted with this key")]
    Rejected,

    /// It was decrypted, and its signature is not the one that is called for.
    #[error("the OpenPGP message has no signature that counts")]
    Signature(#[source] VerifyMessageError),

    /// It is longer than is read.
    #[error("an encrypted OpenPGP message has more than {} KiB", MAX_ENCRYPTED_BYTES / 1024)]
    TooLong,
}

/// Verifies a signed message; the payload comes out only if all of it is good.
pub(super) fn verify(
    signers: &OpenPgpVerifier,
    message: &[u8],
) -> Result<(Vec<u8>, GoodSignature), VerifyMessageError> {
    let at = signers.at + CLOCK_TOLERANCE;
    let policy = StandardPolicy::at(at);
    let mut verdict = None;
    let reader =
        Reader { form: Form::Signed, signers: Some(signers), packets: 0, verdict: &mut verdict };
    let payload = fenced(|| {
        let builder = VerifierBuilder::from_bytes(message).ok()?.buffer_size(MAX_SIGNED_BYTES);
        let mut verifier = builder.with_policy(&policy, at, reader).ok()?;
        let payload = read_whole(&mut verifier, MAX_SIGNED_BYTES)?;
        verifier.message_processed().then_some(payload)
    });
    match (payload, verdict) {
        (Some(payload), Some(Ok(Some(good)))) => Ok((payload.to_vec(), good)),
        (_, Some(Err(why))) => Err(why),
        _ => Err(VerifyMessageError::NotAMessage),
    }
}

/// How far the clock of the machine that signed may be ahead of ours. Which keys count is judged
/// by our own.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// Runs the library on what a stranger sent, and takes a panic for a refusal.
///
/// Version 2.4.2 panics on an encrypted message that is cut behind its first bytes.
pub(super) fn fenced<T>(read: impl FnOnce() -> Option<T>) -> Option<T> {
    // What the closure had begun to change is not used after a panic.
    panic::catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

/// Returns everything up to the end, which is where the library checks what it has given out.
fn read_whole(reader: &mut impl Read, max_bytes: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    reader.take(max_bytes as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= max_bytes).then_some(bytes)
}

/// What a message has to look like.
enum Form {
    /// A signature, and compression around it at most.
    Signed,
    /// Encryption for one of these keys around all that.
    Encrypted { keys: Vec<KeyPair> },
}

/// What the library asks while it reads a message.
struct Reader<'a> {
    form: Form,
    signers: Option<&'a OpenPgpVerifier>,
    /// Packets that were seen.
    packets: usize,
    /// Set when the end is reached: who signed, if that was asked, or what is wrong.
    verdict: &'a mut Option<Result<Option<GoodSignature>, VerifyMessageError>>,
}

impl VerificationHelper for Reader<'_> {
    fn inspect(&mut self, _packet: &PacketParser<'_>) -> sequoia_openpgp::Result<()> {
        self.packets += 1;
        if self.packets <= MAX_PACKETS { Ok(()) } else { Err(refused()) }
    }

    fn get_certs(&mut self, _ids: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(self.signers.map(|signers| signers.trusted().cloned().collect()).unwrap_or_default())
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> sequoia_openpgp::Result<()> {
        let mut layers: Vec<_> = structure.iter().collect();
        if matches!(self.form, Form::Encrypted { .. }) {
            let Some(MessageLayer::Encryption { .. }) = layers.first() else {
                return Err(refused());
            };
            layers.remove(0);
        }
        if let Some(MessageLayer::Compression { .. }) = layers.first() {
            layers.remove(0);
        }
        let verdict = match self.signers {
            Some(signers) => signers.judge(&layers).map(Some),
            None => match layers.as_slice() {
                [] | [MessageLayer::SignatureGroup { .. }] => Ok(None),
                _ => return Err(refused()),
            },
        };
        let good = verdict.is_ok();
        *self.verdict = Some(verdict);
        if good { Ok(()) } else { Err(refused()) }
    }
}

impl DecryptionHelper for Reader<'_> {
    fn decrypt(
        &mut self,
        pkesks: &[PKESK],
        _skesks: &[SKESK],
        algorithm: Option<SymmetricAlgorithm>,
        decrypt: &mut dyn FnMut(Option<SymmetricAlgorithm>, &SessionKey) -> bool,
    ) -> sequoia_openpgp::Result<Option<Cert>> {
        let Form::Encrypted { keys } = &mut self.form else { return Err(refused()) };
        for recipient in pkesks.iter().take(MAX_RECIPIENTS) {
            for key in keys.iter_mut() {
                let theirs = recipient.recipient();
                // Without a name it may be for any key (RFC 9580, 5.1.8).
                let ours = theirs.is_none_or(|theirs| theirs.aliases(key.public().key_handle()));
                let opened = ours.then(|| recipient.decrypt(key, algorithm)).flatten();
                if opened.is_some_and(|(algorithm, session)| decrypt(algorithm, &session)) {
                    return Ok(None);
                }
            }
        }
        Err(refused())
    }
}

/// What tells the library to stop; nobody reads it.
fn refused() -> sequoia_openpgp::anyhow::Error {
    Error::InvalidOperation("refused".to_owned()).into()
}

// One operation with a secret key each, which a stranger must not multiply.
pub(super) const MAX_RECIPIENTS: usize = 16;
// The recipients and half a dozen. Eight thousand nested signatures, which a message has room for,
// take ten seconds otherwise.
const MAX_PACKETS: usize = 32;
