//! How often a busy worker looks at the clock.

use std::time::{Duration, Instant};

/// Counts what a worker does between two looks at the clock. What a visit of a connection takes is for the peer to say: it is a glance at a word
/// of its memory, a handler, a wake-up, or a page fault for memory that the peer takes away meanwhile.
pub(super) struct Pace {
    visits: usize,
    /// Those of them that have brought something.
    busy_visits: u32,
    /// Visits after which the clock is looked at.
    most: usize,
    looked_at: Instant,
    /// Visits have taken long since the last poll.
    is_slow: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            visits: 0,
            busy_visits: 0,
            most: MOST_VISITS,
            looked_at: now,
            is_slow: false,
        }
    }

    /// Begins to count, after a sleep. What earlier visits have taken still holds.
    pub(super) fn start(&mut self, now: Instant) {
        (self.visits, self.busy_visits, self.looked_at) = (0, 0, now);
    }

    /// Counts a visit that has brought something, which is counted as any other, too.
    #[inline]
    pub(super) fn has_brought(&mut self) {
        self.busy_visits += 1;
    }

    /// Counts so many visits, and returns `true` if it is time to look at the clock.
    #[inline]
    pub(super) fn is_due(&mut self, visits: usize) -> bool {
        self.visits += visits;
        self.visits >= self.most
    }

    /// Learns what the clock says, and returns how many visits have brought something since the last look, and what all have taken. If that is
    /// [long](LONG), the clock is looked at earlier from now on.
    pub(super) fn looked(&mut self, now: Instant) -> (u32, Duration) {
        let (visits, since_look) = (self.visits, self.since_look(now));
        let (_, took) = since_look;
        self.start(now);
        if took > LONG {
            let in_time = visits as u128 * LONG.as_nanos() / took.as_nanos();
            let in_time = usize::try_from(in_time).unwrap_or(MOST_VISITS);
            self.most = in_time.clamp(1, self.most);
            self.is_slow = true;
        }
        since_look
    }

    /// Returns how many visits have brought something since the last look, and what all have taken.
    pub(super) fn since_look(&self, now: Instant) -> (u32, Duration) {
        (self.busy_visits, now.duration_since(self.looked_at))
    }

    /// Learns that it has been looked who else has rung. Only then, and if no visits have taken long since the last time, the clock may be looked at a
    /// step later again: glances at somebody who pauses for a moment would soon undo what has been learned.
    pub(super) fn polled(&mut self) {
        if !std::mem::take(&mut self.is_slow) {
            self.most = (self.most + 1).min(MOST_VISITS);
        }
    }
}

/// Visits between two looks at the clock, which takes as long as one of them if there is nothing to do.
const MOST_VISITS: usize = 8;

/// As long as it may take until the clock is looked at, and until a worker looks who else has rung when that is reached.
pub(super) const LONG: Duration = Duration::from_nanos(12_500);

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
            let took = visit * u32::try_from(visits).unwrap();
            assert_eq!(pace.looked(pace.looked_at + took), (0, took));
            visits
        };
        (0..looks).map(look).collect()
    }

    const SHORT: Duration = Duration::from_nanos(40);

    #[test]
    fn clock_is_looked_at_in_time_after_visits_that_take_long() {
        let mut pace = Pace::new(Instant::now());
        assert_eq!(between_looks(&mut pace, SHORT, 3), [8; 3]);
        assert_eq!(between_looks(&mut pace, LONG / 2, 4), [8, 2, 2, 2]);
        assert_eq!(between_looks(&mut pace, LONG * 3, 3), [2, 1, 1]);
    }

    #[test]
    fn clock_is_looked_at_later_again_step_by_step_with_the_polls() {
        let mut pace = Pace::new(Instant::now());
        between_looks(&mut pace, LONG * 3, 1);
        pace.polled();
        assert_eq!(between_looks(&mut pace, SHORT, 100), [1; 100]);
        let later = (0..9).map(|_| {
            pace.polled();
            between_looks(&mut pace, SHORT, 1)[0]
        });
        assert_eq!(later.collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 8, 8]);
    }

    #[test]
    fn visits_that_bring_something_are_counted_until_the_next_look() {
        let mut pace = Pace::new(Instant::now());
        pace.has_brought();
        pace.has_brought();
        assert_eq!(pace.looked(pace.looked_at + SHORT), (2, SHORT));
        pace.has_brought();
        pace.start(pace.looked_at);
        assert_eq!(pace.since_look(pace.looked_at), (0, Duration::ZERO));
    }

    #[test]
    fn look_that_comes_early_counts_the_visits_until_then() {
        let mut pace = Pace::new(Instant::now());
        assert!(!pace.is_due(2));
        pace.looked(pace.looked_at + LONG * 2);
        assert!(pace.is_due(1));
    }
}
