//! When a worker [measures](stall) whether its visits make it sleep, which costs more than a glance at a connection that has nothing.
//!
//! It does after some that have taken long and in which it has slept and had a page fault, for a hundred times as long: who stalls so rarely
//! that it is not found takes a hundredth of the time. If nothing is found the worker rests, the longer the more often that happens: where much
//! memory is new, as after a thousand clients have connected, there are faults and locks to wait for that are nobody's. Nobody can hide in that,
//! either: a rest ends, too, when a hundredth of it has gone in such visits.

use std::time::{Duration, Instant};

use doorbell_shm::{
    stall,
    sys::{ThreadSleeps, thread_sleeps},
};

/// What a worker has learned of that.
pub(super) struct Wary {
    state: State,
    known: ThreadSleeps,
    /// How long the next rest is, and when the last one ended.
    rest: Duration,
    rested_at: Option<Instant>,
}

enum State {
    Calm,
    Wary {
        until: Instant,
        has_found: bool,
    },
    /// Nothing was found the last time.
    Resting {
        until: Instant,
        /// What may go in visits that have taken long.
        patience: Duration,
    },
}

impl Wary {
    pub(super) fn new() -> Self {
        Self {
            state: State::Calm,
            known: ThreadSleeps::default(),
            rest: SHORTEST,
            rested_at: None,
        }
    }

    /// Learns what the last visits, of which so many have brought something, have taken together.
    #[inline]
    pub(super) fn looked(&mut self, now: Instant, visits: u32, took: Duration) {
        if matches!(self.state, State::Calm) && took <= SUSPICIOUS {
            return;
        }
        self.look_closer(now, visits, took);
    }

    #[cold]
    fn look_closer(&mut self, now: Instant, visits: u32, took: Duration) {
        let is_long = took > SUSPICIOUS + TIME_OF_A_VISIT.saturating_mul(visits);
        match self.state {
            State::Wary { until, .. } if now < until => return,
            State::Wary { has_found, .. } => return self.end(now, has_found),
            State::Resting { until, .. } if now >= until => self.state = State::Calm,
            State::Calm | State::Resting { .. } => {}
        }
        if is_long {
            self.took_long(now, took, thread_sleeps());
        }
    }

    /// A stall has been found.
    pub(super) fn found(&mut self) {
        if let State::Wary { has_found, .. } = &mut self.state {
            *has_found = true;
        }
    }

    /// Is not wary while it sleeps, which may be for ever.
    pub(super) fn sleeps(&self) {
        if let State::Wary { .. } = self.state {
            stall::watch(false);
        }
    }

    /// Has slept, which is no stall, and is as wary as before.
    pub(super) fn woke(&mut self) {
        self.known = thread_sleeps();
        if let State::Wary { .. } = self.state {
            stall::watch(true);
        }
    }

    fn took_long(&mut self, now: Instant, took: Duration, sleeps: ThreadSleeps) {
        let before = std::mem::replace(&mut self.known, sleeps);
        if sleeps.faults == before.faults || sleeps.sleeps == before.sleeps {
            return; // it had to wait for a CPU, or somebody has computed
        }
        if let State::Resting { patience, .. } = &mut self.state {
            *patience = patience.saturating_sub(took);
            if !patience.is_zero() {
                return;
            }
        }
        stall::watch(true);
        self.state = State::Wary {
            until: now + (took * PATIENCE).clamp(SHORTEST, LONGEST),
            has_found: false,
        };
    }

    fn end(&mut self, now: Instant, has_found: bool) {
        stall::watch(false);
        let was_long_ago = |at| now.saturating_duration_since(at) > LONGEST_REST;
        if has_found || self.rested_at.is_none_or(was_long_ago) {
            self.rest = SHORTEST;
        }
        if has_found {
            self.state = State::Calm;
            return;
        }
        let until = now + self.rest;
        self.state = State::Resting {
            until,
            patience: self.rest / PATIENCE,
        };
        self.rested_at = Some(until);
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }
}

/// Twice the longest turn: a worker that keeps to its limits does not take so long between two looks at the clock.
const SUSPICIOUS: Duration = Duration::from_micros(50);
/// What a visit that brings something may take on top of that, when there are many between two looks: more than a call of which all memory is
/// new.
const TIME_OF_A_VISIT: Duration = Duration::from_micros(5);
/// How long a worker is wary, and rests, at least, and how long it is wary at most.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(10);
/// With that a worker is wary for a tenth of the time if there is nothing to find and little takes long.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// This part of the time may go in stalls that are not found.
const PATIENCE: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that has long visits, in each of which it has so many sleeps and faults.
    struct Thread {
        now: Instant,
        wary: Wary,
        counts: ThreadSleeps,
    }

    impl Thread {
        fn new() -> Self {
            Self {
                now: Instant::now(),
                wary: Wary::new(),
                counts: ThreadSleeps::default(),
            }
        }

        /// Has a long visit, and returns whether it is wary.
        fn has_long_visit(&mut self, took: Duration, sleeps: u64, faults: u64) -> bool {
            self.now += took;
            self.counts.sleeps += sleeps;
            self.counts.faults += faults;
            self.wary.took_long(self.now, took, self.counts);
            self.is_wary()
        }

        /// Lets time pass in which nothing takes long, and returns for how much of it it was wary.
        fn has_short_visits(&mut self, time: Duration) -> Duration {
            let (until, step) = (self.now + time, Duration::from_millis(1));
            let mut wary = Duration::ZERO;
            while self.now < until {
                wary += if self.is_wary() { step } else { Duration::ZERO };
                self.now += step;
                self.wary.looked(self.now, 8, Duration::from_micros(1));
            }
            wary
        }

        fn is_wary(&self) -> bool {
            assert_eq!(
                matches!(self.wary.state, State::Wary { .. }),
                stall::is_watched()
            );
            stall::is_watched()
        }
    }

    /// It makes the worker wary for the shortest time.
    const LONG: Duration = Duration::from_micros(500);

    #[test]
    fn worker_is_wary_for_a_while_after_a_long_visit_with_a_sleep_and_a_fault() {
        let mut thread = Thread::new();
        assert!(!thread.has_long_visit(LONG, 0, 0), "it was preempted");
        assert!(
            !thread.has_long_visit(LONG, 1, 0),
            "it has waited for a lock"
        );
        assert!(!thread.has_long_visit(LONG, 0, 1), "memory was new");
        assert!(thread.has_long_visit(LONG, 1, 1));
        assert_eq!(thread.has_short_visits(SHORTEST * 2), SHORTEST);
    }

    #[test]
    fn worker_is_wary_for_a_hundred_times_what_a_visit_has_taken() {
        for (took, time) in [(2, 200), (20, 2000), (1000, 10_000)] {
            let mut thread = Thread::new();
            let [took, time] = [took, time].map(Duration::from_millis);
            assert!(thread.has_long_visit(took, 1, 1));
            assert_eq!(thread.has_short_visits(time * 2), time);
        }
    }

    #[test]
    fn visit_among_many_may_be_longer() {
        let mut wary = Wary::new();
        let took = SUSPICIOUS + TIME_OF_A_VISIT * 99;
        let now = Instant::now();
        for (visits, was_looked_at) in [(100, false), (98, true)] {
            wary.known.faults = u64::MAX;
            wary.looked(now, visits, took);
            let is_known = wary.known.faults < u64::MAX;
            assert_eq!(is_known, was_looked_at, "{visits} visits");
        }
        stall::watch(false);
    }

    #[test]
    fn rest_after_nothing_was_found_is_longer_each_time() {
        let mut thread = Thread::new();
        for rest in [1, 2, 4, 8, 10, 10] {
            assert!(thread.has_long_visit(LONG, 1, 1));
            thread.has_short_visits(SHORTEST);
            let patience = SHORTEST * rest / PATIENCE;
            assert!(
                !thread.has_long_visit(patience - LONG / 5, 1, 1),
                "it rests"
            );
            thread.has_short_visits(SHORTEST * rest - patience + LONG * 2);
            assert!(matches!(thread.wary.state, State::Calm), "{rest}");
        }
        thread.has_short_visits(LONGEST_REST + LONG * 2);
        assert!(thread.has_long_visit(LONG, 1, 1));
        thread.has_short_visits(SHORTEST * 2 + LONG * 2);
        assert!(
            thread.has_long_visit(LONG, 1, 1),
            "the first is short again"
        );
        stall::watch(false);
    }

    #[test]
    fn rest_ends_when_a_hundredth_of_it_has_gone_in_long_visits() {
        let mut thread = Thread::new();
        thread.has_long_visit(LONG, 1, 1);
        thread.has_short_visits(SHORTEST);
        let step = SHORTEST / PATIENCE / 5;
        for _ in 0..4 {
            assert!(!thread.has_long_visit(step, 1, 1));
            assert!(!thread.has_long_visit(LONG, 0, 1), "these do not count");
        }
        assert!(thread.has_long_visit(step, 1, 1));
        stall::watch(false);
    }

    #[test]
    fn long_visit_that_ends_after_the_rest_is_not_lost() {
        let mut thread = Thread::new();
        thread.has_long_visit(LONG, 1, 1);
        thread.has_short_visits(SHORTEST);
        assert!(matches!(thread.wary.state, State::Resting { .. }));
        let other = u64::MAX; // than what the system counts
        thread.wary.known = ThreadSleeps {
            sleeps: other,
            faults: other,
        };
        thread.now += SHORTEST * 2;
        thread.wary.looked(thread.now, 1, SHORTEST * 2);
        assert!(thread.is_wary());
        stall::watch(false);
    }

    #[test]
    fn worker_that_has_found_something_does_not_rest() {
        let mut thread = Thread::new();
        thread.has_long_visit(LONG, 1, 1);
        thread.wary.found();
        assert_eq!(thread.has_short_visits(SHORTEST * 2), SHORTEST);
        assert!(thread.has_long_visit(LONG, 1, 1));
        stall::watch(false);
    }
}
