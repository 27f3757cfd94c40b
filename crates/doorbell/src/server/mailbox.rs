//! Where connections are put down for a worker, and how it is told to look.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use doorbell_shm::sys::Poller;

use super::door::Door;
use crate::{
    connection::{Connection, Watched, lock},
    error::Disconnected,
};

/// What a worker shares with the rest of the server.
pub(super) struct Mailbox {
    pub(super) poller: Poller,
    pub(super) arrivals: Mutex<Vec<Traveller>>,
    /// Connections that may be read again.
    pub(super) resumed: Mutex<Vec<usize>>,
    pub(super) stop: AtomicBool,
    pub(super) polls: AtomicU64,
    /// Where connections go out.
    pub(super) door: Arc<Door>,
}

/// A connection on its way to its worker, to another one, or from it once it has ended.
pub(super) struct Traveller {
    /// Its descriptors go before the connection, with which goes what was charged for it.
    pub(super) watched: Watched,
    pub(super) connection: Arc<Connection>,
    /// The number of its worker, whoever has it for now.
    pub(super) home: usize,
    /// The client is dead, and so many frames of what it left may still be read.
    pub(super) legacy: Option<usize>,
}

/// Returns the number of the first mailbox from `first` on, and then from the beginning, whose worker is there; `first` if there is none.
pub(super) fn staffed_from(mailboxes: &[Arc<Mailbox>], first: usize) -> usize {
    let mut turns = (first..mailboxes.len()).chain(0..first);
    let found = turns.find(|&number| mailboxes[number].is_staffed());
    found.unwrap_or(first)
}

impl Mailbox {
    pub(super) fn new(door: Arc<Door>) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            poller: Poller::new()?,
            arrivals: Mutex::default(),
            resumed: Mutex::default(),
            stop: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            door,
        }))
    }

    /// Puts a connection down for the worker, then looks whether there is one: the steps are in `docs/orderings.md`.
    pub(super) fn deliver(&self, arrival: Traveller) {
        lock(&self.arrivals).push(arrival);
        if !self.is_staffed() {
            return self.turn_away(); // its worker may have left, and looks here no more
        }
        self.wake();
    }

    /// Returns `false` if the worker has left, or is about to.
    pub(super) fn is_staffed(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Ends the connections that no worker has taken in, and never will.
    pub(super) fn turn_away(&self) {
        let arrivals = std::mem::take(&mut *lock(&self.arrivals));
        for arrival in arrivals {
            self.door.see_off(arrival, Disconnected::Closed);
        }
    }

    /// Makes the worker look at everything again.
    pub(super) fn wake(&self) {
        if let Err(error) = self.poller.wake() {
            tracing::error!(%error, "cannot wake an I/O worker");
        }
    }
}
