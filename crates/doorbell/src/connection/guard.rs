//! Keeping the user's code out of the state lock: wakers are cloned before it and dropped behind it, and so are payloads.
//!
//! A waker, and the owner of a payload, are the user's: to clone or to drop one runs code of theirs, which may call this connection again. It
//! may panic, too, when it is dropped: on a thread that others need, which goes on.

use std::{
    ops::{Deref, DerefMut},
    sync::MutexGuard,
    task::{Poll, Waker},
};

use bytes::Bytes;

use super::{
    Connection,
    state::State,
    waiters::{Registration, Waiters},
};
use crate::panics::drop_each;

/// The state, locked. What its holder has put aside is dropped after the lock has been released.
pub(crate) struct StateGuard<'a>(Option<MutexGuard<'a, State>>);

/// What is to be dropped without the lock.
type Aside = (Vec<Waker>, Vec<Bytes>);

impl<'a> StateGuard<'a> {
    #[inline]
    pub(super) fn new(state: MutexGuard<'a, State>) -> Self {
        Self(Some(state))
    }

    /// The same as dropping it, in place: for where each instruction counts.
    #[inline(always)]
    pub(super) fn unlock(mut self) {
        let state = self.0.take();
        std::mem::forget(self);
        unlock(state);
    }
}

#[inline(always)]
fn unlock(state: Option<MutexGuard<'_, State>>) {
    if let Some(state) = state
        && state.has_put_aside()
    {
        unlock_and_drop_aside(state);
    }
}

#[cold]
fn unlock_and_drop_aside(mut state: MutexGuard<'_, State>) {
    let (wakers, payloads) = state.take_aside();
    drop(state);
    drop_each(wakers);
    drop_each(payloads);
}

impl Deref for StateGuard<'_> {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        self.0.as_ref().expect("locked until it is dropped")
    }
}

impl DerefMut for StateGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().expect("locked until it is dropped")
    }
}

impl Drop for StateGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        unlock(self.0.take());
    }
}

impl State {
    #[inline]
    fn has_put_aside(&self) -> bool {
        !self.tickets.aside.is_empty() || !self.outgoing.aside.is_empty()
    }

    /// Puts everything of the user's aside, for when nobody has the connection any more.
    pub(super) fn put_all_aside(&mut self) {
        let wakers = self.take_wakers(|_| {});
        self.tickets.aside.extend(wakers);
        self.outgoing.put_all_aside();
    }

    fn take_aside(&mut self) -> Aside {
        let wakers = std::mem::take(&mut self.tickets.aside);
        let payloads = std::mem::take(&mut self.outgoing.aside);
        (wakers, payloads)
    }
}

/// Somebody who may have to wait, and whose waker has not been cloned yet.
pub(super) struct Registrant<'a> {
    waker: &'a Waker,
    clone: Option<Waker>,
    needs_clone: bool,
    registration: &'a mut Registration,
    /// The waker that ours has replaced, to be dropped without the lock.
    before: Option<Waker>,
}

impl<'a> Registrant<'a> {
    fn new(waker: &'a Waker, registration: &'a mut Registration) -> Self {
        Self {
            waker,
            clone: None,
            needs_clone: false,
            registration,
            before: None,
        }
    }

    pub(super) fn with_clone(waker: &'a Waker, registration: &'a mut Registration) -> Self {
        let mut who = Self::new(waker, registration);
        who.clone = Some(waker.clone());
        who
    }

    /// Returns `true` if `known` wakes them.
    pub(super) fn is(&self, known: &Waker) -> bool {
        known.will_wake(self.waker)
    }

    /// Returns a waker that can be kept. If there is none yet, the look that this is a part of is repeated with one.
    pub(super) fn take(&mut self) -> Option<Waker> {
        let clone = self.clone.take();
        self.needs_clone = clone.is_none();
        clone
    }

    /// Registers them among `waiters`, once.
    pub(super) fn join(&mut self, waiters: &mut Waiters) {
        let known = waiters.get(self.registration);
        if known.is_some_and(|known| self.is(known)) {
            return;
        }
        if let Some(waker) = self.take() {
            self.before = waiters.insert(self.registration, waker);
        }
    }
}

impl Connection {
    /// Looks under the state lock, in one step with the registration of who waits if there is nothing. The look is made twice if that
    /// needs a clone of their waker: to sleep costs more.
    ///
    /// For what one at a time waits for, whom the next one replaces. Others [join](Self::look_or_join).
    pub(super) fn look_or_register<T>(
        &self,
        waker: &Waker,
        look: impl FnMut(&mut State, &mut Registrant<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.look_or_join(&mut Registration::default(), waker, look)
    }

    /// As [`look_or_register`](Self::look_or_register), for what many may wait for. Whoever has the registration takes themselves back when they
    /// wait no more.
    pub(super) fn look_or_join<T>(
        &self,
        registration: &mut Registration,
        waker: &Waker,
        mut look: impl FnMut(&mut State, &mut Registrant<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut who = Registrant::new(waker, registration);
        loop {
            let looked = look(&mut self.lock(), &mut who);
            if looked.is_ready() || !std::mem::take(&mut who.needs_clone) {
                return looked;
            }
            who.clone = Some(waker.clone());
        }
    }

    /// As [`look_or_join`](Self::look_or_join), for a look that must be made once because it changes something: the clone is made first.
    pub(super) fn look_with_clone<T>(
        &self,
        registration: &mut Registration,
        waker: &Waker,
        look: impl FnOnce(&mut State, &mut Registrant<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut who = Registrant::with_clone(waker, registration);
        look(&mut self.lock(), &mut who)
    }
}
