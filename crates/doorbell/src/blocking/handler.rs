//! Handlers that are plain functions: unary ones run on the I/O worker, streaming ones on threads of their own.

use std::{marker::PhantomData, sync::Arc};

use doorbell_proto::{CallKind, Status};

use super::{
    ItemSender, ItemStream,
    threads::{Refused, Threads},
};
use crate::{
    connection::Answer,
    message::{Message, Upload},
    panics::contain,
    server::{
        Context,
        registry::{Handler, Notifications, Request, SmallRequest},
        reply::{ReplyTo, end, reply},
    },
};

/// Wraps a closure as a handler; `S` says of which shape it is.
pub(super) struct Function<F, M, S> {
    run: Arc<F>,
    threads: Arc<Threads>,
    shape: PhantomData<fn(M, S)>,
}

impl<F, M, S> Function<F, M, S> {
    pub(super) fn new(run: F, threads: &Arc<Threads>) -> Arc<Self> {
        Arc::new(Self {
            run: Arc::new(run),
            threads: Arc::clone(threads),
            shape: PhantomData,
        })
    }
}

/// Shapes of handlers.
pub(super) struct Unary;
pub(super) struct Streaming;
pub(super) struct Uploading;
pub(super) struct Bidirectional;
pub(super) struct Notified;

impl<F, M, E> Handler for Function<F, M, Unary>
where
    F: Fn(Context, M) -> Result<M::Reply, E> + Send + Sync + 'static,
    E: Into<Status> + 'static,
    M: Message,
{
    fn kind(&self) -> Option<CallKind> {
        Some(CallKind::Unary)
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |reply_to, context, message: M| {
            reply(&reply_to, (self.run)(context, message));
        });
    }

    fn handle_small(&self, request: &SmallRequest<'_>) {
        ReplyTo::serve_small(request, |reply_to, context, message: M| {
            reply(&reply_to, (self.run)(context, message));
        });
    }
}

impl<F, M, E> Handler for Function<F, M, Streaming>
where
    F: Fn(Context, M, ItemSender<M::Reply>) -> Result<(), E> + Send + Sync + 'static,
    E: Into<Status> + 'static,
    M: Message,
{
    fn kind(&self) -> Option<CallKind> {
        Some(CallKind::ServerStream)
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |reply_to, context, message: M| {
            let Some(out) = reply_to.item_sender() else {
                return;
            };
            let run = Arc::clone(&self.run);
            let out = ItemSender(out, context.deadline());
            self.threads
                .serve(reply_to, move || run(context, message, out), end::<E>);
        });
    }
}

impl<F, M, E> Handler for Function<F, M, Uploading>
where
    F: Fn(Context, M, ItemStream<M::Item>) -> Result<M::Reply, E> + Send + Sync + 'static,
    E: Into<Status> + 'static,
    M: Upload,
{
    fn kind(&self) -> Option<CallKind> {
        Some(CallKind::ClientStream)
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |reply_to, context, message: M| {
            let Some(items) = reply_to.item_stream(context.deadline()) else {
                return;
            };
            let run = Arc::clone(&self.run);
            self.threads.serve(
                reply_to,
                move || run(context, message, ItemStream(items)),
                reply::<M::Reply, E>,
            );
        });
    }
}

impl<F, M, E> Handler for Function<F, M, Bidirectional>
where
    F: Fn(Context, M, ItemStream<M::Item>, ItemSender<M::Reply>) -> Result<(), E>
        + Send
        + Sync
        + 'static,
    E: Into<Status> + 'static,
    M: Upload,
{
    fn kind(&self) -> Option<CallKind> {
        Some(CallKind::Bidirectional)
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |reply_to, context, message: M| {
            let (Some(items), Some(out)) = (
                reply_to.item_stream(context.deadline()),
                reply_to.item_sender(),
            ) else {
                return;
            };
            let run = Arc::clone(&self.run);
            let out = ItemSender(out, context.deadline());
            self.threads.serve(
                reply_to,
                move || run(context, message, ItemStream(items), out),
                end::<E>,
            );
        });
    }
}

impl<F, M> Handler for Function<F, M, Notified>
where
    F: Fn(Context, M) + Send + Sync + 'static,
    M: Message,
{
    fn kind(&self) -> Option<CallKind> {
        None
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |_, context, message: M| {
            (self.run)(context, message);
        });
    }

    fn handle_all(&self, notifications: Notifications<'_>) {
        ReplyTo::serve_all(notifications, |_, context, message: M| {
            (self.run)(context, message);
        });
    }
}

impl Threads {
    /// Runs a handler, and lets `finish` answer with what it returns.
    fn serve<T: 'static>(
        &self,
        reply_to: ReplyTo<'_>,
        handler: impl FnOnce() -> T + Send + 'static,
        finish: fn(&ReplyTo<'_>, T),
    ) {
        reply_to.gives_work();
        let (connection, call) = (Arc::clone(reply_to.connection), reply_to.call);
        let job = move || {
            let reply_to = ReplyTo::later(&connection, call);
            match contain(handler) {
                Some(output) => reply_to.finish(finish, output),
                None => reply_to.panicked(),
            }
        };
        let text = match self.run(job) {
            Ok(()) => return,
            Err(Refused::Busy(limit)) => {
                format!("{limit} streaming calls are being answered already")
            }
            Err(Refused::System(error)) => format!("no thread for the handler: {error}"),
        };
        let status = Status::resource_exhausted(text);
        reply_to.answer(Answer::Fail(status.not_executed()));
    }
}
