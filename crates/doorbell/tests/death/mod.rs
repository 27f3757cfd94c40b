//! Two processes, one of which is killed: what they say to each other, and what is counted afterwards.

pub(crate) mod asking;
pub(crate) mod blocking;
pub(crate) mod clients;
pub(crate) mod counts;
pub(crate) mod messages;
pub(crate) mod process;
pub(crate) mod resources;
pub(crate) mod servers;
pub(crate) mod serving;
pub(crate) mod together;
#[cfg(doorbell_failpoints)]
pub(crate) mod told;
pub(crate) mod torn;
#[cfg(doorbell_failpoints)]
pub(crate) mod walk;

/// A sequence of numbers that looks random and can be played again (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
