//! The server for threads.

use std::{sync::Arc, time::Duration};

use doorbell_proto::Status;

use super::{
    ItemSender, ItemStream,
    handler::{Bidirectional, Function, Notified, Streaming, Unary, Uploading},
    threads::Threads,
};
use crate::{
    MessageType,
    deadline::after,
    error::BindError,
    message::{Message, Upload},
    server::{
        Context, Engine, Options, ServerStats, option_methods,
        registry::{Handler, Registry, Table},
    },
};

/// A running server. Dropping the last clone ends every connection and removes the socket.
#[derive(Clone)]
pub struct Server {
    engine: Arc<Engine>,
    threads: Arc<Threads>,
}

/// Collects handlers and settings before a server starts.
pub struct Builder {
    name: String,
    options: Options,
    threads: Arc<Threads>,
    handlers: Vec<(MessageType, Arc<dyn Handler>)>,
}

impl Server {
    /// Begins a server called `name`: a service name, or a path if it has a slash in it.
    pub fn builder(name: impl Into<String>) -> Builder {
        let threads = Threads::new(HANDLER_THREADS);
        Builder {
            name: name.into(),
            options: Options::default(),
            threads,
            handlers: Vec::new(),
        }
    }

    /// Takes no more connections and calls, lets those under way end for up to `limit`, then ends what is left. Returns `true` if
    /// every call could end.
    ///
    /// Under way is also what a client had sent before it heard that the server leaves: such calls are answered, and such notifications
    /// handled. A client that runs says in microseconds that it has heard, and its next call fails as not executed. One that says nothing for
    /// a second though everything has been read that it has sent, because it has been stopped for instance, is not waited for any longer, if
    /// `limit` is longer than that.
    ///
    /// In a handler it waits for the call of that handler until `limit`; and if that runs on an I/O worker, all clients of the worker wait with it.
    pub fn shutdown(&self, limit: Duration) -> bool {
        self.engine.begin_drain();
        let drained = self.drain(limit);
        self.engine.end(drained)
    }

    /// Waits until nothing is under way, for up to `limit`. Returns whether it came to that.
    fn drain(&self, limit: Duration) -> bool {
        let mut rounds = self.engine.rounds(limit);
        rounds.any(|round| self.engine.wait_quiet(after(round)))
    }

    /// Adds a handler while the server runs, or replaces the one for the same message type. Returns `true` if it replaced one.
    pub fn on<M, F, E>(&self, handler: F) -> bool
    where
        M: Message,
        F: Fn(Context, M) -> Result<M::Reply, E> + Send + Sync + 'static,
        E: Into<Status> + 'static,
    {
        self.engine.insert(
            M::TYPE,
            Function::<F, M, Unary>::new(handler, &self.threads),
        )
    }

    /// Adds or replaces a handler that answers with a stream. Returns `true` if it replaced one.
    pub fn on_stream<M, F, E>(&self, handler: F) -> bool
    where
        M: Message,
        F: Fn(Context, M, ItemSender<M::Reply>) -> Result<(), E> + Send + Sync + 'static,
        E: Into<Status> + 'static,
    {
        self.engine.insert(
            M::TYPE,
            Function::<F, M, Streaming>::new(handler, &self.threads),
        )
    }

    /// Removes the handler of `M`. Calls under way go on; new ones get `UNIMPLEMENTED`. Returns `true` if there was one.
    pub fn remove<M: Message>(&self) -> bool {
        self.engine.remove(M::TYPE)
    }

    /// Returns the path of the server's socket.
    pub fn path(&self) -> &std::path::Path {
        self.engine.path()
    }

    /// Returns what the server has done so far.
    pub fn stats(&self) -> ServerStats {
        self.engine.stats()
    }
}

impl Builder {
    option_methods!();

    /// Sets how many streaming calls may be answered at once; each has a thread. Default: 64. A thread without a call ends after a second.
    #[must_use]
    pub fn handler_threads(self, limit: usize) -> Self {
        self.threads.set_limit(limit);
        self
    }

    /// Answers `M` with one reply. The function runs on an I/O worker: while it does, other calls of that worker wait.
    #[must_use]
    pub fn on<M, F, E>(self, handler: F) -> Self
    where
        M: Message,
        F: Fn(Context, M) -> Result<M::Reply, E> + Send + Sync + 'static,
        E: Into<Status> + 'static,
    {
        let handler = Function::<F, M, Unary>::new(handler, &self.threads);
        self.add::<M>(handler)
    }

    /// Answers `M` with a stream of items, which ends when the function does. It runs on a thread of its own.
    #[must_use]
    pub fn on_stream<M, F, E>(self, handler: F) -> Self
    where
        M: Message,
        F: Fn(Context, M, ItemSender<M::Reply>) -> Result<(), E> + Send + Sync + 'static,
        E: Into<Status> + 'static,
    {
        let handler = Function::<F, M, Streaming>::new(handler, &self.threads);
        self.add::<M>(handler)
    }

    /// Answers `M` and the items that follow it with one reply. It runs on a thread of its own.
    #[must_use]
    pub fn on_upload<M, F, E>(self, handler: F) -> Self
    where
        M: Upload,
        F: Fn(Context, M, ItemStream<M::Item>) -> Result<M::Reply, E> + Send + Sync + 'static,
        E: Into<Status> + 'static,
    {
        let handler = Function::<F, M, Uploading>::new(handler, &self.threads);
        self.add::<M>(handler)
    }

    /// Answers `M` and the items that follow it with items. It runs on a thread of its own.
    #[must_use]
    pub fn on_bidi<M, F, E>(self, handler: F) -> Self
    where
        M: Upload,
        F: Fn(Context, M, ItemStream<M::Item>, ItemSender<M::Reply>) -> Result<(), E>
            + Send
            + Sync
            + 'static,
        E: Into<Status> + 'static,
    {
        let handler = Function::<F, M, Bidirectional>::new(handler, &self.threads);
        self.add::<M>(handler)
    }

    /// Takes `M` without an answer, on an I/O worker.
    #[must_use]
    pub fn on_notify<M, F>(self, handler: F) -> Self
    where
        M: Message,
        F: Fn(Context, M) + Send + Sync + 'static,
    {
        let handler = Function::<F, M, Notified>::new(handler, &self.threads);
        self.add::<M>(handler)
    }

    fn add<M: Message>(mut self, handler: Arc<dyn Handler>) -> Self {
        self.handlers.push((M::TYPE, handler));
        self
    }

    /// Starts the server. A socket that a dead server left behind is replaced; that of a living one never is.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing is left behind.
    pub fn bind(self) -> Result<Server, BindError> {
        let mut table = Table::default();
        for (message_type, handler) in self.handlers {
            if table.insert(message_type, handler).is_some() {
                return Err(BindError::DuplicateHandler(message_type));
            }
        }
        let engine = Engine::start(&self.name, &self.options, Registry::new(table))?;
        Ok(Server {
            engine,
            threads: self.threads,
        })
    }
}

/// Streaming calls that are answered at once unless told otherwise.
const HANDLER_THREADS: usize = 64;
