//! One call of a thread, from its settings to its reply.

use std::{marker::PhantomData, sync::Arc, time::Instant};

use doorbell_proto::CallKind;

use super::{Client, ItemSender, ItemStream};
use crate::{
    client::{Bidirectional, Streaming, Unary, Unsent, Uploading, call_settings, take_reply},
    connection::{Awaited, Connection, State, TicketKey, take_outcome},
    error::CallError,
    message::{Message, Upload},
    stream::ItemError,
};

/// A call that has not been sent yet. `wait`, `send` or `open` it, after setting what it needs.
#[must_use = "a call is only sent by `wait`, `send` or `open`"]
pub struct Call<'c, M, Shape> {
    client: &'c Client,
    unsent: Unsent<M>,
    shape: PhantomData<Shape>,
}

impl<'c, M: Message, Shape> Call<'c, M, Shape> {
    pub(super) fn new(client: &'c Client, message: M) -> Self {
        Self {
            client,
            unsent: Unsent::new(message),
            shape: PhantomData,
        }
    }

    call_settings!();

    fn start(
        mut self,
        kind: CallKind,
    ) -> Result<(Arc<Connection>, TicketKey, Option<Instant>), CallError> {
        let deadline = self.unsent.deadline;
        let connection = self.client.connection(deadline)?;
        let key = self.unsent.send(&connection, kind)?;
        Ok((connection, key, deadline))
    }
}

impl<M: Message> Call<'_, M, Unary> {
    /// Sends the call and waits for its reply.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn wait(mut self) -> Result<M::Reply, CallError> {
        let deadline = self.unsent.deadline;
        let connection = self.client.connection(deadline)?;
        let mut outcome = None;
        let key = self.unsent.send_and_spin(&connection, &mut outcome)?;
        if outcome.is_some() {
            return take_reply(&mut outcome);
        }
        PendingReply::<M>::new(connection, key, deadline).wait()
    }

    /// Sends the call and returns without waiting for its reply, so that many can be under way.
    ///
    /// # Errors
    ///
    /// The call was not sent.
    pub fn send(self) -> Result<PendingReply<M>, CallError> {
        let (connection, key, deadline) = self.start(CallKind::Unary)?;
        Ok(PendingReply::new(connection, key, deadline))
    }
}

impl<M: Message> Call<'_, M, Streaming> {
    /// Sends the call and returns its items.
    ///
    /// # Errors
    ///
    /// The call was not sent.
    pub fn open(self) -> Result<ItemStream<M::Reply>, CallError> {
        let (connection, key, deadline) = self.start(CallKind::ServerStream)?;
        Ok(ItemStream(crate::ItemStream::of_call(
            connection, key, deadline,
        )))
    }
}

impl<M: Upload> Call<'_, M, Bidirectional> {
    /// Sends the call and returns both halves.
    ///
    /// # Errors
    ///
    /// The call was not sent.
    #[allow(clippy::type_complexity)] // a pair with a name would say less than its halves
    pub fn open(self) -> Result<(ItemSender<M::Item>, ItemStream<M::Reply>), CallError> {
        let (connection, key, deadline) = self.start(CallKind::Bidirectional)?;
        connection.share_ticket(key);
        let sender = crate::ItemSender::new(Arc::clone(&connection), key, true);
        let items = crate::ItemStream::of_call(connection, key, deadline);
        Ok((ItemSender(sender, deadline), ItemStream(items)))
    }
}

impl<M: Upload> Call<'_, M, Uploading> {
    /// Sends the call and returns what its items are sent with.
    ///
    /// # Errors
    ///
    /// The call was not sent.
    pub fn open(self) -> Result<UploadStream<M>, CallError> {
        let (connection, key, deadline) = self.start(CallKind::ClientStream)?;
        connection.share_ticket(key);
        let sender = crate::ItemSender::new(Arc::clone(&connection), key, true);
        Ok(UploadStream {
            sender: Some(ItemSender(sender, deadline)),
            reply: PendingReply::new(connection, key, deadline),
        })
    }
}

/// A call that has been sent. Dropping it cancels the call.
pub struct PendingReply<M: Message> {
    connection: Arc<Connection>,
    key: Option<TicketKey>,
    deadline: Option<Instant>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> PendingReply<M> {
    fn new(connection: Arc<Connection>, key: TicketKey, deadline: Option<Instant>) -> Self {
        Self {
            connection,
            key: Some(key),
            deadline,
            message: PhantomData,
        }
    }

    /// Waits for the reply.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn wait(mut self) -> Result<M::Reply, CallError> {
        let Some(key) = self.key else {
            return Err(CallError::DeadlineExceeded);
        };
        let mut outcome = None;
        let mut ended = |state: &mut State| take_outcome(state, key, &mut outcome);
        let connection = &self.connection;
        while connection
            .wait_until(key, Awaited::Arrival, self.deadline, &mut ended)
            .is_err()
        {
            connection.expire(); // gives this call its outcome
        }
        self.key = None;
        take_reply(&mut outcome)
    }
}

impl<M: Message> Drop for PendingReply<M> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.connection.abandon(key, Vec::new());
        }
    }
}

/// Sends the items of an upload, then waits for the reply. Dropping it before [`finish`](Self::finish) cancels the call.
pub struct UploadStream<M: Upload> {
    sender: Option<ItemSender<M::Item>>,
    reply: PendingReply<M>,
}

impl<M: Upload> UploadStream<M> {
    /// Sends one item, waiting until the server has room for it.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; after [`ItemError::Over`], [`finish`](Self::finish) tells why the call has ended.
    pub fn send(&mut self, item: M::Item) -> Result<(), ItemError> {
        match &mut self.sender {
            Some(sender) => sender.send(item),
            None => Err(ItemError::Over),
        }
    }

    /// Adds one item to those that are sent together, as [`ItemSender::feed`] does.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; after [`ItemError::Over`], [`finish`](Self::finish) tells why the call has ended.
    pub fn feed(&mut self, item: M::Item) -> Result<(), ItemError> {
        match &mut self.sender {
            Some(sender) => sender.feed(item),
            None => Err(ItemError::Over),
        }
    }

    /// Sends the items that were [fed](Self::feed). [`finish`](Self::finish) does so by itself.
    ///
    /// # Errors
    ///
    /// [`ItemError::Over`]: nobody wants them any more.
    pub fn flush(&mut self) -> Result<(), ItemError> {
        match &mut self.sender {
            Some(sender) => sender.flush(),
            None => Err(ItemError::Over),
        }
    }

    /// Says that no more items follow and waits for the reply.
    ///
    /// # Errors
    ///
    /// [`CallError`] as for any call.
    pub fn finish(mut self) -> Result<M::Reply, CallError> {
        self.sender = None;
        let reply: PendingReply<M> = PendingReply {
            connection: Arc::clone(&self.reply.connection),
            key: self.reply.key.take(),
            deadline: self.reply.deadline,
            message: PhantomData,
        };
        reply.wait()
    }
}

impl<M: Upload> Drop for UploadStream<M> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.0.disarm(); // an upload that is given up is cancelled, not ended
        }
    }
}
