//! Those who wait for something that the state lock protects, and how they are taken back when they give up.
//!
//! A future can be dropped at any time. Its waker, and with it all the memory of its task, must not stay behind until what it waited for comes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    task::Waker,
};

use doorbell_proto::CallId;

use super::{Connection, State};

/// Those who wait for one thing, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Waiters(BTreeMap<u64, Waker>);

/// Under which number somebody is known where they wait: 0 until they have had to. No number is used twice, so one is enough for all lists of all
/// connections.
#[derive(Debug, Default)]
pub(crate) struct Registration(u64);

impl Waiters {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all of them, to be woken.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.0).into_values()
    }

    /// Takes the one who has waited longest.
    pub(super) fn pop(&mut self) -> Option<Waker> {
        self.0.pop_first().map(|(_, waker)| waker)
    }

    /// Returns the one who has waited longest.
    pub(super) fn first(&self) -> Option<&Waker> {
        self.0.values().next()
    }

    pub(super) fn get(&self, who: &Registration) -> Option<&Waker> {
        self.0.get(&who.0)
    }

    /// Registers a waker, and returns the one that it replaces.
    pub(crate) fn insert(&mut self, who: &mut Registration, waker: Waker) -> Option<Waker> {
        if who.0 == 0 {
            who.0 = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        self.0.insert(who.0, waker)
    }

    pub(crate) fn remove(&mut self, who: &Registration) -> Option<Waker> {
        self.0.remove(&who.0)
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A future that waits: it is taken back when it is dropped.
pub(crate) struct Waiting<'a> {
    connection: &'a Connection,
    /// The call whose end it waits for, if that is what it waits for.
    call: Option<CallId>,
    pub(super) registration: Registration,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(connection: &'a Connection, call: Option<CallId>) -> Self {
        Self {
            connection,
            call,
            registration: Registration::default(),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.registration.0 != 0 {
            self.connection.stop_waiting(&self.registration, self.call);
        }
    }
}

impl State {
    /// Takes somebody back who waits for something of the connection, or for the end of `call`. Their wakers are dropped without the lock.
    pub(super) fn take_back_waiter(&mut self, who: &Registration, call: Option<CallId>) {
        let lists = [
            &mut self.space_wakers,
            &mut self.pool.wakers,
            &mut self.pongs.wakers,
            &mut self.quiet_wakers,
        ];
        let wakers = lists.into_iter().filter_map(|list| list.remove(who));
        self.tickets.aside.extend(wakers);
        self.forget_vain_hope();
        if let Some(key) = call.and_then(|id| self.tickets.find(id)) {
            let waker = self.tickets.get(key).forget_end(who);
            self.tickets.aside.extend(waker);
        }
    }
}
