use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sbs_state::KeyId;
use serde::{Deserialize, Serialize};

use crate::root_secret::tpm2::error::Tpm2Error;
use crate::store::read_secret_file;

/// The file of a sealed secret. Nothing in it is secret without its TPM.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Record {
    schema: u32,
    /// The number of the secret.
    pub(super) kid: String,
    /// The PCRs and their SHA-256 values, so that an error can say which are others now.
    pub(super) pcrs: PcrValues,
    pub(super) sealed: Sealed,
    pub(super) counter_index: u32,
    /// Where the backup was written when the secret was sealed.
    backup: Option<PathBuf>,
}

/// What a TPM made of a secret.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    /// The public area of the storage key above, which tells the TPM: `TPMT_PUBLIC`.
    #[serde(with = "base64_bytes")]
    pub(super) parent: Vec<u8>,
    /// The public area of the object: `TPMT_PUBLIC`.
    #[serde(with = "base64_bytes")]
    pub(super) public: Vec<u8>,
    /// Its private area, which only the TPM reads: the buffer of `TPM2B_PRIVATE`.
    #[serde(with = "base64_bytes")]
    pub(super) private: Vec<u8>,
}

/// PCRs with their values in hex.
pub(super) type PcrValues = BTreeMap<u8, String>;

impl Record {
    pub(super) fn new(
        kid: KeyId,
        pcrs: PcrValues,
        sealed: Sealed,
        counter_index: u32,
        backup: Option<&Path>,
    ) -> Self {
        let backup =
            backup.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        Self { schema: SCHEMA, kid: kid.to_string(), pcrs, sealed, counter_index, backup }
    }

    pub(super) fn load(path: &Path) -> Result<Self, Tpm2Error> {
        let content = read_secret_file(path)?;
        let record = serde_json::from_slice::<Self>(&content).ok();
        record
            .filter(|record| record.schema == SCHEMA)
            .ok_or_else(|| Tpm2Error::Damaged { path: path.to_owned() })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("texts and numbers can be written")
    }

    /// Says what to do when the TPM does not give the secret.
    pub(super) fn recovery(&self, file: &Path) -> String {
        let (file, kid) = (file.display(), &self.kid);
        match &self.backup {
            Some(backup) => format!(
                "seal root secret {kid} again: bring back its backup, which was written to `{0}`, \
                 move `{file}` away and run `sbs-server root-secret init --from {0}`",
                backup.display()
            ),
            None => format!(
                "no backup of root secret {kid} was made with it: seal it again with \
                 `sbs-server root-secret init --from FILE` if you have it elsewhere; what is kept is \
                 lost without it"
            ),
        }
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

const SCHEMA: u32 = 1;
