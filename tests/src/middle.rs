use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::Leaf;

/// Somebody between a client and a server, who keeps all that can be read there.
#[derive(Debug)]
pub struct ManInTheMiddle {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

/// What somebody in the middle got.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How many connections clients made.
    pub connections: usize,
    /// What clients sent, out of TLS where it ended here.
    pub bytes: Vec<u8>,
}

impl ManInTheMiddle {
    /// Ends the TLS of every client with this certificate, and answers each request as a server
    /// that is content with it.
    pub fn with_certificate(leaf: &Leaf) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>()?, key)?;
        let config = Arc::new(config);
        Self::start(move |client, seen| answer(client, &config, seen))
    }

    /// Passes on what comes from either end to the server at this port, as a router does.
    pub fn relaying_to(port: u16) -> Result<Self> {
        Self::start(move |client, seen| relay(&client, port, seen))
    }

    fn start(
        serve: impl Fn(TcpStream, &Mutex<Seen>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let seen = Arc::<Mutex<Seen>>::default();
        let (kept, serve) = (Arc::clone(&seen), Arc::new(serve));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                lock(&kept).connections += 1;
                let (kept, serve) = (Arc::clone(&kept), Arc::clone(&serve));
                // Either end may go away when it likes.
                thread::spawn(move || drop(serve(client, &kept)));
            }
        });
        Ok(Self { port, seen })
    }

    /// Returns the port that clients are led to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns what was seen so far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

fn answer(client: TcpStream, config: &Arc<ServerConfig>, seen: &Mutex<Seen>) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, client);
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        lock(seen).bytes.extend(piece.iter().take(read));
        request.extend(piece.iter().take(read));
        if is_whole(&request) {
            request.clear();
            stream.write_all(REPLY)?;
        }
    }
}

/// Tells whether this is a request of HTTP/1.1 with its body, whose length its head tells.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length
        .is_none_or(|length| length.trim().parse().is_ok_and(|length: usize| body.len() >= length))
}

fn relay(client: &TcpStream, port: u16, seen: &Mutex<Seen>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ended = io::copy(&mut from, &mut to);
        let _closed = to.shutdown(Shutdown::Both);
    });
    let mut piece = [0; 4096];
    loop {
        let read = (&*client).read(&mut piece)?;
        let bytes: Vec<u8> = piece.iter().take(read).copied().collect();
        if bytes.is_empty() {
            return server.shutdown(Shutdown::Write);
        }
        lock(seen).bytes.extend(&bytes);
        (&server).write_all(&bytes)?;
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 15\r\n\r\n{\"status\":\"OK\"}";
