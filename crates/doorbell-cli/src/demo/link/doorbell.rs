//! The session over Doorbell: the whole of what joins the engine and the editor to it.

use std::path::Path;

use doorbell::{
    BindError, CallError, Client, ConnectError, Context, ItemError, ItemSender, ItemStream,
    Outcome, Payload, Raw, Server, Status,
};

use super::{Costs, Ending, Failure};
use crate::demo::{
    engine::{Engine, Fault, Inlet, Outlet, Scope},
    protocol::{
        AwaitIdle, Complete, Describe, Diagnose, DiagnosticsQuery, Edit, Hit, OpenDocument,
        OpenFile, Search, Token,
    },
};

/// Window of each stream: about as many tokens as the baseline allows to be under way.
const STREAM_WINDOW_BYTES: u32 = 16 << 10;

/// Serves the engine at `path` until `stop` is ready. Calls `on_ready` once clients can connect.
///
/// # Errors
///
/// What Doorbell says about the socket.
pub(crate) async fn serve(
    engine: &'static Engine,
    path: &Path,
    on_ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), BindError> {
    let server = Server::builder(path.to_string_lossy())
        .on(move |_: Context, request: OpenFile| async move {
            engine.open_file(request).await.map(Raw::from)
        })
        .on(move |_: Context, request: OpenDocument| async move {
            Ok::<_, Fault>(engine.open_document(request))
        })
        .on(move |_: Context, request: AwaitIdle| async move {
            Ok::<_, Fault>(engine.await_idle(request).await)
        })
        .on(move |_: Context, _: Describe| async move { Ok::<_, Fault>(engine.describe()) })
        .on_stream(
            move |context: Context, request: Search, mut out: ItemSender<Hit>| async move {
                engine.search(&context, request, &mut out).await
            },
        )
        .on_stream(
            move |context: Context, request: Complete, mut out: ItemSender<Token>| async move {
                engine.complete(&context, request, &mut out).await
            },
        )
        .on_bidi(
            move |context: Context,
                  _: Diagnose,
                  mut queries: ItemStream<DiagnosticsQuery>,
                  mut out| async move {
                engine.diagnose(&context, &mut queries, &mut out).await
            },
        )
        .on_notify(move |_: Context, edit: Edit| async move { engine.edit(&edit) })
        .bind()
        .await?;
    on_ready();
    server.serve_until(stop).await
}

/// Connects to the engine at `path`.
///
/// # Errors
///
/// What Doorbell says.
pub(super) async fn connect(path: &Path) -> Result<Client, ConnectError> {
    Client::builder(path.to_string_lossy())
        .stream_window_bytes(STREAM_WINDOW_BYTES)
        .connect()
        .await
}

/// Returns what the connection has cost this process.
pub(super) fn costs(client: &Client) -> Costs {
    let stats = client.stats();
    Costs {
        messages: stats.messages_sent + stats.frames_received,
        wake_ups: stats.sleeps,
        system_calls: stats.system_calls(),
    }
}

impl Scope for Context {
    fn is_cancelled(&self) -> bool {
        self.is_cancelled()
    }

    fn cancelled(&self) -> impl Future<Output = ()> + Send {
        self.cancelled()
    }
}

impl<T: Payload + Sync> Outlet<T> for ItemSender<T> {
    async fn send(&mut self, item: T) -> Result<(), Fault> {
        self.send(item).await.map_err(|error| match error {
            ItemError::Over => Fault::Cancelled,
            error => Fault::Internal(error.to_string()),
        })
    }
}

impl<T: Payload> Inlet<T> for ItemStream<T> {
    async fn next(&mut self) -> Result<Option<T>, Fault> {
        self.next().await.transpose().map_err(|_| Fault::Cancelled)
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Invalid(text) => Self::invalid_argument(text),
            Fault::NotFound(text) => Self::not_found(text),
            Fault::Cancelled => Self::cancelled("the caller wants no more"),
            Fault::Internal(text) => Self::internal(text),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let ending = match error.outcome() {
            Outcome::Application => Ending::Refused,
            Outcome::NotExecuted => Ending::NotExecuted,
            Outcome::Unknown => Ending::Unknown,
        };
        Self {
            ending,
            text: error.to_string(),
        }
    }
}

impl From<ItemError> for Failure {
    fn from(error: ItemError) -> Self {
        let ending = match error {
            ItemError::Over => Ending::Unknown,
            _ => Ending::NotExecuted,
        };
        Self {
            ending,
            text: error.to_string(),
        }
    }
}
