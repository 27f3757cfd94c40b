//! Waiting for things that belong to the connection as a whole: room, a pong.

#[cfg(feature = "tokio")]
use std::{future::poll_fn, task::Context};
use std::{sync::atomic::Ordering, task::Poll, time::Instant};

use doorbell_proto::CallId;
use doorbell_shm::memory::PeerMemory;

#[cfg(feature = "tokio")]
use super::waiters::Waiting;
use super::{
    Connection, Sleeper, TicketKey,
    drive::TimedOut,
    guard::Registrant,
    state::State,
    thread::{park_until, thread_waker},
    waiters::{Registration, Waiters},
};
use crate::error::CallError;

impl Connection {
    /// Returns the call that a ticket belongs to.
    pub(crate) fn call_id(&self, key: TicketKey) -> CallId {
        self.lock().tickets.get(key).id
    }

    /// Adds a handle to a ticket.
    pub(crate) fn share_ticket(&self, key: TicketKey) {
        self.lock().tickets.share(key);
    }

    /// New calls can go out.
    pub(crate) fn is_usable(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && !self.leaving.load(Ordering::Relaxed)
    }

    /// Returns `true` if nobody here has anything to do with the connection: no call is under way or has left something, nothing waits to be
    /// written, and nobody waits.
    pub(crate) fn has_nothing_under_way(&self) -> bool {
        let state = self.lock();
        let is_used = state.machine.has_open_calls() || state.tickets.is_any_open();
        state.end.is_some() || !is_used && !state.needs_driver()
    }

    /// Waits as a task until no notification waits to be written, nor anything else that goes before one.
    #[cfg(feature = "tokio")]
    pub(crate) async fn writable(&self) -> Result<(), CallError> {
        let mut waiting = Waiting::new(self, None);
        poll_fn(|cx| self.poll_state(cx, &mut waiting.registration, State::look_writable)).await
    }

    /// Waits as a task until the ping with this number has been answered.
    #[cfg(feature = "tokio")]
    pub(crate) async fn pong(&self, number: u64) -> Result<(), CallError> {
        let mut waiting = Waiting::new(self, None);
        poll_fn(|cx| {
            self.poll_state(cx, &mut waiting.registration, |state, who| {
                state.look_pong(number, who)
            })
        })
        .await
    }

    /// Waits as a thread until no notification waits to be written, nor anything else that goes before one.
    pub(crate) fn wait_writable(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Result<(), CallError>, TimedOut> {
        self.wait_state(deadline, State::look_writable)
    }

    /// Waits as a thread until the ping with this number has been answered.
    pub(crate) fn wait_pong(
        &self,
        number: u64,
        deadline: Option<Instant>,
    ) -> Result<Result<(), CallError>, TimedOut> {
        self.wait_state(deadline, |state, who| state.look_pong(number, who))
    }

    /// Drains what is there, looks, registers, and makes sure that somebody is woken.
    #[cfg(feature = "tokio")]
    pub(super) fn poll_state<T>(
        &self,
        cx: &mut Context<'_>,
        who: &mut Registration,
        mut look: impl FnMut(&mut State, Option<&mut Registrant<'_>>) -> Poll<T>,
    ) -> Poll<T> {
        let mut look = |state: &mut State, who: &mut Registrant<'_>| look(state, Some(who));
        if let Some(mut receive) = self.try_receive() {
            self.lock().withdraw();
            self.catch_up(&mut receive);
            let polled = self.look_or_join(who, cx.waker(), &mut look);
            self.send_control();
            self.leave(receive);
            return polled;
        }
        let polled = self.look_or_join(who, cx.waker(), look);
        self.send_control();
        self.find_driver();
        polled
    }

    /// As [`poll_state`](Self::poll_state), for a thread: whoever holds the receive half sleeps on the futex, others park.
    pub(super) fn wait_state<T>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut State, Option<&mut Registrant<'_>>) -> Poll<T>,
    ) -> Result<T, TimedOut> {
        let waker = thread_waker();
        let mut registration = Registration::default();
        let waited = loop {
            if let Some(mut receive) = self.try_receive() {
                let found = self.drive_for_state(&mut receive, deadline, &mut look);
                let Some(found) = found else {
                    self.leave(receive); // and ends the connection
                    continue;
                };
                break found;
            }
            let looked = self.look_or_join(&mut registration, &waker, |state, who| {
                look(state, Some(who))
            });
            if let Poll::Ready(value) = looked {
                break Ok(value);
            }
            self.send_control();
            self.watch_for_room();
            if self.try_receive().is_none()
                && let Err(timed_out) = park_until(deadline)
            {
                break Err(timed_out);
            }
        };
        self.stop_waiting(&registration, None);
        waited
    }

    /// Looks as whoever has the receive half, spins and sleeps, until there is something or the time is over. It is kept all the time: to leave it
    /// is to announce the doorbell, and a peer that sees that rings. `None` if the peer is gone.
    fn drive_for_state<T>(
        &self,
        receive: &mut super::Receive,
        deadline: Option<Instant>,
        look: &mut impl FnMut(&mut State, Option<&mut Registrant<'_>>) -> Poll<T>,
    ) -> Option<Result<T, TimedOut>> {
        loop {
            let head = self.peer.load_head(); // what is read from here on is news
            self.catch_up(receive);
            if let Poll::Ready(value) = look(&mut self.lock(), None) {
                return Some(Ok(value));
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Some(Err(TimedOut));
            }
            self.send_control();
            if self.spin_for_news(head) {
                continue;
            }
            // Whoever changes later what is looked for finds that we sleep, and raises the kick.
            self.kick.lower();
            let mut state = self.lock();
            if let Poll::Ready(value) = look(&mut state, None) {
                return Some(Ok(value));
            }
            self.announce_and_sleep(receive, state, deadline);
            if self.lock().must_end() {
                return None;
            }
        }
    }

    /// Takes back who waited for something of the connection, or for the end of `call`. They may have driven, or have been chosen to: others must
    /// not wait in vain.
    pub(crate) fn stop_waiting(&self, who: &Registration, call: Option<CallId>) {
        let adrift = {
            let mut state = self.lock();
            state.take_back_waiter(who, call);
            state.is_adrift()
        };
        if adrift {
            self.find_driver();
        }
    }

    /// Reads what has arrived, unless somebody does already, for a caller who only tries: what frees slots, or gives credit or room, may be among
    /// it, and where nobody waits nobody else has a reason to read it. Returns `true` if there was something, so that it is worth to try again. On
    /// a server the worker reads by itself.
    ///
    /// Nothing is announced for who is refused all the same: the next try reads again.
    #[cold]
    #[inline(never)]
    pub(crate) fn read_what_is_there(&self) -> bool {
        if self.sleeper == Sleeper::Worker || self.looks_quiet() {
            return false;
        }
        if let Some(mut receive) = self.try_receive() {
            self.lock().withdraw();
            self.catch_up(&mut receive);
            self.leave(receive);
        }
        true
    }

    /// Reads what has arrived and writes what waits.
    fn catch_up(&self, receive: &mut super::Receive) {
        self.drain_whole_ring(receive);
        self.relieve();
    }
}

impl State {
    fn look_writable(&mut self, who: Option<&mut Registrant<'_>>) -> Poll<Result<(), CallError>> {
        if let Err(error) = self.check_open() {
            return Poll::Ready(Err(error));
        }
        if self.is_writable() {
            return Poll::Ready(Ok(()));
        }
        join(who, &mut self.space_wakers);
        Poll::Pending
    }

    fn look_pong(
        &mut self,
        number: u64,
        who: Option<&mut Registrant<'_>>,
    ) -> Poll<Result<(), CallError>> {
        if self.pongs.received >= number {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = &self.end {
            return Poll::Ready(Err(CallError::Disconnected(end.clone())));
        }
        join(who, &mut self.pongs.wakers);
        Poll::Pending
    }
}

fn join(who: Option<&mut Registrant<'_>>, waiters: &mut Waiters) {
    if let Some(who) = who {
        who.join(waiters);
    }
}
