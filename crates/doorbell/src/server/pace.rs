//! How often a busy worker looks at the clock.

use std::time::{Duration, Instant};

/// Counts what a worker does between two looks at the clock. What a visit of a connection takes is for the peer to say: it is a glance at a word
/// of its memory, a handler, a wake-up, or a page fault for memory that the peer takes away meanwhile.
pub(super) struct Pace {
    visits: usize,
    /// Visits after which the clock is looked at.
    most: usize,
    looked_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            visits: 0,
            most: MOST_VISITS,
            looked_at: now,
        }
    }

    /// Begins anew, after a sleep.
    pub(super) fn start(&mut self, now: Instant) {
        (self.visits, self.looked_at) = (0, now);
    }

    /// Counts so many visits, and returns `true` if it is time to look at the clock.
    #[inline]
    pub(super) fn is_due(&mut self, visits: usize) -> bool {
        self.visits += visits;
        self.visits >= self.most
    }

    /// Learns what the clock says: when visits have taken long it is looked at earlier from now on, and then step by step later again. Returns
    /// `true` if they have.
    pub(super) fn looked(&mut self, now: Instant) -> bool {
        let took = now.duration_since(self.looked_at);
        let visits = std::mem::take(&mut self.visits);
        self.looked_at = now;
        let was_long = took > LONG;
        self.most = if was_long {
            let in_time = visits as u128 * LONG.as_nanos() / took.as_nanos();
            usize::try_from(in_time).map_or(MOST_VISITS, |most| most.clamp(1, MOST_VISITS))
        } else {
            (self.most + 1).min(MOST_VISITS)
        };
        was_long
    }
}

/// Visits between two looks at the clock, which takes as long as one of them if there is nothing to do.
const MOST_VISITS: usize = 16;

/// As long as it may take until the clock is looked at: half the time after which a worker looks who else has rung.
const LONG: Duration = Duration::from_nanos(12_500);

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes visits that take so long each, and returns how many of them there are between two looks, look by look.
    fn between_looks(pace: &mut Pace, visit: Duration, looks: usize) -> Vec<usize> {
        let look = |_| {
            let mut visits = 1;
            while !pace.is_due(1) {
                visits += 1;
            }
            pace.looked(pace.looked_at + visit * u32::try_from(visits).unwrap());
            visits
        };
        (0..looks).map(look).collect()
    }

    #[test]
    fn clock_is_looked_at_in_time_after_visits_that_take_long_and_seldom_again_later() {
        let mut pace = Pace::new(Instant::now());
        let short = between_looks(&mut pace, Duration::from_nanos(40), 3);
        assert_eq!(short, [16; 3]);
        let long = between_looks(&mut pace, LONG / 4, 4);
        assert_eq!(long, [16, 4, 5, 4]);
        let longer = between_looks(&mut pace, LONG * 3, 4);
        assert_eq!(longer, [5, 1, 1, 1]);
        let short = between_looks(&mut pace, Duration::from_nanos(40), 17);
        assert_eq!(short[..3], [1, 2, 3]);
        assert_eq!(short[14..], [15, 16, 16]);
    }

    #[test]
    fn look_that_comes_early_counts_the_visits_until_then() {
        let mut pace = Pace::new(Instant::now());
        assert!(!pace.is_due(2));
        assert!(pace.looked(pace.looked_at + LONG * 2));
        assert!(pace.is_due(1));
    }
}
