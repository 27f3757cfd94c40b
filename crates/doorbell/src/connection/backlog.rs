//! What waits for room in the ring, and what that keeps from being read.

use std::sync::atomic::{AtomicU8, Ordering};

use super::{outgoing::Outgoing, state::State};

/// What waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Backlog {
    Nothing,
    /// A few large messages. Little of them lies in the ring at any time, and small ones overtake them: whoever answers goes on.
    Large,
    /// Small messages too, or many large ones. A server reads no new requests, whose answers would wait as well.
    Blocked,
}

/// As [`State::backlog`] was at the last look, for a glance without the lock. Nobody sleeps because of it.
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
        if has_control || !self.outgoing.lets_pass() {
            return Backlog::Blocked;
        }
        Backlog::Large
    }
}

impl Outgoing {
    /// Nothing waits but a few large messages.
    fn lets_pass(&self) -> bool {
        self.smalls() == 0 && self.larges() <= MOST_LARGE
    }
}

/// Large answers that may wait while requests are read. Each keeps its memory until the client has read it.
pub(super) const MOST_LARGE: usize = 4;
