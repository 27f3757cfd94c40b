//! Byte rings in shared memory: one producer process, one consumer process.
//!
//! This module moves records and publishes positions. It does not know what a record means, except that
//! its header starts with its length and that kind 0 is padding; it never sleeps or wakes, see
//! [`crate::wake`]. It contains no `unsafe`: shared bytes are touched through [`crate::memory`].
//!
//! Positions are free-running counts of bytes, modulo 2^32, and multiples of 8. A record is never split:
//! where it does not fit before the end of the ring, a padding record or a gap of fewer than 24 bytes
//! goes first. The bytes are specified in `docs/memory-map.md`.
//!
//! # Trust
//!
//! The peer may store any value in any byte at any moment. Each position of the peer is loaded once,
//! checked against the last one and against what is possible, and kept as a private copy; the next load
//! happens only when that copy is used up. A header is copied out once and its length checked against
//! the published distance, a quarter of the ring and the end of the ring before a body is copied. Our
//! own positions are private and never read back. A peer that breaks the rules costs us the connection
//! ([`Corrupt`], for good), never memory safety, and never a loop: one call loads a position at most
//! once.
//!
//! # Ordering edges
//!
//! | edge       | release                                  | acquire                                           |
//! |------------|------------------------------------------|---------------------------------------------------|
//! | `filled`   | [`Producer::publish`] stores our `tail`  | [`Consumer::peek`] loads the peer's `tail`        |
//! | `consumed` | [`Consumer::release`] stores our `head`  | [`Producer::reserve`] loads the peer's `head`     |
//!
//! `filled` makes the bytes of a record visible before the record; `consumed` orders the copying of a
//! record before the writing of the next one in its place.

mod consumer;
mod corrupt;
mod producer;
mod reach;

pub use consumer::Consumer;
pub use corrupt::{Corrupt, PositionWord};
pub use producer::{Producer, Reservation};

use self::reach::Reach;
use crate::memory::HEADER_BYTES;

/// Bytes of a header, as the positions count them.
const HEADER: u32 = HEADER_BYTES as u32;

/// Returns the bytes that a record with a body of `body_bytes` occupies.
///
/// `body_bytes` is at most a quarter of the ring.
#[inline]
const fn record_bytes(body_bytes: u32) -> u32 {
    (HEADER + body_bytes).next_multiple_of(8)
}

/// Returns the largest body of a record: record and header occupy at most a quarter of the ring.
#[inline]
const fn max_body_bytes(capacity: u32) -> u32 {
    capacity / 4 - HEADER
}

#[cfg(all(test, not(loom)))]
mod tests;
