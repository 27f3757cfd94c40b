//! Segments: memory for payloads that stay where they were written, apart from the rings.
//!
//! One side writes a segment, the other reads it; the server makes it in either case. The writer's [`OwnSegment`] hands out blocks
//! that do not overlap; which parts are free it knows by itself, in private memory, and has them without a lock: whoever has the segment is
//! the only one who takes, lends and takes back. A block may be dropped anywhere, and whoever has the segment is told. The reader's
//! [`PeerSegment`] has any part that lies inside. What the other side has been told of a block is the business of the protocol.
//!
//! # Trust
//!
//! A block that we have been [allocated](OwnSegment::allocate) and have not lent is ours alone to write: its bytes are handed out as
//! [`MaybeUninit`], and nothing here reads them back but by the copy helper. On a client that rests on the server, which has made the
//! memory and could have kept it writable; it then could change bytes that the client writes, and the client's program sees nothing of
//! that but through `unsafe` of its own. What the peer writes leaves by way of [`SharedBytes`](super::SharedBytes).

use std::any::Any;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::blocks::{ALIGNMENT, Blocks};
use super::copy::prefetch_to_write;
use crate::stall::Subject;
use crate::sys::{
    Mapping, PeerAccess, RegionError, RegionHandle, check_region, create_region, seal_size,
    seal_writable_by_us_only,
};

/// Makes a segment of `bytes` that we write and the peer reads, and returns it with the handle that is to be sent. Nobody can map it
/// writable any more.
///
/// # Errors
///
/// What the operating system says; there is no memory, or no descriptor.
///
/// # Panics
///
/// If `bytes` is 0, not a multiple of 4096, or more than 1 GiB.
pub fn create_own_segment(bytes: u32) -> io::Result<(OwnSegment, RegionHandle)> {
    let handle = create_region(checked(bytes))?;
    let segment = OwnSegment::map(&handle, bytes)?;
    seal_writable_by_us_only(&handle)?;
    Ok((segment, handle))
}

/// Makes a segment of `bytes` that the peer writes and we read, and returns it with the handle that is to be sent. `subject` is the peer for whom
/// a thread [may stall](crate::stall) that reads it.
///
/// # Errors
///
/// What the operating system says; there is no memory, or no descriptor.
///
/// # Panics
///
/// If `bytes` is 0, not a multiple of 4096, or more than 1 GiB.
pub fn create_peer_segment(
    bytes: u32,
    subject: Subject,
) -> io::Result<(Arc<PeerSegment>, RegionHandle)> {
    let handle = create_region(checked(bytes))?;
    seal_size(&handle)?;
    let segment = PeerSegment::map(&handle, bytes, subject)?;
    Ok((segment, handle))
}

/// Takes over a segment that the server has sent for us to write.
///
/// # Errors
///
/// [`RegionError`] if it is not what was announced; close the connection.
///
/// # Panics
///
/// If `bytes` is 0, not a multiple of 4096, or more than 1 GiB.
pub fn adopt_own_segment(handle: &RegionHandle, bytes: u32) -> Result<OwnSegment, RegionError> {
    check_region(handle, checked(bytes), PeerAccess::WriterIsUs)?;
    Ok(OwnSegment::map(handle, bytes)?)
}

/// Takes over a segment that the server has sent and writes itself.
///
/// # Errors
///
/// [`RegionError`] if it is not what was announced; close the connection.
///
/// # Panics
///
/// If `bytes` is 0, not a multiple of 4096, or more than 1 GiB.
pub fn adopt_peer_segment(
    handle: &RegionHandle,
    bytes: u32,
) -> Result<Arc<PeerSegment>, RegionError> {
    check_region(handle, checked(bytes), PeerAccess::WriterIsPeer)?;
    Ok(PeerSegment::map(handle, bytes, Subject::default())?)
}

fn checked(bytes: u32) -> usize {
    let fits = bytes != 0 && bytes.is_multiple_of(PAGE_BYTES) && bytes <= MAX_SEGMENT_BYTES;
    assert!(fits, "a segment cannot have {bytes} bytes");
    bytes as usize
}

/// A segment that we write.
#[derive(Debug)]
pub struct OwnSegment {
    blocks: Blocks,
    memory: Arc<BlockMemory>,
}

/// What a segment that we write shares with its blocks, which may outlive it.
struct BlockMemory {
    mapping: Mapping,
    on_drop: OnceLock<OnDrop>,
    /// Behind the mapping: fields go in their order.
    rent: Rent,
}

/// A segment that the peer writes, mapped for reading only.
#[derive(Debug)]
pub struct PeerSegment {
    mapping: Mapping,
    subject: Subject,
    /// Behind the mapping: fields go in their order.
    rent: Rent,
}

/// What is dropped when a segment has been unmapped: whoever pays for its memory pays until then.
type Rent = OnceLock<Box<dyn Any + Send + Sync>>;

/// Hears of blocks that were dropped unlent.
type OnDrop = Arc<dyn Fn(DroppedBlock) + Send + Sync>;

impl OwnSegment {
    fn map(handle: &RegionHandle, bytes: u32) -> io::Result<Self> {
        let mapping = Mapping::map_read_write(handle, bytes as usize)?;
        Ok(Self {
            blocks: Blocks::new(bytes),
            memory: Arc::new(BlockMemory {
                mapping,
                on_drop: OnceLock::new(),
                rent: Rent::new(),
            }),
        })
    }

    /// Keeps something until the segment has been unmapped: until nobody has a block of it any more, nor the segment itself. Once.
    pub fn keep(&self, rent: Box<dyn Any + Send + Sync>) {
        keep(&self.memory.rent, rent);
    }

    /// Has `hear` called whenever a block has been dropped that was not lent. It is to [free](Self::free) the block, of which nothing is free before, and
    /// which does not keep the memory any more. It is called by whoever drops the block, who must not hold a lock that it takes, and must not
    /// panic. Once, before the first block.
    pub fn on_drop(&self, hear: Arc<dyn Fn(DroppedBlock) + Send + Sync>) {
        let is_first = self.memory.on_drop.set(hear).is_ok();
        debug_assert!(is_first, "one is told of dropped blocks");
    }

    /// Frees a block that was dropped unlent. Returns `false` if it was one of another segment.
    pub fn free(&mut self, block: DroppedBlock) -> bool {
        let is_ours = std::ptr::eq(block.memory.as_ptr(), Arc::as_ptr(&self.memory));
        is_ours && self.blocks.give_unlent(block.offset)
    }

    /// Returns the size of the segment.
    pub fn size_bytes(&self) -> usize {
        self.memory.mapping.len()
    }

    /// Takes a block of `length` bytes, or returns `None` if no free part is large enough. Its bytes are what they were before.
    pub fn allocate(&mut self, length: usize) -> Option<OwnBlock> {
        let offset = self.blocks.take(u32::try_from(length).ok()?)?;
        Some(OwnBlock {
            offset,
            length,
            segment: Arc::as_ptr(&self.memory).addr(),
            unlent: Mutex::new(Unlent {
                memory: Some(Arc::clone(&self.memory)),
                is_claimed: false,
            }),
        })
    }

    /// Returns `true` if the block is one of this segment. Means nothing once the claim has been used to lend it.
    #[inline]
    pub fn has(&self, claim: &Claim<'_>) -> bool {
        // As long as it is claimed and not lent it keeps its memory: nothing else is at that address.
        Arc::as_ptr(&self.memory).addr() == claim.block.segment
    }

    /// Notes that the peer is about to be told of the block: from now on [`take_back`](Self::take_back) frees it, and not the drop, and what
    /// becomes of the segment is no business of the [`OwnBlock`] any more. Waits for another thread that has begun to copy from it since it
    /// was [claimed](OwnBlock::claim).
    ///
    /// # Panics
    ///
    /// If it was lent before by the same claim, or is not of this segment.
    pub fn lend(&mut self, claim: &Claim<'_>) {
        assert!(self.has(claim), "a block of another segment is lent");
        let memory = claim.block.lock().memory.take();
        assert!(memory.is_some(), "a block is lent twice");
        claim.is_spent.store(true, Ordering::Relaxed);
        self.blocks.lend(claim.block.offset);
    }

    /// Frees a block that [was lent](Self::lend). Returns `false` if none that begins at `offset` is.
    pub fn take_back(&mut self, offset: u32) -> bool {
        let was_lent = self.blocks.give_lent(offset);
        if was_lent {
            // It may well be the next that is handed out, and written at once, while the peer's processor still has what it has read.
            prefetch_to_write(self.memory.address(offset));
        }
        was_lent
    }

    /// Returns `true` while a block is allocated or lent.
    pub fn is_used(&self) -> bool {
        self.blocks.is_used()
    }

    /// Returns `true` once a block has been allocated.
    pub fn was_used(&self) -> bool {
        self.blocks.was_used()
    }
}

impl BlockMemory {
    fn address(&self, offset: u32) -> *mut u8 {
        self.mapping.as_ptr().as_ptr().wrapping_add(offset as usize)
    }
}

impl fmt::Debug for BlockMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockMemory")
            .field("mapping", &self.mapping)
            .finish_non_exhaustive()
    }
}

/// A block of a segment that we write. Until it is lent nobody else looks at it, and whoever has the segment
/// [hears](OwnSegment::on_drop) if it is dropped.
#[derive(Debug)]
pub struct OwnBlock {
    offset: u32,
    length: usize,
    /// Address of the memory, to be compared with those of segments.
    segment: usize,
    /// Locked by a thread that reads the block, and by who claims or lends it.
    unlent: Mutex<Unlent>,
}

/// What a block has until it is lent.
#[derive(Debug)]
struct Unlent {
    /// Nothing once it is lent: whoever has it need not know what the peer does with it, nor keep the segment mapped.
    memory: Option<Arc<BlockMemory>>,
    /// There is a [`Claim`].
    is_claimed: bool,
}

/// What is left of a block that was dropped unlent: the right to have its part [freed](OwnSegment::free). There is one for each block, and it does not
/// keep the segment mapped.
#[derive(Debug)]
pub struct DroppedBlock {
    offset: u32,
    /// Nothing else is at its address as long as this lives.
    memory: Weak<BlockMemory>,
}

impl DroppedBlock {
    /// Returns the byte of the segment at which the block began.
    #[inline]
    pub fn offset(&self) -> u32 {
        self.offset
    }
}

/// The right to lend a block, which one at a time has.
#[derive(Debug)]
pub struct Claim<'a> {
    block: &'a OwnBlock,
    /// The block is lent. Nobody else looks at it.
    is_spent: AtomicBool,
}

/// What keeps a block from being lent.
pub(super) struct Reading<'a>(
    #[expect(dead_code, reason = "held, not read")] MutexGuard<'a, Unlent>,
);

impl OwnBlock {
    /// Returns the byte of the segment at which the block begins, a multiple of 64.
    #[inline]
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Returns the size of the block as it was asked for.
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns `true` if the block has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the bytes, to be written.
    ///
    /// # Panics
    ///
    /// If the block is lent: the peer reads it.
    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let offset = self.offset;
        let memory = self.unlent_mut().memory.as_ref();
        let memory = memory.expect("a block that is lent is written");
        let start = memory.address(offset).cast();
        // SAFETY: the block lies inside the mapping, which the block keeps until it is lent, and is mapped writable; bytes need no alignment.
        // `Blocks` gives a part to one `OwnBlock` at a time, and not again before this one has been dropped unlent, which makes the only
        // `DroppedBlock` by which it can be freed, or was lent and has been taken back by its segment; this one is not lent, and is
        // borrowed mutably as long as the slice lives, so nobody else in this process reaches these bytes. The peer maps them for reading only. Uninitialised bytes ask for nothing about their
        // values. Rule "the writer's own unsent loan".
        unsafe { std::slice::from_raw_parts_mut(start, self.length) }
    }

    /// Keeps the first `length` bytes; the peer will be told of no more. All of the block stays taken until it is freed.
    ///
    /// # Panics
    ///
    /// If the block is lent.
    pub fn truncate(&mut self, length: usize) {
        let memory = self.unlent_mut().memory.as_ref();
        assert!(memory.is_some(), "a block that is lent is cut");
        self.length = self.length.min(length);
    }

    /// Returns the right to lend the block. `None` if it is lent, or somebody else has the right. Waits while another thread copies from it.
    pub fn claim(&self) -> Option<Claim<'_>> {
        let mut unlent = self.lock();
        if unlent.memory.is_none() || unlent.is_claimed {
            return None;
        }
        unlent.is_claimed = true;
        Some(Claim {
            block: self,
            is_spent: AtomicBool::new(false),
        })
    }

    /// Returns where the block begins, and what keeps it from being lent: nobody writes it as long as that lives.
    ///
    /// # Panics
    ///
    /// If the block is lent: it may be another's already.
    pub(super) fn begin_reading(&self) -> (*const u8, Reading<'_>) {
        self.try_begin_reading()
            .expect("a loan that has been sent is read")
    }

    /// As [`begin_reading`](Self::begin_reading), `None` if the block is lent.
    pub(super) fn try_begin_reading(&self) -> Option<(*const u8, Reading<'_>)> {
        let unlent = self.lock();
        let address = unlent.memory.as_ref()?.address(self.offset);
        Some((address.cast_const(), Reading(unlent)))
    }

    fn lock(&self) -> MutexGuard<'_, Unlent> {
        self.unlent.lock().unwrap_or_else(PoisonError::into_inner) // nothing is torn in it
    }

    fn unlent_mut(&mut self) -> &mut Unlent {
        self.unlent
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OwnBlock {
    fn drop(&mut self) {
        if let Some(memory) = self.unlent_mut().memory.take() {
            let hear = memory.on_drop.get().cloned();
            let block = DroppedBlock {
                offset: self.offset,
                memory: Arc::downgrade(&memory),
            };
            drop(memory); // before somebody is told, who may want what was paid for it
            if let Some(hear) = hear {
                hear(block);
            }
        }
    }
}

impl Claim<'_> {
    /// Returns the block.
    #[inline]
    pub fn block(&self) -> &OwnBlock {
        self.block
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !*self.is_spent.get_mut() {
            self.block.lock().is_claimed = false;
        }
    }
}

impl PeerSegment {
    fn map(handle: &RegionHandle, bytes: u32, subject: Subject) -> io::Result<Arc<Self>> {
        let mapping = Mapping::map_read_only(handle, bytes as usize)?;
        Ok(Arc::new(Self {
            mapping,
            subject,
            rent: Rent::new(),
        }))
    }

    /// As [`OwnSegment::keep`].
    pub fn keep(&self, rent: Box<dyn Any + Send + Sync>) {
        keep(&self.rent, rent);
    }

    /// Returns the size of the segment.
    pub fn size_bytes(&self) -> usize {
        self.mapping.len()
    }

    /// Returns the block of `length` bytes at `offset`, or `None` if there can be none: it would not begin at a multiple of 64, or go
    /// beyond the end.
    pub fn block(self: &Arc<Self>, offset: u32, length: u32) -> Option<PeerBlock> {
        let (offset, length) = (offset as usize, length as usize);
        let fits = offset.is_multiple_of(ALIGNMENT as usize)
            && offset < self.mapping.len()
            && length <= self.mapping.len() - offset;
        fits.then(|| PeerBlock {
            segment: Arc::clone(self),
            offset,
            length,
        })
    }
}

/// A part of a segment that the peer writes. Keeps the segment mapped.
#[derive(Clone, Debug)]
pub struct PeerBlock {
    segment: Arc<PeerSegment>,
    /// Multiple of 64 and, with `length` added and rounded up to 8, inside the mapping.
    offset: usize,
    length: usize,
}

impl PeerBlock {
    /// Returns the number of bytes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn subject(&self) -> Subject {
        self.segment.subject
    }

    /// Returns where the block begins.
    pub(super) fn address(&self) -> *const u8 {
        self.segment
            .mapping
            .as_ptr()
            .as_ptr()
            .wrapping_add(self.offset)
    }
}

fn keep(place: &Rent, rent: Box<dyn Any + Send + Sync>) {
    let is_first = place.set(rent).is_ok();
    debug_assert!(is_first, "a segment is paid for once");
}

const PAGE_BYTES: u32 = 4096;
const MAX_SEGMENT_BYTES: u32 = 1 << 30;
