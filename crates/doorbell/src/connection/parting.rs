//! How a server takes leave of a client: it tells the client, reads what had been sent before that was read, and lets calls under way end.
//!
//! What lies in the ring when a shutdown begins has been sent by somebody who could not know of it. The client answers a `PING` behind the
//! `GOAWAY` when it has read both, and sends no new calls from then on: so everything that it had sent has been read when its `PONG` is.

use std::{
    sync::atomic::Ordering,
    task::{Poll, Waker},
};

use doorbell_proto::connection::GoAwayReason;
use doorbell_shm::{SleepOn, memory::PeerMemory};

use super::{
    Connection,
    state::{Parting, State},
    waiters::Registration,
};

impl Connection {
    /// Tells the client that the server leaves, and asks for a sign that it has read that, once. Its bell is rung whatever it has announced: one
    /// that waits for nothing would not read it.
    pub(crate) fn take_leave(&self) {
        let mut guard = self.lock();
        if guard.parting != Parting::NotYet {
            return;
        }
        guard.parting = Parting::Told;
        guard
            .machine
            .go_away(GoAwayReason::ShuttingDown, "the server is shutting down");
        guard.pongs.sent += 1;
        let number = guard.pongs.sent;
        guard.machine.ping(number);
        let result = guard.pump();
        self.sent(guard, result);
        self.notify_peer(SleepOn::Doorbell);
    }

    /// Rings the client's bell if it has been told that the server leaves. Something waits for room, and a client that waits for nothing, the rest
    /// of a stream that was given up for instance, does not read by itself.
    #[cold]
    pub(super) fn ring_if_leaving(&self) {
        if self.lock().parting != Parting::NotYet {
            self.notify_peer(SleepOn::Doorbell);
        }
    }

    /// Waits no longer for the sign of a client that has been told, if everything has been read that it has sent: it may have been stopped. What it
    /// sends from now on comes too late. Returns `true` if the sign may lie among what has not been read.
    pub(crate) fn forgo_answer(&self) -> bool {
        let mut state = self.lock();
        if state.parting != Parting::Told {
            return false;
        }
        if !self.has_read_all() {
            return true;
        }
        state.parting = Parting::Unanswered;
        state.machine.refuse_new();
        false
    }

    /// Ready when the client has been told and everything has been read that it had sent before it knew, no call is under way, and nothing waits
    /// to be written; or when the connection has ended. Of a client that gave no sign, everything that lies in its ring has been read.
    pub(crate) fn poll_quiet(&self, waker: &Waker, who: &mut Registration) -> Poll<()> {
        self.look_or_join(who, waker, |state, who| {
            let has_read = || state.parting == Parting::Answered || self.has_read_all();
            if state.end.is_some() || state.is_quiet() && has_read() {
                return Poll::Ready(());
            }
            who.join(&mut state.quiet_wakers);
            Poll::Pending
        })
    }

    /// Returns `true` if the worker has come to the end of what the client has published. Whoever has the state lock, and has seen that no call is
    /// under way, knows then that none of those is: a call is opened under that lock before the worker says how far it has come.
    fn has_read_all(&self) -> bool {
        self.peer.load_tail() == self.read_to.load(Ordering::Relaxed)
    }
}

impl State {
    /// Notes the sign of a client that has been told that the server leaves.
    pub(super) fn take_parting_answer(&mut self) {
        if self.parting != Parting::NotYet && self.pongs.received == self.pongs.sent {
            self.parting = Parting::Answered;
            self.machine.refuse_new();
        }
    }

    fn is_quiet(&self) -> bool {
        let is_over = matches!(self.parting, Parting::Answered | Parting::Unanswered);
        is_over && !self.machine.has_open_calls() && !self.has_backlog()
    }

    /// Takes those who wait for quiet, if it has come, or may have.
    pub(super) fn take_quiet_wakers(&mut self) -> Vec<Waker> {
        if self.quiet_wakers.is_empty() || !self.is_quiet() {
            return Vec::new();
        }
        self.quiet_wakers.take().collect()
    }
}
