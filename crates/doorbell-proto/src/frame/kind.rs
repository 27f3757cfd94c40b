//! The small vocabulary of frames: kinds, flags, ids and reasons.

use std::fmt;

/// What a frame is. Kind 0, padding, belongs to the ring and never reaches this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Opens a call and carries its request.
    Call = 1,
    /// Answers a unary or client-stream call and ends it.
    Response = 2,
    /// Ends a call with a status.
    Error = 3,
    /// One stream item, or a part of one.
    Data = 4,
    /// No more items from this side; from the server it ends the call.
    End = 5,
    /// The client has lost interest.
    Cancel = 6,
    /// Allows the peer to send more bytes of items.
    Credit = 7,
    /// A message without an answer.
    Notify = 8,
    /// Asks for a [`FrameKind::Pong`].
    Ping = 9,
    /// Answers a [`FrameKind::Ping`].
    Pong = 10,
    /// The sender is about to leave.
    GoAway = 11,
    /// A segment for loans has been made and sent, or could not be had.
    Segment = 12,
    /// The client has loans to make and no room for them.
    WantSegment = 13,
    /// The writer of a segment has no use for it any more.
    Retire = 14,
    /// The reader of a block is done with it.
    Release = 15,
    /// The server has had nothing to do for the client for a while: memory that was used before can go back to the system.
    Quiet = 16,
}

impl FrameKind {
    /// Returns the kind with this number on the wire.
    #[inline]
    pub const fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Call,
            2 => Self::Response,
            3 => Self::Error,
            4 => Self::Data,
            5 => Self::End,
            6 => Self::Cancel,
            7 => Self::Credit,
            8 => Self::Notify,
            9 => Self::Ping,
            10 => Self::Pong,
            11 => Self::GoAway,
            12 => Self::Segment,
            13 => Self::WantSegment,
            14 => Self::Retire,
            15 => Self::Release,
            16 => Self::Quiet,
            _ => return None,
        })
    }

    /// Returns the name used in the wire format document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "CALL",
            Self::Response => "RESPONSE",
            Self::Error => "ERROR",
            Self::Data => "DATA",
            Self::End => "END",
            Self::Cancel => "CANCEL",
            Self::Credit => "CREDIT",
            Self::Notify => "NOTIFY",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::GoAway => "GOAWAY",
            Self::Segment => "SEGMENT",
            Self::WantSegment => "WANT_SEGMENT",
            Self::Retire => "RETIRE",
            Self::Release => "RELEASE",
            Self::Quiet => "QUIET",
        }
    }

    /// Returns the flags that the wire format allows on this kind.
    #[inline]
    pub(crate) const fn allowed_flags(self) -> Flags {
        const DIVISIBLE: u8 = Flags::MORE.0 | Flags::CONTINUE.0 | Flags::BODY_CRC.0;
        const MESSAGE: u8 = DIVISIBLE | Flags::LOANED.0;
        const CALL: u8 = MESSAGE | Flags::DEADLINE.0 | Flags::UPLOAD.0 | Flags::STREAMING.0;
        match self {
            Self::Call => Flags(CALL),
            Self::Response => Flags(MESSAGE),
            Self::Data => Flags(MESSAGE | Flags::PACKED.0),
            Self::Notify => Flags(Flags::BODY_CRC.0 | Flags::PACKED.0),
            Self::Error => Flags(Flags::NOT_EXECUTED.0 | Flags::BODY_CRC.0),
            _ => Flags::BODY_CRC,
        }
    }

    /// Returns `true` if frames of this kind may carry metadata.
    #[inline]
    pub(crate) const fn has_metadata(self) -> bool {
        matches!(
            self,
            Self::Call | Self::Response | Self::Error | Self::Notify
        )
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Flags of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The message goes on in a later frame.
    pub const MORE: Self = Self(0x01);
    /// The frame continues a message.
    pub const CONTINUE: Self = Self(0x02);
    /// The body starts with the remaining time.
    pub const DEADLINE: Self = Self(0x04);
    /// The checksum covers the body too.
    pub const BODY_CRC: Self = Self(0x08);
    /// The client will send items.
    pub const UPLOAD: Self = Self(0x10);
    /// The answer is a stream of items.
    pub const STREAMING: Self = Self(0x20);
    /// No handler has seen the request. On `ERROR` only.
    pub const NOT_EXECUTED: Self = Self(0x40);
    /// The payload is a descriptor of a block that is lent. The same bit, on messages.
    pub const LOANED: Self = Self(0x40);
    /// The body is several messages.
    pub const PACKED: Self = Self(0x80);

    /// Returns the flags with these bits, valid or not.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the bits as they are on the wire.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns `true` if every flag of `other` is set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets every flag of `other`.
    #[inline]
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Returns these flags and those of `other`.
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns these flags without those of `other`.
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Number of a message type, chosen by the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageType(u32);

impl MessageType {
    /// Returns the message type with this number.
    #[inline]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies one call on one connection: a slot and how often the slot has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// Returns the id of use `generation` of `slot`.
    #[inline]
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | slot as u64)
    }

    /// Returns the id with this number on the wire.
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Returns the number on the wire.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Returns the slot, an index below the `max_calls` of the connection.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.0 as u32 // the low half
    }

    /// Returns how often the slot has been used, modulo 2^32.
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.generation())
    }
}

/// Which side of a call sends items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// One request, one response.
    Unary,
    /// One request, a stream of items as the answer.
    ServerStream,
    /// A request followed by items, one response.
    ClientStream,
    /// Items in both directions.
    Bidirectional,
}

impl CallKind {
    /// Returns `true` if the client sends items after its request.
    #[inline]
    pub const fn has_upload(self) -> bool {
        matches!(self, Self::ClientStream | Self::Bidirectional)
    }

    /// Returns `true` if the server answers with items.
    #[inline]
    pub const fn is_streaming(self) -> bool {
        matches!(self, Self::ServerStream | Self::Bidirectional)
    }

    /// Returns the flags that open a call of this kind.
    #[inline]
    pub const fn flags(self) -> Flags {
        match self {
            Self::Unary => Flags::NONE,
            Self::ServerStream => Flags::STREAMING,
            Self::ClientStream => Flags::UPLOAD,
            Self::Bidirectional => Flags::UPLOAD.with(Flags::STREAMING),
        }
    }

    /// Returns the kind of call that a `CALL` frame with these flags opens.
    #[inline]
    pub const fn from_flags(flags: Flags) -> Self {
        match (
            flags.contains(Flags::UPLOAD),
            flags.contains(Flags::STREAMING),
        ) {
            (false, false) => Self::Unary,
            (false, true) => Self::ServerStream,
            (true, false) => Self::ClientStream,
            (true, true) => Self::Bidirectional,
        }
    }
}

/// Why a side leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum GoAwayReason {
    /// The process or the service is about to end.
    ShuttingDown = 0,
    /// The peer broke the protocol.
    ProtocolError = 1,
    /// Nothing has happened for long.
    Idle = 2,
    /// The connection has reached a limit.
    LimitReached = 3,
}

impl GoAwayReason {
    /// Returns the reason with this number on the wire.
    #[inline]
    pub const fn from_u32(reason: u32) -> Option<Self> {
        Some(match reason {
            0 => Self::ShuttingDown,
            1 => Self::ProtocolError,
            2 => Self::Idle,
            3 => Self::LimitReached,
            _ => return None,
        })
    }

    /// Returns the number on the wire.
    #[inline]
    pub const fn as_u32(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for GoAwayReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShuttingDown => "shutting down",
            Self::ProtocolError => "protocol error",
            Self::Idle => "idle",
            Self::LimitReached => "limit reached",
        })
    }
}
