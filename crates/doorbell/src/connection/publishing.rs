//! What follows when something was written: publishing it, finding who writes what had no room, waking the peer.

use doorbell_proto::frame::BlockId;
use doorbell_shm::{SleepOn, stall};

use super::{Connection, Sleeper, StateGuard, backlog::Backlog, state::State};
use crate::{error::Breach, panics::wake};

impl Connection {
    /// Publishes after something was written, makes sure that what could not be written will be, and wakes the peer if it sleeps.
    pub(super) fn sent(&self, mut guard: StateGuard<'_>, result: Result<(), Breach>) {
        let needs_more = guard.has_backlog() || guard.is_watched() || self.is_forgotten(&guard);
        if result.is_err() || needs_more || stall::may_be_watched() {
            return self.sent_with_more(guard, result);
        }
        let notify = guard.publish();
        self.backlog.set(Backlog::Nothing);
        guard.unlock();
        if let Some(on) = notify {
            self.notify_peer(on);
        }
    }

    /// Tells the peer of blocks that nobody has any more, `block` among them. That alone wakes it only if it waits for room; what waited to be written or to be
    /// published goes with it, and wakes it as ever.
    pub(super) fn send_returns(&self, mut guard: StateGuard<'_>, block: Option<BlockId>) {
        let is_hoped_for = guard.is_hoped_for();
        let is_all = !guard.has_backlog() && !guard.producer.has_unpublished() && !is_hoped_for; // a question wakes
        let said = block.map_or(Ok(()), |block| guard.say_released(block));
        let mut result = said.and_then(|()| guard.pump());
        // A worker that has gone to sleep meanwhile could not ask the client for the end of the segment.
        let sleeps = self.sleeper == Sleeper::Worker && guard.is_announced();
        let is_late = || !guard.is_visited && guard.has_question(); // the worker does not come by itself, though others are kept
        let is_last = sleeps && (guard.machine.loans().1 == 0 || is_hoped_for || is_late());
        if guard.ask_again() {
            result = result.and_then(|()| guard.pump());
        }
        if is_all {
            self.sent_quietly(guard, result);
        } else {
            self.sent(guard, result);
        }
        if is_last {
            self.ask_to_resume();
        }
    }

    /// As [`sent`](Self::sent), after blocks have been given back: wakes the peer only if it waits for room.
    fn sent_quietly(&self, mut guard: StateGuard<'_>, result: Result<(), Breach>) {
        if result.is_err() || guard.has_backlog() || guard.is_watched() {
            return self.sent_with_more(guard, result);
        }
        let notify = guard.publish_quietly();
        drop(guard);
        if let Some(on) = notify {
            self.notify_peer(on);
        }
    }

    /// As [`sent`](Self::sent), if something could not be written, or somebody waits for what has changed, or the worker has to come for memory, or a
    /// thread may be watched.
    #[cold]
    fn sent_with_more(&self, mut guard: StateGuard<'_>, result: Result<(), Breach>) {
        let is_forgotten = self.is_forgotten(&guard);
        guard.is_visited |= is_forgotten;
        if self.sent_in_part(guard, result) {
            self.find_driver();
        }
        if is_forgotten {
            self.ask_to_resume();
        }
    }

    /// As [`sent`](Self::sent), of which a part could not be written. Returns `true` if somebody must be found who will.
    pub(super) fn sent_in_part(
        &self,
        mut guard: StateGuard<'_>,
        result: Result<(), Breach>,
    ) -> bool {
        let (result, notify) = stall::count(self.subject(), || {
            let result = result.and_then(|()| self.ensure_pumped(&mut guard));
            (result, guard.publish())
        });
        let backlog = guard.has_backlog();
        self.backlog.set(guard.backlog());
        let adrift = backlog && guard.is_adrift();
        let mut woken = guard.take_quiet_wakers();
        if guard.is_writable() {
            woken.extend(guard.space_wakers.take()); // we have used the room that they wait for, and there is more
            if guard.sleeps_for_space() {
                self.kick.raise(); // the driver may wait for it, too, and is not among them
            }
        }
        drop(guard);
        woken.into_iter().for_each(wake);
        if let Some(on) = notify {
            self.notify_peer(on);
        }
        if let Err(breach) = result {
            self.close(breach.into());
            return false;
        }
        adrift
    }

    /// If frames wait and the driver sleeps without watching for room, makes it watch.
    fn ensure_pumped(&self, state: &mut State) -> Result<(), Breach> {
        if !state.has_backlog() {
            return Ok(());
        }
        match state.sleeps_without_space() {
            None => Ok(()),
            Some(SleepOn::Futex) => {
                self.kick.raise();
                Ok(())
            }
            Some(SleepOn::Doorbell) => {
                state.announce(SleepOn::Doorbell);
                state.pump() // room that came between is seen here: the announcement fences
            }
        }
    }
}

impl State {
    /// Somebody waits for room, or for everything to have been written.
    #[inline]
    fn is_watched(&self) -> bool {
        !self.space_wakers.is_empty() || !self.quiet_wakers.is_empty() || self.sleeps_for_space()
    }
}
