//! Waiting as a thread: one drives, asleep on a futex, and the others park.

use std::{
    cell::Cell,
    sync::{Arc, MutexGuard},
    task::{Poll, Wake, Waker},
    thread::Thread,
    time::Instant,
};

use doorbell_shm::SleepOn;

use super::{
    Awaited, Connection, Receive, Sleeper, StateGuard, TicketKey,
    drive::{Ready, TimedOut, register_unless, take},
    spin::Spun,
};
use crate::error::Disconnected;

impl Connection {
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
        if let Some(value) = self.take_at_once(key, awaited, ready) {
            return Ok(value);
        }
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
        self.lock().tickets.put_aside(key, awaited);
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
        // Whoever ends the call later, as the other half of a stream may, finds that we sleep, and raises the kick.
        self.kick.lower();
        let mut state = self.lock();
        if let Some(value) = take(&mut state, key, awaited, ready) {
            self.leave_holding(receive, state);
            return Ok(Some(value));
        }
        self.announce_and_sleep(&mut receive, state, deadline);
        if self.lock().must_end() {
            drop(receive);
            self.close(Disconnected::PeerGone);
        }
        Ok(None)
    }

    /// Sleeps on the futex once. The kick has been lowered before the last look at the state, under the lock of which this begins.
    pub(super) fn announce_and_sleep(
        &self,
        receive: &mut Receive,
        mut state: StateGuard<'_>,
        deadline: Option<Instant>,
    ) {
        receive.consumer.release();
        state.counters.sleeps += 1;
        let sleep = self.announce(&mut state, SleepOn::Futex);
        let gone = state.gone;
        drop(state);
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
        let looked = self.look_or_register(&waker, |state, who| {
            register_unless(state, key, awaited, who, ready)
        });
        if let Poll::Ready(value) = looked {
            return Ok(Some(value));
        }
        if self.sleeper == Sleeper::Threads && self.try_receive().is_some() {
            return Ok(None); // nobody drives any more
        }
        park_until(deadline)?;
        Ok(None)
    }

    /// Makes another waiting thread the driver, if nobody is. Returns `false` if none waits any more: our try may have kept the last one, whose
    /// time was up, from [finding a driver](Self::find_driver).
    pub(super) fn hand_over(&self) -> bool {
        if self.try_receive().is_none() {
            return true; // somebody is
        }
        let (waker, must_end) = {
            let state = self.lock();
            (state.any_thread(), state.must_end())
        };
        if must_end {
            self.close(Disconnected::PeerGone); // our try has kept somebody else from it
            return true;
        }
        let Some(waker) = waker else {
            return false;
        };
        waker.wake();
        true
    }
}

/// Makes this thread an I/O worker: one that must not wait for its peers, because nobody else reads what they send.
pub(crate) fn be_worker() {
    IS_WORKER.set(true);
}

/// Returns `true` if this thread is an I/O worker.
pub(super) fn is_worker() -> bool {
    IS_WORKER.get()
}

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Parks this thread until it is unparked.
///
/// # Errors
///
/// [`TimedOut`] if `deadline` had passed already.
pub(crate) fn park_until(deadline: Option<Instant>) -> Result<(), TimedOut> {
    match deadline.map(|at| at.checked_duration_since(Instant::now())) {
        None => std::thread::park(),
        Some(Some(left)) if !left.is_zero() => std::thread::park_timeout(left),
        Some(_) => return Err(TimedOut),
    }
    Ok(())
}

/// Returns a waker that unparks this thread.
pub(crate) fn thread_waker() -> Waker {
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
