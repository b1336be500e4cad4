use std::path::PathBuf;

use serde::Deserialize;

/// The table `[root-secret]`: which provider, and what each needs.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct RootSecretSettings {
    pub(crate) provider: Provider,
    pub(crate) file: PathBuf,
    pub(crate) credential: String,
    pub(crate) tpm2: Tpm2Settings,
    /// Secrets of before, each described like the current one.
    pub(crate) previous: Vec<Self>,
}

/// Who keeps the root secret.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Provider {
    File,
    Systemd,
    Tpm2,
}

/// The table `[root-secret.tpm2]`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Tpm2Settings {
    pub(crate) file: PathBuf,
    pub(crate) tcti: String,
    pub(crate) pcrs: Vec<u8>,
    pub(crate) counter_index: u32,
}

impl Provider {
    /// Returns the word of the settings for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Systemd => "systemd",
            Self::Tpm2 => "tpm2",
        }
    }
}

impl Default for RootSecretSettings {
    fn default() -> Self {
        Self {
            provider: Provider::File,
            file: "/etc/sbs/root-secret".into(),
            credential: "sbs-root".to_owned(),
            tpm2: Tpm2Settings::default(),
            previous: Vec::new(),
        }
    }
}

impl Default for Tpm2Settings {
    fn default() -> Self {
        Self {
            file: "/etc/sbs/root-secret.tpm2".into(),
            tcti: "device:/dev/tpmrm0".to_owned(),
            // What starts the machine: the boot loader, Secure Boot, the kernel image that systemd
            // measures.
            pcrs: vec![4, 7, 11],
            // In the range that the TCG's registry of handles leaves to the owner.
            counter_index: 0x0180_5342,
        }
    }
}
