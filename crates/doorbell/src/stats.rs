//! What a connection or server has done so far, in counters that only grow.

/// Counters of one connection. System calls are those of the message path: what wakes the peer and what sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages written: calls, replies, items, notifications.
    pub messages_sent: u64,
    /// Frames read from the peer.
    pub frames_received: u64,
    /// Times the peer had to be woken: one system call each.
    pub notifies: u64,
    /// Times this side went to sleep and was woken: one system call each.
    pub sleeps: u64,
    /// Calls that this side cancelled.
    pub cancelled: u64,
}

impl Stats {
    /// Returns the system calls spent on messages.
    pub fn system_calls(&self) -> u64 {
        self.notifies + self.sleeps
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.messages_sent += other.messages_sent;
        self.frames_received += other.frames_received;
        self.notifies += other.notifies;
        self.sleeps += other.sleeps;
        self.cancelled += other.cancelled;
    }
}

pub(crate) type Counters = Stats;
