use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::{GenerateKeyError, ImageSigningKey, ManifestSigningKey, ParseKeyError};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

/// The signing keys of one build definition: one for its images, one for its manifests.
///
/// They are two, so that neither signature can be passed off as the other.
pub struct DefinitionKeys {
    image: ImageSigningKey,
    manifest: ManifestSigningKey,
}

impl DefinitionKeys {
    /// Makes fresh keys. Takes a good part of a second: not for an async task.
    pub fn generate() -> Result<Self, GenerateKeyError> {
        Ok(Self { image: ImageSigningKey::generate()?, manifest: ManifestSigningKey::generate()? })
    }

    /// Reads a record of [`to_record`](Self::to_record), at most 64 KiB.
    pub fn from_record(record: &[u8]) -> Result<Self, ParseRecordError> {
        if record.len() > MAX_RECORD_BYTES {
            return Err(ParseRecordError::TooLong);
        }
        // The number first, so that a record of a later server is called by its name. What the
        // JSON parser has to say is dropped: it quotes the record.
        let Schema { schema } =
            serde_json::from_slice(record).map_err(|_| ParseRecordError::Malformed)?;
        if schema != SCHEMA {
            return Err(ParseRecordError::UnsupportedSchema { got: schema });
        }
        let record: Record<'_> =
            serde_json::from_slice(record).map_err(|_| ParseRecordError::Malformed)?;
        Ok(Self {
            image: ImageSigningKey::from_pkcs8_der(&decode(record.image)?)
                .map_err(ParseRecordError::ImageKey)?,
            manifest: ManifestSigningKey::from_pkcs8_der(&decode(record.manifest)?)
                .map_err(ParseRecordError::ManifestKey)?,
        })
    }

    /// Returns the key that signs images.
    pub fn image(&self) -> &ImageSigningKey {
        &self.image
    }

    /// Returns the key that signs manifests.
    pub fn manifest(&self) -> &ManifestSigningKey {
        &self.manifest
    }

    /// Writes the keys as JSON: the number of the schema, and each key as PKCS#8 in base64.
    ///
    /// Secret: store it sealed.
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        let image = encode(&self.image.to_pkcs8_der());
        let manifest = encode(&self.manifest.to_pkcs8_der());
        let fields = Record { schema: SCHEMA, image: &image, manifest: &manifest };
        // The whole room at once: a vector that grows leaves copies of the secret behind.
        let room = image.len() + manifest.len() + FRAME_BYTES;
        let mut record = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *record, &fields).expect("texts and numbers can be written");
        record
    }
}

impl fmt::Debug for DefinitionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefinitionKeys")
    }
}

/// Why a record was not read.
///
/// Says nothing about its content, which is secret.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseRecordError {
    /// The image key is none.
    #[error("the image key of the record does not parse")]
    ImageKey(#[source] ParseKeyError),

    /// The bytes are not JSON with exactly the fields of the schema.
    #[error("not a record of definition keys")]
    Malformed,

    /// The manifest key is none.
    #[error("the manifest key of the record does not parse")]
    ManifestKey(#[source] ParseKeyError),

    /// The record is over the limit.
    #[error("record of definition keys is larger than {} KiB", MAX_RECORD_BYTES / 1024)]
    TooLong,

    /// The record is of another version.
    #[error("record of definition keys has schema {got}, this server reads schema {SCHEMA}")]
    UnsupportedSchema {
        /// The number found.
        got: u32,
    },
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
    image: &'a str,
    manifest: &'a str,
}

fn encode(der: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(der.len().div_ceil(3) * 4));
    STANDARD.encode_string(der, &mut text);
    text
}

fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, ParseRecordError> {
    STANDARD.decode(text).map(Zeroizing::new).map_err(|_| ParseRecordError::Malformed)
}

const SCHEMA: u32 = 1;

// Two keys take 3 KiB, of 8192 bits 7 KiB.
const MAX_RECORD_BYTES: usize = 64 * 1024;

// More than the names, the number and the punctuation of a record.
const FRAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    // One set for all tests: making keys takes a good part of a second in a debug build.
    static KEYS: LazyLock<DefinitionKeys> = LazyLock::new(|| DefinitionKeys::generate().unwrap());

    fn record() -> String {
        String::from_utf8(KEYS.to_record().to_vec()).unwrap()
    }

    fn error(record: &str) -> ParseRecordError {
        DefinitionKeys::from_record(record.as_bytes()).unwrap_err()
    }

    #[test]
    fn keys_survive_their_record() {
        let keys = DefinitionKeys::from_record(&KEYS.to_record()).unwrap();
        let signature = keys.image().sign(b"message").unwrap();
        let _proof = KEYS.image().verifying_key().verify(b"message", &signature).unwrap();
        let signature = keys.manifest().sign(b"message").unwrap();
        let _proof = KEYS.manifest().verifying_key().verify(b"message", &signature).unwrap();
        assert_eq!(*keys.to_record(), *KEYS.to_record());
    }

    #[test]
    fn reads_the_committed_record() {
        // Frozen: records of this schema must be readable for ever.
        let keys =
            DefinitionKeys::from_record(include_bytes!("../tests/data/definition-keys-v1.json"))
                .unwrap();
        assert_eq!(
            keys.image().verifying_key().to_pem(),
            include_str!("../tests/data/definition-keys-v1.image.pem")
        );
        assert_eq!(
            keys.manifest().verifying_key().to_pem(),
            include_str!("../tests/data/definition-keys-v1.manifest.pem")
        );
    }

    #[test]
    fn writes_into_one_buffer() {
        let record = KEYS.to_record();
        let room = record.capacity() - record.len();
        assert!(room < FRAME_BYTES, "{room}");
        assert!(record.starts_with(br#"{"schema":1,"image":"MI"#));
    }

    #[test]
    fn each_definition_has_its_own_keys() {
        let other = DefinitionKeys::generate().unwrap();
        assert_ne!(other.image().verifying_key().to_pem(), KEYS.image().verifying_key().to_pem());
        assert_ne!(
            other.manifest().verifying_key().to_pem(),
            KEYS.manifest().verifying_key().to_pem()
        );
    }

    #[test]
    fn refuses_another_schema_by_its_number() {
        for (number, got) in [("0", 0), ("2", 2), ("4294967295", u32::MAX)] {
            let changed = record().replace(r#""schema":1"#, &format!(r#""schema":{number}"#));
            assert_eq!(error(&changed), ParseRecordError::UnsupportedSchema { got });
        }
        let future = r#"{"schema":2,"keys":[]}"#;
        assert_eq!(error(future), ParseRecordError::UnsupportedSchema { got: 2 });
    }

    #[test]
    fn refuses_records_of_another_shape() {
        let good = record();
        for bad in [
            String::new(),
            "{}".to_owned(),
            "[1]".to_owned(),
            "null".to_owned(),
            good.replace(r#""schema":1,"#, ""),
            good.replace(r#""schema":1"#, r#""schema":"1""#),
            good.replace(r#""schema":1"#, r#""schema":1,"schema":1"#),
            good.replace(r#""schema":1"#, r#""schema":-1"#),
            good.replace(r#""schema":1"#, r#""schema":1,"extra":0"#),
            good.replace(r#""image""#, r#""imagE""#),
            good.replace(r#""image":"M"#, r#""image":"\u004d"#),
            good.replace(r#""image":"M"#, r#""image":"!"#),
            good.replace(r#""image":"M"#, r#""image":"m","image":"M"#),
            format!("{good}x"),
            format!("{good}{good}"),
        ] {
            assert_ne!(bad, good);
            assert_eq!(error(&bad), ParseRecordError::Malformed, "{}", bad.len());
        }
    }

    #[test]
    fn refuses_every_prefix() {
        let good = record();
        for length in 0..good.len() {
            let cut = good.get(..length).unwrap();
            assert_eq!(error(cut), ParseRecordError::Malformed, "{length}");
        }
    }

    #[test]
    fn refuses_swapped_and_damaged_keys() {
        let swapped = record().replace("image", "x").replace("manifest", "image");
        let swapped = swapped.replace(r#""x""#, r#""manifest""#);
        assert!(matches!(error(&swapped), ParseRecordError::ImageKey(_)));

        let image = encode(&KEYS.image().to_pkcs8_der());
        let write = |image: &str, manifest: &str| {
            serde_json::to_string(&Record { schema: SCHEMA, image, manifest }).unwrap()
        };
        assert!(matches!(error(&write(&image, &image)), ParseRecordError::ManifestKey(_)));
        assert!(matches!(error(&write("", &image)), ParseRecordError::ImageKey(_)));
        assert!(matches!(error(&write(&image, "")), ParseRecordError::ManifestKey(_)));
    }

    #[test]
    fn reads_up_to_the_limit() {
        let good = record();
        let fitting = good.clone() + &" ".repeat(MAX_RECORD_BYTES - good.len());
        DefinitionKeys::from_record(fitting.as_bytes()).unwrap();
        assert_eq!(error(&(fitting + " ")), ParseRecordError::TooLong);
    }

    #[test]
    fn errors_and_debug_show_no_key() {
        assert_eq!(format!("{:?}", *KEYS), "DefinitionKeys");
        let canary = r#"{"schema":1,"image":"canary canary","manifest":"canary"}"#;
        for bad in [canary, r#"{"schema":"canary"}"#, r#"{"schema":1,"canary":0}"#] {
            let error = error(bad);
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }
}
