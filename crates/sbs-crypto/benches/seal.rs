//! Sealing and opening of a record.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use sbs_crypto::{SealingKey, random_bytes};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("sealing");
    let key = SealingKey::from_bytes(random_bytes().into());
    for size in [4 << 10, 1 << 20] {
        let plaintext = vec![0x5a; size];
        let sealed = key.seal(CONTEXT, &plaintext).expect("the size is within the limit");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("seal", size), |bencher| {
            bencher.iter(|| key.seal(CONTEXT, black_box(&plaintext)));
        });
        group.bench_function(BenchmarkId::new("open", size), |bencher| {
            bencher.iter(|| key.open(CONTEXT, black_box(&sealed)));
        });
    }
    group.finish();
    criterion.final_summary();
}

const CONTEXT: &[u8] = b"a record of some name";
