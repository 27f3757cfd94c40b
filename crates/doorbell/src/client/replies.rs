//! Many calls in one go.

use std::{iter::Fuse, sync::Arc, time::Instant};

use doorbell_proto::CallKind;

use super::outcome::decode_reply;
use crate::{
    connection::{Connection, Encoded, Ended, NewCall, Outbound, Together},
    error::CallError,
    message::{EncodeError, Incoming, Message, Payload},
    scratch,
};

/// A message that is not sent together with others.
enum After<M> {
    /// It is not to be copied.
    Alone(M),
    /// It cannot be encoded.
    Failed(EncodeError),
}

/// Calls with the messages of an iterator, so many of them under way at a time.
pub(crate) struct Pipeline<I: Iterator> {
    connection: Arc<Connection>,
    rest: Fuse<I>,
    deadline: Option<Instant>,
    window: usize,
    encoded: Encoded,
    /// The message after those.
    after: Option<After<I::Item>>,
    together: Together,
    /// No more calls are started.
    is_over: bool,
}

impl<M: Message, I: Iterator<Item = M>> Pipeline<I> {
    pub(crate) fn new(
        connection: Arc<Connection>,
        messages: I,
        window: usize,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            connection,
            rest: messages.fuse(),
            deadline,
            window,
            encoded: Encoded::default(),
            after: None,
            together: Together::default(),
            is_over: false,
        }
    }

    /// Returns what came of the next call, if it has been taken from the connection.
    pub(crate) fn pop(&mut self) -> Option<Result<M::Reply, CallError>> {
        Some(match self.together.pop()? {
            Ended::Small(payload) => {
                M::Reply::decode(Incoming::Borrowed(payload)).map_err(CallError::Decode)
            }
            Ended::Other(outcome) => outcome.and_then(decode_reply),
        })
    }

    /// Starts calls until so many are under way, or the connection takes no more.
    pub(crate) fn fill(&mut self) {
        while !self.is_over {
            let is_due = self.encoded.is_full() || self.after.is_some() || self.is_window_full();
            if is_due && (!self.start() || self.is_window_full()) {
                return;
            }
            match self.rest.next() {
                Some(message) => self.add(message),
                None => {
                    self.is_over |= self.start();
                    return;
                }
            }
        }
    }

    fn is_window_full(&self) -> bool {
        self.together.len() + self.encoded.len() >= self.window
    }

    fn add(&mut self, message: M) {
        if message.as_loaned().is_some() || message.as_bytes().is_some() {
            self.after = Some(After::Alone(message));
        } else if let Err(error) = self.encoded.add(|out| message.encode(out)) {
            self.after = Some(After::Failed(error));
        }
    }

    /// Starts the calls that have been encoded. Returns `false` if some have to wait, or never will be.
    fn start(&mut self) -> bool {
        match self.try_start() {
            Ok(()) => true,
            Err(CallError::TooManyCalls { .. }) if self.together.len() > 0 => false,
            Err(error) => {
                self.encoded.clear();
                self.after = None;
                self.together.push_failed(error);
                self.is_over = true;
                false
            }
        }
    }

    fn try_start(&mut self) -> Result<(), CallError> {
        if self.encoded.len() > 0 {
            self.connection.start_together(
                M::TYPE,
                self.deadline,
                &mut self.encoded,
                &mut self.together,
            )?;
        }
        self.encoded.clear();
        if let Some(After::Alone(message)) = &self.after {
            let start = |payload: Outbound<'_>| {
                self.connection.start(NewCall {
                    kind: CallKind::Unary,
                    message_type: M::TYPE,
                    deadline: self.deadline,
                    metadata: None,
                    payload,
                })
            };
            match scratch::encoded(message, start).map_err(CallError::Encode) {
                Ok(Ok(key)) => self.together.push(key),
                Err(error) | Ok(Err(error @ CallError::TooLarge { .. })) => {
                    self.together.push_failed(error);
                }
                Ok(Err(error)) => return Err(error),
            }
        }
        if let Some(After::Failed(error)) = self.after.take() {
            self.together.push_failed(CallError::Encode(error));
        }
        Ok(())
    }

    /// The next reply, for a thread.
    pub(crate) fn next_blocking(&mut self) -> Option<Result<M::Reply, CallError>> {
        loop {
            let reply = self.pop();
            if reply.is_some() {
                return reply;
            }
            self.fill();
            let (connection, deadline) = (&self.connection, self.deadline);
            match connection.wait_for_next(&mut self.together, deadline) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => connection.expire(), // gives the calls their outcomes
            }
        }
    }

    /// The next reply, for a task.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<M::Reply, CallError>>> {
        loop {
            let reply = self.pop();
            if reply.is_some() {
                return std::task::Poll::Ready(reply);
            }
            self.fill();
            if !std::task::ready!(self.connection.poll_next_of(cx, &mut self.together)) {
                return std::task::Poll::Ready(None);
            }
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl<I: Iterator> Drop for Pipeline<I> {
    fn drop(&mut self) {
        self.connection.abandon_all(&mut self.together);
    }
}

/// Calls under way at a time, unless told otherwise.
pub(crate) const WINDOW: usize = 256;

/// The methods by which many calls are set up, the same for tasks and threads.
macro_rules! call_all_settings {
    () => {
        /// Has up to so many calls under way at a time, 256 unless told otherwise; at least one. What the server takes of one connection
        /// (`max_calls` of its builder) is the most in any case.
        pub fn window(mut self, calls: usize) -> Self {
            self.window = calls.max(1);
            self
        }

        /// Gives all calls together this long. Then those that have not been answered end with
        /// [`CallError::DeadlineExceeded`](crate::CallError::DeadlineExceeded), and no more are sent.
        pub fn timeout(self, timeout: std::time::Duration) -> Self {
            self.deadline(crate::deadline::after(timeout))
        }

        /// Gives all calls together until `deadline`, or less if they have an earlier one already.
        pub fn deadline(mut self, deadline: std::time::Instant) -> Self {
            let earlier = self.deadline.filter(|before| *before < deadline);
            self.deadline = Some(earlier.unwrap_or(deadline));
            self
        }

        /// Takes over the deadline of the call that is being answered, so that nested calls end with it.
        pub fn inherit(self, context: &crate::Context) -> Self {
            match context.deadline() {
                Some(deadline) => self.deadline(deadline),
                None => self,
            }
        }
    };
}
pub(crate) use call_all_settings;
