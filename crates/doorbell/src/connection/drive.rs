//! Waiting: who drains the ring while calls are under way, and how a driver leaves. How long it spins is in [`spin`](super::spin), how
//! threads sleep in [`thread`](super::thread).
//!
//! # The race that must not be lost
//!
//! Somebody registers as waiting and finds the receive half taken; its holder sees nobody waiting and leaves. So a holder that
//! leaves releases the receive half *first* and looks for waiters *then*; and whoever waits registers *first* and tries the receive
//! half *then*. One of the two sees the other, because both steps go through the state lock.

#[cfg(feature = "tokio")]
use std::task::ready;
use std::{
    sync::MutexGuard,
    task::{Context, Poll, Waker},
    time::Duration,
};

use doorbell_shm::SleepOn;

use super::{
    Awaited, Connection, Receive, Sleeper, TicketKey, guard::Registrant, spin::Spun, state::State,
    ticket::Borrowed, waiters::Waiters,
};
use crate::{
    error::{Breach, Disconnected},
    panics::{contain, drop_each},
};

/// What somebody waits for, looked up under the state lock.
pub(crate) type Ready<'a, T> = &'a mut dyn FnMut(&mut State) -> Option<T>;

/// The caller's deadline passed.
pub(crate) struct TimedOut;

impl Connection {
    /// Waits as a task. One that always finds what it waits for lets others go ahead now and then: it has tokio's budget.
    pub(crate) fn poll_until<T>(
        &self,
        cx: &mut Context<'_>,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Poll<T> {
        #[cfg(feature = "tokio")]
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        let polled = self.poll_without_budget(cx, key, awaited, ready);
        #[cfg(feature = "tokio")]
        if polled.is_ready() {
            budget.made_progress();
        }
        polled
    }

    fn poll_without_budget<T>(
        &self,
        cx: &mut Context<'_>,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Poll<T> {
        if self.sleeper == Sleeper::Worker {
            return self.look_or_register(cx.waker(), |state, who| {
                register_unless(state, key, awaited, who, ready)
            });
        }
        if let Some(value) = self.take_at_once(key, awaited, ready) {
            return Poll::Ready(value);
        }
        loop {
            let Some(receive) = self.try_receive() else {
                let looked = self.look_or_register(cx.waker(), |state, who| {
                    register_unless(state, key, awaited, who, ready)
                });
                if looked.is_ready() {
                    return looked;
                }
                match self.try_receive() {
                    Some(receive) => drop(receive), // its holder has left meanwhile: drive
                    None => return Poll::Pending,
                }
                continue;
            };
            return self.drive_once(receive, cx, key, awaited, ready);
        }
    }

    /// Takes what somebody else has brought, without driving: nobody counts on whoever has not registered. So a caller with many calls
    /// under way drives once for all that have been answered.
    pub(super) fn take_at_once<T>(
        &self,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Option<T> {
        let mut state = self.lock();
        if state.tickets.is_registered(key, awaited) {
            return None;
        }
        ready(&mut state)
    }

    /// Spins for as long as it pays, then registers.
    fn drive_once<T>(
        &self,
        receive: MutexGuard<'_, Receive>,
        cx: &mut Context<'_>,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Poll<T> {
        let (receive, busy) = match self.spin_until(receive, key, awaited, ready) {
            Spun::Value(value) => return Poll::Ready(value),
            Spun::Quiet(receive) => (receive, false),
            Spun::Busy(receive) => (receive, true),
        };
        let polled = self.look_or_register(cx.waker(), |state, who| {
            state.is_driver_coming = busy;
            state.has_progressed |= busy; // what it does then is no sleep
            register_unless(state, key, awaited, who, ready)
        });
        if busy && polled.is_pending() {
            self.step_aside(receive);
            call_after_others(cx);
        } else {
            self.leave(receive);
        }
        polled
    }

    /// Leaves the receive half so that everybody who still waits will be woken.
    pub(crate) fn leave(&self, receive: MutexGuard<'_, Receive>) {
        drop(receive);
        loop {
            let (adrift, waiters, must_end) = {
                let state = self.lock();
                (state.is_adrift(), state.has_waiters(), state.must_end())
            };
            if !adrift {
                return;
            }
            if must_end {
                return self.close(Disconnected::PeerGone);
            }
            if waiters && self.sleeper == Sleeper::Threads && self.hand_over() {
                return;
            }
            // If somebody has it by now, they will settle when they leave.
            let Some(mut receive) = self.try_receive() else {
                return;
            };
            if !self.settle(&mut receive) {
                drop(receive); // first: who is called and does not find it free goes again
                if !self.end_if_gone() {
                    self.call_attendant();
                }
                return;
            }
        }
    }

    /// Leaves the receive half for others of the same thread, as a task that goes on after them. Nothing is announced: the peer would ring each time.
    /// If the task is dropped instead, whoever watches the doorbell goes on.
    pub(super) fn step_aside(&self, receive: MutexGuard<'_, Receive>) {
        if self.sleeper == Sleeper::Threads {
            return self.leave(receive);
        }
        drop(receive);
        if !self.end_if_gone() && self.lock().is_adrift() {
            self.call_attendant();
        }
    }

    /// Ends the connection if the peer has gone while we had the receive half: whoever saw that attends no more. Returns `true` if it had.
    fn end_if_gone(&self) -> bool {
        let must_end = self.lock().must_end();
        if must_end {
            self.close(Disconnected::PeerGone);
        }
        must_end
    }

    /// Announces the doorbell if somebody waits, and looks once more. Returns `false` if nothing is left to do here: the connection has
    /// ended, or there is always more, and whoever watches the bell is to be called to go on.
    fn settle(&self, receive: &mut Receive) -> bool {
        for _ in 0..BATCHES {
            {
                let mut state = self.lock();
                if !state.is_adrift() {
                    return true;
                }
                receive.consumer.release();
                self.announce(&mut state, SleepOn::Doorbell);
            }
            match self.look_once_more(receive) {
                Ok(true) if self.has_large_for_tasks() => break,
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    /// Announces a sleep. What waits to be written, a control frame perhaps that has just been thought of, is tried by the
    /// [look](Self::look_once_more) that follows.
    pub(super) fn announce(&self, state: &mut State, on: SleepOn) -> u32 {
        self.backlog.set(state.backlog());
        state.announce(on)
    }

    /// After an announcement: handles what came just before it. Returns `true` if there was something.
    ///
    /// That may be room, too. Whoever waited for it has to look again: it may have been the last that was wanted, and the peer, which reads what has
    /// been written there, wakes nobody for room who is not kept from writing.
    pub(super) fn look_once_more(&self, receive: &mut Receive) -> Result<bool, Disconnected> {
        let relieved = self.relieve();
        let unread = self.has_unread(receive)?;
        if unread {
            self.lock().withdraw();
            self.drain(receive, DRAIN_FRAMES, &mut |_, _| {})?;
        }
        Ok(relieved || unread)
    }

    /// The last look before a sleep. The peer's `head` is looked at as well: it lies in the cache line of its `tail`.
    pub(crate) fn has_unread(&self, receive: &mut Receive) -> Result<bool, Disconnected> {
        let unread = receive.consumer.has_unread().and_then(|unread| {
            self.lock().producer.check_head()?;
            Ok(unread)
        });
        unread.map_err(|corrupt| {
            let reason = Disconnected::from(Breach::from(corrupt));
            self.close(reason.clone());
            reason
        })
    }

    /// Called by whoever watches the doorbell when it rang.
    pub(crate) fn bell_rang(&self) {
        {
            let mut state = self.lock();
            state.counters.sleeps += 1;
            state.bell_was_used();
        }
        doorbell_shm::failpoint!("bell.rang");
        self.attend();
    }

    /// Drives until there is nothing to do, or for a while: then whoever watches the doorbell is called to do so again.
    pub(crate) fn attend(&self) {
        // If somebody drives, they see when they leave that nobody is announced.
        let Some(mut receive) = self.try_receive() else {
            return;
        };
        {
            let mut state = self.lock();
            if std::mem::take(&mut state.is_driver_coming) {
                drop(state);
                drop(receive);
                return self.call_attendant();
            }
            state.withdraw();
        }
        for _ in 0..BATCHES {
            if self.hand_to_task() {
                return self.leave(receive);
            }
            let drained = self.drain(&mut receive, DRAIN_FRAMES, &mut |_, _| {});
            if !matches!(drained, Ok(count) if count > 0) {
                self.relieve();
                return self.leave(receive);
            }
        }
        drop(receive);
        self.call_attendant();
    }

    /// While a large message is under way, lets a task drive that waits: it spins for the next chunk, whereas whoever watches the doorbell
    /// would sleep until each. Returns `true` if one was woken.
    fn hand_to_task(&self) -> bool {
        if !self.has_large_for_tasks() {
            return false;
        }
        let taken = {
            let mut state = self.lock();
            state.spin.slept(SLEEP_UNTIL_A_CHUNK); // about; not worth a look at the clock
            state.has_progressed = true;
            let taken = state.take_any_waker();
            state.is_driver_coming = taken.is_some();
            taken
        };
        let Some((place, waker)) = taken else {
            return false;
        };
        contain(|| waker.wake_by_ref());
        if let Some(place) = place {
            self.lock().tickets.put_back(&place, waker);
        } else {
            drop_each([waker]);
        }
        true
    }

    /// A large message is under way on a connection of tasks, which take turns with it.
    fn has_large_for_tasks(&self) -> bool {
        self.sleeper != Sleeper::Threads && self.lock().has_large()
    }

    /// Makes whoever watches the doorbell [attend](Self::attend) as soon as it has looked at everything else.
    fn call_attendant(&self) {
        if let Some(call) = self.attendant.get() {
            call();
        }
    }

    /// Makes whoever reads for this connection when nobody waits do so.
    pub(super) fn call_somebody(&self) {
        if self.sleeper == Sleeper::Worker {
            self.ask_to_resume();
        } else {
            self.call_attendant();
        }
    }

    /// Frames wait for room and nobody watches: somebody must.
    pub(super) fn find_driver(&self) {
        if self.sleeper != Sleeper::Worker
            && let Some(receive) = self.try_receive()
        {
            self.leave(receive);
        }
    }
}

impl State {
    fn has_waiters(&self) -> bool {
        self.tickets.waiting() > 0
            || !self.space_wakers.is_empty()
            || !self.pool.wakers.is_empty()
            || !self.pongs.wakers.is_empty()
    }

    /// Returns the waker of any one thread that waits, on a connection where only threads do. It is ours: it may be cloned here.
    pub(super) fn any_thread(&self) -> Option<Waker> {
        let others = [&self.space_wakers, &self.pool.wakers, &self.pongs.wakers];
        let other = || others.into_iter().find_map(Waiters::first).cloned();
        self.tickets.any_thread().or_else(other)
    }

    /// Takes the waker of any one task that waits. One that waits for a call stays registered: it is put back at its place. Others register
    /// anew when they are polled.
    fn take_any_waker(&mut self) -> Option<(Option<Borrowed>, Waker)> {
        if let Some((place, waker)) = self.tickets.take_any_waker() {
            return Some((Some(place), waker));
        }
        let mut others = [
            &mut self.space_wakers,
            &mut self.pool.wakers,
            &mut self.pongs.wakers,
        ];
        let waker = others.iter_mut().find_map(|waiters| waiters.pop())?;
        Some((None, waker))
    }
}

/// Has the task polled again when the others have had their turn. One that wakes itself goes before those that have spent their budget, which tokio
/// calls when it has looked for events: when nobody else is ready, or after dozens of turns.
fn call_after_others(cx: &mut Context<'_>) {
    #[cfg(feature = "tokio")]
    let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
    #[cfg(not(feature = "tokio"))]
    cx.waker().wake_by_ref();
}

/// Takes what `ready` has, and takes back who waited for it.
pub(super) fn take<T>(
    state: &mut State,
    key: TicketKey,
    awaited: Awaited,
    ready: Ready<'_, T>,
) -> Option<T> {
    let value = ready(state)?;
    state.tickets.put_aside(key, awaited);
    Some(value)
}

pub(super) fn register_unless<T>(
    state: &mut State,
    key: TicketKey,
    awaited: Awaited,
    who: &mut Registrant<'_>,
    ready: Ready<'_, T>,
) -> Poll<T> {
    if let Some(value) = take(state, key, awaited, ready) {
        return Poll::Ready(value);
    }
    state.tickets.register(key, awaited, who);
    Poll::Pending
}

/// What it takes to be woken for a chunk that comes at once: a little spinning would have saved it.
const SLEEP_UNTIL_A_CHUNK: Duration = Duration::from_micros(50);

/// Frames that are read in one go before a waiting caller looks whether its own was among them.
pub(super) const DRAIN_FRAMES: usize = 64;

/// Times that a driver does so before it looks up from it: up to a few milliseconds of large messages.
pub(super) const BATCHES: usize = 32;

#[cfg(all(test, feature = "tokio"))]
mod tests;
