//! What the machine hands out.

use crate::frame::{CallId, CallKind, FrameHeader, GoAwayReason, MessageType, Packed};
use crate::metadata::Metadata;
use crate::status::Status;
use crate::time::Time;

/// What a frame meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing the caller has to act on. Control frames may wait.
    None,
    /// A request is complete. Server only.
    Request {
        /// The call.
        id: CallId,
        /// Who sends items.
        kind: CallKind,
        /// Type of the request.
        message_type: MessageType,
        /// When the caller stops waiting.
        deadline: Option<Time>,
        /// Metadata of the request.
        metadata: Option<Metadata>,
        /// The request.
        payload: Payload<'a>,
    },
    /// A message without an answer. Server only.
    Notify {
        /// Type of the message.
        message_type: MessageType,
        /// Metadata of the message.
        metadata: Option<Metadata>,
        /// The message.
        payload: &'a [u8],
    },
    /// Several messages without an answer. Server only.
    Notifies {
        /// Type of the messages.
        message_type: MessageType,
        /// The messages.
        payloads: Packed<'a>,
    },
    /// The answer; the call is over. Client only.
    Response {
        /// The call.
        id: CallId,
        /// Metadata of the answer.
        metadata: Option<Metadata>,
        /// The answer.
        payload: Payload<'a>,
    },
    /// The call is over without an answer.
    ///
    /// On the server this means that the machine itself ended a call whose request had been handed out, because an item was too
    /// large; the `ERROR` is queued, and the handler should stop.
    Failed {
        /// The call.
        id: CallId,
        /// Why.
        status: Status,
    },
    /// A stream item is complete.
    Item {
        /// The call.
        id: CallId,
        /// The item.
        payload: Payload<'a>,
        /// What to hand to [`consumed`](super::Connection::consumed) when the application has taken the item.
        cost_bytes: u64,
    },
    /// Several stream items, all complete.
    Items {
        /// The call.
        id: CallId,
        /// The items.
        payloads: Packed<'a>,
        /// What to hand to [`consumed`](super::Connection::consumed) when the application has taken all of them.
        cost_bytes: u64,
    },
    /// The peer has no more items. On the client the call is over then.
    ItemsEnded {
        /// The call.
        id: CallId,
    },
    /// Items may be sent again after [`ItemError::NoCredit`](super::ItemError::NoCredit).
    CreditAvailable {
        /// The call.
        id: CallId,
    },
    /// The client has lost interest and the call is over; the `ERROR` is queued. Server only.
    Cancelled {
        /// The call.
        id: CallId,
    },
    /// The peer answered a ping.
    Pong {
        /// The number that the ping carried.
        id: u64,
    },
    /// The peer is about to leave; calls under way go on.
    GoAway {
        /// Why.
        reason: GoAwayReason,
        /// A line for the log.
        text: String,
    },
}

/// The bytes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A part of the body that was handed in.
    Borrowed(&'a [u8]),
    /// A divided message, put together.
    Assembled(Vec<u8>),
}

impl Payload<'_> {
    /// Returns the bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Assembled(bytes) => bytes,
        }
    }

    /// Returns the bytes as a vector; copies only if they are borrowed.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Borrowed(bytes) => bytes.to_vec(),
            Self::Assembled(bytes) => bytes,
        }
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Returns `true` if there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

/// Where the body of a continuation belongs.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    /// Append the whole body here; there is room for the rest of the message.
    Buffer(Vec<u8>),
    /// Nobody wants the body.
    Discard,
}

/// A call whose deadline has passed. It is over: the control frame that tells the peer is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The call.
    pub id: CallId,
}

/// A frame that the machine wants to have sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFrame {
    /// Header; the caller adds the checksum.
    pub header: FrameHeader,
    /// Body.
    pub body: Vec<u8>,
}
