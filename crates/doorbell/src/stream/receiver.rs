//! The receiving half.

use std::{
    future::poll_fn,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use doorbell_proto::CallId;

use super::turns::Turns;
use crate::{
    connection::{Awaited, Connection, Inbox, State, TicketKey},
    error::CallError,
    message::{Incoming, Payload},
};

/// Receives the items of one stream, in order.
///
/// On a client, dropping it before its end cancels the call: the server's handler is dropped at its next `await`, and
/// [`Context::is_cancelled`](crate::Context::is_cancelled) is true there at once. On a server it receives what the client uploads.
pub struct ItemStream<T> {
    connection: Arc<Connection>,
    key: TicketKey,
    id: CallId,
    /// Items taken from the connection in one go.
    taken: Inbox,
    /// Credit for items that were handed out, given back in larger pieces.
    owed_bytes: u64,
    /// Cancels the call when dropped: true on the client.
    cancels: bool,
    ended: bool,
    deadline: Option<Instant>,
    slept_since: Option<Instant>,
    turns: Turns,
    items: PhantomData<fn() -> T>,
}

/// What there is to be had.
enum Arrived {
    /// Items, which have been taken.
    Items,
    End,
    Failed(CallError),
}

impl<T: Payload> ItemStream<T> {
    pub(crate) fn new(
        connection: Arc<Connection>,
        key: TicketKey,
        id: CallId,
        cancels: bool,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            connection,
            key,
            id,
            taken: Inbox::default(),
            owed_bytes: 0,
            cancels,
            ended: false,
            deadline,
            slept_since: None,
            turns: Turns::default(),
            items: PhantomData,
        }
    }

    /// The receiving half of a call that a client has started.
    pub(crate) fn of_call(
        connection: Arc<Connection>,
        key: TicketKey,
        deadline: Option<Instant>,
    ) -> Self {
        let id = connection.call_id(key);
        Self::new(connection, key, id, true, deadline)
    }

    /// Returns the next item, or `None` after the last one.
    ///
    /// # Errors
    ///
    /// An item is the error that ended the stream early; nothing follows it. Its
    /// [`outcome`](CallError::outcome) tells whether the handler may have run.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no item.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        #[cfg(feature = "tokio")]
        if let Some(deadline) = self.deadline {
            let item =
                tokio::time::timeout_at(deadline.into(), poll_fn(|cx| self.poll_item(cx))).await;
            if let Ok(item) = item {
                return item;
            }
            self.connection.expire(); // gives this stream its end
        }
        poll_fn(|cx| self.poll_item(cx)).await
    }

    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        ready!(self.turns.poll_next(cx));
        let item = self.next_taken();
        if item.is_some() {
            return Poll::Ready(item);
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.give_credit();
        let (key, taken) = (self.key, &mut self.taken);
        let polled = self
            .connection
            .poll_until(cx, key, Awaited::Arrival, &mut |state| {
                arrived(state, key, taken)
            });
        match polled {
            Poll::Ready(arrived) => {
                if let Some(since) = self.slept_since.take() {
                    self.connection.slept(since);
                }
                Poll::Ready(self.take(arrived))
            }
            Poll::Pending => {
                self.slept_since.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }

    /// The blocking form of [`next`](Self::next).
    pub(crate) fn next_blocking(&mut self) -> Option<Result<T, CallError>> {
        let item = self.next_taken();
        if item.is_some() {
            return item;
        }
        if self.ended {
            return None;
        }
        self.give_credit();
        let (key, taken) = (self.key, &mut self.taken);
        let waited =
            self.connection
                .wait_until(key, Awaited::Arrival, self.deadline, &mut |state| {
                    arrived(state, key, taken)
                });
        match waited {
            Ok(arrived) => self.take(arrived),
            Err(_) => {
                self.connection.expire();
                self.ended = true;
                Some(Err(CallError::DeadlineExceeded))
            }
        }
    }

    fn take(&mut self, arrived: Arrived) -> Option<Result<T, CallError>> {
        match arrived {
            Arrived::Items => self.next_taken(),
            Arrived::End => {
                self.ended = true;
                None
            }
            Arrived::Failed(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }

    /// Returns the next of the items that were taken from the connection.
    #[inline(always)]
    fn next_taken(&mut self) -> Option<Result<T, CallError>> {
        let Some(item) = self.taken.step() else {
            return self.next_with_credit();
        };
        match T::decode(Incoming::Borrowed(item)) {
            Ok(item) => Some(Ok(item)),
            Err(error) => Some(Err(CallError::Decode(error))),
        }
    }

    /// As [`next_taken`](Self::next_taken), of one that may be the last for which something is owed.
    #[inline(never)]
    fn next_with_credit(&mut self) -> Option<Result<T, CallError>> {
        let before_bytes = self.owed_bytes;
        let item = self.taken.pop(&mut self.owed_bytes);
        if self.owed_bytes != before_bytes {
            self.give_much_credit();
        }
        item
    }

    /// Gives credit if there is enough to give.
    #[cold]
    fn give_much_credit(&mut self) {
        if self.owed_bytes > u64::from(self.connection.terms().receive_window_bytes) / 4 {
            self.give_credit();
        }
    }

    fn give_credit(&mut self) {
        if self.owed_bytes > 0 {
            self.connection.item_was_taken(self.id, self.owed_bytes);
            self.owed_bytes = 0;
        }
    }
}

#[cfg(feature = "tokio")]
impl<T> ItemStream<T> {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl<T> ItemStream<T> {
    /// Dropping it will not cancel the call: everything that was wanted has arrived.
    pub(crate) fn disarm(&mut self) {
        self.cancels = false;
    }
}

/// Looks what has arrived: items before the end, the end before a failure of the connection.
fn arrived(state: &mut State, key: TicketKey, taken: &mut Inbox) -> Option<Arrived> {
    let ticket = state.ticket(key);
    if !ticket.items.is_empty() {
        std::mem::swap(&mut ticket.items, taken); // it is empty, and keeps its memory there
        return Some(Arrived::Items);
    }
    if let Some(Err(error)) = ticket.outcome.take_if(|outcome| outcome.is_err()) {
        return Some(Arrived::Failed(error));
    }
    if ticket.items_ended {
        return Some(Arrived::End);
    }
    ticket.over.then(|| {
        Arrived::Failed(CallError::Status(doorbell_proto::Status::cancelled(
            "the call is over",
        )))
    })
}

impl<T> Drop for ItemStream<T> {
    fn drop(&mut self) {
        let owed_bytes = self.owed_bytes + self.taken.clear(); // loans among them go back with what is said now
        if self.cancels {
            self.connection.abandon(self.key, Vec::new());
        } else {
            self.connection.stop_reading(self.key, owed_bytes);
        }
    }
}

impl<T> Unpin for ItemStream<T> {}

#[cfg(feature = "tokio")]
impl<T: Payload> futures_core::Stream for ItemStream<T> {
    type Item = Result<T, CallError>;

    /// Polls for the next item. The call's deadline is looked at only by [`next`](ItemStream::next); here the server ends the stream, once its handler waits.
    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(cx)
    }
}

impl<T> std::fmt::Debug for ItemStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ItemStream")
            .field("id", &self.id)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
