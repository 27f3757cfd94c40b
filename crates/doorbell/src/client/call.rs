//! One call, from its settings to its reply.

use std::{
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use doorbell_proto::CallKind;
use tokio::{task::coop::poll_proceed, time::Sleep};

use super::{
    Bidirectional, Client, Streaming, Unary, Unsent, Uploading, call_settings, take_reply,
};
use crate::{
    connection::{Awaited, Connection, Outcome, State, TicketKey, Turns, take_outcome},
    error::CallError,
    message::{Message, Upload},
    stream::{ItemError, ItemSender, ItemStream},
};

/// A call that has not been sent yet. Await it, after setting what it needs.
///
/// # Cancel safety
///
/// Dropping the future of a call that has been sent cancels it on the server: the handler is dropped at its next `await`, and
/// [`Context::is_cancelled`](crate::Context::is_cancelled) turns true at once. A reply already under way is thrown away. The handler
/// may have run.
#[must_use = "a call is only sent when it is awaited"]
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

    async fn open(
        mut self,
        kind: CallKind,
    ) -> Result<(Arc<Connection>, TicketKey, Option<Instant>), CallError> {
        let deadline = self.unsent.deadline;
        let connection = self.client.connection(deadline).await?;
        let key = self.unsent.send(&connection, kind)?;
        Ok((connection, key, deadline))
    }
}

impl<'c, M: Message> Call<'c, M, Unary> {
    /// Sends the call and returns without waiting for its reply, so that many can be under way.
    ///
    /// Waits only if the connection has to be made first.
    ///
    /// # Errors
    ///
    /// The call was not sent.
    pub async fn send(self) -> Result<PendingReply<M>, CallError> {
        let (connection, key, deadline) = self.open(CallKind::Unary).await?;
        Ok(PendingReply::new(connection, key, deadline))
    }
}

impl<'c, M: Message> IntoFuture for Call<'c, M, Unary> {
    type Output = Result<M::Reply, CallError>;
    type IntoFuture = UnaryFuture<'c, M>;

    fn into_future(self) -> UnaryFuture<'c, M> {
        UnaryFuture {
            call: Some(self),
            connecting: None,
            pending: None,
        }
    }
}

/// Future of one reply, from sending on.
pub struct UnaryFuture<'c, M: Message> {
    call: Option<Call<'c, M, Unary>>,
    connecting: Option<Connecting<'c>>,
    pending: Option<PendingReply<M>>,
}

type Connecting<'c> = Pin<Box<dyn Future<Output = Result<Arc<Connection>, CallError>> + Send + 'c>>;

impl<M: Message> Unpin for UnaryFuture<'_, M> {}

impl<'c, M: Message> Future for UnaryFuture<'c, M> {
    type Output = Result<M::Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(pending) = &mut self.pending {
            return pending.poll_reply(cx);
        }
        let connection = match ready!(self.poll_connection(cx)) {
            Ok(connection) => connection,
            Err(error) => return Poll::Ready(Err(error)),
        };
        // A task that never has to wait for its replies lets others go ahead now and then.
        let budget = ready!(poll_proceed(cx));
        let mut unsent = self.call.take().expect("polled after completion").unsent;
        let takes_turns = connection.is_one_of_many();
        let mut outcome = None;
        let key = if takes_turns {
            unsent.send(&connection, CallKind::Unary)?
        } else {
            unsent.send_and_spin(&connection, &mut outcome)?
        };
        if outcome.is_some() {
            budget.made_progress();
            return Poll::Ready(take_reply(&mut outcome));
        }
        let mut pending = PendingReply::new(connection, key, unsent.deadline);
        pending.waiting = Waiting::new(takes_turns);
        let polled = pending.poll_reply(cx);
        if polled.is_pending() {
            self.pending = Some(pending);
        }
        polled
    }
}

impl<'c, M: Message> UnaryFuture<'c, M> {
    fn poll_connection(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Arc<Connection>, CallError>> {
        if self.connecting.is_none() {
            let call = self.call.as_ref().expect("polled after completion");
            let (client, deadline) = (call.client, call.unsent.deadline);
            if let Some(connection) = client.live() {
                return Poll::Ready(Ok(connection));
            }
            self.connecting = Some(Box::pin(async move { client.connection(deadline).await }));
        }
        let connected = ready!(
            self.connecting
                .as_mut()
                .expect("set above")
                .as_mut()
                .poll(cx)
        );
        self.connecting = None;
        Poll::Ready(connected)
    }
}

/// A call that has been sent; a future of its reply. Dropping it cancels the call.
pub struct PendingReply<M: Message> {
    connection: Arc<Connection>,
    key: Option<TicketKey>,
    deadline: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    slept_since: Option<Instant>,
    waiting: Waiting,
    message: PhantomData<fn() -> M>,
}

/// How a task waits for its reply.
enum Waiting {
    /// It has not begun.
    NotYet,
    /// It looks, and lets other tasks go ahead.
    InTurns(Turns),
    /// It drives, or sleeps.
    ForGood,
}

impl Waiting {
    fn new(takes_turns: bool) -> Self {
        if takes_turns {
            Self::InTurns(Turns::default())
        } else {
            Self::ForGood
        }
    }
}

impl<M: Message> Unpin for PendingReply<M> {}

impl<M: Message> PendingReply<M> {
    fn new(connection: Arc<Connection>, key: TicketKey, deadline: Option<Instant>) -> Self {
        Self {
            connection,
            key: Some(key),
            deadline,
            alarm: None,
            slept_since: None,
            waiting: Waiting::NotYet,
            message: PhantomData,
        }
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<M::Reply, CallError>> {
        let mut outcome = None;
        while self.poll_outcome(cx, &mut outcome).is_pending() {
            if let Waiting::InTurns(_) = self.waiting {
                return Poll::Pending;
            }
            self.slept_since.get_or_insert_with(Instant::now);
            ready!(self.poll_alarm(cx));
            self.connection.expire(); // gives this call its outcome
        }
        if let Some(since) = self.slept_since.take() {
            self.connection.slept(since);
        }
        self.key = None;
        Poll::Ready(take_reply(&mut outcome))
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>, outcome: &mut Outcome) -> Poll<()> {
        let key = self.key.expect("polled after completion");
        let connection = &self.connection;
        let mut ended = |state: &mut State| take_outcome(state, key, outcome);
        if let Waiting::NotYet = self.waiting {
            self.waiting = Waiting::new(connection.is_one_of_many());
        }
        if let Waiting::InTurns(turns) = &mut self.waiting {
            if let Some(polled) = connection.poll_in_turn(cx, turns, &mut ended) {
                return polled;
            }
            self.waiting = Waiting::ForGood;
        }
        connection.poll_until(cx, key, Awaited::Arrival, &mut ended)
    }

    /// Ready when the deadline has passed. The timer exists only once somebody really waits.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        alarm.as_mut().poll(cx)
    }
}

impl<M: Message> Future for PendingReply<M> {
    type Output = Result<M::Reply, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_reply(cx)
    }
}

impl<M: Message> Drop for PendingReply<M> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.connection.abandon(key, Vec::new());
        }
    }
}

type Opening<'c, T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send + 'c>>;

impl<'c, M: Message> IntoFuture for Call<'c, M, Streaming> {
    type Output = Result<ItemStream<M::Reply>, CallError>;
    type IntoFuture = Opening<'c, ItemStream<M::Reply>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (connection, key, deadline) = self.open(CallKind::ServerStream).await?;
            Ok(ItemStream::of_call(connection, key, deadline))
        })
    }
}

impl<'c, M: Upload> IntoFuture for Call<'c, M, Bidirectional> {
    type Output = Result<(ItemSender<M::Item>, ItemStream<M::Reply>), CallError>;
    type IntoFuture = Opening<'c, (ItemSender<M::Item>, ItemStream<M::Reply>)>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (connection, key, deadline) = self.open(CallKind::Bidirectional).await?;
            connection.share_ticket(key);
            let sender = ItemSender::new(Arc::clone(&connection), key, true).until(deadline);
            Ok((sender, ItemStream::of_call(connection, key, deadline)))
        })
    }
}

impl<'c, M: Upload> IntoFuture for Call<'c, M, Uploading> {
    type Output = Result<UploadStream<M>, CallError>;
    type IntoFuture = Opening<'c, UploadStream<M>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (connection, key, deadline) = self.open(CallKind::ClientStream).await?;
            connection.share_ticket(key);
            let sender = ItemSender::new(Arc::clone(&connection), key, true).until(deadline);
            Ok(UploadStream {
                sender: Some(sender),
                reply: PendingReply::new(connection, key, deadline),
            })
        })
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
    pub async fn send(&mut self, item: M::Item) -> Result<(), ItemError> {
        match &mut self.sender {
            Some(sender) => sender.send(item).await,
            None => Err(ItemError::Over),
        }
    }

    /// Adds one item to those that are sent together, as [`ItemSender::feed`] does.
    ///
    /// # Errors
    ///
    /// [`ItemError`]; after [`ItemError::Over`], [`finish`](Self::finish) tells why the call has ended.
    pub async fn feed(&mut self, item: M::Item) -> Result<(), ItemError> {
        match &mut self.sender {
            Some(sender) => sender.feed(item).await,
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
    pub async fn finish(mut self) -> Result<M::Reply, CallError> {
        self.sender = None;
        (&mut self.reply).await
    }
}

impl<M: Upload> Drop for UploadStream<M> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.disarm(); // an upload that is given up is cancelled, not ended
        }
    }
}
