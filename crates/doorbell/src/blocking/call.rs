//! One call of a thread, from its settings to its reply.

use std::{
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use doorbell_proto::{CallKind, Metadata};

use super::{Client, ItemSender, ItemStream};
use crate::{
    client::{add_metadata, take_outcome, take_reply},
    connection::{Awaited, Connection, NewCall, TicketKey},
    error::CallError,
    message::{Message, Upload},
    scratch,
    stream::ItemError,
};

/// A call that has not been sent yet. `wait`, `send` or `open` it, after setting what it needs.
#[must_use = "a call is only sent by `wait`, `send` or `open`"]
pub struct Call<'c, M, Shape> {
    client: &'c Client,
    message: M,
    deadline: Option<Instant>,
    metadata: Option<Metadata>,
    refused: Option<CallError>,
    shape: PhantomData<Shape>,
}

/// Shape of a call: one reply.
#[derive(Debug)]
pub struct Unary;
/// Shape of a call: a stream of items from the server.
#[derive(Debug)]
pub struct Streaming;
/// Shape of a call: a stream of items from the client, one reply.
#[derive(Debug)]
pub struct Uploading;
/// Shape of a call: a stream of items in each direction.
#[derive(Debug)]
pub struct Bidirectional;

impl<'c, M: Message, Shape> Call<'c, M, Shape> {
    pub(super) fn new(client: &'c Client, message: M) -> Self {
        Self {
            client,
            message,
            deadline: None,
            metadata: None,
            refused: None,
            shape: PhantomData,
        }
    }

    /// Gives the call this long in all, its items included. Then it ends on both sides with [`CallError::DeadlineExceeded`].
    pub fn timeout(self, timeout: Duration) -> Self {
        self.deadline(Instant::now() + timeout)
    }

    /// Gives the call until `deadline`, or less if it has an earlier one already.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(
            self.deadline
                .map_or(deadline, |before| before.min(deadline)),
        );
        self
    }

    /// Takes over the deadline of the call that is being answered, so that nested calls end with it.
    pub fn inherit(self, context: &crate::Context) -> Self {
        match context.deadline() {
            Some(deadline) => self.deadline(deadline),
            None => self,
        }
    }

    /// Adds a metadata entry: a key of `a-z 0-9 - _ .` and any bytes. A wrong or oversized one fails the call before it is sent.
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        if let Err(error) = add_metadata(&mut self.metadata, key, value.as_ref()) {
            self.refused = Some(error);
        }
        self
    }

    fn start(
        mut self,
        kind: CallKind,
    ) -> Result<(Arc<Connection>, TicketKey, Option<Instant>), CallError> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        let (deadline, metadata) = (self.deadline, self.metadata.as_ref());
        let connection = self.client.connection(deadline)?;
        let key = scratch::encoded(&self.message, |payload| {
            connection.start(
                NewCall {
                    kind,
                    message_type: M::TYPE,
                    deadline,
                    metadata,
                    payload,
                },
                None,
            )
        })??;
        Ok((connection, key, deadline))
    }
}

impl<M: Message> Call<'_, M, Unary> {
    /// Sends the call and waits for its reply.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn wait(self) -> Result<M::Reply, CallError> {
        self.send()?.wait()
    }

    /// Sends the call and returns without waiting for its reply, so that many can be under way.
    ///
    /// # Errors
    ///
    /// The call was not sent.
    pub fn send(self) -> Result<PendingReply<M>, CallError> {
        let (connection, key, deadline) = self.start(CallKind::Unary)?;
        Ok(PendingReply {
            connection,
            key: Some(key),
            deadline,
            message: PhantomData,
        })
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
        let reply = PendingReply {
            connection,
            key: Some(key),
            deadline,
            message: PhantomData,
        };
        Ok(UploadStream {
            sender: Some(ItemSender(sender, deadline)),
            reply,
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
    /// Waits for the reply.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn wait(mut self) -> Result<M::Reply, CallError> {
        let Some(key) = self.key else {
            return Err(CallError::DeadlineExceeded);
        };
        loop {
            let waited =
                self.connection
                    .wait_until(key, Awaited::Arrival, self.deadline, &mut |state| {
                        take_outcome(state, key)
                    });
            match waited {
                Ok(waited) => {
                    self.key = None;
                    return take_reply(waited);
                }
                Err(_) => self.connection.expire(), // gives this call its outcome
            }
        }
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
