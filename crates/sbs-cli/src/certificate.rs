//! The certificates of client and server: where they are, and how they come to be.
//!
//! Files and names are those of the original's client, so that both can share a directory.

use std::path::{Path, PathBuf};

use sbs_crypto::pki::{self, CertificateAuthority, DescribeError, IssueError, Issued, LoadError};
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::config::{self, Config, OpenConfigError};
use crate::file::{self, Access, Existing, ReadFileError, WriteFileError};
use crate::limits::PEM_BYTES;

mod remove;
mod request;

use self::remove::RemoveError;
pub(crate) use self::remove::Removed;
pub(crate) use self::request::SignedRequest;

/// Where the certificates and keys are.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// The certificate of the authority that issues all others.
    pub(crate) authority: PathBuf,
    authority_key: PathBuf,
    /// The client's certificate followed by its key.
    pub(crate) client: PathBuf,
    /// `<client>.d`, which these commands make.
    default_directory: PathBuf,
    /// Where everything else is: the directory of CERTPATH, or the default.
    directory: PathBuf,
    /// The server's request for a certificate, where CSRPATH names it.
    request: Option<PathBuf>,
    supplied_authority: bool,
    supplied_client: bool,
    /// Every path that the configuration names.
    supplied_paths: Vec<PathBuf>,
}

/// What to do with a certificate that is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Renewal {
    /// Leave it as it is.
    Keep,
    /// Make a new one, with a new key, under the same authority.
    Renew,
}

/// What became of a wish for certificates.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// They are there already.
    Found,
    /// They were made.
    Made,
    /// They were made in the place of those for another host name.
    Remade { old_names: String },
    /// They were made in the place of those that were asked to be renewed.
    Renewed,
}

impl Certificates {
    /// Says where the certificates are that a configuration means.
    pub(crate) fn of(config: &Config) -> Result<Self, OpenConfigError> {
        let supplied = config.path("CLIENT_CRT_KEY")?;
        let supplied_client = supplied.is_some();
        let client = match &supplied {
            Some(path) => path.clone(),
            None => config.certificate_stem()?.into(),
        };
        let mut default_directory = client.clone().into_os_string();
        default_directory.push(".d");
        let default_directory = PathBuf::from(default_directory);
        let directory = config.text("CERTPATH")?.map(directory_in);
        let directory = directory.unwrap_or_else(|| default_directory.clone());
        let (authority, authority_key) = (config.path("CAPATH")?, config.path("CAKEYPATH")?);
        let supplied_authority = authority.is_some() && authority_key.is_some();
        let (request, certificate) = (config.path("CSRPATH")?, config.path("CERTPATH")?);
        let named = [&supplied, &authority, &authority_key, &request, &certificate];
        let supplied_paths = named.into_iter().flatten().cloned().collect();
        Ok(Self {
            authority: authority.unwrap_or_else(|| directory.join("client-ca.pem")),
            authority_key: authority_key.unwrap_or_else(|| directory.join("client-ca-key.pem")),
            client,
            default_directory,
            directory,
            request,
            supplied_authority,
            supplied_client,
            supplied_paths,
        })
    }

    /// Makes a certificate authority, unless one is there or supplied, and a client certificate.
    pub(crate) fn create_client(
        &self,
        renewal: Renewal,
        now: OffsetDateTime,
    ) -> Result<Outcome, CertificateError> {
        let outcome = match (self.find_client_set()?, renewal) {
            (true, Renewal::Keep) => return Ok(Outcome::Found),
            (true, Renewal::Renew) => Outcome::Renewed,
            (false, _) => Outcome::Made,
        };
        if outcome == Outcome::Renewed && !self.in_directory("client-cert-key.pem").exists() {
            return Err(CertificateError::Supplied { path: self.client.clone() });
        }
        self.make_directory()?;
        let kept =
            outcome == Outcome::Renewed || self.supplied_authority && self.authority.exists();
        let authority = if kept {
            self.load_authority()?
        } else {
            let authority = CertificateAuthority::create(now)?;
            write(&self.authority, authority.certificate_pem(), Access::Everyone)?;
            write(&self.authority_key, authority.key_pem(), Access::Owner)?;
            authority
        };
        let Issued { certificate_pem, key_pem, request_pem } = authority.issue_client(now)?;
        let bundle = format!("{certificate_pem}{}", authority.certificate_pem());
        let both = Zeroizing::new(format!("{certificate_pem}{}", *key_pem));
        write(&self.in_directory("client-csr.pem"), &request_pem, Access::Everyone)?;
        write(&self.in_directory("client-cert.pem"), &certificate_pem, Access::Everyone)?;
        write(&self.in_directory("client-cert-key.pem"), &key_pem, Access::Owner)?;
        write(&self.in_directory("client-cert-bundle.pem"), &bundle, Access::Everyone)?;
        write(&self.client, &both, Access::Owner)?;
        Ok(outcome)
    }

    /// Makes the server's certificate for `host`.
    pub(crate) fn create_server(
        &self,
        host: &str,
        renewal: Renewal,
        now: OffsetDateTime,
    ) -> Result<Outcome, CertificateError> {
        let [request, certificate, key] = self.server_files();
        let outcome = if find_set(&[&request, &certificate, &key])? {
            let described = pki::describe(&file::read_text(&certificate, PEM_BYTES)?);
            let described = described.map_err(|source| CertificateError::Describe {
                path: certificate.clone(),
                source,
            })?;
            let same = described.sans.len() == 1 && described.is_for_host(host);
            match (same, renewal) {
                (true, Renewal::Keep) => return Ok(Outcome::Found),
                (true, Renewal::Renew) => Outcome::Renewed,
                (false, _) => Outcome::Remade { old_names: described.sans.join(", ") },
            }
        } else {
            Outcome::Made
        };
        let issued = self.load_authority()?.issue_server(host, now)?;
        self.make_directory()?;
        write(&request, &issued.request_pem, Access::Everyone)?;
        write(&key, &issued.key_pem, Access::Owner)?;
        write(&certificate, &issued.certificate_pem, Access::Everyone)?;
        Ok(outcome)
    }

    /// Returns the certificate of the authority, PEM.
    pub(crate) fn authority_certificate(&self) -> Result<String, CertificateError> {
        Ok(file::read_text(&self.authority, PEM_BYTES)?)
    }

    /// Returns the client's certificate without its key, PEM.
    pub(crate) fn client_certificate(&self) -> Result<String, CertificateError> {
        let both = Zeroizing::new(file::read_text(&self.client, PEM_BYTES)?);
        let certificate = both.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
        match certificate {
            Some((body, _)) => Ok(format!("{BEGIN}{body}{END}\n")),
            None => Err(CertificateError::NotACertificate { path: self.client.clone() }),
        }
    }

    /// Returns the server's certificate and key, PEM; `None` where the server makes its own key.
    pub(crate) fn server_pair(
        &self,
    ) -> Result<Option<(String, Zeroizing<String>)>, CertificateError> {
        let [request, certificate, key] = self.server_files();
        let own_key = self.request.as_ref().unwrap_or(&request).exists() && !key.exists();
        if own_key {
            return Ok(None);
        }
        let key = file::read_text(&key, PEM_BYTES).map(Zeroizing::new)?;
        Ok(Some((file::read_text(&certificate, PEM_BYTES)?, key)))
    }

    /// Returns the server's certificate, PEM.
    pub(crate) fn server_certificate(&self) -> Result<String, CertificateError> {
        let [_, certificate, _] = self.server_files();
        Ok(file::read_text(&certificate, PEM_BYTES)?)
    }

    /// Returns the file that remembers the `RUNTIME_TYPE` that `init` was called with.
    pub(crate) fn runtime_type_file(&self) -> Result<PathBuf, WriteFileError> {
        self.make_directory()?;
        Ok(self.in_directory("sbsRuntime_Type"))
    }

    /// Returns the file of the OpenPGP key that signs registration definitions.
    pub(crate) fn vendor_key_file(&self) -> Result<PathBuf, WriteFileError> {
        self.make_directory()?;
        Ok(self.in_directory("vendor-key.pgp"))
    }

    /// Tells whether every client file is there; an error names those that are not if some are.
    fn find_client_set(&self) -> Result<bool, CertificateError> {
        // As in the original, nothing else is needed.
        let needed = [&self.client, &self.authority, &self.authority_key];
        if needed.iter().all(|path| path.exists()) {
            return Ok(true);
        }
        let names =
            ["client-csr.pem", "client-cert.pem", "client-cert-key.pem", "client-cert-bundle.pem"];
        let inner = names.map(|name| self.in_directory(name));
        let mut files: Vec<&PathBuf> = inner.iter().chain([&self.client]).collect();
        if !(self.supplied_authority && self.authority.exists() && self.authority_key.exists()) {
            files.extend([&self.authority, &self.authority_key]);
        }
        find_set(&files)
    }

    fn load_authority(&self) -> Result<CertificateAuthority, CertificateError> {
        let certificate = file::read_text(&self.authority, PEM_BYTES)?;
        let key = Zeroizing::new(file::read_text(&self.authority_key, PEM_BYTES)?);
        Ok(CertificateAuthority::from_pem(&certificate, &key)?)
    }

    fn server_files(&self) -> [PathBuf; 3] {
        ["server-csr.pem", "server-cert.pem", "server-cert-key.pem"]
            .map(|name| self.in_directory(name))
    }

    /// Makes the directory. One of the user's own keeps the mode that it has.
    fn make_directory(&self) -> Result<(), WriteFileError> {
        file::make_directory(&self.directory)?;
        if self.directory == self.default_directory {
            // One that the original's client made is open to all.
            file::close_directory(&self.directory)?;
        }
        Ok(())
    }

    fn in_directory(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Returns the directory that a path names, of which the original takes all before the last slash.
fn directory_in(path: &str) -> PathBuf {
    match path.rsplit_once('/') {
        None => PathBuf::from("."),
        Some(("", _)) => PathBuf::from("/"),
        Some((directory, _)) => config::expand(Path::new(directory)),
    }
}

/// Tells whether all files are there; an error names those that are not if only some are.
fn find_set(files: &[&PathBuf]) -> Result<bool, CertificateError> {
    let (found, missing): (Vec<_>, Vec<_>) = files.iter().partition(|path| path.exists());
    match (found.is_empty(), missing.is_empty()) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => {
            let shown = |paths: Vec<&&PathBuf>| {
                paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
            };
            Err(CertificateError::Partial { found: shown(found), missing: shown(missing) })
        }
    }
}

fn write(path: &Path, text: &str, access: Access) -> Result<(), WriteFileError> {
    file::write(path, text.as_bytes(), access, Existing::Replace)
}

/// Why there are no certificates.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum CertificateError {
    #[error("cannot read the certificate in `{}`", path.display())]
    Describe { path: PathBuf, source: DescribeError },

    #[error("cannot make a certificate")]
    Issue(#[from] IssueError),

    #[error("cannot use the certificate authority")]
    LoadAuthority(#[from] LoadError),

    #[error("no certificate in PEM form in `{}`", path.display())]
    NotACertificate { path: PathBuf },

    #[error("only a part of a set of certificates is there: missing {missing}; found {found}")]
    Partial { found: String, missing: String },

    #[error(transparent)]
    Read(#[from] ReadFileError),

    #[error(transparent)]
    Remove(#[from] RemoveError),

    #[error("cannot use the server's request for a certificate in `{}`", path.display())]
    Request { path: PathBuf, source: pki::ParseRequestError },

    #[error("the server's key was made here, beside `{}`; it has no request to sign", path.display())]
    ServerKeyIsHere { path: PathBuf },

    #[error("`{}` was not made here; renew it where it comes from", path.display())]
    Supplied { path: PathBuf },

    #[error(transparent)]
    Write(#[from] WriteFileError),
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
