//! Handlers that are futures: polled once on the I/O worker, then on the tokio runtime if they are not ready.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use doorbell_proto::{CallKind, Status};
use tokio::{runtime::Handle, time::Sleep};

use super::{
    Context,
    registry::{Handler, Notifications, Request, SmallRequest},
    reply::{Call, ReplyTo, end, reply},
};
use crate::{
    connection::{Answer, Connection, Registration, TicketKey},
    message::{Message, Upload},
    panics::contain,
    stream::{ItemSender, ItemStream},
};

/// Wraps a closure as a handler; `S` says of which shape it is.
pub(crate) struct Task<F, M, S> {
    run: F,
    runtime: Handle,
    shape: PhantomData<fn(M, S)>,
}

impl<F, M, S> Task<F, M, S> {
    pub(crate) fn new(run: F, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            run,
            runtime,
            shape: PhantomData,
        })
    }
}

/// Shapes of handlers.
pub(crate) struct Unary;
pub(crate) struct Streaming;
pub(crate) struct Uploading;
pub(crate) struct Bidirectional;
pub(crate) struct Notified;

impl<F, M, Fut, E> Handler for Task<F, M, Unary>
where
    F: Fn(Context, M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<M::Reply, E>> + Send + 'static,
    E: Into<Status> + 'static,
    M: Message,
{
    fn kind(&self) -> Option<CallKind> {
        Some(CallKind::Unary)
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |reply_to, context, message: M| {
            self.answer(reply_to, context, message);
        });
    }

    fn handle_small(&self, request: &SmallRequest<'_>) {
        ReplyTo::serve_small(request, |reply_to, context, message: M| {
            self.answer(reply_to, context, message);
        });
    }
}

impl<F, M, Fut, E> Task<F, M, Unary>
where
    F: Fn(Context, M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<M::Reply, E>> + Send + 'static,
    E: Into<Status> + 'static,
    M: Message,
{
    #[inline]
    fn answer(&self, reply_to: ReplyTo<'_>, context: Context, message: M) {
        reply_to.run(
            &self.runtime,
            || (self.run)(context, message),
            reply::<M::Reply, E>,
        );
    }
}

impl<F, M, Fut, E> Handler for Task<F, M, Streaming>
where
    F: Fn(Context, M, ItemSender<M::Reply>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
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
            reply_to.run(
                &self.runtime,
                || (self.run)(context, message, out),
                end::<E>,
            );
        });
    }
}

impl<F, M, Fut, E> Handler for Task<F, M, Uploading>
where
    F: Fn(Context, M, ItemStream<M::Item>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<M::Reply, E>> + Send + 'static,
    E: Into<Status> + 'static,
    M: Upload,
{
    fn kind(&self) -> Option<CallKind> {
        Some(CallKind::ClientStream)
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |reply_to, context, message: M| {
            let Some(items) = reply_to.item_stream(None) else {
                return;
            };
            reply_to.run(
                &self.runtime,
                || (self.run)(context, message, items),
                reply::<M::Reply, E>,
            );
        });
    }
}

impl<F, M, Fut, E> Handler for Task<F, M, Bidirectional>
where
    F: Fn(Context, M, ItemStream<M::Item>, ItemSender<M::Reply>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Status> + 'static,
    M: Upload,
{
    fn kind(&self) -> Option<CallKind> {
        Some(CallKind::Bidirectional)
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |reply_to, context, message: M| {
            let (Some(items), Some(out)) = (reply_to.item_stream(None), reply_to.item_sender())
            else {
                return;
            };
            reply_to.run(
                &self.runtime,
                || (self.run)(context, message, items, out),
                end::<E>,
            );
        });
    }
}

impl<F, M, Fut> Handler for Task<F, M, Notified>
where
    F: Fn(Context, M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
    M: Message,
{
    fn kind(&self) -> Option<CallKind> {
        None
    }

    fn handle(&self, request: Request<'_>) {
        ReplyTo::serve(request, |reply_to, context, message: M| {
            reply_to.run(&self.runtime, || (self.run)(context, message), |_, ()| {});
        });
    }

    fn handle_all(&self, notifications: Notifications<'_>) {
        ReplyTo::serve_all(notifications, |reply_to, context, message: M| {
            reply_to.run(&self.runtime, || (self.run)(context, message), |_, ()| {});
        });
    }
}

/// How an output becomes an answer.
type Finish<T> = fn(&ReplyTo<'_>, T);

impl ReplyTo<'_> {
    /// Polls the handler's future once here; spawns it if it is not ready.
    fn run<Fut, T>(self, runtime: &Handle, start: impl FnOnce() -> Fut, finish: Finish<T>)
    where
        Fut: Future<Output = T> + Send + 'static,
        T: 'static,
    {
        let mut future = Box::pin(start());
        let mut nobody = TaskContext::from_waker(Waker::noop());
        match future.as_mut().poll(&mut nobody) {
            Poll::Ready(output) => finish(&self, output),
            Poll::Pending => self.spawn(runtime, future, finish),
        }
    }

    /// Goes on with a future on the runtime. Its first poll there registers the real waker.
    fn spawn<Fut, T>(self, runtime: &Handle, future: Pin<Box<Fut>>, finish: Finish<T>)
    where
        Fut: Future<Output = T> + Send + 'static,
        T: 'static,
    {
        let Call { id, deadline, .. } = self.call;
        let ticket = id.and_then(|id| self.connection.open_ticket(id));
        if id.is_some() && ticket.is_none() {
            return; // cancelled meanwhile: the future is dropped here
        }
        if id.is_none() {
            self.connection.background_began();
        }
        self.gives_work();
        let _entered = runtime.enter();
        let deadline = deadline
            .map(|at| Box::pin(tokio::time::sleep_until(self.connection.instant(at).into())));
        runtime.spawn(Supervised {
            future,
            ticket,
            deadline,
            finish,
            finished: false,
            connection: Arc::clone(self.connection),
            call: self.call,
            registration: Registration::default(),
        });
        doorbell_shm::failpoint!("handler.spawned");
    }
}

/// A handler's future on the runtime: ends with its answer, with the caller's loss of interest, or with the deadline.
struct Supervised<Fut, T> {
    future: Pin<Box<Fut>>,
    ticket: Option<TicketKey>,
    deadline: Option<Pin<Box<Sleep>>>,
    finish: Finish<T>,
    finished: bool,
    connection: Arc<Connection>,
    call: Call,
    /// Waits for the end of the call, with which it goes.
    registration: Registration,
}

impl<Fut: Future<Output = T>, T> Future for Supervised<Fut, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let polled = self.poll_handler(cx);
        self.finished = polled.is_ready();
        polled
    }
}

impl<Fut, T> Supervised<Fut, T> {
    fn reply_to(&self) -> ReplyTo<'_> {
        ReplyTo::later(&self.connection, self.call)
    }
}

impl<Fut: Future<Output = T>, T> Supervised<Fut, T> {
    fn poll_handler(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self;
        match contain(|| this.future.as_mut().poll(cx)) {
            Some(Poll::Ready(output)) => {
                this.reply_to().finish(this.finish, output);
                return Poll::Ready(());
            }
            Some(Poll::Pending) => {}
            None => {
                this.reply_to().panicked();
                return Poll::Ready(());
            }
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            this.connection.expire();
            // A clock that is ahead of the real one, as a paused one of tokio's, is not asked again: whoever called gives up when the time is over.
            this.deadline = None;
        }
        match this.call.id {
            Some(id) => this.connection.poll_ended(cx, id, &mut this.registration),
            None => Poll::Pending,
        }
    }
}

impl<Fut, T> Drop for Supervised<Fut, T> {
    fn drop(&mut self) {
        if !self.finished {
            // Only a runtime that shuts down drops a handler before its end.
            let status = Status::unavailable("the server's runtime has ended");
            self.reply_to().answer(Answer::Fail(status));
        }
        if let Some(ticket) = self.ticket.take() {
            self.connection.close_ticket(ticket, Vec::new());
        }
        if self.call.id.is_none() {
            self.connection.background_ended();
        }
    }
}
