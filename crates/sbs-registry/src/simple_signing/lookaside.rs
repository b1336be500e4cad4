//! Signatures in a tree of files, which a web server may serve.
//!
//! The signatures of an image are `<base>/<repository>@sha256=<hex>/signature-<n>`, with `n` from 1 on
//! and without gaps: whoever reads stops at the first that is not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use sbs_crypto::openpgp::{MAX_SIGNED_BYTES, OpenPgpSigningKey};
use sbs_proto::{Digest, ImageReference, RegistryHost, Repository};
use thiserror::Error;
use time::OffsetDateTime;
use url::Url;

use super::{MAX_SIGNATURES, Published, SignImageError, is_there, sign};
use crate::auth::{Access, Login, Scope};
use crate::transport::Call;
use crate::{Inner, RegistryError, Session};

/// Where signatures are read that no registry keeps.
#[derive(Clone, Debug)]
pub enum Lookaside {
    /// In a directory of this machine.
    Directory(SignatureTree),
    /// At a web server, below this https URL; no credentials are sent.
    Web(Url),
}

/// A directory of signatures on this machine. Its methods block.
#[derive(Clone, Debug)]
pub struct SignatureTree(PathBuf);

impl SignatureTree {
    /// Takes the base directory, which is made when it is written to.
    pub fn new(base: PathBuf) -> Self {
        Self(base)
    }

    /// Signs an image and adds the signature, unless there is one by this key that says the same.
    ///
    /// A signature is there whole or not at all, after a crash, too. Two writers at once, which may be
    /// on different machines, add one each.
    pub fn publish(
        &self,
        key: &OpenPgpSigningKey,
        image: &ImageReference,
        digest: Digest,
        at: OffsetDateTime,
    ) -> Result<Published, SignImageError> {
        let signature = sign(key, image, digest, at)?;
        if is_there(&self.read(image.repository(), digest)?, key, image, digest, at)? {
            return Ok(Published::Before);
        }
        self.add(image.repository(), digest, &signature)?;
        let kept = is_there(&self.read(image.repository(), digest)?, key, image, digest, at)?;
        if kept { Ok(Published::Now) } else { Err(LookasideError::NotKept.into()) }
    }

    /// Returns the signatures of an image, in their order.
    pub fn read(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Vec<Vec<u8>>, LookasideError> {
        let directory = self.0.join(directory(repository, digest));
        let mut signatures = Vec::new();
        loop {
            let path = directory.join(file(signatures.len() + 1));
            let failed = |source| LookasideError::Read { path: path.clone(), source };
            let open = match File::open(&path) {
                Ok(open) => open,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(signatures),
                Err(error) => return Err(failed(error)),
            };
            let mut bytes = Vec::new();
            open.take(MAX_SIGNED_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
            push(&mut signatures, bytes)?;
        }
    }

    fn add(
        &self,
        repository: &Repository,
        digest: Digest,
        signature: &[u8],
    ) -> Result<(), LookasideError> {
        let directory = self.0.join(directory(repository, digest));
        let failed = |source| LookasideError::Write { path: directory.clone(), source };
        fs::create_dir_all(&directory).map_err(failed)?;
        let temporary = Temporary::write(&directory, signature).map_err(failed)?;
        for number in 1..=MAX_SIGNATURES {
            // A link is made whole, and not where there is something already.
            match fs::hard_link(&temporary.0, directory.join(file(number))) {
                Ok(()) => return sync_up_to(&directory, &self.0).map_err(failed),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(LookasideError::TooMany)
    }
}

impl Lookaside {
    /// Takes an address: that of a web server, https without user name, query and fragment, or
    /// `file:///path` for a directory of this machine.
    pub fn at(address: &str) -> Result<Self, LookasideError> {
        let base = Url::parse(address).map_err(|_| LookasideError::Base)?;
        if base.scheme() == "file" && base.host().is_none() {
            let path = base.to_file_path().map_err(|()| LookasideError::Base)?;
            return Ok(Self::Directory(SignatureTree::new(path)));
        }
        if is_plain(&base) { Ok(Self::Web(base)) } else { Err(LookasideError::Base) }
    }

    /// Returns where this is, for people.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Directory(SignatureTree(base)) => base.display().to_string(),
            Self::Web(base) => base.to_string(),
        }
    }

    /// Returns the signatures of an image.
    pub(super) async fn signatures(
        &self,
        session: &Session,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Vec<Vec<u8>>, LookasideError> {
        match self {
            Self::Directory(tree) => {
                let (tree, repository) = (tree.clone(), repository.clone());
                let read = move || tree.read(&repository, digest);
                let read = tokio::task::spawn_blocking(read).await;
                read.map_err(|_| RegistryError::Internal("a task that reads files"))?
            }
            Self::Web(base) => fetch(session, base, repository, digest).await,
        }
    }
}

/// Why a tree of signatures could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LookasideError {
    /// The base is neither an https URL without user name, query and fragment nor a directory.
    #[error(
        "not the address of a lookaside; give an https URL without user name, query and fragment, or \
         `file:///path`"
    )]
    Base,

    /// What was written is not there.
    #[error("a signature that was written is not there; does someone else write there?")]
    NotKept,

    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// There are more signatures than are read, or one is longer than is read.
    #[error(
        "the lookaside has more than {MAX_SIGNATURES} signatures for an image, or one of more than \
         {} KiB",
        MAX_SIGNED_BYTES / 1024
    )]
    TooMany,

    /// The web server did not answer as it should.
    #[error("the lookaside's web server does not answer as it should")]
    Web(#[from] RegistryError),

    /// A directory cannot be written.
    #[error("cannot write to `{}`", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A file that is removed again.
struct Temporary(PathBuf);

impl Temporary {
    fn write(directory: &Path, bytes: &[u8]) -> io::Result<Self> {
        let name = format!(".{}", URL_SAFE_NO_PAD.encode(sbs_crypto::random_bytes::<16>()));
        let path = directory.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let temporary = Self(path);
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _left_behind = fs::remove_file(&self.0);
    }
}

/// Fetches the signatures that a web server has, one after the other.
async fn fetch(
    session: &Session,
    base: &Url,
    repository: &Repository,
    digest: Digest,
) -> Result<Vec<Vec<u8>>, LookasideError> {
    let session = session.elsewhere(base).ok_or(LookasideError::Base)?;
    let above = base.path().trim_end_matches('/');
    let directory = directory(repository, digest);
    let mut signatures = Vec::new();
    loop {
        let mut url = base.clone();
        url.set_path(&format!("{above}/{directory}/{}", file(signatures.len() + 1)));
        let call = Call::new(Method::GET, url, Scope { repository, access: Access::Pull });
        match session.fetch(&call, "signature", MAX_SIGNED_BYTES as u64).await? {
            Some(bytes) => push(&mut signatures, bytes)?,
            None => return Ok(signatures),
        }
    }
}

impl Session {
    /// Returns a session with the server of a plain https URL, without credentials.
    fn elsewhere(&self, base: &Url) -> Option<Self> {
        let host = format!("{}:{}", base.host_str()?, base.port_or_known_default()?);
        let inner = Inner {
            base: base.clone(),
            client: self.0.client.clone(),
            log: Arc::clone(&self.0.log),
            login: Login::new(None),
            registry: RegistryHost::parse(&host).ok()?,
            scope_prefix: String::new(),
        };
        is_plain(base).then(|| Self(Arc::new(inner)))
    }
}

fn is_plain(base: &Url) -> bool {
    base.scheme() == "https"
        && base.host_str().is_some()
        && base.username().is_empty()
        && base.password().is_none()
        && base.query().is_none()
        && base.fragment().is_none()
}

fn push(signatures: &mut Vec<Vec<u8>>, signature: Vec<u8>) -> Result<(), LookasideError> {
    if signatures.len() == MAX_SIGNATURES || signature.len() > MAX_SIGNED_BYTES {
        return Err(LookasideError::TooMany);
    }
    signatures.push(signature);
    Ok(())
}

fn directory(repository: &Repository, digest: Digest) -> String {
    format!("{repository}@sha256={}", digest.to_hex())
}

fn file(number: usize) -> String {
    format!("signature-{number}")
}

/// Makes the entries of a directory, and of those above it down from `base`, outlast a crash.
fn sync_up_to(directory: &Path, base: &Path) -> io::Result<()> {
    for directory in directory.ancestors() {
        File::open(directory)?.sync_all()?;
        if directory == base {
            break;
        }
    }
    Ok(())
}
