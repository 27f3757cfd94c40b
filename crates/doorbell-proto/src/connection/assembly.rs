//! Divided messages: what has arrived of one, and how much all of them may hold.

use super::allowance::{Purse, Share};
use super::{Destination, ProtocolError};
use crate::frame::{CallId, FrameError, FrameHeader, FrameKind, MessageType};
use crate::metadata::Metadata;

/// A message of which more frames are to come.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) kind: FrameKind,
    pub(super) value: u32,
    pub(super) metadata: Option<Metadata>,
    pub(super) total_bytes: u64,
    pub(super) received_bytes: u64,
    /// Header and body of every frame so far.
    pub(super) cost_bytes: u64,
    pub(super) storage: Storage,
}

/// Where the bytes of an incomplete message are.
#[derive(Debug)]
pub(super) enum Storage {
    /// Here.
    Buffer(Vec<u8>),
    /// With the caller, who is appending a body.
    Taken,
    /// Nowhere; the frames are only counted.
    Discarded,
}

impl Assembly {
    /// Checks that `header` is the next frame of this message; returns the bytes received with it.
    pub(super) fn check(&self, id: CallId, header: &FrameHeader) -> Result<u64, ProtocolError> {
        if header.kind != self.kind {
            return Err(ProtocolError::NothingToContinue {
                kind: header.kind,
                id,
            });
        }
        if header.value != self.value {
            let (expected, found) = (MessageType::new(self.value), MessageType::new(header.value));
            return Err(FrameError::MessageTypeChanged { expected, found }.into());
        }
        let received_bytes = self.received_bytes.saturating_add(u64::from(header.length));
        let fits = if header.has_more() {
            received_bytes < self.total_bytes
        } else {
            received_bytes == self.total_bytes
        };
        if !fits {
            return Err(ProtocolError::TotalMismatch {
                id,
                total_bytes: self.total_bytes,
                received_bytes,
            });
        }
        Ok(received_bytes)
    }

    /// Lends the buffer out for one body.
    pub(super) fn take_destination(&mut self) -> Destination {
        let Storage::Buffer(buffer) = &mut self.storage else {
            return Destination::Discard;
        };
        let buffer = std::mem::take(buffer);
        self.storage = Storage::Taken;
        Destination::Buffer(buffer)
    }

    /// Takes the buffer back, with the body of a frame appended.
    ///
    /// # Panics
    ///
    /// If the caller did not append exactly that body.
    pub(super) fn put_back(&mut self, destination: Destination, received_bytes: u64) {
        self.received_bytes = received_bytes;
        if matches!(self.storage, Storage::Discarded) {
            return; // the call was given up in between
        }
        let Destination::Buffer(buffer) = destination else {
            panic!("the destination of a body was not handed back")
        };
        assert_eq!(
            u64::try_from(buffer.len()),
            Ok(received_bytes),
            "the body was not appended to its destination"
        );
        self.storage = Storage::Buffer(buffer);
    }
}

/// The sum of the sizes of all messages under assembly.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bytes: u64,
    used_bytes: u64,
}

impl Budget {
    pub(super) const fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            used_bytes: 0,
        }
    }

    /// Returns a buffer with room for the whole message.
    ///
    /// # Errors
    ///
    /// Why there is no room for it.
    pub(super) fn reserve(
        &mut self,
        total_bytes: u64,
        purse: &mut Purse,
    ) -> Result<Vec<u8>, String> {
        let used_bytes = self.used_bytes.checked_add(total_bytes);
        let used_bytes = used_bytes.filter(|used| *used <= self.limit_bytes);
        let used_bytes = used_bytes.ok_or_else(|| {
            format!(
                "it is larger than what is left of {} bytes for messages under assembly",
                self.limit_bytes
            )
        })?;
        purse.take(Share::AssemblyBytes, total_bytes)?;
        let mut buffer = Vec::new();
        let capacity_bytes = usize::try_from(total_bytes).unwrap_or(usize::MAX);
        if let Err(error) = buffer.try_reserve_exact(capacity_bytes) {
            purse.give_back(Share::AssemblyBytes, total_bytes);
            return Err(error.to_string());
        }
        self.used_bytes = used_bytes;
        Ok(buffer)
    }

    /// Returns `true` if a message is under assembly.
    #[inline]
    pub(super) const fn is_used(&self) -> bool {
        self.used_bytes > 0
    }

    /// Gives back what `assembly` held.
    pub(super) fn release(&mut self, assembly: &Assembly, purse: &mut Purse) {
        if !matches!(assembly.storage, Storage::Discarded) {
            self.used_bytes = self.used_bytes.saturating_sub(assembly.total_bytes);
            purse.give_back(Share::AssemblyBytes, assembly.total_bytes);
        }
    }

    /// Stops keeping the bytes of `assembly`; its frames are counted on.
    pub(super) fn discard(&mut self, assembly: &mut Assembly, purse: &mut Purse) {
        self.release(assembly, purse);
        assembly.storage = Storage::Discarded;
    }

    #[cfg(test)]
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}
