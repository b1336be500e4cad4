//! A TLS server that keeps what it is sent and answers with bytes given beforehand.

use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use sbs_client::{Client, ClientBuilder, Ready};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What the server answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes, as they are.
    Bytes(Vec<u8>),
    /// These bytes, then zeros until the client goes away.
    Endless(Vec<u8>),
    /// Nothing; the connection stays open.
    Silence,
    /// These bytes, then the end of the connection without a TLS farewell.
    Cut(Vec<u8>),
    /// These bytes, then a zero now and then until the client goes away.
    Drip(Vec<u8>),
}

/// The running server.
pub(crate) struct Double {
    pub(crate) authority: Authority,
    pub(crate) client: Issued,
    pub(crate) port: u16,
    requests: Receiver<String>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Test CA");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, names: &[&str], change: impl Fn(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

impl Issued {
    pub(crate) fn both(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

impl Double {
    /// Starts a server for `localhost` that answers every request alike.
    pub(crate) fn start(answer: Answer) -> Self {
        let authority = Authority::new();
        let server = authority.issue(&["localhost"], |_| ());
        Self::start_as(authority, &server, answer)
    }

    /// Starts a server for `localhost` that answers each request, which is given as text, as it is
    /// told.
    pub(crate) fn start_with(answers: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        let authority = Authority::new();
        let server = authority.issue(&["localhost"], |_| ());
        Self::start_answering(authority, &server, answers)
    }

    /// Starts a server with a certificate of one's own.
    pub(crate) fn start_as(authority: Authority, server: &Issued, answer: Answer) -> Self {
        Self::start_answering(authority, server, move |_| answer.clone())
    }

    fn start_answering(
        authority: Authority,
        server: &Issued,
        mut answers: impl FnMut(&str) -> Answer + Send + 'static,
    ) -> Self {
        let config = server_config(&authority, server);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                // A client that goes away ends its connection, not the server.
                let _gone =
                    serve(StreamOwned::new(connection, stream.unwrap()), &mut answers, &sender);
            }
        });
        let client = authority.issue(&[], |_| ());
        Self { authority, client, port, requests }
    }

    /// Answers with status 200 and a JSON text.
    pub(crate) fn json(json: &str) -> Self {
        Self::start(Answer::Bytes(reply("200 OK", json)))
    }

    /// Returns a client that this server accepts.
    pub(crate) fn client(&self) -> Client {
        self.client_as(&self.authority.pem, &self.client.both())
    }

    pub(crate) fn client_as(&self, authority: &str, identity: &str) -> Client {
        self.builder_as(authority, identity).build().unwrap()
    }

    /// Returns what makes a client that this server accepts.
    pub(crate) fn builder(&self) -> ClientBuilder<Ready> {
        self.builder_as(&self.authority.pem, &self.client.both())
    }

    fn builder_as(&self, authority: &str, identity: &str) -> ClientBuilder<Ready> {
        Client::builder("localhost", self.port)
            .and_then(|builder| builder.trust(authority.as_bytes()))
            .and_then(|builder| builder.identity(identity.as_bytes()))
            .map(|builder| builder.with_timeout(Duration::from_secs(2)).with_manifest_limit(4096))
            .unwrap()
    }

    /// Returns the next request as text.
    pub(crate) fn request(&self) -> String {
        self.requests.recv_timeout(Duration::from_secs(5)).unwrap()
    }

    /// Tells whether nothing was sent.
    pub(crate) fn saw_nothing(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}

/// Makes an HTTP answer.
pub(crate) fn reply(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

fn server_config(authority: &Authority, server: &Issued) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap(),
        );
    Arc::new(config.unwrap())
}

fn serve(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    answers: &mut impl FnMut(&str) -> Answer,
    requests: &Sender<String>,
) -> std::io::Result<()> {
    let request = String::from_utf8(read_request(&mut stream)?).unwrap();
    let answer = answers(&request);
    let _unread = requests.send(request);
    match answer {
        Answer::Bytes(bytes) => {
            stream.write_all(&bytes)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
        Answer::Endless(bytes) => {
            stream.write_all(&bytes)?;
            loop {
                stream.write_all(&[b'0'; 16 * 1024])?;
            }
        }
        Answer::Silence => stream.read(&mut [0]).map(drop),
        Answer::Cut(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()
        }
        Answer::Drip(bytes) => {
            stream.write_all(&bytes)?;
            loop {
                stream.write_all(b"0")?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn read_request(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let head = String::from_utf8(request.clone()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    request.extend(body);
    Ok(request)
}
