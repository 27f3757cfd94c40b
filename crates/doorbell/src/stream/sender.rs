//! The sending half.

use std::{
    future::poll_fn,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use doorbell_proto::Status;

use crate::{
    connection::{Awaited, Connection, ItemRefused, Outbound, TicketKey},
    error::CallError,
    message::{EncodeError, Payload, Raw},
    scratch,
};

/// Sends the items of one stream.
///
/// On a client, dropping it says that no more items follow. On a server, the stream ends when the handler returns.
pub struct ItemSender<T> {
    connection: Arc<Connection>,
    key: TicketKey,
    on_drop: OnDrop,
    items: PhantomData<fn(T)>,
}

/// What a sender says when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDrop {
    /// That no more items follow: on a client, unless something else is asked for.
    End,
    /// That the call is given up.
    Cancel,
    /// Nothing: on a server, whose handler says it.
    Nothing,
}

/// Why an item was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The other side no longer wants items: the call was cancelled, answered, or its connection has ended.
    #[error("the stream is over")]
    Over,
    /// The item is larger than the other side accepts.
    #[error("the item has {bytes} bytes and the other side accepts {limit}")]
    TooLarge {
        /// Size of the encoded item.
        bytes: u64,
        /// Largest size.
        limit: u64,
    },
    /// The item could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The receiver has not taken enough of the earlier items, and the caller does not want to wait.
    #[error("the receiver has not kept up")]
    Full,
    /// The receiver did not take enough of the earlier items before the deadline.
    #[error("the deadline passed before the receiver had taken enough items")]
    DeadlineExceeded,
}

impl From<ItemError> for Status {
    /// Lets a handler end with `?` when nobody wants its items any more.
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::Over => Self::cancelled(error.to_string()),
            ItemError::TooLarge { .. } | ItemError::Full => {
                Self::resource_exhausted(error.to_string())
            }
            ItemError::Encode(_) => Self::internal(error.to_string()),
            ItemError::DeadlineExceeded => Self::deadline_exceeded(error.to_string()),
        }
    }
}

impl<T: Payload> ItemSender<T> {
    pub(crate) fn new(connection: Arc<Connection>, key: TicketKey, ends: bool) -> Self {
        Self {
            connection,
            key,
            on_drop: if ends { OnDrop::End } else { OnDrop::Nothing },
            items: PhantomData,
        }
    }

    /// Sends one item, waiting until the receiver has room for it.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; after [`ItemError::Over`] every later item fails in the same way.
    ///
    /// # Cancel safety
    ///
    /// The item has been sent as a whole, or not at all if the future is dropped before it is ready.
    pub async fn send(&mut self, item: T) -> Result<(), ItemError> {
        // The first try is made before anything is awaited: with credit left, sending is one pass through the lock.
        match self.try_send(&item) {
            Err(ItemError::Full) => {}
            done => return done,
        }
        poll_fn(|cx| self.poll_send(cx, &item)).await
    }

    /// Sends one item if the receiver has room for it now.
    ///
    /// # Errors
    ///
    /// [`ItemError::Full`] if it has none; else as [`send`](Self::send).
    pub fn try_send(&mut self, item: &T) -> Result<(), ItemError> {
        let sent = scratch::encoded(item, |payload| self.connection.send_item(self.key, payload))?;
        Ok(sent?)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, item: &T) -> Poll<Result<(), ItemError>> {
        loop {
            match self.try_send(item) {
                Err(ItemError::Full) => {}
                done => return Poll::Ready(done),
            }
            ready!(self.poll_credit(cx));
        }
    }

    /// Ready when the next item may be sent, or never will be.
    pub(crate) fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let key = self.key;
        self.connection
            .poll_until(cx, key, Awaited::Credit, &mut |state| state.may_send(key))
    }

    /// The blocking form of [`send`](Self::send): waits as a thread, until `deadline` if there is one.
    pub(crate) fn send_blocking(
        &mut self,
        item: &T,
        deadline: Option<Instant>,
    ) -> Result<(), ItemError> {
        loop {
            match self.try_send(item) {
                Err(ItemError::Full) => {}
                done => return done,
            }
            self.wait_for_credit(deadline)?;
        }
    }

    /// The blocking form of [`poll_credit`](Self::poll_credit).
    pub(crate) fn wait_for_credit(&mut self, deadline: Option<Instant>) -> Result<(), ItemError> {
        let key = self.key;
        self.connection
            .wait_until(key, Awaited::Credit, deadline, &mut |state| {
                state.may_send(key)
            })
            .map_err(|_| ItemError::DeadlineExceeded)
    }

    /// Says that no more items follow. The same as dropping the sender.
    pub fn finish(self) {}
}

impl ItemSender<Raw> {
    /// As [`try_send`](Self::try_send), for bytes that need not be an item of their own before.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> Result<(), ItemError> {
        let sent = self.connection.send_item(self.key, Outbound::Copy(bytes));
        Ok(sent?)
    }
}

impl<T> ItemSender<T> {
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Why the call is over, see [`Connection::why_over`].
    pub(crate) fn why_over(&self) -> Option<CallError> {
        self.connection.why_over(self.key)
    }

    /// Returns `true` if dropping it says that no more items follow.
    pub(crate) fn ends_when_dropped(&self) -> bool {
        self.on_drop == OnDrop::End
    }

    /// Dropping it will not say that no more items follow.
    pub(crate) fn disarm(mut self) {
        self.on_drop = OnDrop::Nothing;
    }

    /// Drops it because there will be no proper end: a client cancels the call.
    pub(crate) fn give_up(mut self) {
        if self.on_drop == OnDrop::End {
            self.on_drop = OnDrop::Cancel;
        }
    }
}

impl From<ItemRefused> for ItemError {
    fn from(refused: ItemRefused) -> Self {
        match refused {
            ItemRefused::NoCredit => Self::Full,
            ItemRefused::Over => Self::Over,
            ItemRefused::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
        }
    }
}

impl<T> Drop for ItemSender<T> {
    fn drop(&mut self) {
        match self.on_drop {
            OnDrop::End => {
                self.connection.end_items(self.key);
                self.connection.close_ticket(self.key, Vec::new());
            }
            OnDrop::Cancel => self.connection.abandon(self.key, Vec::new()),
            OnDrop::Nothing => self.connection.close_ticket(self.key, Vec::new()),
        }
    }
}

impl<T> std::fmt::Debug for ItemSender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ItemSender").finish_non_exhaustive()
    }
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<ItemSender<String>>();
    is_send::<Outbound<'static>>();
};
