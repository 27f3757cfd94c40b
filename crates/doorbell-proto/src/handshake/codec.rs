//! Reading and writing fields, and the framing around them.

use super::{HandshakeError, VersionRange};
use crate::limits::MAX_HANDSHAKE_BYTES;

/// Reads fields one after another.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Returns kind, fields and length of the message at the start of `bytes`, or `None` while it is incomplete.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Option<(u8, Self, usize)>, HandshakeError> {
        if let Some(offset) = MAGIC
            .iter()
            .zip(bytes)
            .position(|(expected, found)| expected != found)
        {
            return Err(HandshakeError::Magic { offset });
        }
        let Some((length, rest)) = bytes.get(MAGIC.len()..).and_then(<[u8]>::split_first_chunk)
        else {
            return Ok(None);
        };
        let rest_bytes = u32::from_le_bytes(*length);
        let length = usize::try_from(rest_bytes).unwrap_or(usize::MAX);
        let message_bytes = FRAMING_BYTES.saturating_add(length);
        if length == 0 || message_bytes > MAX_HANDSHAKE_BYTES {
            return Err(HandshakeError::Length { rest_bytes });
        }
        let Some(([kind, fields @ ..], _)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        Ok(Some((*kind, Self { rest: fields }, message_bytes)))
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, HandshakeError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, HandshakeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, HandshakeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, HandshakeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Reads a range that is not empty and does not contain version 0.
    pub(super) fn versions(&mut self) -> Result<VersionRange, HandshakeError> {
        let (min, max) = (self.u16("versions.min")?, self.u16("versions.max")?);
        if min == 0 {
            return Err(HandshakeError::Field {
                field: "versions.min",
                value: 0,
            });
        }
        if max < min {
            return Err(HandshakeError::Field {
                field: "versions.max",
                value: u64::from(max),
            });
        }
        Ok(VersionRange { min, max })
    }

    pub(super) fn text(
        &mut self,
        field: &'static str,
        max_bytes: usize,
    ) -> Result<String, HandshakeError> {
        let bytes = usize::from(self.u16(field)?);
        let invalid = HandshakeError::Text { field, bytes };
        if bytes > max_bytes {
            return Err(invalid);
        }
        let (text, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(HandshakeError::Truncated { field })?;
        self.rest = rest;
        std::str::from_utf8(text)
            .map(str::to_owned)
            .map_err(|_| invalid)
    }

    /// Checks that nothing is left.
    pub(super) fn finish(self) -> Result<(), HandshakeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(HandshakeError::Trailing {
                bytes: self.rest.len(),
            })
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], HandshakeError> {
        let (array, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(HandshakeError::Truncated { field })?;
        self.rest = rest;
        Ok(*array)
    }
}

/// Writes fields one after another.
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[0; 4]); // the length, filled in at the end
        out.push(kind);
        Self { out }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn versions(&mut self, versions: VersionRange) {
        self.bytes(&versions.min.to_le_bytes());
        self.bytes(&versions.max.to_le_bytes());
    }

    /// Writes a text; the caller has cut it to its limit.
    pub(super) fn text(&mut self, text: &str) {
        let bytes = u16::try_from(text.len()).unwrap_or(0); // limits are far below
        self.bytes(&bytes.to_le_bytes());
        self.bytes(text.as_bytes());
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let rest_bytes = self.out.len().saturating_sub(FRAMING_BYTES);
        let rest_bytes = u32::try_from(rest_bytes).unwrap_or(0); // limits are far below
        if let Some(length) = self.out.get_mut(MAGIC.len()..FRAMING_BYTES) {
            length.copy_from_slice(&rest_bytes.to_le_bytes());
        }
        self.out
    }
}

const MAGIC: &[u8; 8] = b"DRBLCTL1";

/// Magic number and length.
const FRAMING_BYTES: usize = 12;
