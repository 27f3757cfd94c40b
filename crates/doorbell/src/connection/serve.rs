//! What the I/O worker does with a connection that it owns, beside reading.

use std::sync::atomic::Ordering;

use doorbell_shm::SleepOn;

use super::Connection;
use crate::error::Disconnected;

impl Connection {
    /// The worker looks at the ring itself from now on: the peer need not ring.
    pub(crate) fn wake_up(&self) {
        let mut state = self.lock();
        state.withdraw();
        state.counters.sleeps += 1;
    }

    /// Announces the doorbell and looks once more. Returns `true` if there is nothing to do and the worker may leave it to the
    /// doorbell. While answers wait for room nothing is read, so then it is the room that the doorbell is waited for.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol.
    pub(crate) fn fall_asleep(&self) -> Result<bool, Disconnected> {
        let Some(mut receive) = self.try_receive() else {
            return Ok(false);
        };
        receive.consumer.release();
        self.announce_asleep();
        // The announcement has fenced: what the peer published before it saw the announcement is visible now.
        self.relieve();
        if self.has_unread(&mut receive)? && !self.is_congested() {
            self.lock().withdraw();
            return Ok(false);
        }
        Ok(true)
    }

    /// Tells the client which segments for loans have no use now, and announces the doorbell: under one lock, so that whoever gives the last
    /// block of one back comes before the look at it or [sees](Self::flush_returns) that the worker sleeps.
    ///
    /// The client unmaps its side even if nobody waits for anything there, so its bell is rung whatever it has announced: once for each time
    /// that there is something to give up.
    fn announce_asleep(&self) {
        let mut state = self.lock();
        let gives_up = state.shrink();
        let result = if gives_up { state.pump() } else { Ok(()) };
        self.backlog.store(state.has_backlog(), Ordering::Relaxed); // there may have been no room
        let mut due = state.publish();
        state.announce(SleepOn::Doorbell);
        state.machine.give_back_unused();
        if gives_up && due.is_none() {
            state.counters.notifies += 1;
            due = Some(SleepOn::Doorbell);
        }
        drop(state);
        if let Some(on) = due {
            self.notify_peer(on);
        }
        if let Err(violation) = result {
            self.close(Disconnected::Protocol(std::sync::Arc::new(violation)));
        }
    }

    /// The worker does not read for now, and is woken when there is room for answers that wait.
    pub(crate) fn rest(&self) {
        self.lock().announce(SleepOn::Doorbell);
        self.relieve();
    }

    /// Frames wait for room in the ring.
    pub(crate) fn is_congested(&self) -> bool {
        self.backlog.load(Ordering::Relaxed)
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
        let backlog = state.has_backlog();
        self.backlog.store(backlog, Ordering::Relaxed);
        let mut quiet = state.take_quiet_wakers();
        if !backlog {
            quiet.append(&mut state.space_wakers);
        }
        drop(state);
        quiet.into_iter().for_each(std::task::Waker::wake);
        if let Some(on) = due {
            self.notify_peer(on);
        }
        if let Err(violation) = result {
            self.close(Disconnected::Protocol(std::sync::Arc::new(violation)));
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
