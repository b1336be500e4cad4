//! The settings of the server: a TOML file, and a few variables of the environment.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::root_secret::RootSecretSettings;

/// The settings file. Every key has a default; `crates/sbs-server/default.toml` shows and explains
/// them all.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) data_directory: PathBuf,
    pub(crate) root_secret: RootSecretSettings,
    pub(crate) build: BuildSettings,
    pub(crate) client: ClientSettings,
    pub(crate) git: GitSettings,
    pub(crate) registry: RegistrySettings,
    pub(crate) signing: SigningSettings,
    pub(crate) state: StateSettings,
    pub(crate) storage: StorageSettings,
    pub(crate) tls: TlsSettings,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct BuildSettings {
    pub(crate) network: NetworkSetting,
    pub(crate) isolation: Option<IsolationSetting>,
    pub(crate) time_limit_seconds: u64,
    pub(crate) idle_limit_seconds: u64,
    pub(crate) log_limit_mib: u64,
    pub(crate) max_processes: u32,
    pub(crate) memory_limit_mib: Option<u64>,
    pub(crate) keep_builds: usize,
}

/// What the steps of a Dockerfile can reach.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NetworkSetting {
    Host,
    None,
}

/// How the engine keeps a build's processes apart.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IsolationSetting {
    Chroot,
    OciCrun,
    OciRunc,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ClientSettings {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) crl_file: Option<PathBuf>,
    pub(crate) pin_certificate: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct GitSettings {
    pub(crate) known_hosts: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) time_limit_seconds: u64,
    pub(crate) max_mib: u64,
    pub(crate) max_files: u64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct RegistrySettings {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) lookaside: BTreeMap<String, String>,
    pub(crate) token_hosts: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct SigningSettings {
    pub(crate) lookaside_directory: Option<PathBuf>,
    pub(crate) lookaside_url: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct StorageSettings {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) danger_allow_http: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct StateSettings {
    pub(crate) accept_other_client_ca: bool,
    pub(crate) receive_limit_seconds: u64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct TlsSettings {
    pub(crate) certificate_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 443)),
            data_directory: "/var/lib/sbs".into(),
            root_secret: RootSecretSettings::default(),
            build: BuildSettings::default(),
            client: ClientSettings::default(),
            git: GitSettings::default(),
            registry: RegistrySettings::default(),
            signing: SigningSettings::default(),
            state: StateSettings::default(),
            storage: StorageSettings::default(),
            tls: TlsSettings::default(),
        }
    }
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self {
            network: NetworkSetting::Host,
            isolation: None,
            time_limit_seconds: 2 * 60 * 60,
            idle_limit_seconds: 30 * 60,
            log_limit_mib: 64,
            max_processes: 16 * 1024,
            memory_limit_mib: None,
            keep_builds: 20,
        }
    }
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            known_hosts: None,
            ca_file: None,
            time_limit_seconds: 30 * 60,
            max_mib: 10 * 1024,
            max_files: 1_000_000,
        }
    }
}

impl Default for StateSettings {
    fn default() -> Self {
        // 140 kB/s for the largest.
        Self { accept_other_client_ca: false, receive_limit_seconds: 2 * 60 }
    }
}

impl StateSettings {
    pub(crate) fn receive_limit(&self) -> Duration {
        Duration::from_secs(self.receive_limit_seconds)
    }
}

impl BuildSettings {
    pub(crate) fn time_limit(&self) -> Duration {
        Duration::from_secs(self.time_limit_seconds)
    }

    pub(crate) fn idle_limit(&self) -> Duration {
        Duration::from_secs(self.idle_limit_seconds)
    }
}

impl Settings {
    /// Parses the text of a settings file.
    pub(crate) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let settings: Self = toml::from_str(text)?;
        let TlsSettings { certificate_file, key_file } = &settings.tls;
        if certificate_file.is_some() != key_file.is_some() {
            let message = "`certificate-file` and `key-file` in `[tls]` go together";
            return Err(serde::de::Error::custom(message));
        }
        Ok(settings)
    }

    /// Loads a settings file.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadSettingsError> {
        let at = |source| LoadSettingsError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(at)?;
        Self::parse(&text)
            .map_err(|source| LoadSettingsError::Parse { path: path.to_owned(), source })
    }
}

/// Returns the directory in which systemd gives credentials to this service, if it does.
pub(crate) fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The certificates that come in through the environment, each base64 of PEM text.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The authorities under which client certificates must stand.
    pub(crate) client_ca: String,
    /// The certificate of the client, for pinning.
    pub(crate) client_certificate: Option<String>,
    /// The server's certificate, with its chain, and its private key.
    pub(crate) server: Option<(String, ServerKeyText)>,
}

/// The text in `SERVER_KEY`.
pub(crate) enum ServerKeyText {
    /// The key, PEM.
    Pem(Zeroizing<String>),
    /// The key in an OpenPGP message, encrypted to the identity of this server.
    OpenPgp(Zeroizing<String>),
}

impl Identity {
    /// Reads `CLIENT_CA`, `CLIENT_CRT`, `SERVER_CRT` and `SERVER_KEY`.
    pub(crate) fn from_environment() -> Result<Self, LoadIdentityError> {
        Self::from_variables(|name| {
            #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
            let value = std::env::var(name);
            value.ok()
        })
    }

    /// Reads the variables from wherever `get` finds them.
    pub(crate) fn from_variables(
        get: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, LoadIdentityError> {
        let pem = |name| decode(name, get(name))?.map(|text| certificate(name, &text)).transpose();
        let missing = |name| LoadIdentityError::Missing { name };
        let key = decode("SERVER_KEY", get("SERVER_KEY"))?.map(ServerKeyText::parse).transpose()?;
        let server = match (pem("SERVER_CRT")?, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, Some(_)) => return Err(missing("SERVER_CRT")),
            (Some(_), None) => return Err(missing("SERVER_KEY")),
        };
        Ok(Self {
            client_ca: pem("CLIENT_CA")?.ok_or_else(|| missing("CLIENT_CA"))?,
            client_certificate: pem("CLIENT_CRT")?,
            server,
        })
    }
}

impl ServerKeyText {
    fn parse(text: Zeroizing<String>) -> Result<Self, LoadIdentityError> {
        if text.contains("-----BEGIN PGP MESSAGE-----") {
            return Ok(Self::OpenPgp(text));
        }
        if !text.contains("-----BEGIN ") {
            return Err(LoadIdentityError::NotPem { name: "SERVER_KEY" });
        }
        Ok(Self::Pem(text))
    }
}

impl std::fmt::Debug for ServerKeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerKeyText")
    }
}

fn certificate(name: &'static str, text: &str) -> Result<String, LoadIdentityError> {
    let good = text.contains("-----BEGIN CERTIFICATE-----");
    good.then(|| text.to_owned()).ok_or(LoadIdentityError::NotPem { name })
}

/// Decodes a variable; one that is empty counts as absent.
fn decode(
    name: &'static str,
    value: Option<String>,
) -> Result<Option<Zeroizing<String>>, LoadIdentityError> {
    let Some(value) = value.map(Zeroizing::new).filter(|value| !value.trim().is_empty()) else {
        return Ok(None);
    };
    let bytes = STANDARD.decode(value.trim()).map_err(|_| LoadIdentityError::NotBase64 { name })?;
    let text = String::from_utf8(bytes).map_err(|_| LoadIdentityError::NotPem { name })?;
    Ok(Some(Zeroizing::new(text)))
}

/// Why the settings were not loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum LoadSettingsError {
    /// The file is not a settings file.
    #[error("`{}` is not a settings file of this server", path.display())]
    Parse { path: PathBuf, source: toml::de::Error },

    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// Why the certificates in the environment were not loaded.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub(crate) enum LoadIdentityError {
    /// A variable is not set.
    #[error("{name} is not set; `sbs instance-env` prints it")]
    Missing { name: &'static str },

    /// A value is not base64.
    #[error("{name} is not base64; `sbs instance-env` prints it")]
    NotBase64 { name: &'static str },

    /// A value is not the base64 of PEM.
    #[error("{name} is not the base64 of PEM text; `sbs instance-env` prints it")]
    NotPem { name: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_shows_every_default() {
        let shipped = include_str!("../default.toml");
        assert_eq!(Settings::parse(shipped).unwrap(), Settings::default());
        // The keys without a default value stand there commented out, and must be real keys too.
        let all: String = shipped
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let settings = Settings::parse(&all).unwrap();
        assert!(settings.git.known_hosts.is_some() && settings.build.isolation.is_some());
        assert!(settings.build.memory_limit_mib.is_some());
        assert!(settings.client.ca_file.is_some() && settings.client.crl_file.is_some());
        assert!(settings.tls.certificate_file.is_some() && settings.tls.key_file.is_some());
        assert!(settings.storage.ca_file.is_some() && !settings.storage.danger_allow_http);
        assert_eq!(settings.root_secret.previous.len(), 1);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        for text in [
            "lisen = 1",
            "[build]\nnetwrk = \"none\"",
            "[build]\nnetwork = \"maybe\"",
            "[tls]\nkey-file = \"k\"",
        ] {
            assert!(Settings::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_are_base64_of_pem() {
        let pem = "-----BEGIN CERTIFICATE-----\n";
        let good = STANDARD.encode(pem);
        let pgp = STANDARD.encode("-----BEGIN PGP MESSAGE-----\n");
        let with = |name: &'static str, value: &str| {
            let value = value.to_owned();
            let good = good.clone();
            Identity::from_variables(move |asked| {
                Some(if asked == name { value.clone() } else { good.clone() })
            })
        };
        assert_eq!(with("", "").unwrap().client_ca, pem);
        let (_, key) = with("SERVER_KEY", &pgp).unwrap().server.unwrap();
        assert!(matches!(key, ServerKeyText::OpenPgp(_)));
        for (name, value, expected) in [
            ("CLIENT_CA", "", LoadIdentityError::Missing { name: "CLIENT_CA" }),
            ("SERVER_KEY", "", LoadIdentityError::Missing { name: "SERVER_KEY" }),
            ("SERVER_CRT", "", LoadIdentityError::Missing { name: "SERVER_CRT" }),
            ("SERVER_CRT", &pgp, LoadIdentityError::NotPem { name: "SERVER_CRT" }),
            ("SERVER_KEY", "%%%", LoadIdentityError::NotBase64 { name: "SERVER_KEY" }),
            ("SERVER_KEY", "AAAA", LoadIdentityError::NotPem { name: "SERVER_KEY" }),
        ] {
            assert_eq!(with(name, value).err(), Some(expected), "{name} {value}");
        }
        // Without both the server makes its own.
        let none = Identity::from_variables(|name| (name == "CLIENT_CA").then(|| good.clone()));
        assert!(none.unwrap().server.is_none());
    }
}
