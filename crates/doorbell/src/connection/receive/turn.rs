//! How long a connection may be read while others wait for their turn.

use std::time::{Duration, Instant};

use crate::connection::Effects;

/// Ends a turn that takes long, while others wait for theirs: what a frame costs is for the peer to say, a task that is made or 16 KiB that
/// are copied as much as a notification that nobody has asked for.
pub(super) struct Turn {
    longest: Duration,
    /// Frames at which the clock is looked at next.
    look_at: usize,
    began: Option<Instant>,
    was_over: bool,
    had_long_step: bool,
}

impl Turn {
    #[inline]
    pub(super) fn new(longest: Option<Duration>) -> Self {
        Self {
            longest: longest.unwrap_or_default(),
            look_at: longest.map_or(usize::MAX, |_| 1),
            began: None,
            was_over: false,
            had_long_step: false,
        }
    }

    /// Somebody has been given work, or is to be woken after the turn, which takes as long as many frames: the clock is looked at before the next
    /// one.
    #[inline]
    pub(super) fn note_long_step(&mut self) {
        self.had_long_step = true;
        if self.look_at != usize::MAX {
            self.look_at = 0;
        }
    }

    /// Returns `true` if the turn has taken so long, with the `effects` that come after it, that the clock is worth a look.
    #[inline]
    pub(super) fn was_long(&self, effects: &Effects) -> bool {
        self.was_over || self.had_long_step || effects.wakers() > 0
    }

    /// Returns `true` if what has been read is enough, with the `effects` that come after it. The clock is looked at seldom, and never for a
    /// frame that comes alone.
    #[inline]
    pub(super) fn is_over(&mut self, frames: usize, effects: &Effects) -> bool {
        frames >= self.look_at && self.look_at_clock(frames, effects)
    }

    /// Returns how many more may be taken together, so that the clock is looked at in time.
    #[inline]
    pub(super) fn frames_before_look(&self, frames: usize) -> usize {
        self.look_at.saturating_sub(frames).max(1)
    }

    #[cold]
    fn look_at_clock(&mut self, frames: usize, effects: &Effects) -> bool {
        self.look_at = frames + frames.min(FRAMES_BETWEEN_LOOKS);
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        let longest = match frames {
            ..FRAMES_OF_A_WINDOW if !self.had_long_step => self.longest.max(LONGEST_WINDOW),
            _ => self.longest,
        };
        self.was_over = now.duration_since(began).saturating_add(effects.time()) >= longest;
        self.was_over
    }
}

/// Most frames between two looks at the clock. The first ones are looked at after the first frame, the second, the fourth.
const FRAMES_BETWEEN_LOOKS: usize = 8;

/// A client with so many calls under way has them answered together, if that does not take too long: with its answers in two turns it would be
/// woken twice, and that costs more than all of them where processes outnumber the processors.
const FRAMES_OF_A_WINDOW: usize = 32;
const LONGEST_WINDOW: Duration = Duration::from_micros(25);

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn effects(wakers: usize) -> Effects {
        let mut effects = Effects::default();
        (0..wakers).for_each(|_| effects.wake(Some(Waker::noop().clone())));
        effects
    }

    /// Reads frames until the turn is over, each of which wakes somebody; 10,000 at most.
    fn frames_that_wake(turn: &mut Turn) -> usize {
        let mut effects = Effects::default();
        let over = (0..10_000).find(|&frames| {
            let is_over = turn.is_over(frames, &effects);
            effects.wake(Some(Waker::noop().clone()));
            is_over
        });
        over.unwrap_or(10_000)
    }

    #[test]
    fn turn_without_others_is_never_over() {
        let mut turn = Turn::new(None);
        assert_eq!(frames_that_wake(&mut turn), 10_000);
        assert!(!turn.was_over);
    }

    #[test]
    fn turn_is_over_when_its_time_is_whatever_has_been_read() {
        let mut turn = Turn::new(Some(Duration::ZERO));
        assert!(!turn.is_over(0, &effects(0)), "nothing has been read");
        assert!(turn.is_over(FRAMES_OF_A_WINDOW, &effects(0)));
        assert!(turn.was_over);
    }

    #[test]
    fn wake_ups_that_come_after_a_turn_are_part_of_it() {
        let mut short = Turn::new(Some(effects(17).time()));
        let frames = frames_that_wake(&mut short);
        assert!(frames <= 17 + FRAMES_BETWEEN_LOOKS, "{frames}");
        assert!(short.was_over);
    }

    #[test]
    fn clock_is_looked_at_after_each_long_step() {
        let mut turn = Turn::new(Some(HOUR));
        assert!(!turn.is_over(17, &effects(0)));
        turn.note_long_step();
        assert_eq!(turn.frames_before_look(18), 1);
        assert!(18 >= turn.look_at);
        assert!(!turn.is_over(18, &effects(0)));
        assert!(19 < turn.look_at);
    }

    #[test]
    fn window_with_a_long_step_has_no_more_time_than_others() {
        let mut turn = Turn::new(Some(Duration::ZERO));
        assert!(!turn.is_over(1, &effects(0)), "a window has more time");
        turn.note_long_step();
        assert!(turn.is_over(2, &effects(0)));
    }

    #[test]
    fn turn_is_long_that_was_over_or_had_a_long_step_or_wakes_somebody() {
        let turn = || Turn::new(None);
        assert!(!turn().was_long(&effects(0)));
        assert!(turn().was_long(&effects(1)));
        let mut stepped = turn();
        stepped.note_long_step();
        assert!(stepped.was_long(&effects(0)));
        assert!(!stepped.is_over(10_000, &effects(0)), "nobody waits");
        let mut over = Turn::new(Some(Duration::ZERO));
        assert!(over.is_over(FRAMES_OF_A_WINDOW, &effects(0)));
        assert!(over.was_long(&effects(0)));
    }

    #[test]
    fn clock_is_looked_at_after_the_first_frames_and_then_each_eighth() {
        let mut turn = Turn::new(Some(HOUR));
        let looks: Vec<usize> = (0..40)
            .filter(|&frames| {
                let due = frames >= turn.look_at;
                assert!(!turn.is_over(frames, &effects(0)));
                due
            })
            .collect();
        assert_eq!(looks, [1, 2, 4, 8, 16, 24, 32]);
    }
}
