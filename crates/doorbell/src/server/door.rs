//! What the acceptor shares with the rest of the server: what is counted, and what has ended.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
};

use doorbell_shm::sys::{Poller, Wait};

use super::mailbox::Traveller;
use crate::{
    connection::{Connection, Registration, Waiters, lock},
    error::Disconnected,
    panics::{contain_visit, wake},
    stats::Stats,
};

/// Where connections come in and go out.
pub(super) struct Door {
    pub(super) poller: Poller,
    /// Nobody comes in any more.
    pub(super) is_closed: AtomicBool,
    /// Nor will anybody go out whom the acceptor would have to see off.
    is_over: AtomicBool,
    /// The last one has come in who ever will; those who wait for that.
    shut: Mutex<Shut>,
    /// Connections that stand.
    pub(super) open: AtomicUsize,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) delayed: AtomicU64,
    /// Those connections, for a drain.
    pub(super) connections: Mutex<Vec<Weak<Connection>>>,
    /// Connections that are over, and why; `None` when the acceptor has left.
    departed: Mutex<Option<Vec<(Traveller, Disconnected)>>>,
    /// What was counted of those that have ended.
    pub(super) ended: Mutex<Stats>,
}

#[derive(Default)]
struct Shut {
    is_shut: bool,
    waiters: Waiters,
}

impl Door {
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            poller: Poller::new()?,
            is_closed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            shut: Mutex::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            connections: Mutex::default(),
            departed: Mutex::new(Some(Vec::new())),
            ended: Mutex::default(),
        }))
    }

    /// Makes the acceptor take nobody in any more; its listener is closed then, and its socket removed. It still sees off who leaves.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Says that nobody comes in any more: the list of connections only becomes shorter.
    pub(super) fn shut(&self) {
        let wakers = {
            let mut shut = lock(&self.shut);
            shut.is_shut = true;
            shut.waiters.take()
        };
        wakers.for_each(wake);
    }

    /// Ready when nobody comes in any more.
    pub(super) fn poll_shut(&self, waker: &Waker, who: &mut Registration) -> Poll<()> {
        let waker = waker.clone(); // without the lock, as it is dropped: it is the user's
        let mut shut = lock(&self.shut);
        if shut.is_shut {
            drop(shut);
            return Poll::Ready(());
        }
        let before = shut.waiters.insert(who, waker);
        drop(shut);
        drop(before);
        Poll::Pending
    }

    /// Takes somebody back who waits for that no more.
    pub(super) fn stop_waiting(&self, who: &Registration) {
        let waker = lock(&self.shut).waiters.remove(who);
        drop(waker); // without the lock
    }

    /// Makes the acceptor leave.
    pub(super) fn dismiss(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.close();
    }

    fn wake(&self) {
        if let Err(error) = self.poller.wake() {
            tracing::error!(%error, "cannot wake the acceptor");
        }
    }

    /// Sees off who leaves until the acceptor may leave itself.
    pub(super) fn see_off_the_last(&self) {
        let mut events = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            self.forget_departed();
            if let Err(error) = self.poller.wait(&mut events, Wait::Forever) {
                return tracing::error!(%error, "the acceptor cannot wait; the workers see off who leaves");
            }
            events.clear();
        }
    }

    /// Takes a connection that is over. On the acceptor's thread its calls end, of which there may be a thousand with a task each, and go
    /// its mappings and descriptors, and what is queued in it: all that can take as long as hundreds of small calls. Only after that there is
    /// room for another one.
    pub(super) fn see_off(&self, traveller: Traveller, reason: Disconnected) {
        let mut departed = lock(&self.departed);
        let Some(waiting) = &mut *departed else {
            drop(departed);
            return self.forget(traveller, reason);
        };
        waiting.push((traveller, reason));
        let is_first = waiting.len() == 1;
        drop(departed);
        if is_first {
            self.wake(); // it looks after it has woken, and takes all
        }
    }

    #[cfg(test)]
    pub(super) fn has_acceptor(&self) -> bool {
        lock(&self.departed).is_some()
    }

    /// Ends the connections that are over, and takes apart what they leave.
    pub(super) fn forget_departed(&self) {
        let departed = lock(&self.departed).as_mut().map(std::mem::take);
        departed
            .into_iter()
            .flatten()
            .for_each(|(traveller, reason)| self.forget(traveller, reason));
    }

    /// Nobody comes for them any more: who ends a connection from now on takes it apart.
    pub(super) fn forget_for_good(&self) {
        let departed = lock(&self.departed).take();
        departed
            .into_iter()
            .flatten()
            .for_each(|(traveller, reason)| self.forget(traveller, reason));
    }

    fn forget(&self, traveller: Traveller, reason: Disconnected) {
        contain_visit("the end of a connection", || {
            self.take_apart(traveller, reason);
        });
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn take_apart(&self, traveller: Traveller, reason: Disconnected) {
        traveller.connection.close_as_driver(reason);
        lock(&self.ended).add(&traveller.connection.stats());
        let mut connections = lock(&self.connections);
        // What a weak reference points to keeps its memory.
        let is_it = |other: &Weak<Connection>| std::ptr::eq(other.as_ptr(), &*traveller.connection);
        if let Some(place) = connections.iter().position(is_it) {
            connections.swap_remove(place);
        }
        drop(connections);
        drop(traveller);
    }
}
