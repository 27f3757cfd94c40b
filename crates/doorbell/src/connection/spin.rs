//! Spinning: a driver drains the ring until what it waits for has come, for as long as that pays.

use std::{
    sync::{MutexGuard, atomic::Ordering},
    time::Instant,
};

use doorbell_proto::CallId;
use doorbell_shm::{SpinTurn, memory::PeerMemory};

use super::{
    Awaited, Connection, Effects, NewCall, Outcome, Receive, Sleeper, StateGuard, TicketKey,
    drive::{BATCHES, DRAIN_FRAMES, Ready, take},
    state::State,
    take_outcome,
};
use crate::error::CallError;

/// How a driver's spin ended.
pub(super) enum Spun<'r, T> {
    /// With what was waited for; the receive half has been left.
    Value(T),
    /// Nothing came for as long as it pays to spin, or the connection has ended.
    Quiet(MutexGuard<'r, Receive>),
    /// Much came, but not what was waited for: the driver should look whether it has something better to do, then go on.
    Busy(MutexGuard<'r, Receive>),
}

impl Connection {
    /// Sends a call and, if nobody else drives, waits for its end as the driver, for no longer than the spin budget. What ended it, if
    /// that has come, is moved to `outcome`. Returns its ticket, which is closed then.
    ///
    /// # Errors
    ///
    /// Nothing has been sent.
    pub(crate) fn start_and_spin(
        &self,
        call: NewCall<'_>,
        outcome: &mut Outcome,
    ) -> Result<TicketKey, CallError> {
        let Some(mut receive) = self.try_receive() else {
            return self.start(call);
        };
        let ((id, key), turn) = match self.start_driving(call, &mut receive) {
            Ok(started) => started,
            Err(error) => {
                self.leave(receive);
                return match error {
                    CallError::TooManyCalls { .. } => self.start(call), // which reads first
                    other => Err(other),
                };
            }
        };
        match self.spin_for_reply(receive, turn, (id, key), outcome) {
            Spun::Value(()) => {}
            Spun::Quiet(receive) => {
                self.lock().tickets.get(key).spun = true;
                self.leave(receive);
            }
            Spun::Busy(receive) => self.step_aside(receive),
        }
        Ok(key)
    }

    /// As [`spin`](Self::spin), for the reply to a call that has just been sent: usually the very next frame.
    fn spin_for_reply<'r>(
        &self,
        mut receive: MutexGuard<'r, Receive>,
        mut turn: SpinTurn,
        call: (CallId, TicketKey),
        outcome: &mut Outcome,
    ) -> Spun<'r, ()> {
        while self.looks_quiet() {
            if !turn.again() {
                self.learn_from(&turn);
                return Spun::Quiet(receive);
            }
        }
        let mut effects = Effects::default();
        match self.take_own_reply(&mut receive, call, outcome, &mut effects) {
            Ok(Some(mut state)) => {
                state.spin.paid(&turn);
                self.leave_holding(receive, state);
                self.apply(effects);
                return Spun::Value(());
            }
            Ok(None) => {}
            Err(breach) => {
                self.apply(effects);
                self.end_for(breach);
            }
        }
        let (_, key) = call;
        self.spin(receive, turn, key, Awaited::Arrival, &mut |state| {
            take_outcome(state, key, outcome)
        })
    }

    /// Drains the ring until `ready`, for no longer than the spin budget. Leaves the receive half if there is a value.
    pub(super) fn spin_until<'r, T>(
        &self,
        receive: MutexGuard<'r, Receive>,
        key: TicketKey,
        awaited: Awaited,
        ready: Ready<'_, T>,
    ) -> Spun<'r, T> {
        let turn = {
            let mut state = self.lock();
            if let Some(value) = take(&mut state, key, awaited, ready) {
                self.leave_holding(receive, state);
                return Spun::Value(value);
            }
            state.withdraw();
            state.is_driver_coming = false;
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
                        let gives_way =
                            self.begin_anew(&mut state, &mut turn, key, effects.wakers() > 0);
                        drop(state);
                        self.apply(effects);
                        batches += 1;
                        if batches == BATCHES || gives_way {
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
                        let gives_way = self.begin_anew(&mut self.lock(), &mut turn, key, false);
                        batches += 1;
                        if batches == BATCHES || gives_way {
                            return Spun::Busy(receive);
                        }
                    } else if self.is_closed() || !turn.again() {
                        self.learn_from(&turn);
                        break;
                    }
                }
                Err(breach) => {
                    self.apply(effects);
                    self.end_for(breach);
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

    /// Something has come: the wait begins anew. Returns `true` if a task that drives should let the others go ahead.
    fn begin_anew(
        &self,
        state: &mut State,
        turn: &mut SpinTurn,
        key: TicketKey,
        wakes: bool,
    ) -> bool {
        state.spin.paid(turn);
        *turn = state.spin.start();
        if self.sleeper == Sleeper::Threads || !state.has_large() {
            return false;
        }
        let call = state.tickets.get(key).id.raw();
        let sent = state.counters.messages_sent;
        state.company.look(call, sent, wakes)
    }

    /// As whoever has the receive half: spins until the peer has written something, or has read beyond `head`, for no longer than the spin budget.
    /// Returns `false` if it has not.
    pub(super) fn spin_for_news(&self, head: u32) -> bool {
        let mut turn = {
            let mut state = self.lock();
            state.withdraw();
            state.spin.start()
        };
        let is_quiet = || {
            self.peer.load_head() == head
                && self.peer.load_tail() == self.read_to.load(Ordering::Relaxed)
                && !self.is_closed()
        };
        while is_quiet() {
            if !turn.again() {
                self.learn_from(&turn);
                return false;
            }
        }
        self.lock().spin.paid(&turn);
        true
    }

    /// Tells the spin budget of a turn that ended with nothing.
    fn learn_from(&self, turn: &SpinTurn) {
        self.lock().spin.missed(turn);
    }

    /// As [`leave`](Self::leave), for a driver that holds the state lock: if nobody else needs a driver, the receive half is given
    /// back before the lock is, so whoever comes next finds it free.
    pub(super) fn leave_holding(&self, receive: MutexGuard<'_, Receive>, state: StateGuard<'_>) {
        if state.is_adrift() {
            drop(state);
            self.leave(receive);
        } else {
            drop(receive);
            state.unlock();
        }
    }

    /// Tells the spin budget how long a wait took after all, unless it was one for a large message, of which each sleep has been told.
    pub(crate) fn slept(&self, since: Instant) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.has_progressed) {
            state.spin.slept(since.elapsed());
        }
    }
}
