//! Frames: 24 bytes of header, then a body.
//!
//! This module turns private copies of bytes into checked values and back. It knows what is wrong with a frame by itself; what is
//! wrong with a frame at this moment is the business of [`crate::connection`]. The checksum is neither computed nor compared
//! here, because the caller has the faster way to do so.

mod body;
mod error;
mod kind;
mod loan;
mod packed;

pub(crate) use body::check_length;
pub use body::{Body, Prefix};
pub use error::FrameError;
pub use kind::{CallId, CallKind, Flags, FrameKind, GoAwayReason, MessageType};
pub use loan::{BlockId, DESCRIPTOR_BYTES, Descriptor};
pub use packed::{PACKED_LENGTH_BYTES, Packed, pack, packed_at};

use crate::limits::{MAX_GOAWAY_TEXT_BYTES, MAX_METADATA_BYTES};

/// Size of a frame header.
pub const HEADER_BYTES: usize = 24;

/// A header as little-endian words.
pub type HeaderWords = [u64; HEADER_BYTES / 8];

/// Bytes of the header that the checksum covers: all before the checksum itself.
pub const CHECKED_HEADER_BYTES: usize = 20;

/// A frame header without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of body.
    pub length: u32,
    /// What the frame is.
    pub kind: FrameKind,
    /// Flags.
    pub flags: Flags,
    /// Size of the metadata block in the body, a multiple of 8.
    pub metadata_bytes: u16,
    /// The call, an opaque number, or 0; by kind.
    pub id: u64,
    /// Message type, status code, credit or reason; by kind.
    pub value: u32,
}

impl FrameHeader {
    /// Returns a header of `kind` for `id` with an empty body.
    #[inline]
    pub const fn new(kind: FrameKind, id: u64, value: u32) -> Self {
        Self {
            length: 0,
            kind,
            flags: Flags::NONE,
            metadata_bytes: 0,
            id,
            value,
        }
    }

    /// Reads a header and checks everything that can be wrong with it alone, except the checksum.
    ///
    /// # Errors
    ///
    /// [`FrameError`] names the rule of the wire format that the header breaks.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        Self::from_words(bytes_to_words(bytes))
    }

    /// As [`decode`](Self::decode), from the three little-endian words of a header: words stay in registers.
    ///
    /// # Errors
    ///
    /// [`FrameError`] names the rule of the wire format that the header breaks.
    #[inline]
    pub fn from_words([first, id, last]: HeaderWords) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, kind, flags, m0, m1] = first.to_le_bytes();
        let [v0, v1, v2, v3, ..] = last.to_le_bytes();
        let header = Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: FrameKind::from_u8(kind).ok_or(FrameError::UnknownKind { kind })?,
            flags: Flags::from_bits(flags),
            metadata_bytes: u16::from_le_bytes([m0, m1]),
            id,
            value: u32::from_le_bytes([v0, v1, v2, v3]),
        };
        if !header.is_plain() {
            header.check_flags()?;
            header.check_metadata_bytes()?;
            header.check_fields()?;
            header.check_length()?;
        }
        Ok(header)
    }

    /// Returns the header as bytes, with a checksum of zero; see [`FrameHeader::set_crc`].
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        words_to_bytes(self.to_words(0))
    }

    /// Returns the header as little-endian words, with this checksum.
    #[inline]
    pub fn to_words(&self, crc: u32) -> HeaderWords {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [m0, m1] = self.metadata_bytes.to_le_bytes();
        let (kind, flags) = (self.kind as u8, self.flags.bits());
        [
            u64::from_le_bytes([l0, l1, l2, l3, kind, flags, m0, m1]),
            self.id,
            u64::from(self.value) | u64::from(crc) << 32,
        ]
    }

    /// Returns the last word of a header with this checksum instead of none.
    #[inline]
    pub fn with_crc(last: u64, crc: u32) -> u64 {
        last | u64::from(crc) << 32
    }

    /// Returns the checksum in the words of a header.
    #[inline]
    pub fn crc_in(words: &HeaderWords) -> u32 {
        let [_, _, last] = words;
        (last >> 32) as u32
    }

    /// Returns the checksum in an encoded header.
    #[inline]
    pub fn crc(bytes: &[u8; HEADER_BYTES]) -> u32 {
        let [.., c0, c1, c2, c3] = *bytes;
        u32::from_le_bytes([c0, c1, c2, c3])
    }

    /// Stores the checksum in an encoded header.
    #[inline]
    pub fn set_crc(bytes: &mut [u8; HEADER_BYTES], crc: u32) {
        let [.., c0, c1, c2, c3] = bytes;
        [*c0, *c1, *c2, *c3] = crc.to_le_bytes();
    }

    /// Returns the call that a reply in one frame with nothing but its payload answers: by far the commonest frame that a client
    /// reads, told without decoding it. `None` for the header of any other frame.
    #[inline]
    pub fn bare_response([first, id, _]: &HeaderWords) -> Option<CallId> {
        let is_bare = (first & !COVERED) >> 32 == FrameKind::Response as u64;
        is_bare.then_some(CallId::from_raw(*id))
    }

    /// Returns the unary call that a request in one frame with nothing but its payload begins, and its message type: by far the commonest
    /// frame that a server reads. `None` for the header of any other frame.
    #[inline]
    pub fn bare_call([first, id, last]: &HeaderWords) -> Option<(CallId, MessageType)> {
        let is_bare = (first & !COVERED) >> 32 == FrameKind::Call as u64;
        is_bare.then_some((CallId::from_raw(*id), message_type_in(*last)))
    }

    /// As [`bare_response`](Self::bare_response), of a reply whose payload is lent: its body is nothing but a [`Descriptor`].
    #[inline]
    pub fn bare_lent_response([first, id, _]: &HeaderWords) -> Option<CallId> {
        let is_bare = first & !COVERED == lent(FrameKind::Response);
        is_bare.then_some(CallId::from_raw(*id))
    }

    /// As [`bare_call`](Self::bare_call), of a request whose payload is lent: its body is nothing but a [`Descriptor`].
    #[inline]
    pub fn bare_lent_call([first, id, last]: &HeaderWords) -> Option<(CallId, MessageType)> {
        let is_bare = first & !COVERED == lent(FrameKind::Call);
        is_bare.then_some((CallId::from_raw(*id), message_type_in(*last)))
    }

    /// Returns the block that a whole `RELEASE` gives back. `None` for the header of any other frame.
    #[inline]
    pub fn bare_release([first, id, last]: &HeaderWords) -> Option<BlockId> {
        let is_bare = *first == (FrameKind::Release as u64) << 32 && last << 32 == 0;
        is_bare.then_some(BlockId::from_raw(*id))
    }

    /// Returns `true` if the checksum in the words of a header covers the body too.
    #[inline]
    pub fn covers_body_in([first, ..]: &HeaderWords) -> bool {
        first & COVERED != 0
    }

    /// Returns `true` if the checksum covers the body too.
    #[inline]
    pub fn covers_body(&self) -> bool {
        self.flags.contains(Flags::BODY_CRC)
    }

    /// Returns `true` if the message goes on in a later frame.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.flags.contains(Flags::MORE)
    }

    /// Returns `true` if the body is several messages.
    #[inline]
    pub fn is_packed(&self) -> bool {
        self.flags.contains(Flags::PACKED)
    }

    /// Returns `true` if the payload of the message is a [`Descriptor`].
    #[inline]
    pub fn is_loaned(&self) -> bool {
        let is_message = matches!(
            self.kind,
            FrameKind::Call | FrameKind::Response | FrameKind::Data
        );
        is_message && self.flags.contains(Flags::LOANED)
    }

    /// Returns `true` if the frame continues a message.
    #[inline]
    pub fn is_continuation(&self) -> bool {
        self.flags.contains(Flags::CONTINUE)
    }

    /// Returns the credit that the frame costs if it carries a stream item: header and body.
    #[inline]
    pub fn cost_bytes(&self) -> u64 {
        (HEADER_BYTES as u64).saturating_add(u64::from(self.length))
    }

    /// Returns the bytes of body before the payload: remaining time, total size and metadata.
    #[inline]
    pub fn prefix_bytes(&self) -> usize {
        let remaining = if self.flags.contains(Flags::DEADLINE) {
            NUMBER_BYTES
        } else {
            0
        };
        let total = if self.starts_divided() {
            NUMBER_BYTES
        } else {
            0
        };
        remaining + total + usize::from(self.metadata_bytes) // at most 65,551
    }

    /// Returns `true` if the frame is the first of several.
    #[inline]
    pub(crate) fn starts_divided(&self) -> bool {
        self.has_more() && !self.is_continuation()
    }

    /// Returns `true` for the commonest headers, which plainly break no rule: the checks below would find nothing.
    #[inline]
    fn is_plain(&self) -> bool {
        let bare = self.flags.without(Flags::BODY_CRC) == Flags::NONE && self.metadata_bytes == 0;
        bare && match self.kind {
            FrameKind::Call | FrameKind::Response => true,
            FrameKind::Data => self.value == 0,
            FrameKind::Notify => self.id == 0,
            _ => false,
        }
    }

    fn check_flags(&self) -> Result<(), FrameError> {
        let opening = Flags::DEADLINE
            .with(Flags::UPLOAD)
            .with(Flags::STREAMING)
            .bits();
        let unknown = self.flags.without(self.kind.allowed_flags()) != Flags::NONE;
        let divided = Flags::MORE.with(Flags::CONTINUE).bits();
        let contradiction = self.is_continuation() && self.flags.bits() & opening != 0
            || self.is_packed() && self.flags.bits() & divided != 0
            || self.is_loaned() && self.flags.bits() & (divided | Flags::PACKED.bits()) != 0;
        if unknown || contradiction {
            return Err(FrameError::FlagsNotAllowed {
                kind: self.kind,
                flags: self.flags.bits(),
            });
        }
        Ok(())
    }

    fn check_metadata_bytes(&self) -> Result<(), FrameError> {
        let bytes = usize::from(self.metadata_bytes);
        let allowed = self.kind.has_metadata() && !self.is_continuation() && !self.is_packed();
        let fits = bytes.is_multiple_of(8) && bytes <= MAX_METADATA_BYTES;
        if bytes == 0 || (allowed && fits) {
            return Ok(());
        }
        Err(FrameError::MetadataSize {
            kind: self.kind,
            metadata_bytes: self.metadata_bytes,
        })
    }

    fn check_fields(&self) -> Result<(), FrameError> {
        let kind = self.kind;
        let has_no_id = matches!(
            kind,
            FrameKind::Notify | FrameKind::GoAway | FrameKind::WantSegment | FrameKind::Quiet
        );
        if has_no_id && self.id != 0 {
            return Err(FrameError::IdNotZero { kind, id: self.id });
        }
        let names_segment = matches!(kind, FrameKind::Segment | FrameKind::Retire);
        if names_segment && u32::try_from(self.id).is_err() {
            return Err(FrameError::IdNotASegment { kind, id: self.id });
        }
        let valid = match kind {
            FrameKind::Call | FrameKind::Response | FrameKind::Notify => true,
            // A segment without pages could not be had, and has no number.
            FrameKind::Segment => self.value != 0 || self.id == 0,
            FrameKind::WantSegment => self.value != 0,
            FrameKind::Error => (1..=16).contains(&self.value),
            FrameKind::Credit => self.value != 0,
            FrameKind::GoAway => GoAwayReason::from_u32(self.value).is_some(),
            FrameKind::Data
            | FrameKind::End
            | FrameKind::Cancel
            | FrameKind::Ping
            | FrameKind::Pong
            | FrameKind::Retire
            | FrameKind::Release
            | FrameKind::Quiet => self.value == 0,
        };
        if valid {
            Ok(())
        } else {
            Err(FrameError::Value {
                kind,
                value: self.value,
            })
        }
    }

    fn check_length(&self) -> Result<(), FrameError> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        // At least one byte of payload in each of several frames, and one message in a packed frame.
        let divided = usize::from(self.has_more() || self.is_continuation());
        let packed = if self.is_packed() {
            PACKED_LENGTH_BYTES
        } else {
            0
        };
        let valid = match self.kind {
            _ if self.is_loaned() => length == self.prefix_bytes() + DESCRIPTOR_BYTES,
            FrameKind::Call | FrameKind::Response | FrameKind::Data | FrameKind::Notify => {
                length >= self.prefix_bytes() + divided + packed
            }
            FrameKind::Error => length >= self.prefix_bytes() + 4,
            FrameKind::GoAway => length <= MAX_GOAWAY_TEXT_BYTES,
            FrameKind::End
            | FrameKind::Cancel
            | FrameKind::Credit
            | FrameKind::Ping
            | FrameKind::Pong
            | FrameKind::Segment
            | FrameKind::WantSegment
            | FrameKind::Retire
            | FrameKind::Release
            | FrameKind::Quiet => length == 0,
        };
        if valid {
            Ok(())
        } else {
            Err(FrameError::Length {
                kind: self.kind,
                length: self.length,
            })
        }
    }
}

/// Returns the first word of the header of a message that is nothing but a descriptor, without the flag of its checksum.
const fn lent(kind: FrameKind) -> u64 {
    (Flags::LOANED.bits() as u64) << 40 | (kind as u64) << 32 | DESCRIPTOR_BYTES as u64
}

#[inline]
fn message_type_in(last: u64) -> MessageType {
    let [t0, t1, t2, t3, ..] = last.to_le_bytes();
    MessageType::new(u32::from_le_bytes([t0, t1, t2, t3]))
}

#[inline]
fn bytes_to_words(bytes: &[u8; HEADER_BYTES]) -> HeaderWords {
    let mut words = HeaderWords::default();
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[inline]
fn words_to_bytes(words: HeaderWords) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    bytes
}

/// [`Flags::BODY_CRC`] in the first word of a header.
const COVERED: u64 = (Flags::BODY_CRC.bits() as u64) << 40;

/// Size of the remaining time, and of the total size.
const NUMBER_BYTES: usize = 8;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
