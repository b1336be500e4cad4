//! A small project, its manifest, and the means to damage it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{Cursor, Read as _, Write as _};
use std::process::Command;
use std::sync::OnceLock;

use bzip2::Compression;
use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;
use sbs_crypto::ManifestSigningKey;
use sbs_crypto::git::{ObjectFormat, ObjectKind, object_id};
use sbs_manifest::{
    Compatibility, Envelope, FullManifest, InnerWriter, Limits, Manifest, Materials, SourceEntry,
    SourceKind, ThinMaterials, UnverifiedManifest, WriteManifestError, sign, write_thin,
};
use sbs_proto::{
    BaseImage, BuildName, BuildRecord, BuildStatus, CommitId, Digest, EngineRecord, ImageRecord,
    ImageReference, ImageTag, ManifestName, RECORD_SCHEMA, RelativePath, SourceRecord, StatusText,
    Step,
};

pub(crate) const COMMIT_TIME: i64 = 1_700_000_000;
pub(crate) const LOG: &[u8] = b"2026-01-02 03:04:05 INFO build: done\n";

pub(crate) type Spool = Cursor<Vec<u8>>;
/// Names and contents of entries.
pub(crate) type Contents = Vec<(String, Vec<u8>)>;

/// Returns the key that signs every manifest of these tests: making one takes a second.
pub(crate) fn key() -> &'static ManifestSigningKey {
    static KEY: OnceLock<ManifestSigningKey> = OnceLock::new();
    KEY.get_or_init(|| ManifestSigningKey::generate().unwrap())
}

/// What is at a path of the work tree. Directories come from the paths.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Executable(Vec<u8>),
    File(Vec<u8>),
    Link(Vec<u8>),
    /// A file of a submodule's work tree: packed, but not listed.
    Submodule(Vec<u8>),
}

impl Node {
    fn content(&self) -> &[u8] {
        match self {
            Self::Executable(bytes)
            | Self::File(bytes)
            | Self::Link(bytes)
            | Self::Submodule(bytes) => bytes,
        }
    }
}

/// A repository with one commit, without git.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) nodes: BTreeMap<Vec<u8>, Node>,
    pub(crate) format: ObjectFormat,
}

impl Project {
    pub(crate) fn small() -> Self {
        let file = |text: &str| Node::File(text.as_bytes().to_vec());
        Self::of([
            ("Dockerfile", file("FROM debian:12\n")),
            ("lib.rs", file("mod lib;\n")),
            ("lib/a.rs", file("")),
            ("lib/deep/b.rs", file("// b\n")),
            ("link", Node::Link(b"../../etc/passwd".to_vec())),
            ("run.sh", Node::Executable(b"#!/bin/sh\n".to_vec())),
        ])
    }

    pub(crate) fn of<const N: usize>(nodes: [(&str, Node); N]) -> Self {
        let nodes = nodes.map(|(path, node)| (path.as_bytes().to_vec(), node));
        Self { nodes: nodes.into(), format: ObjectFormat::Sha1 }
    }

    /// Returns the entries in archive order, with their content.
    pub(crate) fn entries(&self) -> Vec<(SourceEntry, Vec<u8>)> {
        let mut entries: Vec<_> = self
            .directories()
            .iter()
            .map(|path| (SourceEntry::new(path, SourceKind::Directory).unwrap(), Vec::new()))
            .collect();
        for (path, node) in &self.nodes {
            let size = node.content().len() as u64;
            let kind = match node {
                Node::Executable(_) => SourceKind::Executable(size),
                Node::File(_) | Node::Submodule(_) => SourceKind::File(size),
                Node::Link(_) => SourceKind::Link(size),
            };
            entries.push((SourceEntry::new(path, kind).unwrap(), node.content().to_vec()));
        }
        entries.sort_by_key(|(entry, _)| entry.sort_key());
        entries
    }

    fn directories(&self) -> BTreeSet<Vec<u8>> {
        let slashes = |path: &[u8]| -> Vec<Vec<u8>> {
            (0..path.len()).filter(|at| path[*at] == b'/').map(|at| path[..at].to_vec()).collect()
        };
        self.nodes.keys().flat_map(|path| slashes(path)).collect()
    }

    /// Returns what `git ls-tree -r -t -z --full-tree` would print, and the id of the tree.
    pub(crate) fn listing(&self) -> (Vec<u8>, CommitId) {
        self.list(b"")
    }

    fn list(&self, prefix: &[u8]) -> (Vec<u8>, CommitId) {
        // Name as git sorts it, mode, id, and the lines below it.
        let mut children: BTreeMap<Vec<u8>, (&str, CommitId, Vec<u8>)> = BTreeMap::new();
        for (path, node) in self.nodes.range(prefix.to_vec()..) {
            let Some(rest) = path.strip_prefix(prefix) else { break };
            if let Some(slash) = rest.iter().position(|byte| *byte == b'/') {
                if children.contains_key(&rest[..=slash]) {
                    continue;
                }
                let directory = [prefix, &rest[..=slash]].concat();
                if matches!(node, Node::Submodule(_)) {
                    let id = CommitId::parse(&"5".repeat(self.digits())).unwrap();
                    children.insert(rest[..slash].to_vec(), ("160000", id, Vec::new()));
                } else {
                    let (lines, id) = self.list(&directory);
                    children.insert(rest[..=slash].to_vec(), ("40000", id, lines));
                }
                continue;
            }
            let mode = match node {
                Node::Executable(_) => "100755",
                Node::File(_) | Node::Submodule(_) => "100644",
                Node::Link(_) => "120000",
            };
            let id = object_id(ObjectKind::Blob, node.content(), self.format);
            children.insert(rest.to_vec(), (mode, id, Vec::new()));
        }
        let (mut listing, mut object) = (Vec::new(), Vec::new());
        for (name, (mode, id, lines)) in children {
            let name = name.strip_suffix(b"/").unwrap_or(&name);
            let kind = match mode {
                "40000" => "tree",
                "160000" => "commit",
                _ => "blob",
            };
            listing.extend(format!("{mode:0>6} {kind} {id}\t").as_bytes());
            listing.extend([prefix, name, b"\0"].concat());
            listing.extend(lines);
            object.extend([mode.as_bytes(), b" ", name, b"\0"].concat());
            object.extend(hex::decode(id.as_str()).unwrap());
        }
        (listing, object_id(ObjectKind::Tree, &object, self.format))
    }

    fn digits(&self) -> usize {
        if self.format == ObjectFormat::Sha1 { 40 } else { 64 }
    }

    pub(crate) fn commit(&self) -> Vec<u8> {
        let tree = self.listing().1;
        let who = format!("A U Thor <a@example> {COMMIT_TIME} +0100");
        format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nmessage\n").into_bytes()
    }

    pub(crate) fn build(&self) -> Build {
        self.build_for(key().verifying_key().to_pem())
    }

    /// Returns what the manifest says if it is signed by another key.
    pub(crate) fn build_for(&self, public_key: String) -> Build {
        let (tree, tree_id) = self.listing();
        let commit = self.commit();
        let id = object_id(ObjectKind::Commit, &commit, self.format);
        Build { record: record(&id, &tree_id, public_key), commit, tree, entries: self.entries() }
    }
}

/// What goes into a manifest, each part open to change.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    pub(crate) record: BuildRecord,
    pub(crate) commit: Vec<u8>,
    pub(crate) tree: Vec<u8>,
    pub(crate) entries: Vec<(SourceEntry, Vec<u8>)>,
}

impl Build {
    pub(crate) fn name(&self) -> ManifestName {
        let name = self.record.status.build_name.as_deref().unwrap();
        BuildName::parse(name).unwrap().manifest_name()
    }

    /// Packs the inner archive.
    pub(crate) fn inner(&self) -> (Vec<u8>, Digest) {
        let (bytes, digest, size) = self.try_inner(&Limits::default()).unwrap();
        assert_eq!((size, digest), (bytes.len() as u64, sbs_crypto::digest(&bytes)));
        (bytes, digest)
    }

    pub(crate) fn try_inner(
        &self,
        limits: &Limits,
    ) -> Result<(Vec<u8>, Digest, u64), WriteManifestError> {
        let materials = Materials {
            record: &self.record,
            commit: &self.commit,
            tree: &self.tree,
            log: LOG,
            log_size: LOG.len() as u64,
        };
        let mut writer = InnerWriter::begin(Vec::new(), materials, limits)?;
        for (entry, content) in &self.entries {
            writer.add_source(entry, content.as_slice())?;
        }
        writer.finish()
    }

    /// Packs the whole manifest.
    pub(crate) fn manifest(&self) -> Vec<u8> {
        sealed(&self.name(), &self.inner().0)
    }

    /// Packs the inner archive of the thin form.
    pub(crate) fn try_thin_inner(
        &self,
        limits: &Limits,
    ) -> Result<(Vec<u8>, Digest, u64), WriteManifestError> {
        let (inner, digest) = self.inner();
        let full = FullManifest::new(&self.name(), digest, inner.len() as u64);
        let dockerfile = [b"git/", self.record.engine.dockerfile.as_str().as_bytes()].concat();
        let found = self.entries.iter().find(|(entry, _)| entry.sort_key() == dockerfile);
        let materials = Materials {
            record: &self.record,
            commit: &self.commit,
            tree: &self.tree,
            log: LOG,
            log_size: LOG.len() as u64,
        };
        let dockerfile = found.map_or(&b""[..], |(_, content)| content);
        write_thin(Vec::new(), ThinMaterials { materials, full: &full, dockerfile }, limits)
    }

    /// Packs the whole thin manifest.
    pub(crate) fn thin(&self) -> Vec<u8> {
        let (inner, digest, _) = self.try_thin_inner(&Limits::default()).unwrap();
        let signature = sign(&digest, key()).unwrap();
        let envelope = Envelope {
            name: &self.name(),
            signature: &signature,
            inner_size: inner.len() as u64,
            commit_time: COMMIT_TIME,
        };
        envelope.write_thin(inner.as_slice(), Vec::new(), &Limits::default()).unwrap()
    }

    /// Opens the manifest again.
    pub(crate) fn opened(&self) -> Manifest<Spool> {
        open(&self.manifest()).unwrap()
    }
}

/// Signs an inner archive, whatever it holds, and wraps it.
pub(crate) fn sealed(name: &ManifestName, inner: &[u8]) -> Vec<u8> {
    let signature = sign(&sbs_crypto::digest(inner), key()).unwrap();
    let envelope = Envelope {
        name,
        signature: &signature,
        inner_size: inner.len() as u64,
        commit_time: COMMIT_TIME,
    };
    envelope.write(inner, Vec::new(), &Limits::default()).unwrap()
}

/// Reads and verifies a manifest.
pub(crate) fn open(archive: &[u8]) -> Result<Manifest<Spool>, Box<dyn Error>> {
    open_as(archive, Compatibility::Strict)
}

pub(crate) fn open_as(
    archive: &[u8],
    compatibility: Compatibility,
) -> Result<Manifest<Spool>, Box<dyn Error>> {
    let spool = Cursor::new(Vec::new());
    let unverified = UnverifiedManifest::read(archive, spool, compatibility, &Limits::default())?;
    Ok(unverified.verify(&key().verifying_key())?)
}

/// Reads every entry: names and contents.
pub(crate) fn contents(manifest: &mut Manifest<Spool>) -> Result<Contents, Box<dyn Error>> {
    let mut found = Vec::new();
    let mut entries = manifest.entries()?;
    while let Some(mut entry) = entries.next_entry()? {
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        found.push((String::from_utf8_lossy(entry.path().as_bytes()).into_owned(), content));
    }
    Ok(found)
}

/// Returns an error with everything that caused it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

pub(crate) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn decompress(archive: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    MultiBzDecoder::new(archive).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Runs a program in a directory and returns what it prints.
pub(crate) fn run(directory: &std::path::Path, program: &str, arguments: &[&str]) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "an independent judge of the format, with arguments of the test's own"
    )]
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap_or_else(|error| panic!("these tests need `{program}`: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn record(commit: &CommitId, tree: &CommitId, public_key: String) -> BuildRecord {
    let tag = ImageTag::for_commit(None, commit);
    let name = format!("r.example.app.{tag}.2026-01-02_03-04-05.000006");
    let status = BuildStatus::unfinished("", StatusText::done(Step::ImagePushed))
        .named(&BuildName::parse(&name).unwrap(), &tag);
    BuildRecord {
        status,
        bases: vec![BaseImage {
            digest: Digest::from_bytes([1; 32]),
            platform_digest: None,
            reference: ImageReference::parse("debian:12").unwrap(),
            signature: None,
        }],
        engine: EngineRecord {
            arguments: BTreeMap::new(),
            context: RelativePath::default(),
            dockerfile: RelativePath::parse("Dockerfile").unwrap(),
            isolation: "oci (runc)".to_owned(),
            name: "buildah".to_owned(),
            network: "none".to_owned(),
            storage_driver: "overlay".to_owned(),
            version: "1.28.2".to_owned(),
        },
        finished_at: "2026-01-02T03:05:05Z".to_owned(),
        image: ImageRecord {
            digest: Digest::from_bytes([2; 32]),
            public_key_pem: "-----BEGIN PUBLIC KEY-----\n".to_owned(),
            reference: ImageReference::parse("r.example/app").unwrap().with_tag(tag),
        },
        manifest_public_key_pem: public_key,
        manifests: None,
        schema: RECORD_SCHEMA.to_owned(),
        server_version: "0.1.0".to_owned(),
        source: SourceRecord {
            commit: commit.clone(),
            commit_time: COMMIT_TIME,
            host_key: None,
            reference: Some("main".to_owned()),
            submodules: BTreeMap::new(),
            tree: tree.clone(),
            url: "git@git.example:u/r.git".to_owned(),
        },
        started_at: "2026-01-02T03:04:05Z".to_owned(),
    }
}
