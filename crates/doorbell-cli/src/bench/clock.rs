//! Timing, with one clock read for each round trip.
//!
//! A read ends one round trip and begins the next. What is read goes into a small buffer, and the buffer into the
//! histogram between two timed stretches, so that neither costs the round trips anything.

use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quanta::Clock;
use serde::{Deserialize, Serialize};

use super::sample::{self, Sample};
use crate::interrupt::interrupted;

/// How long to measure, and how fast.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Limit {
    /// Time before anything is counted.
    pub(crate) warm_up: Duration,
    /// Time that is counted.
    pub(crate) length: Duration,
    /// Pause before each round trip; `None` starts each when the one before has ended.
    pub(crate) pause: Option<Duration>,
}

impl Limit {
    /// Returns after how long a measurement can be given up.
    pub(crate) fn patience(&self) -> Duration {
        2 * (self.warm_up + self.length) + PATIENCE
    }
}

/// Times round trips of `size_bytes` one after the other.
///
/// # Errors
///
/// The first error of `round`.
pub(crate) fn closed_loop(
    limit: Limit,
    size_bytes: usize,
    mut round: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let mut laps = Laps::start(limit);
    loop {
        laps.pause();
        round()?;
        if !laps.end_lap() {
            return Ok(laps.finish(size_bytes));
        }
    }
}

/// Times of laps, until the time is over or the user interrupts.
pub(crate) struct Laps {
    phase: Phase,
    histogram: Histogram<u64>,
    buffer: Vec<u64>,
    lap_start: u64,
    timed_ns: u64,
}

impl Laps {
    /// Starts the first lap of the warm-up.
    pub(crate) fn start(limit: Limit) -> Self {
        let phase = Phase::start(limit);
        let lap_start = phase.clock.raw();
        Self {
            phase,
            histogram: sample::histogram(),
            buffer: Vec::with_capacity(BUFFERED_LAPS),
            lap_start,
            timed_ns: 0,
        }
    }

    /// Sleeps before a lap, if there are to be pauses.
    pub(crate) fn pause(&mut self) {
        if let Some(pause) = self.phase.limit.pause {
            thread::sleep(pause);
            self.begin_lap();
        }
    }

    /// Sleeps before a lap, if there are to be pauses, as a task. The clock of the runtime counts milliseconds, so that for shorter pauses a
    /// thread sleeps.
    pub(crate) async fn pause_task(&mut self) {
        if let Some(pause) = self.phase.limit.pause {
            if pause < Duration::from_millis(1) {
                // It ends early only if the runtime does.
                _ = tokio::task::spawn_blocking(move || thread::sleep(pause)).await;
            } else {
                tokio::time::sleep(pause).await;
            }
            self.begin_lap();
        }
    }

    /// Ends a lap and starts the next; returns `false` when it was the last.
    #[inline]
    pub(crate) fn end_lap(&mut self) -> bool {
        let now = self.phase.clock.raw();
        self.buffer.push(now.saturating_sub(self.lap_start));
        self.lap_start = now;
        if self.buffer.len() == BUFFERED_LAPS {
            self.empty_buffer();
            self.begin_lap();
        }
        (now < self.phase.end && !interrupted()) || self.next_phase()
    }

    /// Returns what was collected: nothing if the warm-up was interrupted.
    pub(crate) fn finish(mut self, size_bytes: usize) -> Sample {
        self.empty_buffer();
        if !self.phase.is_warm {
            self.histogram.reset();
        }
        let elapsed = Duration::from_nanos(self.timed_ns);
        let paced_per_s = self
            .phase
            .limit
            .pause
            .map(|_| self.histogram.len() as f64 / self.phase.passed().as_secs_f64());
        Sample {
            paced_per_s,
            ..Sample::of_round_trips(self.histogram, elapsed, size_bytes)
        }
    }

    /// Starts a lap now; what has passed since the last one belongs to none.
    fn begin_lap(&mut self) {
        self.lap_start = self.phase.clock.raw();
    }

    fn empty_buffer(&mut self) {
        for lap in self.buffer.drain(..) {
            let lap_ns = self.phase.clock.delta_as_nanos(0, lap);
            self.timed_ns += lap_ns;
            self.histogram.saturating_record(lap_ns.max(1));
        }
    }

    #[cold]
    fn next_phase(&mut self) -> bool {
        let goes_on = self.phase.next();
        if goes_on {
            self.buffer.clear();
            self.histogram.reset();
            self.timed_ns = 0;
            self.begin_lap();
        }
        goes_on
    }
}

/// Counts messages until the time is over or the user interrupts.
pub(crate) struct Counter {
    phase: Phase,
    started: Instant,
    messages: u64,
    since_look: u64,
}

impl Counter {
    /// Starts with the warm-up, of which nothing remains.
    pub(crate) fn start(limit: Limit) -> Self {
        Self {
            phase: Phase::start(limit),
            started: Instant::now(),
            messages: 0,
            since_look: 0,
        }
    }

    /// Counts messages that are finished; returns `false` when the time is over.
    #[inline]
    pub(crate) fn add(&mut self, messages: u64) -> bool {
        self.messages += messages;
        self.since_look += messages;
        self.since_look < MESSAGES_PER_LOOK || self.look()
    }

    /// Ends the count now, which may be later than the last message. Nothing counts if the warm-up was interrupted.
    pub(crate) fn finish(self, size_bytes: usize) -> Sample {
        let messages = if self.phase.is_warm { self.messages } else { 0 };
        Sample::of_throughput(messages, self.started.elapsed(), size_bytes)
    }

    fn look(&mut self) -> bool {
        self.since_look = 0;
        if self.phase.clock.raw() < self.phase.end && !interrupted() {
            return true;
        }
        let goes_on = self.phase.next();
        if goes_on {
            self.messages = 0;
            self.started = Instant::now();
        }
        goes_on
    }
}

/// The warm-up or what follows it.
struct Phase {
    clock: Clock,
    limit: Limit,
    is_warm: bool,
    began: Instant,
    /// When it is over, on the raw clock.
    end: u64,
}

impl Phase {
    fn start(limit: Limit) -> Self {
        let clock = Clock::new();
        let end = clock.raw() + raw_length(&clock, limit.warm_up);
        Self {
            clock,
            limit,
            is_warm: false,
            began: Instant::now(),
            end,
        }
    }

    /// Returns how long it has been going on.
    fn passed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Goes on from the warm-up to what counts; returns `false` when that is over too.
    fn next(&mut self) -> bool {
        if self.is_warm || interrupted() {
            return false;
        }
        self.is_warm = true;
        self.began = Instant::now();
        self.end = self.clock.raw() + raw_length(&self.clock, self.limit.length);
        true
    }
}

/// Returns `length` in units of the raw clock.
pub(crate) fn raw_length(clock: &Clock, length: Duration) -> u64 {
    // The clock converts from raw units only, so find the factor: 2^32 units are a second or a few.
    let ns_per_unit = clock.delta_as_nanos(0, 1 << 32) as f64 / (1_u64 << 32) as f64;
    (length.as_nanos() as f64 / ns_per_unit) as u64
}

/// Starting and ending two processes takes far less, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages between two looks at the clock.
const MESSAGES_PER_LOOK: u64 = 64;

/// Laps kept before the histogram takes them: few enough to stay in the nearest cache.
const BUFFERED_LAPS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WARM_UP: Limit = Limit {
        warm_up: Duration::ZERO,
        length: Duration::from_millis(20),
        pause: None,
    };

    #[test]
    fn closed_loop_counts_every_round_after_the_warm_up() {
        let mut rounds = 0;
        let sample = closed_loop(NO_WARM_UP, 64, || {
            rounds += 1;
            Ok(())
        });
        assert_eq!(
            sample.unwrap().messages,
            rounds - 1,
            "one round belongs to a warm-up of no length"
        );
    }

    #[test]
    fn pauses_are_not_part_of_a_round_trip() {
        let pause = Duration::from_millis(2);
        let sample = closed_loop(
            Limit {
                pause: Some(pause),
                ..NO_WARM_UP
            },
            64,
            || Ok(()),
        )
        .unwrap();
        assert!(sample.elapsed < pause * sample.messages as u32);
    }

    #[test]
    fn laps_end_when_the_time_is_over() {
        let started = Instant::now();
        let mut laps = Laps::start(NO_WARM_UP);
        while laps.end_lap() {}
        let passed = started.elapsed();
        assert!(passed >= Duration::from_millis(15), "{passed:?}");
    }

    #[test]
    fn a_warm_up_that_is_cut_short_counts_nothing() {
        let long = Limit {
            warm_up: Duration::from_secs(60),
            ..NO_WARM_UP
        };
        let mut laps = Laps::start(long);
        assert!(laps.end_lap());
        assert_eq!(laps.finish(64).messages, 0);
        let mut counter = Counter::start(long);
        assert!(counter.add(1));
        assert_eq!(counter.finish(64).messages, 0);
    }

    #[test]
    fn the_counter_forgets_the_warm_up() {
        let (mut counter, mut all) = (
            Counter::start(Limit {
                warm_up: NO_WARM_UP.length,
                ..NO_WARM_UP
            }),
            0,
        );
        while counter.add(100) {
            all += 100;
        }
        let sample = counter.finish(64);
        assert!(
            sample.messages > 0 && sample.messages < all,
            "{} of {all}",
            sample.messages
        );
        assert!(
            sample.elapsed >= Duration::from_millis(15),
            "{:?}",
            sample.elapsed
        );
    }
}
