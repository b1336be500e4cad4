//! The certificates of the server: which one it shows, how it asks for another, and how that takes
//! its place while the server runs (`docs/operations.md`).
//!
//! What was given last is shown: by environment or files, or over the wire. The certificate of
//! environment or files that one was installed over does not come back at the next start.

mod check;
pub(crate) mod error;
mod expiry;
mod given;
mod kept;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sbs_crypto::pki::{
    CertificateInfo, ServerChain, ServerHost, ServerKey, describe, describe_all,
};
use sbs_proto::{
    CertificateDates, CertificateFacts, CertificateSource, Certificates as Told, Digest,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::certificates::error::{
    InstallCertificateError, LoadCertificatesError, RequestCertificateError,
};
use crate::certificates::given::{Given, Version};
use crate::certificates::kept::{KeptCertificate, Pending};
use crate::clock::Clock;
use crate::tls::{Configuration, Live, MakeTlsError, Pair, fingerprint};

pub(crate) use crate::certificates::given::Sources;
pub(crate) use crate::certificates::kept::Kept;

/// The certificates. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Certificates(Arc<Inner>);

struct Inner {
    clock: Clock,
    kept: Kept,
    live: Live,
    /// Called when another certificate is shown.
    replaced: Box<dyn Fn() + Send + Sync>,
    sources: Sources,
    /// That of the files when the server started.
    version: Version,
    /// Held by whoever changes something, across its I/O.
    writer: tokio::sync::Mutex<()>,
    now: Mutex<Now>,
}

/// What is shown and accepted now.
struct Now {
    given: Given,
    pair: Pair,
    source: CertificateSource,
    server: CertificateInfo,
    authorities: Vec<CertificateInfo>,
    pending: Option<Awaited>,
}

/// What is told of a certificate that was asked for.
#[derive(Clone, Debug)]
struct Awaited {
    host: String,
    key_sha256: Digest,
}

impl Certificates {
    /// Loads the certificates, and makes one where there is none. `replaced` is called whenever
    /// another one is shown from then on.
    pub(crate) fn open(
        sources: Sources,
        kept: Kept,
        clock: Clock,
        replaced: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, LoadCertificatesError> {
        let version = sources.version();
        let given = sources.load()?;
        let given_before = kept.certificate()?;
        let (pair, source) = choose(&given, given_before, &kept, clock.now())?;
        let configuration = Configuration::new(&pair, &given.clients)?;
        let pending = kept.pending()?.as_ref().map(Awaited::of);
        let now = Now::new(given, pair, source, pending)?;
        now.tell();
        Ok(Self(Arc::new(Inner {
            clock,
            kept,
            live: Live::new(configuration),
            replaced: Box::new(replaced),
            sources,
            version,
            writer: tokio::sync::Mutex::new(()),
            now: Mutex::new(now),
        })))
    }

    /// Returns what connections are accepted with.
    pub(crate) fn live(&self) -> Live {
        self.0.live.clone()
    }

    /// Returns a request (PEM) for a certificate of the server at this host. Its key stays here until
    /// the certificate has come; until then every request is of the same key.
    pub(crate) async fn request(&self, host: &str) -> Result<String, RequestCertificateError> {
        let host = ServerHost::parse(host).ok_or(RequestCertificateError::NotAHost)?;
        let _writer = self.0.writer.lock().await;
        let shown = self.0.now().pair.key.clone();
        // A server that died behind an installation has left the key of the certificate in use.
        let pending = self.0.kept.pending()?.filter(|pending| pending.key.pem() != *shown);
        let key = match pending {
            Some(pending) => pending.key,
            None => tokio::task::spawn_blocking(ServerKey::generate)
                .await
                .map_err(RequestCertificateError::Task)??,
        };
        let request = key.request(&host, self.0.clock.now())?;
        let pending = Pending { host, key };
        self.0.kept.set_pending(&pending)?;
        let awaited = Awaited::of(&pending);
        let Awaited { host, key_sha256 } = &awaited;
        tracing::info!(host, %key_sha256, "a certificate was asked for");
        self.0.now().pending = Some(awaited);
        Ok(request)
    }

    /// Installs the certificate (PEM, with its chain) for the last request, and shows it from the
    /// next connection on. The same one can be installed again, also with another chain.
    pub(crate) async fn install(&self, pem: &str) -> Result<(), InstallCertificateError> {
        let chain = ServerChain::parse(pem)?;
        let _writer = self.0.writer.lock().await;
        let (described, source) = (chain.describe(), CertificateSource::Installed);
        let (authorities, clients, replaced, installed) = {
            let now = self.0.now();
            let given = &now.given;
            let same = now.source == source && now.server.sha256 == described.sha256;
            let installed = same.then(|| now.pair.clone());
            let replaced = given.server_fingerprint()?;
            (given.authorities.clone(), given.clients.clone(), replaced, installed)
        };
        let at = self.0.clock.now();
        let certificate = chain.to_pem();
        let renewed = installed.is_none();
        let key = match installed {
            Some(installed) if installed.certificate == certificate => return Ok(()),
            // Only what leads from it to an authority is another: its key is the one in use.
            Some(installed) => {
                check::check_chain(&chain, &authorities, at)?;
                installed.key
            }
            None => {
                let pending = self.0.kept.pending()?.ok_or(InstallCertificateError::NoRequest)?;
                if !chain.is_of(&pending.key) {
                    return Err(InstallCertificateError::OtherKey);
                }
                check::check(&chain, &pending.host, &authorities, at)?;
                Zeroizing::new(pending.key.pem().to_owned())
            }
        };
        let pair = Pair { certificate, key };
        let configuration = Configuration::new(&pair, &clients)?;
        let kept = KeptCertificate { pair, replaced, source };
        self.0.kept.set_certificate(&kept)?;
        self.0.live.set(configuration);
        let mut now = self.0.now();
        (now.pair, now.source, now.server) = (kept.pair, source, described);
        now.tell();
        drop(now);
        if renewed {
            self.0.forget_request();
        }
        (self.0.replaced)();
        Ok(())
    }

    /// Loads again what can change: the files that the settings name. After an error everything is
    /// as it was.
    pub(crate) async fn reload(&self) -> Result<(), LoadCertificatesError> {
        let _writer = self.0.writer.lock().await;
        let given = self.0.sources.load()?;
        let new = given.server_fingerprint()?;
        let (pair, source, pending) = {
            let now = self.0.now();
            let same = now.given.server_fingerprint()? == new;
            // One that something was installed over does not come back.
            let other = given.server.clone().filter(|(_, source)| !same || now.source == *source);
            let (pair, source) = other.unwrap_or_else(|| (now.pair.clone(), now.source));
            (pair, source, now.pending.clone())
        };
        let configuration = Configuration::new(&pair, &given.clients)?;
        let new = Now::new(given, pair, source, pending)?;
        self.0.live.set(configuration);
        new.tell();
        let before = std::mem::replace(&mut *self.0.now(), new).server.sha256;
        if before != self.0.now().server.sha256 {
            (self.0.replaced)();
        }
        Ok(())
    }

    /// Returns what everybody may know of the certificates.
    pub(crate) fn told(&self) -> Told {
        let now = self.0.now();
        Told {
            client_authorities: now.authorities.iter().map(facts).collect(),
            pending_host: now.pending.as_ref().map(|pending| pending.host.clone()),
            pending_key: now.pending.as_ref().map(|pending| pending.key_sha256),
            server: facts(&now.server),
            source: now.source,
        }
    }

    /// Returns until when the certificates are good.
    pub(crate) fn dates(&self) -> CertificateDates {
        let now = self.0.now();
        let last = now.authorities.iter().map(|authority| authority.not_after).max();
        CertificateDates {
            client_authority_not_after: last.map(date).unwrap_or_default(),
            server_not_after: date(now.server.not_after),
        }
    }
}

impl Inner {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the request whose certificate has come.
    fn forget_request(&self) {
        if let Err(error) = self.kept.remove_pending() {
            // Its key is recognised as the one in use.
            tracing::warn!(%error, "the key of the request was not removed");
        }
        self.now().pending = None;
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl Awaited {
    fn of(pending: &Pending) -> Self {
        let key_sha256 = pending.key.public_key_sha256();
        Self { host: pending.host.as_str().to_owned(), key_sha256 }
    }
}

impl Now {
    fn new(
        given: Given,
        pair: Pair,
        source: CertificateSource,
        pending: Option<Awaited>,
    ) -> Result<Self, LoadCertificatesError> {
        let server = describe(&pair.certificate).map_err(|source| {
            LoadCertificatesError::Describe { what: "the server's certificate", source }
        })?;
        let authorities = describe_all(&given.authorities_pem).map_err(|source| {
            LoadCertificatesError::Describe { what: "CLIENT_CA or `client.ca-file`", source }
        })?;
        Ok(Self { given, pair, source, server, authorities, pending })
    }

    fn tell(&self) {
        let CertificateInfo { sha256, not_after, .. } = &self.server;
        let (source, authorities) = (self.source, self.authorities.len());
        tracing::info!(%sha256, %not_after, ?source, authorities, "certificate of the server");
    }
}

impl Given {
    fn server_fingerprint(&self) -> Result<Option<Digest>, MakeTlsError> {
        let given = self.server.as_ref();
        given
            .map(|(pair, _)| fingerprint(&pair.certificate, "the server's certificate"))
            .transpose()
    }
}

/// Returns what a server shows that starts with this.
fn choose(
    given: &Given,
    kept: Option<KeptCertificate>,
    keep: &Kept,
    now: OffsetDateTime,
) -> Result<(Pair, CertificateSource), LoadCertificatesError> {
    let fingerprint = given.server_fingerprint()?;
    let kept = kept.filter(|kept| match kept.source {
        CertificateSource::SelfSigned => fingerprint.is_none() && is_valid(&kept.pair, now),
        _ => fingerprint.is_none() || kept.replaced == fingerprint,
    });
    if let Some(kept) = kept {
        return Ok((kept.pair, kept.source));
    }
    if let Some((pair, source)) = &given.server {
        return Ok((pair.clone(), *source));
    }
    let pair = self_signed(now)?;
    let source = CertificateSource::SelfSigned;
    let kept = KeptCertificate { pair, replaced: None, source };
    keep.set_certificate(&kept)?;
    Ok((kept.pair, source))
}

fn is_valid(pair: &Pair, now: OffsetDateTime) -> bool {
    describe(&pair.certificate).is_ok_and(|info| info.not_before <= now && now < info.not_after)
}

/// Makes a certificate for the time until one of an authority is there. No client can verify it: it
/// is known by its digest.
fn self_signed(now: OffsetDateTime) -> Result<Pair, RequestCertificateError> {
    let host = ServerHost::parse("localhost").ok_or(RequestCertificateError::NotAHost)?;
    let key = ServerKey::generate()?;
    let certificate = key.self_signed(&host, now)?;
    Ok(Pair { certificate, key: Zeroizing::new(key.pem().to_owned()) })
}

fn facts(info: &CertificateInfo) -> CertificateFacts {
    CertificateFacts {
        not_after: date(info.not_after),
        not_before: date(info.not_before),
        sans: info.sans.clone(),
        sha256: info.sha256,
        subject: info.subject.clone(),
    }
}

fn date(time: OffsetDateTime) -> String {
    // The years of a certificate have four digits.
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
