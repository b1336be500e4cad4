//! Debian's `docker-registry`, and a proxy in front of it that cuts connections.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use super::{Authority, PASSWORD, USER, run};

/// A registry on `127.0.0.1`, with TLS and one user. It ends when dropped.
pub struct RealRegistry {
    child: Child,
    directory: TempDir,
    port: u16,
}

impl RealRegistry {
    pub async fn start() -> Self {
        for _ in 0..5 {
            if let Some(started) = Self::try_start().await {
                return started;
            }
        }
        panic!("docker-registry does not start; is it installed?");
    }

    /// Returns `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns a directory for `skopeo --cert-dir`.
    pub fn certificates(&self) -> PathBuf {
        self.directory.path().join("certs")
    }

    /// Returns the options with which skopeo gets at this registry.
    pub fn skopeo_options(&self) -> [String; 2] {
        [
            format!("--cert-dir={}", self.certificates().display()),
            format!("--creds={USER}:{PASSWORD}"),
        ]
    }

    /// Returns the digest of an image, as skopeo computes it.
    pub fn skopeo_digest(&self, image: &str) -> String {
        let [certificates, credentials] = self.skopeo_options();
        let image = format!("docker://{}/{image}", self.host());
        let options = ["inspect", "--no-tags", "--format={{.Digest}}", &certificates, &credentials];
        run("skopeo", &[&options[..], &[image.as_str()]].concat()).trim().to_owned()
    }

    async fn try_start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (certificate, key) = Authority::get().identity("127.0.0.1");
        std::fs::create_dir(at("certs")).unwrap();
        std::fs::write(at("certs/ca.crt"), &Authority::get().ca_pem).unwrap();
        std::fs::write(at("server.pem"), certificate).unwrap();
        std::fs::write(at("server.key"), key).unwrap();
        std::fs::write(at("users"), run("htpasswd", &["-Bbn", USER, PASSWORD])).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = serde_json::json!({
            "version": 0.1,
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": at("data") } },
            "http": {
                "addr": format!("127.0.0.1:{port}"),
                "secret": "s",
                "tls": { "certificate": at("server.pem"), "key": at("server.key") },
            },
            "auth": { "htpasswd": { "realm": "r", "path": at("users") } },
        });
        std::fs::write(at("config.yml"), config.to_string()).unwrap();
        let child = start(&at("config.yml"));
        let mut started = Self { child, directory, port };
        for _ in 0..200 {
            if TcpStream::connect(started.host()).await.is_ok() {
                return Some(started);
            }
            // Another process took the port in between.
            if started.child.try_wait().unwrap().is_some() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        None
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn start(config: &Path) -> Child {
    #[expect(clippy::disallowed_methods, reason = "a server for tests is no tool of a build")]
    let mut command = std::process::Command::new("docker-registry");
    command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// A proxy that ends connections after a number of bytes in one direction.
pub struct CuttingProxy {
    port: u16,
    received: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl CuttingProxy {
    /// Starts a proxy that ends the first `cuts` connections after `cut_after` bytes from the
    /// client each.
    pub async fn start(to: String, cut_after: u64, cuts: u64) -> Self {
        Self::run(to, cuts, [cut_after, u64::MAX]).await
    }

    /// Starts a proxy that ends the first `cuts` connections after `cut_after` bytes from the
    /// server each.
    pub async fn start_down(to: String, cut_after: u64, cuts: u64) -> Self {
        Self::run(to, cuts, [u64::MAX, cut_after]).await
    }

    async fn run(to: String, cuts: u64, limits: [u64; 2]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (received, connections) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counters = (Arc::clone(&received), Arc::clone(&connections));
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let count = counters.1.fetch_add(1, Ordering::Relaxed);
                let limits = if count < cuts { limits } else { [u64::MAX; 2] };
                tokio::spawn(forward(client, to.clone(), limits, Arc::clone(&counters.0)));
            }
        });
        Self { port, received, connections, accepting }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the bytes that came from clients, TLS included.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(client: TcpStream, to: String, limits: [u64; 2], received: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cut = Arc::<AtomicBool>::default();
    let [up, down] = limits;
    let unread = Arc::<AtomicU64>::default();
    let down = tokio::spawn(copy(from_server, to_client, down, (unread, Arc::clone(&cut))));
    let to_server = copy(from_client, to_server, up, (received, Arc::clone(&cut)));
    // Whichever ends first ends the other. The client learns of it once the server is done with
    // what it got: `to_client` is closed with `down`.
    drop(to_server.await);
    let _ended = down.await;
}

/// Copies until the end, or until so many bytes were copied; from a cut on nothing arrives.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    limit: u64,
    (count, cut): (Arc<AtomicU64>, Arc<AtomicBool>),
) -> OwnedReadHalf {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = limit;
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { break };
        count.fetch_add(read as u64, Ordering::Relaxed);
        if !cut.load(Ordering::Relaxed) && to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        left = left.saturating_sub(read as u64);
    }
    // Before `to` is closed: what the server says to that is not to arrive.
    cut.store(true, Ordering::Relaxed);
    from
}
