//! What the machine hands out.

use super::Role;
use crate::frame::{
    BlockId, CallId, CallKind, Descriptor, FrameHeader, GoAwayReason, MessageType, Packed,
};
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
    /// A segment can be used from now on: it is the next that the control socket holds. Client only.
    Segment {
        /// Its number.
        number: u32,
        /// Its size in pages.
        pages: u32,
        /// Who writes it.
        writer: Role,
    },
    /// The server has had nothing to do for a while: memory that is not in use can go back to the system. Client only.
    Quiet,
    /// The segment that was wanted cannot be had. Client only.
    SegmentRefused,
    /// The client wants a segment that it can write; answer with
    /// [`announce_segment`](super::Connection::announce_segment) or [`refuse_segment`](super::Connection::refuse_segment). Server
    /// only.
    SegmentWanted {
        /// Size of the block that has to fit, in pages.
        pages: u32,
    },
    /// The peer will not use a segment any more that it wrote.
    Retired {
        /// Its number.
        number: u32,
    },
    /// The peer asks us to give up a segment that we write; [`retire_segment`](super::Connection::retire_segment) if it is not in use.
    RetireAsked {
        /// Its number.
        number: u32,
    },
    /// The peer is done with a block that was lent to it.
    Released {
        /// The block.
        block: BlockId,
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
    /// A block of a segment that the peer writes. It stays with us until [`give_back`](super::Connection::give_back).
    Loaned(Descriptor),
}

impl Payload<'_> {
    /// Returns the bytes; none of a loan, whose bytes are elsewhere.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Assembled(bytes) => bytes,
            Self::Loaned(_) => &[],
        }
    }

    /// Returns the bytes as a vector; copies only if they are borrowed. None of a loan, whose bytes are elsewhere.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Borrowed(bytes) => bytes.to_vec(),
            Self::Assembled(bytes) => bytes,
            Self::Loaned(_) => Vec::new(),
        }
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Loaned(loan) => usize::try_from(loan.length).unwrap_or(usize::MAX),
            bytes => bytes.as_slice().len(),
        }
    }

    /// Returns `true` if there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
