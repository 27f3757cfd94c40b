//! What can go wrong in a handshake.

use super::{BellKind, Features, VersionRange};
use crate::limits::MAX_HANDSHAKE_BYTES;

/// Why the bytes on the control socket are not a handshake message. Close the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The first bytes are not the magic number: this is not Doorbell.
    #[error("byte {offset} of the magic number is wrong")]
    Magic {
        /// The first byte that differs.
        offset: usize,
    },
    /// The message is longer than any message may be, or empty.
    #[error("message of {rest_bytes} bytes after its length, from 1 to {} are allowed", MAX_HANDSHAKE_BYTES - 12)]
    Length {
        /// Length in the message.
        rest_bytes: u32,
    },
    /// The kind of the message is not assigned.
    #[error("message kind {kind} is unknown")]
    UnknownKind {
        /// The number found.
        kind: u8,
    },
    /// The message ends inside a field.
    #[error("message ends inside field {field}")]
    Truncated {
        /// Name of the field.
        field: &'static str,
    },
    /// The message goes on after its last field.
    #[error("{bytes} bytes after the last field")]
    Trailing {
        /// Number of bytes.
        bytes: usize,
    },
    /// A field has a value that it cannot have.
    #[error("field {field} has value {value}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The value found.
        value: u64,
    },
    /// A text is too long or not UTF-8.
    #[error("field {field} of {bytes} bytes is too long or not UTF-8")]
    Text {
        /// Name of the field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
}

/// Why a client does not accept what a server offers. Close the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The server chose a version that the client does not speak.
    #[error("server chose version {chosen}, ours are {ours}")]
    Version {
        /// Version chosen.
        chosen: u16,
        /// Versions the client offered.
        ours: VersionRange,
    },
    /// The server chose a feature that the client did not offer.
    #[error("server chose features {:#x}, ours are {:#x}", .chosen.bits(), .ours.bits())]
    Features {
        /// Features chosen.
        chosen: Features,
        /// Features the client offered.
        ours: Features,
    },
    /// The server chose a doorbell that the client does not have.
    #[error("server chose bell {chosen}, which we do not have")]
    Bell {
        /// Bell chosen.
        chosen: BellKind,
    },
    /// A size or number is outside its bounds.
    #[error("server chose {field} {value}, which is out of bounds")]
    OutOfBounds {
        /// Name of the field.
        field: &'static str,
        /// The value found.
        value: u64,
    },
}
