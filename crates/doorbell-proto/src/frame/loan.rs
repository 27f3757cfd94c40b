//! Descriptors: what a message carries instead of a payload that lies in a segment.

use std::fmt;

/// A block of a segment: the segment's number, and the byte at which the block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u64);

impl BlockId {
    /// Returns the block at `offset` of `segment`.
    #[inline]
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self((segment as u64) << 32 | offset as u64)
    }

    /// Returns the block with this number on the wire.
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Returns the number on the wire.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Returns the number of the segment.
    #[inline]
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the byte of the segment at which the block begins.
    #[inline]
    pub const fn offset(self) -> u32 {
        self.0 as u32 // the low half
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of segment {}", self.offset(), self.segment())
    }
}

/// Where the payload of a loaned message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The block.
    pub block: BlockId,
    /// Bytes of payload, from the beginning of the block on.
    pub length: u32,
}

impl Descriptor {
    /// Returns the descriptor as bytes.
    #[inline]
    pub fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let [s0, s1, s2, s3] = self.block.segment().to_le_bytes();
        let [o0, o1, o2, o3] = self.block.offset().to_le_bytes();
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        [s0, s1, s2, s3, o0, o1, o2, o3, l0, l1, l2, l3]
    }

    /// Reads a descriptor; `None` if there are not as many bytes as one has.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [s0, s1, s2, s3, o0, o1, o2, o3, l0, l1, l2, l3] =
            *<&[u8; DESCRIPTOR_BYTES]>::try_from(bytes).ok()?;
        let (segment, offset) = ([s0, s1, s2, s3], [o0, o1, o2, o3]);
        Some(Self {
            block: BlockId::new(u32::from_le_bytes(segment), u32::from_le_bytes(offset)),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
        })
    }
}

/// Size of a descriptor: three numbers.
pub const DESCRIPTOR_BYTES: usize = 12;
