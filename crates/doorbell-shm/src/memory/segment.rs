//! Segments: memory for payloads that stay where they were written, apart from the rings.
//!
//! One side writes a segment, the other reads it; the server makes it in either case. The writer's [`OwnSegment`] hands out blocks
//! that do not overlap; which parts are free it knows by itself, in private memory. The reader's [`PeerSegment`] copies out of any part
//! that lies inside. What the other side has been told of a block is the business of the protocol.
//!
//! # Trust
//!
//! A block that we have been [allocated](OwnSegment::allocate) and have not lent is ours alone to write: its bytes are handed out as
//! [`MaybeUninit`], and nothing here reads them back but by the copy helper. On a client that rests on the server, which has made the
//! memory and could have kept it writable; it then could change bytes that the client writes, and the client's program sees nothing of
//! that but through `unsafe` of its own. What the peer writes leaves as a private copy, or by [`SharedBytes::as_slice`], whose
//! caller promises that the peer does not write meanwhile.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::blocks::Blocks;
use super::copy::copy_out;
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
pub fn create_own_segment(bytes: u32) -> io::Result<(Arc<OwnSegment>, RegionHandle)> {
    let handle = create_region(checked(bytes))?;
    let segment = OwnSegment::map(&handle, bytes)?;
    seal_writable_by_us_only(&handle)?;
    Ok((segment, handle))
}

/// Makes a segment of `bytes` that the peer writes and we read, and returns it with the handle that is to be sent.
///
/// # Errors
///
/// What the operating system says; there is no memory, or no descriptor.
///
/// # Panics
///
/// If `bytes` is 0, not a multiple of 4096, or more than 1 GiB.
pub fn create_peer_segment(bytes: u32) -> io::Result<(Arc<PeerSegment>, RegionHandle)> {
    let handle = create_region(checked(bytes))?;
    seal_size(&handle)?;
    let segment = PeerSegment::map(&handle, bytes)?;
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
pub fn adopt_own_segment(
    handle: &RegionHandle,
    bytes: u32,
) -> Result<Arc<OwnSegment>, RegionError> {
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
    Ok(PeerSegment::map(handle, bytes)?)
}

fn checked(bytes: u32) -> usize {
    let fits = bytes != 0 && bytes.is_multiple_of(PAGE_BYTES) && bytes <= MAX_SEGMENT_BYTES;
    assert!(fits, "a segment cannot have {bytes} bytes");
    bytes as usize
}

/// A segment that we write.
#[derive(Debug)]
pub struct OwnSegment {
    mapping: Mapping,
    blocks: Mutex<Blocks>,
}

/// A segment that the peer writes, mapped for reading only.
#[derive(Debug)]
pub struct PeerSegment {
    mapping: Mapping,
}

impl OwnSegment {
    fn map(handle: &RegionHandle, bytes: u32) -> io::Result<Arc<Self>> {
        let mapping = Mapping::map_read_write(handle, bytes as usize)?;
        Ok(Arc::new(Self {
            mapping,
            blocks: Mutex::new(Blocks::new(bytes)),
        }))
    }

    /// Returns the size of the segment.
    pub fn size_bytes(&self) -> usize {
        self.mapping.len()
    }

    /// Takes a block of `length` bytes, or returns `None` if no free part is large enough. Its bytes are what they were before.
    pub fn allocate(self: &Arc<Self>, length: usize) -> Option<OwnBlock> {
        let offset = self.lock().take(u32::try_from(length).ok()?)?;
        Some(OwnBlock {
            segment: Arc::clone(self),
            offset,
            length,
            is_lent: AtomicBool::new(false),
        })
    }

    /// Frees a block that [was lent](OwnBlock::lend). Returns `false` if none that begins at `offset` is.
    pub fn take_back(&self, offset: u32) -> bool {
        self.lock().give_lent(offset)
    }

    /// Returns `true` while a block is allocated or lent.
    pub fn is_used(&self) -> bool {
        self.lock().is_used()
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self, offset: u32) -> *mut u8 {
        self.mapping.as_ptr().as_ptr().wrapping_add(offset as usize)
    }
}

/// A block of a segment that we write. Until it is lent nobody else looks at it, and dropping it frees it.
#[derive(Debug)]
pub struct OwnBlock {
    segment: Arc<OwnSegment>,
    offset: u32,
    length: usize,
    is_lent: AtomicBool,
}

impl OwnBlock {
    /// Returns the segment that the block lies in.
    #[inline]
    pub fn segment(&self) -> &Arc<OwnSegment> {
        &self.segment
    }

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
        assert!(!*self.is_lent.get_mut(), "a block that is lent is written");
        let start = self.segment.address(self.offset).cast();
        // SAFETY: the block lies inside the mapping, which `self.segment` keeps, and is mapped writable; bytes need no alignment.
        // `Blocks` gives a part to one `OwnBlock` at a time, and not again before this one is dropped unlent or taken back
        // by its segment when it was lent; this one is not lent, and is borrowed mutably as long as the slice lives, so nobody
        // else in this process reaches these bytes. The peer maps them for reading only. Uninitialised bytes ask for nothing about their
        // values. Rule "the writer's own unsent loan".
        unsafe { std::slice::from_raw_parts_mut(start, self.length) }
    }

    /// Notes that the peer is about to be told of the block: from now on [`OwnSegment::take_back`] frees it, and not the drop.
    ///
    /// # Panics
    ///
    /// If it was lent before.
    pub fn lend(&self) {
        let mut blocks = self.segment.lock();
        let before = self.is_lent.swap(true, Ordering::Relaxed);
        assert!(!before, "a block is lent twice");
        blocks.lend(self.offset);
    }

    /// Returns `true` if the block has been lent.
    #[inline]
    pub fn is_lent(&self) -> bool {
        self.is_lent.load(Ordering::Relaxed)
    }
}

impl Drop for OwnBlock {
    fn drop(&mut self) {
        if !*self.is_lent.get_mut() {
            self.segment.lock().give_unlent(self.offset);
        }
    }
}

impl PeerSegment {
    fn map(handle: &RegionHandle, bytes: u32) -> io::Result<Arc<Self>> {
        let mapping = Mapping::map_read_only(handle, bytes as usize)?;
        Ok(Arc::new(Self { mapping }))
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
    fn address(&self) -> *const u8 {
        self.segment
            .mapping
            .as_ptr()
            .as_ptr()
            .wrapping_add(self.offset)
    }
}

/// Private memory that is written like a block, where there is no segment.
#[derive(Debug)]
pub struct Buffer {
    words: Box<[MaybeUninit<u64>]>,
    length: usize,
}

impl Buffer {
    /// Returns a buffer of `length` bytes.
    pub fn new(length: usize) -> Self {
        let words = vec![MaybeUninit::new(0); length.div_ceil(WORD)];
        Self {
            words: words.into_boxed_slice(),
            length,
        }
    }

    /// Returns the bytes, to be written.
    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let start = self.words.as_mut_ptr().cast();
        // SAFETY: there are as many words as hold the bytes, borrowed mutably as long as the slice lives; bytes need no alignment and,
        // uninitialised, ask for nothing about their values.
        unsafe { std::slice::from_raw_parts_mut(start, self.length) }
    }
}

/// Bytes that lie in a segment, or in private memory if they had to be copied.
#[derive(Debug)]
pub enum SharedBytes {
    /// In a block that we write.
    Own(OwnBlock),
    /// In a block that the peer writes.
    Peer(PeerBlock),
    /// In private memory that is written like a block.
    Buffer(Buffer),
    /// In private memory, as they arrived.
    Private(Vec<u8>),
}

impl SharedBytes {
    /// Returns the bytes, to be written; `None` if they came from the peer.
    ///
    /// # Panics
    ///
    /// If the bytes are in a block of ours that has been sent.
    pub fn as_uninit(&mut self) -> Option<&mut [MaybeUninit<u8>]> {
        match self {
            Self::Own(block) => Some(block.as_uninit()),
            Self::Buffer(buffer) => Some(buffer.as_uninit()),
            Self::Peer(_) | Self::Private(_) => None,
        }
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Own(block) => block.length,
            Self::Peer(block) => block.length,
            Self::Buffer(buffer) => buffer.length,
            Self::Private(bytes) => bytes.len(),
        }
    }

    /// Returns `true` if there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a private copy, which does not change any more.
    ///
    /// # Panics
    ///
    /// If the bytes are in a block of ours that has been sent.
    pub fn copy_to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.append_to(&mut out);
        out
    }

    /// Appends a private copy to `out`.
    ///
    /// # Panics
    ///
    /// If the bytes are in a block of ours that has been sent.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let Some(source) = self.source() else {
            return out.extend_from_slice(self.private());
        };
        let length = self.len();
        out.reserve(length);
        let to = out.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: source: a `Source` begins at a multiple of 8, and its bytes, rounded up to 8, are mapped and written by nobody in this
        // process. Destination: `reserve` has made room for `length` bytes, which are ours, and private memory does not overlap a mapping.
        unsafe { copy_out(source.address, to, length) };
        let filled = out.len() + length;
        // SAFETY: `reserve` made the capacity at least `filled`, and `copy_out` has just initialised the bytes between the old
        // length and `filled`.
        unsafe { out.set_len(filled) };
    }

    /// Fills `out` with a private copy of the bytes from byte `at` on.
    ///
    /// # Panics
    ///
    /// If there are not as many, or they are in a block of ours that has been sent.
    pub fn copy_to_slice(&self, at: usize, out: &mut [u8]) {
        let (length, count) = (self.len(), out.len());
        assert!(
            at <= length && count <= length - at,
            "{count} bytes at {at} of {length}"
        );
        let Some(source) = self.source() else {
            return out.copy_from_slice(&self.private()[at..at + count]);
        };
        // The copy helper begins at a whole word.
        let before = at % WORD;
        let (head, rest) = out.split_at_mut(count.min((WORD - before) % WORD));
        if !head.is_empty() {
            let mut word = [0; WORD];
            let from = source.address.wrapping_add(at - before);
            // SAFETY: source: a multiple of 8 below a byte that is inside, so that this word is mapped whole. Destination: eight bytes of
            // our own.
            unsafe { copy_out(from, word.as_mut_ptr(), WORD) };
            head.copy_from_slice(&word[before..before + head.len()]);
        }
        if !rest.is_empty() {
            let from = source.address.wrapping_add(at + head.len());
            // SAFETY: source: behind the head, so a multiple of 8, or `at` was one; the assertion shows that the bytes are inside, and
            // rounded up to 8 they still are mapped. Destination: as many bytes, borrowed mutably, in private memory.
            unsafe { copy_out(from, rest.as_mut_ptr(), rest.len()) };
        }
    }

    /// Returns the bytes where they are, without a copy.
    ///
    /// # Safety
    ///
    /// As long as the slice lives, nobody writes these bytes. For bytes that came from a peer that is the peer's promise: it has lent
    /// the block, and a peer that keeps to the protocol leaves it alone until it is given back. A peer that does not can change them
    /// at any moment, which is undefined behaviour here, whatever is done with them: call this for peers whose code you trust as your
    /// own. Of bytes that we write ourselves, every one has been written, and they are not sent as long as the slice lives.
    ///
    /// # Panics
    ///
    /// If the bytes are in a block of ours that has been sent.
    pub unsafe fn as_slice(&self) -> &[u8] {
        let Some(Source { address, .. }) = self.source() else {
            return self.private();
        };
        // SAFETY: the bytes are inside a mapping that `self` keeps for as long as the slice lives. That nobody writes them, and that they
        // are initialised if they are ours, is the caller's promise; memory of the kernel is initialised. Rule "the `unsafe fn` for
        // in-place reading".
        unsafe { std::slice::from_raw_parts(address, self.len()) }
    }

    /// Returns where the bytes begin, unless they are a vector.
    fn source(&self) -> Option<Source<'_>> {
        match self {
            Self::Own(block) => {
                let blocks = block.segment.lock();
                assert!(!block.is_lent(), "a loan that has been sent is read");
                Some(Source {
                    address: block.segment.address(block.offset).cast_const(),
                    _unlent: Some(blocks),
                })
            }
            Self::Peer(block) => Some(Source {
                address: block.address(),
                _unlent: None,
            }),
            Self::Buffer(buffer) => Some(Source {
                address: buffer.words.as_ptr().cast(),
                _unlent: None,
            }),
            Self::Private(_) => None,
        }
    }

    fn private(&self) -> &[u8] {
        match self {
            Self::Private(bytes) => bytes,
            Self::Own(_) | Self::Peer(_) | Self::Buffer(_) => &[],
        }
    }
}

/// Where bytes lie that are not a vector: at a multiple of 8, from which on as many bytes as there are, rounded up to a multiple of 8, are mapped as
/// long as the [`SharedBytes`] live.
struct Source<'a> {
    address: *const u8,
    /// As long as this is held a block of ours cannot be lent, so it does not come back either to be given to another writer.
    _unlent: Option<MutexGuard<'a, Blocks>>,
}

/// Blocks begin at a multiple of this.
pub(super) const ALIGNMENT: u32 = 64;

const PAGE_BYTES: u32 = 4096;
const MAX_SEGMENT_BYTES: u32 = 1 << 30;
const WORD: usize = 8;
