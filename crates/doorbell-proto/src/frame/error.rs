//! What can be wrong with a single frame.

use super::{FrameKind, MessageType};
use crate::metadata::MetadataError;

/// Why the bytes of a frame are not a frame. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The kind is padding, which the ring consumes, or not assigned.
    #[error("frame kind {kind} is unknown")]
    UnknownKind {
        /// The number found.
        kind: u8,
    },
    /// A flag is set that this kind does not have, or two flags exclude each other.
    #[error("flags {flags:#04x} are not allowed on {kind}")]
    FlagsNotAllowed {
        /// Kind of the frame.
        kind: FrameKind,
        /// All its flags.
        flags: u8,
    },
    /// The metadata size is not a multiple of 8, too large, or set on a frame without metadata.
    #[error("{metadata_bytes} bytes of metadata are not allowed on {kind}")]
    MetadataSize {
        /// Kind of the frame.
        kind: FrameKind,
        /// The size found.
        metadata_bytes: u16,
    },
    /// The id must be zero on this kind.
    #[error("id {id:#x} on {kind} must be zero")]
    IdNotZero {
        /// Kind of the frame.
        kind: FrameKind,
        /// The id found.
        id: u64,
    },
    /// The id is not the number of a segment.
    #[error("id {id:#x} on {kind} is not the number of a segment")]
    IdNotASegment {
        /// Kind of the frame.
        kind: FrameKind,
        /// The id found.
        id: u64,
    },
    /// The value is outside the range of this kind.
    #[error("value {value} is not allowed on {kind}")]
    Value {
        /// Kind of the frame.
        kind: FrameKind,
        /// The value found.
        value: u32,
    },
    /// The body is shorter or longer than this kind allows.
    #[error("a body of {length} bytes is not allowed on {kind} here")]
    Length {
        /// Kind of the frame.
        kind: FrameKind,
        /// The length found.
        length: u32,
    },
    /// A message in a packed body goes beyond its end, or there is none.
    #[error("the packed body of {kind} has no whole message at byte {at}")]
    Packed {
        /// Kind of the frame.
        kind: FrameKind,
        /// Where the message begins.
        at: usize,
    },
    /// The body that was handed over does not have the length that the header says.
    #[error("body has {actual} bytes, its header says {length}")]
    BodyMismatch {
        /// Length in the header.
        length: u32,
        /// Bytes handed over.
        actual: usize,
    },
    /// The metadata block is malformed.
    #[error("metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// The text of an `ERROR` or `GOAWAY` is not UTF-8 or longer than allowed or than the body.
    #[error("text of {kind} is not valid: {text_bytes} bytes")]
    Text {
        /// Kind of the frame.
        kind: FrameKind,
        /// Length of the text.
        text_bytes: usize,
    },
    /// A continuation names another message type than the first frame did.
    #[error("continuation has message type {found}, the first frame had {expected}")]
    MessageTypeChanged {
        /// Type of the first frame.
        expected: MessageType,
        /// Type of this frame.
        found: MessageType,
    },
}
