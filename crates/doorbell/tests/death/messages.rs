//! One message for every kind of call. Each carries a number that is used once, and a seal that shows whether its bytes are whole.

use doorbell::{Message, MessageType, Upload};
use serde::{Deserialize, Serialize};

/// Bytes that belong to one number.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) id: u64,
    bytes: Vec<u8>,
    seal: u32,
}

impl Sealed {
    pub(crate) fn new(id: u64, length: usize) -> Self {
        let bytes: Vec<u8> = (0..length as u64)
            .map(|index| (id.wrapping_mul(31) ^ index.wrapping_mul(7)) as u8)
            .collect();
        let seal = seal(id, &bytes);
        Self { id, bytes, seal }
    }

    pub(crate) fn is_whole(&self) -> bool {
        seal(self.id, &self.bytes) == self.seal
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
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

/// Items of a stream.
pub(crate) const ITEMS: u64 = 5;

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
}

impl Shape {
    pub(crate) fn pick(random: &mut super::Random) -> Self {
        const ALL: [Shape; 8] = [
            Shape::Small,
            Shape::Large,
            Shape::Later,
            Shape::Stream,
            Shape::Upload,
            Shape::Both,
            Shape::Tell,
            Shape::GiveUp,
        ];
        ALL[random.below(8) as usize]
    }

    /// Bytes of its messages: a few, or several frames of 16 KiB.
    pub(crate) fn length(self, random: &mut super::Random) -> usize {
        match self {
            Self::Large => 20_000 + random.below(150_000) as usize,
            Self::Stream | Self::Upload | Self::Both => random.below(20_000) as usize,
            _ => random.below(600) as usize,
        }
    }
}
