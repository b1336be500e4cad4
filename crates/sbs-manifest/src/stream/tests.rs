//! Archives held against the crate `bzip2`, which is libbz2 1.0.8 in another language.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::{iter, thread};

use bzip2::Compression;
use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;
use proptest::prelude::*;

use super::*;
use crate::bzip2::decode::MAX_BLOCK;
use crate::split::{Piece, Splitter};

fn stream(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn ours(archive: &[u8], threads: usize) -> Option<Vec<u8>> {
    let mut streams = Streams::new(archive, NonZeroUsize::new(threads).unwrap());
    let mut bytes = Vec::new();
    loop {
        match streams.next_content() {
            Ok(Some(content)) => bytes.extend(content),
            Ok(None) => {
                assert_eq!(streams.packed_bytes(), archive.len() as u64);
                return Some(bytes);
            }
            Err(_) => {
                assert!(streams.next_content().is_err(), "what was refused is refused for good");
                return None;
            }
        }
    }
}

fn crates(archive: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // The crate takes no bytes at all for an archive.
    MultiBzDecoder::new(archive).read_to_end(&mut bytes).ok().filter(|_| !archive.is_empty())?;
    Some(bytes)
}

/// Holds one thread and several against the crate; returns what is in the archive.
fn check(archive: &[u8]) -> Option<Vec<u8>> {
    let expected = crates(archive);
    for threads in [1, 3] {
        let found = ours(archive, threads);
        assert!(
            found == expected,
            "{threads} threads: {:?} and not {:?} bytes of {}",
            found.map(|bytes| bytes.len()),
            expected.map(|bytes| bytes.len()),
            hex::encode(&archive[..archive.len().min(2_000)])
        );
    }
    expected
}

/// Makes bytes that do not pack.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56).to_le_bytes()[0]
    };
    iter::repeat_with(next).take(size).collect()
}

/// Makes lines of words, numbers and spaces.
fn text(size: usize, seed: u64) -> Vec<u8> {
    let words = noise(size, seed);
    let words = words.iter().zip(0_u64..).flat_map(|(byte, number)| {
        match byte % 8 {
            0 => format!("\n{:width$}", "", width = usize::from(byte / 8)),
            1 => format!("{number} "),
            _ => format!("word{} ", byte / 8),
        }
        .into_bytes()
    });
    words.take(size).collect()
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<u8>(), prop_oneof![0..9_usize, 250..270_usize, 0..5_000_usize]);
    let runs = prop::collection::vec(run, 0..40);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3_000),
        prop::collection::vec(0..4_u8, 0..3_000),
        runs.prop_map(|runs| runs.iter().flat_map(|(byte, count)| vec![*byte; *count]).collect()),
        (0..250_000_usize, any::<u64>()).prop_map(|(size, seed)| text(size, seed)),
        (0..250_000_usize, any::<u64>()).prop_map(|(size, seed)| noise(size, seed)),
        (prop::collection::vec(any::<u8>(), 1..9), 0..30_000_usize).prop_map(|(part, size)| part
            .into_iter()
            .cycle()
            .take(size)
            .collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_packed_is_unpacked(
        parts in prop::collection::vec((content(), 1..=9_u32), 1..4),
    ) {
        let archive: Vec<u8> = parts.iter().flat_map(|(part, level)| stream(part, *level)).collect();
        let contents: Vec<u8> = parts.into_iter().flat_map(|(part, _)| part).collect();
        prop_assert!(check(&archive) == Some(contents));
    }

    #[test]
    fn mutated_archives_are_taken_and_refused_as_by_the_crate(
        parts in prop::collection::vec((content(), 1..=9_u32), 1..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut archive: Vec<u8> =
            parts.iter().flat_map(|(part, level)| stream(part, *level)).collect();
        for (at, byte, kind) in changes {
            let at = at.index(archive.len());
            match kind {
                0 => archive[at] = byte,
                1 => drop(archive.remove(at)),
                _ => archive.insert(at, byte),
            }
            prop_assume!(!archive.is_empty());
        }
        check(&archive);
    }
}

#[test]
fn every_prefix_and_every_flipped_bit_is_judged_as_by_the_crate() {
    let archive = [stream(&text(400, 1), 9), stream(b"", 1), stream(&[b'x'; 300], 3)].concat();
    let whole = check(&archive).unwrap();
    let third = archive.len() - stream(&[b'x'; 300], 3).len();
    let randomised = [8 * 14, 8 * (third + 14)];
    for end in 0..archive.len() {
        if let Some(bytes) = check(&archive[..end]) {
            assert!(whole.starts_with(&bytes), "a whole number of streams");
        }
    }
    let mut taken = 0;
    for bit in 0..8 * archive.len() {
        let mut flipped = archive.clone();
        flipped[bit / 8] ^= 0x80 >> (bit % 8);
        // The one that is not: a block that is "randomised" is refused.
        if randomised.contains(&bit) {
            assert!(crates(&flipped).is_some(), "blocks of 600 bytes are not changed by it");
            assert_eq!(ours(&flipped, 1), None);
            continue;
        }
        taken += usize::from(check(&flipped).is_some());
    }
    // The bits that fill the last bytes of streams, and a level that is higher than needed.
    assert!(taken < 30, "{taken}");
}

#[test]
fn streams_of_all_levels_and_without_content_stand_side_by_side() {
    let archives: Vec<_> =
        (1..=9).map(|level| stream(&text(120_000, level.into()), level)).collect();
    let content: Vec<_> = (1..=9).flat_map(|level| text(120_000, level)).collect();
    assert_eq!(check(&archives.concat()), Some(content.clone()));
    let empty = stream(b"", 5);
    assert_eq!(check(&archives.join(&empty[..])), Some(content));
    assert_eq!(check(&empty), Some(vec![]));
    assert_eq!(check(&empty.repeat(1_000)), Some(vec![]));
    assert_eq!(check(b""), None);
    for garbage in [&b"\0"[..], b"B", b"BZh", b"BZh0", b"BZh9", b"BZh:", b"bzh9", &[0; 512]] {
        assert_eq!(check(&[&empty, garbage].concat()), None);
        assert_eq!(check(garbage), None);
    }
}

#[test]
fn a_level_is_the_most_that_a_block_has() {
    for (level, sizes) in [(1, [99_981, 99_982, 250_000]), (9, [899_981, 899_982, 2_000_000])] {
        for size in sizes {
            let archive = stream(&noise(size, 7), level);
            assert_eq!(check(&archive), Some(noise(size, 7)));
            if level == 9 {
                let mut lower = archive;
                lower[3] = b'8';
                assert_eq!(check(&lower), None);
            }
        }
    }
}

/// A block whose runs are a thousand times as long as what was sorted.
#[test]
fn long_runs_come_in_parts() {
    let content = [vec![0; 5_000_000], noise(100, 1), vec![1; 3_000_000]].concat();
    let archive = stream(&content, 9);
    assert_eq!(check(&archive), Some(content));
    let mut damaged = archive;
    damaged[12] ^= 1;
    // The checksum is known to be wrong only when almost all was given out.
    assert_eq!(check(&damaged), None);
}

#[test]
fn archives_of_other_programs_are_read() {
    let content = [text(2_500_000, 1), noise(1_200_000, 2), vec![0; 1_000_000]].concat();
    let python = "import bz2,sys; sys.stdout.buffer.write(bz2.compress(sys.stdin.buffer.read()))";
    for command in [
        &["bzip2", "-9"][..],
        &["bzip2", "-1"],
        &["lbzip2", "-n2", "-9"],
        &["lbzip2", "-n2", "-1"],
        &["pbzip2", "-p2", "-c"],
        &["python3", "-c", python],
    ] {
        let archive = run(command, &content);
        assert!(check(&archive).as_ref() == Some(&content), "{command:?}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests start the programs that they are held against"
)]
fn run(command: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; see `cargo xtask setup`"));
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    output.stdout
}

/// Writes archives bit by bit, as no program does.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    count: usize,
}

impl BitWriter {
    fn put(&mut self, count: usize, number: u64) {
        for at in (0..count).rev() {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (number >> at & 1).to_le_bytes()[0];
            *self.bytes.last_mut().unwrap() |= bit << (7 - self.count % 8);
            self.count += 1;
        }
    }
}

/// A block whose parts need not fit together.
#[derive(Clone, Debug)]
struct Made {
    origin: u64,
    used: Vec<u8>,
    /// The lengths of each code.
    codes: Vec<Vec<u8>>,
    /// How many selectors there are; they go through the codes in turn.
    selectors: usize,
    /// The bits of the symbols.
    symbols: Vec<u8>,
}

impl Made {
    /// Bytes 0 to 253, a code in which each of 256 symbols has eight bits, and those `symbols`:
    /// 0 and 1 make runs, 255 ends the block.
    fn flat(symbols: &[u8]) -> Self {
        let selectors = symbols.len() / 50 + 1;
        let codes = vec![vec![8; 256]; 2];
        Self { origin: 0, used: (0..254).collect(), codes, selectors, symbols: symbols.to_vec() }
    }

    fn write(&self, out: &mut BitWriter, crc: u32) {
        out.put(48, BLOCK_MAGIC);
        out.put(32, crc.into());
        out.put(1, 0);
        out.put(24, self.origin);
        let is_used = |byte| u64::from(self.used.contains(&byte));
        let ranges: Vec<u64> = (0..16)
            .map(|range| (0..16).fold(0, |bits, byte| bits << 1 | is_used(16 * range + byte)))
            .collect();
        out.put(16, ranges.iter().fold(0, |bits, range| bits << 1 | u64::from(*range != 0)));
        ranges.iter().filter(|range| **range != 0).for_each(|range| out.put(16, *range));
        out.put(3, self.codes.len() as u64);
        out.put(15, self.selectors as u64);
        // The last code comes to the front each time.
        let last = self.codes.len() - 1;
        (0..self.selectors).for_each(|_| out.put(last + 1, (1 << (last + 1)) - 2));
        for code in &self.codes {
            let mut length = code[0];
            out.put(5, length.into());
            for next in code {
                while length != *next {
                    out.put(2, if length < *next { 0b10 } else { 0b11 });
                    length = if length < *next { length + 1 } else { length - 1 };
                }
                out.put(1, 0);
            }
        }
        self.symbols.iter().for_each(|byte| out.put(8, (*byte).into()));
    }

    /// Returns the block in an archive, with the right checksums if it can be decoded at all, and
    /// its content.
    fn archive(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut alone = BitWriter::default();
        self.write(&mut alone, 0);
        let decoded = Decoder::new().decode(&alone.bytes, MAGIC_BITS).map(|mut block| {
            block.content.extend(block.text.next(usize::MAX));
            let content = Some(block.content).filter(|_| !block.text.lacks_repeats());
            (content, block.text.crc(), alone.count.min(block.end))
        });
        let (content, crc, end) = match decoded {
            Ok(decoded) => decoded,
            Err(_) => (None, 0, alone.count),
        };
        let mut block = BitWriter::default();
        self.write(&mut block, crc);
        let mut out = BitWriter::default();
        out.put(32, u64::from(HEADER));
        let mut bits = Bits::new(&block.bytes, 0);
        (0..end).for_each(|_| out.put(1, bits.take(1).into()));
        out.put(48, END_MAGIC);
        out.put(32, crc.into());
        (out.bytes, content)
    }

    /// Holds the block against the crate; returns whether both take it.
    fn is_taken(&self) -> bool {
        let (archive, content) = self.archive();
        assert!(check(&archive) == content);
        content.is_some()
    }
}

const HEADER: u32 = u32::from_be_bytes(*b"BZh9");

/// What is at the edge of the format, or over it.
#[test]
fn blocks_that_no_program_makes_are_judged_as_by_the_crate() {
    // Four equal bytes and no number behind them; five, the last of which is that number.
    assert!(!Made::flat(&[1, 0, 255]).is_taken());
    assert!(Made::flat(&[0, 1, 255]).is_taken());
    let symbols =
        [&noise(3_000, 1).into_iter().filter(|byte| *byte < 254).collect::<Vec<_>>()[..], &[255]]
            .concat();
    let plain = Made::flat(&symbols);
    assert!(plain.is_taken());
    let with = |change: fn(&mut Made)| {
        let mut made = plain.clone();
        change(&mut made);
        made.is_taken()
    };
    assert!(with(|made| made.origin = 100));
    assert!(!with(|made| made.origin = 1 << 23));
    assert!(!with(|made| made.used.clear()));
    assert!(!with(|made| made.codes.truncate(1)));
    assert!(with(|made| made.codes = vec![vec![8; 256]; 6]));
    assert!(!with(|made| made.codes = vec![vec![8; 256]; 7]));
    assert!(!with(|made| made.selectors = 0));
    assert!(!with(|made| made.selectors /= 2));
    assert!(with(|made| made.selectors = 18_002));
    // More selectors than the largest block can use are read and not kept.
    assert!(with(|made| made.selectors = 32_767));
    // Codes with too many patterns, among them none for the end, and with too few.
    assert!(!with(|made| made.codes = vec![vec![7; 256]; 2]));
    assert!(!with(|made| made.codes = vec![vec![9; 256]; 2]));
    assert!(!with(|made| made.codes = vec![vec![20; 256]; 2]));
    assert!(!with(|made| made.codes = vec![vec![21; 256]; 2]));
    assert!(!with(|made| made.codes = vec![vec![0; 256]; 2]));
    assert!(!with(|made| made.symbols = vec![]));
    assert!(!with(|made| made.symbols = vec![255]));
    assert!(!with(|made| made.symbols.truncate(made.symbols.len() - 1)));
}

#[test]
fn runs_end_where_the_largest_block_does() {
    // A run whose length is a number with the digits 1 and 2, the lowest first: 900,000 is the
    // largest block, and one more is too much.
    let run = |mut length: usize| {
        let mut digits = Vec::new();
        while length > 0 {
            digits.push(u8::from(length.is_multiple_of(2)));
            length = (length - 1) / 2;
        }
        digits
    };
    for (symbols, expected) in [
        ([run(MAX_BLOCK), vec![255]].concat(), true),
        ([run(MAX_BLOCK + 1), vec![255]].concat(), false),
        ([run(MAX_BLOCK - 1), vec![2, 255]].concat(), true),
        ([run(MAX_BLOCK), vec![2, 255]].concat(), false),
        ([run(MAX_BLOCK - 3), vec![9], run(2), vec![255]].concat(), true),
        ([run(MAX_BLOCK - 3), vec![9], run(3), vec![255]].concat(), false),
        ([run((1 << 21) - 2), vec![255]].concat(), false),
        (vec![1; 49], false),
        (vec![1; 20_000], false),
    ] {
        assert_eq!(Made::flat(&symbols).is_taken(), expected, "{} symbols", symbols.len());
    }
}

/// S16: compressed bytes that look like the start of a block, at every bit of a byte, alone and
/// many of them; whole, in a wrong place, and with a start of a stream before it.
#[test]
fn s16_what_only_looks_like_a_block_changes_nothing() {
    let magic = BLOCK_MAGIC.to_be_bytes();
    let filler: Vec<u8> = noise(4_000, 3).into_iter().filter(|byte| *byte < 254).collect();
    let chance = [&b"BZh9"[..], &magic[2..]].concat();
    for symbols in [
        [&filler, &chance, &filler[..], &[255]].concat(),
        [&chance, &chance, &filler[..], &chance, &[255]].concat(),
        [&*[&filler[..20], &magic[2..]].concat().repeat(3_000), &[255]].concat(),
    ] {
        // One byte less that is used moves the code by one bit at least.
        for extra in 0..8 {
            let mut made = Made::flat(&symbols);
            made.selectors += extra;
            let (archive, content) = made.archive();
            assert!(content.is_some());
            assert!(Splitter::new(&archive[..]).count() > 2, "there is a wrong guess");
            let others = [stream(&noise(200_000, 4), 1), stream(&text(300_000, 5), 1)].concat();
            for whole in [&[&*others, &archive, &others].concat(), &archive.repeat(3)] {
                assert!(check(whole).is_some());
            }
        }
    }
}

impl<R: Read> Iterator for Splitter<R> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        self.next_piece()
    }
}

/// Each wrong guess could be a block that takes long to decode.
#[test]
fn s16_after_a_wrong_guess_nothing_is_guessed() {
    let magic = &BLOCK_MAGIC.to_be_bytes()[2..];
    let symbols = [&*[magic, &[7; 2_000]].concat().repeat(50), &[255]].concat();
    let (archive, content) = Made::flat(&symbols).archive();
    let mut streams = Streams::new(&archive[..], NonZeroUsize::new(4).unwrap());
    assert!(streams.ahead.guesses());
    assert_eq!(streams.next_content().unwrap(), content);
    assert!(!streams.ahead.guesses());
    assert_eq!(streams.next_content().unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Most codes have too few patterns or too many, and most blocks never end.
    #[test]
    fn any_made_block_is_judged_as_by_the_crate(
        used in prop::collection::btree_set(any::<u8>(), 0..256),
        codes in prop::collection::vec(prop::collection::vec(1..=20_u8, 258), 2..=6),
        narrow in 1..=20_u8,
        origin in 0..50_u64,
        selectors in 1..40_usize,
        symbols in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let used: Vec<u8> = used.into_iter().collect();
        let codes = codes.into_iter().map(|code| {
            code.into_iter().take(used.len() + 2).map(|length| length.min(narrow)).collect()
        });
        Made { origin, codes: codes.collect(), used, selectors, symbols }.is_taken();
    }
}
