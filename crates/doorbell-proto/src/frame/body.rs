//! Bodies: prefix, metadata, payload.

use super::{Flags, FrameError, FrameHeader};
use crate::metadata::{Metadata, MetadataRef};
use crate::time::nanos;
use std::time::Duration;

/// The parts of the body of a `CALL`, `RESPONSE`, `DATA` or `NOTIFY` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Time the caller still waits, measured when the frame was written.
    pub remaining: Option<Duration>,
    /// Payload bytes of the whole message, if this is the first of several frames.
    pub total_bytes: Option<u64>,
    /// Metadata, empty if there is none.
    pub metadata: MetadataRef<'a>,
    /// Payload of this frame.
    pub payload: &'a [u8],
}

impl Body<'_> {
    /// Divides `body` into its parts, as `header` says.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the body is shorter than its parts or the metadata is malformed.
    #[inline]
    pub fn parse<'a>(header: &FrameHeader, body: &'a [u8]) -> Result<Body<'a>, FrameError> {
        check_length(header, body)?;
        let short = FrameError::Length {
            kind: header.kind,
            length: header.length,
        };
        let (remaining, rest) =
            number(header.flags.contains(Flags::DEADLINE), body).ok_or(short)?;
        let (total_bytes, rest) = number(header.starts_divided(), rest).ok_or(short)?;
        let (block, payload) = rest
            .split_at_checked(usize::from(header.metadata_bytes))
            .ok_or(short)?;
        let metadata = if block.is_empty() {
            MetadataRef::default()
        } else {
            MetadataRef::parse(block)?
        };
        Ok(Body {
            remaining: remaining.map(Duration::from_nanos),
            total_bytes,
            metadata,
            payload,
        })
    }
}

/// Writer for the part of a body before the payload.
///
/// The caller sets the flags and the metadata size of the header to match; [`Prefix::set_header`] does so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefix<'a> {
    /// Time the caller still waits.
    pub remaining: Option<Duration>,
    /// Payload bytes of the whole message, if it is divided.
    pub total_bytes: Option<u64>,
    /// Metadata.
    pub metadata: Option<&'a Metadata>,
}

impl Prefix<'_> {
    /// Appends the prefix to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Some(remaining) = self.remaining {
            out.extend_from_slice(&nanos(remaining).to_le_bytes());
        }
        if let Some(total_bytes) = self.total_bytes {
            out.extend_from_slice(&total_bytes.to_le_bytes());
        }
        if let Some(metadata) = self.metadata {
            metadata.encode(out);
        }
    }

    /// Sets `DEADLINE`, `MORE` and the metadata size of `header` to match this prefix, and its length to that of the prefix
    /// followed by `payload_bytes` of payload.
    ///
    /// Returns `false` and changes nothing if the length does not fit its field.
    #[must_use]
    pub fn set_header(&self, header: &mut FrameHeader, payload_bytes: usize) -> bool {
        let metadata_bytes = self.metadata.map_or(0, Metadata::encoded_bytes);
        let length = self
            .encoded_bytes()
            .checked_add(payload_bytes)
            .map(u32::try_from);
        let (Ok(metadata_bytes), Some(Ok(length))) = (u16::try_from(metadata_bytes), length) else {
            return false;
        };
        header.length = length;
        header.metadata_bytes = metadata_bytes;
        if self.remaining.is_some() {
            header.flags.insert(Flags::DEADLINE);
        }
        if self.total_bytes.is_some() {
            header.flags.insert(Flags::MORE);
        }
        true
    }

    /// Returns `true` if there is nothing to write.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.encoded_bytes() == 0
    }

    /// Returns how many bytes [`Prefix::encode`] appends.
    #[inline]
    pub fn encoded_bytes(&self) -> usize {
        let remaining = if self.remaining.is_some() { 8 } else { 0 };
        let total = if self.total_bytes.is_some() { 8 } else { 0 };
        remaining + total + self.metadata.map_or(0, Metadata::encoded_bytes)
    }
}

/// Checks that `body` is as long as `header` says.
#[inline]
pub(crate) fn check_length(header: &FrameHeader, body: &[u8]) -> Result<(), FrameError> {
    if usize::try_from(header.length) == Ok(body.len()) {
        return Ok(());
    }
    Err(FrameError::BodyMismatch {
        length: header.length,
        actual: body.len(),
    })
}

/// Splits a number off if one is present; `None` if the bytes end before it does.
#[inline]
fn number(present: bool, bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    if !present {
        return Some((None, bytes));
    }
    let (number, rest) = bytes.split_first_chunk()?;
    Some((Some(u64::from_le_bytes(*number)), rest))
}
