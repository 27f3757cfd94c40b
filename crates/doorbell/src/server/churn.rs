//! How fast the connections of a user come and go, and how long the next one is to wait.
//!
//! To make and take apart the memory of a connection interrupts every thread of the process, and its worker has to look at it, too. So a user
//! whose connections end faster than a rate waits for the next ones. What stays costs that once, and is bounded by the number of connections:
//! however many come at once, none of them waits.
//!
//! This is the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371, annex A), which is a leaky bucket in one number: what
//! is kept is when the bucket will be empty.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::connection::lock;

/// The churn of one user.
#[derive(Debug)]
pub(super) struct Churn {
    /// What one connection adds.
    step: Duration,
    /// When everything that has ended would have ended at the rate; in the past if it has.
    paid_off: Mutex<Option<Instant>>,
}

impl Churn {
    /// `per_second` connections may end.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            step: Duration::from_secs(1) / per_second.max(1),
            paid_off: Mutex::new(None),
        }
    }

    /// Counts a connection that is over. What makes nobody wait any longer is not remembered, or the user would wait for it another time.
    pub(super) fn one_is_over(&self, now: Instant) {
        let mut paid_off = lock(&self.paid_off);
        let from = paid_off.map_or(now, |then| then.max(now));
        let latest = now + self.step * AT_ONCE + LONGEST_WAIT;
        *paid_off = Some(latest.min(from + self.step));
    }

    /// Returns how long somebody who comes now has to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let owed =
            lock(&self.paid_off).map_or(Duration::ZERO, |then| then.saturating_duration_since(now));
        owed.saturating_sub(self.step * AT_ONCE).min(LONGEST_WAIT)
    }

    /// Returns `true` if what has ended has no effect any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        lock(&self.paid_off).is_none_or(|then| then <= now)
    }
}

/// So many may end at once before anybody waits.
const AT_ONCE: u32 = 128;

/// Whoever has many connections may lose them all at once, and is to come back soon.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ended(churn: &Churn, count: u32, now: Instant) {
        (0..count).for_each(|_| churn.one_is_over(now));
    }

    #[test]
    fn nobody_waits_whose_connections_end_slowly_or_a_few_at_once() {
        let churn = Churn::new(1000);
        let start = Instant::now();
        assert!(churn.is_over(start));
        for n in 0..10_000 {
            assert_eq!(churn.wait(start + n * MS), Duration::ZERO);
            churn.one_is_over(start + n * MS);
        }
        let later = start + 20_000 * MS;
        assert!(churn.is_over(later));
        ended(&churn, AT_ONCE, later);
        assert_eq!(churn.wait(later), Duration::ZERO);
        assert!(!churn.is_over(later));
    }

    #[test]
    fn who_comes_and_goes_without_end_does_so_at_the_rate() {
        let churn = Churn::new(1000);
        let start = Instant::now();
        let (mut now, mut count) = (start, 0);
        while now < start + 1000 * MS {
            now += churn.wait(now);
            ended(&churn, 17, now);
            count += 17;
        }
        let most = 1000 + AT_ONCE + 2 * 17;
        assert!((1000..=most).contains(&count), "{count}");
    }

    #[test]
    fn who_loses_all_at_once_comes_back_soon_and_is_forgiven() {
        let churn = Churn::new(1000);
        let start = Instant::now();
        ended(&churn, 4096, start);
        assert_eq!(churn.wait(start), LONGEST_WAIT);
        assert_eq!(churn.wait(start + 900 * MS), 100 * MS);
        assert_eq!(churn.wait(start + 1000 * MS), Duration::ZERO);
        assert!(churn.is_over(start + 1128 * MS));
    }
}
