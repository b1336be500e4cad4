//! What the tests have in common: trust data that is made to order, and a server that shows it.

mod answers;
mod chains;
mod publishing;
mod real;
mod roots;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use sbs_crypto::TrustSigningKey;
use sbs_crypto::pki::CodeSigningCertificate;
use sbs_proto::{Digest, ImageTag, NotaryServer, RegistryHost, Repository};
use serde_json::{Map, Value, json};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::canonical::canonical;
use super::key::RawKey;
use super::{
    Absence, Gun, NotarySession, Remembered, RootPin, Trust, TrustDefect, TrustRole, Verdict,
    verify, verify_digest,
};
use crate::RegistryError;
use crate::testing::double::{Double, Reply, Seen};
use crate::testing::{TestLog, client, credentials};

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

fn gun() -> Gun {
    gun_of("docker.io/library/app")
}

fn gun_of(text: &str) -> Gun {
    let (registry, repository) = text.split_once('/').unwrap();
    Gun::new(&RegistryHost::parse(registry).unwrap(), &Repository::parse(repository).unwrap())
}

fn tag(text: &str) -> ImageTag {
    ImageTag::parse(text).unwrap()
}

fn digest(text: &str) -> Digest {
    sbs_crypto::digest(text.as_bytes())
}

fn session_with(host: &str, gun: &Gun, log: &TestLog) -> NotarySession {
    let server = NotaryServer::parse(host).unwrap();
    client().for_notary(&server, gun, Some(&credentials()), log).unwrap()
}

fn session(host: &str, gun: &Gun) -> NotarySession {
    session_with(host, gun, &TestLog::new())
}

/// A key with the form that a document has it in.
struct Key {
    raw: RawKey,
    signing: TrustSigningKey,
    method: &'static str,
}

impl Key {
    fn plain() -> Self {
        let signing = TrustSigningKey::generate().unwrap();
        Self { raw: plain_form(&signing), signing, method: "ecdsa" }
    }

    fn with_certificate(common_name: &str, now: OffsetDateTime) -> Self {
        let signing = TrustSigningKey::generate().unwrap();
        Self { raw: certificate_form(&signing, common_name, now), signing, method: "ecdsa" }
    }

    fn root() -> Self {
        Self::with_certificate(&gun().to_string(), NOW)
    }

    /// Returns the same key in another form.
    fn again(&self, raw: RawKey) -> Self {
        let signing = TrustSigningKey::from_pkcs8_der(&self.signing.to_pkcs8_der()).unwrap();
        Self { raw, signing, method: self.method }
    }

    fn twin(&self) -> Self {
        self.again(self.raw.clone())
    }

    fn signature(&self, message: &str) -> Value {
        let sig = STANDARD.encode(self.signing.sign(message.as_bytes()).unwrap());
        json!({ "keyid": self.raw.id(), "method": self.method, "sig": sig })
    }
}

fn plain_form(key: &TrustSigningKey) -> RawKey {
    RawKey::new("ecdsa", key.verifying_key().as_spki_der())
}

fn certificate_form(key: &TrustSigningKey, common_name: &str, now: OffsetDateTime) -> RawKey {
    let pem = CodeSigningCertificate::self_sign(key, common_name, now).unwrap();
    RawKey::new("ecdsa-x509", pem.as_bytes())
}

/// A role in trust data made to order.
struct Role {
    listed: Vec<Key>,
    signers: Vec<Key>,
    threshold: usize,
    version: u64,
    expires: OffsetDateTime,
    /// Replaces members of the signed part.
    edits: Vec<(&'static str, Value)>,
    /// Signatures are different each time that they are made.
    made: Mutex<HashMap<String, String>>,
}

impl Role {
    fn of(key: &Key) -> Self {
        Self {
            listed: vec![key.twin()],
            signers: vec![key.twin()],
            threshold: 1,
            version: 5,
            expires: NOW + Duration::days(7),
            edits: Vec::new(),
            made: Mutex::default(),
        }
    }

    fn keys(&self) -> Map<String, Value> {
        self.listed.iter().map(|key| (key.raw.id().to_string(), key.raw.to_json())).collect()
    }

    fn to_json(&self) -> Value {
        let ids: Vec<_> = self.listed.iter().map(|key| key.raw.id()).collect();
        json!({ "keyids": ids, "threshold": self.threshold })
    }

    fn sign(&self, kind: &str, members: Value) -> Vec<u8> {
        let mut signed = json!({
            "_type": kind,
            "expires": self.expires.format(&time::format_description::well_known::Rfc3339).unwrap(),
            "version": self.version,
        });
        let Value::Object(members) = members else { panic!() };
        let all = signed.as_object_mut().unwrap();
        all.extend(members);
        for (name, value) in &self.edits {
            all.insert((*name).to_owned(), value.clone());
        }
        let text = canonical(&signed).unwrap();
        let signers: Vec<_> = self.signers.iter().map(|key| (key.raw.id(), key.method)).collect();
        let mut made = self.made.lock().unwrap();
        let signatures = made.entry(format!("{signers:?}{text}")).or_insert_with(|| {
            let signatures: Vec<_> = self.signers.iter().map(|key| key.signature(&text)).collect();
            json!(signatures).to_string()
        });
        format!("{{\"signed\":{text},\"signatures\":{signatures}}}").into_bytes()
    }
}

/// Trust data made to order.
struct Repo {
    root: Role,
    targets: Role,
    snapshot: Role,
    timestamp: Role,
    releases: Option<(Role, Vec<&'static str>)>,
    tags: BTreeMap<&'static str, &'static str>,
    released_tags: BTreeMap<&'static str, &'static str>,
}

impl Repo {
    fn new() -> Self {
        Self {
            root: Role::of(&Key::root()),
            targets: Role::of(&Key::plain()),
            snapshot: Role::of(&Key::plain()),
            timestamp: Role::of(&Key::plain()),
            releases: None,
            tags: BTreeMap::from([("v1", "image one")]),
            released_tags: BTreeMap::new(),
        }
    }

    /// Adds a delegation for all tags, with one of its own.
    fn with_releases() -> Self {
        let mut repo = Self::new();
        repo.releases = Some((Role::of(&Key::plain()), vec![""]));
        repo.released_tags.insert("r1", "released image");
        repo
    }

    fn role(&mut self, role: TrustRole) -> &mut Role {
        match role {
            TrustRole::Root => &mut self.root,
            TrustRole::Snapshot => &mut self.snapshot,
            TrustRole::Targets => &mut self.targets,
            TrustRole::Releases => &mut self.releases.as_mut().unwrap().0,
            TrustRole::Timestamp => &mut self.timestamp,
        }
    }

    fn root_document(&self) -> Vec<u8> {
        let roles = [
            ("root", &self.root),
            ("targets", &self.targets),
            ("snapshot", &self.snapshot),
            ("timestamp", &self.timestamp),
        ];
        let keys: Map<_, _> = roles.iter().flat_map(|(_, role)| role.keys()).collect();
        let roles: Map<_, _> =
            roles.iter().map(|(name, role)| ((*name).to_owned(), role.to_json())).collect();
        let members = json!({ "consistent_snapshot": false, "keys": keys, "roles": roles });
        self.root.sign("Root", members)
    }

    fn targets_document(&self) -> Vec<u8> {
        let mut delegations = json!({ "keys": {}, "roles": [] });
        if let Some((role, paths)) = &self.releases {
            let mut entry = role.to_json();
            entry["name"] = json!("targets/releases");
            entry["paths"] = json!(paths);
            delegations = json!({ "keys": role.keys(), "roles": [entry] });
        }
        let members = json!({ "delegations": delegations, "targets": targets(&self.tags) });
        self.targets.sign("Targets", members)
    }

    /// Returns what a server has then, by name.
    fn files(&self) -> Files {
        let mut files = Files::default();
        files.0.insert("root.json".to_owned(), self.root_document());
        files.0.insert(format!("{}.root.json", self.root.version), self.root_document());
        let mut meta = json!({ "root": file_meta(&self.root_document()) });
        meta["targets"] = files.add(TrustRole::Targets, self.targets_document());
        if let Some((role, _)) = &self.releases {
            let delegations = json!({ "keys": {}, "roles": [] });
            let members =
                json!({ "delegations": delegations, "targets": targets(&self.released_tags) });
            meta["targets/releases"] =
                files.add(TrustRole::Releases, role.sign("Targets", members));
        }
        let snapshot = self.snapshot.sign("Snapshot", json!({ "meta": meta }));
        let meta = json!({ "snapshot": files.add(TrustRole::Snapshot, snapshot) });
        let timestamp = self.timestamp.sign("Timestamp", json!({ "meta": meta }));
        files.0.insert("timestamp.json".to_owned(), timestamp);
        files
    }
}

fn targets(tags: &BTreeMap<&str, &str>) -> Value {
    tags.iter().map(|(name, image)| ((*name).to_owned(), file_meta(image.as_bytes()))).collect()
}

fn file_meta(bytes: &[u8]) -> Value {
    let sha256 = STANDARD.encode(sbs_crypto::digest(bytes).as_bytes());
    json!({ "hashes": { "sha256": sha256 }, "length": bytes.len() })
}

/// The files of a server, by name.
#[derive(Clone, Default)]
struct Files(HashMap<String, Vec<u8>>);

impl Files {
    /// Adds a document by its hash; returns how others list it.
    fn add(&mut self, role: TrustRole, bytes: Vec<u8>) -> Value {
        let meta = file_meta(&bytes);
        self.0.insert(format!("{role}.{}.json", sbs_crypto::digest(&bytes).to_hex()), bytes);
        meta
    }

    /// Returns the one file of a role that is found by its hash.
    fn of(&mut self, role: TrustRole) -> &mut Vec<u8> {
        let named = |name: &str| {
            let rest = name.strip_prefix(role.as_str()).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|rest| !rest.contains('/') && rest.len() == 64 + ".json".len())
        };
        let mut found = self.0.iter_mut().filter(|(name, _)| named(name));
        let (_, bytes) = found.next().unwrap();
        assert!(found.next().is_none(), "{role}");
        bytes
    }
}

/// A server whose files can be replaced.
struct Site {
    double: Double,
    files: Arc<Mutex<Files>>,
}

impl Site {
    async fn start(files: Files) -> Self {
        Self::start_with(files, |_| None).await
    }

    /// Starts a server; `fault` can answer in its place.
    async fn start_with(
        files: Files,
        fault: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let files = Arc::new(Mutex::new(files));
        let served = Arc::clone(&files);
        let double = Double::start("127.0.0.1", move |seen| {
            if let Some(reply) = fault(seen) {
                return reply;
            }
            let (prefix, name) = seen.path.split_once("/_trust/tuf/").unwrap();
            assert_eq!(prefix, "/v2/docker.io/library/app");
            match served.lock().unwrap().0.get(name).filter(|_| seen.method == Method::GET) {
                Some(bytes) => Reply::status(200).body(bytes.clone()),
                None => Reply::status(404),
            }
        })
        .await;
        Self { double, files }
    }

    fn serve(&self, files: Files) {
        *self.files.lock().unwrap() = files;
    }

    fn session(&self) -> NotarySession {
        session(self.double.host(), &gun())
    }

    async fn verify(&self, name: &str, trust: Trust<'_>) -> Result<Verdict, RegistryError> {
        verify(&self.session(), &tag(name), trust, NOW).await
    }

    /// Verifies `v1` on first use, or after what is remembered.
    async fn judge(&self, remembered: Option<&Remembered>) -> Verdict {
        self.verify("v1", Trust { pin: &RootPin::FirstUse, remembered }).await.unwrap()
    }
}

fn defect(verdict: Verdict) -> TrustDefect {
    match verdict {
        Verdict::Invalid(invalid) => {
            assert!(invalid.to_string().contains(&format!("`{}`", invalid.gun)), "{invalid}");
            invalid.defect
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn signed(verdict: Verdict) -> super::SignedTarget {
    match verdict {
        Verdict::Signed(target) => *target,
        other => panic!("not signed: {other:?}"),
    }
}

async fn defect_of(files: Files) -> TrustDefect {
    defect(Site::start(files).await.judge(None).await)
}

async fn defect_of_repo(change: impl FnOnce(&mut Repo)) -> TrustDefect {
    let mut repo = Repo::with_releases();
    change(&mut repo);
    defect_of(repo.files()).await
}
