//! How connections go to the [quarantine](super::super::quarantine) and come home.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use doorbell_shm::stall;

use super::{Post, Worker};
use crate::server::mailbox::{Mailbox, staffed_from};

impl Worker {
    /// Looks whether a connection's memory has made us sleep in what was measured last. Returns `true` if it belongs into the quarantine.
    pub(super) fn has_stalled_too_much(&mut self, index: usize) -> bool {
        stall::take().is_some_and(|took| self.note_stall(index, took))
    }

    /// Notes that a connection's memory has made us sleep for so long. Returns `true` if it belongs into the quarantine.
    pub(super) fn note_stall(&mut self, index: usize, took: Duration) -> bool {
        self.wary.found();
        let Some(owned) = &self.connections[index] else {
            return false;
        };
        let (quarantine, peer) = (&self.duties.quarantine, owned.connection.identity());
        tracing::debug!(?peer, ?took, "a connection has made an I/O worker sleep");
        quarantine.note_stall(peer, took, Instant::now())
    }

    /// Sends a connection to the quarantine, unless we are that.
    pub(super) fn isolate(&mut self, index: usize) {
        if self.is_quarantine() || !self.duties.quarantine.mailbox.is_staffed() {
            return;
        }
        let quarantine = Arc::clone(&self.duties.quarantine);
        if self.move_to(index, |_| &quarantine.mailbox) {
            quarantine.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends those home whose processes are no longer suspected.
    pub(super) fn release(&mut self, now: Instant) {
        if self.release_at.is_none_or(|at| now < at) {
            return;
        }
        self.release_at = None;
        let quarantine = Arc::clone(&self.duties.quarantine);
        for index in 0..self.connections.len() {
            let Some(owned) = &self.connections[index] else {
                continue;
            };
            let peer = owned.connection.identity();
            if let Some(until) = quarantine.suspected_until(peer, now) {
                self.release_at = Some(self.release_at.map_or(until, |at| at.min(until)));
            } else {
                self.move_to(index, |home| {
                    &quarantine.homes[staffed_from(&quarantine.homes, home)]
                });
            }
        }
    }

    /// Hands a connection over to another worker, to which it is as if it had just come. Returns `false` if there is none.
    fn move_to<'a>(
        &mut self,
        index: usize,
        choose: impl FnOnce(usize) -> &'a Arc<Mailbox>,
    ) -> bool {
        if let Some(owned) = &self.connections[index]
            && !owned.hot
        {
            owned.connection.wake_up();
        }
        let Some(traveller) = self.take_out(index) else {
            return false;
        };
        choose(traveller.home).deliver(traveller);
        true
    }

    pub(super) fn is_quarantine(&self) -> bool {
        matches!(self.duties.post, Post::Quarantine)
    }

    pub(super) fn is_suspected(&self, index: usize) -> bool {
        let quarantine = &self.duties.quarantine;
        let owned = self.connections[index].as_ref();
        owned.is_some_and(|owned| quarantine.is_suspected(owned.connection.identity()))
            && !self.is_quarantine()
    }
}
