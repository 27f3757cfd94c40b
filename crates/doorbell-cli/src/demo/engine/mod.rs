//! The engine: what the second process does with the files of the tree.
//!
//! It knows nothing of transports. A handler gets its request, a [`Scope`] that tells of cancellation, and for streams an
//! [`Outlet`] or [`Inlet`]; `link` joins these to Doorbell, `socket` to the baseline.

pub(crate) mod activity;
pub(crate) mod diagnostics;
pub(crate) mod documents;
pub(crate) mod files;
pub(crate) mod model;
pub(crate) mod search;

use std::{
    fmt,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{runtime::Handle, sync::mpsc, task::JoinError};

use self::{activity::Activity, documents::Documents, model::Model};
use super::protocol::{
    AwaitIdle, Complete, Description, Diagnostics, DiagnosticsQuery, DocumentOpened, Edit, Hit,
    OpenDocument, OpenFile, Search, StreamCounts, StreamKind, Token,
};

/// Hits that may wait between the thread that searches and the task that sends.
const HITS_WAITING: usize = 64;

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request makes no sense.
    Invalid(String),
    /// What it names does not exist.
    NotFound(String),
    /// The caller has gone away or wants no more.
    Cancelled,
    /// The engine failed.
    Internal(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) | Self::NotFound(text) | Self::Internal(text) => f.write_str(text),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// What a handler needs to know about its caller.
pub(crate) trait Scope: Send + Sync {
    /// Returns `true` once the caller wants no more.
    fn is_cancelled(&self) -> bool;
    /// Waits until the caller wants no more.
    fn cancelled(&self) -> impl Future<Output = ()> + Send;
}

/// Where a handler puts the items of its stream.
pub(crate) trait Outlet<T>: Send {
    /// Sends an item; waits while the caller does not keep up.
    fn send(&mut self, item: T) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Where a handler gets the items of the caller.
pub(crate) trait Inlet<T>: Send {
    /// Returns the next item, or `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<T>, Fault>> + Send;
}

/// The engine. One value serves all connections.
#[derive(Debug)]
pub(crate) struct Engine {
    root: PathBuf,
    model: Model,
    documents: Documents,
    searches: Activity,
    completions: Activity,
    edits_out_of_order: AtomicU64,
    /// For the work that blocks; a transport may poll handlers on threads of its own.
    runtime: Handle,
}

impl Engine {
    /// Builds the engine of a tree. Reads its files: call it before serving.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            model: Model::of_tree(&root),
            root,
            documents: Documents::new(),
            searches: Activity::new(),
            completions: Activity::new(),
            edits_out_of_order: AtomicU64::new(0),
            runtime: Handle::current(),
        }
    }

    /// Reads a file.
    pub(crate) async fn open_file(&self, request: OpenFile) -> Result<Vec<u8>, Fault> {
        let root = self.root.clone();
        self.runtime
            .spawn_blocking(move || files::read(&root, &request.path))
            .await
            .map_err(panicked)?
    }

    /// Streams the hits of a search.
    pub(crate) async fn search(
        &self,
        scope: &impl Scope,
        request: Search,
        out: &mut impl Outlet<Hit>,
    ) -> Result<(), Fault> {
        let mut running = self.searches.start();
        let (hits, mut found) = mpsc::channel(HITS_WAITING);
        let stop = StopOnDrop::default();
        let (root, is_stopped) = (self.root.clone(), Arc::clone(&stop.0));
        let walk = self.runtime.spawn_blocking(move || {
            search::search(
                &root,
                &request.pattern,
                || is_stopped.load(Relaxed),
                |hit| match hits.blocking_send(hit) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                },
            )
        });
        while let Some(hit) = unless_cancelled(scope, found.recv()).await? {
            running.count_item();
            out.send(hit).await?;
        }
        walk.await.map_err(panicked)??;
        running.finish();
        Ok(())
    }

    /// Streams the tokens of a completion.
    pub(crate) async fn complete(
        &self,
        scope: &impl Scope,
        request: Complete,
        out: &mut impl Outlet<Token>,
    ) -> Result<(), Fault> {
        let mut running = self.completions.start();
        let max_tokens = request.max_tokens.map_or(usize::MAX, |max| max as usize);
        for text in self
            .model
            .complete(&request.prefix, request.seed)
            .take(max_tokens)
        {
            if scope.is_cancelled() {
                return Err(Fault::Cancelled);
            }
            running.count_item();
            out.send(Token {
                text: text.to_owned(),
            })
            .await?;
        }
        running.finish();
        Ok(())
    }

    /// Opens a document for editing.
    pub(crate) fn open_document(&self, request: OpenDocument) -> DocumentOpened {
        self.documents.open(request)
    }

    /// Applies an edit; one that does not fit is only counted, as nobody waits for an answer.
    pub(crate) fn edit(&self, edit: &Edit) {
        if self.documents.apply(edit).is_err() {
            self.edits_out_of_order.fetch_add(1, Relaxed);
        }
    }

    /// Answers each query of a diagnostics stream in turn.
    pub(crate) async fn diagnose(
        &self,
        scope: &impl Scope,
        queries: &mut impl Inlet<DiagnosticsQuery>,
        out: &mut impl Outlet<Diagnostics>,
    ) -> Result<(), Fault> {
        while let Some(query) = queries.next().await? {
            let answer = unless_cancelled(scope, self.documents.diagnostics(&query)).await??;
            out.send(answer).await?;
        }
        Ok(())
    }

    /// Waits until no stream of a kind runs.
    pub(crate) async fn await_idle(&self, request: AwaitIdle) -> StreamCounts {
        match request.kind {
            StreamKind::Search => self.searches.idle().await,
            StreamKind::Complete => self.completions.idle().await,
        }
    }

    /// Describes the engine.
    pub(crate) fn describe(&self) -> Description {
        Description {
            pid: std::process::id(),
            model_tokens: self.model.token_count() as u64,
            model_fingerprint: self.model.fingerprint(),
            edits_out_of_order: self.edits_out_of_order.load(Relaxed),
        }
    }
}

async fn unless_cancelled<T>(
    scope: &impl Scope,
    work: impl Future<Output = T>,
) -> Result<T, Fault> {
    tokio::select! {
        biased;
        () = scope.cancelled() => Err(Fault::Cancelled),
        done = work => Ok(done),
    }
}

/// Tells a blocking search to stop when nobody reads its hits any more.
#[derive(Debug, Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn panicked(error: JoinError) -> Fault {
    Fault::Internal(format!("the engine's worker failed: {error}"))
}
