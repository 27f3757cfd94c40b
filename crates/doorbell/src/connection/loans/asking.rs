//! What a server asks its client to give up: segments that the client writes and does not use.

use super::{Readable, State};

/// What has been asked of a segment since something of it was lent the last time.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    /// How often its end has been asked for.
    times: u8,
    /// Something of it has been lent, so that the client has no reason to keep it.
    was_used: bool,
    /// A handler that does not wait has found no room because of it.
    was_in_the_way: bool,
}

/// Most questions for a segment. The first time the client may have a use for it all the same, or not hear: only a connection that goes to sleep, or is quiet, has its bell rung whatever
/// it has announced.
const MOST_QUESTIONS: u8 = 2;

impl Asked {
    /// Returns what has been asked of a segment of which something has just been lent.
    pub(super) fn of_used() -> Self {
        Self {
            was_used: true,
            ..Self::default()
        }
    }
}

impl State {
    /// Asks the client for the end of those of its segments that are `unwanted`. Returns `true` if it asks for any.
    pub(super) fn ask_to_retire(
        &mut self,
        mut unwanted: impl FnMut(&mut Readable) -> bool,
    ) -> bool {
        let mut asks = false;
        for readable in &mut self.pool.peer {
            if unwanted(readable)
                && readable.asked.times < MOST_QUESTIONS
                && self.machine.ask_to_retire(readable.number)
            {
                readable.asked.times += 1;
                asks = true;
            }
        }
        asks
    }

    /// Returns `true` if a handler that waits may hope for `pages` from the client, which is asked for what it does not use: a segment that has been used
    /// goes as soon as the client has no block of it. Who `has_hoped` before goes on while we have such a block, which comes and goes.
    pub(super) fn may_hope_for(&mut self, pages: u32, has_hoped: bool) -> bool {
        let _ = self.collect_returns(); // what the handler itself has dropped; a peer that broke the rules is found when the ring is used
        if !self.would_take_with(pages, |_| true) {
            return false;
        }
        if !self.would_take_with(pages, |is_idle| is_idle) {
            return has_hoped;
        }
        self.ask_to_retire(|readable| readable.asked.times == 0);
        has_hoped || self.idle_segments().any(|idle| idle.asked.was_used)
    }

    /// Notes that somebody waits for `pages`, for whom the client is asked when blocks of its segments have been given back, if that could help.
    pub(super) fn hope_for(&mut self, pages: u32) {
        self.pool.is_hoped_for |= self.would_take_with(pages, |_| true);
    }

    /// As [`may_hope_for`](Self::may_hope_for), for who does not wait: only for what has not been used since somebody was in want of room the last time.
    /// Otherwise a client that lends now and then would lose its segment each time, and nobody would be helped.
    pub(super) fn ask_for_more_room(&mut self, pages: u32) {
        let _ = self.collect_returns(); // as above
        if self.would_take_with(pages, |is_idle| is_idle) {
            self.ask_to_retire(|Readable { asked, .. }| {
                std::mem::replace(&mut asked.was_in_the_way, true) && asked.times == 0
            });
        }
    }

    /// Blocks of the client's have been given back: if somebody hopes for its segments, it is asked for those of which we have nothing now. Returns `true` if
    /// it is.
    #[inline]
    pub(in crate::connection) fn ask_again(&mut self) -> bool {
        self.pool.is_hoped_for && self.ask_to_retire(|_| true)
    }

    /// Somebody who waits for room would have it if the client gave its segments up.
    pub(in crate::connection) fn is_hoped_for(&self) -> bool {
        self.pool.is_hoped_for
    }

    /// Nobody hopes for the client's segments if nobody waits.
    pub(in crate::connection) fn forget_vain_hope(&mut self) {
        self.pool.is_hoped_for &= !self.pool.wakers.is_empty();
    }

    /// Returns `true` if the client has not been asked for the end of a segment since it has lent something of it, and can be.
    pub(in crate::connection) fn has_question(&self) -> bool {
        self.idle_segments().any(|idle| idle.asked.times == 0)
    }

    /// Returns `true` if there would be room for `pages` if the client gave up those of its segments that count: it is said whether we have nothing of one.
    fn would_take_with(&self, pages: u32, counts: impl Fn(bool) -> bool) -> bool {
        let peer = self.pool.peer.iter();
        let counting =
            peer.filter(|readable| counts(self.machine.may_ask_to_retire(readable.number)));
        let bytes: u64 = counting.map(Readable::size_bytes).sum();
        bytes > 0 && self.pool.charge.would_take(pages, bytes)
    }

    /// Returns those of the client's segments of which we have nothing.
    fn idle_segments(&self) -> impl Iterator<Item = &Readable> {
        let peer = self.pool.peer.iter();
        peer.filter(|readable| self.machine.may_ask_to_retire(readable.number))
    }
}
