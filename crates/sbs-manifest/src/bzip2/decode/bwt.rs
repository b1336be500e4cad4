//! The Burrows-Wheeler transform, undone.

use std::array;
use std::ops::Range;

/// Undoes the transform of blocks of up to [`MAX_BLOCK`] bytes.
///
/// The original text is a walk along links through a table that no fast cache holds, and each step
/// waits for the one before. So several walks are made side by side: they begin at rows here and
/// there, each ends where another one begins, and what they found is put in order afterwards.
/// The links are a permutation of the rows, so that no row is visited twice, whatever the block is.
pub(crate) struct Inverse {
    /// For each row: the byte there, the next row above it, and on top [`START`].
    links: Box<[u32; TABLE]>,
    lanes: [Lane; LANES],
    walks: Vec<Walk>,
}

/// What walks that were made one after the other have found.
#[derive(Default)]
struct Lane {
    found: Vec<u8>,
    /// The walk that is under way, and where in `found` it began.
    walk: Option<(usize, usize)>,
}

/// What a walk has found, which is in one of the lanes, and which walk goes on.
#[derive(Clone, Default)]
struct Walk {
    lane: usize,
    found: Range<usize>,
    next: usize,
}

impl Inverse {
    pub(crate) fn new() -> Self {
        let links = vec![0; TABLE].into_boxed_slice();
        Self {
            links: links.try_into().expect("the table has this size"),
            lanes: Default::default(),
            walks: Vec::new(),
        }
    }

    /// Returns the original text of `block`, of which the rotation that is the text itself is at
    /// row `origin`. That must be one of the rows.
    pub(crate) fn undo(&mut self, block: &[u8], origin: usize) -> Vec<u8> {
        debug_assert!(origin < block.len() && block.len() <= MAX_BLOCK, "the caller has checked");
        let stride = (block.len() / MAX_WALKS).max(MIN_STRIDE);
        self.link(block, origin % stride, stride);
        self.walk(block.len(), origin % stride, stride);
        self.collect(block.len(), origin / stride)
    }

    /// Sorts the rows by their bytes, which is what links them; walks begin at row `first` and
    /// every `stride` rows behind it.
    fn link(&mut self, block: &[u8], first: usize, stride: usize) {
        let mut places = [0_u32; 256];
        for byte in block {
            count(&mut places, *byte);
        }
        let mut sum = 0;
        for place in &mut places {
            sum += std::mem::replace(place, sum);
        }
        let (before, behind) = block.split_at(first.min(block.len()));
        let chunks =
            [(0, before)].into_iter().chain(behind.chunks(stride).map(|rows| (START, rows)));
        let mut row = 0;
        for (mut mark, rows) in chunks {
            for byte in rows {
                let place = count(&mut places, *byte) as usize;
                if let Some(link) = self.links.get_mut(place % TABLE) {
                    *link = mark | row << 8 | u32::from(*byte);
                }
                row += 1;
                mark = 0;
            }
        }
    }

    fn walk(&mut self, size: usize, first: usize, stride: usize) {
        // A lane that has nothing more to do goes round on a row that is none.
        let parked = link_to(size);
        if let Some(link) = self.links.get_mut(size % TABLE) {
            *link = parked;
        }
        let mut waiting = (first..size).step_by(stride).enumerate();
        self.walks.clear();
        self.walks.resize(waiting.len(), Walk::default());
        let mut links = array::from_fn(|lane| self.begin(lane, waiting.next()).unwrap_or(parked));
        while self.lanes.iter().any(|lane| lane.walk.is_some()) {
            let mut found = [[0; STEPS]; LANES];
            let taken = steps(&self.links, &mut links, &mut found);
            for (at, (link, found)) in links.iter_mut().zip(&found).enumerate() {
                self.put_away(at, found.get(..taken).unwrap_or_default());
                if *link & START != 0 {
                    self.end(at, row(*link) / stride);
                    *link = self.begin(at, waiting.next()).unwrap_or(parked);
                }
            }
        }
    }

    /// Begins a walk; returns a link to its first row.
    fn begin(&mut self, at: usize, walk: Option<(usize, usize)>) -> Option<u32> {
        let lane = self.lanes.get_mut(at)?;
        lane.walk = walk.map(|(walk, _)| (walk, lane.found.len()));
        walk.map(|(_, row)| link_to(row))
    }

    fn put_away(&mut self, at: usize, found: &[u8]) {
        if let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.walk.is_some()) {
            lane.found.extend_from_slice(found);
        }
    }

    fn end(&mut self, at: usize, next: usize) {
        if let Some(lane) = self.lanes.get(at)
            && let Some((number, start)) = lane.walk
            && let Some(walk) = self.walks.get_mut(number)
        {
            *walk = Walk { lane: at, found: start..lane.found.len(), next };
        }
    }

    /// Puts what the walks found in order: `size` bytes, from the walk `origin` on.
    fn collect(&mut self, size: usize, origin: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(size);
        let mut at = origin;
        while let Some(walk) = self.walks.get(at) {
            let found =
                self.lanes.get(walk.lane).and_then(|lane| lane.found.get(walk.found.clone()));
            text.extend_from_slice(found.unwrap_or_default());
            at = walk.next;
            if at == origin {
                break;
            }
        }
        // Text that repeats itself has rows that are alike, and the walk comes home too soon.
        while text.len() < size {
            text.extend_from_within(..text.len().min(size - text.len()));
        }
        for lane in &mut self.lanes {
            lane.found.clear();
            // Only a block that was made for it has one walk that is much longer than the others.
            lane.found.shrink_to(2 * MAX_BLOCK / LANES);
        }
        text
    }
}

/// Goes on in each lane until one of the walks has ended; returns how many steps it took.
fn steps(
    table: &[u32; TABLE],
    links: &mut [u32; LANES],
    found: &mut [[u8; STEPS]; LANES],
) -> usize {
    let mut taken = 0;
    let mut marks = 0;
    while taken < STEPS && marks & START == 0 {
        for (link, found) in links.iter_mut().zip(&mut *found) {
            *link = table.get(row(*link)).copied().unwrap_or_default();
            if let Some(place) = found.get_mut(taken) {
                [*place, ..] = link.to_le_bytes();
            }
            marks |= *link;
        }
        taken += 1;
    }
    taken
}

/// Returns the row that a link leads to.
fn row(link: u32) -> usize {
    (link >> 8) as usize % TABLE
}

/// Adds one to what is counted for `byte`; returns what it was.
fn count(counts: &mut [u32; 256], byte: u8) -> u32 {
    let Some(count) = counts.get_mut(usize::from(byte)) else { return 0 };
    *count += 1;
    *count - 1
}

#[expect(clippy::cast_possible_truncation, reason = "rows have twenty bits")]
fn link_to(row: usize) -> u32 {
    (row as u32) << 8
}

/// Bytes of the largest block, that of level 9.
pub(crate) const MAX_BLOCK: usize = 900_000;
/// More than the rows of any block.
const TABLE: usize = 1 << 20;
/// Marks a link to a row that a walk begins at.
const START: u32 = 1 << 31;
/// Walks at a time: more than this and the loads that are under way fill what a core has for them.
const LANES: usize = 16;
/// Steps that all lanes take before what they found is put away.
const STEPS: usize = 64;
/// Walks of a block, and rows for each at least: many, so that the lanes end together; few, so that
/// their ends cost nothing.
const MAX_WALKS: usize = 512;
const MIN_STRIDE: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Undoes the transform in one walk.
    fn slowly(block: &[u8], origin: usize) -> Vec<u8> {
        let mut rows: Vec<usize> = (0..block.len()).collect();
        rows.sort_by_key(|row| block[*row]);
        let mut at = origin;
        let mut step = || {
            at = rows[at];
            block[at]
        };
        (0..block.len()).map(|_| step()).collect()
    }

    fn check(inverse: &mut Inverse, block: &[u8], origin: usize) {
        let text = inverse.undo(block, origin);
        assert!(text == slowly(block, origin), "{} bytes, origin {origin}", block.len());
    }

    /// Sorts the rotations of a text.
    fn transformed(text: &[u8]) -> (Vec<u8>, usize) {
        let mut rotations: Vec<usize> = (0..text.len()).collect();
        rotations.sort_by_cached_key(|at| [&text[*at..], &text[..*at]].concat());
        let last = rotations.iter().map(|at| text[(at + text.len() - 1) % text.len()]).collect();
        (last, rotations.iter().position(|at| *at == 0).unwrap())
    }

    #[test]
    fn gives_the_text_that_was_sorted() {
        let mut inverse = Inverse::new();
        for text in [&b"a"[..], b"banana", b"abababab", b"aaaaaaaaa", &[0, 255].repeat(1500)] {
            let (block, origin) = transformed(text);
            assert_eq!(inverse.undo(&block, origin), text);
        }
    }

    /// Walks of all lengths: one row, rows that no walk begins at, one walk over everything.
    #[test]
    fn permutations_that_no_text_has_are_walked_too() {
        let mut inverse = Inverse::new();
        let size = MIN_STRIDE * (LANES + 3) + 5;
        let blocks = [
            vec![7; size],
            (0..size).map(|row| (row * 251 / size).to_le_bytes()[0]).collect(),
            (0..size).map(|row| (size - row).to_le_bytes()[0]).collect(),
            (0..size).map(|row| u8::from(row % 2 == 0)).collect(),
            (0..size).map(|row| u8::from(row < size / 2)).collect(),
        ];
        for block in blocks {
            for origin in [0, 1, MIN_STRIDE - 1, MIN_STRIDE, size / 2, size - 1] {
                check(&mut inverse, &block, origin);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_block_is_walked_as_in_one_walk(
            letters in 1..=256_u16,
            noise in prop::collection::vec(any::<u8>(), 1..30_000),
            origin: prop::sample::Index,
        ) {
            let block: Vec<u8> =
                noise.iter().map(|byte| (u16::from(*byte) % letters).to_le_bytes()[0]).collect();
            check(&mut Inverse::new(), &block, origin.index(block.len()));
        }
    }
}
