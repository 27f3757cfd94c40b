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

    /// Says that no more items follow. The same as dropping the sender.
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
