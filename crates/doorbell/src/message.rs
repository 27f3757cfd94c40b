//! What travels: messages, their types and their encodings.
//!
//! A [`Message`] is an ordinary type that a client sends: it has a number, and it names what comes back. Everything that is
//! sent is a [`Payload`], which is any type with serde's traits (encoded with postcard), [`Raw`] bytes, or a type that
//! implements [`Payload`] itself.

use bytes::Bytes;
pub use doorbell_proto::MessageType;
use serde::{Serialize, de::DeserializeOwned};

use crate::{loan::Loaned, nesting};

/// A request or notification, and what answers it.
///
/// ```
/// use doorbell::{Message, MessageType};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Complete {
///     prefix: String,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Completion {
///     text: String,
/// }
///
/// impl Message for Complete {
///     const TYPE: MessageType = MessageType::new(7);
///     type Reply = Completion;
/// }
/// ```
pub trait Message: Payload {
    /// Number by which the server finds the handler. Both sides must agree on it; it is all that a frame says about its type.
    const TYPE: MessageType;
    /// The answer, or one item of it when the answer is a stream. `()` for messages that are only notified.
    type Reply: Payload;
}

/// A request that is followed by a stream of items from the client.
pub trait Upload: Message {
    /// One item from the client.
    type Item: Payload;
}

/// A value that can be sent.
///
/// Implemented for every type that is [`Serialize`] and [`DeserializeOwned`], by way of postcard; and for [`Raw`]. A type
/// without serde's traits can implement it by hand, or with `#[derive(Payload)]` and rkyv.
pub trait Payload: Sized + Send + 'static {
    /// Appends the encoded form to `out`.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the value has no encoded form; nothing is sent then.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads a value from bytes that arrived. The bytes are private memory of this process and no longer change.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if they are not the encoded form of a value. They come from a peer: never panic on them.
    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError>;

    /// Reads a value from a payload that lies where the peer wrote it. By default it is copied first; a type that keeps it, as
    /// [`Loaned`] does, says so here.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are not the encoded form of a value.
    fn decode_loaned(loaned: Loaned) -> Result<Self, DecodeError> {
        Self::decode(Incoming::Owned(loaned.copy_to_vec()))
    }

    /// Returns the payload itself if the value is one that can be sent without a copy.
    fn as_loaned(&self) -> Option<&Loaned> {
        None
    }

    /// Returns the bytes themselves if the value is its own encoded form, so that they are sent without a copy in between.
    fn as_bytes(&self) -> Option<&Bytes> {
        None
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Payload for T {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        postcard::serialize_with_flavor(self, Append(out)).map_err(EncodeError::new)
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        match nesting::decode(bytes.as_slice()) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(DecodeError::trailing(rest.len())),
            Err(nesting::Failed::TooDeep) => Err(DecodeError::new("it is nested too deeply")),
            Err(nesting::Failed::Invalid(error)) => Err(DecodeError::new(error)),
        }
    }
}

/// Raw bytes: sent and received as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl Payload for Raw {
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

impl<T: Into<Bytes>> From<T> for Raw {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

/// Bytes of one message that arrived, in private memory.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// A small message, still in the buffer of whoever received it.
    Borrowed(&'a [u8]),
    /// A message with a buffer of its own.
    Owned(Vec<u8>),
}

impl Incoming<'_> {
    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    /// Returns the bytes as an owned value; copies only small messages.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Owned(bytes) => Bytes::from(bytes),
        }
    }
}

/// Why a value could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be encoded: {0}")]
pub struct EncodeError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl EncodeError {
    /// Wraps the cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// Why bytes are not the encoded form of a value.
#[derive(Debug, thiserror::Error)]
#[error("the payload is not a valid message: {0}")]
pub struct DecodeError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl DecodeError {
    /// Wraps the cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }

    fn trailing(bytes: usize) -> Self {
        Self::new(format!("{bytes} bytes follow the end of the value"))
    }
}

/// Postcard output that appends to a vector and, unlike postcard's own, keeps the vector's allocation for the next message.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_decodes_to_what_was_encoded() {
        let mut out = Vec::new();
        (7u32, "seven".to_owned()).encode(&mut out).unwrap();
        let back: (u32, String) = Payload::decode(Incoming::Borrowed(&out)).unwrap();
        assert_eq!(back, (7, "seven".to_owned()));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let error = <u8 as Payload>::decode(Incoming::Borrowed(&[1, 2, 3])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the payload is not a valid message: 2 bytes follow the end of the value"
        );
    }

    #[test]
    fn raw_bytes_are_their_own_encoding() {
        let raw = Raw::from(vec![1, 2, 3]);
        assert_eq!(raw.as_bytes().unwrap().as_ref(), [1, 2, 3]);
        assert_eq!(Raw::decode(Incoming::Owned(vec![1, 2, 3])).unwrap(), raw);
    }
}
