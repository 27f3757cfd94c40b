//! What a server spends on segments of one connection, within its limit and with the account of its user.

use doorbell_proto::limits::SEGMENT_PAGE_BYTES;

use super::segments::roomy_bytes;

/// Who pays for segments: an account that connections share.
pub(crate) trait Purse: Send + std::fmt::Debug {
    /// Takes the first of these sizes, in bytes, for which there is room.
    fn take_first(&self, sizes: &[u64]) -> Option<u64>;

    /// Gives back what was taken.
    fn give_back(&self, bytes: u64);

    /// Notes that somebody was told that there is no room.
    fn was_refused(&self);
}

/// What one connection has of it. On a client, who makes no segments, nothing.
#[derive(Debug)]
pub(crate) struct Spending {
    purse: Option<Box<dyn Purse>>,
    limit_bytes: u64,
    used_bytes: u64,
}

impl Spending {
    pub(crate) fn new(purse: Box<dyn Purse>, limit_bytes: u64) -> Self {
        Self {
            purse: Some(purse),
            limit_bytes,
            used_bytes: 0,
        }
    }

    /// Returns what may spend nothing.
    pub(crate) fn none() -> Self {
        Self {
            purse: None,
            limit_bytes: 0,
            used_bytes: 0,
        }
    }

    /// Takes room for a segment with a block of `pages`: what is best for the next blocks too, or else what this one needs. Returns the size
    /// of the segment.
    pub(super) fn take(&mut self, pages: u32) -> Option<u32> {
        let exact = pages.checked_mul(SEGMENT_PAGE_BYTES);
        let left_bytes = self.limit_bytes - self.used_bytes;
        let sizes = [Some(roomy_bytes(pages)), exact].into_iter().flatten();
        let fitting: Vec<_> = sizes
            .map(u64::from)
            .filter(|bytes| *bytes <= left_bytes)
            .collect();
        let purse = self.purse.as_ref()?;
        let Some(taken) = purse.take_first(&fitting) else {
            purse.was_refused();
            return None;
        };
        self.used_bytes += taken;
        u32::try_from(taken).ok()
    }

    /// Gives the room of a segment back.
    pub(super) fn give(&mut self, bytes: u64) {
        let bytes = bytes.min(self.used_bytes); // a client has paid nothing
        self.used_bytes -= bytes;
        if let Some(purse) = &self.purse {
            purse.give_back(bytes);
        }
    }

    /// Gives the room of a segment back that could not be made after all.
    pub(super) fn refuse(&mut self, bytes: u64) {
        self.give(bytes);
        if let Some(purse) = &self.purse {
            purse.was_refused();
        }
    }

    pub(super) fn give_all(&mut self) {
        self.give(self.used_bytes);
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        self.give_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::connection::lock;

    const PAGE: u64 = SEGMENT_PAGE_BYTES as u64;

    /// What is left, and how often somebody was refused.
    #[derive(Clone, Debug)]
    struct Shared(Arc<Mutex<(u64, u64)>>);

    impl Shared {
        fn new(bytes: u64) -> Self {
            Self(Arc::new(Mutex::new((bytes, 0))))
        }

        fn spending(&self, limit_bytes: u64) -> Spending {
            Spending::new(Box::new(self.clone()), limit_bytes)
        }

        fn get(&self) -> (u64, u64) {
            *lock(&self.0)
        }
    }

    impl Purse for Shared {
        fn take_first(&self, sizes: &[u64]) -> Option<u64> {
            let mut left = lock(&self.0);
            let bytes = sizes.iter().copied().find(|bytes| *bytes <= left.0)?;
            left.0 -= bytes;
            Some(bytes)
        }

        fn give_back(&self, bytes: u64) {
            lock(&self.0).0 += bytes;
        }

        fn was_refused(&self) {
            lock(&self.0).1 += 1;
        }
    }

    #[test]
    fn segment_is_roomy_while_that_fits_and_exact_when_it_does_not() {
        let purse = Shared::new(1 << 30);
        let mut charge = purse.spending(3 << 20);
        assert_eq!(charge.take(256), Some(2 << 20));
        assert_eq!(charge.take(256), Some(1 << 20));
        assert_eq!((charge.take(1), purse.get().1), (None, 1));
        charge.give(1 << 20);
        assert_eq!(charge.take(1), Some(256 << 10));
        assert_eq!(purse.get().0, (1 << 30) - (2 << 20) - (256 << 10));
        assert_eq!(charge.take(u32::MAX), None);
    }

    #[test]
    fn connections_share_what_there_is_and_give_it_back() {
        let purse = Shared::new(4 * PAGE);
        let [mut one, mut other] = [PAGE * 3, PAGE * 9].map(|limit| purse.spending(limit));
        assert_eq!(one.take(4), None, "more than this connection may have");
        assert_eq!(one.take(3), Some(3 * SEGMENT_PAGE_BYTES));
        assert_eq!(other.take(2), None, "more than is left");
        drop(one);
        assert_eq!(other.take(4), Some(4 * SEGMENT_PAGE_BYTES));
        other.give_all();
        assert_eq!(purse.get(), (4 * PAGE, 2));
        assert_eq!(Spending::none().take(1), None);
    }
}
