//! Which Huffman tables a block gets, and which of them each group of 50 symbols.

use super::huffman;
use super::mtf::{MAX_SYMBOLS, Symbols};

/// The tables of a block.
pub(super) struct Tables {
    /// For each table, the length of each symbol's code.
    pub(super) lengths: Vec<[u8; MAX_SYMBOLS]>,
    /// For each group of symbols, its table.
    pub(super) selectors: Vec<u8>,
}

impl Tables {
    /// Chooses tables as bzip2 does: from a guess, groups choose the table that makes them
    /// shortest, and each table is made anew for the groups that chose it.
    pub(super) fn choose(symbols: &Symbols) -> Self {
        let mut tables = Self { lengths: first_guess(symbols), selectors: Vec::new() };
        for _ in 0..ROUNDS {
            tables.improve(symbols);
        }
        tables
    }

    fn improve(&mut self, symbols: &Symbols) {
        let costs = packed_costs(&self.lengths);
        let mut counts = [[0; MAX_SYMBOLS]; MAX_TABLES];
        self.selectors.clear();
        for group in symbols.all().chunks(GROUP) {
            let cost = group.iter().map(|&symbol| costs[usize::from(symbol)]).sum::<u64>();
            let of = |table: usize| cost >> (COST_BITS * table) & ((1 << COST_BITS) - 1);
            let table = (0..self.lengths.len()).min_by_key(|&table| of(table)).unwrap_or(0);
            self.selectors.push(table as u8);
            for &symbol in group {
                counts[table][usize::from(symbol)] += 1;
            }
        }
        for (lengths, counts) in self.lengths.iter_mut().zip(&counts) {
            *lengths = huffman::lengths(&counts[..symbols.counts().len()]);
        }
    }
}

/// Packs what each symbol costs in each table into one number: sums over a group stay apart.
fn packed_costs(lengths: &[[u8; MAX_SYMBOLS]]) -> [u64; MAX_SYMBOLS] {
    let mut costs = [0; MAX_SYMBOLS];
    for (table, lengths) in lengths.iter().enumerate() {
        for (cost, &length) in costs.iter_mut().zip(lengths) {
            *cost |= u64::from(length) << (COST_BITS * table);
        }
    }
    costs
}

/// Makes tables that prefer one range of symbols each, all of which occur about as often.
fn first_guess(symbols: &Symbols) -> Vec<[u8; MAX_SYMBOLS]> {
    let count = match symbols.all().len() {
        ..200 => 2,
        200..600 => 3,
        600..1200 => 4,
        1200..2400 => 5,
        _ => MAX_TABLES,
    };
    let counts = symbols.counts();
    let mut left: u32 = counts.iter().sum();
    let mut start = 0;
    (0..count as u32)
        .map(|table| {
            let share = left / (count as u32 - table);
            let mut sum = 0;
            let mut end = start;
            while sum < share && end < counts.len() {
                sum += counts[end];
                end += 1;
            }
            left -= sum;
            let mut lengths = [UNLIKELY; MAX_SYMBOLS];
            lengths[start..end].fill(0);
            start = end;
            lengths
        })
        .collect()
}

/// Symbols to a selector.
pub(super) const GROUP: usize = 50;
const MAX_TABLES: usize = 6;
const ROUNDS: usize = 4;
/// Bits of a packed cost: 50 codes of 17 bits are less than 1,024, and six of them fit.
const COST_BITS: usize = 10;
/// The first guess of a code's length outside of the range.
const UNLIKELY: u8 = 15;
