//! The move-to-front transform, undone.

/// Bytes in the order of their last use, the latest first.
///
/// Most uses are of one of the first sixteen, which are one number that a register can hold.
pub(crate) struct Recent {
    front: u128,
    rest: [u8; 256 - FRONT],
}

impl Recent {
    /// Begins with `bytes` in their order; at most 256.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut front = [0; FRONT];
        front.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let mut rest = [0; 256 - FRONT];
        rest.iter_mut().zip(bytes.iter().skip(FRONT)).for_each(|(to, from)| *to = *from);
        Self { front: u128::from_le_bytes(front), rest }
    }

    /// Returns the byte that was used last.
    #[inline]
    pub(crate) fn first(&self) -> u8 {
        low_byte(self.front)
    }

    /// Returns the byte at `place` (below 256), which moves to the front.
    #[inline]
    pub(crate) fn take(&mut self, place: usize) -> u8 {
        if let Some(moved) = MOVED.get(place) {
            let byte = low_byte(self.front >> (8 * place));
            self.front = self.front & !moved | self.front << 8 & moved | u128::from(byte);
            return byte;
        }
        let last = low_byte(self.front >> (8 * (FRONT - 1)));
        let place = place.min(255) - FRONT;
        let byte = self.rest.get(place).copied().unwrap_or_default();
        self.rest.copy_within(..place, 1);
        self.rest[0] = last;
        self.front = self.front << 8 | u128::from(byte);
        byte
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest byte is asked for")]
fn low_byte(number: u128) -> u8 {
    number as u8
}

const FRONT: usize = 16;
/// For each place, the bytes up to it.
#[expect(clippy::indexing_slicing, reason = "a wrong index here would not compile")]
const MOVED: [u128; FRONT] = {
    let mut masks = [0; FRONT];
    let mut place = 0;
    while place < FRONT {
        masks[place] = u128::MAX >> (8 * (FRONT - 1 - place));
        place += 1;
    }
    masks
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_uses_give_what_a_list_gives(
            start in Just((0..=255_u8).collect::<Vec<_>>()).prop_shuffle(),
            places in prop::collection::vec(prop_oneof![0..20_usize, 0..256_usize], 0..2_000),
        ) {
            let mut list = start.clone();
            let mut recent = Recent::new(&start);
            for place in places {
                prop_assert_eq!(recent.first(), list[0]);
                prop_assert_eq!(recent.take(place), list[place]);
                list[..=place].rotate_right(1);
            }
        }
    }
}
