//! The messages of the echo service, which `ping`, `serve --echo` and the benchmarks share.
//!
//! There are two kinds of body: [`Raw`] bytes of any size, which need memory of their own wherever they arrive, and a
//! [`Block`] of 64 bytes, which lives where it is used, as a small message of an application does.

use doorbell::{DecodeError, EncodeError, Incoming, Message, MessageType, Payload, Raw, Upload};
use serde::{Deserialize, Serialize};

/// What an echo message carries.
pub(crate) trait Body: Payload + Clone + Sync {
    /// Number of [`Echo`]; those of the other messages follow.
    const FIRST_TYPE: u32;

    /// Makes a body; `size_bytes` must be one that it can have.
    fn of_size(size_bytes: usize) -> Self;

    /// Returns the bytes.
    fn bytes(&self) -> &[u8];

    /// Writes a number into the body, if it can be done in place.
    fn stamp(&mut self, number: u64);

    /// Returns another one, with a number in it if that can be.
    fn stamped(&self, number: u64) -> Self {
        let mut body = self.clone();
        body.stamp(number);
        body
    }

    /// Returns the first eight bytes as a number: the least that somebody who handles a message looks at.
    fn first_word(&self) -> u64 {
        self.bytes()
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    }
}

/// Sixty-four bytes, aligned as a message of numbers is. (Plain bytes lie behind the tag of a `Result`, from where they are moved in pieces that
/// overlap those in which they were written, and the processor waits for these: more than the rest of the way of a small notification.)
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub(crate) struct Block([u8; Self::BYTES]);

impl Block {
    pub(crate) const BYTES: usize = 64;
}

impl Body for Block {
    const FIRST_TYPE: u32 = 11;

    fn of_size(size_bytes: usize) -> Self {
        assert_eq!(size_bytes, Self::BYTES, "a block has one size");
        Self([FILL; Self::BYTES])
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn stamp(&mut self, number: u64) {
        self.0[..8].copy_from_slice(&number.to_le_bytes());
    }
}

impl Payload for Block {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.0);
        Ok(())
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        bytes
            .as_slice()
            .try_into()
            .map(Self)
            .map_err(DecodeError::new)
    }
}

impl Body for Raw {
    const FIRST_TYPE: u32 = 1;

    fn of_size(size_bytes: usize) -> Self {
        Self::from(vec![FILL; size_bytes])
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn stamp(&mut self, _number: u64) {
        // The bytes are shared with whoever is still sending them.
    }
}

/// Asks for the body back.
#[derive(Clone, Debug)]
pub(crate) struct Echo<B>(pub(crate) B);

/// Tells the body to somebody who looks at it and does not answer.
#[derive(Clone, Debug)]
pub(crate) struct Tell<B>(pub(crate) B);

/// Asks for an endless stream of bodies like this one.
#[derive(Clone, Debug)]
pub(crate) struct Pour<B>(pub(crate) B);

/// Asks for the same stream, small bodies collected into frames.
#[derive(Clone, Debug)]
pub(crate) struct PourFed<B>(pub(crate) B);

/// Tells that bodies follow, which somebody looks at and counts.
#[derive(Clone, Debug)]
pub(crate) struct Take<B>(pub(crate) B);

/// Tells that bodies follow, each of which is to come back.
#[derive(Clone, Debug)]
pub(crate) struct Talk<B>(pub(crate) B);

/// Opens a stream of bytes, the number of which is the answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Tunnel;

impl Message for Tunnel {
    const TYPE: MessageType = MessageType::new(21);
    type Reply = Raw;
}

impl Upload for Tunnel {
    type Item = Raw;
}

macro_rules! message {
    ($message:ident, $offset:literal, $reply:ty) => {
        impl<B: Body> Message for $message<B> {
            const TYPE: MessageType = MessageType::new(B::FIRST_TYPE + $offset);
            type Reply = $reply;
        }

        impl<B: Body> Payload for $message<B> {
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                self.0.encode(out)
            }

            fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
                B::decode(bytes).map(Self)
            }

            fn as_bytes(&self) -> Option<&bytes::Bytes> {
                self.0.as_bytes()
            }
        }
    };
}

message!(Echo, 0, B);
message!(Tell, 1, ());
message!(Pour, 2, B);
message!(Take, 3, u64);
message!(Talk, 4, B);
message!(PourFed, 5, B);

impl<B: Body> Upload for Take<B> {
    type Item = B;
}

impl<B: Body> Upload for Talk<B> {
    type Item = B;
}

/// What bodies are filled with.
const FILL: u8 = 0x5A;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_another_size_is_refused() {
        assert!(Block::decode(Incoming::Borrowed(&[0; 63])).is_err());
        assert!(Block::decode(Incoming::Borrowed(&[0; 64])).is_ok());
    }

    #[test]
    fn messages_of_both_bodies_have_different_numbers() {
        let numbers = [
            Echo::<Raw>::TYPE,
            Tell::<Raw>::TYPE,
            Pour::<Raw>::TYPE,
            PourFed::<Raw>::TYPE,
            Take::<Raw>::TYPE,
            Talk::<Raw>::TYPE,
            Echo::<Block>::TYPE,
            Tell::<Block>::TYPE,
            Pour::<Block>::TYPE,
            PourFed::<Block>::TYPE,
            Take::<Block>::TYPE,
            Talk::<Block>::TYPE,
            Tunnel::TYPE,
        ];
        let mut unique: Vec<_> = numbers.iter().map(|number| number.get()).collect();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), numbers.len());
    }
}
