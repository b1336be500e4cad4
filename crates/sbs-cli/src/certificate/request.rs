//! The certificate of a server that makes its own key: the server asks, the authority here signs.

use std::path::{Path, PathBuf};

use sbs_crypto::pki::{self, ServerRequest};
use time::OffsetDateTime;

use super::{CertificateError, Certificates};
use crate::file::{self, Access, Existing};
use crate::limits::PEM_BYTES;

/// A certificate that was made for a server's request.
#[derive(Debug)]
pub(crate) struct SignedRequest {
    pub(crate) certificate: String,
    pub(crate) path: PathBuf,
    pub(crate) request: ServerRequest,
}

impl Certificates {
    /// Keeps a server's request, PEM; returns where, and what it is for.
    pub(crate) fn save_request(
        &self,
        pem: &str,
        existing: Existing,
    ) -> Result<(PathBuf, ServerRequest), CertificateError> {
        let path = self.request_file();
        let request = parse(&path, pem)?;
        self.refuse_key_of_ours()?;
        if self.request.is_none() {
            self.make_directory()?;
        }
        file::write(&path, pem.as_bytes(), Access::Everyone, existing)?;
        Ok((path, request))
    }

    /// Makes the certificate for the request that is kept, for the server at `host`.
    pub(crate) fn sign_request(
        &self,
        host: &str,
        existing: Existing,
        now: OffsetDateTime,
    ) -> Result<SignedRequest, CertificateError> {
        let source = self.request_file();
        let request = parse(&source, &file::read_text(&source, PEM_BYTES)?)?;
        self.refuse_key_of_ours()?;
        let authority = self.load_authority()?;
        let certificate = authority.sign_server_request(&request, host, now)?;
        let [_, path, _] = self.server_files();
        self.make_directory()?;
        file::write(&path, certificate.as_bytes(), Access::Everyone, existing)?;
        Ok(SignedRequest { certificate, path, request })
    }

    fn request_file(&self) -> PathBuf {
        let [default, ..] = self.server_files();
        self.request.clone().unwrap_or(default)
    }

    /// A certificate for another key beside ours would make a pair that does not fit.
    fn refuse_key_of_ours(&self) -> Result<(), CertificateError> {
        let [_, path, key] = self.server_files();
        if key.exists() { Err(CertificateError::ServerKeyIsHere { path }) } else { Ok(()) }
    }
}

fn parse(path: &Path, pem: &str) -> Result<ServerRequest, CertificateError> {
    let wrong = |source: pki::ParseRequestError| {
        let path = path.to_owned();
        CertificateError::Request { path, source }
    };
    ServerRequest::from_pem(pem).map_err(wrong)
}
