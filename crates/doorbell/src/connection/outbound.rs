//! What a message that is to be sent is made of.

use std::time::Duration;

use bytes::Bytes;
use doorbell_proto::{Metadata, Prefix};

use crate::loan::Sending;

/// Payload of a message that is to be sent.
#[derive(Clone, Copy)]
pub(crate) enum Outbound<'a> {
    /// Copied if it has to wait.
    Copy(&'a [u8]),
    /// Shared if it has to wait.
    Share(&'a Bytes),
    /// Lent if the peer can have it, else copied.
    Lend(&'a Sending<'a>),
}

impl Outbound<'_> {
    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Copy(bytes) => bytes.len(),
            Self::Share(bytes) => bytes.len(),
            Self::Lend(loan) => loan.len(),
        }
    }

    /// Returns the bytes, unless they are lent.
    #[inline]
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Copy(bytes) => Some(bytes),
            Self::Share(bytes) => Some(bytes),
            Self::Lend(_) => None,
        }
    }

    pub(super) fn to_bytes(self) -> Bytes {
        match self {
            Self::Copy(bytes) => Bytes::copy_from_slice(bytes),
            Self::Share(bytes) => bytes.clone(),
            Self::Lend(loan) => loan.to_bytes(),
        }
    }
}

/// What goes before the payload.
#[derive(Clone, Copy, Default)]
pub(crate) struct Preamble<'a> {
    pub(crate) remaining: Option<Duration>,
    pub(crate) metadata: Option<&'a Metadata>,
}

impl<'a> Preamble<'a> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.remaining.is_none() && self.metadata.is_none()
    }

    pub(super) fn prefix(self, total_bytes: Option<u64>) -> Prefix<'a> {
        Prefix {
            remaining: self.remaining,
            total_bytes,
            metadata: self.metadata,
        }
    }
}
