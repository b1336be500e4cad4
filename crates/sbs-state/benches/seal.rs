//! Sealing and opening in the form of a state image, against the same cipher without any form.
//!
//! `aes-gcm` is the library below; `aws-lc-rs` is what another one could do. Both work on the same
//! chunks of 16 KiB, from one buffer into another that is used again.

use std::hint::black_box;
use std::io::{BufRead as _, Write as _, sink};

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use aws_lc_rs::aead::{self, AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use criterion::{Criterion, Throughput};
use sbs_proto::{StateMeta, StateSecret};
use sbs_state::{ClientShare, Export, OpenReader, RootSecret, SealWriter, ServerShare};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for mib in [1, 64] {
        let plaintext = vec![0x5a; mib << 20];
        seal(&mut criterion, mib, &plaintext);
        open(&mut criterion, mib, &plaintext);
    }
    criterion.final_summary();
}

fn seal(criterion: &mut Criterion, mib: usize, plaintext: &[u8]) {
    let mut group = criterion.benchmark_group(format!("seal {mib} MiB"));
    group.sample_size(20).throughput(Throughput::Bytes(plaintext.len() as u64));
    let (server, client) = shares();
    group.bench_function("state", |bencher| {
        bencher.iter(|| {
            let mut writer =
                SealWriter::new(export(), &server, &client, sink()).expect("a sink takes all");
            writer.write_all(black_box(plaintext)).expect("a sink takes all");
            writer.finish()
        });
    });
    let cipher = Aes256Gcm::new(&[1; 32].into());
    group.bench_function("aes-gcm", |bencher| {
        let mut buffer = vec![0; CHUNK];
        bencher.iter(|| {
            for (number, chunk) in (0_u64..).zip(black_box(plaintext).chunks_exact(CHUNK)) {
                let both = InOutBuf::new(chunk, &mut buffer).expect("chunks");
                let nonce: Nonce<_> = nonce(number).into();
                let tag = cipher.encrypt_inout_detached(&nonce, b"", both);
                let _tag = black_box(tag.expect("short"));
            }
        });
    });
    let key = rival();
    group.bench_function("aws-lc-rs", |bencher| {
        let mut buffer = vec![0; CHUNK];
        bencher.iter(|| {
            for (number, chunk) in (0_u64..).zip(black_box(plaintext).chunks_exact(CHUNK)) {
                buffer.copy_from_slice(chunk);
                let nonce = aead::Nonce::assume_unique_for_key(nonce(number));
                let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut buffer);
                let _tag = black_box(tag.expect("short"));
            }
        });
    });
    group.finish();
}

fn open(criterion: &mut Criterion, mib: usize, plaintext: &[u8]) {
    let mut group = criterion.benchmark_group(format!("open {mib} MiB"));
    group.sample_size(20).throughput(Throughput::Bytes(plaintext.len() as u64));
    let (server, client) = shares();
    let mut writer =
        SealWriter::new(export(), &server, &client, Vec::new()).expect("memory takes all");
    writer.write_all(plaintext).expect("memory takes all");
    let sealed = writer.finish().expect("memory takes all");
    let servers = [server];
    group.bench_function("state", |bencher| {
        bencher.iter(|| {
            let mut reader = OpenReader::new(&servers, &client, u64::MAX, black_box(&sealed[..]))
                .expect("it is genuine");
            loop {
                let bytes = reader.fill_buf().expect("it is genuine");
                if bytes.is_empty() {
                    break;
                }
                let count = black_box(bytes).len();
                reader.consume(count);
            }
        });
    });
    let cipher = Aes256Gcm::new(&[1; 32].into());
    let chunks: Vec<(Vec<u8>, Tag)> = (0_u64..)
        .zip(plaintext.chunks_exact(CHUNK))
        .map(|(number, chunk)| {
            let (mut chunk, nonce) = (chunk.to_vec(), Nonce::from(nonce(number)));
            let tag = cipher.encrypt_inout_detached(&nonce, b"", (&mut chunk[..]).into());
            (chunk, tag.expect("short"))
        })
        .collect();
    group.bench_function("aes-gcm", |bencher| {
        let mut buffer = vec![0; CHUNK];
        bencher.iter(|| {
            for (number, (chunk, tag)) in (0_u64..).zip(black_box(&chunks)) {
                let both = InOutBuf::new(chunk, &mut buffer).expect("chunks");
                let nonce: Nonce<_> = nonce(number).into();
                cipher.decrypt_inout_detached(&nonce, b"", both, tag).expect("it is genuine");
                black_box(&buffer);
            }
        });
    });
    let key = rival();
    group.bench_function("aws-lc-rs", |bencher| {
        let mut buffer = vec![0; CHUNK];
        bencher.iter(|| {
            for (number, (chunk, tag)) in (0_u64..).zip(black_box(&chunks)) {
                let nonce = aead::Nonce::assume_unique_for_key(nonce(number));
                key.open_separate_gather(nonce, Aad::empty(), chunk, tag, &mut buffer)
                    .expect("it is genuine");
                black_box(&buffer);
            }
        });
    });
    group.finish();
}

fn shares() -> (ServerShare, ClientShare) {
    let root = RootSecret::parse(&(0..32).collect::<Vec<u8>>()).expect("32 bytes");
    (ServerShare::of(&root), ClientShare::derive(&StateSecret::from_bytes([2; 128])))
}

fn export() -> Export {
    Export { epoch: 5, export_seq: 9, created_ms: 1, meta: StateMeta::default() }
}

fn rival() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("32 bytes"))
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

const CHUNK: usize = 16 << 10;
