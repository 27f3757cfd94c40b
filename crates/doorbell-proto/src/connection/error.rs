//! What can go wrong on a connection, by who has to decide.

use super::Role;
use crate::frame::{BlockId, CallId, FrameError, FrameKind};

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
    /// The handshake has not agreed on this kind of frame.
    #[error("{kind}, which was not agreed on")]
    NotAgreed {
        /// Kind of the frame.
        kind: FrameKind,
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
    /// A rule about loans.
    #[error(transparent)]
    Loan(#[from] LoanViolation),
    /// A frame was handed over after the connection had been closed.
    #[error("{kind} after the connection was closed")]
    Closed {
        /// Kind of the frame.
        kind: FrameKind,
    },
}

/// How the peer broke a rule about loans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoanViolation {
    /// Loans were not agreed on.
    #[error("{kind} with a loan, but loans were not agreed on")]
    NotAgreed {
        /// Kind of the frame.
        kind: FrameKind,
    },
    /// The number of a segment does not follow those before it.
    #[error("segment {number} is announced, but {last} was already")]
    NumberUsed {
        /// Number of the new segment.
        number: u32,
        /// Last number of this direction.
        last: u32,
    },
    /// A segment is larger than any may be.
    #[error("segment {number} has {pages} pages")]
    SegmentSize {
        /// Number of the segment.
        number: u32,
        /// Its size.
        pages: u32,
    },
    /// The peer keeps more segments than one side may write.
    #[error("segment {number} is one too many")]
    TooManySegments {
        /// Number of the segment.
        number: u32,
    },
    /// A segment is wanted while the last wish has not been answered.
    #[error("a segment is wanted while another wish waits for its answer")]
    WantedTwice,
    /// A segment for the client to write, or the refusal of one, that it has not asked for.
    #[error("segment {number} of {pages} pages answers a wish that nobody had")]
    NotWanted {
        /// Number of the segment.
        number: u32,
        /// Its size, 0 for a refusal.
        pages: u32,
    },
    /// There is no such segment that the peer writes.
    #[error("{kind} names segment {number}, which the peer does not write")]
    UnknownSegment {
        /// Kind of the frame.
        kind: FrameKind,
        /// Number of the segment.
        number: u32,
    },
    /// A segment of which we hold blocks is retired.
    #[error("segment {number} is retired while blocks of it are lent")]
    SegmentInUse {
        /// Number of the segment.
        number: u32,
    },
    /// A descriptor does not lie inside its segment, or begins where no block can.
    #[error("{length} bytes at {block} are no block")]
    Outside {
        /// The block.
        block: BlockId,
        /// Bytes of payload.
        length: u32,
    },
    /// A loan is larger than the messages that we accept.
    #[error("a loan of {length} bytes, but messages have {limit_bytes} at most")]
    TooLarge {
        /// Bytes of payload.
        length: u32,
        /// Largest message.
        limit_bytes: u64,
    },
    /// A block is lent that we have not given back.
    #[error("the block at {block} is lent twice")]
    LentTwice {
        /// The block.
        block: BlockId,
    },
    /// More blocks are lent than may be at once.
    #[error("the block at {block} is lent beside as many as may be")]
    TooManyLoans {
        /// The block.
        block: BlockId,
    },
    /// A block is given back that the peer does not have.
    #[error("the block at {block} is given back, but it was not lent")]
    NotLent {
        /// The block.
        block: BlockId,
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
