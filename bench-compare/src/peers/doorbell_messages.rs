//! The messages that Doorbell's rows exchange.
//!
//! There are two kinds of body: [`Raw`] bytes of any size, which need memory of their own wherever they arrive, and a
//! [`Block`] of 64 bytes, which lives where it is used, as a small message of an application does. What Node.js is compared
//! with is a [`CompletionRequest`], encoded and decoded by serde.

use anyhow::ensure;
use bytes::Bytes;
use doorbell::{DecodeError, EncodeError, Incoming, Message, MessageType, Payload, Raw};
use serde::{Deserialize, Serialize};

use crate::payload;

/// What an echo message carries.
pub(super) trait Body: Payload + Clone + Sync {
    /// Number of [`Echo`]; those of the other messages follow.
    const FIRST_TYPE: u32;

    /// Makes a body with `number` at both ends; `size_bytes` must be one that it can have.
    fn new(size_bytes: usize, number: u64) -> Self;

    /// Returns the bytes.
    fn bytes(&self) -> &[u8];
}

/// Sixty-four bytes.
#[derive(Clone, Debug)]
pub(super) struct Block([u8; BLOCK_BYTES]);

impl Body for Block {
    const FIRST_TYPE: u32 = 11;

    fn new(_size_bytes: usize, number: u64) -> Self {
        let mut block = Self([0x5A; BLOCK_BYTES]);
        payload::stamp(&mut block.0, number);
        block
    }

    fn bytes(&self) -> &[u8] {
        &self.0
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

    fn new(size_bytes: usize, number: u64) -> Self {
        Self::from(payload::message(size_bytes, number))
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Asks for the body back.
#[derive(Clone, Debug)]
pub(super) struct Echo<B>(pub(super) B);

/// Tells the body to somebody who looks at it and does not answer.
#[derive(Clone, Debug)]
pub(super) struct Tell<B>(pub(super) B);

/// Asks for an endless stream of bodies of this size, numbered at both ends.
#[derive(Clone, Debug)]
pub(super) struct Pour<B>(pub(super) B);

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

            fn as_bytes(&self) -> Option<&Bytes> {
                self.0.as_bytes()
            }
        }
    };
}

message!(Echo, 0, B);
message!(Tell, 1, ());
message!(Pour, 2, B);

/// What an editor asks its engine, as Node.js programs send it: `{type, data: {prompt, model}}`.
#[derive(Clone, Debug, Serialize, Deserialize, doorbell::Message)]
#[message(type = 21, reply = CompletionReply)]
pub(super) struct CompletionRequest {
    pub(super) r#type: String,
    pub(super) data: CompletionData,
}

/// The answer, as large as the request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CompletionReply {
    pub(super) r#type: String,
    pub(super) data: CompletionData,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CompletionData {
    pub(super) prompt: String,
    pub(super) model: String,
}

impl CompletionRequest {
    /// Makes a request whose prompt has `size_bytes`, with `number` at both ends.
    pub(super) fn new(size_bytes: usize, number: u64) -> Self {
        let (ends, middle) = (format!("{number:08}"), size_bytes.saturating_sub(16));
        Self {
            r#type: "completion_request".into(),
            data: CompletionData {
                prompt: format!("{ends}{}{ends}", "x".repeat(middle)),
                model: "small-and-fast".into(),
            },
        }
    }

    /// Answers the request.
    pub(super) fn reply(self) -> CompletionReply {
        CompletionReply {
            r#type: "completion_response".into(),
            data: self.data,
        }
    }

    /// Returns what the reply is checked against.
    pub(super) fn seal(&self) -> Seal {
        Seal::of(&self.data.prompt)
    }
}

impl CompletionReply {
    /// Checks that this answers the request with that seal, and makes the next request of it.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub(super) fn open(self, sent: Seal) -> anyhow::Result<CompletionRequest> {
        ensure!(
            self.r#type == "completion_response",
            "the reply has another type"
        );
        ensure!(
            Seal::of(&self.data.prompt) == sent,
            "the reply is not what was asked for"
        );
        Ok(CompletionRequest {
            r#type: "completion_request".into(),
            data: self.data,
        })
    }
}

/// Length and both ends of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal(usize, (u64, u64));

impl Seal {
    fn of(prompt: &str) -> Self {
        Self(prompt.len(), payload::ends(prompt.as_bytes()))
    }
}

/// Size of a [`Block`].
pub(super) const BLOCK_BYTES: usize = 64;
