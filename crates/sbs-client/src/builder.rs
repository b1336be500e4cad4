use std::fmt;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Identity};
use thiserror::Error;
use url::{Host, Url};

use crate::observer::{Event, Observer};
use crate::{Client, limits};

/// Makes a [`Client`]. What is not optional is asked for by the order of the calls: first
/// [`trust`](Self::trust), then [`identity`](ClientBuilder::identity), then
/// [`build`](ClientBuilder::build).
pub struct ClientBuilder<Stage> {
    pub(crate) base: Url,
    pub(crate) settings: Settings,
    pub(crate) stage: Stage,
}

/// The stage of a builder that does not know yet whom to trust.
#[derive(Debug)]
pub struct WantsTrust(pub(crate) ());

/// The stage of a builder that has no client certificate yet.
pub struct WantsIdentity(Vec<Certificate>);

/// The stage of a builder that has all it needs.
pub struct Ready {
    authorities: Vec<Certificate>,
    identity: Identity,
}

/// The settings that have a default.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) download_attempts: u32,
    pub(crate) download_timeout: Duration,
    pub(crate) manifest_limit: u64,
    pub(crate) observer: Observer,
    pub(crate) timeout: Duration,
}

impl ClientBuilder<WantsTrust> {
    /// Starts with the server's host name and port.
    pub(crate) fn new(host: &str, port: u16) -> Result<Self, BuildClientError> {
        // An IPv6 address stands in brackets in a URL.
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Host::parse(&bracketed).map_err(|_| BuildClientError::Host)?;
        let base = Url::parse(&format!("https://{bracketed}:{port}/"));
        let base = base.map_err(|_| BuildClientError::Host)?;
        let settings = Settings {
            download_attempts: limits::DOWNLOAD_ATTEMPTS,
            download_timeout: limits::DOWNLOAD_TIMEOUT,
            manifest_limit: limits::MANIFEST_BYTES,
            observer: Observer::default(),
            timeout: limits::TIMEOUT,
        };
        Ok(Self { base, settings, stage: WantsTrust(()) })
    }

    /// Trusts the certificate authorities in `pem` and no others; the system's are not consulted.
    pub fn trust(self, pem: &[u8]) -> Result<ClientBuilder<WantsIdentity>, BuildClientError> {
        let authorities = Certificate::from_pem_bundle(pem).unwrap_or_default();
        if authorities.is_empty() {
            return Err(BuildClientError::Trust);
        }
        let Self { base, settings, stage: WantsTrust(()) } = self;
        Ok(ClientBuilder { base, settings, stage: WantsIdentity(authorities) })
    }
}

impl ClientBuilder<WantsIdentity> {
    /// Presents the client certificate in `pem`, which holds the private key too.
    pub fn identity(self, pem: &[u8]) -> Result<ClientBuilder<Ready>, BuildClientError> {
        let identity = Identity::from_pem(pem).map_err(|_| BuildClientError::Identity)?;
        let Self { base, settings, stage: WantsIdentity(authorities) } = self;
        Ok(ClientBuilder { base, settings, stage: Ready { authorities, identity } })
    }
}

impl ClientBuilder<Ready> {
    /// Makes the client; nothing is sent yet.
    pub fn build(self) -> Result<Client, BuildClientError> {
        let Self { base, settings, stage: Ready { authorities, identity } } = self;
        let make = |standstill: Duration| {
            http(standstill)
                .tls_certs_only(authorities.clone())
                .identity(identity.clone())
                .build()
                .map_err(|source| BuildClientError::Tls { source })
        };
        // The time until an answer begins counts as standstill, and with it that of an upload.
        let patient = make(limits::STATE_TIMEOUT)?;
        Ok(Client::new(make(settings.timeout)?, patient, base, settings))
    }
}

impl<Stage> ClientBuilder<Stage> {
    /// Sets how long a short call may take, and how long a download may stand still; 60 s
    /// otherwise.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Sets how long the download of a log or manifest may take; an hour otherwise.
    #[must_use]
    pub fn with_download_timeout(mut self, timeout: Duration) -> Self {
        self.settings.download_timeout = timeout;
        self
    }

    /// Sets how often in a row a download is begun or resumed that brings next to nothing; 8
    /// otherwise, over half a minute.
    #[must_use]
    pub fn with_download_attempts(mut self, attempts: u32) -> Self {
        self.settings.download_attempts = attempts;
        self
    }

    /// Sets the most bytes of a manifest; 4 GiB otherwise.
    #[must_use]
    pub fn with_manifest_limit(mut self, bytes: u64) -> Self {
        self.settings.manifest_limit = bytes;
        self
    }

    /// Has `observe` called at each [`Event`].
    #[must_use]
    pub fn with_observer(mut self, observe: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.settings.observer = Observer::new(observe);
        self
    }
}

/// Begins an HTTP client with what all of ours have in common.
pub(crate) fn http(standstill: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("sbs-client/", env!("CARGO_PKG_VERSION")))
        .https_only(true)
        .no_proxy()
        // For the observer: which certificate the server showed.
        .tls_info(true)
        // A redirect would take the request, with its secrets, to a host of the server's choice.
        .redirect(Policy::none())
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .read_timeout(standstill)
}

impl<Stage> fmt::Debug for ClientBuilder<Stage> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Debug for WantsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WantsIdentity")
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}

/// Why there is no client. It repeats nothing of a certificate or key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildClientError {
    /// The host is neither a name nor an address.
    #[error("the host is neither a host name nor an IP address")]
    Host,

    /// The client certificate is not usable.
    #[error("no certificate followed by its unencrypted private key, both in PEM form")]
    Identity,

    /// The TLS library does not accept what it was given.
    #[error("the certificates or the key are not usable for TLS")]
    Tls {
        /// Why.
        source: reqwest::Error,
    },

    /// There is no certificate to trust.
    #[error("no certificate of a certificate authority in PEM form")]
    Trust,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_are_hosts() {
        for (host, expected) in [
            ("build.example", Some("https://build.example:444/")),
            ("127.0.0.1", Some("https://127.0.0.1:444/")),
            ("::1", Some("https://[::1]:444/")),
            ("", None),
            ("a/b", None),
            ("user@build.example", None),
            ("build.example:1", None),
            ("build.example#", None),
            ("a b", None),
        ] {
            let built = ClientBuilder::new(host, 444);
            assert_eq!(built.as_ref().map(|b| b.base.as_str()).ok(), expected, "{host}");
        }
    }

    #[test]
    fn empty_or_wrong_pem_is_refused() {
        for pem in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let trusted = ClientBuilder::new("h", 1).unwrap().trust(pem.as_bytes());
            // A certificate that is no DER is found only when the client is built.
            let Ok(trusted) = trusted else { continue };
            assert!(pem.contains("BEGIN"), "{pem}");
            assert!(trusted.identity(pem.as_bytes()).is_err(), "{pem}");
        }
    }
}
