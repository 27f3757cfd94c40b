//! Which parts of a segment are free: first fit, in private memory of the writer.

/// The parts of one segment, in units of the alignment. The free ones are sorted, apart from each other, and do not touch.
#[derive(Debug)]
pub(crate) struct Blocks {
    free: Vec<Part>,
    /// Sorted.
    taken: Vec<(Part, Holder)>,
    was_used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: u32,
    units: u32,
}

/// Who has a part that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Writer,
    Peer,
}

impl Blocks {
    /// Returns the parts of an unused segment of `bytes`, a multiple of the alignment.
    pub(crate) fn new(bytes: u32) -> Self {
        let all = Part {
            start: 0,
            units: bytes / ALIGNMENT,
        };
        Self {
            free: vec![all],
            taken: Vec::new(),
            was_used: false,
        }
    }

    /// Takes the first free part with room for `bytes`, and returns where it begins in bytes.
    pub(crate) fn take(&mut self, bytes: u32) -> Option<u32> {
        let units = bytes.div_ceil(ALIGNMENT).max(1); // also an empty block has a place of its own
        let index = self.free.iter().position(|part| part.units >= units)?;
        let part = self.free.get_mut(index)?;
        let taken = Part {
            start: part.start,
            units,
        };
        part.start += units;
        part.units -= units;
        if part.units == 0 {
            self.free.remove(index);
        }
        let place = self.taken.partition_point(|(at, _)| at.start < taken.start);
        self.taken.insert(place, (taken, Holder::Writer));
        self.was_used = true;
        Some(taken.start * ALIGNMENT)
    }

    /// Notes that the block at byte `offset`, which the writer has, is with the peer from now on.
    pub(crate) fn lend(&mut self, offset: u32) {
        if let Some((_, holder)) = self
            .find(offset)
            .and_then(|place| self.taken.get_mut(place))
        {
            *holder = Holder::Peer;
        }
    }

    /// Frees the block at byte `offset` if the writer has it.
    pub(crate) fn give_unlent(&mut self, offset: u32) -> bool {
        self.give(offset, Holder::Writer)
    }

    /// Frees the block at byte `offset` if the peer has it.
    pub(crate) fn give_lent(&mut self, offset: u32) -> bool {
        self.give(offset, Holder::Peer)
    }

    /// Returns `true` while a part is taken.
    pub(crate) fn is_used(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Returns `true` once a part has been taken.
    pub(crate) fn was_used(&self) -> bool {
        self.was_used
    }

    fn find(&self, offset: u32) -> Option<usize> {
        if !offset.is_multiple_of(ALIGNMENT) {
            return None;
        }
        let start = offset / ALIGNMENT;
        self.taken
            .binary_search_by_key(&start, |(part, _)| part.start)
            .ok()
    }

    fn give(&mut self, offset: u32, holder: Holder) -> bool {
        let place = self.find(offset);
        let Some(place) = place.filter(|&place| self.taken[place].1 == holder) else {
            return false;
        };
        let (part, _) = self.taken.remove(place);
        self.add_free(part);
        true
    }

    /// Adds a free part, and joins it with its neighbours.
    fn add_free(&mut self, part: Part) {
        let next = self.free.partition_point(|free| free.start < part.start);
        let joins_next = self
            .free
            .get(next)
            .is_some_and(|free| part.start + part.units == free.start);
        let before = next.checked_sub(1).map(|index| self.free[index]);
        let joins_before = before.is_some_and(|free| free.start + free.units == part.start);
        match (joins_before, joins_next) {
            (true, true) => {
                self.free[next - 1].units += part.units + self.free[next].units;
                self.free.remove(next);
            }
            (true, false) => self.free[next - 1].units += part.units,
            (false, true) => {
                self.free[next].start = part.start;
                self.free[next].units += part.units;
            }
            (false, false) => self.free.insert(next, part),
        }
    }
}

/// Blocks begin at a multiple of this.
pub(super) const ALIGNMENT: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const UNITS: u32 = 64;

    #[test]
    fn blocks_do_not_overlap_and_all_room_comes_back() {
        let mut blocks = Blocks::new(UNITS * ALIGNMENT);
        // The obviously right model: who has each unit.
        let mut units = [false; UNITS as usize];
        let mut held: BTreeMap<u32, (u32, bool)> = BTreeMap::new();
        let mut random = 0x9E37_79B9_u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let choice = random >> 16;
            if choice.is_multiple_of(2) {
                let bytes = choice / 2 % 700;
                let count = bytes.div_ceil(ALIGNMENT).max(1);
                let fits = units
                    .windows(count as usize)
                    .any(|part| !part.contains(&true));
                let taken = blocks.take(bytes);
                assert_eq!(taken.is_some(), fits, "{bytes} bytes");
                let Some(offset) = taken else { continue };
                assert!(offset.is_multiple_of(ALIGNMENT));
                let start = offset / ALIGNMENT;
                for unit in &mut units[start as usize..(start + count) as usize] {
                    assert!(!*unit, "two have it");
                    *unit = true;
                }
                let is_lent = choice.is_multiple_of(3);
                if is_lent {
                    blocks.lend(offset);
                }
                held.insert(offset, (count, is_lent));
            } else if let Some((&offset, &(count, is_lent))) =
                held.iter().nth(choice as usize % held.len().max(1))
            {
                assert!(!if is_lent {
                    blocks.give_unlent(offset)
                } else {
                    blocks.give_lent(offset)
                });
                assert!(!blocks.give_lent(offset + 1), "inside of a unit");
                let given = if is_lent {
                    blocks.give_lent(offset)
                } else {
                    blocks.give_unlent(offset)
                };
                assert!(given);
                held.remove(&offset);
                let start = (offset / ALIGNMENT) as usize;
                units[start..start + count as usize].fill(false);
            }
            assert_eq!(blocks.is_used(), !held.is_empty());
        }
        for (offset, (_, is_lent)) in held {
            assert!(if is_lent {
                blocks.give_lent(offset)
            } else {
                blocks.give_unlent(offset)
            });
        }
        let all = Part {
            start: 0,
            units: UNITS,
        };
        assert_eq!((blocks.free, blocks.taken), (vec![all], vec![]));
    }

    #[test]
    fn block_that_nobody_has_is_not_freed() {
        let mut blocks = Blocks::new(2 * ALIGNMENT);
        let offset = blocks.take(0).unwrap();
        assert_eq!(blocks.take(65), None);
        assert!(blocks.give_unlent(offset));
        assert!(!blocks.give_unlent(offset) && !blocks.give_lent(offset));
        assert_eq!(blocks.take(65), Some(0));
    }
}
