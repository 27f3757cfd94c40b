//! Timing, with one clock read for each round trip.
//!
//! A read ends one round trip and begins the next. What is read goes into a small buffer, and the buffer into the histogram
//! between two timed stretches, so that neither costs the round trips anything.

use std::thread;
use std::time::{Duration, Instant};

use quanta::Clock;
use serde::{Deserialize, Serialize};

use crate::histogram::Times;
use crate::sample::Figures;

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

/// Times round trips one after the other.
///
/// # Errors
///
/// The first error of `round`.
pub(crate) fn closed_loop(
    limit: Limit,
    round: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Figures> {
    let (times, elapsed) = closed_loop_times(limit, round)?;
    Ok(times.figures(elapsed))
}

/// Times round trips one after the other and returns every time, and the sum of all.
///
/// # Errors
///
/// The first error of `round`.
pub(crate) fn closed_loop_times(
    limit: Limit,
    mut round: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<(Times, Duration)> {
    let mut laps = Laps::start(limit);
    loop {
        if let Some(pause) = limit.pause {
            thread::sleep(pause);
            laps.begin_lap();
        }
        round()?;
        if !laps.end_lap() {
            return Ok(laps.finish());
        }
    }
}

/// Something that makes one round trip after the other, as a task.
pub(crate) trait Caller: Send + 'static {
    /// Makes one round trip and checks what comes back.
    fn call(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Times round trips of a task one after the other.
///
/// # Errors
///
/// The first error of `caller`.
pub(crate) async fn closed_loop_task(
    limit: Limit,
    mut caller: impl Caller,
) -> anyhow::Result<Figures> {
    let mut laps = Laps::start(limit);
    loop {
        if let Some(pause) = limit.pause {
            tokio::time::sleep(pause).await;
            laps.begin_lap();
        }
        caller.call().await?;
        if !laps.end_lap() {
            let (times, elapsed) = laps.finish();
            return Ok(times.figures(elapsed));
        }
    }
}

/// Times of laps, until the time is over.
struct Laps {
    clock: Clock,
    limit: Limit,
    is_warm: bool,
    end: u64,
    times: Times,
    buffer: Vec<u64>,
    lap_start: u64,
    timed_ns: u64,
}

impl Laps {
    fn start(limit: Limit) -> Self {
        let clock = Clock::new();
        let lap_start = clock.raw();
        Self {
            end: lap_start + raw_length(&clock, limit.warm_up),
            clock,
            limit,
            is_warm: false,
            times: Times::new(3),
            buffer: Vec::with_capacity(BUFFERED_LAPS),
            lap_start,
            timed_ns: 0,
        }
    }

    fn begin_lap(&mut self) {
        self.lap_start = self.clock.raw();
    }

    /// Ends a lap and starts the next; returns `false` when it was the last.
    #[inline]
    fn end_lap(&mut self) -> bool {
        let now = self.clock.raw();
        self.buffer.push(now.saturating_sub(self.lap_start));
        self.lap_start = now;
        if self.buffer.len() == BUFFERED_LAPS {
            self.empty_buffer();
            self.begin_lap();
        }
        now < self.end || self.next_phase()
    }

    fn finish(mut self) -> (Times, Duration) {
        self.empty_buffer();
        (self.times, Duration::from_nanos(self.timed_ns))
    }

    fn empty_buffer(&mut self) {
        for lap in self.buffer.drain(..) {
            let lap_ns = self.clock.delta_as_nanos(0, lap);
            self.timed_ns += lap_ns;
            self.times.record(lap_ns);
        }
    }

    #[cold]
    fn next_phase(&mut self) -> bool {
        if self.is_warm {
            return false;
        }
        self.is_warm = true;
        self.buffer.clear();
        self.times.clear();
        self.timed_ns = 0;
        self.begin_lap();
        self.end = self.lap_start + raw_length(&self.clock, self.limit.length);
        true
    }
}

/// Counts messages until the time is over.
pub(crate) struct Counter {
    limit: Limit,
    is_warm: bool,
    started: Instant,
    messages: u64,
    since_look: u64,
}

impl Counter {
    /// Starts with the warm-up, of which nothing remains.
    pub(crate) fn start(limit: Limit) -> Self {
        Self {
            limit,
            is_warm: false,
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

    /// Looks at the clock, for who waits without counting; returns `false` when the time is over.
    pub(crate) fn look(&mut self) -> bool {
        self.since_look = 0;
        let length = if self.is_warm {
            self.limit.length
        } else {
            self.limit.warm_up
        };
        if self.started.elapsed() < length {
            return true;
        }
        if self.is_warm {
            return false;
        }
        self.is_warm = true;
        self.messages = 0;
        self.started = Instant::now();
        true
    }

    /// Ends the count now, which may be later than the last message.
    pub(crate) fn finish(self) -> Figures {
        Figures::of_rate(self.messages, self.started.elapsed())
    }
}

/// Returns `length` in units of the raw clock.
fn raw_length(clock: &Clock, length: Duration) -> u64 {
    // The clock converts from raw units only, so find the factor: 2^32 units are a second or a few.
    let ns_per_unit = clock.delta_as_nanos(0, 1 << 32) as f64 / (1_u64 << 32) as f64;
    (length.as_nanos() as f64 / ns_per_unit) as u64
}

/// Few enough to stay in the nearest cache, many enough that emptying the buffer happens rarely.
const BUFFERED_LAPS: usize = 256;

/// A look at the clock costs as much as a few messages.
const MESSAGES_PER_LOOK: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        warm_up: Duration::from_millis(5),
        length: Duration::from_millis(15),
        pause: None,
    };

    #[test]
    fn a_closed_loop_lasts_as_long_as_it_should() {
        let started = Instant::now();
        let figures = closed_loop(LIMIT, || Ok(())).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(20));
        assert!(figures.messages > 0 && figures.p50_ns.is_some());
    }

    #[test]
    fn a_pause_is_no_part_of_a_round_trip() {
        let pause = Duration::from_millis(2);
        let limit = Limit {
            pause: Some(pause),
            ..LIMIT
        };
        let figures = closed_loop(limit, || Ok(())).unwrap();
        assert!(figures.p50_ns.unwrap() < pause.as_nanos() as f64);
    }

    #[test]
    fn the_counter_forgets_the_warm_up() {
        let (mut counter, mut all) = (Counter::start(LIMIT), 0);
        while counter.add(64) {
            all += 64;
        }
        let figures = counter.finish();
        assert!(figures.messages > 0 && figures.messages < all);
    }
}
