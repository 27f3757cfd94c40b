//! The two halves of a stream, the same on both sides of a connection.
//!
//! Items of one stream arrive in the order in which they were sent. Each direction of each stream has a window of credit: a
//! receiver that does not take its items stops the sender of that stream and nobody else.

#[cfg(feature = "tokio")]
mod bytes;
pub(crate) mod chunks;
mod receiver;
mod sender;
mod turns;

#[cfg(feature = "tokio")]
pub use bytes::{ByteReader, ByteStream, ByteWriter};
pub use receiver::ItemStream;
pub use sender::{ItemError, ItemSender};
#[cfg(feature = "tokio")]
pub(crate) use turns::Turns;
