//! Handlers of notifications that are still running: nothing else bounds them, because nobody waits for their answer.
//!
//! At the limit the worker stops reading that connection, the ring fills, and the client is told so. When half of them have ended
//! the worker is asked to go on.

use std::sync::{Arc, Mutex};

use doorbell_shm::Brake;

use super::{Connection, lock};

/// Counts handlers in the background.
#[derive(Default)]
pub(super) struct Load {
    brake: Brake,
    resume: Mutex<Option<Arc<Resume>>>,
}

type Resume = dyn Fn() + Send + Sync;

impl Connection {
    /// Sets what makes the worker look at this connection again. A worker that sets it looks afterwards: it may have been asked before.
    pub(crate) fn on_resume(&self, resume: impl Fn() + Send + Sync + 'static) {
        *lock(&self.load.resume) = Some(Arc::new(resume));
    }

    /// Makes the worker look at this connection.
    pub(super) fn ask_to_resume(&self) {
        let resume = lock(&self.load.resume).clone();
        resume.inspect(|resume| resume());
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn background_began(&self) {
        self.load.brake.begin();
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn background_ended(&self) {
        if self.load.brake.end(BACKGROUND_HANDLERS) {
            self.ask_to_resume();
        }
    }

    /// Returns `true` if handlers of notifications are running: more may lie unread because of them.
    pub(crate) fn has_background(&self) -> bool {
        self.load.brake.is_busy()
    }

    /// Returns `true` if the worker must not read more for now; it will be asked to go on.
    pub(crate) fn must_pause(&self) -> bool {
        self.load.brake.holds(BACKGROUND_HANDLERS)
    }
}

/// Handlers of notifications that may run in the background for one connection.
const BACKGROUND_HANDLERS: u32 = 1024;
