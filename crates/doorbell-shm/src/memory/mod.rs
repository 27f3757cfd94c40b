//! Shared bytes: where they are, who may touch them, and how they are copied.
//!
//! This module owns the mappings of a connection's two regions and is the only place that reads or
//! writes shared bytes. It knows offsets ([`Layout`]) and gives positions and the sleep word a name,
//! but not a meaning: records are the business of [`crate::ring`], sleeping that of [`crate::wake`].
//! The bytes are specified in `docs/memory-map.md`.
//!
//! Payloads that are lent lie apart, in segments of which either side may have some ([`OwnSegment`], [`PeerSegment`]).
//!
//! The ring and the waking are written against three small traits, so that the same code runs on real
//! regions ([`OwnRegion`], [`PeerRegion`]) and on the heap ([`HeapRegion`]) under loom and proptest.
//!
//! # Trust
//!
//! The peer may store any value in any byte of *its* region at any moment, and cannot store anything
//! in ours. Therefore: the geometry is agreed on beforehand and kept privately, nothing in a region is
//! believed about its size; no reference to a byte that a peer can write exists, except to a control
//! word as an atomic; payload leaves a region only as a private copy. An offset outside the region is
//! our own mistake and panics; the ring never produces one whatever the peer stores.
//!
//! # Ordering edges
//!
//! | edge       | release                                      | acquire                                      |
//! |------------|----------------------------------------------|----------------------------------------------|
//! | `filled`   | [`OwnMemory::store_tail`]                    | [`PeerMemory::load_tail`]                    |
//! | `consumed` | [`OwnMemory::store_head`]                    | [`PeerMemory::load_head`]                    |
//! | `kicked`   | [`Kick::raise`]                              | [`Kick::lower`]                              |
//!
//! A peer's word is loaded `Relaxed` and followed by an acquire fence, because an acquire *load* of
//! memory that is mapped read-only is not promised to work on every machine. The sleep word carries
//! no data and is `Relaxed` on both sides; the fences around it live in [`crate::wake`].

#[cfg(not(loom))]
mod bench_area;
#[cfg_attr(loom, allow(dead_code))] // segments are mapped
mod blocks;
#[cfg(not(loom))]
mod connection;
#[cfg(not(loom))]
mod copy;
mod crc;
mod heap;
mod kick;
#[cfg_attr(loom, allow(dead_code))] // only mapped regions have offsets
mod layout;
#[cfg(not(loom))]
mod region;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod shared_bytes;
mod words;

#[cfg(not(loom))]
pub use bench_area::{BenchArea, BenchShape};
#[cfg(all(test, loom))]
pub(crate) use blocks::Blocks;
#[cfg(not(loom))]
pub use connection::{AdoptError, ServerMemory, adopt, adopt_in_two, create, create_in_two};
pub use crc::{crc32c, crc32c_header, crc32c_record};
#[cfg(loom)]
pub use heap::{HeapRegion as OwnRegion, HeapRegion as PeerRegion};
pub use heap::{HeapRegion, HeapWriter};
pub use kick::Kick;
pub use layout::{Layout, LayoutError};
#[cfg(not(loom))]
pub use region::{OwnRegion, PeerRegion, RegionWriter};
#[cfg(not(loom))]
pub use segment::{
    Claim, DroppedBlock, OwnBlock, OwnSegment, PeerBlock, PeerSegment, adopt_own_segment,
    adopt_peer_segment, create_own_segment, create_peer_segment,
};
#[cfg(not(loom))]
pub use shared_bytes::{Buffer, SharedBytes};

/// Bytes of a record's header, as in `docs/wire-format.md`.
pub const HEADER_BYTES: usize = 24;

/// A header as little-endian words.
pub type HeaderWords = [u64; HEADER_BYTES / 8];

/// A region that we write: control words and the right to write its ring.
///
/// Nothing is ever read back from it.
pub trait OwnMemory {
    /// The right to write ring data, which exists once.
    type Writer: RingWriter + std::fmt::Debug;

    /// Returns the size of the ring in this region, a power of two.
    fn ring_capacity_bytes(&self) -> u32;

    /// Publishes how much we have ever written (edge `filled`).
    fn store_tail(&self, tail: u32);

    /// Publishes how much we have ever consumed of the peer's ring (edge `consumed`).
    fn store_head(&self, head: u32);

    /// Stores our sleep word, `Relaxed`.
    fn store_sleep(&self, word: u32);

    /// Stores the number of the peer's sleep that we are about to end, `Relaxed`.
    fn store_notified(&self, number: u32);

    /// Returns the right to write ring data.
    ///
    /// # Panics
    ///
    /// On the second call for one region: two writers would race.
    fn claim_writer(&self) -> Self::Writer;
}

/// The sole right to write the ring data of one region.
pub trait RingWriter {
    /// Writes `bytes` at byte `place` of the ring and zeroes the rest of the last 8-byte word.
    ///
    /// # Panics
    ///
    /// If that is not inside the ring.
    fn write(&mut self, place: u32, bytes: &[u8]);

    /// As [`write`](Self::write), past our caches if that can be: for much that another processor reads soon.
    ///
    /// # Panics
    ///
    /// If that is not inside the ring.
    fn write_past_caches(&mut self, place: u32, bytes: &[u8]) {
        self.write(place, bytes);
    }

    /// Begins to fetch a few cache lines from byte `place` of the ring on, to write them.
    fn prefetch(&self, place: u32) {
        let _ = place;
    }

    /// Gives the memory of the ring back to the system, except its beginning, if it can be. Nothing in it may be unread. What is read there
    /// before it is written again is zero.
    fn give_back(&mut self) {}

    /// Writes a header at byte `place` of the ring, a multiple of 8.
    ///
    /// # Panics
    ///
    /// If that is not inside the ring.
    fn write_header(&mut self, place: u32, header: HeaderWords) {
        for (index, word) in (0..).zip(header) {
            self.write(place + 8 * index, &word.to_le_bytes());
        }
    }
}

/// A region that the peer writes: anything in it may be a lie and may change at any moment.
pub trait PeerMemory {
    /// Returns the size of the ring in this region, a power of two, as agreed on beforehand.
    fn ring_capacity_bytes(&self) -> u32;

    /// Returns what the peer says it has ever published (edge `filled`).
    fn load_tail(&self) -> u32;

    /// Returns what the peer says it has ever consumed of our ring (edge `consumed`).
    fn load_head(&self) -> u32;

    /// Returns the peer's sleep word, `Relaxed`.
    fn load_sleep(&self) -> u32;

    /// Begins to fetch the `length` bytes from byte `place` of the ring on, as far as that is worth it: a reader that
    /// announces what it will read waits for one transfer from the peer's cache instead of one after the other.
    fn prefetch(&self, place: u32, length: u32) {
        let _ = (place, length);
    }

    /// Returns a private copy of the header at byte `place` of the ring, a multiple of 8.
    ///
    /// As words, which stay in registers: bytes that are stored as words and loaded again as something
    /// wider cost more than everything else that is done with a header.
    ///
    /// # Panics
    ///
    /// If it is not inside the ring, or `place` is not a multiple of 8.
    fn read_header(&self, place: u32) -> HeaderWords;

    /// Appends a private copy of `length` bytes from byte `place` of the ring, a multiple of 8.
    ///
    /// # Panics
    ///
    /// If they are not inside the ring, or `place` is not a multiple of 8.
    fn append_to(&self, out: &mut Vec<u8>, place: u32, length: u32);
}

/// Asserts that `length` bytes from `place` on, rounded up to whole words, lie in the ring.
#[inline]
fn assert_inside(capacity: u32, place: u32, length: usize) {
    let inside = place <= capacity && length <= (capacity - place) as usize;
    assert!(
        inside,
        "{length} bytes at {place} are outside a ring of {capacity}"
    );
}

/// Asserts that a place to read from is the start of a word.
#[inline]
fn assert_aligned(place: u32) {
    assert!(
        place.is_multiple_of(8),
        "place {place} is not a multiple of 8"
    );
}
