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

use doorbell_shm::{SleepOn, SpinTurn};

use super::{
    Awaited, Connection, Effects, NewCall, Receive, Sleeper, TicketKey, Waited, state::State,
    take_outcome,
};
use crate::error::{CallError, Disconnected};
use doorbell_proto::CallId;

/// What somebody waits for, looked up under the state lock.
pub(crate) type Ready<'a, T> = &'a mut dyn FnMut(&mut State) -> Option<T>;

/// The caller's deadline passed.
pub(crate) struct TimedOut;

/// How a driver's spin ended.
enum Spun<'r, T> {
    /// With what was waited for; the receive half has been left.
    Value(T),
    /// Nothing came for as long as it pays to spin, or the connection has ended.
    Quiet(MutexGuard<'r, Receive>),
    /// Much came, but not what was waited for: the driver should look whether it has something better to do, then go on.
    Busy(MutexGuard<'r, Receive>),
}

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
            let Some(receive) = self.try_receive() else {
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
            return self.drive_once(receive, cx, key, awaited, ready);
        }
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
        let polled = register_unless(&mut self.lock(), key, awaited, cx.waker(), ready);
        self.leave(receive);
        if busy && polled.is_pending() {
            cx.waker().wake_by_ref(); // other tasks have their turn, then we go on
        }
        polled
    }

    /// Sends a call and, if nobody else drives, waits for its end as the driver, for no longer than the spin budget. Returns its
    /// ticket, and what ended it if that has come.
    ///
    /// # Errors
    ///
    /// Nothing has been sent.
    pub(crate) fn start_and_spin(
        &self,
        call: NewCall<'_>,
    ) -> Result<(TicketKey, Option<Waited>), CallError> {
        let Some(mut receive) = self.try_receive() else {
            return Ok((self.start(call)?, None));
        };
        let ((id, key), turn) = match self.start_driving(call, &mut receive) {
            Ok(started) => started,
            Err(error) => {
                self.leave(receive);
                return Err(error);
            }
        };
        match self.spin_for_reply(receive, turn, (id, key)) {
            Spun::Value(value) => Ok((key, Some(value))),
            Spun::Quiet(receive) => {
                self.lock().tickets.get(key).spun = true;
                self.leave(receive);
                Ok((key, None))
            }
            Spun::Busy(receive) => {
                self.leave(receive);
                Ok((key, None))
            }
        }
    }

    /// As [`spin`](Self::spin), for the reply to a call that has just been sent: usually the very next frame.
    fn spin_for_reply<'r>(
        &self,
        mut receive: MutexGuard<'r, Receive>,
        mut turn: SpinTurn,
        call: (CallId, TicketKey),
    ) -> Spun<'r, Waited> {
        while self.looks_quiet() {
            if !turn.again() {
                self.learn_from(&turn);
                return Spun::Quiet(receive);
            }
        }
        let mut effects = Effects::default();
        match self.take_own_reply(&mut receive, call, &mut effects) {
            Ok(Some((reply, mut state))) => {
                state.spin.paid(&turn);
                self.leave_holding(receive, state);
                self.apply(effects);
                return Spun::Value(Ok(reply));
            }
            Ok(None) => {}
            Err(violation) => {
                self.apply(effects);
                self.end_for(violation);
            }
        }
        let (_, key) = call;
        self.spin(receive, turn, key, Awaited::Arrival, &mut |state| {
            take_outcome(state, key)
        })
    }

    /// Drains the ring until `ready`, for no longer than the spin budget. Leaves the receive half if there is a value.
    fn spin_until<'r, T>(
        &self,
        receive: MutexGuard<'r, Receive>,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Spun<'r, T> {
        let turn = {
            let mut state = self.lock();
            if let Some(value) = take(&mut state, key, awaited, ready) {
                drop(state);
                self.leave(receive);
                return Spun::Value(value);
            }
            state.withdraw();
            if std::mem::take(&mut state.tickets.get(key).spun) {
                SpinTurn::over()
            } else {
                state.spin.start()
            }
        };
        self.spin(receive, turn, key, awaited, ready)
    }

    fn spin<'r, T>(
        &self,
        mut receive: MutexGuard<'r, Receive>,
        mut turn: SpinTurn,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Spun<'r, T> {
        let mut batches = 0;
        loop {
            if self.looks_quiet() {
                if !turn.again() {
                    self.learn_from(&turn);
                    return Spun::Quiet(receive);
                }
                continue;
            }
            let mut effects = Effects::default();
            match self.drain_and_hold(&mut receive, DRAIN_FRAMES, &mut |_, _| {}, &mut effects) {
                Ok((_, Some(mut state))) => {
                    let Some(value) = take(&mut state, key, awaited, ready) else {
                        state.spin.paid(&turn);
                        turn = state.spin.start(); // something came: the wait begins anew
                        drop(state);
                        self.apply(effects);
                        batches += 1;
                        if batches == BATCHES {
                            return Spun::Busy(receive);
                        }
                        continue;
                    };
                    state.spin.paid(&turn);
                    self.leave_holding(receive, state);
                    self.apply(effects);
                    return Spun::Value(value);
                }
                Ok((_, None)) => {
                    if self.relieve() {
                        let mut state = self.lock();
                        state.spin.paid(&turn);
                        turn = state.spin.start();
                        drop(state);
                        batches += 1;
                        if batches == BATCHES {
                            return Spun::Busy(receive);
                        }
                    } else if self.is_closed() || !turn.again() {
                        self.learn_from(&turn);
                        break;
                    }
                }
                Err(violation) => {
                    self.apply(effects);
                    self.end_for(violation);
                    break;
                }
            }
        }
        // What ended the spin may have ended the call.
        let value = take(&mut self.lock(), key, awaited, ready);
        match value {
            Some(value) => {
                self.leave(receive);
                Spun::Value(value)
            }
            None => Spun::Quiet(receive),
        }
    }

    /// Tells the spin budget of a turn that ended with nothing.
    fn learn_from(&self, turn: &SpinTurn) {
        let mut state = self.lock();
        state.spin.missed(turn);
        if turn.was_stolen() {
            state.spin.stolen();
        }
    }

    /// As [`leave`](Self::leave), for a driver that holds the state lock: if nobody else needs a driver, the receive half is given
    /// back before the lock is, so whoever comes next finds it free.
    fn leave_holding(&self, receive: MutexGuard<'_, Receive>, state: MutexGuard<'_, State>) {
        if state.is_adrift() {
            drop(state);
            self.leave(receive);
        } else {
            drop(receive);
            drop(state);
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
            if waiters && self.sleeper == Sleeper::Threads {
                return self.hand_over();
            }
            // If somebody has it by now, they will settle when they leave.
            let Some(mut receive) = self.try_receive() else {
                return;
            };
            if !self.settle(&mut receive) {
                return;
            }
        }
    }

    /// Announces the doorbell if somebody waits, and looks once more. Returns `false` if nothing is left to do here: the connection has
    /// ended, or there is always more, and whoever watches the bell has been called to go on.
    fn settle(&self, receive: &mut Receive) -> bool {
        for _ in 0..BATCHES {
            {
                let mut state = self.lock();
                if !state.is_adrift() {
                    return true;
                }
                receive.consumer.release();
                state.announce(SleepOn::Doorbell);
            }
            match self.look_once_more(receive) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
        self.call_attendant();
        false
    }

    /// After an announcement: handles what came just before it. Returns `true` if there was something.
    fn look_once_more(&self, receive: &mut Receive) -> Result<bool, Disconnected> {
        self.relieve(); // room that came before the announcement is seen here
        let unread = self.has_unread(receive)?;
        if unread {
            self.lock().withdraw();
            self.drain(receive, DRAIN_FRAMES, &mut |_, _| {})?;
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
        self.attend();
    }

    /// Drives until there is nothing to do, or for a while: then whoever watches the doorbell is called to do so again.
    pub(crate) fn attend(&self) {
        // If somebody drives, they see when they leave that nobody is announced.
        let Some(mut receive) = self.try_receive() else {
            return;
        };
        self.lock().withdraw();
        for _ in 0..BATCHES {
            let drained = self.drain(&mut receive, DRAIN_FRAMES, &mut |_, _| {});
            if !matches!(drained, Ok(count) if count > 0) {
                self.relieve();
                return self.leave(receive);
            }
        }
        drop(receive);
        self.call_attendant();
    }

    /// Makes whoever watches the doorbell [attend](Self::attend) as soon as it has looked at everything else.
    fn call_attendant(&self) {
        if let Some(call) = self.attendant.get() {
            call();
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
        let timed_out = loop {
            let receive = if self.sleeper == Sleeper::Threads {
                self.try_receive()
            } else {
                None
            };
            let drives = receive.is_some();
            let waited = match receive {
                Some(receive) => self.drive_or_sleep(receive, key, awaited, deadline, ready),
                None => self.park(key, awaited, deadline, ready),
            };
            match waited {
                Ok(Some(value)) => {
                    if !drives {
                        self.after_parking(); // a driver has left in good order
                    }
                    return Ok(value);
                }
                Ok(None) => {}
                Err(timed_out) => break timed_out,
            }
        };
        self.lock().tickets.forget(key, awaited);
        self.after_parking();
        Err(timed_out)
    }

    /// A thread that parked may have been chosen to drive, and one whose time is up may have driven: others must not wait in vain.
    fn after_parking(&self) {
        if self.sleeper == Sleeper::Threads && self.lock().is_adrift() {
            self.find_driver();
        }
    }

    /// Spins, then sleeps on the futex once.
    fn drive_or_sleep<T>(
        &self,
        receive: MutexGuard<'_, Receive>,
        key: TicketKey,
        awaited: Awaited,
        deadline: Option<Instant>,
        ready: Ready<'_, T>,
    ) -> Result<Option<T>, TimedOut> {
        let (mut receive, busy) = match self.spin_until(receive, key, awaited, ready) {
            Spun::Value(value) => return Ok(Some(value)),
            Spun::Quiet(receive) => (receive, false),
            Spun::Busy(receive) => (receive, true),
        };
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(TimedOut);
        }
        if busy {
            self.leave(receive);
            return Ok(None);
        }
        self.sleep_on_futex(&mut receive, deadline);
        if self.lock().must_end() {
            drop(receive);
            self.close(Disconnected::PeerGone);
        }
        Ok(None)
    }

    pub(crate) fn sleep_on_futex(&self, receive: &mut Receive, deadline: Option<Instant>) {
        self.kick.lower();
        let (sleep, gone) = {
            let mut state = self.lock();
            receive.consumer.release();
            state.counters.sleeps += 1;
            (state.announce(SleepOn::Futex), state.gone)
        };
        let more = self.look_once_more(receive);
        // Whoever closes, or sees the peer go, raises the kick afterwards: what is missed here ends the sleep.
        if matches!(more, Ok(false)) && !gone && !self.is_closed() {
            let since = Instant::now();
            if let Err(error) = self.peer.wait(sleep, &self.kick, deadline) {
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
        let (waker, must_end) = {
            let state = self.lock();
            (state.any_waker(), state.must_end())
        };
        if must_end {
            return self.close(Disconnected::PeerGone); // our try has kept somebody else from it
        }
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

/// Takes what `ready` has, and takes back who waited for it.
fn take<T>(state: &mut State, key: TicketKey, awaited: Awaited, ready: Ready<'_, T>) -> Option<T> {
    let value = ready(state)?;
    state.tickets.forget(key, awaited);
    Some(value)
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

/// Times that a driver does so before it looks up from it: up to a few milliseconds of large messages.
const BATCHES: usize = 32;
