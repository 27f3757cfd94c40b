//! What a server spends on segments: per connection, and for all of them together.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use doorbell_proto::limits::SEGMENT_PAGE_BYTES;

use super::segments::roomy_bytes;

/// What all connections of a server may have together.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    refused: AtomicU64,
}

/// What one connection has of it. On a client, who makes no segments, nothing.
#[derive(Debug)]
pub(crate) struct Spending {
    budget: Arc<Budget>,
    limit_bytes: u64,
    used_bytes: u64,
}

impl Budget {
    pub(crate) fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Returns the bytes of all segments that there are.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Returns how often there was no room for a segment.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| {
            used.checked_add(bytes)
                .filter(|sum| *sum <= self.limit_bytes)
        };
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }
}

impl Spending {
    pub(crate) fn new(budget: &Arc<Budget>, limit_bytes: u64) -> Self {
        Self {
            budget: Arc::clone(budget),
            limit_bytes,
            used_bytes: 0,
        }
    }

    /// Returns what may spend nothing.
    pub(crate) fn none() -> Self {
        Self::new(&Budget::new(0), 0)
    }

    /// Takes room for a segment with a block of `pages`: what is best for the next blocks too, or else what this one needs. Returns the size
    /// of the segment.
    pub(super) fn take(&mut self, pages: u32) -> Option<u32> {
        let exact = pages.checked_mul(SEGMENT_PAGE_BYTES);
        let sizes = [Some(roomy_bytes(pages)), exact];
        let taken = sizes
            .into_iter()
            .flatten()
            .find(|bytes| self.try_take(u64::from(*bytes)));
        if taken.is_none() {
            self.budget.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn try_take(&mut self, bytes: u64) -> bool {
        let used_bytes = self.used_bytes.saturating_add(bytes);
        let fits = used_bytes <= self.limit_bytes && self.budget.take(bytes);
        if fits {
            self.used_bytes = used_bytes;
        }
        fits
    }

    /// Gives the room of a segment back.
    pub(super) fn give(&mut self, bytes: u64) {
        let bytes = bytes.min(self.used_bytes); // a client has paid nothing
        self.used_bytes -= bytes;
        self.budget.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Gives the room of a segment back that could not be made after all.
    pub(super) fn refuse(&mut self, bytes: u64) {
        self.give(bytes);
        self.budget.refused.fetch_add(1, Ordering::Relaxed);
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
    use super::*;

    const PAGE: u64 = SEGMENT_PAGE_BYTES as u64;

    #[test]
    fn segment_is_roomy_while_that_fits_and_exact_when_it_does_not() {
        let budget = Budget::new(1 << 30);
        let mut charge = Spending::new(&budget, 3 << 20);
        assert_eq!(charge.take(256), Some(2 << 20));
        assert_eq!(charge.take(256), Some(1 << 20));
        assert_eq!((charge.take(1), budget.refused()), (None, 1));
        charge.give(1 << 20);
        assert_eq!(charge.take(1), Some(256 << 10));
        assert_eq!(budget.used_bytes(), (2 << 20) + (256 << 10));
        assert_eq!(charge.take(u32::MAX), None);
    }

    #[test]
    fn connections_share_what_a_server_has_and_give_it_back() {
        let budget = Budget::new(4 * PAGE);
        let [mut one, mut other] = [PAGE * 3, PAGE * 9].map(|limit| Spending::new(&budget, limit));
        assert_eq!(one.take(4), None, "more than this connection may have");
        assert_eq!(one.take(3), Some(3 * SEGMENT_PAGE_BYTES));
        assert_eq!(other.take(2), None, "more than is left");
        drop(one);
        assert_eq!(other.take(4), Some(4 * SEGMENT_PAGE_BYTES));
        other.give_all();
        assert_eq!((budget.used_bytes(), budget.refused()), (0, 2));
    }
}
