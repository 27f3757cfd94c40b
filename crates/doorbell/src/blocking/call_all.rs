//! Many calls of a thread, from their settings to their replies.

use std::{fmt, time::Instant};

use super::Client;
use crate::{
    client::{Pipeline, WINDOW, call_all_settings},
    error::CallError,
    message::Message,
};

/// Many calls that have not been sent yet. `open` them, after setting what they need.
#[must_use = "calls are only sent when their replies are asked for"]
pub struct CallAll<'c, I> {
    client: &'c Client,
    messages: I,
    window: usize,
    deadline: Option<Instant>,
}

impl<'c, I> CallAll<'c, I> {
    pub(super) fn new(client: &'c Client, messages: I) -> Self {
        Self {
            client,
            messages,
            window: WINDOW,
            deadline: None,
        }
    }

    call_all_settings!();
}

impl<M: Message, I: Iterator<Item = M>> CallAll<'_, I> {
    /// Returns the replies, as they come.
    ///
    /// # Errors
    ///
    /// There is no connection. Nothing has been sent.
    pub fn open(self) -> Result<Replies<I>, CallError> {
        let connection = self.client.connection(self.deadline)?;
        let calls = Pipeline::new(connection, self.messages, self.window, self.deadline);
        Ok(Replies(calls))
    }
}

/// The replies to many calls, in the order of their messages. Dropping it cancels those that are under way.
///
/// Calls are started while the next reply is asked for, and nowhere else. An item is an error if its call failed; those behind it go on, except
/// after an error that kept one from being sent, which no other follows.
pub struct Replies<I: Iterator>(Pipeline<I>);

impl<M: Message, I: Iterator<Item = M>> Iterator for Replies<I> {
    type Item = Result<M::Reply, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_blocking()
    }
}

impl<I: Iterator> fmt::Debug for Replies<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").finish_non_exhaustive()
    }
}
