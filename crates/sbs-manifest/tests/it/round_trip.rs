use std::io::{self, Cursor, Read};
use std::num::NonZeroUsize;

use proptest::prelude::*;
use sbs_crypto::ManifestSigningKey;
use sbs_manifest::{
    Compatibility, EntryKind, Envelope, InnerWriter, Limits, Materials, SourceEntry, SourceKind,
    UnverifiedManifest, Weakness, WriteManifestError, sign,
};
use sbs_proto::Step;

use crate::common::{COMMIT_TIME, LOG, Node, Project, chain, contents, decompress, key, open};

#[test]
fn everything_that_was_written_is_read() {
    let build = Project::small().build();
    let mut manifest = build.opened();
    assert_eq!(manifest.name(), &build.name());
    assert_eq!(manifest.digest(), build.inner().1);
    assert_eq!(manifest.record().unwrap(), build.record);
    assert_eq!(manifest.status().unwrap().status.as_str(), Step::ImagePushed.as_str());
    let mut log = Vec::new();
    assert_eq!(manifest.write_log(&mut log).unwrap(), LOG.len() as u64);
    assert_eq!(log, LOG);
    let found = contents(&mut manifest).unwrap();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "data",
            "data/build.json",
            "data/build.log",
            "data/commit",
            "data/tree",
            "git",
            "git/Dockerfile",
            "git/lib.rs",
            "git/lib",
            "git/lib/a.rs",
            "git/lib/deep",
            "git/lib/deep/b.rs",
            "git/link",
            "git/run.sh"
        ]
    );
    assert_eq!(found[3].1, build.commit);
    assert_eq!(found[4].1, build.tree);
    assert_eq!(found[12].1, b"../../etc/passwd");
    assert!(manifest.check().all_passed(), "{:?}", manifest.check());
    assert_eq!(manifest.check().weaknesses(), []);
}

#[test]
fn only_files_and_directories_with_the_modes_of_the_format() {
    let build = Project::small().build();
    let mut manifest = build.opened();
    let mut entries = manifest.entries().unwrap();
    let mut kinds = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        kinds.push((entry.path().to_string(), entry.kind()));
    }
    assert!(kinds.contains(&("git/run.sh".to_owned(), EntryKind::Executable)));
    assert!(kinds.contains(&("git/link".to_owned(), EntryKind::File)));
    assert!(kinds.contains(&("git/lib".to_owned(), EntryKind::Directory)));
}

#[test]
fn the_same_build_gives_the_same_bytes() {
    let build = Project::small().build();
    assert_eq!(build.manifest(), build.manifest());
}

/// Auditors keep manifests for years, and make them again to compare. If this fails, the format
/// has changed: `docs/formats/manifest.md` says what that takes.
#[test]
fn the_bytes_are_those_of_the_first_version() {
    let mut build = Project::small().build();
    build.record.manifest_public_key_pem = "key".to_owned();
    let inner = build.inner().0;
    assert_eq!(
        sbs_crypto::digest(&decompress(&inner)).to_hex(),
        "8a04aaa23a8983bdcd5c00605aab4e754771f16014f45178cedfaa56add3495d"
    );
    assert_eq!(
        sbs_crypto::digest(&inner).to_hex(),
        "d4d83333ad3f0581c3c8a7b5d7a961ae9399c5434abb51d41a60e6fd2deefa78"
    );
}

#[test]
fn bytes_do_not_depend_on_the_pieces_in_which_content_comes() {
    /// Gives one byte at a time, and is interrupted before each.
    struct Slow<'a>(&'a [u8], bool);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }
    let build = Project::small().build();
    let materials = Materials {
        record: &build.record,
        commit: &build.commit,
        tree: &build.tree,
        log: Slow(LOG, false),
        log_size: LOG.len() as u64,
    };
    let mut writer = InnerWriter::begin(Vec::new(), materials, &Limits::default()).unwrap();
    for (entry, content) in &build.entries {
        writer.add_source(entry, Slow(content, false)).unwrap();
    }
    assert_eq!(writer.finish().unwrap().0, build.inner().0);
}

#[test]
fn long_and_strange_names_come_back() {
    let names: Vec<Vec<u8>> = vec![
        vec![b'a'; 95],
        vec![b'b'; 96],
        vec![b'c'; 97],
        vec![b'd'; 255],
        [&[b'e'; 100][..], b"/", &[b'e'; 100]].concat(),
        [&[b'f'; 150][..], b"/", &[b'f'; 100]].concat(),
        [&[b'f'; 152][..], b"/", &[b'f'; 100]].concat(),
        [&[b'g'; 100][..], b"/", &[b'g'; 101]].concat(),
        b"-rf".to_vec(),
        b"h/..h".to_vec(),
        b"i \xff\xfe\x80".to_vec(),
        b"j\\k".to_vec(),
        [[&[b'l'; 200][..], b"/"].concat().repeat(20), b"m".to_vec()].concat(),
    ];
    let mut project = Project::of([]);
    for name in &names {
        project.nodes.insert(name.clone(), Node::File(name.clone()));
    }
    let mut manifest = project.build().opened();
    assert!(manifest.check().all_passed(), "{:?}", manifest.check());
    let mut seen = Vec::new();
    let mut entries = manifest.entries().unwrap();
    while let Some(mut entry) = entries.next_entry().unwrap() {
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if let Some(name) = entry.path().as_bytes().strip_prefix(b"git/")
            && entry.kind() == EntryKind::File
        {
            assert_eq!(content, name);
            seen.push(name.to_vec());
        }
    }
    seen.sort();
    let mut names = names;
    names.sort();
    assert_eq!(seen, names);
}

#[test]
fn times_that_no_header_holds_are_the_nearest_that_one_does() {
    for (time, expected) in [(-1, 0), (i64::MAX, 0o777_7777_7777), (5, 5)] {
        let mut build = Project::small().build();
        build.record.source.commit_time = time;
        let tar = decompress(&build.inner().0);
        let header = tar::Header::from_byte_slice(&tar[..512]);
        assert_eq!(header.mtime().unwrap(), expected);
    }
}

#[test]
fn a_larger_source_takes_several_streams() {
    let mut project = Project::small();
    let noise: Vec<u8> = (0..3_000_000_u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).to_le_bytes()[0])
        .collect();
    project.nodes.insert(b"noise".to_vec(), Node::File(noise));
    let build = project.build();
    let streams = build.inner().0.windows(10).filter(|w| w.starts_with(b"BZh91AY&SY")).count();
    assert!(streams >= 4, "{streams}");
    assert!(build.opened().check().all_passed());
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let mut project = Project::small();
    for at in 0..4_u64 {
        let noise = (0..700_000_u64)
            .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15 + at) >> 60).to_le_bytes()[0]);
        project.nodes.insert(format!("noise{at}").into_bytes(), Node::File(noise.collect()));
        project.nodes.insert(format!("zeros{at}").into_bytes(), Node::File(vec![0; 700_000]));
    }
    let build = project.build();
    let signature = sign(&sbs_crypto::digest(b""), key()).unwrap();
    let name = build.name();
    let archives = [1, 2, 7].map(|count| {
        let limits = Limits { threads: NonZeroUsize::new(count).unwrap(), ..Limits::default() };
        let (inner, digest, inner_size) = build.try_inner(&limits).unwrap();
        assert_eq!(digest, sbs_crypto::digest(&inner));
        let envelope =
            Envelope { name: &name, signature: &signature, inner_size, commit_time: COMMIT_TIME };
        envelope.write(inner.as_slice(), Vec::new(), &limits).unwrap()
    });
    assert!(archives.iter().all(|archive| *archive == archives[0]));
}

#[test]
fn writer_refuses_entries_that_are_out_of_order_or_twice() {
    let file = |path: &[u8]| SourceEntry::new(path, SourceKind::File(0)).unwrap();
    let directory = |path: &[u8]| SourceEntry::new(path, SourceKind::Directory).unwrap();
    for (entries, expected) in [
        (vec![file(b"b"), file(b"a")], "`git/a` is out of order"),
        (vec![file(b"a"), file(b"a")], "`git/a` appears twice"),
        (vec![directory(b"a"), directory(b"a")], "`git/a` appears twice"),
        (vec![file(b"a"), directory(b"a")], "`git/a` appears twice"),
        (vec![file(b"a"), file(b"a.b"), directory(b"a")], "`git/a` appears twice"),
        (vec![file(b"a/b")], "`git/a/b` is not in a directory"),
        (vec![file(b"a"), file(b"a/b")], "`git/a/b` is not in a directory"),
        (vec![directory(b"a"), file(b"a/b/c")], "`git/a/b/c` is not in a directory"),
        (vec![directory(b"a"), file(b"a0"), file(b"a/b")], "`git/a/b` is out of order"),
    ] {
        let mut build = Project::small().build();
        build.entries = entries.into_iter().map(|entry| (entry, Vec::new())).collect();
        let error = chain(&build.try_inner(&Limits::default()).unwrap_err());
        assert!(error.contains(expected), "{error} is not {expected}");
    }
}

#[test]
fn a_refused_entry_spoils_the_archive() {
    let build = Project::small().build();
    let materials = Materials {
        record: &build.record,
        commit: &build.commit,
        tree: &build.tree,
        log: LOG,
        log_size: LOG.len() as u64,
    };
    let mut writer = InnerWriter::begin(Vec::new(), materials, &Limits::default()).unwrap();
    let entry = SourceEntry::new(b"a", SourceKind::File(3)).unwrap();
    let next = SourceEntry::new(b"b", SourceKind::File(0)).unwrap();
    assert!(matches!(
        writer.add_source(&entry, &b"four"[..]),
        Err(WriteManifestError::Changed { size: 3, .. })
    ));
    assert!(matches!(writer.add_source(&next, io::empty()), Err(WriteManifestError::Spoiled)));
    assert!(matches!(writer.finish(), Err(WriteManifestError::Spoiled)));
}

#[test]
fn writer_refuses_content_of_another_size() {
    for (size, content) in [(5, &b"four"[..]), (3, b"four"), (0, b"x"), (1, b"")] {
        let mut build = Project::small().build();
        let entry = SourceEntry::new(b"a", SourceKind::File(size)).unwrap();
        build.entries = vec![(entry, content.to_vec())];
        let error = build.try_inner(&Limits::default()).unwrap_err();
        assert!(matches!(error, WriteManifestError::Changed { .. }), "{error}");
    }
}

#[test]
fn writer_refuses_what_a_reader_would() {
    let build = Project::small().build();
    let tar = decompress(&build.inner().0);
    let unpacked = tar.len() as u64;
    let (listing, commit) = (build.tree.len() as u64, build.commit.len() as u64);
    let entries = 6 + build.entries.len() as u64;
    let most = Limits {
        commit_bytes: commit,
        entries,
        listing_bytes: listing,
        log_bytes: LOG.len() as u64,
        unpacked_bytes: unpacked,
        ..Limits::default()
    };
    build.try_inner(&most).unwrap();
    for (limits, expected) in [
        (Limits { commit_bytes: commit - 1, ..most }, "`data/commit` is larger than"),
        (Limits { entries: entries - 1, ..most }, "more than 13 entries"),
        (Limits { entry_bytes: 15, ..most }, "`data/build.json` is larger than 15 bytes"),
        (Limits { listing_bytes: listing - 1, ..most }, "`data/tree` is larger than"),
        (Limits { log_bytes: LOG.len() as u64 - 1, ..most }, "`data/build.log` is larger than"),
        (Limits { record_bytes: 100, ..most }, "`data/build.json` is larger than 100 bytes"),
        (Limits { unpacked_bytes: unpacked - 1, ..most }, "manifest would unpack to more than"),
    ] {
        let error = chain(&build.try_inner(&limits).unwrap_err());
        assert!(error.contains(expected), "{error} is not {expected}");
    }
    let mut zeros = Project::small();
    zeros.nodes.insert(b"zeros".to_vec(), Node::File(vec![0; 4_000_000]));
    let tight = Limits { ratio: 100, ratio_from_bytes: 1_000_000, ..Limits::default() };
    let error = zeros.build().try_inner(&tight).unwrap_err();
    assert!(matches!(error, WriteManifestError::Ratio(50)), "{error}");
}

#[test]
fn another_key_does_not_open_a_manifest() {
    let archive = Project::small().build().manifest();
    let other = ManifestSigningKey::generate().unwrap();
    let spool = Cursor::new(Vec::new());
    let unverified = UnverifiedManifest::read(
        archive.as_slice(),
        spool,
        Compatibility::Strict,
        &Limits::default(),
    )
    .unwrap();
    unverified.verify(&other.verifying_key()).unwrap_err();
}

#[test]
fn a_manifest_of_ours_can_be_read_as_one_of_the_original() {
    let archive = Project::small().build().manifest();
    let mut manifest = crate::common::open_as(&archive, Compatibility::Original).unwrap();
    let report = manifest.check();
    assert!(!report.any_failed() && !report.all_passed(), "{report:?}");
    assert!(report.weaknesses().contains(&Weakness::NoSourceProof));
}

#[test]
fn errors_and_debug_output_hold_no_key() {
    let build = Project::small().build();
    let manifest = build.opened();
    let text = format!("{manifest:?} {:?}", key().verifying_key());
    assert!(!text.contains("PRIVATE"), "{text}");
    open(&build.manifest()[..100]).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_and_is_proved(
        files in prop::collection::btree_map(
            prop::collection::vec("[a-c.]{1,3}|[ -~]{1,12}|é", 1..4),
            (prop::collection::vec(any::<u8>(), 0..700), 0..3),
            0..12,
        )
    ) {
        let mut project = Project::of([]);
        for (parts, (content, kind)) in files {
            let path = parts.join("/").into_bytes();
            let taken = |other: &Vec<u8>| {
                let below = |a: &[u8], b: &[u8]| {
                    a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
                };
                below(other, &path) || below(&path, other)
            };
            if SourceEntry::new(&path, SourceKind::File(0)).is_err()
                || project.nodes.keys().any(taken)
            {
                continue;
            }
            let node = match kind {
                0 => Node::File(content),
                1 => Node::Executable(content),
                _ => Node::Link(content),
            };
            project.nodes.insert(path, node);
        }
        let build = project.build();
        let mut manifest = build.opened();
        let found = contents(&mut manifest).unwrap();
        prop_assert_eq!(found.len(), 6 + build.entries.len());
        prop_assert!(manifest.check().all_passed(), "{:?}", manifest.check());
    }
}
