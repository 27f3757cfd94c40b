//! The messages on the control socket before the first frame.
//!
//! A client says [`Hello`]; the server answers [`Welcome`], with four descriptors beside it, or [`Refused`]. This module owns the bytes
//! of those messages and the rules by which the two sides settle on versions, features and sizes. The socket, the descriptors and the
//! identity of the peer are the caller's. The bytes are specified in `docs/handshake.md`.
//!
//! # Trust
//!
//! Neither side believes the other: the server clamps every wish of a client, the client checks every number of a server
//! ([`Welcome::check`]) before it maps anything.

mod codec;
mod error;
mod messages;
mod negotiate;

pub use error::{HandshakeError, OfferError};
pub use messages::{Hello, Message, RefuseReason, Refused, Welcome};
pub use negotiate::{ServerOffer, chunk_bytes_for_ring, negotiate};

use std::fmt;

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;

/// The versions that this crate speaks.
pub const VERSIONS: VersionRange = VersionRange {
    min: VERSION,
    max: VERSION,
};

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// Lowest version.
    pub min: u16,
    /// Highest version.
    pub max: u16,
}

impl VersionRange {
    /// Returns the highest version in both ranges.
    pub fn common(self, other: Self) -> Option<u16> {
        let (min, max) = (self.min.max(other.min), self.max.min(other.max));
        (min <= max).then_some(max)
    }

    /// Returns `true` if `version` lies in the range.
    pub fn contains(self, version: u16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            return self.min.fmt(f);
        }
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// Optional parts of the protocol. Unknown bits are kept, and never agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// No feature.
    pub const NONE: Self = Self(0);
    /// Checksums of frames cover their bodies.
    pub const BODY_CRC: Self = Self(1);
    /// Large payloads may stay where they were written, in segments of their own.
    pub const LOANS: Self = Self(2);
    /// The ring that the server writes lies in two memories, of which the second can be given back to the system while the connection goes
    /// on; the server says when it is quiet.
    pub const GIVE_BACK: Self = Self(4);
    /// All features that this crate knows.
    pub const KNOWN: Self = Self(Self::BODY_CRC.0 | Self::LOANS.0 | Self::GIVE_BACK.0);

    /// Returns the features with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the bits as they are on the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns `true` if every feature of `other` is here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns these features and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the features that are in both.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// How a sleeping peer is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BellKind {
    /// An eventfd.
    EventFd = 1,
    /// A socket pair.
    Socket = 2,
}

impl BellKind {
    /// Returns the kind with this number on the wire.
    pub const fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            1 => Some(Self::EventFd),
            2 => Some(Self::Socket),
            _ => None,
        }
    }
}

impl fmt::Display for BellKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventFd => "eventfd",
            Self::Socket => "socket",
        })
    }
}

/// A set of doorbell kinds. Unknown bits are kept, and never agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BellKinds(u8);

impl BellKinds {
    /// No kind at all.
    pub const NONE: Self = Self(0);
    /// An eventfd, bit 0.
    pub const EVENT_FD: Self = Self(1);
    /// A socket pair, bit 1.
    pub const SOCKET: Self = Self(2);

    /// Returns the set with these bits.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the bits as they are on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns this set and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns `true` if `kind` is in the set.
    pub const fn contains(self, kind: BellKind) -> bool {
        self.0 & (kind as u8) != 0 // the numbers of the kinds are their bits
    }

    /// Returns the best kind that is in both sets: eventfd before socket.
    pub fn best_common(self, other: Self) -> Option<BellKind> {
        [BellKind::EventFd, BellKind::Socket]
            .into_iter()
            .find(|kind| self.contains(*kind) && other.contains(*kind))
    }
}

#[cfg(test)]
mod tests;
