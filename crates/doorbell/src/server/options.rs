//! What can be set before a server starts, the same for both kinds.

use std::time::Duration;

use doorbell_proto::limits;
use doorbell_shm::{SpinMode, sys::SocketAccess};

use super::{Limits, Policy};
use crate::{error::BindError, link::Wishes};

/// Settings of a server with their defaults.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) wishes: Wishes,
    pub(crate) spin: SpinMode,
    pub(crate) workers: Option<usize>,
    pub(crate) pins: Vec<usize>,
    pub(crate) limits: Limits,
    pub(crate) max_calls: u32,
    pub(crate) max_assembly_bytes: u64,
    pub(crate) max_loan_bytes: u64,
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) trims_heap: bool,
    pub(crate) policy: Policy,
    pub(crate) socket_access: SocketAccess,
    #[cfg(feature = "tokio")]
    pub(crate) runtime: Option<tokio::runtime::Handle>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wishes: Wishes::default(),
            spin: SpinMode::Adaptive,
            workers: None,
            pins: Vec::new(),
            limits: Limits::default(),
            max_calls: limits::MAX_CALLS_DEFAULT,
            max_assembly_bytes: limits::DEFAULT_MAX_ASSEMBLY_BYTES,
            max_loan_bytes: limits::DEFAULT_MAX_LOAN_BYTES,
            handshake_timeout: Duration::from_secs(2),
            idle_timeout: None,
            trims_heap: false,
            policy: Policy::default(),
            socket_access: SocketAccess::default(),
            #[cfg(feature = "tokio")]
            runtime: None,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), BindError> {
        let bad = |option, value: u64, reason| {
            Err(BindError::Option {
                option,
                value,
                reason,
            })
        };
        let ring = self.wishes.ring_capacity_bytes;
        if self.workers == Some(0) {
            return bad("workers", 0, "at least one I/O worker is needed");
        }
        if !ring.is_power_of_two()
            || !(limits::MIN_RING_BYTES..=limits::MAX_RING_BYTES).contains(&ring)
        {
            return bad(
                "ring_capacity_bytes",
                ring.into(),
                "it must be a power of two from 4 KiB to 1 GiB",
            );
        }
        if self.max_calls == 0 || self.max_calls > limits::MAX_CALLS_HIGHEST {
            return bad(
                "max_calls",
                self.max_calls.into(),
                "it must be from 1 to 65536",
            );
        }
        if self.wishes.max_message_bytes == 0
            || self.wishes.max_message_bytes > self.max_assembly_bytes
        {
            let value = self.wishes.max_message_bytes;
            return bad(
                "max_message_bytes",
                value,
                "it must be from 1 to max_assembly_bytes",
            );
        }
        let window = self.wishes.receive_window_bytes;
        if !(limits::MIN_WINDOW_BYTES..=limits::MAX_CREDIT_BYTES).contains(&window) {
            return bad(
                "stream_window_bytes",
                window.into(),
                "it must be from 1 KiB to 2 GiB - 1",
            );
        }
        if self.limits.churn_per_user == 0 {
            return bad(
                "max_churn_per_user",
                0,
                "at least one connection must be allowed to end in a second",
            );
        }
        if self.limits.has_none() {
            return bad(
                "limit",
                0,
                "with none of a resource nobody can use the server",
            );
        }
        Ok(())
    }
}

/// The builder methods that both kinds of server share.
macro_rules! option_methods {
    () => {
        /// Sets how many I/O worker threads there are; each owns a share of the connections. Default: one per four processors,
        /// at least one.
        ///
        /// One more thread serves connections for a while whose memory is not there and makes their worker sleep; see
        /// [`ServerStats::quarantined`](crate::server::ServerStats::quarantined). It costs nothing while there is none.
        #[must_use]
        pub fn workers(mut self, count: usize) -> Self {
            self.options.workers = Some(count);
            self
        }

        /// Pins I/O worker 0 to the first processor given, worker 1 to the second, and so on. Default: not pinned.
        ///
        /// Threads that a handler starts while a worker runs it are pinned there too, as the system has it; those in which the library runs
        /// handlers are not.
        #[must_use]
        pub fn pin_workers(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
            self.options.pins = cpus.into_iter().collect();
            self
        }

        /// Sets how workers wait for the next message before they sleep. Default: [`Spin::Adaptive`](crate::Spin).
        #[must_use]
        pub fn spin(mut self, spin: crate::Spin) -> Self {
            self.options.spin = spin;
            self
        }

        /// Sets how many connections there may be at once. Default: 4096. Short for [`limit`](Self::limit) of
        /// [`Connections`](crate::server::Resource::Connections).
        #[must_use]
        pub fn max_connections(self, count: usize) -> Self {
            self.limit(crate::server::Resource::Connections, count as u64)
        }

        /// Sets how much of a resource the server gives out in all. Defaults: see [`Resource`](crate::server::Resource).
        #[must_use]
        pub fn limit(mut self, resource: crate::server::Resource, limit: u64) -> Self {
            self.options.limits.set_total(resource, limit);
            self
        }

        /// Sets how much of a resource one user may have, the server's own included. Default: everything for the server's own user,
        /// whose programs can end the server anyway, and a quarter for each other user that is [admitted](Self::admit).
        #[must_use]
        pub fn limit_per_user(mut self, resource: crate::server::Resource, limit: u64) -> Self {
            self.options.limits.set_per_user(resource, limit);
            self
        }

        /// Sets how many connections of one user, the server's own included, may end in a second before that user has to wait for the next one.
        /// Default: 500. `u32::MAX` is as good as no limit; with 0 the server does not start.
        ///
        /// It keeps who comes and goes without end from slowing down those who are in, because the memory of a connection costs every thread of
        /// the server a little when it is made and when it is taken apart. Nobody is refused for that: the client waits for the end of its
        /// handshake, for 1 s at most whatever the number is, or for its turn if others of the user wait as well: they are let in at that rate. It is
        /// counted in [`ServerStats::delayed`](crate::server::ServerStats::delayed). Connections that stay do not count, however many are made at once, nor do
        /// the first 128 that end.
        #[must_use]
        pub fn max_churn_per_user(mut self, connections_per_second: u32) -> Self {
            self.options.limits.churn_per_user = connections_per_second;
            self
        }

        /// Sets the largest metadata of a message that is accepted, in bytes. Default: 16 KiB, the most there can be. A call with more
        /// fails with `RESOURCE_EXHAUSTED`, a notification is dropped. All calls together hold so much for each of
        /// [`Calls`](crate::server::Resource::Calls).
        #[must_use]
        pub fn max_metadata_bytes(mut self, bytes: u32) -> Self {
            self.options.limits.metadata_bytes = bytes.into();
            self
        }

        /// Sets how many calls may be under way at once on one connection, from 1 to 65,536. Default: 1024.
        #[must_use]
        pub fn max_calls(mut self, count: u32) -> Self {
            self.options.max_calls = count;
            self
        }

        /// Sets the largest message that is accepted, in bytes. Default: 64 MiB.
        #[must_use]
        pub fn max_message_bytes(mut self, bytes: u64) -> Self {
            self.options.wishes.max_message_bytes = bytes;
            self
        }

        /// Sets how much memory messages that are still arriving may take per connection, in bytes. Default: 256 MiB. A message
        /// beyond it fails with `RESOURCE_EXHAUSTED`.
        #[must_use]
        pub fn max_assembly_bytes(mut self, bytes: u64) -> Self {
            self.options.max_assembly_bytes = bytes;
            self
        }

        /// Sets how much memory there may be for loans per connection, in both directions together, in bytes. It is made when it is
        /// needed and given up when the connection sleeps. Default: 256 MiB. With 0 there are no loans: what would be one is copied.
        #[must_use]
        pub fn max_loan_bytes(mut self, bytes: u64) -> Self {
            self.options.max_loan_bytes = bytes;
            self
        }

        /// Sets how much memory there may be for loans on all connections together, in bytes. Default: 1 GiB. Short for
        /// [`limit`](Self::limit) of [`LoanBytes`](crate::server::Resource::LoanBytes).
        #[must_use]
        pub fn max_total_loan_bytes(self, bytes: u64) -> Self {
            self.limit(crate::server::Resource::LoanBytes, bytes)
        }

        /// Sets the size of each of the two rings of a connection: a power of two from 4 KiB to 1 GiB. Memory is used only
        /// as far as messages need it. A client can wish for another size.
        #[must_use]
        pub fn ring_capacity_bytes(mut self, bytes: u32) -> Self {
            self.options.wishes.ring_capacity_bytes = bytes;
            self
        }

        /// Sets how many bytes of one stream a client may send before the handler takes them.
        #[must_use]
        pub fn stream_window_bytes(mut self, bytes: u32) -> Self {
            self.options.wishes.receive_window_bytes = bytes;
            self
        }

        /// Sets how long a client may take to say hello, in all. Default: 2 s.
        #[must_use]
        pub fn handshake_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.handshake_timeout = timeout;
            self
        }

        /// Ends connections on which nothing has happened for that long. Default: never.
        #[must_use]
        pub fn idle_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.idle_timeout = Some(timeout);
            self
        }

        /// Makes the allocator of the whole process give back what it keeps of freed memory, when a connection that has moved more than a few
        /// KiB at once has been quiet for a second. Default: not, because the allocator is the program's own business, and because it takes an I/O
        /// worker a millisecond or more, once or twice a second at most.
        ///
        /// The allocator of glibc, which is Rust's default on most Linux systems, keeps what a burst of large messages has needed, often for
        /// good. With others nothing happens; they give memory back by themselves.
        #[must_use]
        pub fn trim_heap_when_quiet(mut self) -> Self {
            self.options.trims_heap = true;
            self
        }

        /// Sets who is let in. Default: processes of the server's own user, and nobody else.
        ///
        /// The policy is asked about each client before the client is given any memory. It says an
        /// [`Admission`](crate::server::Admission) or simply whether to admit it, and it may be asked for own processes, too. It runs on
        /// the thread that takes all connections in, and ends those that are over with their calls, so it must not wait; if it panics, that
        /// client is refused. Other users must be able to reach the socket as well: see [`socket_access`](Self::socket_access).
        /// Connections with them never use an event counter to wake each other, which a hostile process could make block.
        #[must_use]
        pub fn admit<A: Into<crate::server::Admission>>(
            mut self,
            policy: impl Fn(&crate::server::Peer) -> A + Send + Sync + 'static,
        ) -> Self {
            self.options.policy = crate::server::Policy::new(policy);
            self
        }

        /// Sets who can reach the socket. Default: the server's own user, mode 0600.
        ///
        /// More than that needs a path for a name, in a directory that those others can enter, because the directory of service names
        /// is the user's alone; and a policy that [admits](Self::admit) them. If they may write to that directory,
        /// they can put a server of their own in the place of this one; clients notice, because they check whose server it is.
        #[must_use]
        pub fn socket_access(mut self, access: crate::server::SocketAccess) -> Self {
            self.options.socket_access = access;
            self
        }
    };
}
pub(crate) use option_methods;
