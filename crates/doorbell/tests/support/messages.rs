//! Messages of the test service.

use bytes::Bytes;
use doorbell::{DecodeError, EncodeError, Incoming, Message, MessageType, Payload, Raw, Upload};
use serde::{Deserialize, Serialize};

macro_rules! message {
    ($(#[$meta:meta])* $name:ident $fields:tt = $number:literal -> $reply:ty $(, items $item:ty)?) => {
        message!(@define $(#[$meta])* $name $fields);
        impl Message for $name {
            const TYPE: MessageType = MessageType::new($number);
            type Reply = $reply;
        }
        $(impl Upload for $name { type Item = $item; })?
    };
    (@define $(#[$meta:meta])* $name:ident ()) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
        pub(crate) struct $name;
    };
    (@define $(#[$meta:meta])* $name:ident ($($field:ty),+)) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub(crate) struct $name($(pub(crate) $field),+);
    };
}

message!(#[doc = "Answered with the sum, `OUT_OF_RANGE` if it is too large."] Add(u32, u32) = 1 -> u32);
message!(#[doc = "Answered with the numbers below."] Count(u32) = 2 -> u32);
message!(#[doc = "Answered with the sum of the items."] Sum() = 3 -> u64, items u32);
message!(#[doc = "Answers each item with its double."] Double() = 4 -> u32, items u32);
message!(#[doc = "A notification: the number is kept."] Remember(u32) = 5 -> ());
message!(#[doc = "Answered with all numbers kept so far."] Recall() = 6 -> Vec<u32>);
message!(#[doc = "Answered with the call's metadata."] Describe() = 8 -> Vec<(String, Vec<u8>)>);
message!(#[doc = "Answered with the milliseconds that are left of the call's time."] TimeLeft() = 9 -> Option<u64>);
message!(#[doc = "Answered with the server's process id."] Who() = 10 -> u32);
message!(#[doc = "Never answered."] Stuck() = 11 -> ());
message!(#[doc = "A stream that sends one item and then nothing."] StuckStream() = 12 -> u32);
message!(#[doc = "An upload whose items nobody takes."] StuckUpload() = 13 -> u32, items Vec<u8>);
message!(#[doc = "Computes in a thread, without awaiting, until it is cancelled."] Busy() = 14 -> ());
message!(#[doc = "A stream whose handler awaits the end of the caller's interest."] Watching() = 15 -> u32);
message!(#[doc = "Panics."] Panic() = 16 -> ());
message!(#[doc = "Sends so many items of so many bytes, counting each."] Pour(u32, u32) = 17 -> Raw);
message!(#[doc = "Answered once the server has seen at least so much."] WaitFor(Seen) = 18 -> ());
message!(#[doc = "Answered with what the server has seen."] Look() = 19 -> Seen);
message!(#[doc = "Answered when `Open` has been called since."] Gate() = 20 -> u32);
message!(#[doc = "Lets every `Gate` answer."] Open() = 21 -> ());
message!(#[doc = "Makes the server call itself: a `Stuck` with the deadline of this call."] Nested() = 23 -> ());
message!(#[doc = "Answered with the numbers below, many to a frame."] CountFed(u32) = 25 -> u32);
message!(#[doc = "Looks whether it is cancelled after so many milliseconds, and answers that."] LookLate(u64) = 26 -> bool);
message!(#[doc = "Opens a byte stream."] Tunnel(Through) = 24 -> Raw, items Raw);

/// What the other end of a byte stream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Through {
    /// Sends everything back, to the end.
    Echo,
    /// Sends [`WELCOME`] and shuts down, then reads to the end and counts. A task waits for `Open` before it says that it has.
    Greet,
    /// Neither reads nor writes.
    Ignore,
    /// Sends zeros without end, and counts.
    Pour,
    /// Answers with a status.
    Refuse,
}

/// What [`Through::Greet`] sends.
pub(crate) const WELCOME: &[u8] = b"welcome";

/// What the handlers of the server have seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Handlers of `Stuck`, `StuckStream`, `StuckUpload` and `Gate` that have started.
    pub(crate) started: u32,
    /// Futures of those that have been dropped before they were ready.
    pub(crate) dropped: u32,
    /// `Busy` handlers that have started.
    pub(crate) busy: u32,
    /// `Busy` handlers that have seen `is_cancelled` turn true.
    pub(crate) cancelled_while_busy: u32,
    /// `Watching` handlers that `cancelled` has told of the end.
    pub(crate) told: u32,
    /// Items that `Pour` has sent.
    pub(crate) poured: u32,
    /// Bytes that `Tunnel` handlers have read or sent, if they count.
    pub(crate) piped: u64,
    /// Byte streams that `Greet` has read to their end.
    pub(crate) read_to_end: u32,
    /// Byte streams that `Greet` could not read to their end, in threads.
    pub(crate) cut_short: u32,
}

impl Seen {
    pub(crate) fn covers(&self, least: &Self) -> bool {
        self.started >= least.started
            && self.dropped >= least.dropped
            && self.busy >= least.busy
            && self.cancelled_while_busy >= least.cancelled_while_busy
            && self.told >= least.told
            && self.poured >= least.poured
            && self.piped >= least.piped
            && self.read_to_end >= least.read_to_end
            && self.cut_short >= least.cut_short
    }
}

/// Raw bytes, answered with the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct Echo(pub(crate) Bytes);

impl Message for Echo {
    const TYPE: MessageType = MessageType::new(7);
    type Reply = Raw;
}

impl Payload for Echo {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.0);
        Ok(())
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        Ok(Self(bytes.into_bytes()))
    }

    fn as_bytes(&self) -> Option<&Bytes> {
        Some(&self.0)
    }
}

/// A message that no server knows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Unheard;

impl Message for Unheard {
    const TYPE: MessageType = MessageType::new(0xDEAD);
    type Reply = ();
}

/// Says it is an `Add` and is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NoAdd(pub(crate) Vec<u8>);

impl Message for NoAdd {
    const TYPE: MessageType = Add::TYPE;
    type Reply = u32;
}

/// Bytes that look random and are the same each time.
pub(crate) fn pattern(length: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

/// Answered with a list of pairs, which this type takes for a number.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct TypeOfAnother;

impl Message for TypeOfAnother {
    const TYPE: MessageType = Look::TYPE;
    type Reply = String;
}
