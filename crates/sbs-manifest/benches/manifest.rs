//! What it costs to write, to verify and to check the manifest of a source tree of 5 MB, and to pack
//! content that is hard to sort.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a bench may panic as a test may"
)]

use std::hint::black_box;
use std::io::{Cursor, Write as _};
use std::num::NonZeroUsize;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sbs_manifest::{Compatibility, Limits, UnverifiedManifest};

#[expect(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/it/common.rs"]
mod common;

use bzip2::Compression;
use bzip2::write::BzEncoder;
use common::{Build, Node, Project, key, sealed};

/// Makes 500 files of 10 kB that pack about as well as source code does.
fn build() -> Build {
    let mut seed = 1_u64;
    let mut word = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        WORDS[usize::try_from(seed >> 33).unwrap() % WORDS.len()]
    };
    let mut project = Project::small();
    for at in 0..500 {
        let mut text = String::new();
        while text.len() < 10_000 {
            for _ in 0..8 {
                text.push_str(word());
                text.push(' ');
            }
            text.push_str(&at.to_string());
            text.push('\n');
        }
        let path = format!("src/part{}/file{at}.rs", at % 20);
        project.nodes.insert(path.into_bytes(), Node::File(text.into_bytes()));
    }
    project.build()
}

fn manifest(criterion: &mut Criterion) {
    let build = build();
    let size = build.entries.iter().map(|(_, content)| content.len() as u64).sum();
    let (inner, _) = build.inner();
    let archive = build.manifest();
    let public = key().verifying_key();
    let open = || {
        let spool = Cursor::new(Vec::with_capacity(inner.len()));
        let limits = Limits::default();
        UnverifiedManifest::read(archive.as_slice(), spool, Compatibility::Strict, &limits)
            .unwrap()
            .verify(&public)
            .unwrap()
    };

    let mut group = criterion.benchmark_group("manifest");
    group.sample_size(10).throughput(Throughput::Bytes(size));
    group.bench_function("pack and hash", |bencher| bencher.iter(|| black_box(build.inner())));
    group.bench_function("sign and wrap", |bencher| {
        bencher.iter(|| black_box(sealed(&build.name(), &inner)));
    });
    group.bench_function("read and verify", |bencher| bencher.iter(|| black_box(open())));
    group.bench_function("check", |bencher| {
        let mut manifest = open();
        bencher.iter(|| assert!(manifest.check().all_passed()));
    });
    group.finish();
}

/// Packs on one thread, beside the crate `bzip2` on the same content.
fn pack(criterion: &mut Criterion) {
    let limits = Limits { threads: NonZeroUsize::MIN, ..Limits::default() };
    let source = build();
    let mut group = criterion.benchmark_group("pack");
    group.sample_size(10);
    for (name, build) in [
        ("source", source),
        ("one period", one_file(b"ab".repeat(BAD / 2))),
        ("zeros", one_file(vec![0; BAD])),
        ("Fibonacci's word", one_file(fibonacci())),
        ("a text again and again", one_file(LICENSE.repeat(BAD / LICENSE.len()))),
    ] {
        let content: Vec<u8> =
            build.entries.iter().flat_map(|(_, content)| content.iter().copied()).collect();
        group.throughput(Throughput::Bytes(content.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(build.try_inner(&limits).unwrap()));
        });
        group.bench_function(format!("{name}, crate bzip2"), |bencher| {
            bencher.iter(|| {
                let mut encoder = BzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(&content).unwrap();
                black_box(encoder.finish().unwrap())
            });
        });
    }
    group.finish();
}

fn one_file(content: Vec<u8>) -> Build {
    Project::of([("bad", Node::File(content))]).build()
}

fn fibonacci() -> Vec<u8> {
    let (mut word, mut next) = (b"a".to_vec(), b"ab".to_vec());
    while word.len() < BAD {
        (word, next) = (next.clone(), [next, word].concat());
    }
    word.truncate(BAD);
    word
}

criterion_group!(benches, manifest, pack);
criterion_main!(benches);

const BAD: usize = 1_792_000;
const LICENSE: &[u8] =
    b"Permission is granted to copy this text, again and again, without a change.\n";
const WORDS: [&str; 24] = [
    "fn",
    "let",
    "mut",
    "self",
    "return",
    "match",
    "impl",
    "struct",
    "entry",
    "archive",
    "name",
    "kind",
    "size",
    "(",
    ")",
    "{",
    "}",
    "=>",
    "->",
    "=",
    ";",
    "Result<(),",
    "Error>",
    "?;",
];
