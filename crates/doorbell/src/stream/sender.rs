//! The sending half.

use std::{
    future::poll_fn,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use doorbell_proto::Status;

use crate::{
    connection::{Awaited, Connection, ItemRefused, Outbound, TicketKey},
    message::{EncodeError, Payload},
    scratch,
};

/// Sends the items of one stream.
///
/// On a client, dropping it says that no more items follow. On a server, the stream ends when the handler returns.
pub struct ItemSender<T> {
    connection: Arc<Connection>,
    key: TicketKey,
    /// Says `END` when dropped: true on the client.
    ends: bool,
    items: PhantomData<fn(T)>,
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
            ends,
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
        match scratch::encoded(item, |payload| self.connection.send_item(self.key, payload))? {
            Ok(()) => Ok(()),
            Err(ItemRefused::NoCredit) => Err(ItemError::Full),
            Err(ItemRefused::Over) => Err(ItemError::Over),
            Err(ItemRefused::TooLarge { bytes, limit }) => {
                Err(ItemError::TooLarge { bytes, limit })
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, item: &T) -> Poll<Result<(), ItemError>> {
        loop {
            match self.try_send(item) {
                Err(ItemError::Full) => {}
                done => return Poll::Ready(done),
            }
            let key = self.key;
            std::task::ready!(
                self.connection
                    .poll_until(cx, key, Awaited::Credit, &mut |state| state.may_send(key))
            );
        }
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
            let key = self.key;
            self.connection
                .wait_until(key, Awaited::Credit, deadline, &mut |state| {
                    state.may_send(key)
                })
                .map_err(|_| ItemError::DeadlineExceeded)?;
        }
    }

    /// Says that no more items follow. The same as dropping the sender.
    pub fn finish(self) {}
}

impl<T> ItemSender<T> {
    /// Dropping it will not say that no more items follow.
    pub(crate) fn disarm(mut self) {
        self.ends = false;
    }
}

impl<T> Drop for ItemSender<T> {
    fn drop(&mut self) {
        if self.ends {
            self.connection.end_items(self.key);
        }
        self.connection.close_ticket(self.key, Vec::new());
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
