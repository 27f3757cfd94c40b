//! Many calls of a task, from their settings to their replies.

use std::{
    fmt,
    future::{Future, IntoFuture, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_core::Stream;

use super::{Client, Pipeline, WINDOW, call_all_settings};
use crate::{error::CallError, message::Message, stream::Turns};

/// Many calls that have not been sent yet. Await it, after setting what they need.
#[must_use = "calls are only sent when they are awaited"]
pub struct CallAll<'c, I> {
    client: &'c Client,
    messages: I,
    window: usize,
    deadline: Option<Instant>,
}

impl<'c, I> CallAll<'c, I> {
    pub(super) fn new(client: &'c Client, messages: I) -> Self {
        Self {
            client,
            messages,
            window: WINDOW,
            deadline: None,
        }
    }

    call_all_settings!();
}

impl<'c, M, I> IntoFuture for CallAll<'c, I>
where
    M: Message,
    I: Iterator<Item = M> + Send + 'c,
{
    type Output = Result<Replies<I>, CallError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let connection = self.client.connection(self.deadline).await?;
            Ok(Replies {
                calls: Pipeline::new(connection, self.messages, self.window, self.deadline),
                slept_since: None,
                turns: Turns::default(),
            })
        })
    }
}

/// The replies to many calls, in the order of their messages. Dropping it cancels those that are under way.
pub struct Replies<I: Iterator> {
    calls: Pipeline<I>,
    slept_since: Option<Instant>,
    turns: Turns,
}

impl<M: Message, I: Iterator<Item = M>> Replies<I> {
    /// Returns what came of the next call, or `None` after the last one. Calls are started here and nowhere else.
    ///
    /// # Errors
    ///
    /// An item is the error of one call; those behind it go on, except after an error that kept one from being sent, which no other
    /// follows. Its [`outcome`](CallError::outcome) tells whether the handler may have run.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no reply.
    pub async fn next(&mut self) -> Option<Result<M::Reply, CallError>> {
        if let Some(deadline) = self.calls.deadline() {
            let next = poll_fn(|cx| self.poll_reply(cx));
            if let Ok(reply) = tokio::time::timeout_at(deadline.into(), next).await {
                return reply;
            }
            self.calls.connection().expire(); // gives the calls their outcomes
        }
        poll_fn(|cx| self.poll_reply(cx)).await
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<M::Reply, CallError>>> {
        ready!(self.turns.poll_next(cx));
        let polled = self.calls.poll_next(cx);
        if polled.is_pending() {
            self.slept_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.slept_since.take() {
            self.calls.connection().slept(since);
        }
        polled
    }
}

impl<I: Iterator> Unpin for Replies<I> {}

impl<M: Message, I: Iterator<Item = M>> Stream for Replies<I> {
    type Item = Result<M::Reply, CallError>;

    /// Polls for what came of the next call. The deadline is looked at only by [`next`](Replies::next); here the server ends the calls, once their handlers wait.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_reply(cx)
    }
}

impl<I: Iterator> fmt::Debug for Replies<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").finish_non_exhaustive()
    }
}
