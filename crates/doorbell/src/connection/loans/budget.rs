//! What a server spends on segments of one connection, within its limit and with the account of its user.

use std::sync::Arc;

use doorbell_proto::limits::SEGMENT_PAGE_BYTES;

use super::segments::roomy_bytes;

/// Who pays for segments: an account that connections share.
pub(crate) trait Purse: Send + Sync + std::fmt::Debug {
    /// Takes the first of these sizes, in bytes, for which there is room.
    fn take_first(&self, sizes: &[u64]) -> Option<u64>;

    /// Returns how much could be taken at most. Others take of it meanwhile.
    fn left_bytes(&self) -> u64;

    /// Gives back what was taken.
    fn give_back(&self, bytes: u64);

    /// Notes that somebody was told that there is no room.
    fn was_refused(&self);
}

/// What one connection has of it. On a client, who makes no segments, nothing.
#[derive(Debug)]
pub(crate) struct Spending {
    purse: Option<Arc<dyn Purse>>,
    limit_bytes: u64,
    used_bytes: u64,
}

/// What has been paid for a segment. It is given back when nobody has the segment mapped any more, which may be after the end of the connection.
#[derive(Debug)]
pub(super) struct Paid {
    purse: Arc<dyn Purse>,
    bytes: u32,
}

impl Paid {
    pub(super) fn bytes(&self) -> u32 {
        self.bytes
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        self.purse.give_back(self.bytes.into());
    }
}

impl Spending {
    pub(crate) fn new(purse: Arc<dyn Purse>, limit_bytes: u64) -> Self {
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

    /// Takes room for a segment with a block of `pages`: what is best for the next blocks too, or else what this one needs. Notes that somebody is told that
    /// there is none.
    pub(super) fn take(&mut self, pages: u32) -> Option<Paid> {
        let paid = self.try_take(pages);
        if paid.is_none() {
            self.was_refused();
        }
        paid
    }

    /// As [`take`](Self::take), if the caller may find room yet.
    pub(super) fn try_take(&mut self, pages: u32) -> Option<Paid> {
        let exact = pages.checked_mul(SEGMENT_PAGE_BYTES);
        let left_bytes = self.limit_bytes - self.used_bytes;
        let sizes = [Some(roomy_bytes(pages)), exact].into_iter().flatten();
        let fitting: Vec<_> = sizes
            .map(u64::from)
            .filter(|bytes| *bytes <= left_bytes)
            .collect();
        let purse = self.purse.as_ref()?;
        let taken = purse.take_first(&fitting)?;
        self.used_bytes += taken;
        Some(Paid {
            purse: Arc::clone(purse),
            bytes: u32::try_from(taken).expect("sizes of segments are numbers of 32 bits"),
        })
    }

    /// Returns `true` if there would be room for a segment with a block of `pages` if the connection gave `bytes` back. On a client never.
    pub(super) fn would_take(&self, pages: u32, bytes: u64) -> bool {
        let exact_bytes = u64::from(pages) * u64::from(SEGMENT_PAGE_BYTES);
        self.purse.as_ref().is_some_and(|purse| {
            let left_bytes = purse.left_bytes().min(self.limit_bytes - self.used_bytes);
            exact_bytes <= left_bytes.saturating_add(bytes)
        })
    }

    /// Returns `true` if we are the server, who pays.
    pub(super) fn is_ours(&self) -> bool {
        self.purse.is_some()
    }

    /// The connection has a segment less: it may have another one. What was paid for it is given back apart from that.
    pub(super) fn give(&mut self, bytes: u64) {
        self.used_bytes = self.used_bytes.saturating_sub(bytes); // a client has paid nothing
    }

    /// As [`give`](Self::give), of one that could not be made after all.
    pub(super) fn refuse(&mut self, bytes: u64) {
        self.give(bytes);
        self.was_refused();
    }

    /// Notes that somebody is told that there is no room.
    pub(super) fn was_refused(&self) {
        if let Some(purse) = &self.purse {
            purse.was_refused();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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
            Spending::new(Arc::new(self.clone()), limit_bytes)
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

        fn left_bytes(&self) -> u64 {
            self.get().0
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
        let [first, second] = [256, 256].map(|pages| charge.take(pages).unwrap());
        assert_eq!((first.bytes(), second.bytes()), (2 << 20, 1 << 20));
        assert_eq!((charge.take(1).is_none(), purse.get().1), (true, 1));
        charge.give(1 << 20);
        drop(second);
        assert_eq!(charge.take(1).unwrap().bytes(), 256 << 10);
        charge.give(256 << 10);
        assert_eq!(purse.get().0, (1 << 30) - (2 << 20));
        assert!(charge.take(u32::MAX).is_none());
    }

    #[test]
    fn connections_share_what_there_is_and_give_it_back() {
        let purse = Shared::new(4 * PAGE);
        let [mut one, mut other] = [PAGE * 3, PAGE * 9].map(|limit| purse.spending(limit));
        assert!(one.take(4).is_none(), "more than this connection may have");
        let paid = one.take(3).unwrap();
        assert_eq!(paid.bytes(), 3 * SEGMENT_PAGE_BYTES);
        drop(one);
        assert!(other.take(2).is_none(), "more than is left");
        assert!(other.would_take(2, PAGE) && !other.would_take(3, PAGE));
        drop(paid);
        let paid = other.take(4).unwrap();
        assert_eq!(paid.bytes(), 4 * SEGMENT_PAGE_BYTES);
        drop(paid);
        assert_eq!(purse.get(), (4 * PAGE, 2));
        assert!(Spending::none().take(1).is_none());
        assert!(!Spending::none().would_take(1, PAGE));
    }
}
