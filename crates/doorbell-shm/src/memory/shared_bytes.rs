//! Bytes that lie in a segment, or in private memory where there is none, and how they are read.
//!
//! What the peer writes leaves as a private copy, or by [`SharedBytes::as_slice`], whose caller promises that the peer does not write
//! meanwhile.

use std::mem::MaybeUninit;

use super::blocks::ALIGNMENT;
use super::copy::copy_out;
use super::segment::{OwnBlock, PeerBlock, Reading};
use crate::stall::{self, Subject};

/// Private memory that is written like a block, where there is no segment. It begins at a multiple of 64 too.
#[derive(Debug)]
pub struct Buffer {
    lines: Box<[Line]>,
    length: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([MaybeUninit<u8>; LINE]);

impl Buffer {
    /// Returns a buffer of `length` bytes.
    pub fn new(length: usize) -> Self {
        let lines = vec![Line([MaybeUninit::new(0); LINE]); length.div_ceil(LINE)];
        Self {
            lines: lines.into_boxed_slice(),
            length,
        }
    }

    /// Returns the bytes, to be written.
    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let start = self.lines.as_mut_ptr().cast();
        // SAFETY: there are as many lines as hold the bytes, borrowed mutably as long as the slice lives; bytes need no alignment and,
        // uninitialised, ask for nothing about their values.
        unsafe { std::slice::from_raw_parts_mut(start, self.length) }
    }
}

/// Bytes that lie in a segment, or in private memory if they had to be copied.
///
/// In a block or a buffer they begin at a multiple of 64, whoever wrote them; those of a vector lie where its allocation does.
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

    /// Keeps the first `length` bytes. Does nothing if there are no more, or if they came from the peer.
    ///
    /// # Panics
    ///
    /// If the bytes are in a block of ours that has been sent.
    pub fn truncate(&mut self, length: usize) {
        match self {
            Self::Own(block) => block.truncate(length),
            Self::Buffer(buffer) => buffer.length = buffer.length.min(length),
            Self::Peer(_) | Self::Private(_) => {}
        }
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Own(block) => block.len(),
            Self::Peer(block) => block.len(),
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
        self.append_from(self.source(), out);
    }

    /// As [`append_to`](Self::append_to); returns `false` if the bytes are in a block of ours that has been sent.
    pub fn try_append_to(&self, out: &mut Vec<u8>) -> bool {
        let source = match self {
            Self::Own(block) => match block.try_begin_reading() {
                Some(reading) => Some(Source::of_own(reading)),
                None => return false,
            },
            _ => self.source(),
        };
        self.append_from(source, out);
        true
    }

    fn append_from(&self, source: Option<Source<'_>>, out: &mut Vec<u8>) {
        let Some(source) = source else {
            return out.extend_from_slice(self.private());
        };
        let length = self.len();
        out.reserve(length);
        let to = out.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: source: a `Source` begins at a multiple of 8, and its bytes, rounded up to 8, are mapped and written by nobody in this
        // process. Destination: `reserve` has made room for `length` bytes, which are ours, and private memory does not overlap a mapping.
        stall::count(source.subject, || unsafe {
            copy_out(source.address, to, length)
        });
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
            stall::count(source.subject, || unsafe {
                copy_out(from, rest.as_mut_ptr(), rest.len())
            });
        }
    }

    /// Returns the bytes where they are, without a copy.
    ///
    /// # Safety
    ///
    /// As long as the slice lives, nobody writes these bytes. For bytes that came from a peer that is the peer's promise: it has lent
    /// the block, and a peer that keeps to the protocol leaves it alone until it is given back. A peer that does not can change them
    /// at any moment, which is undefined behaviour here, whatever is done with them: call this for peers whose code you trust as your
    /// own. To check the bytes first is no help against another: it changes them after the check and before the use. Of bytes that we
    /// write ourselves, every one has been written, and they are not sent as long as the slice lives.
    ///
    /// # Panics
    ///
    /// If the bytes are in a block of ours that has been sent.
    pub unsafe fn as_slice(&self) -> &[u8] {
        let Some(Source { address, .. }) = self.source() else {
            return self.private();
        };
        // SAFETY: the bytes are inside a mapping that `self` keeps for as long as the slice lives, or until it is sent. That nobody writes them, and that they
        // are initialised if they are ours, is the caller's promise; memory of the kernel is initialised. Rule "the `unsafe fn` for
        // in-place reading".
        unsafe { std::slice::from_raw_parts(address, self.len()) }
    }

    /// Returns where the bytes begin, unless they are a vector.
    fn source(&self) -> Option<Source<'_>> {
        match self {
            Self::Own(block) => Some(Source::of_own(block.begin_reading())),
            Self::Peer(block) => Some(Source {
                address: block.address(),
                _unlent: None,
                subject: block.subject(),
            }),
            Self::Buffer(buffer) => Some(Source {
                address: buffer.lines.as_ptr().cast(),
                _unlent: None,
                subject: Subject::default(),
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
    _unlent: Option<Reading<'a>>,
    /// Who may have thrown them away; nobody who may have if they are ours.
    subject: Subject,
}

impl<'a> Source<'a> {
    fn of_own((address, reading): (*const u8, Reading<'a>)) -> Self {
        Self {
            address,
            _unlent: Some(reading),
            subject: Subject::default(),
        }
    }
}

const WORD: usize = 8;

/// Buffers begin at a multiple of this, as blocks do.
const LINE: usize = ALIGNMENT as usize;
