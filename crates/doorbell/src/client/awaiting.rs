//! The client's own methods.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Bidirectional, Call, CallAll, ConnectionState, Notifications, Options, Streaming, Unary,
    Uploading, dialer::Dialer, option_methods,
};
use crate::{
    connection::Connection,
    deadline::{after, require_timers},
    error::{CallError, ConnectError, NotifyError},
    loan::{Loan, LoanError},
    message::{Message, Upload},
    name, scratch,
    stats::Stats,
};

/// A client of one server. Clones share one connection; it ends with the last of them.
///
/// The connection is made again, with growing pauses, when it has ended and a call needs it. A call that was under way then fails
/// with a definite [`Outcome`](crate::Outcome); Doorbell repeats none by itself.
///
/// Its runtime needs I/O and timers (tokio's `enable_all`). If that ends, a call on another runtime connects there.
#[derive(Clone)]
pub struct Client {
    dialer: Arc<Dialer>,
}

/// Collects settings before a client connects.
pub struct Builder {
    name: String,
    options: Options,
}

impl Client {
    /// Connects to the server called `name`, or at the path `name` if it has a slash in it.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; at once if nobody listens. See [`Builder::wait_for_server`] for a server that may still be starting.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, and on one without I/O or timers.
    pub async fn connect(name: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder(name).connect().await
    }

    /// Begins a client with other settings than the defaults.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            options: Options::default(),
        }
    }

    /// Calls a handler that answers with one reply. Await the result.
    pub fn call<M: Message>(&self, message: M) -> Call<'_, M, Unary> {
        Call::new(self, message)
    }

    /// Calls a handler once for each message, with many calls under way at a time. Awaiting gives the [`Replies`](super::Replies), in the
    /// order of the messages.
    ///
    /// The same as a [`call`](Self::call) for each, at about half of the cost: calls are sent, and replies taken, many at a time. The
    /// handlers may run in any order.
    ///
    /// ```
    /// # use doorbell::{Client, Context, Message, MessageType, Server, Status};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Square(u64);
    /// # impl Message for Square { const TYPE: MessageType = MessageType::new(1); type Reply = u64; }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = std::env::temp_dir().join(format!("doorbell-doc-call-all-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// # let name = format!("{}/squares.sock", directory.display());
    /// # let server = Server::builder(&name).on(|_: Context, n: Square| async move { Ok::<_, Status>(n.0 * n.0) }).bind().await?;
    /// let client = Client::connect(&name).await?;
    /// let mut squares = client.call_all((0..1000).map(Square)).await?;
    /// let mut sum = 0_u64;
    /// while let Some(square) = squares.next().await {
    ///     sum += square?;
    /// }
    /// assert_eq!(sum, 332_833_500);
    /// # drop((squares, client));
    /// # server.shutdown(std::time::Duration::from_secs(1)).await;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_all<I: IntoIterator>(&self, messages: I) -> CallAll<'_, I::IntoIter>
    where
        I::Item: Message,
    {
        CallAll::new(self, messages.into_iter())
    }

    /// Calls a handler that answers with a stream. Awaiting gives an [`ItemStream`](crate::ItemStream); dropping that cancels.
    pub fn stream<M: Message>(&self, message: M) -> Call<'_, M, Streaming> {
        Call::new(self, message)
    }

    /// Calls a handler that takes a stream and answers with one reply. Awaiting gives an [`UploadStream`](super::UploadStream).
    pub fn upload<M: Upload>(&self, message: M) -> Call<'_, M, Uploading> {
        Call::new(self, message)
    }

    /// Calls a handler with a stream in each direction. Awaiting gives both halves.
    pub fn bidi<M: Upload>(&self, message: M) -> Call<'_, M, Bidirectional> {
        Call::new(self, message)
    }

    /// Sends a message that nobody answers. Returns as soon as it is on its way.
    ///
    /// While there is no room in the ring it waits in this process, together with at most 256 KiB of others, and is lost if the last clone of
    /// the client is dropped or [closed](Self::close) meanwhile: [`writable`](Self::writable) waits until nothing is left here.
    ///
    /// Notifications of one client are handled in the order in which they were sent, as long as each fits into one frame
    /// (16 KiB with the default rings); a larger one takes effect when all of it has arrived.
    ///
    /// May be called on any thread. If there is no connection, one is made in the background: on the runtime of the calling thread, or else on
    /// that where the client last connected.
    ///
    /// # Errors
    ///
    /// [`NotifyError::Full`] if the server does not keep up, see [`writable`](Self::writable); or the reasons for which no call could
    /// be sent. Nothing has been sent then.
    pub fn notify<M: Message>(&self, message: M) -> Result<(), NotifyError> {
        let connection = self.current_or_dial()?;
        let sent = scratch::encoded(&message, |payload| {
            connection.notify(M::TYPE, None, payload)
        });
        sent.map_err(CallError::Encode)?
    }

    /// Sends messages that nobody answers, waiting while the server does not keep up.
    ///
    /// The same as [`notify`](Self::notify) for each, at a fraction of the cost: many small ones share a frame of 4 KiB.
    ///
    /// # Errors
    ///
    /// A message cannot be encoded or is too large, or the connection has ended; the messages before it have been sent, those after it
    /// have not.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, some of the messages have been sent, from the first one on, and the others never will be.
    pub async fn notify_all<M: Message>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<(), NotifyError> {
        let connection = self.connection(None).await?;
        let mut notifications = Notifications::new(&connection, messages.into_iter());
        loop {
            match notifications.send(&connection) {
                Err(NotifyError::Full { .. }) => {
                    connection.writable().await?;
                }
                done => return done,
            }
        }
    }

    /// Waits until no notification waits to be written to the connection, nor anything that goes before one, so that [`notify`](Self::notify) has
    /// room. Large messages that are none may still be under way.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn writable(&self) -> Result<(), CallError> {
        let connection = self.connection(None).await?;
        connection.writable().await
    }

    /// Sends a ping through the connection and returns how long the answer took.
    ///
    /// # Errors
    ///
    /// As for a call.
    pub async fn ping(&self) -> Result<Duration, CallError> {
        let connection = self.connection(None).await?;
        let start = Instant::now();
        let number = connection.send_ping()?;
        connection.pong(number).await?;
        Ok(start.elapsed())
    }

    /// Takes memory for a message that is sent without a copy, waiting until there is room. Use `tokio::time::timeout` for a limit.
    ///
    /// ```
    /// use doorbell::{Client, Context, Loaned, Message, MessageType, Payload, Server, Status};
    ///
    /// /// A picture without a copy; the answer is one too.
    /// #[derive(Payload)]
    /// #[payload(loaned)]
    /// struct Invert(Loaned);
    ///
    /// impl Message for Invert {
    ///     const TYPE: MessageType = MessageType::new(12);
    ///     type Reply = Loaned;
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let name = format!("{}/pictures.sock", std::env::temp_dir().join(format!("doorbell-loan-doc-{}", std::process::id())).display());
    /// # std::fs::create_dir_all(std::path::Path::new(&name).parent().unwrap())?;
    /// let server = Server::builder(&name)
    ///     .on(|context: Context, picture: Invert| async move {
    ///         let mut inverted = context.loan(picture.0.len()).await?;
    ///         let mut line = [0; 640];
    ///         for at in (0..picture.0.len()).step_by(line.len()) {
    ///             picture.0.copy_to_slice(at, &mut line); // safe: a private copy, a line at a time
    ///             line.iter_mut().for_each(|byte| *byte = !*byte);
    ///             inverted.write_at(at, &line);
    ///         }
    ///         Ok::<_, Status>(inverted.into())
    ///     })
    ///     .bind()
    ///     .await?;
    ///
    /// let client = Client::connect(&name).await?;
    /// let mut picture = client.loan(640 * 480).await?;
    /// picture.write_at(640, &[0xFF; 640]);
    /// let inverted: Loaned = client.call(Invert(picture.into())).await?;
    /// assert!(inverted.is_in_place());
    /// assert_eq!(inverted.copy_to_vec()[639..=640], [0xFF, 0]);
    /// # drop((inverted, client));
    /// # server.shutdown(std::time::Duration::from_secs(1)).await;
    /// # std::fs::remove_dir_all(std::path::Path::new(&name).parent().unwrap())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoanError`]; [`LoanError::NoRoom`] if the server makes no more and nothing is lent that could come back.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect, but that the server may have made room.
    pub async fn loan(&self, length: usize) -> Result<Loan, LoanError> {
        let connection = self.connection(None).await?;
        connection.loan(length).await
    }

    /// As [`loan`](Self::loan), if there is a connection and room now. If not, they are made in the background, so that there may be room a
    /// little later. It is kept while something happens on the connection, and for a second or two without. May be called on any thread, as
    /// [`notify`](Self::notify).
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn try_loan(&self, length: usize) -> Result<Loan, LoanError> {
        self.current_or_dial()?.try_loan(length)
    }

    /// Returns a receiver that shows when the connection is lost and made again.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.dialer.watch()
    }

    /// Returns what the present connection has done so far; zero if there is none.
    pub fn stats(&self) -> Stats {
        self.dialer
            .current()
            .map(|connection| connection.stats())
            .unwrap_or_default()
    }

    /// Ends the connection for all clones. Calls under way fail; later ones too.
    pub fn close(&self) {
        self.dialer.close();
    }

    pub(crate) fn live(&self) -> Option<Arc<Connection>> {
        self.dialer.current()
    }

    pub(super) async fn connection(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Arc<Connection>, CallError> {
        match self.live() {
            Some(connection) => Ok(connection),
            None => self.dialer.connect_for_call(deadline).await,
        }
    }

    /// The connection, or an error while it is made in the background.
    fn current_or_dial(&self) -> Result<Arc<Connection>, CallError> {
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let text = match self.dialer.connect_in_background() {
            true => "there is no connection now; one is being made",
            false => "there is no connection, and no tokio runtime to make one on",
        };
        Err(CallError::GoingAway {
            text: text.to_owned(),
        })
    }
}

impl Builder {
    option_methods!();

    /// Connects.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, and on one without I/O or timers.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        require_timers();
        let give_up = after(self.options.wait_for_server);
        let client = self.lazy()?;
        client.dialer.connect(give_up).await?;
        Ok(client)
    }

    /// Returns a client that connects with its first call, which is made on a runtime as [`connect`](Self::connect) needs it.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Name`] if the name is not one.
    pub fn lazy(self) -> Result<Client, ConnectError> {
        let path = name::resolve(&self.name)?;
        Ok(Client {
            dialer: Dialer::new(path, self.options),
        })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("state", &*self.state().borrow())
            .finish_non_exhaustive()
    }
}
