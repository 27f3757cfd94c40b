//! The client for threads.

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{call::Call, call_all::CallAll, watch::watch};
use crate::{
    client::{
        BackOff, Bidirectional, Notifications, Options, Replaced, Streaming, Unary, Uploading,
        option_methods,
    },
    connection::{Account, Connection, Sleeper, lock},
    deadline::after,
    error::{CallError, ConnectError, Disconnected, NotifyError},
    link::dial::dial,
    loan::{Loan, LoanError},
    message::{Message, Upload},
    name, scratch,
    stats::Stats,
};

/// A client of one server. Clones share one connection; it ends with the last of them.
///
/// Any number of threads may call through it at once. The connection is made again when it has ended and a call needs it.
#[derive(Clone)]
pub struct Client {
    dialer: Arc<Dialer>,
}

/// Collects settings before a client connects.
pub struct Builder {
    name: String,
    options: Options,
}

struct Dialer {
    path: PathBuf,
    options: Options,
    current: Mutex<Option<Arc<Connection>>>,
    replaced: Replaced,
    /// A thread makes the connection; others wait for their turn.
    dialing: Mutex<bool>,
    turn: Condvar,
    closed: AtomicBool,
}

impl Client {
    /// Connects to the server called `name`, or at the path `name` if it has a slash in it.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; at once if nobody listens. See [`Builder::wait_for_server`] for a server that may still be starting.
    pub fn connect(name: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder(name).connect()
    }

    /// Begins a client with other settings than the defaults.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            options: Options::default(),
        }
    }

    /// Calls a handler that answers with one reply: `client.call(message).wait()`.
    pub fn call<M: Message>(&self, message: M) -> Call<'_, M, Unary> {
        Call::new(self, message)
    }

    /// Calls a handler once for each message, with many calls under way at a time:
    /// `for reply in client.call_all(messages).open()? { … }`. The replies come in the order of the messages.
    ///
    /// The same as a [`call`](Self::call) for each, at about half of the cost: calls are sent, and replies taken, many at a time. The
    /// handlers may run in any order.
    pub fn call_all<I: IntoIterator>(&self, messages: I) -> CallAll<'_, I::IntoIter>
    where
        I::Item: Message,
    {
        CallAll::new(self, messages.into_iter())
    }

    /// Calls a handler that answers with a stream: `for item in client.stream(message).open()? { … }`. Dropping the stream cancels.
    pub fn stream<M: Message>(&self, message: M) -> Call<'_, M, Streaming> {
        Call::new(self, message)
    }

    /// Calls a handler that takes a stream and answers with one reply.
    pub fn upload<M: Upload>(&self, message: M) -> Call<'_, M, Uploading> {
        Call::new(self, message)
    }

    /// Calls a handler with a stream in each direction.
    pub fn bidi<M: Upload>(&self, message: M) -> Call<'_, M, Bidirectional> {
        Call::new(self, message)
    }

    /// Sends a message that nobody answers. Waits while the server does not keep up.
    ///
    /// # Errors
    ///
    /// The reasons for which no call could be sent. Nothing has been sent then.
    pub fn notify<M: Message>(&self, message: M) -> Result<(), NotifyError> {
        let connection = self.connection(None)?;
        loop {
            let send = |payload: crate::connection::Outbound<'_>| {
                connection.notify(M::TYPE, None, payload)
            };
            match scratch::encoded(&message, send).map_err(CallError::Encode)? {
                Err(NotifyError::Full { .. }) => {}
                sent => return sent,
            }
            if let Ok(result) = connection.wait_writable(None) {
                result?;
            }
        }
    }

    /// Sends messages that nobody answers, waiting while the server does not keep up.
    ///
    /// The same as [`notify`](Self::notify) for each, at a fraction of the cost: many small ones share a frame of 4 KiB.
    ///
    /// # Errors
    ///
    /// A message cannot be encoded or is too large, or the connection has ended; the messages before it have been sent, those after it
    /// have not.
    pub fn notify_all<M: Message>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<(), NotifyError> {
        let connection = self.connection(None)?;
        let mut notifications = Notifications::new(&connection, messages.into_iter());
        loop {
            match notifications.send(&connection) {
                Err(NotifyError::Full { .. }) => {}
                done => return done,
            }
            if let Ok(result) = connection.wait_writable(None) {
                result?;
            }
        }
    }

    /// Sends a ping through the connection and returns how long the answer took.
    ///
    /// # Errors
    ///
    /// As for a call; [`CallError::DeadlineExceeded`] after `timeout`.
    pub fn ping(&self, timeout: Duration) -> Result<Duration, CallError> {
        let deadline = Some(after(timeout));
        let connection = self.connection(deadline)?;
        let start = Instant::now();
        let number = connection.send_ping()?;
        connection
            .wait_pong(number, deadline)
            .map_err(|_| CallError::DeadlineExceeded)??;
        Ok(start.elapsed())
    }

    /// Takes memory for a message that is sent without a copy, waiting for room for up to `timeout`.
    ///
    /// # Errors
    ///
    /// [`LoanError`]; [`LoanError::NoRoom`] if the server makes no more and nothing is lent that could come back.
    pub fn loan(&self, length: usize, timeout: Duration) -> Result<Loan, LoanError> {
        let deadline = Some(after(timeout));
        let connection = self.connection(deadline)?;
        connection
            .wait_loan(length, deadline)
            .map_err(|_| LoanError::DeadlineExceeded)?
    }

    /// As [`loan`](Self::loan), if there is room now. If not, the server is asked for some, so that there may be a little later. It is
    /// kept while something happens on the connection, and for a second or two without.
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn try_loan(&self, length: usize) -> Result<Loan, LoanError> {
        self.connection(None)?.try_loan(length)
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

    pub(super) fn connection(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Arc<Connection>, CallError> {
        if let Some(connection) = self.dialer.current() {
            return Ok(connection);
        }
        let patience = after(self.dialer.options.reconnect_timeout);
        let give_up = deadline.map_or(patience, |deadline| deadline.min(patience));
        let connected = self.dialer.connect(give_up, Some(give_up));
        connected.map_err(|error| match error {
            ConnectError::TimedOut { .. } if deadline == Some(give_up) => {
                CallError::DeadlineBeforeSend
            }
            error => CallError::NotConnected(Arc::new(error)),
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
    pub fn connect(self) -> Result<Client, ConnectError> {
        let give_up = after(self.options.wait_for_server);
        let client = self.lazy()?;
        client.dialer.connect(give_up, None)?;
        Ok(client)
    }

    /// Returns a client that connects with its first call.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Name`] if the name is not one.
    pub fn lazy(self) -> Result<Client, ConnectError> {
        let path = name::resolve(&self.name)?;
        Ok(Client {
            dialer: Arc::new(Dialer {
                path,
                options: self.options,
                current: Mutex::new(None),
                replaced: Replaced::default(),
                dialing: Mutex::new(false),
                turn: Condvar::new(),
                closed: AtomicBool::new(false),
            }),
        })
    }
}

impl Dialer {
    fn current(&self) -> Option<Arc<Connection>> {
        let current = lock(&self.current);
        current
            .as_ref()
            .filter(|connection| connection.is_usable())
            .map(Arc::clone)
    }

    /// Makes the connection; keeps trying until `give_up` while that can help. `limit` cuts an attempt short that takes longer.
    fn connect(
        self: &Arc<Self>,
        give_up: Instant,
        limit: Option<Instant>,
    ) -> Result<Arc<Connection>, ConnectError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(ConnectError::Closed); // not after the turn of whoever is closing it, which may be the caller
        }
        let _turn = self.wait_for_turn(limit)?;
        let mut back_off = BackOff::new();
        loop {
            if let Some(connection) = self.current() {
                return Ok(connection); // another thread has made it while we waited
            }
            if self.closed.load(Ordering::Relaxed) {
                return Err(ConnectError::Closed);
            }
            let error = match self.dial_once(limit) {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let pause = back_off.pause();
            if !error.is_retryable() || Instant::now() + pause >= give_up {
                return Err(error);
            }
            std::thread::sleep(pause); // between attempts; nothing tells when a server will start
        }
    }

    fn wait_for_turn(&self, limit: Option<Instant>) -> Result<Turn<'_>, ConnectError> {
        let mut dialing = lock(&self.dialing);
        while *dialing {
            dialing = match limit {
                None => self.turn.wait(dialing),
                Some(limit) => {
                    let left = limit.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let path = self.path.clone();
                        let after = self.options.reconnect_timeout;
                        return Err(ConnectError::TimedOut { path, after });
                    }
                    let waited = self.turn.wait_timeout(dialing, left);
                    Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
                }
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
        *dialing = true;
        Ok(Turn(self))
    }

    fn dial_once(
        self: &Arc<Self>,
        limit: Option<Instant>,
    ) -> Result<Arc<Connection>, ConnectError> {
        let options = &self.options;
        let timeout = limit.map_or(options.handshake_timeout, |limit| {
            let left = limit.saturating_duration_since(Instant::now());
            left.min(options.handshake_timeout)
        });
        let link = dial(
            &self.path,
            &options.client_name,
            options.wishes,
            &options.trusted_users,
            timeout,
        )?;
        let (connection, watched) = Connection::new(
            link,
            Sleeper::Threads,
            options.spin,
            options.max_assembly_bytes,
            Account::none(),
        );
        let dialer = Arc::downgrade(self);
        let ended = move || {
            if let Some(dialer) = dialer.upgrade() {
                dialer.replaced.forget_ended();
            }
        };
        watch(&connection, watched, ended).map_err(|source| ConnectError::System {
            path: self.path.clone(),
            source,
        })?;
        let replaced = lock(&self.current).replace(Arc::clone(&connection));
        if let Some(replaced) = replaced {
            self.replaced.add(replaced);
        }
        if self.closed.load(Ordering::Relaxed) {
            self.close(); // closed while we dialled
            return Err(ConnectError::Closed);
        }
        Ok(connection)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let connection = lock(&self.current).take();
        if let Some(connection) = connection {
            connection.close(Disconnected::Closed);
        }
        self.replaced.close();
    }
}

/// The right to dial; given back when dropped.
struct Turn<'a>(&'a Dialer);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.dialing) = false;
        self.0.turn.notify_one();
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("path", &self.dialer.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
