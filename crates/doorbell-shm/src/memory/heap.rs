//! A region on the heap of one process, for loom, proptest, Miri and fuzzing.
//!
//! It runs the orderings of the real control words. Under loom the ring data is made of cells that
//! report two unordered accesses; otherwise of relaxed atomic words, so that even a test which breaks
//! the protocol on purpose has no undefined behaviour. There is no `unsafe` here but what loom's cell asks for.

use std::sync::Arc;

use super::words::{Position, observe, publish};
use super::{
    HEADER_BYTES, HeaderWords, OwnMemory, PeerMemory, RingWriter, assert_aligned, assert_inside,
};
use crate::sync::{AtomicU32, Ordering};

/// A region on the heap. One side uses it as its own, the other as its peer's.
#[derive(Clone, Debug)]
pub struct HeapRegion {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tail: AtomicU32,
    head: AtomicU32,
    sleep: AtomicU32,
    notified: AtomicU32,
    data: Box<[Cell]>,
    claimed: std::sync::atomic::AtomicBool,
}

/// The right to write the ring data of a [`HeapRegion`].
#[derive(Debug)]
pub struct HeapWriter {
    shared: Arc<Shared>,
}

impl HeapRegion {
    /// Returns a zeroed region with a ring of `ring_capacity_bytes`, a power of two from 128 on.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn new(ring_capacity_bytes: u32) -> Self {
        assert!(ring_capacity_bytes.is_power_of_two() && ring_capacity_bytes >= 128);
        let data = (0..ring_capacity_bytes / 8).map(|_| Cell::new()).collect();
        let shared = Shared {
            tail: AtomicU32::new(0),
            head: AtomicU32::new(0),
            sleep: AtomicU32::new(0),
            notified: AtomicU32::new(0),
            data,
            claimed: std::sync::atomic::AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

#[cfg(loom)]
impl HeapRegion {
    /// Returns which of our sleeps the peer has ended: what the kernel compares for a waiter.
    pub(crate) fn load_notified(&self) -> u32 {
        self.shared.notified.load(Ordering::Relaxed)
    }
}

impl Shared {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "made from a u32 in `HeapRegion::new`"
    )]
    fn capacity(&self) -> u32 {
        (self.data.len() * 8) as u32
    }

    fn word(&self, place: u32) -> [u8; 8] {
        self.data[place as usize / 8].load().to_le_bytes()
    }
}

impl OwnMemory for HeapRegion {
    type Writer = HeapWriter;

    fn ring_capacity_bytes(&self) -> u32 {
        self.shared.capacity()
    }

    fn store_tail(&self, tail: u32) {
        publish(Position::Tail, &self.shared.tail, tail);
    }

    fn store_head(&self, head: u32) {
        publish(Position::Head, &self.shared.head, head);
    }

    fn store_sleep(&self, word: u32) {
        self.shared.sleep.store(word, Ordering::Relaxed);
    }

    fn store_notified(&self, number: u32) {
        self.shared.notified.store(number, Ordering::Relaxed);
    }

    fn claim_writer(&self) -> HeapWriter {
        let claimed = self
            .shared
            .claimed
            .swap(true, std::sync::atomic::Ordering::Relaxed);
        assert!(!claimed, "a region has one writer");
        HeapWriter {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl RingWriter for HeapWriter {
    fn give_back(&mut self) {
        self.shared.data.iter().for_each(|cell| cell.store(0));
    }

    fn write(&mut self, place: u32, bytes: &[u8]) {
        assert_inside(self.shared.capacity(), place, bytes.len());
        let first = place as usize;
        let mut done = 0;
        while done < bytes.len() {
            let (index, offset) = ((first + done) / 8, (first + done) % 8);
            let part = (8 - offset).min(bytes.len() - done);
            let cell = &self.shared.data[index];
            // Like the copy helper: a word that is begun is ours to its end, and the end is zeroed.
            let mut word = if offset == 0 {
                [0; 8]
            } else {
                cell.load().to_le_bytes()
            };
            word[offset..offset + part].copy_from_slice(&bytes[done..done + part]);
            cell.store(u64::from_le_bytes(word));
            done += part;
        }
    }
}

impl PeerMemory for HeapRegion {
    fn ring_capacity_bytes(&self) -> u32 {
        self.shared.capacity()
    }

    fn load_tail(&self) -> u32 {
        observe(Position::Tail, &self.shared.tail)
    }

    fn load_head(&self) -> u32 {
        observe(Position::Head, &self.shared.head)
    }

    fn load_sleep(&self) -> u32 {
        self.shared.sleep.load(Ordering::Relaxed)
    }

    fn read_header(&self, place: u32) -> HeaderWords {
        assert_inside(self.shared.capacity(), place, HEADER_BYTES);
        assert_aligned(place);
        let word = |offset| u64::from_le_bytes(self.shared.word(place + offset));
        [word(0), word(8), word(16)]
    }

    fn append_to(&self, out: &mut Vec<u8>, place: u32, length: u32) {
        assert_inside(self.shared.capacity(), place, length as usize);
        assert_aligned(place);
        let end = out.len() + length as usize;
        for offset in (0..length).step_by(8) {
            out.extend_from_slice(&self.shared.word(place + offset));
        }
        out.truncate(end);
    }
}

/// One word of ring data.
#[cfg(not(loom))]
#[derive(Debug)]
struct Cell(std::sync::atomic::AtomicU64);

#[cfg(not(loom))]
impl Cell {
    fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(0))
    }

    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn store(&self, word: u64) {
        self.0.store(word, Ordering::Relaxed);
    }
}

/// One word of ring data; two accesses that no edge orders fail the model.
#[cfg(loom)]
#[derive(Debug)]
struct Cell(loom::cell::UnsafeCell<u64>);

// SAFETY: under loom only, where the cell itself reports every unordered pair of accesses.
#[cfg(loom)]
unsafe impl Sync for Cell {}

#[cfg(loom)]
impl Cell {
    fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(0))
    }

    fn load(&self) -> u64 {
        // SAFETY: loom has checked that no unordered write exists before it calls the closure.
        self.0.with(|word| unsafe { *word })
    }

    fn store(&self, word: u64) {
        // SAFETY: loom has checked that no unordered access exists before it calls the closure.
        self.0.with_mut(|place| unsafe { *place = word });
    }
}
