//! Waiting as one of many tasks: each looks once and lets the others go ahead.
//!
//! A task that spins in place keeps its thread from all others, and with them the replies that have come for those. That is right while a
//! thread's tasks use one connection: whoever drives completes the others' calls. With many connections each has a driver of its own,
//! and the work of a thread is to go round: send, look, send, look. So a task that finds that another connection was waited for on
//! this thread since it waited last yields between its looks, a few times.

use std::{
    cell::Cell,
    task::{Context, Poll},
};

use super::{
    Connection,
    drive::{DRAIN_FRAMES, Ready},
};

thread_local! {
    /// Address of the connection for which a task of this thread has waited last, 0 if none has. It is compared and nothing else.
    static LATEST: Cell<usize> = const { Cell::new(0) };
}

/// How often a task has looked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turns(u32);

impl Connection {
    /// Returns `true` if a task of this thread has waited for another connection since one waited for this one.
    pub(crate) fn is_one_of_many(&self) -> bool {
        let this = std::ptr::from_ref(self).addr();
        let latest = LATEST.replace(this);
        latest != this && latest != 0
    }

    /// Looks once. If nothing has come, the task is woken at once, after others; `None` when it has had its turns, and had better
    /// [wait](Self::poll_until).
    pub(crate) fn poll_in_turn<T>(
        &self,
        cx: &mut Context<'_>,
        turns: &mut Turns,
        ready: Ready<'_, T>,
    ) -> Option<Poll<T>> {
        let budget = match tokio::task::coop::poll_proceed(cx) {
            Poll::Ready(budget) => budget,
            Poll::Pending => return Some(Poll::Pending),
        };
        if let Some(value) = self.look(ready) {
            budget.made_progress();
            return Some(Poll::Ready(value));
        }
        turns.0 += 1;
        if turns.0 > LOOKS || self.never_spins {
            return None;
        }
        cx.waker().wake_by_ref();
        Some(Poll::Pending)
    }

    /// Takes what is there, and reads what has come if nobody else does.
    fn look<T>(&self, ready: Ready<'_, T>) -> Option<T> {
        if let Some(value) = ready(&mut self.lock()) {
            return Some(value);
        }
        if self.looks_quiet() {
            return None;
        }
        let mut receive = self.try_receive()?;
        let drained = self.drain(&mut receive, DRAIN_FRAMES, &mut |_, _| {});
        self.leave(receive);
        drained.ok()?;
        ready(&mut self.lock())
    }
}

/// Looks before a task waits for good. While the others have something to do they cost nothing that is missed, and a reply of a server that
/// keeps up has come at the second or third. When nobody has, they are a microsecond or two before a sleep that costs more.
const LOOKS: u32 = 16;
