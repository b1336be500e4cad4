//! The claim that the files of a manifest are those of the recorded commit.

use std::fmt::Write as _;
use std::path::Path;

use sbs_crypto::git::ObjectFormat;
use sbs_manifest::{CheckName, Outcome, Report, SourceEntry, SourceKind};
use sbs_proto::{CommitId, ImageReference, ImageTag};

use crate::common::{Build, Node, Project, chain, run};

/// Returns what failed, each with its reason.
fn failures(report: &Report) -> Vec<(CheckName, String)> {
    let failed = |check: &sbs_manifest::Check| match &check.outcome {
        Outcome::Failed(error) => Some((check.name, chain(error))),
        _ => None,
    };
    report.checks().iter().filter_map(failed).collect()
}

fn failures_of(build: &Build) -> Vec<(CheckName, String)> {
    failures(&build.opened().check())
}

/// Asserts that exactly these checks fail, the first for this reason.
fn assert_fails(build: &Build, names: &[CheckName], reason: &str) {
    let failed = failures_of(build);
    let failed_names: Vec<CheckName> = failed.iter().map(|(name, _)| *name).collect();
    assert_eq!(failed_names, names, "{failed:?}");
    assert!(failed[0].1.contains(reason), "`{}` is not `{reason}`", failed[0].1);
}

fn id(digit: &str) -> CommitId {
    CommitId::parse(&digit.repeat(40)).unwrap()
}

#[test]
fn a_report_names_every_check() {
    let report = Project::small().build().opened().check();
    let names: Vec<&str> = report.checks().iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "envelope",
            "signature",
            "layout",
            "record",
            "build-name",
            "image-tag",
            "manifest-key",
            "commit",
            "commit-time",
            "tree",
            "source"
        ]
    );
    assert!(report.all_passed());
}

#[test]
fn repositories_with_sha256_ids_are_proved_too() {
    let build = Project { format: ObjectFormat::Sha256, ..Project::small() }.build();
    assert_eq!(build.record.source.commit.as_str().len(), 64);
    assert!(build.opened().check().all_passed());
}

#[test]
fn a_record_of_something_else_is_noticed() {
    let good = Project::small().build();
    let tag = ImageTag::parse("1234567").unwrap();

    let mut build = good.clone();
    build.record.schema = "other".to_owned();
    assert_fails(&build, &[CheckName::Record], "`other`, expected `sbs-build-record-1`");

    let mut build = good.clone();
    build.record.status.image_tag = Some("x".to_owned());
    assert_fails(&build, &[CheckName::ImageTag], "image tag of the status is `x`");

    let mut build = good.clone();
    build.record.status.image_tag = Some(tag.to_string());
    build.record.image.reference = ImageReference::parse("r.example/a").unwrap().with_tag(tag);
    assert_fails(&build, &[CheckName::ImageTag], "end of the image tag is `1234567`");

    let mut build = good.clone();
    build.record.manifest_public_key_pem =
        sbs_crypto::ManifestSigningKey::generate().unwrap().verifying_key().to_pem();
    assert_fails(&build, &[CheckName::ManifestKey], "names another manifest key");

    let mut build = good.clone();
    build.record.manifest_public_key_pem = "no key".to_owned();
    assert_fails(&build, &[CheckName::ManifestKey], "names another manifest key");

    let mut build = good.clone();
    build.record.source.tree = id("a");
    assert_fails(&build, &[CheckName::Tree], "tree of the commit object");

    let mut build = good.clone();
    build.record.source.commit_time += 1;
    assert_fails(&build, &[CheckName::CommitTime], "time of the commit object is `1700000000`");

    let mut build = good;
    build.record.source.commit = id("a");
    let failed: Vec<_> = failures_of(&build).into_iter().map(|(name, _)| name).collect();
    assert_eq!(failed, [CheckName::ImageTag, CheckName::Commit]);
}

#[test]
fn a_manifest_under_another_name_is_noticed() {
    let good = Project::small().build();
    let other = sbs_proto::ManifestName::parse("manifest.other").unwrap();
    let archive = crate::common::sealed(&other, &good.inner().0);
    let report = crate::common::open(&archive).unwrap().check();
    let failed = failures(&report);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].0, CheckName::BuildName);
    assert!(failed[0].1.starts_with("build name of the manifest is `other`"), "{failed:?}");
}

#[test]
fn another_commit_object_is_noticed() {
    let good = Project::small().build();
    let mut build = good.clone();
    build.commit.extend(b"more\n");
    assert_fails(&build, &[CheckName::Commit], "id of the commit object");

    let mut build = good;
    build.commit = b"no commit".to_vec();
    let names = [CheckName::Commit, CheckName::CommitTime, CheckName::Tree];
    assert_fails(&build, &names, "id of the commit object");
}

#[test]
fn every_difference_between_files_and_listing_is_noticed() {
    let good = Project::small();
    let changed = |change: &dyn Fn(&mut Project)| {
        let mut project = good.clone();
        change(&mut project);
        Build { entries: project.entries(), ..good.build() }
    };
    let put = |path: &'static str, node: Node| {
        changed(&move |project| drop(project.nodes.insert(path.into(), node.clone())))
    };
    let file = |text: &str| Node::File(text.into());
    let source = [CheckName::Source];
    let build = put("lib/a.rs", file("x"));
    assert_fails(&build, &source, "`lib/a.rs` has another content than in the commit");
    let build = put("link", file("/etc/shadow"));
    assert_fails(&build, &source, "`link` has another content than in the commit");
    let build = put("new", file(""));
    assert_fails(&build, &source, "`new` is not in the commit");
    let build = put("aaa", file(""));
    assert_fails(&build, &source, "`aaa` is not in the commit");
    let build = put("zzz", file(""));
    assert_fails(&build, &source, "`zzz` is not in the commit");
    let build = put("lib/deep/z/z", file(""));
    assert_fails(&build, &source, "`lib/deep/z` is not in the commit");
    let build = put("run.sh", file("#!/bin/sh\n"));
    assert_fails(&build, &source, "`run.sh` is of another kind than in the commit");
    let build = put("Dockerfile", Node::Executable(b"FROM debian:12\n".to_vec()));
    assert_fails(&build, &source, "`Dockerfile` is of another kind than in the commit");
    for name in ["Dockerfile", "lib/deep/b.rs", "run.sh"] {
        let build = changed(&|project| drop(project.nodes.remove(name.as_bytes())));
        assert_fails(&build, &source, &format!("`{name}` of the commit is not in the manifest"));
    }

    let mut build = good.build();
    let directory = SourceEntry::new(b"empty", SourceKind::Directory).unwrap();
    build.entries.push((directory, Vec::new()));
    build.entries.sort_by_key(|(entry, _)| entry.sort_key());
    assert_fails(&build, &source, "`empty` is not in the commit");
}

#[test]
fn a_listing_of_another_tree_is_noticed() {
    // The files are those of the listing, but the listing is not that of the commit.
    let good = Project::small();
    let mut other = good.clone();
    other.nodes.insert(b"run.sh".to_vec(), Node::Executable(b"evil\n".to_vec()));
    let build = Build { tree: other.listing().0, entries: other.entries(), ..good.build() };
    assert_fails(&build, &[CheckName::Tree], "tree of the listing");

    // A directory's own id is right, but what is listed below it is not what it is made of.
    let mut below = good.clone();
    below.nodes.insert(b"lib/deep/b.rs".to_vec(), Node::File(b"evil\n".to_vec()));
    let listing = String::from_utf8(good.listing().0).unwrap();
    let line = |listing: &str| {
        let mut lines = listing.split('\0');
        lines.find(|line| line.ends_with("\tlib/deep/b.rs")).unwrap().to_owned()
    };
    let forged =
        listing.replace(&line(&listing), &line(&String::from_utf8(below.listing().0).unwrap()));
    let build = Build { tree: forged.into_bytes(), entries: below.entries(), ..good.build() };
    assert_fails(&build, &[CheckName::Tree], "directory `lib/deep/` an id that is not its own");
}

#[test]
fn what_git_does_not_print_is_no_listing() {
    let good = Project::small().build();
    let blob = "100644 blob e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\t";
    for tree in [
        "x".to_owned(),
        "\0".to_owned(),
        blob.to_owned() + "a",
        blob.to_owned() + "\0",
        blob.to_owned() + "no/directory\0",
        blob.replace("100644", "100777") + "a\0",
        blob.replace("blob", "tree") + "a\0",
        blob.replace("e69d", "E69D") + "a\0",
        blob.replace('\t', " x\t") + "a\0",
    ] {
        let build = Build { tree: tree.clone().into_bytes(), ..good.clone() };
        let failed = failures_of(&build);
        let tree_failed = failed.iter().any(|(name, error)| {
            *name == CheckName::Tree && error.contains("`data/tree` is not what")
        });
        assert!(tree_failed, "{tree:?}: {failed:?}");
    }
}

#[test]
fn files_of_submodules_are_named_as_not_proved() {
    let mut project = Project::small();
    // `sub-x` and `sub.x` sort between git's `sub` and the archive's `sub/`.
    for name in ["sub-x", "sub.x", "sub0"] {
        project.nodes.insert(name.into(), Node::File(name.into()));
    }
    project.nodes.insert(b"sub/a".to_vec(), Node::Submodule(b"anything".to_vec()));
    project.nodes.insert(b"sub/b/c".to_vec(), Node::Submodule(b"anything".to_vec()));
    let build = project.build();
    let report = build.opened().check();
    assert!(report.all_passed(), "{report:?}");
    assert_eq!(report.unproven(), ["sub"]);

    project.nodes.insert(b"sub1/a".to_vec(), Node::File(Vec::new()));
    let build = Build { entries: project.entries(), ..build };
    assert_fails(&build, &[CheckName::Source], "`sub1` is not in the commit");
}

/// The same with a repository that git made, and with what git says of it.
#[test]
fn git_agrees() {
    for format in ["sha1", "sha256"] {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        let git = |arguments: &[&str]| {
            let name = ["-c", "user.name=u", "-c", "user.email=u@example", "-c", "gc.auto=0"];
            run(top, "git", &[&name, arguments].concat())
        };
        git(&["init", "-q", &format!("--object-format={format}"), "."]);
        let project = Project::small();
        write_files(top, &project);
        git(&["add", "--all"]);
        git(&["commit", "-q", "--date=@1700000000 +0000", "-m", "first\n\nmessage"]);
        let commit = git(&["rev-parse", "HEAD"]).trim().to_owned();
        let tree = git(&["rev-parse", "HEAD^{tree}"]).trim().to_owned();
        let time = git(&["log", "-1", "--format=%ct"]).trim().parse().unwrap();

        let mut build = project.build();
        let tag = ImageTag::parse(commit.split_at(7).0).unwrap();
        build.record.source.commit = CommitId::parse(&commit).unwrap();
        build.record.source.tree = CommitId::parse(&tree).unwrap();
        build.record.source.commit_time = time;
        build.record.status.image_tag = Some(tag.to_string());
        build.record.image.reference = build.record.image.reference.with_tag(tag);
        build.commit = git(&["cat-file", "commit", &commit]).into_bytes();
        build.tree = git(&["ls-tree", "-r", "-t", "-z", "--full-tree", &commit]).into_bytes();
        let report = build.opened().check();
        let mut text = String::new();
        for (name, error) in failures(&report) {
            write!(text, "{name}: {error}; ").unwrap();
        }
        assert!(report.all_passed(), "{format}: {text}");
        if format == "sha1" {
            assert_eq!(build.tree, project.listing().0);
        }
    }
}

fn write_files(top: &Path, project: &Project) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    for (path, node) in &project.nodes {
        let path = top.join(std::str::from_utf8(path).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match node {
            Node::Link(target) => symlink(std::str::from_utf8(target).unwrap(), path).unwrap(),
            Node::Executable(content) => {
                std::fs::write(&path, content).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
            Node::File(content) | Node::Submodule(content) => {
                std::fs::write(path, content).unwrap();
            }
        }
    }
}
