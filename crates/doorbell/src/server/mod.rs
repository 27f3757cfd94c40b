//! The server: handlers by message type, answered on I/O workers and, when they are not ready at once, on tokio.

mod acceptor;
mod admission;
mod churn;
mod context;
mod dispatch;
mod door;
mod engine;
mod handle;
mod ledger;
mod mailbox;
mod options;
mod pace;
mod quarantine;
mod quiet;
pub(crate) mod registry;
pub(crate) mod reply;
mod resource;
mod rounds;
#[cfg(feature = "tokio")]
mod tasks;
mod turn;
mod wary;
mod worker;

pub(crate) use admission::Policy;
pub use admission::{Admission, Peer};
pub use context::Context;
pub use doorbell_shm::sys::SocketAccess;
pub(crate) use engine::Engine;
pub use engine::ServerStats;
pub(crate) use options::{Options, option_methods};
pub(crate) use resource::Limits;
pub use resource::{Resource, ResourceStats};

#[cfg(feature = "tokio")]
pub use awaiting::{Builder, Server};

#[cfg(feature = "tokio")]
mod awaiting {
    use std::{future::Future, sync::Arc, time::Duration};

    use doorbell_proto::Status;
    use tokio::runtime::Handle;

    use super::{
        Context, Engine, Options, ServerStats, option_methods,
        registry::{Handler, Registry, Table},
        tasks::{Bidirectional, Notified, Streaming, Task, Unary, Uploading},
    };
    use crate::{
        MessageType,
        deadline::require_timers,
        error::BindError,
        message::{Message, Upload},
        stream::{ItemSender, ItemStream},
    };

    /// A running server. Dropping it ends every connection and removes the socket.
    ///
    /// ```no_run
    /// # use doorbell::{Context, Message, MessageType, Server, Status};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Add { left: u32, right: u32 }
    /// # impl Message for Add { const TYPE: MessageType = MessageType::new(1); type Reply = u32; }
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder("calculator")
    ///     .on(|_ctx: Context, add: Add| async move { Ok::<_, Status>(add.left + add.right) })
    ///     .bind()
    ///     .await?;
    /// server.serve_until(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Clone)]
    pub struct Server {
        engine: Arc<Engine>,
        runtime: Handle,
    }

    /// Collects handlers and settings before a server starts.
    pub struct Builder {
        name: String,
        options: Options,
        handlers: Vec<(MessageType, MakeHandler)>,
    }

    /// How long `serve_until` lets calls under way end.
    const DRAIN_LIMIT: Duration = Duration::from_secs(10);

    type MakeHandler = Box<dyn FnOnce(Handle) -> Arc<dyn Handler> + Send>;

    impl Server {
        /// Begins a server called `name`: a service name, or a path if it has a slash in it.
        ///
        /// A service name becomes a socket in the user's runtime directory: `$DOORBELL_RUNTIME_DIR`, else
        /// `$XDG_RUNTIME_DIR/doorbell`, else a directory of the user's own in `/tmp`.
        pub fn builder(name: impl Into<String>) -> Builder {
            Builder {
                name: name.into(),
                options: Options::default(),
                handlers: Vec::new(),
            }
        }

        /// Serves until `signal` is ready; then takes no more calls, lets those under way end for up to ten seconds, and ends.
        ///
        /// # Errors
        ///
        /// None so far; the result leaves room for threads that fail.
        pub async fn serve_until(self, signal: impl Future) -> Result<(), BindError> {
            signal.await;
            self.shutdown(DRAIN_LIMIT).await;
            Ok(())
        }

        /// Takes no more connections and calls, lets those under way end for up to `limit`, then ends what is left. Returns `true`
        /// if every call could end.
        ///
        /// Under way is also what a client had sent before it heard that the server leaves: such calls are answered, and such notifications
        /// handed to their handlers, though tasks of these may go on behind it. A client that runs says in microseconds that it has heard, and
        /// its next call fails as not executed. One that says nothing for a second though everything has been read that it has sent, because it
        /// has been stopped for instance, is not waited for any longer, if `limit` is longer than that. In a handler it waits for the call of that
        /// handler until `limit`.
        pub async fn shutdown(&self, limit: Duration) -> bool {
            self.engine.begin_drain();
            let drained = self.drain(limit).await;
            let engine = Arc::clone(&self.engine);
            // Joining threads blocks; a worker may be in a handler that computes.
            let ended = tokio::task::spawn_blocking(move || engine.end(drained)).await;
            ended.unwrap_or(false)
        }

        /// Waits until nothing is under way, for up to `limit`. Returns whether it came to that.
        async fn drain(&self, limit: Duration) -> bool {
            for round in self.engine.rounds(limit) {
                let quiet = tokio::time::timeout(round, self.engine.quiet());
                if quiet.await.is_ok() {
                    return true;
                }
            }
            false
        }

        /// Adds a handler while the server runs, or replaces the one for the same message type. Returns `true` if it replaced one.
        pub fn on<M, F, Fut, E>(&self, handler: F) -> bool
        where
            M: Message,
            F: Fn(Context, M) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<M::Reply, E>> + Send + 'static,
            E: Into<Status> + 'static,
        {
            self.engine.insert(
                M::TYPE,
                Task::<F, M, Unary>::new(handler, self.runtime.clone()),
            )
        }

        /// Adds or replaces a handler that answers with a stream. Returns `true` if it replaced one.
        pub fn on_stream<M, F, Fut, E>(&self, handler: F) -> bool
        where
            M: Message,
            F: Fn(Context, M, ItemSender<M::Reply>) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<(), E>> + Send + 'static,
            E: Into<Status> + 'static,
        {
            self.engine.insert(
                M::TYPE,
                Task::<F, M, Streaming>::new(handler, self.runtime.clone()),
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

        /// Answers `M` with a future of one reply.
        ///
        /// The future is polled once on an I/O worker, so a handler that is ready at once costs no hop between threads; one that
        /// waits goes on as a task of the runtime. It must not block. If it panics, its call fails with `INTERNAL` and nothing else.
        #[must_use]
        pub fn on<M, F, Fut, E>(self, handler: F) -> Self
        where
            M: Message,
            F: Fn(Context, M) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<M::Reply, E>> + Send + 'static,
            E: Into<Status> + 'static,
        {
            self.add::<M>(move |runtime| Task::<F, M, Unary>::new(handler, runtime))
        }

        /// Answers `M` with a stream of items, which ends when the future does.
        #[must_use]
        pub fn on_stream<M, F, Fut, E>(self, handler: F) -> Self
        where
            M: Message,
            F: Fn(Context, M, ItemSender<M::Reply>) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<(), E>> + Send + 'static,
            E: Into<Status> + 'static,
        {
            self.add::<M>(move |runtime| Task::<F, M, Streaming>::new(handler, runtime))
        }

        /// Answers `M` and the items that follow it with one reply.
        #[must_use]
        pub fn on_upload<M, F, Fut, E>(self, handler: F) -> Self
        where
            M: Upload,
            F: Fn(Context, M, ItemStream<M::Item>) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<M::Reply, E>> + Send + 'static,
            E: Into<Status> + 'static,
        {
            self.add::<M>(move |runtime| Task::<F, M, Uploading>::new(handler, runtime))
        }

        /// Answers `M` and the items that follow it with items.
        #[must_use]
        pub fn on_bidi<M, F, Fut, E>(self, handler: F) -> Self
        where
            M: Upload,
            F: Fn(Context, M, ItemStream<M::Item>, ItemSender<M::Reply>) -> Fut
                + Send
                + Sync
                + 'static,
            Fut: Future<Output = Result<(), E>> + Send + 'static,
            E: Into<Status> + 'static,
        {
            self.add::<M>(move |runtime| Task::<F, M, Bidirectional>::new(handler, runtime))
        }

        /// Takes `M` without an answer. Handlers of one connection start in the order in which the notifications were sent.
        ///
        /// While 1024 of them run for one client, nothing more of that client is read, until half have ended. So none may wait for what only
        /// that client can bring: a lock, for instance, whose holder sends it items and waits for it to read them.
        #[must_use]
        pub fn on_notify<M, F, Fut>(self, handler: F) -> Self
        where
            M: Message,
            F: Fn(Context, M) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = ()> + Send + 'static,
        {
            self.add::<M>(move |runtime| Task::<F, M, Notified>::new(handler, runtime))
        }

        fn add<M: Message>(
            mut self,
            make: impl FnOnce(Handle) -> Arc<dyn Handler> + Send + 'static,
        ) -> Self {
            self.handlers.push((M::TYPE, Box::new(make)));
            self
        }

        /// Starts the server on the current runtime, which needs timers (tokio's `enable_time`): for deadlines, and to shut down.
        ///
        /// A socket that a dead server left behind is replaced; that of a living one never is.
        ///
        /// # Errors
        ///
        /// [`BindError`]; nothing is left behind.
        ///
        /// # Panics
        ///
        /// Panics outside a tokio runtime, and on one without timers.
        pub async fn bind(mut self) -> Result<Server, BindError> {
            let runtime = Handle::current();
            require_timers();
            self.options.runtime = Some(runtime.clone());
            let mut table = Table::default();
            for (message_type, make) in self.handlers {
                if table.insert(message_type, make(runtime.clone())).is_some() {
                    return Err(BindError::DuplicateHandler(message_type));
                }
            }
            let engine = Engine::start(&self.name, &self.options, Registry::new(table))?;
            Ok(Server { engine, runtime })
        }
    }
}
