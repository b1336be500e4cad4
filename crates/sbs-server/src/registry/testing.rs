//! What the tests of everything that speaks with a registry have in common: the registry that
//! Debian ships, a proxy that cuts connections, and a double for what no real registry does.

pub(crate) mod double;
pub(crate) mod real;

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use sbs_crypto::pki::CertificateAuthority;
use sbs_proto::{Credentials, Digest, RegistryHost, SecretText};

use super::{
    Descriptor, ImageManifest, Limits, RegistryClient, RegistryTrust, Session, media_type,
};
use crate::build::log::{BuildLog, Masks};
use crate::clock::Clock;

/// The user of every registry here, and a password that has to be encoded everywhere.
pub(crate) const USER: &str = "builder";
pub(crate) const PASSWORD: &str = "pa:ss/w rd+%41";

/// The certificates of the servers here: one authority, for `127.0.0.1` and `localhost`.
pub(crate) struct Authority {
    pub(crate) ca_pem: String,
    address: (String, String),
    name: (String, String),
}

impl Authority {
    pub(crate) fn get() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(|| {
            let now = Clock::system().now();
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
    pub(crate) fn identity(&self, host: &str) -> &(String, String) {
        if host == "localhost" { &self.name } else { &self.address }
    }
}

/// A log that can be read.
pub(crate) struct TestLog {
    pub(crate) log: BuildLog,
    reader: File,
}

impl TestLog {
    pub(crate) fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        let reader = file.try_clone().unwrap();
        let log = BuildLog::new(file, Clock::fixed(1_700_000_000), Masks::default(), 1 << 20);
        Self { log, reader }
    }

    pub(crate) fn text(&self) -> String {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; usize::try_from(self.reader.metadata().unwrap().len()).unwrap()];
        self.reader.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

pub(crate) fn credentials() -> Credentials {
    Credentials { password: SecretText::new(PASSWORD.to_owned()), user: USER.to_owned() }
}

/// Limits with which a test does not wait.
pub(crate) fn quick() -> Limits {
    Limits {
        first_pause: Duration::from_millis(2),
        idle: Duration::from_secs(10),
        longest_pause: Duration::from_millis(1200),
        ..Limits::default()
    }
}

pub(crate) fn client() -> RegistryClient {
    client_with(&[], quick())
}

pub(crate) fn client_with(token_hosts: &[&str], limits: Limits) -> RegistryClient {
    let trust = RegistryTrust {
        extra_ca_pem: Authority::get().ca_pem.clone().into_bytes(),
        token_hosts: token_hosts.iter().map(ToString::to_string).collect(),
    };
    RegistryClient::new(&trust, limits).unwrap()
}

/// Returns a session as the user that every registry here knows.
pub(crate) fn session(registry: &str, log: &TestLog) -> Session {
    let host = RegistryHost::parse(registry).unwrap();
    client().for_registry(&host, Some(&credentials()), &log.log).unwrap()
}

/// Writes an OCI layout with an image of these layers, as an engine does; returns the digest of
/// its image manifest.
pub(crate) fn write_layout(directory: &Path, layers: &[&[u8]]) -> Digest {
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
pub(crate) fn image_config(architecture: &str, layers: &[Descriptor]) -> Vec<u8> {
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
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
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
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "a judge runs as its users run it")]
    let mut command = std::process::Command::new(program);
    let output = command.args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
    text
}
