//! Counts the streams of one kind, so that the engine can show that dropped ones have stopped.

use tokio::sync::watch;

use crate::demo::protocol::StreamCounts;

/// Streams of one kind.
#[derive(Debug)]
pub(crate) struct Activity {
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    running: u64,
    counts: StreamCounts,
}

impl Activity {
    /// Starts at zero.
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new(State::default()),
        }
    }

    /// Counts a stream as running until the guard is dropped.
    pub(crate) fn start(&self) -> Running<'_> {
        self.state.send_modify(|state| {
            state.running += 1;
            state.counts.started += 1;
        });
        Running {
            activity: self,
            items: 0,
            is_finished: false,
        }
    }

    /// Waits until no stream runs, and returns the counts of that moment.
    pub(crate) async fn idle(&self) -> StreamCounts {
        let mut states = self.state.subscribe();
        let idle = states.wait_for(|state| state.running == 0).await;
        idle.expect("the sender is a field of self").counts
    }
}

/// A running stream. Dropped before [`finish`](Self::finish) it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    activity: &'a Activity,
    items: u64,
    is_finished: bool,
}

impl Running<'_> {
    /// Counts an item.
    pub(crate) fn count_item(&mut self) {
        self.items += 1;
    }

    /// Ends the stream as one that has sent everything.
    pub(crate) fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.activity.state.send_modify(|state| {
            state.running -= 1;
            state.counts.items += self.items;
            if self.is_finished {
                state.counts.finished += 1;
            } else {
                state.counts.cancelled += 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_stream() {
        let activity = Activity::new();
        let (mut first, second) = (activity.start(), activity.start());
        first.count_item();
        let (counts, ()) = tokio::join!(activity.idle(), async {
            drop(first);
            tokio::task::yield_now().await;
            second.finish();
        });
        assert_eq!(
            counts,
            StreamCounts {
                started: 2,
                finished: 1,
                cancelled: 1,
                items: 1
            }
        );
    }
}
