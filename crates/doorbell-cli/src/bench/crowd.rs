//! Timing of many loops that run at once: one warm-up, one end, one histogram for all.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use quanta::Clock;

use super::clock::{Limit, raw_length};
use super::sample::{Sample, histogram};
use crate::interrupt::interrupted;

/// What all loops have in common.
pub(crate) struct Crowd {
    clock: Clock,
    length: Duration,
    /// When counting begins and ends, on the raw clock.
    begin: u64,
    end: u64,
    latency: Mutex<Histogram<u64>>,
}

impl Crowd {
    /// Starts the warm-up of all loops.
    pub(crate) fn start(limit: Limit) -> Arc<Self> {
        let clock = Clock::new();
        let begin = clock.raw() + raw_length(&clock, limit.warm_up);
        let end = begin + raw_length(&clock, limit.length);
        Arc::new(Self {
            clock,
            length: limit.length,
            begin,
            end,
            latency: Mutex::new(histogram()),
        })
    }

    /// Returns a place in the crowd, for one loop.
    pub(crate) fn join(self: &Arc<Self>) -> Member {
        Member {
            crowd: Arc::clone(self),
            buffer: Vec::with_capacity(BUFFERED),
        }
    }

    /// Returns what all loops have finished; to be called when they have ended.
    pub(crate) fn finish(&self, size_bytes: usize) -> Sample {
        let latency = std::mem::replace(
            &mut *self.latency.lock().unwrap_or_else(PoisonError::into_inner),
            histogram(),
        );
        let passed = self.clock.delta_as_nanos(self.begin, self.clock.raw());
        let elapsed = self.length.min(Duration::from_nanos(passed));
        Sample::of_round_trips(latency, elapsed, size_bytes)
    }
}

/// One loop of a crowd.
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    buffer: Vec<u64>,
}

impl Member {
    /// Returns the time, to be given back when what begins now has ended.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.crowd.clock.raw()
    }

    /// Counts what began at `start`; returns `false` when the time is over.
    #[inline]
    pub(crate) fn ended(&mut self, start: u64) -> bool {
        let now = self.now();
        if start >= self.crowd.begin && now <= self.crowd.end {
            self.buffer.push(now.saturating_sub(start));
            if self.buffer.len() == BUFFERED {
                self.empty_buffer();
            }
        }
        now < self.crowd.end && !interrupted()
    }

    fn empty_buffer(&mut self) {
        let mut latency = self
            .crowd
            .latency
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for lap in self.buffer.drain(..) {
            latency.saturating_record(self.crowd.clock.delta_as_nanos(0, lap).max(1));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.empty_buffer();
    }
}

/// Times that a loop keeps before it takes the lock of the histogram.
const BUFFERED: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(warm_up: Duration) -> Limit {
        Limit {
            warm_up,
            length: Duration::from_millis(20),
            pause: None,
        }
    }

    #[test]
    fn what_all_members_have_finished_is_counted() {
        let crowd = Crowd::start(limit(Duration::ZERO));
        let mut members = [crowd.join(), crowd.join()];
        for member in &mut members {
            let start = member.now();
            assert!(member.ended(start));
        }
        drop(members);
        assert_eq!(crowd.finish(64).messages, 2);
    }

    #[test]
    fn what_began_in_the_warm_up_is_not_counted() {
        let crowd = Crowd::start(limit(Duration::from_secs(60)));
        let mut member = crowd.join();
        let start = member.now();
        assert!(member.ended(start));
        drop(member);
        assert_eq!(crowd.finish(64).messages, 0);
    }
}
