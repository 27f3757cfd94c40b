//! The sending half.

use std::{
    future::poll_fn,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use doorbell_proto::Status;

use super::turns::Turns;
use crate::{
    connection::{Awaited, Connection, ItemRefused, Outbound, TicketKey},
    error::CallError,
    message::{EncodeError, Payload, Raw},
    pack::Pack,
    scratch,
};

/// Sends the items of one stream.
///
/// On a client, dropping it says that no more items follow. On a server, the stream ends when the handler returns.
pub struct ItemSender<T> {
    connection: Arc<Connection>,
    key: TicketKey,
    on_drop: OnDrop,
    /// Items that were fed. If there are any, there is credit for them.
    pack: Pack,
    /// Until when a task of the client waits for credit. Others who wait are told by whoever watches over their call.
    #[cfg(feature = "tokio")]
    deadline: Option<Instant>,
    turns: Turns,
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
            pack: Pack::default(),
            #[cfg(feature = "tokio")]
            deadline: None,
            turns: Turns::default(),
            items: PhantomData,
        }
    }

    /// As it is, for a task that waits no longer than until `deadline`.
    #[cfg(feature = "tokio")]
    pub(crate) fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sends one item, after those that were [fed](Self::feed), waiting until the receiver has room for it.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; after [`ItemError::Over`] every later item fails in the same way.
    ///
    /// # Cancel safety
    ///
    /// The item has been sent as a whole, or not at all if the future is dropped before it is ready.
    pub async fn send(&mut self, item: T) -> Result<(), ItemError> {
        poll_fn(|cx| self.turns.poll_next(cx)).await;
        // The first try is made before anything is waited for: with credit left, sending is one pass through the lock.
        match self.send_on_credit(&item) {
            Err(ItemError::Full) => {}
            done => return done,
        }
        self.with_credit(|sender| sender.send_on_credit(&item))
            .await
    }

    /// Adds one item to those that are sent together, waiting until the receiver has room for it.
    ///
    /// Small items cost a fraction of what they cost when each is [sent](Self::send): many share a frame. The receiver sees them when
    /// 4 KiB have come together, or with the next [`flush`](Self::flush) or [`send`](Self::send), or when the sender is finished or
    /// dropped; nothing else sends them, so flush before you wait for anything else.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; after [`ItemError::Over`] every later item fails in the same way, and those fed before may be lost.
    ///
    /// # Cancel safety
    ///
    /// The item has been added, or not at all if the future is dropped before it is ready.
    pub async fn feed(&mut self, item: T) -> Result<(), ItemError> {
        poll_fn(|cx| self.turns.poll_next(cx)).await;
        match self.try_feed(&item) {
            Err(ItemError::Full) => {}
            done => return done,
        }
        self.with_credit(|sender| sender.try_feed(&item)).await
    }

    /// Sends the items that were [fed](Self::feed). Never waits: there is room for what has been fed.
    ///
    /// # Errors
    ///
    /// [`ItemError::Over`]: nobody wants them any more.
    pub fn flush(&mut self) -> Result<(), ItemError> {
        Ok(self.send_fed()?)
    }

    fn try_feed(&mut self, item: &T) -> Result<(), ItemError> {
        if self.pack.is_empty() {
            self.pack.begin(self.connection.begin_pack(self.key)?);
        }
        if !self.pack.add(item)? {
            return self.send_on_credit(item);
        }
        if self.pack.is_full() {
            self.send_fed()?;
        }
        Ok(())
    }

    /// Sends one item, after those that were [fed](Self::feed), if the receiver has room for it now.
    ///
    /// # Errors
    ///
    /// [`ItemError::Full`] if it has none; else as [`send`](Self::send).
    pub fn try_send(&mut self, item: &T) -> Result<(), ItemError> {
        let sent = self.send_on_credit(item);
        if matches!(sent, Err(ItemError::Full)) && self.connection.read_what_is_there() {
            return self.send_on_credit(item);
        }
        sent
    }

    /// As [`try_send`](Self::try_send), for who waits otherwise, and reads as long as that.
    fn send_on_credit(&mut self, item: &T) -> Result<(), ItemError> {
        self.send_fed()?;
        let sent = scratch::encoded(item, |payload| self.connection.send_item(self.key, payload))?;
        Ok(sent?)
    }

    /// Tries until the receiver has room, or the deadline has passed.
    async fn with_credit(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<(), ItemError>,
    ) -> Result<(), ItemError> {
        #[cfg(feature = "tokio")]
        if let Some(deadline) = self.deadline {
            let tried = poll_fn(|cx| self.poll_with_credit(cx, &mut attempt));
            if let Ok(done) = tokio::time::timeout_at(deadline.into(), tried).await {
                return done;
            }
            self.connection.expire(); // the call is over, on both sides
            return Err(ItemError::DeadlineExceeded);
        }
        poll_fn(|cx| self.poll_with_credit(cx, &mut attempt)).await
    }

    /// Tries until the receiver has room.
    fn poll_with_credit(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Self) -> Result<(), ItemError>,
    ) -> Poll<Result<(), ItemError>> {
        loop {
            match attempt(self) {
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
        self.block_for_credit(deadline, |sender| sender.send_on_credit(item))
    }

    /// The blocking form of [`feed`](Self::feed).
    pub(crate) fn feed_blocking(
        &mut self,
        item: &T,
        deadline: Option<Instant>,
    ) -> Result<(), ItemError> {
        self.block_for_credit(deadline, |sender| sender.try_feed(item))
    }

    fn block_for_credit(
        &mut self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut(&mut Self) -> Result<(), ItemError>,
    ) -> Result<(), ItemError> {
        loop {
            match attempt(self) {
                Err(ItemError::Full) => {}
                done => return done,
            }
            self.wait_for_credit(deadline)?;
        }
    }

    /// The blocking form of [`poll_credit`](Self::poll_credit).
    pub(crate) fn wait_for_credit(&mut self, deadline: Option<Instant>) -> Result<(), ItemError> {
        let key = self.key;
        let waited = self
            .connection
            .wait_until(key, Awaited::Credit, deadline, &mut |state| {
                state.may_send(key)
            });
        waited.map_err(|_| {
            self.connection.expire(); // the call is over, on both sides
            ItemError::DeadlineExceeded
        })
    }

    /// Sends what was [fed](Self::feed) and says that no more items follow. The same as dropping the sender.
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
    fn send_fed(&mut self) -> Result<(), ItemRefused> {
        let Some(collected) = self.pack.collected() else {
            return Ok(());
        };
        let sent = self.connection.send_pack(self.key, collected);
        self.pack.clear();
        sent
    }

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

    /// Dropping it will not say that no more items follow, nor send those that were fed.
    pub(crate) fn disarm(mut self) {
        self.pack.clear();
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
        if self.on_drop != OnDrop::Cancel {
            let _ = self.send_fed(); // if the stream is over, its other half says so
        }
        match self.on_drop {
            OnDrop::End => {
                self.connection.end_items(self.key);
                self.connection.stop_sending(self.key);
            }
            OnDrop::Cancel => self.connection.abandon(self.key, Vec::new()),
            OnDrop::Nothing => self.connection.stop_sending(self.key),
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
