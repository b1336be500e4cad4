//! The certificates that the operator gives: by the environment, and by files that may change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use sbs_crypto::pki::RevocationList;
use sbs_proto::{CertificateSource, Digest};
use zeroize::Zeroizing;

use crate::certificates::error::LoadCertificatesError;
use crate::config::{ClientSettings, TlsSettings};
use crate::store::{read_linked_secret_file, read_small_file};
use crate::tls::{Clients, MakeTlsError, Pair, certificates, fingerprint, revocation_lists};

/// Where certificates come from.
#[derive(Debug)]
pub(crate) struct Sources {
    /// `CLIENT_CA`, PEM.
    pub(crate) client_ca: String,
    /// `CLIENT_CRT`, PEM.
    pub(crate) client_certificate: Option<String>,
    /// `SERVER_CRT` with `SERVER_KEY`.
    pub(crate) server: Option<Pair>,
    pub(crate) client: ClientSettings,
    pub(crate) tls: TlsSettings,
}

/// What was given, as it is now.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// The same as PEM.
    pub(super) authorities_pem: String,
    pub(super) clients: Clients,
    pub(super) lists: Vec<RevocationList>,
    pub(super) server: Option<(Pair, CertificateSource)>,
}

impl Sources {
    /// Loads everything; nothing is used unless all of it is good.
    pub(super) fn load(&self) -> Result<Given, LoadCertificatesError> {
        let mut authorities_pem = self.client_ca.clone();
        if let Some(path) = &self.client.ca_file {
            authorities_pem.push('\n');
            authorities_pem.push_str(&read_text(path)?);
        }
        let authorities = certificates(&authorities_pem, "CLIENT_CA or `client.ca-file`")?;
        let lists = self.client.crl_file.as_deref().map(read_lists).transpose()?;
        let lists = lists.unwrap_or_default();
        let clients = Clients::new(&authorities, &lists, self.pinned()?)?;
        Ok(Given { authorities, authorities_pem, clients, lists, server: self.server()? })
    }

    fn server(&self) -> Result<Option<(Pair, CertificateSource)>, LoadCertificatesError> {
        let TlsSettings { certificate_file: Some(certificate), key_file: Some(key) } = &self.tls
        else {
            return Ok(self.server.clone().map(|pair| (pair, CertificateSource::Environment)));
        };
        let bytes = read_linked_secret_file(key)?;
        let text = str::from_utf8(&bytes)
            .map_err(|_| LoadCertificatesError::NotText { path: key.clone() })?;
        let pair =
            Pair { certificate: read_text(certificate)?, key: Zeroizing::new(text.to_owned()) };
        Ok(Some((pair, CertificateSource::Files)))
    }

    fn pinned(&self) -> Result<Option<Digest>, MakeTlsError> {
        if !self.client.pin_certificate {
            return Ok(None);
        }
        let pem = self.client_certificate.as_deref().ok_or(MakeTlsError::NothingToPin)?;
        fingerprint(pem, "CLIENT_CRT").map(Some)
    }

    /// Returns what changes when one of the files does.
    pub(super) fn version(&self) -> Version {
        let TlsSettings { certificate_file, key_file } = &self.tls;
        let files = [certificate_file, key_file, &self.client.ca_file, &self.client.crl_file];
        Version(files.map(|path| {
            let metadata = fs::metadata(path.as_ref()?).ok()?;
            Some(FileVersion {
                place: (metadata.dev(), metadata.ino()),
                size: metadata.size(),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        }))
    }
}

/// Which versions of the files there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Version([Option<FileVersion>; 4]);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FileVersion {
    /// Device and inode.
    place: (u64, u64),
    size: u64,
    /// When content, owner or mode changed last; unlike the time of the content nobody can set it.
    changed: (i64, i64),
}

fn read_lists(path: &Path) -> Result<Vec<RevocationList>, LoadCertificatesError> {
    Ok(revocation_lists(&read_text(path)?, "`client.crl-file`")?)
}

fn read_text(path: &Path) -> Result<String, LoadCertificatesError> {
    let at = |source| LoadCertificatesError::File { path: path.to_owned(), source };
    let bytes = read_small_file(path).map_err(at)?;
    let bytes = bytes.ok_or_else(|| at(std::io::ErrorKind::NotFound.into()))?;
    let text = str::from_utf8(&bytes);
    text.map(ToOwned::to_owned)
        .map_err(|_| LoadCertificatesError::NotText { path: path.to_owned() })
}
