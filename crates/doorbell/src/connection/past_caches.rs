//! Whether the chunks of large messages go past our caches.
//!
//! Which is faster differs by several times, one way and the other, with the processor and with where the peer's lies
//! (`docs/performance.md`), and a virtual machine is moved while it runs. So both are tried on the chunks themselves: what counts is the time that
//! each takes once as many lie in the ring as may, for then the reader's part is in it too.

use std::time::{Duration, Instant};

/// What has been seen of the two ways.
#[derive(Debug)]
pub(super) struct PastCaches {
    ordinary: Way,
    past: Way,
    /// How chunks go now.
    is_past: bool,
    /// The way that is not only on trial.
    prefers_past: bool,
    /// Chunks until the time counts: the ring is filling, or they were written in the other way.
    settling: u32,
    stretch: Option<Stretch>,
    /// Stretches until the other way is tried again, and how many these were.
    until_trial: u32,
    trial_interval: u32,
}

/// What a chunk took in one way, in the latest stretches.
#[derive(Debug, Default)]
struct Way {
    latest: [Option<Duration>; 2],
}

/// Chunks that follow each other in one way.
#[derive(Debug)]
struct Stretch {
    begun: Instant,
    chunks: u32,
}

impl Way {
    fn note(&mut self, chunk_time: Duration) {
        self.latest = [Some(chunk_time), self.latest[0]];
    }

    fn count(&self) -> usize {
        self.latest.iter().flatten().count()
    }

    /// The shorter one, because somebody else may have had the CPU during the other.
    fn chunk_time(&self) -> Option<Duration> {
        self.latest.iter().flatten().min().copied()
    }
}

impl PastCaches {
    pub(super) fn new() -> Self {
        Self {
            ordinary: Way::default(),
            past: Way::default(),
            is_past: true,
            prefers_past: true,
            settling: SETTLING_CHUNKS,
            stretch: None,
            until_trial: FIRST_INTERVAL,
            trial_interval: FIRST_INTERVAL,
        }
    }

    /// Returns `true` if the next chunk is to go past the caches, which it never does unless it `may`.
    #[inline]
    pub(super) fn is_next_past(&mut self, may: bool) -> bool {
        if !may {
            self.interrupt();
        }
        may && self.is_past
    }

    /// A chunk has been written.
    #[inline]
    pub(super) fn wrote_chunk(&mut self, now: impl FnOnce() -> Instant) {
        match &mut self.stretch {
            None => {
                self.settling -= 1;
                if self.settling == 0 {
                    self.stretch = Some(Stretch {
                        begun: now(),
                        chunks: 0,
                    });
                }
            }
            Some(stretch) => {
                stretch.chunks += 1;
                if stretch.chunks == STRETCH_CHUNKS {
                    self.end_stretch(now());
                }
            }
        }
    }

    /// There are no more chunks for the time being.
    pub(super) fn end(&mut self, now: impl FnOnce() -> Instant) {
        let counts = |stretch: &Stretch| stretch.chunks >= LEAST_CHUNKS;
        if self.stretch.as_ref().is_some_and(counts) {
            self.end_stretch(now());
        }
        self.interrupt();
    }

    /// What is written next does not follow what has been written: the time between them does not count.
    pub(super) fn interrupt(&mut self) {
        self.stretch = None;
        self.settling = SETTLING_CHUNKS;
    }

    /// Learns from a stretch, and begins the next in the way that is to be seen next.
    fn end_stretch(&mut self, now: Instant) {
        let Some(Stretch { begun, chunks }) = self.stretch.take() else {
            return;
        };
        let chunk_time = now.saturating_duration_since(begun) / chunks;
        let way = if self.is_past {
            &mut self.past
        } else {
            &mut self.ordinary
        };
        way.note(chunk_time);
        let is_past = self.choose();
        if is_past == self.is_past {
            let begun = now;
            self.stretch = Some(Stretch { begun, chunks: 0 });
        } else {
            self.is_past = is_past;
            self.settling = SETTLING_CHUNKS;
        }
    }

    /// Returns `true` if chunks are to go past the caches from now on.
    fn choose(&mut self) -> bool {
        let (ordinary, past) = (self.ordinary.count(), self.past.count());
        if past != ordinary {
            return past < ordinary;
        }
        if past < self.past.latest.len() {
            return self.is_past;
        }
        let prefers_past = self.past.chunk_time() <= self.ordinary.chunk_time();
        if prefers_past != self.prefers_past {
            self.prefers_past = prefers_past;
            self.trial_interval = FIRST_INTERVAL;
            self.until_trial = FIRST_INTERVAL;
        }
        if self.until_trial > 0 {
            self.until_trial -= 1;
            return prefers_past;
        }
        self.trial_interval = (2 * self.trial_interval).min(LONGEST_INTERVAL);
        self.until_trial = self.trial_interval;
        !prefers_past
    }
}

/// Chunks that may lie in the ring, and one.
const SETTLING_CHUNKS: u32 = super::writing::CHUNKS_AHEAD_ALONE as u32 + 1;

/// 512 KiB of chunks of 16 KiB.
const STRETCH_CHUNKS: u32 = 32;

/// A stretch that ends early says something from here on, so that messages of 256 KiB teach as well.
const LEAST_CHUNKS: u32 = 8;

/// Stretches until the slower way is tried again, the first time (16 MiB) and at most (512 MiB): where it takes six times as long, that costs a
/// hundredth in the end.
const FIRST_INTERVAL: u32 = 32;
const LONGEST_INTERVAL: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(1);
    const SLOW: Duration = Duration::from_micros(6);

    /// A connection whose chunks take so long in either way.
    struct Chunks {
        choice: PastCaches,
        now: Instant,
        ordinary: Duration,
        past: Duration,
    }

    impl Chunks {
        fn new(ordinary: Duration, past: Duration) -> Self {
            Self {
                choice: PastCaches::new(),
                now: Instant::now(),
                ordinary,
                past,
            }
        }

        /// Writes so many, and returns how many of them went past the caches.
        fn write(&mut self, chunks: u32) -> u32 {
            (0..chunks).map(|_| u32::from(self.write_one(true))).sum()
        }

        fn write_one(&mut self, may: bool) -> bool {
            let is_past = self.choice.is_next_past(may);
            self.now += if is_past { self.past } else { self.ordinary };
            let now = self.now;
            self.choice.wrote_chunk(|| now);
            is_past
        }

        fn end(&mut self) {
            let now = self.now;
            self.choice.end(|| now);
        }
    }

    /// Enough to have seen both.
    const MANY: u32 = 4 * (SETTLING_CHUNKS + STRETCH_CHUNKS);

    #[test]
    fn the_faster_way_is_taken_and_the_other_seldom_tried() {
        let mut chunks = Chunks::new(SLOW, FAST);
        chunks.write(MANY);
        assert!(chunks.write(100_000) > 98_000);
        let mut chunks = Chunks::new(FAST, SLOW);
        chunks.write(MANY);
        assert!(chunks.write(100_000) < 2_000);
    }

    #[test]
    fn short_messages_teach_as_well() {
        let mut chunks = Chunks::new(FAST, SLOW);
        for _ in 0..4 {
            chunks.write(SETTLING_CHUNKS + LEAST_CHUNKS);
            chunks.end();
        }
        assert_eq!(chunks.write(LEAST_CHUNKS), 0);
    }

    #[test]
    fn messages_that_are_too_short_say_nothing() {
        let mut chunks = Chunks::new(FAST, SLOW);
        for _ in 0..100 {
            let count = SETTLING_CHUNKS + LEAST_CHUNKS - 1;
            assert_eq!(chunks.write(count), count);
            chunks.end();
        }
    }

    #[test]
    fn a_way_that_becomes_slow_is_left_after_two_stretches() {
        let mut chunks = Chunks::new(FAST, 2 * FAST);
        chunks.write(MANY);
        chunks.ordinary = SLOW;
        chunks.write(3 * STRETCH_CHUNKS);
        assert_eq!(chunks.write(STRETCH_CHUNKS), STRETCH_CHUNKS);
    }

    #[test]
    fn one_stretch_that_somebody_interrupted_changes_nothing() {
        let mut chunks = Chunks::new(FAST, SLOW);
        chunks.write(MANY);
        chunks.now += Duration::from_millis(10);
        assert_eq!(chunks.write(4 * STRETCH_CHUNKS), 0);
    }

    #[test]
    fn time_that_passes_between_messages_does_not_count() {
        let mut chunks = Chunks::new(FAST, SLOW);
        chunks.write(MANY);
        for _ in 0..4 {
            chunks.write(STRETCH_CHUNKS - 1); // and no end: it was cancelled
            chunks.now += Duration::from_secs(1);
            chunks.choice.interrupt();
        }
        assert_eq!(chunks.write(STRETCH_CHUNKS), 0);
    }

    #[test]
    fn what_has_become_faster_is_found_by_a_trial() {
        let mut chunks = Chunks::new(SLOW, 2 * FAST);
        chunks.write(MANY);
        chunks.ordinary = FAST;
        chunks.write((FIRST_INTERVAL + 4) * STRETCH_CHUNKS);
        assert_eq!(chunks.write(STRETCH_CHUNKS), 0);
    }

    #[test]
    fn chunks_that_may_not_go_past_do_not_count() {
        let mut chunks = Chunks::new(FAST, SLOW);
        for _ in 0..1000 {
            assert!(!chunks.write_one(false));
        }
        chunks.end();
        assert!(chunks.write_one(true), "nothing is known of either way");
    }
}
