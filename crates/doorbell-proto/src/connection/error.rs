//! What can go wrong on a connection, by who has to decide.

use super::Role;
use crate::frame::{CallId, FrameError, FrameKind};

/// The peer broke the protocol. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The frame is wrong by itself.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Only the other role sends this kind of frame.
    #[error("{kind} does not travel to a {role}")]
    WrongDirection {
        /// Kind of the frame.
        kind: FrameKind,
        /// Our role.
        role: Role,
    },
    /// The slot of the call lies outside the table.
    #[error("{kind} for slot {slot}, but there are only {max_calls}")]
    SlotOutOfRange {
        /// Kind of the frame.
        kind: FrameKind,
        /// Slot of the call.
        slot: u32,
        /// Number of slots.
        max_calls: u32,
    },
    /// The client speaks of a call that it has never opened.
    #[error("{kind} for call {id}, which was never opened")]
    NeverOpened {
        /// Kind of the frame.
        kind: FrameKind,
        /// The call.
        id: CallId,
    },
    /// The client opens a call in a slot whose last call has not ended.
    #[error("call {id} opened while its slot is in use")]
    SlotInUse {
        /// The new call.
        id: CallId,
    },
    /// The client opens a call with a generation other than the next one.
    #[error("call {id} opened, but the next generation is {expected}")]
    WrongGeneration {
        /// The new call.
        id: CallId,
        /// The generation it should have.
        expected: u32,
    },
    /// The server speaks of a call that is not under way.
    #[error("{kind} for call {id}, which is not under way")]
    NotUnderWay {
        /// Kind of the frame.
        kind: FrameKind,
        /// The call.
        id: CallId,
    },
    /// The kind of call, or what has already been sent for it, excludes this frame.
    #[error("{kind} is not allowed for call {id} now")]
    NotAllowed {
        /// Kind of the frame.
        kind: FrameKind,
        /// The call.
        id: CallId,
    },
    /// A frame of the same call and direction stands between the frames of a divided message.
    #[error("{kind} interrupts a divided message of call {id}")]
    Interrupted {
        /// Kind of the frame.
        kind: FrameKind,
        /// The call.
        id: CallId,
    },
    /// A continuation of nothing, or of a message of another kind.
    #[error("{kind} continues nothing in call {id}")]
    NothingToContinue {
        /// Kind of the frame.
        kind: FrameKind,
        /// The call.
        id: CallId,
    },
    /// The frames of a divided message do not add up to what was announced.
    #[error(
        "message of call {id} was announced with {total_bytes} bytes, its frames have {received_bytes}"
    )]
    TotalMismatch {
        /// The call.
        id: CallId,
        /// Size announced.
        total_bytes: u64,
        /// Size so far, this frame included.
        received_bytes: u64,
    },
    /// An item was begun although no credit was left.
    #[error("item of call {id} begun with {credit_bytes} bytes of credit")]
    ItemWithoutCredit {
        /// The call.
        id: CallId,
        /// Credit that was left.
        credit_bytes: i64,
    },
    /// The credit of a stream rose above 2^31 - 1.
    #[error("{granted_bytes} bytes of credit for call {id} on top of {credit_bytes}")]
    CreditOverflow {
        /// The call.
        id: CallId,
        /// Credit before.
        credit_bytes: i64,
        /// Credit granted.
        granted_bytes: u32,
    },
    /// A frame was handed over after the connection had been closed.
    #[error("{kind} after the connection was closed")]
    Closed {
        /// Kind of the frame.
        kind: FrameKind,
    },
}

/// Why no call could be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Every slot is in use; one becomes free when a call ends.
    #[error("all {limit} calls are in use")]
    TooManyCalls {
        /// Number of calls the server permits at once.
        limit: u32,
    },
    /// One side has announced that it leaves.
    #[error("the connection is going away")]
    GoingAway,
    /// The connection has ended.
    #[error("the connection is closed")]
    Closed,
}

/// Why no item may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The peer has to consume first; [`Event::CreditAvailable`](super::Event::CreditAvailable) tells when.
    #[error("no credit is left")]
    NoCredit,
    /// The call is over, its items have ended, or it has none in this direction.
    #[error("the stream is over")]
    Over,
}
