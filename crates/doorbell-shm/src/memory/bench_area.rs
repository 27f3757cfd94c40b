//! A measuring aid: bare words and bytes in shared memory.
//!
//! Benchmarks compare Doorbell with the least that the machine can do, such as two processes that bounce one word, sleep on
//! it, or copy a message beside it. Regions give their words a meaning and a single writer each; here nothing means anything
//! and both sides may write.

use std::io;
use std::time::Instant;

use super::copy;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::{
    Mapping, PeerAccess, RegionError, RegionHandle, Woken, check_region, create_region, futex_wait,
    futex_wake, seal_size,
};

/// Shared memory that both sides write, in lanes: each is one word and, on the cache lines that follow, bytes.
///
/// No part of the protocol uses it.
#[doc(hidden)]
#[derive(Debug)]
pub struct BenchArea {
    mapping: Mapping,
    shape: BenchShape,
}

/// How many lanes an area has, and how long they are.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchShape {
    /// Number of lanes.
    pub lanes: usize,
    /// Bytes of each, besides its word.
    pub lane_bytes: usize,
}

impl BenchArea {
    /// Makes an area of zeros, and the handle by which another process can [`adopt`](Self::adopt) it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn create(shape: BenchShape) -> io::Result<(Self, RegionHandle)> {
        let handle = create_region(shape.region_bytes())?;
        seal_size(&handle)?;
        Ok((
            Self {
                mapping: Mapping::map_read_write(&handle, shape.region_bytes())?,
                shape,
            },
            handle,
        ))
    }

    /// Takes over the area that another process has made in this shape.
    ///
    /// # Errors
    ///
    /// [`RegionError`] if the handle is not that of such an area.
    pub fn adopt(handle: &RegionHandle, shape: BenchShape) -> Result<Self, RegionError> {
        check_region(handle, shape.region_bytes(), PeerAccess::WriterIsUs)?;
        Ok(Self {
            mapping: Mapping::map_read_write(handle, shape.region_bytes())?,
            shape,
        })
    }

    /// Returns the word of `lane`, and sees everything that was done before it was stored.
    ///
    /// # Panics
    ///
    /// If there is no such lane.
    #[inline]
    pub fn load(&self, lane: usize) -> u32 {
        self.word(lane).load(Ordering::Acquire)
    }

    /// Stores the word of `lane`.
    ///
    /// # Panics
    ///
    /// If there is no such lane.
    #[inline]
    pub fn store(&self, lane: usize, value: u32) {
        self.word(lane).store(value, Ordering::Release);
    }

    /// Sleeps while the word of `lane` holds `expected`, until [`wake`](Self::wake) or the deadline.
    ///
    /// # Errors
    ///
    /// What the operating system says; does not happen on a mapped area.
    ///
    /// # Panics
    ///
    /// If there is no such lane.
    pub fn wait(&self, lane: usize, expected: u32, deadline: Option<Instant>) -> io::Result<Woken> {
        futex_wait(self.word(lane), expected, deadline)
    }

    /// Wakes one sleeper of the word of `lane`.
    ///
    /// # Errors
    ///
    /// What the operating system says; does not happen on a mapped area.
    ///
    /// # Panics
    ///
    /// If there is no such lane.
    pub fn wake(&self, lane: usize) -> io::Result<()> {
        futex_wake(self.word(lane), 1).map(drop)
    }

    /// Copies `bytes` to `place` of the bytes of `lane`, and zeroes the rest of the last 8-byte word.
    ///
    /// # Panics
    ///
    /// If they do not fit there.
    #[inline]
    pub fn copy_in(&mut self, lane: usize, place: usize, bytes: &[u8]) {
        let to = self.bytes(lane, place, bytes.len());
        // SAFETY: source: a slice, which nobody writes while we hold it. Destination: `bytes` has shown that it lies in the
        // lane, up to a whole word; the mapping is writable and lives as long as `self`, which is borrowed mutably, so that
        // no other thread with this mapping is here. Private memory and a mapping do not overlap.
        unsafe { copy::copy_in(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Appends a private copy of `length` bytes at `place` of the bytes of `lane` to `out`.
    ///
    /// # Panics
    ///
    /// If there are not so many, or `place` is not a multiple of 8.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>, lane: usize, place: usize, length: usize) {
        assert!(
            place.is_multiple_of(8),
            "place {place} is not a multiple of 8"
        );
        let from = self.bytes(lane, place, length);
        out.reserve(length);
        let to = out.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: source: `bytes` has shown that it lies in the lane, up to a whole word, and it is a multiple of 8, since
        // `place` and the starts of lanes are. Others may write it meanwhile; `copy_out` reads it volatile and forms no
        // reference. Destination: `reserve` has made room for `length` bytes, which are ours.
        unsafe { copy::copy_out(from, to, length) };
        let filled = out.len() + length;
        // SAFETY: `reserve` made the capacity at least `filled`, and `copy_out` has just initialised what is new.
        unsafe { out.set_len(filled) };
    }

    #[inline]
    fn word(&self, lane: usize) -> &AtomicU32 {
        let start = self.lane_start(lane);
        // SAFETY: aligned, since the start of a mapping is page-aligned and a lane's offset a multiple of a cache line; mapped
        // writable as long as `self` lives, which the reference does not outlive; initialised, since the memory began as
        // zeros; and accessed as an atomic of this size by everybody, for ever, because a lane's bytes begin behind it. Rule
        // "`&AtomicU32` to control words only inside this module".
        unsafe { AtomicU32::from_ptr(start.cast()) }
    }

    /// Returns the address of `place` in the bytes of `lane`, of which `length`, rounded up to whole words, are there.
    #[inline]
    fn bytes(&self, lane: usize, place: usize, length: usize) -> *mut u8 {
        let most = self.shape.lane_bytes;
        assert!(
            place <= most && length <= most - place,
            "{length} bytes at {place} are outside a lane of {most}"
        );
        self.lane_start(lane).wrapping_add(LINE_BYTES + place)
    }

    #[inline]
    fn lane_start(&self, lane: usize) -> *mut u8 {
        assert!(
            lane < self.shape.lanes,
            "an area of {} lanes has no lane {lane}",
            self.shape.lanes
        );
        self.mapping
            .as_ptr()
            .as_ptr()
            .wrapping_add(lane * self.shape.stride())
    }
}

impl BenchShape {
    fn region_bytes(self) -> usize {
        (self.lanes * self.stride()).next_multiple_of(4096)
    }

    /// Returns the distance of two lanes: two lines apart at least, because CPUs fetch lines in pairs.
    #[inline]
    fn stride(self) -> usize {
        (LINE_BYTES + self.lane_bytes).next_multiple_of(2 * LINE_BYTES) + 2 * LINE_BYTES
    }
}

const LINE_BYTES: usize = 64;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SHAPE: BenchShape = BenchShape {
        lanes: 2,
        lane_bytes: 100,
    };

    #[test]
    fn both_sides_see_the_same_words_and_bytes() {
        let (mut one, handle) = BenchArea::create(SHAPE).unwrap();
        let other = BenchArea::adopt(&handle, SHAPE).unwrap();
        one.copy_in(1, 8, b"message");
        one.store(1, 7);
        assert_eq!((other.load(1), other.load(0)), (7, 0));
        assert_eq!(other.wait(1, 6, None).unwrap(), Woken::Notified);
        let mut copy = Vec::new();
        other.append_to(&mut copy, 1, 8, 8);
        assert_eq!(copy, b"message\0");
    }

    #[test]
    #[should_panic = "outside a lane"]
    fn bytes_beyond_the_lane_are_refused() {
        let (mut area, _) = BenchArea::create(SHAPE).unwrap();
        area.copy_in(0, 96, &[0; 5]);
    }
}
