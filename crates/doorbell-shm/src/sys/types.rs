//! Values that mean the same on every system.

use std::time::Instant;

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something happened, or may have: look again.
    Notified,
    /// The deadline has passed.
    Deadline,
}

/// Which object stands behind a [`Doorbell`](super::Doorbell).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DoorbellKind {
    /// A counter of the system. Cheapest, but a peer that holds it can make our [`notify`](super::Doorbell::notify)
    /// block: for peers of the same user, who could stop our process anyway.
    Event,
    /// One byte through a socket. Works between users.
    Socket,
}

impl DoorbellKind {
    /// Returns the kind for a peer of the same user. `--cfg doorbell_socket_bell` makes it [`Socket`](Self::Socket),
    /// so that tests exercise both.
    pub const fn default_kind() -> Self {
        if cfg!(doorbell_socket_bell) {
            Self::Socket
        } else {
            Self::Event
        }
    }
}

/// Whom the system lets connect to a [`Listener`](super::Listener). Who is then let in is decided by who listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SocketAccess {
    /// The user that listens: mode 0600.
    #[default]
    Owner,
    /// The group of the socket as well, which is that of the process or, in a directory with the set-group-ID bit, the
    /// directory's: mode 0660.
    Group,
    /// Every user: mode 0666.
    Everyone,
}

/// Which side writes a region that we were handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAccess {
    /// The peer writes, we read: it must have made sure that nobody else can write.
    WriterIsPeer,
    /// We write, the peer reads: it must have left us the right to.
    WriterIsUs,
}

/// When a [`Poller`](super::Poller) reports a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Once for each time the source becomes ready.
    Edge,
    /// As long as the source is ready.
    Level,
}

/// How long a [`Poller`](super::Poller) waits when nothing is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// Until that instant.
    Until(Instant),
    /// Until something happens.
    Forever,
}

/// What a [`Poller`](super::Poller) has seen of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Token under which the source was added.
    pub token: u64,
    /// A doorbell was notified, a listener has a connection, a stream has bytes or its end, a process has exited.
    pub readable: bool,
    /// The other end of a stream or of a socket doorbell is closed or broken. Bytes may still be unread.
    pub hung_up: bool,
}

/// What a thread has done since it began, as the system counts it. See [`thread_sleeps`](super::thread_sleeps).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadSleeps {
    /// Times it has slept, whatever for.
    pub sleeps: u64,
    /// Pages that were not there when it touched them.
    pub faults: u64,
}
