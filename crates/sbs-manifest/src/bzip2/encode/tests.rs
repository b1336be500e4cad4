//! Readers that are not ours read what the encoder writes.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::thread;

use bzip2::read::BzDecoder;
use proptest::prelude::*;
use sbs_crypto::digest;

use super::*;

fn encoded(content: &[u8], level: u8) -> Vec<u8> {
    Encoder::new().stream(content, Level(level))
}

fn decoded(stream: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut decoder = BzDecoder::new(stream);
    decoder.read_to_end(&mut bytes).unwrap();
    assert_eq!(decoder.total_in(), stream.len() as u64, "there is something behind the end");
    bytes
}

/// Content of every shape that the steps of the encoder treat in a way of its own.
fn shapes() -> Vec<(String, Vec<u8>)> {
    let mut shapes = vec![
        ("nothing".to_owned(), Vec::new()),
        ("every byte".to_owned(), (0..=255).collect()),
        ("every byte down".to_owned(), (0..=255).rev().collect()),
        ("every byte, many times".to_owned(), (0..=255).cycle().take(70_000).collect()),
        ("noise".to_owned(), noise(1).take(120_000).collect()),
        ("two kinds of noise".to_owned(), noise(2).map(|byte| byte & 1).take(120_000).collect()),
        ("noise that comes again".to_owned(), noise(3).take(33_333).collect::<Vec<_>>().repeat(3)),
        ("Fibonacci's word".to_owned(), fibonacci(100_000)),
        ("de Bruijn's sequence".to_owned(), de_bruijn()),
        ("the count of a run is its byte".to_owned(), vec![0xfb; 99_999]),
        ("bits of the largest code".to_owned(), skewed()),
    ];
    for len in [1, 2, 3, 4, 5, 6, 254, 255, 256, 257, 258, 259, 260, 261, 509, 510, 511, 514, 765] {
        shapes.push((format!("a run of {len}"), vec![b'a'; len]));
        let inside = [&b"xa"[..], &vec![b'x'; len], b"ab"].concat();
        shapes.push((format!("a run of {len} inside"), inside));
    }
    for period in ["ab", "ba", "aab", "abc", "abac", "aaaab", "mississippi"] {
        for times in [1, 2, 3, 100, 20_000] {
            let name = format!("{period}, {times} times");
            shapes.push((name, period.repeat(times).into_bytes()));
            shapes
                .push((format!("{period}, {times} times, z"), (period.repeat(times) + "z").into()));
        }
    }
    shapes
}

fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
}

fn fibonacci(len: usize) -> Vec<u8> {
    let (mut word, mut next) = (b"a".to_vec(), b"ab".to_vec());
    while word.len() < len {
        (word, next) = (next.clone(), [next, word].concat());
    }
    word.truncate(len);
    word
}

/// Every word of 16 bits once, from a shift register of the greatest period.
fn de_bruijn() -> Vec<u8> {
    let mut state = 1_u16;
    let bits = std::iter::repeat_with(|| {
        let bit = state & 1;
        state = state >> 1 ^ if bit == 1 { 0xb400 } else { 0 };
        b'a' + u8::try_from(bit).unwrap()
    });
    bits.take(65_535).collect()
}

/// Bytes with counts like Fibonacci's numbers: Huffman codes would be longer than the format takes.
fn skewed() -> Vec<u8> {
    let mut content = Vec::new();
    let (mut count, mut next) = (1, 1);
    for byte in 0..24_u8 {
        // Behind another one each time, so that there are no runs.
        content.extend([byte, 200 + byte].repeat(count));
        (count, next) = (next, count + next);
    }
    let mut mixed = vec![0; content.len()];
    let step = 60_101;
    for (at, byte) in content.iter().enumerate() {
        mixed[at * step % content.len()] = *byte;
    }
    mixed
}

#[test]
fn every_shape_is_read_again_at_every_level() {
    let mut encoder = Encoder::new();
    for (name, content) in shapes() {
        for level in 1..=9 {
            // One encoder for all: nothing of a block is left for the next.
            let stream = encoder.stream(&content, Level(level));
            assert!(decoded(&stream) == content, "{name}, level {level}");
            assert!(stream == encoded(&content, level), "{name}, level {level}, new encoder");
        }
    }
}

#[test]
fn blocks_end_within_their_size_whatever_the_runs() {
    // Runs of four take five bytes: more than a block of either level for less content.
    for run in 1..=9 {
        let content: Vec<u8> = (0..=255)
            .cycle()
            .flat_map(|byte| std::iter::repeat_n(byte, run))
            .take(910_000)
            .collect();
        for level in [1, 9] {
            let stream = encoded(&content, level);
            assert!(decoded(&stream) == content, "runs of {run}, level {level}");
        }
    }
    // The end of a block anywhere near a run.
    for before in 99_960..99_990 {
        let content: Vec<u8> =
            noise(5).map(|byte| byte | 1).take(before).chain([0; 300]).chain(*b"end").collect();
        assert!(decoded(&encoded(&content, 1)) == content, "{before} bytes before a run");
    }
}

#[test]
fn other_programs_read_every_shape() {
    let files: Vec<_> = shapes().into_iter().map(|(_, content)| content).collect();
    let content = files.concat();
    let mut encoder = Encoder::new();
    let archive: Vec<u8> =
        files.iter().flat_map(|file| encoder.stream(file, Level::BEST)).collect();
    let python =
        "import bz2, sys; sys.stdout.buffer.write(bz2.decompress(sys.stdin.buffer.read()))";
    for judge in
        [&["bzip2", "-dc"][..], &["lbzip2", "-dc"], &["pbzip2", "-dc"], &["python3", "-c", python]]
    {
        assert!(piped(judge, &archive) == content, "{judge:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "the judges are real programs")]
fn piped(command: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

#[test]
fn bytes_never_change() {
    let mut encoder = Encoder::new();
    let mut all = Vec::new();
    for (_, content) in shapes() {
        all.extend(encoder.stream(&content, Level::BEST));
        all.extend(encoder.stream(&content, Level::FAST));
    }
    let expected = "sha256:40f3629293e38985041079fa93165e387fed4764e8c8d98ac7cc679c12653ba4";
    assert_eq!(digest(&all).to_string(), expected);
}

#[test]
fn streams_are_no_larger_than_those_of_bzip2() {
    for (name, content) in shapes() {
        for level in [1, 9] {
            let mut rival =
                bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(u32::from(level)));
            rival.write_all(&content).unwrap();
            let rival = rival.finish().unwrap().len();
            let ours = encoded(&content, level).len();
            assert!(ours <= rival + rival / 100 + 8, "{name}, level {level}: {ours}, {rival}");
        }
    }
}

#[test]
fn rotations_are_those_of_a_plain_sort() {
    let mut transformer = Transformer::new();
    let mut text = Text::new();
    for (name, content) in shapes() {
        let content = &content[..content.len().min(3_000)];
        if content.is_empty() {
            continue;
        }
        text.clear();
        text.extend(content);
        text.close();
        let twice = content.repeat(2);
        let rotation = |at: usize| &twice[at..at + content.len()];
        let mut order: Vec<usize> = (0..content.len()).collect();
        order.sort_by(|&a, &b| rotation(a).cmp(rotation(b)));
        let expected: Vec<u8> = order.iter().map(|&at| twice[at + content.len() - 1]).collect();
        let transformed = transformer.transform(&text);
        assert!(transformed.bytes().eq(expected), "{name}");
        let origin = order[transformed.origin as usize];
        assert!(rotation(origin) == content, "{name}");
    }
}

proptest! {
    #[test]
    fn whatever_is_encoded_is_read_again(
        parts in prop::collection::vec((prop::collection::vec(0..6_u8, 1..20), 1..400_usize), 0..40),
        level in 1..=9_u8,
    ) {
        let content: Vec<u8> = parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect();
        prop_assert!(decoded(&encoded(&content, level)) == content);
    }

    #[test]
    fn any_bytes_are_read_again(content in prop::collection::vec(any::<u8>(), 0..5_000)) {
        prop_assert!(decoded(&encoded(&content, 9)) == content);
    }

    #[test]
    fn any_word_over_a_small_alphabet_is_read_again(
        content in prop::collection::vec(0..3_u8, 0..300),
        times in 1..5_usize,
    ) {
        let content = content.repeat(times);
        prop_assert!(decoded(&encoded(&content, 1)) == content);
    }
}
