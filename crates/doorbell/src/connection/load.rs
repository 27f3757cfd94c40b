//! Handlers of notifications that are still running: nothing else bounds them, because nobody waits for their answer.
//!
//! At the limit the worker stops reading that connection, the ring fills, and the client is told so. When half of them have ended
//! the worker is asked to go on.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::Connection;

/// Counts handlers in the background.
#[derive(Default)]
pub(super) struct Load {
    running: AtomicUsize,
    paused: AtomicBool,
    resume: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Connection {
    /// Sets what makes the worker look at this connection again.
    pub(crate) fn on_resume(&self, resume: impl Fn() + Send + Sync + 'static) {
        let _ = self.load.resume.set(Box::new(resume)); // a connection has one worker for life
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn background_began(&self) {
        self.load.running.fetch_add(1, Ordering::SeqCst);
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn background_ended(&self) {
        let before = self.load.running.fetch_sub(1, Ordering::SeqCst);
        if before <= BACKGROUND_HANDLERS / 2 && self.load.paused.swap(false, Ordering::SeqCst) {
            self.load.resume.get().inspect(|resume| resume());
        }
    }

    /// Returns `true` if handlers of notifications are running: more may lie unread because of them.
    pub(crate) fn has_background(&self) -> bool {
        self.load.running.load(Ordering::Relaxed) > 0
    }

    /// Returns `true` if the worker must not read more for now; it will be asked to go on.
    ///
    /// The order of the two looks closes the race with the last handler that ends: either it sees the pause or we see its end.
    pub(crate) fn must_pause(&self) -> bool {
        if self.load.running.load(Ordering::Relaxed) < BACKGROUND_HANDLERS {
            return false;
        }
        self.load.paused.store(true, Ordering::SeqCst);
        if self.load.running.load(Ordering::SeqCst) > BACKGROUND_HANDLERS / 2 {
            return true;
        }
        !self.load.paused.swap(false, Ordering::SeqCst)
    }
}

/// Handlers of notifications that may run in the background for one connection.
const BACKGROUND_HANDLERS: usize = 1024;
