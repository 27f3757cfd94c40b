//! Waiting: who drains the ring while calls are under way, and how it sleeps.
//!
//! # The race that must not be lost
//!
//! Somebody registers as waiting and finds the receive half taken; its holder sees nobody waiting and leaves. So a holder that
//! leaves releases the receive half *first* and looks for waiters *then*; and whoever waits registers *first* and tries the receive
//! half *then*. One of the two sees the other, because both steps go through the state lock.

use std::{
    sync::{Arc, MutexGuard},
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Instant,
};

use doorbell_shm::{Positions, SleepOn};

use super::{Awaited, Connection, Receive, Sleeper, TicketKey, state::State};
use crate::error::Disconnected;

/// What somebody waits for, looked up under the state lock.
pub(crate) type Ready<'a, T> = &'a mut dyn FnMut(&mut State) -> Option<T>;

/// The caller's deadline passed.
pub(crate) struct TimedOut;

impl Connection {
    /// Waits as a task.
    pub(crate) fn poll_until<T>(
        &self,
        cx: &mut Context<'_>,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Poll<T> {
        if self.sleeper == Sleeper::Worker {
            let mut state = self.lock();
            return register_unless(&mut state, key, awaited, cx.waker(), ready);
        }
        loop {
            let Some(mut receive) = self.try_receive() else {
                if let Poll::Ready(value) =
                    register_unless(&mut self.lock(), key, awaited, cx.waker(), ready)
                {
                    return Poll::Ready(value);
                }
                match self.try_receive() {
                    Some(receive) => drop(receive), // its holder has left meanwhile: drive
                    None => return Poll::Pending,
                }
                continue;
            };
            let polled = self.drive_once(&mut receive, cx, key, awaited, ready);
            self.leave(receive);
            return polled;
        }
    }

    /// Spins for as long as it pays, then registers.
    fn drive_once<T>(
        &self,
        receive: &mut Receive,
        cx: &mut Context<'_>,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Poll<T> {
        if let Some(value) = self.spin_until(receive, key, awaited, ready) {
            return Poll::Ready(value);
        }
        register_unless(&mut self.lock(), key, awaited, cx.waker(), ready)
    }

    /// Drains the ring until `ready`, for no longer than the spin budget.
    fn spin_until<T>(
        &self,
        receive: &mut Receive,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Option<T> {
        let mut take = |state: &mut State| {
            let value = ready(state)?;
            state.tickets.forget(key, awaited);
            Some(value)
        };
        let mut turn = {
            let mut state = self.lock();
            if let Some(value) = take(&mut state) {
                return Some(value);
            }
            state.withdraw();
            state.spin.start()
        };
        loop {
            let mut value = None;
            let mut look = |state: &mut State| {
                value = take(state);
                if value.is_some() {
                    state.spin.paid();
                }
            };
            let drained = self.drain(receive, DRAIN_FRAMES, &mut |_| {}, &mut look);
            if value.is_some() {
                return value;
            }
            match drained {
                Ok(0) if self.is_closed() => return take(&mut self.lock()),
                Ok(0) => {
                    if !self.relieve() && !turn.again() {
                        return None;
                    }
                }
                Ok(_) => {}
                Err(_) => return take(&mut self.lock()),
            }
        }
    }

    /// Tells the spin budget how long a wait took after all.
    pub(crate) fn slept(&self, since: Instant) {
        self.lock().spin.slept(since.elapsed());
    }

    /// Leaves the receive half so that everybody who still waits will be woken.
    pub(crate) fn leave(&self, receive: MutexGuard<'_, Receive>) {
        drop(receive);
        loop {
            let (adrift, waiters) = {
                let state = self.lock();
                (state.is_adrift(), state.has_waiters())
            };
            if !adrift {
                return;
            }
            if waiters && self.sleeper == Sleeper::Threads {
                return self.hand_over();
            }
            // If somebody has it by now, they will settle when they leave.
            let Some(mut receive) = self.try_receive() else {
                return;
            };
            if self.settle(&mut receive).is_err() {
                return;
            }
        }
    }

    /// Announces the doorbell if somebody waits, and looks once more.
    fn settle(&self, receive: &mut Receive) -> Result<(), Disconnected> {
        loop {
            {
                let mut state = self.lock();
                if !state.is_adrift() {
                    return Ok(());
                }
                state.announce(SleepOn::Doorbell);
            }
            if !self.look_once_more(receive)? {
                return Ok(());
            }
        }
    }

    /// After an announcement: handles what came just before it. Returns `true` if there was something.
    fn look_once_more(&self, receive: &mut Receive) -> Result<bool, Disconnected> {
        self.relieve(); // room that came before the announcement is seen here
        let unread = self.has_unread(receive)?;
        if unread {
            self.lock().withdraw();
            self.drain(receive, DRAIN_FRAMES, &mut |_| {}, &mut |_| {})?;
        }
        Ok(unread)
    }

    pub(crate) fn has_unread(&self, receive: &mut Receive) -> Result<bool, Disconnected> {
        receive.consumer.has_unread().map_err(|corrupt| {
            let reason = Disconnected::Protocol(Arc::new(corrupt.into()));
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
        // If somebody drives, they see when they leave that nobody is announced.
        let Some(mut receive) = self.try_receive() else {
            return;
        };
        self.lock().withdraw();
        while matches!(self.drain(&mut receive, DRAIN_FRAMES, &mut |_| {}, &mut |_| {}), Ok(count) if count > 0)
        {
        }
        self.relieve();
        self.leave(receive);
    }

    /// Frames wait for room and nobody watches: somebody must.
    pub(super) fn find_driver(&self) {
        if self.sleeper != Sleeper::Worker
            && let Some(receive) = self.try_receive()
        {
            self.leave(receive);
        }
    }

    /// Waits as a thread.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when `deadline` has passed.
    pub(crate) fn wait_until<T>(
        &self,
        key: TicketKey,
        awaited: Awaited,
        deadline: Option<Instant>,
        ready: Ready<'_, T>,
    ) -> Result<T, TimedOut> {
        let result = loop {
            let receive = if self.sleeper == Sleeper::Threads {
                self.try_receive()
            } else {
                None
            };
            let waited = match receive {
                Some(mut receive) => {
                    self.drive_or_sleep(&mut receive, key, awaited, deadline, ready)
                }
                None => self.park(key, awaited, deadline, ready),
            };
            match waited {
                Ok(Some(value)) => break Ok(value),
                Ok(None) => {}
                Err(timed_out) => break Err(timed_out),
            }
        };
        if self.sleeper == Sleeper::Threads {
            let adrift = {
                let mut state = self.lock();
                if result.is_err() {
                    state.tickets.forget(key, awaited);
                }
                state.is_adrift()
            };
            if adrift {
                self.find_driver();
            }
        } else if result.is_err() {
            self.lock().tickets.forget(key, awaited);
        }
        result
    }

    /// Spins, then sleeps on the futex once.
    fn drive_or_sleep<T>(
        &self,
        receive: &mut Receive,
        key: TicketKey,
        awaited: Awaited,
        deadline: Option<Instant>,
        ready: Ready<'_, T>,
    ) -> Result<Option<T>, TimedOut> {
        if let Some(value) = self.spin_until(receive, key, awaited, ready) {
            return Ok(Some(value));
        }
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(TimedOut);
        }
        self.sleep_on_futex(receive, deadline);
        Ok(None)
    }

    pub(crate) fn sleep_on_futex(&self, receive: &mut Receive, deadline: Option<Instant>) {
        self.kick.lower();
        let (seen, space) = {
            let mut state = self.lock();
            let space = state.has_backlog();
            state.announce(SleepOn::Futex);
            state.counters.sleeps += 1;
            (
                Positions {
                    tail: receive.consumer.seen_tail(),
                    head: state.producer.seen_head(),
                },
                space,
            )
        };
        let more = self.look_once_more(receive);
        if matches!(more, Ok(false)) && !self.is_closed() {
            let since = Instant::now();
            if let Err(error) = self.peer.wait(seen, space, &self.kick, deadline) {
                self.close(Disconnected::System(Arc::new(error)));
            }
            self.slept(since);
        }
        self.lock().withdraw();
    }

    /// Waits until another thread, or the I/O worker, has completed what this one waits for.
    fn park<T>(
        &self,
        key: TicketKey,
        awaited: Awaited,
        deadline: Option<Instant>,
        ready: Ready<'_, T>,
    ) -> Result<Option<T>, TimedOut> {
        let waker = thread_waker();
        if let Poll::Ready(value) = register_unless(&mut self.lock(), key, awaited, &waker, ready) {
            return Ok(Some(value));
        }
        if self.sleeper == Sleeper::Threads && self.try_receive().is_some() {
            return Ok(None); // nobody drives any more
        }
        park_until(deadline)?;
        Ok(None)
    }

    /// Makes another waiting thread the driver, if nobody is.
    pub(crate) fn hand_over(&self) {
        if self.try_receive().is_none() {
            return; // somebody is
        }
        let waker = self.lock().any_waker();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn has_waiters(&self) -> bool {
        self.tickets.waiting() > 0 || !self.space_wakers.is_empty() || !self.pongs.wakers.is_empty()
    }

    fn any_waker(&self) -> Option<Waker> {
        let others = self.space_wakers.first().or(self.pongs.wakers.first());
        self.tickets.any_waker().or_else(|| others.cloned())
    }
}

fn register_unless<T>(
    state: &mut State,
    key: TicketKey,
    awaited: Awaited,
    waker: &Waker,
    ready: Ready<'_, T>,
) -> Poll<T> {
    if let Some(value) = ready(state) {
        state.tickets.forget(key, awaited);
        return Poll::Ready(value);
    }
    state.tickets.register(key, awaited, waker);
    Poll::Pending
}

/// Parks this thread until it is unparked.
///
/// # Errors
///
/// [`TimedOut`] if `deadline` had passed already.
pub(super) fn park_until(deadline: Option<Instant>) -> Result<(), TimedOut> {
    match deadline.map(|at| at.checked_duration_since(Instant::now())) {
        None => std::thread::park(),
        Some(Some(left)) if !left.is_zero() => std::thread::park_timeout(left),
        Some(_) => return Err(TimedOut),
    }
    Ok(())
}

/// Returns a waker that unparks this thread.
pub(super) fn thread_waker() -> Waker {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    thread_local! {
        static WAKER: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    }
    WAKER.with(Waker::clone)
}

/// Frames that are read in one go before a waiting caller looks whether its own was among them.
const DRAIN_FRAMES: usize = 64;
