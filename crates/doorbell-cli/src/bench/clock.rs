//! Timing of round trips, with one clock read for each.
//!
//! A read ends one round trip and begins the next. What is read goes into a small buffer, and the buffer into the
//! histogram between two timed stretches, so that neither costs the round trips anything.

use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use quanta::Clock;

use super::sample::Sample;
use crate::interrupt::interrupted;

/// How long to measure, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Time before anything is counted.
    pub(crate) warm_up: Duration,
    /// Time that is counted.
    pub(crate) length: Duration,
    /// Pause before each round trip; `None` starts each when the one before has ended.
    pub(crate) pause: Option<Duration>,
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
    let mut warm_up = Recorder::start(limit.warm_up);
    while warm_up.goes_on() {
        round()?;
    }
    let mut recorder = Recorder::start(limit.length);
    loop {
        if let Some(pause) = limit.pause {
            thread::sleep(pause);
            recorder.begin_lap();
        }
        round()?;
        if !recorder.end_lap() {
            return Ok(recorder.finish(size_bytes));
        }
    }
}

/// Times round trips of `size_bytes` one after the other, on the runtime of the caller.
///
/// # Errors
///
/// The first error of `round`.
pub(crate) async fn closed_loop_async(
    limit: Limit,
    size_bytes: usize,
    mut round: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let mut warm_up = Recorder::start(limit.warm_up);
    while warm_up.goes_on() {
        round().await?;
    }
    let mut recorder = Recorder::start(limit.length);
    loop {
        if let Some(pause) = limit.pause {
            tokio::time::sleep(pause).await;
            recorder.begin_lap();
        }
        round().await?;
        if !recorder.end_lap() {
            return Ok(recorder.finish(size_bytes));
        }
    }
}

/// Collects the times of laps until a given time has passed or the user interrupts.
pub(crate) struct Recorder {
    clock: Clock,
    histogram: Histogram<u64>,
    buffer: Vec<u64>,
    lap_start: u64,
    end: u64,
    timed_ns: u64,
}

impl Recorder {
    /// Starts the first lap; laps go on for `length`.
    pub(crate) fn start(length: Duration) -> Self {
        let clock = Clock::new();
        let histogram = Histogram::new_with_bounds(1, LONGEST_LAP_NS, 3).expect("these bounds are valid");
        let (start, end) = clock_range(&clock, length);
        Self { clock, histogram, buffer: Vec::with_capacity(BUFFERED_LAPS), lap_start: start, end, timed_ns: 0 }
    }

    /// Starts a lap now; what has passed since the last one belongs to none.
    pub(crate) fn begin_lap(&mut self) {
        self.lap_start = self.clock.raw();
    }

    /// Ends a lap and starts the next; returns `false` when it was the last.
    pub(crate) fn end_lap(&mut self) -> bool {
        let now = self.clock.raw();
        self.buffer.push(now.saturating_sub(self.lap_start));
        self.lap_start = now;
        if self.buffer.len() == BUFFERED_LAPS {
            self.empty_buffer();
            self.begin_lap();
        }
        now < self.end && !interrupted()
    }

    /// Returns `false` once the time has passed. Counts nothing.
    pub(crate) fn goes_on(&mut self) -> bool {
        self.clock.raw() < self.end && !interrupted()
    }

    /// Returns what was collected.
    pub(crate) fn finish(mut self, size_bytes: usize) -> Sample {
        self.empty_buffer();
        Sample {
            messages: self.histogram.len(),
            elapsed: Duration::from_nanos(self.timed_ns),
            latency: Some(self.histogram),
            size_bytes,
            system_calls_per_message: None,
        }
    }

    fn empty_buffer(&mut self) {
        for lap in self.buffer.drain(..) {
            let lap_ns = self.clock.delta_as_nanos(0, lap);
            self.timed_ns += lap_ns;
            self.histogram.saturating_record(lap_ns.max(1));
        }
    }
}

/// Returns the raw clock values of now and of `length` later.
fn clock_range(clock: &Clock, length: Duration) -> (u64, u64) {
    let start = clock.raw();
    // The clock converts only from raw units, so find the factor: 2^32 units are one to eight seconds on today's CPUs.
    let ns_per_unit = clock.delta_as_nanos(0, 1 << 32) as f64 / (1u64 << 32) as f64;
    (start, start + (length.as_nanos() as f64 / ns_per_unit) as u64)
}

/// Laps kept before the histogram takes them: few enough to stay in the nearest cache.
const BUFFERED_LAPS: usize = 512;

/// Laps longer than this count as this.
const LONGEST_LAP_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_loop_counts_every_round_after_the_warm_up() {
        let limit = Limit { warm_up: Duration::ZERO, length: Duration::from_millis(5), pause: None };
        let mut rounds = 0;
        let sample = closed_loop(limit, 64, || {
            rounds += 1;
            Ok(())
        });
        assert_eq!(sample.unwrap().messages, rounds);
    }

    #[test]
    fn pauses_are_not_part_of_a_round_trip() {
        let pause = Some(Duration::from_millis(2));
        let limit = Limit { warm_up: Duration::ZERO, length: Duration::from_millis(20), pause };
        let sample = closed_loop(limit, 64, || Ok(())).unwrap();
        assert!(sample.elapsed < Duration::from_millis(2) * sample.messages as u32);
    }

    #[test]
    fn the_recorder_ends_at_its_length() {
        let started = std::time::Instant::now();
        let mut recorder = Recorder::start(Duration::from_millis(30));
        while recorder.end_lap() {}
        let passed = started.elapsed();
        assert!(passed >= Duration::from_millis(25), "{passed:?}");
    }
}
