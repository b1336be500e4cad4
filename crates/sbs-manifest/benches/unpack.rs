//! What it costs to read bzip2, and what it costs the crate `bzip2`.
//!
//! Only ratios taken in one run mean anything.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench may panic as a test may"
)]

use std::hint::black_box;
use std::io::{self, Read, Write as _};
use std::iter;
use std::num::NonZeroUsize;

use bzip2::Compression;
use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sbs_manifest::{Limits, decompressed};

/// Makes numbers that look like chance, always the same ones.
fn numbers() -> impl Iterator<Item = usize> {
    let next = |state: &u64| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    iter::successors(Some(1_u64), next).map(|state| usize::try_from(state >> 40).unwrap())
}

/// Makes a text in which words come back, most of them seldom.
fn text(size: usize) -> Vec<u8> {
    let mut numbers = numbers();
    let mut word = || {
        let letters = 2 + numbers.next().unwrap() % 9;
        let mut word: Vec<u8> =
            numbers.by_ref().take(letters).map(|number| b"etaoinshrdlucmfw"[number % 16]).collect();
        word.push(if numbers.next().unwrap().is_multiple_of(8) { b'\n' } else { b' ' });
        word
    };
    let words: Vec<_> = iter::repeat_with(&mut word).take(4_000).collect();
    let mut text = Vec::with_capacity(size + 20);
    for number in numbers.step_by(3) {
        // The square of a fraction: the first words are the most frequent ones.
        let fraction = number % 4_000;
        text.extend_from_slice(&words[fraction * fraction / 4_000]);
        if text.len() >= size {
            break;
        }
    }
    text.truncate(size);
    text
}

/// Makes bytes that do not pack.
fn noise(size: usize) -> Vec<u8> {
    numbers().map(|number| number.to_le_bytes()[1]).take(size).collect()
}

/// Packs as the writer of manifests does: streams of 896,000 bytes.
fn packed(content: &[u8], level: Compression) -> Vec<u8> {
    let mut archive = Vec::new();
    for part in content.chunks(896_000) {
        let mut encoder = BzEncoder::new(&mut archive, level);
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    archive
}

fn unpack(criterion: &mut Criterion) {
    for (name, content, level) in [
        ("unpack text, level 9", text(9_000_000), Compression::best()),
        ("unpack noise, level 1", noise(5_000_000), Compression::fast()),
    ] {
        let archive = packed(&content, level);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Bytes(content.len() as u64));
        for threads in [1, 2] {
            let threads = NonZeroUsize::new(threads).unwrap();
            let limits = Limits { threads, ..Limits::default() };
            group.bench_function(format!("ours, {threads} threads"), |bencher| {
                bencher.iter(|| read(decompressed(&*archive, &limits)));
            });
        }
        group.bench_function("the crate, 1 thread", |bencher| {
            bencher.iter(|| read(MultiBzDecoder::new(&*archive)));
        });
        group.finish();
    }
}

fn read(mut content: impl Read) {
    black_box(io::copy(&mut content, &mut io::sink()).unwrap());
}

criterion_group!(benches, unpack);
criterion_main!(benches);
