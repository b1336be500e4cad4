//! A server made for the test, with the certificates that the binary made.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::place::Place;

/// A request: `METHOD /route` and the body.
pub(crate) type Request = (String, String);

/// What a server answers.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Lines of the head, each ended by `\r\n`.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// What answers a request: its line and its body.
type Answer = Box<dyn FnMut(&str, &[u8]) -> Reply + Send>;

/// As a status: the connection breaks.
pub(crate) const BREAK: u16 = 0;

/// As a status: nothing comes, until the client goes away.
pub(crate) const SILENCE: u16 = 1;

impl Reply {
    pub(crate) fn json(status: u16, json: &Value) -> Self {
        Self { status, head: String::new(), body: json.to_string().into_bytes() }
    }
}

/// A place with a configuration for the server that runs for it.
pub(crate) struct Served {
    pub(crate) place: Place,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Served {
    pub(crate) fn start(
        mut answer: impl FnMut(&str, &str) -> (u16, String) + Send + 'static,
    ) -> Self {
        Self::start_raw(move |line, body| {
            let (status, body) = answer(line, std::str::from_utf8(body).unwrap());
            Reply { status, head: String::new(), body: body.into_bytes() }
        })
    }

    /// A server that answers with heads and bytes of all kinds.
    pub(crate) fn start_raw(answer: impl FnMut(&str, &[u8]) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place::with_certificates(listener.local_addr().unwrap().port());
        let config = config(&place, ".container-u-1.d/server-cert");
        Self::serving(listener, place, config, answer)
    }

    /// A server whose certificate is valid for so many days.
    pub(crate) fn with_server_days(
        days: &str,
        mut answer: impl FnMut(&str, &str) -> (u16, String) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place::with_certificates(listener.local_addr().unwrap().port());
        let directory = ".container-u-1.d";
        place.write("ending.cnf", "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n");
        let words = format!(
            "x509 -req -in {directory}/server-csr.pem -CA {directory}/client-ca.pem -CAkey \
             {directory}/client-ca-key.pem -days {days} -extfile ending.cnf -out ending.pem"
        );
        place.openssl(&words.split_whitespace().collect::<Vec<_>>());
        place.write("ending-key.pem", &place.read(&format!("{directory}/server-cert-key.pem")));
        let config = config(&place, "ending");
        Self::serving(listener, place, config, move |line, body| {
            let (status, body) = answer(line, std::str::from_utf8(body).unwrap());
            Reply { status, head: String::new(), body: body.into_bytes() }
        })
    }

    /// A server whose certificate is its own and for another host: `stranger.pem`, with its key in
    /// `stranger-key.pem`. The place has certificates of the client alone.
    pub(crate) fn stranger(
        mut answer: impl FnMut(&Place, &str, &str) -> (u16, String) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place::with_config(listener.local_addr().unwrap().port());
        place.good(&["create-client-cert"]);
        let words = "req -x509 -newkey rsa:2048 -nodes -keyout stranger-key.pem -out stranger.pem \
                     -subj /CN=elsewhere -days 2";
        place.openssl(&words.split_whitespace().collect::<Vec<_>>());
        let config = config(&place, "stranger");
        let there = Place::at(place.path("."));
        Self::serving(listener, place, config, move |line, body| {
            let (status, body) = answer(&there, line, std::str::from_utf8(body).unwrap());
            Reply { status, head: String::new(), body: body.into_bytes() }
        })
    }

    fn serving(
        listener: TcpListener,
        place: Place,
        config: Arc<ServerConfig>,
        answer: impl FnMut(&str, &[u8]) -> Reply + Send + 'static,
    ) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut answer): (_, Answer) = (requests.clone(), Box::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                // A client that goes away ends its connection, not the server.
                let _gone = serve(&mut stream, &mut answer, &kept);
            }
        });
        Self { place, requests }
    }

    /// A server that answers each `METHOD /route` with a status and JSON.
    pub(crate) fn fixed(answers: &[(&'static str, u16, Value)]) -> Self {
        let answers = answers.to_vec();
        Self::start(move |line, _| {
            let found = answers.iter().find(|(wanted, ..)| *wanted == line);
            found.map_or((404, String::new()), |(_, status, json)| (*status, json.to_string()))
        })
    }

    /// What was asked so far, such as `GET /image`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// A configuration with the certificate `<name>.pem` and its key `<name>-key.pem`.
fn config(place: &Place, name: &str) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(place.read(CLIENT_CA).as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![
                CertificateDer::from_pem_slice(place.read(&format!("{name}.pem")).as_bytes())
                    .unwrap(),
            ],
            PrivateKeyDer::from_pem_slice(place.read(&format!("{name}-key.pem")).as_bytes())
                .unwrap(),
        );
    Arc::new(config.unwrap())
}

fn serve(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    answer: &mut Answer,
    requests: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.split(" HTTP/").next().unwrap().to_owned();
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    let Reply { status, head, body: reply } = answer(&line, &body);
    requests.lock().unwrap().push((line, String::from_utf8_lossy(&body).into_owned()));
    if status == BREAK {
        return Ok(());
    }
    if status == SILENCE {
        return stream.read(&mut [0]).map(drop);
    }
    let length = reply.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&reply)?;
    stream.conn.send_close_notify();
    stream.flush()
}

const CLIENT_CA: &str = ".container-u-1.d/client-ca.pem";
