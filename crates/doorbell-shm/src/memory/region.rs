//! A mapped region, from the side that writes it and from the side that reads it.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::copy::{
    copy_in, copy_in_past_caches, copy_out, load_shared, prefetch, prefetch_to_write, store_shared,
};
use super::words::{Position, observe, publish};
use super::{
    HEADER_BYTES, HeaderWords, Kick, Layout, OwnMemory, PeerMemory, RingWriter, assert_aligned,
    assert_inside,
};
use crate::sync::{AtomicU32, Ordering, fence_at, ordering};
use crate::sys::{Mapping, RegionHandle, Woken, futex_wait_any, futex_wake, page_bytes};

/// The region that we write, mapped for reading and writing. A clone names the same region.
///
/// Nothing in it is ever read back: a peer cannot change it, but we have no reason to look.
#[derive(Clone, Debug)]
pub struct OwnRegion {
    region: Mapped,
    writer_claimed: Arc<AtomicBool>,
}

impl OwnRegion {
    pub(super) fn map(
        handle: &RegionHandle,
        pages: Option<&RegionHandle>,
        layout: Layout,
    ) -> io::Result<Self> {
        let mut mapping = Mapping::map_read_write(handle, layout.region_bytes())?;
        if let Some((pages, (offset, _))) = pages.zip(layout.idle_pages(page_bytes())) {
            mapping.replace(offset, pages, true)?;
        }
        let region = Mapped::new(mapping, layout);
        let magic = region.base.cast::<u64>();
        // SAFETY: the mapping is writable, page-aligned, and longer than eight bytes, and nobody else
        // in this process knows of it yet. Volatile, as every write to shared memory.
        unsafe { magic.write_volatile(MAGIC.to_le()) };
        Ok(Self {
            region,
            writer_claimed: Arc::default(),
        })
    }

    /// Shows the peer that the call `generation` of `slot` is cancelled, before it reads the frame.
    ///
    /// # Panics
    ///
    /// If the region has no such slot: slots are handed out by ourselves.
    pub fn set_cancel(&self, slot: u32, generation: u32) {
        let offset = self
            .region
            .layout
            .cancel_offset(slot)
            .expect("a slot below the agreed number");
        self.region
            .word(offset)
            .store(generation, ordering("cancel-release", Ordering::Release)); // edge `given up`
    }

    /// Wakes a peer that sleeps in [`PeerRegion::wait`], once [`Notifier`](crate::wake::Notifier) has said that it is due. Costs a
    /// system call.
    ///
    /// # Errors
    ///
    /// What the operating system says; does not happen on a mapped region.
    pub fn wake(&self) -> io::Result<()> {
        // One: a connection has one sleeper at most, and a hostile peer could queue up many.
        crate::failpoint!("futex.wake.before");
        let woken = futex_wake(self.region.word(Layout::NOTIFIED), 1);
        crate::failpoint!("futex.wake.after");
        woken.map(drop)
    }
}

impl OwnMemory for OwnRegion {
    type Writer = RegionWriter;

    #[inline]
    fn ring_capacity_bytes(&self) -> u32 {
        self.region.layout.ring_capacity_bytes()
    }

    #[inline]
    fn store_tail(&self, tail: u32) {
        publish(Position::Tail, self.region.word(Layout::TAIL), tail);
    }

    #[inline]
    fn store_head(&self, head: u32) {
        publish(Position::Head, self.region.word(Layout::HEAD), head);
    }

    #[inline]
    fn store_sleep(&self, word: u32) {
        self.region
            .word(Layout::SLEEP)
            .store(word, Ordering::Relaxed);
    }

    #[inline]
    fn store_notified(&self, number: u32) {
        self.region
            .word(Layout::NOTIFIED)
            .store(number, Ordering::Relaxed);
    }

    fn claim_writer(&self) -> RegionWriter {
        let claimed = self.writer_claimed.swap(true, Ordering::Relaxed);
        assert!(!claimed, "a region has one writer");
        RegionWriter {
            region: self.region.clone(),
        }
    }
}

/// The right to write the ring data of an [`OwnRegion`].
#[derive(Debug)]
pub struct RegionWriter {
    region: Mapped,
}

impl RegionWriter {
    /// Returns the address of byte `place` of the ring, of which `length` from there on lie in it.
    #[inline]
    fn destination(&self, place: u32, length: usize) -> *mut u8 {
        assert_inside(self.region.layout.ring_capacity_bytes(), place, length);
        self.region.ring(place)
    }
}

impl RingWriter for RegionWriter {
    #[inline]
    fn write(&mut self, place: u32, bytes: &[u8]) {
        let to = self.destination(place, bytes.len());
        // SAFETY: source: a slice, which nobody writes while we hold it. Destination: `destination` has
        // shown that the bytes lie in the ring, and so does the word that holds the last one, since
        // the capacity is a multiple of 8; it is mapped writable as long as `self.region` lives; no
        // other thread writes it because there is one `RegionWriter` for a mapping (`claim_writer`) and
        // it is borrowed mutably. A slice of private memory cannot overlap the mapping, to which no
        // slice is ever formed. Rule "no reference to bytes that a peer can see", and "payload is
        // copied by the copy helper".
        unsafe { copy_in(bytes.as_ptr(), to, bytes.len()) };
    }

    fn write_past_caches(&mut self, place: u32, bytes: &[u8]) {
        let to = self.destination(place, bytes.len());
        // SAFETY: as in `write`.
        unsafe { copy_in_past_caches(bytes.as_ptr(), to, bytes.len()) };
    }

    #[inline]
    fn prefetch(&self, place: u32) {
        prefetch_to_write(self.region.ring(place));
    }

    fn give_back(&mut self) {
        if let Some((from, to)) = self.region.layout.idle_pages(page_bytes()) {
            // Memory that is sealed stays, and so does what the system does not take: it is used again.
            let _ = self.region.mapping.give_back(from, to);
        }
    }

    #[inline]
    fn write_header(&mut self, place: u32, header: HeaderWords) {
        assert_inside(
            self.region.layout.ring_capacity_bytes(),
            place,
            HEADER_BYTES,
        );
        assert_aligned(place);
        let to = self.region.ring(place);
        for (offset, word) in [0, 8, 16].into_iter().zip(header) {
            // SAFETY: inside the ring and a multiple of 8, as asserted, from a base that is page-aligned; mapped
            // writable as long as `self.region` lives; written by no other thread, as for `write`.
            unsafe { store_shared(to.wrapping_add(offset), word) };
        }
    }
}

/// The region that the peer writes, mapped for reading only. A clone names the same region.
#[derive(Clone, Debug)]
pub struct PeerRegion {
    region: Mapped,
}

impl PeerRegion {
    pub(super) fn map(
        handle: &RegionHandle,
        pages: Option<&RegionHandle>,
        layout: Layout,
    ) -> io::Result<Self> {
        let mut mapping = Mapping::map_read_only(handle, layout.region_bytes())?;
        if let Some((pages, (offset, _))) = pages.zip(layout.idle_pages(page_bytes())) {
            mapping.replace(offset, pages, false)?;
        }
        Ok(Self {
            region: Mapped::new(mapping, layout),
        })
    }

    /// Returns the generation of the latest cancelled call of `slot`, or 0 if there is no such slot.
    ///
    /// A hint: the peer can have written anything, and the cancel frame decides. If it is the generation of another call, what was known of earlier
    /// ones when the peer began it is visible.
    #[inline]
    pub fn cancel_generation(&self, slot: u32) -> u32 {
        let offset = self.region.layout.cancel_offset(slot);
        let generation =
            offset.map_or(0, |offset| self.region.word(offset).load(Ordering::Relaxed));
        fence_at("cancel-acquire", Ordering::Acquire); // edge `given up`
        generation
    }

    /// Sleeps on a futex until the peer has notified the sleep with this number; or until `kick` is raised; or until the deadline.
    ///
    /// Returns at once if one of that has happened already. The sleep must have been
    /// [announced](crate::wake::Announcer::announce), which gives it its number, and the positions loaded once more since (see
    /// [`crate::wake`]). [`Woken::Notified`] promises nothing: look again.
    ///
    /// # Errors
    ///
    /// What the operating system says: it cannot sleep on several words.
    pub fn wait(&self, sleep: u32, kick: &Kick, deadline: Option<Instant>) -> io::Result<Woken> {
        let word = self.region.word(Layout::NOTIFIED);
        let before = word.load(Ordering::Relaxed);
        if before == sleep {
            return Ok(Woken::Notified);
        }
        crate::failpoint!("futex.wait.before");
        let woken = futex_wait_any(&[(kick.word(), Kick::LOWERED), (word, before)], deadline);
        crate::failpoint!("futex.wait.after");
        woken
    }

    /// Returns the first eight bytes, which say what kind of region this is.
    pub(super) fn magic(&self) -> u64 {
        let magic = self.region.base.cast::<u64>();
        // SAFETY: mapped, page-aligned, longer than eight bytes. The peer may write it meanwhile:
        // volatile, read once, any value is fine.
        u64::from_le(unsafe { magic.read_volatile() })
    }
}

impl PeerMemory for PeerRegion {
    #[inline]
    fn ring_capacity_bytes(&self) -> u32 {
        self.region.layout.ring_capacity_bytes()
    }

    #[inline]
    fn load_tail(&self) -> u32 {
        observe(Position::Tail, self.region.word(Layout::TAIL))
    }

    #[inline]
    fn load_head(&self) -> u32 {
        observe(Position::Head, self.region.word(Layout::HEAD))
    }

    #[inline]
    fn load_sleep(&self) -> u32 {
        self.region.word(Layout::SLEEP).load(Ordering::Relaxed)
    }

    #[inline]
    fn prefetch(&self, place: u32, length: u32) {
        let to_end = self.region.layout.ring_capacity_bytes() - place;
        prefetch(self.region.ring(place), length.min(to_end) as usize);
    }

    #[inline]
    fn read_header(&self, place: u32) -> HeaderWords {
        assert_inside(
            self.region.layout.ring_capacity_bytes(),
            place,
            HEADER_BYTES,
        );
        assert_aligned(place);
        let from = self.region.ring(place);
        [0, 8, 16].map(|offset| {
            // SAFETY: inside the ring and a multiple of 8, as asserted, from a base that is page-aligned;
            // mapped as long as `self.region` lives. The peer may write it meanwhile; it is read volatile,
            // once, and no reference is formed.
            unsafe { load_shared(from.wrapping_add(offset)) }
        })
    }

    #[inline]
    fn append_to(&self, out: &mut Vec<u8>, place: u32, length: u32) {
        let length = length as usize;
        assert_inside(self.region.layout.ring_capacity_bytes(), place, length);
        assert_aligned(place);
        out.reserve(length);
        let to = out.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        let from = self.region.ring(place);
        // SAFETY: source: inside the ring and a multiple of 8, as asserted, and mapped; rounded up it still lies in the ring, whose capacity is
        // a multiple of 8. Destination: `reserve` has made room for `length` bytes, which are ours.
        unsafe { copy_out(from, to, length) };
        let filled = out.len() + length;
        // SAFETY: `reserve` made the capacity at least `filled`, and `copy_out` has just initialised
        // the bytes between the old length and `filled`.
        unsafe { out.set_len(filled) };
    }
}

/// A mapping with its geometry: turns offsets into addresses.
#[derive(Clone, Debug)]
struct Mapped {
    base: NonNull<u8>,
    layout: Layout,
    mapping: Arc<Mapping>,
}

// SAFETY: `base` points into `mapping`, which may be used from any thread. Control words are accessed
// as atomics only; ring data is written by the one `RegionWriter` or read as memory that changes anyway.
unsafe impl Send for Mapped {}

// SAFETY: as for `Send`: nothing reachable through `&Mapped` is written other than atomically.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(mapping: Mapping, layout: Layout) -> Self {
        assert_eq!(
            mapping.len(),
            layout.region_bytes(),
            "a mapping has the size of its layout"
        );
        Self {
            base: mapping.as_ptr(),
            layout,
            mapping: Arc::new(mapping),
        }
    }

    /// Returns the control or cancel word at `offset`, one of those that `Layout` names.
    #[inline]
    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4) && offset + 4 <= self.mapping.len());
        // SAFETY: every offset that `Layout` gives lies inside `region_bytes`, which `new` has compared
        // with the mapping.
        let word = unsafe { self.base.add(offset) };
        // SAFETY: aligned, since the base is page-aligned and word offsets are multiples of 4; mapped as
        // long as `self` lives, which the reference does not outlive; always initialised memory; and
        // accessed as an atomic of this size by everybody, for ever. Of a read-only mapping only loads
        // and futex calls are made. Rule "`&AtomicU32` to control words only inside this module".
        unsafe { AtomicU32::from_ptr(word.cast().as_ptr()) }
    }

    /// Returns the address of byte `place` of the ring, which the caller has compared with its capacity.
    #[inline]
    fn ring(&self, place: u32) -> *mut u8 {
        self.base
            .as_ptr()
            .wrapping_add(Layout::RING + place as usize)
    }
}

/// `DRBLRGN1`, the first bytes of a region.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"DRBLRGN1");
