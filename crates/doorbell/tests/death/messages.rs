//! One message for every kind of call. Each carries a number that is used once, and a seal that shows whether its bytes are whole.

use std::time::Duration;

use doorbell::{Loaned, Message, MessageType, Payload, Upload};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that belong to one number.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) id: u64,
    bytes: Block,
    seal: u32,
}

/// Bytes that serde takes in one piece: tests are not optimised, and one call for each byte would be most of what they do.
#[derive(Clone, Debug)]
struct Block(Vec<u8>);

impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(|bytes| Self(bytes.to_vec()))
    }
}

impl Sealed {
    pub(crate) fn new(id: u64, length: usize) -> Self {
        let pattern: Vec<u8> = (0..PATTERN_BYTES as u64)
            .map(|index| (id.wrapping_mul(31) ^ index.wrapping_mul(7)) as u8)
            .collect();
        let mut bytes = pattern.repeat(length / PATTERN_BYTES + 1);
        bytes.truncate(length);
        let seal = seal(id, &bytes);
        Self {
            id,
            bytes: Block(bytes),
            seal,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        seal(self.id, &self.bytes.0) == self.seal
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.0.len()
    }
}

/// The same in a loan: number, seal, bytes.
impl Sealed {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (id, seal) = (self.id.to_le_bytes(), self.seal.to_le_bytes());
        [&id[..], &seal, &self.bytes.0].concat()
    }

    /// What is too short for it is torn.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let number = |range| {
            bytes
                .get(range)
                .and_then(|bytes: &[u8]| bytes.try_into().ok())
        };
        let id = number(0..8).map_or(0, u64::from_le_bytes);
        let seal = bytes.get(8..12).and_then(|seal| seal.try_into().ok());
        Self {
            id,
            bytes: Block(bytes.get(12..).unwrap_or_default().to_vec()),
            seal: seal.map_or(0, u32::from_le_bytes),
        }
    }
}

/// Answered with a loan of as many bytes.
#[derive(Payload)]
#[payload(loaned)]
pub(crate) struct Borrow(pub(crate) Loaned);

impl Message for Borrow {
    const TYPE: MessageType = MessageType::new(7);
    type Reply = Loaned;
}

fn seal(id: u64, bytes: &[u8]) -> u32 {
    doorbell_shm::crc32c(doorbell_shm::crc32c(0, &id.to_le_bytes()), bytes)
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident $number:literal $reply:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Serialize, Deserialize)]
        pub(crate) struct $name(pub(crate) Sealed);
        impl Message for $name {
            const TYPE: MessageType = MessageType::new($number);
            type Reply = $reply;
        }
    )*};
}

messages! {
    /// Answered with as many bytes.
    Echo 1 Sealed;
    /// Answered from a task or after a while, with as many bytes.
    Later 2 Sealed;
    /// Answered with [`ITEMS`] items of the same size.
    Repeat 3 Sealed;
    /// Followed by items; answered with the number of bytes in them.
    Collect 4 u64;
    /// Followed by items; each is sent back.
    Mirror 5 Sealed;
    /// Not answered.
    Tell 6 ();
}

impl Upload for Collect {
    type Item = Sealed;
}
impl Upload for Mirror {
    type Item = Sealed;
}

/// Items of a stream: more than a small ring takes at once.
pub(crate) const ITEMS: u64 = 20;

/// Bytes after which a message repeats itself: a prime, so that no part of it is like the part that belongs a chunk further on.
const PATTERN_BYTES: usize = 509;

/// What a call is given that is to take longer.
pub(crate) const TOO_SHORT: Duration = Duration::from_millis(2);

/// What a call came to.
pub(crate) enum Answer {
    /// All of it arrived, whole.
    Whole,
    /// Something arrived that was never sent so.
    Torn,
    /// It failed.
    Failed(doorbell::CallError),
    /// It was given up on purpose.
    GivenUp,
}

/// Shape of a call, chosen at random.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Small,
    Large,
    Later,
    Stream,
    Upload,
    Both,
    Tell,
    GiveUp,
    /// It takes longer than it may.
    Expire,
    /// In loans, there and back.
    Lend,
}

impl Shape {
    pub(crate) const ALL: [Self; 10] = [
        Self::Small,
        Self::Large,
        Self::Later,
        Self::Stream,
        Self::Upload,
        Self::Both,
        Self::Tell,
        Self::GiveUp,
        Self::Expire,
        Self::Lend,
    ];

    pub(crate) fn pick(random: &mut super::Random) -> Self {
        Self::ALL[random.below(Self::ALL.len() as u64) as usize]
    }

    /// Bytes of its messages: a few, or several frames of 16 KiB.
    pub(crate) fn length(self, random: &mut super::Random) -> usize {
        match self {
            // Segments for the larger ones are too large to be kept.
            Self::Large | Self::Lend => 20_000 + random.below(150_000) as usize,
            // Not for `Both`, where all are sent before any is read: they would not fit into the two windows.
            Self::Stream | Self::Upload if random.below(8) == 0 => 20_000,
            Self::Stream | Self::Upload | Self::Both => random.below(2000) as usize,
            _ => random.below(600) as usize,
        }
    }
}
