//! The keys as JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::openpgp::{OpenPgpSigningKey, ParseOpenPgpKeyError};
use sbs_crypto::{ImageSigningKey, ManifestSigningKey, ParseKeyError};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{DefinitionKeys, GenerateKeysError, Rotation, USER_ID};

/// Keys that were read from a record.
#[derive(Debug)]
pub struct LoadedKeys {
    /// The keys.
    pub keys: DefinitionKeys,
    /// The record is of before there were all roles: keys for the others were made now, and must
    /// be kept before they are used.
    pub made: bool,
}

impl DefinitionKeys {
    /// The longest record that is read, 256 KiB: whoever keeps keys checks that theirs is not longer.
    ///
    /// Eight keys take 16 KiB, of 8192 bits 40 KiB; those at a notary 2 KiB a repository.
    pub const MAX_RECORD_BYTES: usize = 256 * 1024;

    /// Reads a record of [`to_record`](Self::to_record) of at most
    /// [`MAX_RECORD_BYTES`](Self::MAX_RECORD_BYTES), or one of an older schema, whose missing keys
    /// are made.
    pub fn from_record(record: &[u8], at: OffsetDateTime) -> Result<LoadedKeys, ParseRecordError> {
        if record.len() > Self::MAX_RECORD_BYTES {
            return Err(ParseRecordError::TooLong);
        }
        // The number first, so that a record of a later server is called by its name. What the
        // JSON parser has to say is dropped: it quotes the record.
        let Schema { schema } =
            serde_json::from_slice(record).map_err(|_| ParseRecordError::Malformed)?;
        match schema {
            1 => Ok(LoadedKeys { keys: read_first(record, at)?, made: true }),
            SCHEMA => Ok(LoadedKeys { keys: read(record)?, made: false }),
            _ => Err(ParseRecordError::UnsupportedSchema { got: schema }),
        }
    }

    /// Writes the keys as JSON: the number of the schema, and for each role its keys in base64:
    /// PKCS#8, or the packets of a transferable secret key (RFC 9580, 10.2).
    ///
    /// Secret: store it sealed.
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        let attestation = self.attestation.encoded(ImageSigningKey::to_pkcs8_der);
        let image = self.image.encoded(ImageSigningKey::to_pkcs8_der);
        let manifest = self.manifest.encoded(ManifestSigningKey::to_pkcs8_der);
        let openpgp = self.openpgp.encoded(OpenPgpSigningKey::to_bytes);
        let notary: Vec<_> = self.notary.iter().map(|(gun, key)| (gun, encode(key))).collect();
        let fields = Record {
            schema: SCHEMA,
            attestation: attestation.borrowed(),
            image: image.borrowed(),
            manifest: manifest.borrowed(),
            notary: notary.iter().map(|(gun, key)| (gun.as_str(), key.as_str())).collect(),
            openpgp: openpgp.borrowed(),
        };
        // The whole room at once: a vector that grows leaves copies of the secret behind.
        let bytes = |pair: &Rotation<Zeroizing<String>>| {
            FRAME_BYTES + pair.keys().map(|key| key.len()).sum::<usize>()
        };
        let notary_bytes = notary.iter().map(|(gun, key)| FRAME_BYTES + 6 * gun.len() + key.len());
        let room = FRAME_BYTES + bytes(&attestation) + bytes(&image) + bytes(&manifest);
        let room = room + bytes(&openpgp) + notary_bytes.sum::<usize>();
        let mut record = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *record, &fields).expect("texts and numbers can be written");
        record
    }
}

fn read(record: &[u8]) -> Result<DefinitionKeys, ParseRecordError> {
    let record: Record<'_> =
        serde_json::from_slice(record).map_err(|_| ParseRecordError::Malformed)?;
    let image = |der: &[u8]| ImageSigningKey::from_pkcs8_der(der);
    let manifest = |der: &[u8]| ManifestSigningKey::from_pkcs8_der(der);
    let notary = record.notary.iter().map(|(gun, key)| Ok(((*gun).to_owned(), decode(key)?)));
    Ok(DefinitionKeys {
        attestation: record.attestation.parse(image, ParseRecordError::AttestationKey)?,
        image: record.image.parse(image, ParseRecordError::ImageKey)?,
        manifest: record.manifest.parse(manifest, ParseRecordError::ManifestKey)?,
        notary: notary.collect::<Result<_, ParseRecordError>>()?,
        openpgp: record
            .openpgp
            .parse(OpenPgpSigningKey::from_bytes, ParseRecordError::OpenPgpKey)?,
    })
}

/// Reads a record of schema 1, which has two keys.
fn read_first(record: &[u8], at: OffsetDateTime) -> Result<DefinitionKeys, ParseRecordError> {
    let record: FirstRecord<'_> =
        serde_json::from_slice(record).map_err(|_| ParseRecordError::Malformed)?;
    let image = ImageSigningKey::from_pkcs8_der(&decode(record.image)?);
    let manifest = ManifestSigningKey::from_pkcs8_der(&decode(record.manifest)?);
    let (image, manifest) = (
        image.map_err(ParseRecordError::ImageKey)?,
        manifest.map_err(ParseRecordError::ManifestKey)?,
    );
    let attestation = ImageSigningKey::generate().map_err(GenerateKeysError::Key)?;
    let openpgp = OpenPgpSigningKey::generate(USER_ID, at).map_err(GenerateKeysError::OpenPgp)?;
    Ok(DefinitionKeys {
        attestation: Rotation::new(attestation),
        image: Rotation::new(image),
        manifest: Rotation::new(manifest),
        notary: BTreeMap::new(),
        openpgp: Rotation::new(openpgp),
    })
}

/// Why a record was not read.
///
/// Says nothing about its content, which is secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParseRecordError {
    /// A key of attestations is none.
    #[error("an attestation key of the record does not parse")]
    AttestationKey(#[source] ParseKeyError),

    /// The keys that an older record lacks could not be made.
    #[error(transparent)]
    Generate(#[from] GenerateKeysError),

    /// A key of images is none.
    #[error("an image key of the record does not parse")]
    ImageKey(#[source] ParseKeyError),

    /// The bytes are not JSON with exactly the fields of the schema.
    #[error("not a record of definition keys")]
    Malformed,

    /// A key of manifests is none.
    #[error("a manifest key of the record does not parse")]
    ManifestKey(#[source] ParseKeyError),

    /// A key of OpenPGP is none.
    #[error("an OpenPGP key of the record does not parse")]
    OpenPgpKey(#[source] ParseOpenPgpKeyError),

    /// The record is over the limit.
    #[error("record of definition keys is larger than {} KiB", DefinitionKeys::MAX_RECORD_BYTES / 1024)]
    TooLong,

    /// The record is of another version.
    #[error("record of definition keys has schema {got}, this server reads up to schema {SCHEMA}")]
    UnsupportedSchema {
        /// The number found.
        got: u32,
    },
}

impl<K> Rotation<K> {
    fn encoded(&self, write: impl Fn(&K) -> Zeroizing<Vec<u8>>) -> Rotation<Zeroizing<String>> {
        let key = |key| encode(&write(key));
        Rotation { current: key(&self.current), retiring: self.retiring.as_ref().map(key) }
    }
}

impl Rotation<Zeroizing<String>> {
    fn borrowed(&self) -> Pair<'_> {
        Pair { current: &self.current, retiring: self.retiring.as_deref().map(String::as_str) }
    }
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

// Borrowed, so that reading makes no copy of a key. Base64 needs no escapes in JSON, and a text
// with one is refused because it cannot be borrowed.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record<'a> {
    schema: u32,
    #[serde(borrow)]
    attestation: Pair<'a>,
    #[serde(borrow)]
    image: Pair<'a>,
    #[serde(borrow)]
    manifest: Pair<'a>,
    #[serde(borrow)]
    notary: BTreeMap<&'a str, &'a str>,
    #[serde(borrow)]
    openpgp: Pair<'a>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pair<'a> {
    current: &'a str,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    retiring: Option<&'a str>,
}

impl Pair<'_> {
    fn parse<K, E>(
        &self,
        parse: impl Fn(&[u8]) -> Result<K, E>,
        fault: fn(E) -> ParseRecordError,
    ) -> Result<Rotation<K>, ParseRecordError> {
        let key = |text| parse(&decode(text)?).map_err(fault);
        Ok(Rotation { current: key(self.current)?, retiring: self.retiring.map(key).transpose()? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstRecord<'a> {
    #[expect(dead_code, reason = "read before, to tell the record by")]
    schema: u32,
    image: &'a str,
    manifest: &'a str,
}

fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    STANDARD.encode_string(bytes, &mut text);
    text
}

fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, ParseRecordError> {
    STANDARD.decode(text).map(Zeroizing::new).map_err(|_| ParseRecordError::Malformed)
}

const SCHEMA: u32 = 2;

// More than the names, the numbers and the punctuation of one role.
const FRAME_BYTES: usize = 64;
