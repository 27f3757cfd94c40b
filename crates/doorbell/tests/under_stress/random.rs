//! Choices that can be made again.

/// xorshift64*, one for each caller.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, caller: u32) -> Self {
        let mut random = Self((seed ^ u64::from(caller) << 40) | 1);
        for _ in 0..8 {
            random.below(1);
        }
        random
    }

    /// Returns a number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        u32::try_from(number).unwrap() % limit
    }

    /// Returns a size of a message: most are small, some have a megabyte.
    pub(crate) fn size(&mut self) -> usize {
        let limit = match self.below(16) {
            0..8 => 100,
            8..12 => 5000,
            12..15 => 50_000,
            _ => (1 << 20) + 1,
        };
        self.below(limit) as usize
    }
}
