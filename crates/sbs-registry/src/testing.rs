//! What the tests of everything that speaks with a registry have in common: the registry that
//! Debian ships, a proxy that cuts connections, and a double for what no real registry does.

#![allow(missing_docs, missing_debug_implementations, reason = "only tests see it")]
#![allow(
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::return_self_not_must_use,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

pub mod double;
pub mod notary;
pub mod real;
pub mod signatures;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use sbs_crypto::pki::CertificateAuthority;
use sbs_proto::{Credentials, Digest, RegistryHost, SecretText};
use time::OffsetDateTime;

use super::{
    Descriptor, ImageManifest, Limits, Log, RegistryClient, RegistryTrust, Session, media_type,
};

/// The user of every registry here, and a password that has to be encoded everywhere.
pub const USER: &str = "builder";
pub const PASSWORD: &str = "pa:ss/w rd+%41";

/// The certificates of the servers here: one authority, for `127.0.0.1` and `localhost`.
pub struct Authority {
    pub ca_pem: String,
    address: (String, String),
    name: (String, String),
}

impl Authority {
    pub fn get() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(|| {
            let now = OffsetDateTime::now_utc();
            let authority = CertificateAuthority::create(now).unwrap();
            let issue = |host| {
                let issued = authority.issue_server(host, now).unwrap();
                (issued.certificate_pem, issued.key_pem.to_string())
            };
            Self {
                ca_pem: authority.certificate_pem().to_owned(),
                address: issue("127.0.0.1"),
                name: issue("localhost"),
            }
        })
    }

    /// Returns the certificate and key, PEM, of `127.0.0.1` or `localhost`.
    pub fn identity(&self, host: &str) -> &(String, String) {
        if host == "localhost" { &self.name } else { &self.address }
    }
}

/// A log that can be read.
#[derive(Clone, Debug, Default)]
pub struct TestLog(Arc<Mutex<String>>);

impl TestLog {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn add(&self, level: &str, message: &str) {
        self.0.lock().unwrap().push_str(&format!("{level} {message}\n"));
    }
}

impl Log for TestLog {
    fn info(&self, message: &str) {
        self.add("INFO", message);
    }

    fn warning(&self, message: &str) {
        self.add("WARNING", message);
    }
}

pub fn credentials() -> Credentials {
    Credentials { password: SecretText::new(PASSWORD.to_owned()), user: USER.to_owned() }
}

/// Limits with which a test does not wait.
pub fn quick() -> Limits {
    Limits {
        first_pause: Duration::from_millis(2),
        idle: Duration::from_secs(10),
        longest_pause: Duration::from_millis(1200),
        ..Limits::default()
    }
}

pub fn client() -> RegistryClient {
    client_with(&[], quick())
}

pub fn client_with(token_hosts: &[&str], limits: Limits) -> RegistryClient {
    let trust = RegistryTrust {
        extra_ca_pem: Authority::get().ca_pem.clone().into_bytes(),
        token_hosts: token_hosts.iter().map(ToString::to_string).collect(),
    };
    RegistryClient::new(&trust, limits).unwrap()
}

/// Returns a session as the user that every registry here knows.
pub fn session(registry: &str, log: &(impl Log + Clone + 'static)) -> Session {
    let host = RegistryHost::parse(registry).unwrap();
    client().for_registry(&host, Some(&credentials()), log).unwrap()
}

/// Writes an OCI layout with an image of these layers, as an engine does; returns the digest of
/// its image manifest.
pub fn write_layout(directory: &Path, layers: &[&[u8]]) -> Digest {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let write = |media_type: &str, bytes: &[u8]| {
        let blob = Descriptor::of(media_type, bytes);
        std::fs::write(blobs.join(blob.digest.to_hex()), bytes).unwrap();
        blob
    };
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<_> = layers.iter().map(|bytes| write(layer, bytes)).collect();
    let config = write(media_type::OCI_CONFIG, &image_config("amd64", &layers));
    write(media_type::OCI_IMAGE, &ImageManifest::new(config, layers).to_json()).digest
}

/// Returns the config of an image of these layers, which are not compressed.
pub fn image_config(architecture: &str, layers: &[Descriptor]) -> Vec<u8> {
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let config = serde_json::json!({
        "architecture": architecture,
        "config": {},
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    config.to_string().into_bytes()
}

/// Returns bytes that do not compress and are the same each time.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

/// Runs a program that is a judge in a test, and returns what it prints.
pub fn run(program: &str, arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "a judge runs as its users run it")]
    let mut command = std::process::Command::new(program);
    let output = command.args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
    text
}
