//! What the I/O worker does with a connection that it owns, beside reading.

use std::sync::atomic::Ordering;

use doorbell_shm::{Layout, SleepOn};

use super::{Connection, Receive, State, StateGuard, backlog::Backlog};
use crate::{error::Disconnected, panics::wake};

/// What came of an attempt to leave a connection to its doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Something has come just then.
    Awake,
    Asleep {
        /// There is memory to [give back](Connection::give_back) when it stays so.
        is_untidy: bool,
    },
}

impl Connection {
    /// The worker looks at the ring itself from now on: the peer need not ring.
    pub(crate) fn wake_up(&self) {
        let mut state = self.lock();
        state.withdraw();
        state.counters.sleeps += 1;
    }

    /// Announces the doorbell and looks once more. If there is nothing to do the worker may leave it to the doorbell. While the connection
    /// [is blocked](Self::is_blocked) nothing is read, so then it is the room that the doorbell is waited for.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol.
    pub(crate) fn fall_asleep(&self) -> Result<Rest, Disconnected> {
        let Some(mut receive) = self.try_receive() else {
            return Ok(Rest::Awake);
        };
        receive.consumer.release();
        let has_read_much = receive.has_read_much();
        let is_untidy = self.announce_asleep(has_read_much);
        // The announcement has fenced: what the peer published before it saw the announcement is visible now.
        self.relieve();
        if self.is_congested() {
            self.ring_if_leaving();
        }
        if self.has_unread(&mut receive)? && !self.is_blocked() {
            self.lock().withdraw();
            return Ok(Rest::Awake);
        }
        Ok(Rest::Asleep { is_untidy })
    }

    /// Tells the client which segments for loans have no use now, and announces the doorbell: under one lock, so that whoever gives the last
    /// block of one back comes before the look at it or [sees](Self::send_returns) that the worker sleeps.
    ///
    /// The client unmaps its side even if nobody waits for anything there, so its bell is rung whatever it has announced: once for each time
    /// that there is something to give up. Returns `true` if there is memory to [give back](Self::give_back).
    fn announce_asleep(&self, has_read_much: bool) -> bool {
        let mut state = self.lock();
        // Under the lock: who looks later, and answers, sees that we sleep.
        let has_read_much = has_read_much | self.takes_looked_for_cancel();
        let backlog = state.backlog();
        let gives_up = state.shrink();
        let result = if gives_up { state.pump() } else { Ok(()) };
        // There may have been no room. If there was, and something had waited for it, whoever waits for that is woken by `relieve`.
        self.backlog.set(backlog.max(state.backlog()));
        let mut due = state.publish();
        state.announce(SleepOn::Doorbell);
        state.machine.give_back_unused();
        state.visits = 0;
        if has_read_much {
            state.told_at = None;
        }
        state.is_untidy |= has_read_much || state.has_written_much() || state.has_segments();
        let is_untidy = state.is_untidy;
        state.is_visited = is_untidy;
        if gives_up && due.is_none() {
            state.counters.notifies += 1;
            due = Some(SleepOn::Doorbell);
        }
        drop(state);
        if let Some(on) = due {
            self.notify_peer(on);
        }
        if let Err(breach) = result {
            self.close(breach.into());
        }
        is_untidy
    }

    /// Gives back what more than light use has left, because the connection has been quiet for a while: segments for loans first. Returns `true`
    /// if that takes another visit, a while later. What the client has not read after some visits is for the next time that it is quiet.
    ///
    /// The client is told to do the same. That frame begins the ring again, if the client has given all of it back by then, and what says so
    /// lies where the ring has ended: its memory can go when the client has read it. As long as nobody sends, the client gives back no room;
    /// it does so with that frame. So it is told a second time if it had read answers and kept their room.
    pub(crate) fn give_back(&self) -> bool {
        let Some(mut receive) = self.try_receive() else {
            return false;
        };
        receive.give_back();
        let may_come_again = self.give_back_or_tell();
        self.watch_for_the_rest();
        may_come_again
    }

    /// As [`give_back`](Self::give_back), of what lies behind the state lock.
    fn give_back_or_tell(&self) -> bool {
        let mut state = self.lock();
        if state.end.is_some() {
            return false;
        }
        state.visits = state.visits.saturating_add(1);
        let may_come_again = state.visits < MOST_VISITS;
        state.is_visited = may_come_again;
        if state.give_up_segments() {
            let says_quiet = state.terms.gives_back;
            if says_quiet {
                state.machine.say_quiet();
            }
            let told_at = self.tell_idle_client(state);
            self.lock().told_at = says_quiet.then_some(told_at);
            return may_come_again;
        }
        if !state.can_say_more() {
            self.tell_idle_client(state); // nobody may wait for what lies there: the rest of a stream that was given up
            return may_come_again;
        }
        if !state.terms.gives_back {
            return state.give_back_as_visitor();
        }
        let is_told = state.told_at == Some(state.producer.tail());
        if is_told && !state.producer.is_empty().is_ok_and(|is_empty| is_empty) {
            return may_come_again; // it has not read it
        }
        if is_told
            && !state
                .producer
                .continues_beyond(Layout::lasting_ring_bytes())
        {
            return state.give_back_as_visitor();
        }
        state.machine.say_quiet();
        let told_at = self.tell_idle_client(state);
        self.lock().told_at = Some(told_at);
        may_come_again
    }

    /// Has the client ring when it makes room for what could not be written, or gives a block back that keeps a segment: the worker sleeps, and has not
    /// said that it waits for either.
    pub(super) fn watch_for_the_rest(&self) {
        let mut state = self.lock();
        let waits = state.has_backlog() || state.pool.is_wanted();
        if !waits || state.end.is_some() || state.sleeps_without_space().is_none() {
            return;
        }
        self.announce(&mut state, SleepOn::Doorbell);
        drop(state);
        // The announcement has fenced: what came before it is visible now.
        self.relieve();
        if self.has_quiet_news() {
            self.ask_to_resume();
        }
    }

    /// Returns `true` if a cancel word has been looked at, once: its page is in memory since.
    fn takes_looked_for_cancel(&self) -> bool {
        let has_looked = &self.has_looked_for_cancel;
        has_looked.load(Ordering::Relaxed) && has_looked.swap(false, Ordering::Relaxed)
    }

    /// Returns `true` if there is memory to give back for which nobody will come: a handler has answered, or the last one has looked whether it is cancelled,
    /// while the worker slept.
    #[inline]
    pub(super) fn is_forgotten(&self, state: &State) -> bool {
        let looked = &self.has_looked_for_cancel;
        let has_looked = || looked.load(Ordering::Relaxed) && !state.machine.has_open_calls();
        !state.is_visited && state.is_announced() && (state.has_written_much() || has_looked())
    }

    /// Returns `true` if there is memory to give back that more than light use has left.
    pub(crate) fn is_untidy(&self) -> bool {
        let has_read_much = self.try_receive().is_some_and(|receive| receive.is_untidy);
        has_read_much || self.lock().is_untidy
    }

    /// Writes the control frames that wait, and rings the client's bell whatever it has announced. Returns where they end.
    fn tell_idle_client(&self, mut state: StateGuard<'_>) -> u32 {
        let result = state.pump();
        let end = state.producer.tail();
        let due = state.publish();
        state.counters.notifies += u64::from(due.is_none());
        drop(state);
        self.notify_peer(due.unwrap_or(SleepOn::Doorbell));
        if let Err(breach) = result {
            self.close(breach.into());
        }
        end
    }

    /// The worker does not read for now, and is woken when there is room for answers that wait.
    pub(crate) fn rest(&self) {
        let mut state = self.lock();
        self.announce(&mut state, SleepOn::Doorbell);
        state.is_visited = true; // when handlers have ended
        drop(state);
        self.relieve();
    }

    /// Frames wait for room in the ring.
    pub(crate) fn is_congested(&self) -> bool {
        self.backlog.is_at_least(Backlog::Large)
    }

    /// Answers wait for room so that nothing new is read before they have been written.
    pub(crate) fn is_blocked(&self) -> bool {
        self.backlog.is_at_least(Backlog::Blocked)
    }

    /// Writes what waits, as far as there is room. Returns `true` if something was written.
    pub(crate) fn relieve(&self) -> bool {
        if !self.is_congested() {
            return false;
        }
        let mut state = self.lock();
        let result = state.pump();
        let written = state.producer.publish();
        let due = state.tell(written, false);
        self.backlog.set(state.backlog());
        let mut quiet = state.take_quiet_wakers();
        if state.is_writable() {
            quiet.extend(state.space_wakers.take());
        }
        drop(state);
        quiet.into_iter().for_each(wake);
        if let Some(on) = due {
            self.notify_peer(on);
        }
        if let Err(breach) = result {
            self.close(breach.into());
        }
        written
    }

    /// No handler is at work and nothing waits to be written. A request of which no more arrives does not count: the client would
    /// keep the connection by never completing it.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.machine.active_calls() == 0 && !state.has_backlog()
    }
}

impl Receive {
    /// The client has more memory to give back than a light user has.
    fn has_read_much(&self) -> bool {
        self.is_untidy || self.consumer.is_beyond(Layout::lasting_ring_bytes())
    }
}

impl State {
    /// As [`Receive::has_read_much`], of ours.
    fn has_written_much(&self) -> bool {
        self.producer.is_beyond(Layout::lasting_ring_bytes())
    }

    /// Gives memory back. Returns `true` if that takes another visit.
    fn give_back_as_visitor(&mut self) -> bool {
        self.is_visited &= !self.give_back();
        self.is_visited
    }
}

/// How often a quiet connection is visited: a client on a busy machine may take seconds to read that it is to give memory back, and one that
/// has been stopped must not keep its worker awake.
const MOST_VISITS: u8 = 20;

#[cfg(test)]
mod tests;
