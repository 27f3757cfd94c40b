//! What waits for room in the ring, and what that keeps from being read.

use std::sync::atomic::{AtomicU8, Ordering};

use super::state::State;

/// What waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Backlog {
    Nothing,
    /// A few large answers. Little of them lies in the ring at any time, and small ones overtake them: whoever answers goes on.
    Large,
    /// Something else too, or many large answers. A server reads nothing: the answers to requests would wait as well, and credit that is given before items
    /// have been sent would have more of them wait.
    Blocked,
}

/// As [`State::backlog`] was at the last look, for a glance without the lock. Who falls asleep has taken the lock, and looked, before.
#[derive(Default)]
pub(super) struct BacklogHint(AtomicU8);

impl BacklogHint {
    #[inline]
    pub(super) fn set(&self, backlog: Backlog) {
        self.0.store(backlog as u8, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_at_least(&self, backlog: Backlog) -> bool {
        self.0.load(Ordering::Relaxed) >= backlog as u8
    }
}

impl State {
    #[inline]
    pub(super) fn backlog(&self) -> Backlog {
        if !self.has_backlog() {
            return Backlog::Nothing;
        }
        let has_control = self.stalled.is_some() || self.machine.has_control();
        if has_control || !self.outgoing.has_only_answers(MOST_LARGE) {
            return Backlog::Blocked;
        }
        Backlog::Large
    }
}

/// Large answers that may wait while requests are read. Each keeps its memory, and the slot of its call, until the client has read it.
const MOST_LARGE: usize = 4;
