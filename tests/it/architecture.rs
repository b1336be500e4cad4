//! The crate graph of `ARCHITECTURE.md`, held against what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use sbs_tests::{output, program};
use serde::Deserialize;

/// The crates of the workspace, and which of the others each may use. Nothing points up.
const EDGES: [(&str, &[&str]); 11] = [
    ("sbs-proto", &[]),
    ("sbs-crypto", &["sbs-proto"]),
    ("sbs-manifest", &["sbs-crypto", "sbs-proto"]),
    ("sbs-state", &["sbs-crypto", "sbs-proto"]),
    ("sbs-registry", &["sbs-crypto", "sbs-proto"]),
    ("sbs-client", &["sbs-crypto", "sbs-proto"]),
    ("sbs-server", &["sbs-crypto", "sbs-manifest", "sbs-proto", "sbs-registry", "sbs-state"]),
    ("sbs-cli", &["sbs-client", "sbs-crypto", "sbs-manifest", "sbs-proto", "sbs-registry"]),
    ("sbs-fuzz", &["sbs-crypto", "sbs-manifest", "sbs-proto"]),
    ("sbs-tests", &["sbs-client", "sbs-crypto", "sbs-manifest", "sbs-proto", "sbs-state"]),
    ("xtask", &[]),
];

/// Libraries that only these crates may use directly.
const OWNED: [(&str, &[&str]); 13] = [
    ("aes-gcm", &["sbs-crypto"]),
    ("aws-lc-rs", &["sbs-crypto"]),
    ("axum", &["sbs-server"]),
    ("bzip2", &["sbs-fuzz", "sbs-manifest"]),
    // object_store speaks in its dates; ours are those of `time`.
    ("chrono", &[]),
    ("clap", &["sbs-cli", "sbs-server"]),
    ("object_store", &["sbs-server"]),
    ("rcgen", &["sbs-crypto", "sbs-tests"]),
    ("reqwest", &["sbs-client", "sbs-registry", "sbs-server", "sbs-tests"]),
    ("sequoia-openpgp", &["sbs-crypto"]),
    ("tar", &["sbs-manifest"]),
    ("tss-esapi", &["sbs-server"]),
    ("zstd", &["sbs-manifest"]),
];

/// Libraries that the pure crates never use: they have no I/O, no clock and no log.
const IMPURE: [&str; 7] = ["axum", "hyper", "reqwest", "rustix", "tempfile", "tokio", "tracing"];

const PURE: [&str; 4] = ["sbs-proto", "sbs-crypto", "sbs-manifest", "sbs-state"];

/// Libraries that no crate uses, directly or not: a second implementation of what one does already.
const NOWHERE: [&str; 3] = ["native-tls", "openssl", "ring"];

#[test]
fn the_crate_graph_is_the_one_in_the_table() -> Result<()> {
    assert_eq!(faults(&metadata(&["--no-deps"])?), Vec::<String>::new());
    Ok(())
}

#[test]
fn no_library_comes_twice_in_another_form() -> Result<()> {
    // Not Cargo.lock: it lists what is optional and not built, too.
    let mut tree = cargo();
    tree.args(["tree", "--workspace", "--offline", "--prefix", "none", "--format", "{p}"]);
    let tree = output(tree.current_dir(root()?))?;
    let names: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("sbs-proto") && names.contains("rustls"), "{tree}");
    for name in NOWHERE {
        assert!(!names.contains(name), "{name} is built");
    }
    Ok(())
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() -> Result<()> {
    let metadata = metadata(&["--no-deps"])?;
    assert!(!metadata.packages.is_empty());
    for package in &metadata.packages {
        let text = fs::read_to_string(&package.manifest_path)?;
        assert!(has_workspace_lints(&text), "{} lacks `[lints] workspace = true`", package.name);
    }
    Ok(())
}

#[test]
fn the_check_of_the_lints_can_fail() {
    assert!(has_workspace_lints("[lints]\nworkspace = true\n"));
    for text in ["", "[lints]\n", "[lints]\nworkspace = false\n", "[features]\nworkspace = true\n"]
    {
        assert!(!has_workspace_lints(text), "{text}");
    }
}

#[test]
fn a_bad_graph_is_found() {
    for (name, dependency, kind, expected) in [
        ("sbs-proto", "sbs-crypto", None, "sbs-proto uses sbs-crypto"),
        ("sbs-client", "sbs-manifest", None, "sbs-client uses sbs-manifest"),
        ("sbs-cli", "sbs-server", None, "sbs-cli uses sbs-server"),
        ("sbs-cli", "sbs-state", Some("dev"), "sbs-cli uses sbs-state"),
        ("sbs-server", "sbs-tests", Some("dev"), "sbs-server uses sbs-tests"),
        ("sbs-state", "aes-gcm", None, "sbs-state uses aes-gcm"),
        ("sbs-client", "axum", None, "sbs-client uses axum"),
        ("sbs-cli", "reqwest", None, "sbs-cli uses reqwest"),
        ("sbs-server", "rcgen", None, "sbs-server uses rcgen"),
        ("sbs-server", "sequoia-openpgp", None, "sbs-server uses sequoia-openpgp"),
        ("sbs-manifest", "tokio", None, "sbs-manifest uses tokio"),
        ("sbs-crypto", "tracing", None, "sbs-crypto uses tracing"),
        ("sbs-extra", "serde", None, "sbs-extra is not in the table"),
    ] {
        let kind = kind.map(str::to_owned);
        let dependency = Dependency { kind, name: dependency.to_owned(), optional: false };
        let package = Package {
            dependencies: vec![dependency],
            manifest_path: PathBuf::new(),
            name: name.to_owned(),
        };
        let mut packages: Vec<_> = EDGES
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(name, _)| Package {
                dependencies: Vec::new(),
                manifest_path: PathBuf::new(),
                name: (*name).to_owned(),
            })
            .collect();
        packages.push(package);
        assert_eq!(faults(&Metadata { packages }), [expected.to_owned()]);
    }
    assert_eq!(faults(&Metadata { packages: Vec::new() }).len(), EDGES.len());
}

/// Returns what is wrong with a graph, sorted.
fn faults(metadata: &Metadata) -> Vec<String> {
    let mut faults = BTreeSet::new();
    let table = BTreeMap::from(EDGES);
    for package in &metadata.packages {
        let Some(allowed) = table.get(&*package.name) else {
            faults.insert(format!("{} is not in the table", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = &*dependency.name;
            // A crate's tests name the crate itself, for a feature of it.
            let other = name != package.name && table.contains_key(name);
            let of_ours = other && !allowed.contains(&name);
            let owner = BTreeMap::from(OWNED).get(name).copied();
            // What only a crate's own tests use is not what the crate is made of; but even they do
            // not turn the graph upside down.
            // What is optional is for a program of the crate's; `cargo xtask lint` sees to that.
            let built_in = dependency.kind.as_deref() != Some("dev") && !dependency.optional;
            let owned = built_in && owner.is_some_and(|owner| !owner.contains(&&*package.name));
            let impure = built_in && PURE.contains(&&*package.name) && IMPURE.contains(&name);
            if of_ours || owned || impure {
                faults.insert(format!("{} uses {name}", package.name));
            }
        }
    }
    for (name, _) in EDGES {
        if !metadata.packages.iter().any(|package| package.name == name) {
            faults.insert(format!("{name} is gone"));
        }
    }
    faults.into_iter().collect()
}

fn has_workspace_lints(manifest: &str) -> bool {
    let mut sections = manifest.split("\n[").map(|section| section.trim_start_matches('['));
    let lints = sections.find_map(|section| section.strip_prefix("lints]"));
    lints.is_some_and(|lints| lints.lines().any(|line| line.trim() == "workspace = true"))
}

fn metadata(options: &[&str]) -> Result<Metadata> {
    let mut cargo = cargo();
    cargo.args(["metadata", "--format-version", "1", "--offline"]).args(options);
    let told = output(cargo.current_dir(root()?))?;
    serde_json::from_str(&told).context("what cargo says")
}

fn cargo() -> Command {
    let mut cargo = program(env!("CARGO"));
    // rustup's cargo finds its toolchain by these.
    for name in ["HOME", "PATH", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        if let Some(value) = std::env::var_os(name) {
            cargo.env(name, value);
        }
    }
    cargo
}

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this package has no folder above it")
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    dependencies: Vec<Dependency>,
    manifest_path: PathBuf,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    kind: Option<String>,
    name: String,
    optional: bool,
}
