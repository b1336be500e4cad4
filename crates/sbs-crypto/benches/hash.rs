//! Hashing in pieces, against the library below in one call.

use std::hint::black_box;
use std::io;

use criterion::{BenchmarkId, Criterion, Throughput};
use sbs_crypto::{HashingReader, Sha256};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("sha256");
    for size in [1 << 10, 64 << 10, 4 << 20] {
        let input = vec![0x5a; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("aws-lc-rs", size), |bencher| {
            bencher
                .iter(|| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, black_box(&input)));
        });
        group.bench_function(BenchmarkId::new("Sha256", size), |bencher| {
            bencher.iter(|| {
                let mut state = Sha256::new();
                for piece in black_box(&input).chunks(PIECE_BYTES) {
                    state.update(piece);
                }
                state.finish()
            });
        });
        group.bench_function(BenchmarkId::new("HashingReader", size), |bencher| {
            bencher.iter(|| {
                let mut reader = HashingReader::new(black_box(input.as_slice()));
                io::copy(&mut reader, &mut io::sink()).expect("memory can be read");
                reader.finish().1
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

const PIECE_BYTES: usize = 64 << 10;
