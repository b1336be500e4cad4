//! Thin and bare manifests: the same evidence in other clothes.

use std::fs;

use sbs_crypto::git::ObjectFormat;
use sbs_manifest::{
    CheckName, Compatibility, Detail, Form, KeyOrigin, Limits, NotMade, Outcome, SourceError,
    SourceKind, UnverifiedManifest, WriteManifestError, sign,
};
use sbs_proto::RelativePath;

use crate::common::{
    Build, LOG, Node, Project, Spool, chain, contents, key, open, open_as, run, sealed,
};

fn file(text: &str) -> Node {
    Node::File(text.as_bytes().to_vec())
}

/// A project whose Dockerfile is some directories below the top.
fn deep() -> Build {
    let mut project = Project::small();
    project.nodes.insert(b"a/b/Dockerfile".to_vec(), Node::Executable(b"FROM a\n".to_vec()));
    project.nodes.insert(b"a/b/c/x".to_vec(), file("x"));
    project.nodes.insert(b"a/y".to_vec(), file("y"));
    with_dockerfile(&project, "a/b/Dockerfile")
}

fn with_dockerfile(project: &Project, path: &str) -> Build {
    let mut build = project.build();
    build.record.engine.dockerfile = RelativePath::parse(path).unwrap();
    build
}

fn bare(archive: &[u8], signature: &[u8], name: &Build, limits: &Limits) -> Result<Form, String> {
    let spool = Spool::default();
    let form = Compatibility::Strict;
    let unverified =
        UnverifiedManifest::read_bare(archive, signature, name.name(), spool, form, limits)
            .map_err(|error| chain(&error))?;
    let form = unverified.form();
    let mut manifest = unverified.verify(&key().verifying_key()).map_err(|error| chain(&error))?;
    assert!(manifest.check().all_passed());
    Ok(form)
}

#[test]
fn a_thin_manifest_proves_the_dockerfile_and_nothing_else_of_the_source() {
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let build = Project { format, ..Project::small() }.build();
        let mut manifest = open(&build.thin()).unwrap();
        assert_eq!((manifest.form(), manifest.name()), (Form::Thin, &build.name()));
        assert_eq!(manifest.record().unwrap(), build.record);
        let mut log = Vec::new();
        manifest.write_log(&mut log).unwrap();
        assert_eq!(log, LOG);
        let report = manifest.check();
        assert!(report.all_passed() && report.verified(), "{report:?}");
        let names: Vec<_> = report.checks().iter().map(|check| check.name.as_str()).collect();
        assert!(names.contains(&"dockerfile") && names.contains(&"full"), "{names:?}");
        assert!(!names.contains(&"source"), "{names:?}");
        let text = report.to_text(Detail::Outcome, KeyOrigin::File);
        for part in [
            "proved: `Dockerfile` is that of that commit\n",
            "not proved: which bytes the source has but for the Dockerfile",
            "not proved: that the full manifest (sha256:",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn a_thin_manifest_has_the_way_to_the_dockerfile_and_no_more() {
    let build = deep();
    let mut manifest = open(&build.thin()).unwrap();
    let found = contents(&mut manifest).unwrap();
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "data",
            "data/build.json",
            "data/build.log",
            "data/commit",
            "data/tree",
            "data/full.json",
            "git",
            "git/a",
            "git/a/b",
            "git/a/b/Dockerfile"
        ]
    );
    let listing = String::from_utf8(found[4].1.clone()).unwrap();
    let paths: Vec<_> =
        listing.split_terminator('\0').map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(
        paths,
        [
            "Dockerfile",
            "a",
            "a/b",
            "a/b/Dockerfile",
            "a/b/c",
            "a/y",
            "lib.rs",
            "lib",
            "link",
            "run.sh"
        ]
    );
    assert!(manifest.check().all_passed());
}

/// The other listing is 6 KB larger, and the manifest is not.
#[test]
fn a_thin_manifest_does_not_grow_with_the_repository() {
    let small = Project::small().build().thin().len();
    let mut project = Project::small();
    for i in 0..120 {
        project.nodes.insert(format!("src/{i}.rs").into_bytes(), file(&i.to_string()));
    }
    let large = project.build().thin().len();
    assert!(large < small + 200, "{small} and {large}");
    assert!(large < 6_000, "{large}");
}

#[test]
fn the_same_build_makes_the_same_bytes() {
    assert_eq!(deep().thin(), deep().thin());
    let mut other = deep();
    other.record.server_version.push('x');
    assert_ne!(deep().thin(), other.thin());
}

#[test]
fn a_thin_manifest_belongs_to_one_full_one() {
    let build = Project::small().build();
    let mut other = build.clone();
    other.record.server_version.push('x');
    for (full, expected) in [(&build, true), (&other, false)] {
        let mut thin = open(&build.thin()).unwrap();
        let full = full.opened();
        assert_eq!(thin.matches(&full).unwrap(), expected);
        let mut report = thin.check();
        report.hold_against(&mut thin, &full);
        assert_eq!(report.verified(), expected);
        let text = report.to_text(Detail::Outcome, KeyOrigin::File);
        assert_eq!(text.contains("passed: match\n"), expected, "{text}");
        assert_eq!(text.contains("that the full manifest"), !expected, "{text}");
    }
    let mut thin = open(&build.thin()).unwrap();
    let other = open(&build.thin()).unwrap();
    assert!(!thin.matches(&other).unwrap());
    let error = build.opened().full().unwrap_err();
    assert!(chain(&error).contains("manifest has no `data/full.json`"), "{}", chain(&error));
}

#[test]
fn a_link_is_no_dockerfile_of_a_thin_manifest() {
    for path in ["link", "lib", "lib/none", "Dockerfile/x"] {
        let build = with_dockerfile(&Project::small(), path);
        let error = build.try_thin_inner(&Limits::default()).unwrap_err();
        let WriteManifestError::Dockerfile(cause) = error else { panic!("{error:?}") };
        let kind = matches!(cause, SourceError::Mode(_));
        assert!(kind || matches!(cause, SourceError::Unlisted(_)), "{cause:?}");
    }
}

#[test]
fn a_dockerfile_of_a_submodule_is_signed_and_not_proved() {
    let mut project = Project::small();
    project.nodes.insert(b"sub/d/Dockerfile".to_vec(), Node::Submodule(b"FROM x\n".to_vec()));
    let build = with_dockerfile(&project, "sub/d/Dockerfile");
    let report = open(&build.thin()).unwrap().check();
    assert!(report.all_passed(), "{report:?}");
    assert_eq!(report.unproven(), ["sub"]);
    let text = report.to_text(Detail::Outcome, KeyOrigin::File);
    assert!(!text.contains("Dockerfile` is that of that commit"), "{text}");
    assert!(text.contains("not proved: the files of submodule `sub`"), "{text}");
}

#[test]
fn s16_a_thin_manifest_is_read_strictly_whatever_was_asked() {
    let build = Project::small().build();
    let manifest = open_as(&build.thin(), Compatibility::Original).unwrap();
    assert_eq!(manifest.compatibility(), Compatibility::Strict);
}

#[test]
fn r9_every_changed_byte_of_a_thin_manifest_is_noticed() {
    let good = Project::small().build().thin();
    let original = open(&good).unwrap().digest();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // What is around the archive is not signed; what is in it is.
        if let Ok(mut manifest) = open(&bad) {
            assert_eq!(manifest.digest(), original, "{at}");
            let report = manifest.check();
            assert!(!report.verified() || manifest.name() == &Project::small().build().name());
        }
    }
    for end in 0..good.len() {
        open(&good[..end]).unwrap_err();
    }
}

#[test]
fn a_writer_refuses_what_a_reader_would_refuse() {
    let build = deep();
    let limits = Limits::default();
    let (inner, _, _) = build.try_thin_inner(&limits).unwrap();
    for tight in [
        Limits { archive_bytes: inner.len() as u64 - 1, ..limits },
        Limits { entries: 9, ..limits },
        Limits { unpacked_bytes: 4_000, ..limits },
        Limits { listing_bytes: 100, ..limits },
        Limits { record_bytes: 100, ..limits },
    ] {
        build.try_thin_inner(&tight).unwrap_err();
        let thin = build.thin();
        let spool = Spool::default();
        let read = UnverifiedManifest::read(thin.as_slice(), spool, Compatibility::Strict, &tight);
        let refused = match read {
            Err(_) => true,
            Ok(read) => !read.verify(&key().verifying_key()).unwrap().check().verified(),
        };
        assert!(refused, "{tight:?}");
    }
}

#[test]
fn an_archive_and_a_signature_in_two_files_are_a_manifest() {
    let build = Project::small().build();
    let limits = Limits::default();
    let full = build.inner().0;
    let thin = build.try_thin_inner(&limits).unwrap().0;
    let sign = |bytes: &[u8]| sign(&sbs_crypto::digest(bytes), key()).unwrap().to_string();
    for (bytes, other, form) in [(&full, &thin, Form::Full), (&thin, &full, Form::Thin)] {
        let signature = sign(bytes);
        assert_eq!(bare(bytes, signature.as_bytes(), &build, &limits), Ok(form));
        let error = bare(bytes, sign(other).as_bytes(), &build, &limits).unwrap_err();
        assert!(error.contains("was not signed"), "{error}");
        let error = bare(bytes, format!("{signature}\n").as_bytes(), &build, &limits).unwrap_err();
        assert!(error.contains("line end"), "{error}");
        let longer = [bytes.as_slice(), b"x"].concat();
        let error = bare(&longer, signature.as_bytes(), &build, &limits).unwrap_err();
        assert!(error.contains("was not signed"), "{error}");
        let tight = Limits { archive_bytes: bytes.len() as u64 - 1, ..limits };
        let error = bare(bytes, signature.as_bytes(), &build, &tight).unwrap_err();
        assert!(error.contains("archive is larger than"), "{error}");
    }
}

#[test]
fn checks_that_were_not_made_say_why_and_are_no_success() {
    let mut build = Project::small().build();
    build.record.schema.push('x');
    let report = build.opened().check();
    assert!(!report.verified());

    // A manifest that ends before its source: what builds on the layout is not made.
    let tar = crate::common::decompress(&Project::small().build().inner().0);
    let cut = crate::common::compress(&tar[..512 * 2]);
    let report = open(&sealed(&build.name(), &cut)).unwrap().check();
    let why: Vec<_> = report
        .checks()
        .iter()
        .filter_map(|check| match check.outcome {
            Outcome::NotMade(why) => Some((check.name, why)),
            _ => None,
        })
        .collect();
    assert!(why.contains(&(CheckName::Source, NotMade::After(CheckName::Layout))), "{why:?}");
    assert!(!report.verified());
    let text = report.to_text(Detail::Explained, KeyOrigin::File);
    assert!(text.contains("not made: source: it builds on `layout`, which did not pass"), "{text}");
    assert!(text.ends_with("\nverify=failed") && !text.contains("\nproved: "), "{text}");

    let original = open_as(&build.manifest(), Compatibility::Original).unwrap().check();
    assert!(original.verified() && !original.all_passed());
    let json = serde_json::to_value(original.view(KeyOrigin::Server)).unwrap();
    assert_eq!((&json["schema"], &json["key_source"]), (&1.into(), &"server".into()));
    let source = json["checks"].as_array().unwrap().iter().find(|c| c["name"] == "source").unwrap();
    assert_eq!(source["reason"], "a manifest of the original has nothing for it");
    assert_eq!(source["outcome"], "not-made");
}

#[test]
fn a_report_explains_every_check() {
    for build in [Project::small().build(), deep()] {
        for bytes in [build.manifest(), build.thin()] {
            let report = open(&bytes).unwrap().check();
            let text = report.to_text(Detail::Explained, KeyOrigin::File);
            let passed = text.lines().filter(|line| line.starts_with("passed: ")).count();
            let compared = text.lines().filter(|line| line.starts_with("    compared: ")).count();
            assert_eq!(
                (passed, compared),
                (report.checks().len(), report.checks().len()),
                "{text}"
            );
            assert!(text.ends_with("\nverify=OK"), "{text}");
        }
    }
}

#[test]
fn names_of_files_in_a_record_are_those_of_its_manifest() {
    let mut build = Project::small().build();
    build.record.manifests = Some(build.name().files());
    assert!(open(&build.thin()).unwrap().check().all_passed());
    assert!(build.opened().check().all_passed());
    build.record.manifests.as_mut().unwrap().thin.push('x');
    let report = open(&build.thin()).unwrap().check();
    let text = report.to_text(Detail::Outcome, KeyOrigin::File);
    assert!(text.contains("FAILED: build-name: name of the thin manifest's file"), "{text}");
}

/// The recipe of `docs/formats/manifest.md`, "Thin form", with tools that know nothing of this
/// crate.
#[test]
fn zstd_tar_openssl_and_git_agree() {
    let build = deep();
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path();
    fs::write(top.join("NAME.thin.sig.tar.zst"), build.thin()).unwrap();
    fs::write(top.join("public.pem"), key().verifying_key().to_pem()).unwrap();
    let recipe = "zstd -dc NAME.thin.sig.tar.zst | tar -x
        openssl dgst -sha256 -binary REAL.thin.tar.zst > digest
        xxd -r -p REAL.thin.sig > signature
        openssl dgst -sha256 -verify public.pem -signature signature digest
        zstd -dc REAL.thin.tar.zst | tar -x
        git hash-object git/a/b/Dockerfile
        git hash-object -t commit data/commit";
    let recipe = recipe.replace("REAL", build.name().as_str());
    let told = run(top, "bash", &["-euo", "pipefail", "-c", &recipe]);
    let commit = build.record.source.commit.as_str();
    let blob = sbs_crypto::git::object_id(
        sbs_crypto::git::ObjectKind::Blob,
        b"FROM a\n",
        ObjectFormat::Sha1,
    );
    assert_eq!(told, format!("Verified OK\n{blob}\n{commit}\n"));
    // Which commit, which tree, which Dockerfile: all by Python.
    let script = top.join("judge.py");
    fs::write(&script, include_str!("judge_thin.py")).unwrap();
    let told = run(top, "python3", &["-I", "judge.py", "NAME.thin.sig.tar.zst", "public.pem"]);
    assert_eq!(told, format!("a/b/Dockerfile {blob} {commit} {}\n", build.inner().1));
    // The judge says no, too.
    let mut lie = build.clone();
    lie.record.source.tree = lie.record.source.commit.clone();
    fs::write(top.join("NAME.thin.sig.tar.zst"), lie.thin()).unwrap();
    let wrong = "python3 -I judge.py NAME.thin.sig.tar.zst public.pem 2>&1 | grep AssertionError";
    assert!(run(top, "bash", &["-uc", wrong]).contains("tree"));
}

#[test]
fn an_executable_dockerfile_keeps_its_mode() {
    let build = deep();
    let kinds: Vec<_> = build.entries.iter().map(|(entry, _)| entry.clone()).collect();
    assert!(kinds.contains(
        &sbs_manifest::SourceEntry::new(b"a/b/Dockerfile", SourceKind::Executable(7)).unwrap()
    ));
    let mut manifest = open(&build.thin()).unwrap();
    let mut entries = manifest.entries().unwrap();
    let mut last = None;
    while let Some(entry) = entries.next_entry().unwrap() {
        last = Some((entry.path().to_string(), entry.kind()));
    }
    assert_eq!(last, Some(("git/a/b/Dockerfile".to_owned(), sbs_manifest::EntryKind::Executable)));
}
