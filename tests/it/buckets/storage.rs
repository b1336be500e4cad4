//! A real S3 server (s3s on a directory), over TLS, in the test's own process.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use sbs_crypto::random_bytes;
use sbs_tests::{Authority, World};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// A storage with one bucket, which takes one access key. It ends when dropped.
pub(super) struct Storage {
    acceptor: TlsAcceptor,
    address: SocketAddr,
    directory: PathBuf,
    runtime: Runtime,
    /// The secret of the access key: searched for where it must not be.
    pub(super) secret: String,
    /// Holds the port while nothing listens there.
    socket: Option<TcpSocket>,
}

impl Storage {
    /// The name of the bucket.
    pub(super) const BUCKET: &str = "evidence";

    /// Starts a storage that keeps its objects in a new folder of `directory`.
    pub(super) fn start(directory: &Path, authority: &Authority) -> Result<Self> {
        let mut storage = Self::prepare(directory, authority)?;
        storage.listen()?;
        Ok(storage)
    }

    /// Makes a storage that is down, until [`listen`](Self::listen): connections are refused.
    pub(super) fn prepare(directory: &Path, authority: &Authority) -> Result<Self> {
        let directory = directory.join("storage");
        fs::create_dir_all(directory.join(Self::BUCKET))?;
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        Ok(Self {
            acceptor: acceptor(authority)?,
            address: socket.local_addr()?,
            directory,
            runtime: Runtime::new()?,
            secret: format!("canary-{}", hex::encode(random_bytes::<12>())),
            socket: Some(socket),
        })
    }

    /// Has a storage that is down answer.
    pub(super) fn listen(&mut self) -> Result<()> {
        let socket = self.socket.take().context("the storage runs")?;
        let files = s3s_fs::FileSystem::new(&self.directory);
        let files = files.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(Self::KEY_ID, &*self.secret));
        let _inside = self.runtime.enter();
        let listener = socket.listen(64)?;
        self.runtime.spawn(serve(listener, self.acceptor.clone(), builder.build()));
        Ok(())
    }

    /// Configures the command line for this bucket; `purpose` is `MANIFEST` or `STATE`.
    pub(super) fn configure(&self, world: &World, purpose: &str) -> Result<()> {
        for (key, value) in [
            ("BUCKET_NAME", Self::BUCKET),
            ("COS_ENDPOINT", &format!("https://{}", self.address)),
            ("COS_ACCESS_KEY_ID", Self::KEY_ID),
            ("COS_SECRET_ACCESS_KEY", &self.secret),
        ] {
            world.sbs.set(&format!("{purpose}_{key}"), value)?;
        }
        Ok(())
    }

    /// Returns the content of an object, if it is there.
    pub(super) fn object(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.directory.join(Self::BUCKET).join(name);
        Ok(if path.exists() { Some(fs::read(path)?) } else { None })
    }

    /// Returns the names of the objects, sorted.
    pub(super) fn objects(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.directory.join(Self::BUCKET))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    const KEY_ID: &str = "AKIDTESTTESTTESTTEST";
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, service: S3Service) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, service) = (acceptor.clone(), service.clone());
        tokio::spawn(async move {
            // Whoever does not trust the certificate, or goes away, is told of by the server.
            if let Ok(stream) = acceptor.accept(stream).await {
                let served =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                drop(served);
            }
        });
    }
}

fn acceptor(authority: &Authority) -> Result<TlsAcceptor> {
    let leaf = authority.issue_loopback("storage")?;
    let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
