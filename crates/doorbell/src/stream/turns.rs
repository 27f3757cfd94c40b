//! Taking turns with other tasks.

use std::task::{Context, Poll};

/// Counts the items that a task sends or receives without having to wait, and makes it let others go ahead after many of them.
///
/// Waiting does so by itself, with one unit of the task's budget at tokio (128 in a turn) for each wait. An item that needs none is much
/// cheaper than what such a unit stands for.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    items: u32,
}

impl Turns {
    /// Ready when the next item may be sent or received.
    #[inline]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.items < ITEMS {
            self.items += 1;
            return Poll::Ready(());
        }
        self.poll_budget(cx)
    }

    #[cfg(feature = "tokio")]
    fn poll_budget(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
        self.items = 1;
        Poll::Ready(())
    }

    /// Without tokio nobody counts.
    #[cfg(not(feature = "tokio"))]
    fn poll_budget(&mut self, _: &mut Context<'_>) -> Poll<()> {
        self.items = 1;
        Poll::Ready(())
    }
}

/// Items for one unit of the budget. All of it then lasts for about 100 µs of items that are there, which take 30 ns each.
const ITEMS: u32 = 32;
