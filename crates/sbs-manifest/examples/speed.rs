//! Packs and reads the manifest of a directory, as a process that can be timed beside others.
//!
//! ```sh
//! cargo build --release -p sbs-manifest --example speed
//! speed make DIRECTORY NAME THREADS      # NAME.sig.tbz and NAME.pem, for the others
//! speed pack DIRECTORY NAME THREADS      # NAME.tbz for NAME.pem, and its digest: walk, pack, hash
//! speed verify NAME THREADS              # signature of NAME.sig.tbz with NAME.pem
//! speed check NAME THREADS               # the same, and everything that the manifest proves
//! speed signature NAME                   # NAME.sig of NAME.digest with NAME.pem, and nothing else
//! ```
//!
//! Peers: `tar -c DIRECTORY | lbzip2 -n2 -9 | tee NAME | openssl dgst -sha256` for `pack`,
//! `lbzip2 -n2 -dc` for `verify` and `check`, `openssl dgst -sha256 -verify` for `signature`. `make` comes first: it generates the RSA key. Only ratios
//! taken in one run, in turns, mean anything.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an example for measuring may panic as a bench may"
)]

use std::env;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use sbs_crypto::ManifestVerifyingKey;
use sbs_manifest::{
    Compatibility, InnerWriter, Limits, ManifestSignature, Materials, SourceEntry, SourceKind,
    UnverifiedManifest,
};

#[expect(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/it/common.rs"]
mod common;

use common::{LOG, Node, Project, key, sealed};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["make", directory, name, threads] => make(directory.as_ref(), name, &limits(threads)),
        ["pack", directory, name, threads] => pack(directory.as_ref(), name, &limits(threads)),
        ["verify", name, threads] => read(name, &limits(threads), false),
        ["check", name, threads] => read(name, &limits(threads), true),
        ["signature", name] => signature(name),
        _ => panic!("see the top of this file"),
    }
}

fn limits(threads: &str) -> Limits {
    Limits { threads: threads.parse().unwrap(), ..Limits::default() }
}

fn make(directory: &Path, name: &str, limits: &Limits) {
    let mut project = Project::of([]);
    for (path, kind) in walk(directory) {
        if kind != SourceKind::Directory {
            let content = fs::read(directory.join(&path)).unwrap();
            project.nodes.insert(path.into_os_string().into_encoded_bytes(), Node::File(content));
        }
    }
    let build = project.build();
    let (inner, _, _) = build.try_inner(limits).unwrap();
    fs::write(format!("{name}.sig.tbz"), sealed(&build.name(), &inner)).unwrap();
    fs::write(format!("{name}.pem"), key().verifying_key().to_pem()).unwrap();
}

fn pack(directory: &Path, name: &str, limits: &Limits) {
    let public_key = fs::read_to_string(format!("{name}.pem")).unwrap();
    let build = Project::small().build_for(public_key);
    let materials = Materials {
        record: &build.record,
        commit: &build.commit,
        tree: &build.tree,
        log: LOG,
        log_size: LOG.len() as u64,
    };
    let out = BufWriter::new(File::create(format!("{name}.tbz")).unwrap());
    let mut writer = InnerWriter::begin(out, materials, limits).unwrap();
    let mut entries: Vec<_> = walk(directory)
        .into_iter()
        .map(|(path, kind)| {
            (SourceEntry::new(path.as_os_str().as_encoded_bytes(), kind).unwrap(), path, kind)
        })
        .collect();
    entries.sort_by_cached_key(|(entry, _, _)| entry.sort_key());
    for (entry, path, kind) in entries {
        if kind == SourceKind::Directory {
            writer.add_source(&entry, std::io::empty()).unwrap();
        } else {
            writer.add_source(&entry, File::open(directory.join(path)).unwrap()).unwrap();
        }
    }
    let (mut out, digest, _) = writer.finish().unwrap();
    out.flush().unwrap();
    println!("{digest}");
}

fn read(name: &str, limits: &Limits, all: bool) {
    let key = fs::read_to_string(format!("{name}.pem")).unwrap();
    let key = ManifestVerifyingKey::from_pem(&key).unwrap();
    let archive = File::open(format!("{name}.sig.tbz")).unwrap();
    let spool = tempfile::tempfile().unwrap();
    let unverified =
        UnverifiedManifest::read(archive, spool, Compatibility::Strict, limits).unwrap();
    let mut manifest = unverified.verify(&key).unwrap();
    if all {
        assert!(manifest.check().all_passed());
    }
}

fn signature(name: &str) {
    let key = fs::read_to_string(format!("{name}.pem")).unwrap();
    let key = ManifestVerifyingKey::from_pem(&key).unwrap();
    let signature = fs::read(format!("{name}.sig")).unwrap();
    let signature = ManifestSignature::parse(&signature).unwrap();
    let digest = fs::read(format!("{name}.digest")).unwrap();
    let _proof = key.verify(&digest, signature.as_bytes()).unwrap();
}

/// Lists the files and directories below a directory, without links.
fn walk(top: &Path) -> Vec<(PathBuf, SourceKind)> {
    let (mut found, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(top.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                left.push(path.clone());
                found.push((path, SourceKind::Directory));
            } else if metadata.is_file() {
                found.push((path, SourceKind::File(metadata.len())));
            }
        }
    }
    found
}
