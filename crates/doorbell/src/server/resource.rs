//! What a server counts over all connections, and how much there is of it.

use std::fmt;

use doorbell_proto::limits;

/// Something of which a server gives out so much and no more, in total and to each user.
///
/// What is refused is refused to the one who asked: an attempt to connect with a reason, a call with `RESOURCE_EXHAUSTED` and not
/// executed. Nobody else notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Connections, those included whose handshake is not finished. Default: 4096, each with its descriptors and rings. One that has ended counts as
    /// long as a handler has a [`Context`](crate::Context) of it, which keeps its memory: while handlers of notifications run, for instance.
    Connections,
    /// Handshakes that are not finished. Default: 1024, which hold a descriptor each until
    /// [`handshake_timeout`](crate::blocking::ServerBuilder::handshake_timeout).
    Handshakes,
    /// Calls in flight. Default: 65,536, as many as one connection can have at most. Taken in steps of up to 16 for a connection, of one
    /// where there are few.
    Calls,
    /// Bytes of shared memory given out, rings with what belongs to them. Default: 4 GiB, enough for the rings of 4096 connections with
    /// the default size (2.1 GiB). Memory is used only as far as messages have needed it.
    RingBytes,
    /// Bytes of messages under assembly at their announced size, metadata not included. Default: 1 GiB, what four connections may hold with the
    /// default of [`max_assembly_bytes`](crate::blocking::ServerBuilder::max_assembly_bytes).
    AssemblyBytes,
    /// Bytes of stream items that one side may have sent and the other not taken: each stream counts with its whole window for each
    /// direction. Default: 2 GiB, which are 8192 streams with windows of the default size.
    StreamBytes,
    /// Bytes of segments for loans. Default: 1 GiB, what four connections may have with the default of
    /// [`max_loan_bytes`](crate::blocking::ServerBuilder::max_loan_bytes). What finds no room is copied, or waits. A segment counts until its last loan
    /// is dropped, also after the end of its connection.
    LoanBytes,
    /// The four above together. Default: 4 GiB.
    MemoryBytes,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::Handshakes,
        Self::Calls,
        Self::RingBytes,
        Self::AssemblyBytes,
        Self::StreamBytes,
        Self::LoanBytes,
        Self::MemoryBytes,
    ];

    /// Returns `true` if it also counts as [`MemoryBytes`](Self::MemoryBytes).
    pub(super) fn is_memory(self) -> bool {
        matches!(
            self,
            Self::RingBytes | Self::AssemblyBytes | Self::StreamBytes | Self::LoanBytes
        )
    }

    fn default_limit(self) -> u64 {
        match self {
            Self::Connections => 4096,
            Self::Handshakes => 1024,
            Self::Calls => 65_536,
            Self::AssemblyBytes => 1 << 30,
            Self::StreamBytes => 2 << 30,
            Self::LoanBytes => limits::DEFAULT_MAX_TOTAL_LOAN_BYTES,
            Self::RingBytes | Self::MemoryBytes => 4 << 30,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "connections",
            Self::Handshakes => "unfinished handshakes",
            Self::Calls => "calls in flight",
            Self::RingBytes => "bytes of shared memory",
            Self::AssemblyBytes => "bytes of messages under assembly",
            Self::StreamBytes => "bytes of stream windows",
            Self::LoanBytes => "bytes of segments for loans",
            Self::MemoryBytes => "bytes of memory",
        })
    }
}

/// Limits of a server, in total and per user.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    total: PerResource<u64>,
    per_user: PerResource<Option<u64>>,
    /// Largest metadata of a message.
    pub(crate) metadata_bytes: u64,
    /// Connections of one user that may end in a second before the next ones wait.
    pub(crate) churn_per_user: u32,
}

/// One value for each resource, in the order of [`Resource::ALL`].
pub(super) type PerResource<T> = [T; Resource::ALL.len()];

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: Resource::ALL.map(Resource::default_limit),
            per_user: Default::default(),
            metadata_bytes: limits::MAX_METADATA_BYTES as u64,
            churn_per_user: 500,
        }
    }
}

impl Limits {
    pub(crate) fn set_total(&mut self, resource: Resource, limit: u64) {
        self.total[resource as usize] = limit;
    }

    pub(crate) fn set_per_user(&mut self, resource: Resource, limit: u64) {
        self.per_user[resource as usize] = Some(limit);
    }

    pub(super) fn total(&self) -> PerResource<u64> {
        self.total
    }

    /// Returns the limits of one user. Unless it was set, the server's own user may have everything, since its programs can end the server
    /// anyway, and anybody else a quarter.
    pub(super) fn of_user(&self, is_own: bool) -> PerResource<u64> {
        Resource::ALL.map(|resource| {
            let total = self.total[resource as usize];
            let share = if is_own { total } else { total.div_ceil(4) };
            self.per_user[resource as usize].unwrap_or(share)
        })
    }

    /// Returns `true` if there is a limit that admits nothing, other than that on loans, without which there is the copy.
    pub(super) fn has_none(&self) -> bool {
        Resource::ALL.into_iter().any(|resource| {
            let index = resource as usize;
            let is_none = self.total[index] == 0 || self.per_user[index] == Some(0);
            is_none && resource != Resource::LoanBytes
        })
    }
}

/// How a server stands with one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceStats {
    /// How much is given out now.
    pub used: u64,
    /// How much there is.
    pub limit: u64,
    /// Times something was refused because the server had no more.
    pub refused: u64,
    /// Times something was refused because a user had its share, while the server had more.
    pub refused_per_user: u64,
}
