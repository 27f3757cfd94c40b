//! The halves of a stream, for threads.

use std::time::Instant;

use crate::{
    error::CallError,
    message::Payload,
    stream::{self, ItemError},
};

/// Sends the items of one stream. On a client, dropping it says that no more items follow.
#[derive(Debug)]
pub struct ItemSender<T>(pub(super) stream::ItemSender<T>, pub(super) Option<Instant>);

impl<T: Payload> ItemSender<T> {
    /// Sends one item, waiting until the receiver has room for it.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; after [`ItemError::Over`] every later item fails in the same way.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the same as the awaiting sender"
    )]
    pub fn send(&mut self, item: T) -> Result<(), ItemError> {
        self.0.send_blocking(&item, self.1)
    }

    /// Adds one item to those that are sent together, waiting until the receiver has room for it.
    ///
    /// Small items cost a fraction of what they cost when each is [sent](Self::send): many share a frame. The receiver sees them when
    /// 4 KiB have come together, or with the next [`flush`](Self::flush) or [`send`](Self::send), or when the sender is finished or
    /// dropped; nothing else sends them, so flush before you do anything that takes time.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; after [`ItemError::Over`] every later item fails in the same way, and those fed before may be lost.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the same as the awaiting sender"
    )]
    pub fn feed(&mut self, item: T) -> Result<(), ItemError> {
        self.0.feed_blocking(&item, self.1)
    }

    /// Sends the items that were [fed](Self::feed). Never waits: there is room for what has been fed.
    ///
    /// # Errors
    ///
    /// [`ItemError::Over`]: nobody wants them any more.
    pub fn flush(&mut self) -> Result<(), ItemError> {
        self.0.flush()
    }

    /// Sends what was [fed](Self::feed) and says that no more items follow. The same as dropping the sender.
    pub fn finish(self) {}
}

/// Receives the items of one stream, in order. On a client, dropping it before its end cancels the call.
///
/// An item is an error if the stream ended early; nothing follows it.
#[derive(Debug)]
pub struct ItemStream<T>(pub(super) stream::ItemStream<T>);

impl<T: Payload> Iterator for ItemStream<T> {
    type Item = Result<T, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_blocking()
    }
}
