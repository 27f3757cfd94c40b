//! What becomes of connections that have been quiet for long: they give their memory back, or end.

use std::time::Instant;

use doorbell_shm::{stall, sys};

use super::Worker;
use crate::{deadline::after_since, error::Disconnected, server::quiet::TIME_QUIET};

impl Worker {
    /// Gives back the memory of connections that have used much and have been quiet for a while.
    pub(super) fn give_back(&mut self, now: Instant) {
        let Some(due) = self.quiet.take_due(now) else {
            return;
        };
        let mut is_less = due.have_some_ended;
        for index in due.connections {
            is_less |= self.give_back_of(index, now);
        }
        if is_less && self.duties.trims_heap {
            sys::trim_heap();
        }
    }

    /// As [`give_back`](Self::give_back), of one connection. Returns `false` if it has not been quiet.
    fn give_back_of(&mut self, index: usize, now: Instant) -> bool {
        let Some(Some(owned)) = self.connections.get_mut(index) else {
            return false;
        };
        if owned.hot || !owned.is_untidy {
            owned.is_untidy = false; // it comes back when it goes to sleep
            return false;
        }
        let is_quiet = now.saturating_duration_since(owned.last_active) >= TIME_QUIET / 2;
        let connection = &owned.connection;
        if is_quiet && connection.has_quiet_news() {
            owned.is_untidy = false;
            self.warm_up(index);
            return false;
        }
        let give_back = || connection.give_back();
        owned.is_untidy = !is_quiet || stall::measure(connection.subject(), give_back);
        if !is_quiet {
            self.quiet.push(now, index);
        } else if owned.is_untidy {
            self.quiet.push_again(now, index);
        }
        if self.has_stalled_too_much(index) {
            self.isolate(index);
        }
        is_quiet
    }

    pub(super) fn next_idle_deadline(&self) -> Option<Instant> {
        let timeout = self.duties.idle_timeout?;
        self.connections
            .iter()
            .flatten()
            .map(|owned| after_since(owned.last_active, timeout))
            .min()
    }

    pub(super) fn end_idle(&mut self) {
        let Some(timeout) = self.duties.idle_timeout else {
            return;
        };
        let now = Instant::now();
        self.idle_check_at = Some(after_since(now, timeout));
        for index in 0..self.connections.len() {
            let Some(owned) = &mut self.connections[index] else {
                continue;
            };
            if owned.hot || after_since(owned.last_active, timeout) > now {
                continue;
            }
            if !owned.connection.is_idle() || owned.connection.has_background() {
                owned.last_active = now; // a call, or the handler of a notification, is under way
            } else if !owned.connection.looks_quiet() {
                // Its bell has rung, and is not among those that have been heard of so far. What it has written is looked for although something
                // seems to wait to be written: that may have gone with the last visit, which leaves it to the next one to say so.
                self.warm_up(index);
            } else {
                self.end(index, Disconnected::Idle(timeout));
            }
        }
    }
}
