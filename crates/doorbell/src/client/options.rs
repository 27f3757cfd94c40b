//! What can be set before a client connects, the same for both kinds.

use std::time::Duration;

use doorbell_proto::limits;
use doorbell_shm::SpinMode;

use crate::link::Wishes;

/// Settings of a client with their defaults.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) wishes: Wishes,
    pub(crate) spin: SpinMode,
    pub(crate) client_name: String,
    pub(crate) handshake_timeout: Duration,
    pub(crate) wait_for_server: Duration,
    pub(crate) reconnect_timeout: Duration,
    pub(crate) max_assembly_bytes: u64,
    /// Users besides our own and root whose servers are trusted.
    pub(crate) trusted_users: Vec<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wishes: Wishes {
                ring_capacity_bytes: 0,
                ..Wishes::default()
            },
            spin: SpinMode::Adaptive,
            client_name: String::new(),
            handshake_timeout: Duration::from_secs(5),
            wait_for_server: Duration::ZERO,
            reconnect_timeout: Duration::from_secs(5),
            max_assembly_bytes: limits::DEFAULT_MAX_ASSEMBLY_BYTES,
            trusted_users: Vec::new(),
        }
    }
}

/// Pauses between attempts to connect: doubled each time from one millisecond to a quarter of a second.
#[derive(Debug)]
pub(crate) struct BackOff(Duration);

impl BackOff {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(1))
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(Duration::from_millis(250));
        pause
    }
}

/// The builder methods that both kinds of client share.
macro_rules! option_methods {
    () => {
        /// Sets how callers wait for a reply before they sleep. Default: [`Spin::Adaptive`](crate::Spin).
        #[must_use]
        pub fn spin(mut self, spin: crate::Spin) -> Self {
            self.options.spin = spin;
            self
        }

        /// Sets a name for the server's logs, at most 64 bytes of it.
        #[must_use]
        pub fn client_name(mut self, name: impl Into<String>) -> Self {
            self.options.client_name = name.into();
            self
        }

        /// Wishes for rings of this size, a power of two; the server decides. Default: the server's.
        #[must_use]
        pub fn ring_capacity_bytes(mut self, bytes: u32) -> Self {
            self.options.wishes.ring_capacity_bytes = bytes;
            self
        }

        /// Sets the largest reply or item that is accepted, in bytes. Default: 64 MiB.
        #[must_use]
        pub fn max_message_bytes(mut self, bytes: u64) -> Self {
            self.options.wishes.max_message_bytes = bytes;
            self.options.max_assembly_bytes = self.options.max_assembly_bytes.max(bytes);
            self
        }

        /// Sets how many bytes of one stream the server may send before they are taken.
        #[must_use]
        pub fn stream_window_bytes(mut self, bytes: u32) -> Self {
            self.options.wishes.receive_window_bytes = bytes;
            self
        }

        /// Sets how long one attempt to connect may take. Default: 5 s.
        #[must_use]
        pub fn handshake_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.handshake_timeout = timeout;
            self
        }

        /// Sets how long `connect` keeps trying, with growing pauses, while the server is not there yet or is full.
        /// Default: it tries once.
        #[must_use]
        pub fn wait_for_server(mut self, limit: std::time::Duration) -> Self {
            self.options.wait_for_server = limit;
            self
        }

        /// Sets how long a call without a deadline waits for a lost connection to be made again. Default: 5 s.
        #[must_use]
        pub fn reconnect_timeout(mut self, limit: std::time::Duration) -> Self {
            self.options.reconnect_timeout = limit;
            self
        }

        /// Trusts servers of the user with this number, besides those of our own user and of root. May be given more than once.
        ///
        /// A server of any other user is refused with [`ConnectError::Stranger`](crate::ConnectError), because it may
        /// have put its socket where the right one was expected.
        #[must_use]
        pub fn trust_server_user(mut self, uid: u32) -> Self {
            self.options.trusted_users.push(uid);
            self
        }
    };
}
pub(crate) use option_methods;
