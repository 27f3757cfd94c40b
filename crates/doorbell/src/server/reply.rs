//! Where a handler's output goes.

use std::{cell::Cell, sync::Arc, time::Instant};

use doorbell_proto::{CallId, MessageType, Status};

use super::{
    Context,
    registry::{Notifications, Request, SmallRequest},
};
use crate::{
    blocking::leave_place,
    connection::{Answer, Connection, InlineReplies},
    message::{EncodeError, Incoming, Payload},
    panics::contain,
    scratch,
    stream::{ItemSender, ItemStream},
};

/// What an answer needs to know of its call.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(super) id: Option<CallId>,
    message_type: MessageType,
    #[cfg(feature = "tokio")]
    pub(super) deadline: Option<doorbell_proto::Time>,
}

/// Where the answer of a call goes.
#[derive(Clone, Copy)]
pub(crate) struct ReplyTo<'a> {
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) call: Call,
    /// Where the answer is left while an I/O worker waits for it. Later answers are published at once.
    inline: Option<&'a InlineReplies>,
}

impl<'a> ReplyTo<'a> {
    /// Returns where an answer goes that is given when no I/O worker waits for it any more.
    pub(crate) fn later(connection: &'a Arc<Connection>, call: Call) -> Self {
        Self {
            connection,
            call,
            inline: None,
        }
    }

    /// Decodes a request and hands it to `handle`, or answers that it cannot be read. What runs in here is code of the user's, and a panic in
    /// it costs this one call.
    pub(crate) fn serve<M: Payload>(request: Request<'a>, handle: impl FnOnce(Self, Context, M)) {
        let reply_to = Self {
            connection: request.connection,
            call: Call {
                id: request.id,
                message_type: request.message_type,
                #[cfg(feature = "tokio")]
                deadline: request.deadline,
            },
            inline: Some(request.inline),
        };
        reply_to.guard(|is_decoded| {
            let deadline = request.deadline.map(|at| reply_to.connection.instant(at));
            let decoded = match request.loan {
                Some(loan) => M::decode_loaned(loan.into()),
                None => M::decode(request.payload),
            };
            match decoded {
                Ok(message) => {
                    is_decoded.set(true);
                    let (connection, metadata) = (request.connection, request.metadata);
                    let context = Context::new(connection, request.id, deadline, metadata);
                    handle(reply_to, context, message);
                }
                Err(error) => reply_to.refuse(Status::invalid_argument(error.to_string())),
            }
        });
    }

    /// As [`serve`](Self::serve), for a call with nothing but a small payload.
    #[inline]
    pub(crate) fn serve_small<M: Payload>(
        request: &SmallRequest<'a>,
        handle: impl FnOnce(Self, Context, M),
    ) {
        let reply_to = Self {
            connection: request.connection,
            call: Call {
                id: Some(request.id),
                message_type: request.message_type,
                #[cfg(feature = "tokio")]
                deadline: None,
            },
            inline: Some(request.inline),
        };
        reply_to.guard(
            |is_decoded| match M::decode(Incoming::Borrowed(request.payload)) {
                Ok(message) => {
                    is_decoded.set(true);
                    let context = Context::new(request.connection, Some(request.id), None, None);
                    handle(reply_to, context, message);
                }
                Err(error) => reply_to.refuse(Status::invalid_argument(error.to_string())),
            },
        );
    }

    /// Runs what is code of the user's. One guard around everything: each would move what comes out of it once more.
    #[inline]
    fn guard(&self, run: impl FnOnce(&Cell<bool>)) {
        let is_decoded = Cell::new(false);
        match contain(|| run(&is_decoded)) {
            Some(()) => {}
            None if is_decoded.get() => self.panicked(),
            None => self.refuse(Status::internal("decoding the request panicked")),
        }
    }

    /// As [`serve`](Self::serve), for notifications that have come together. A panic costs the one that it happens to.
    pub(crate) fn serve_all<M: Payload>(
        notifications: Notifications<'a>,
        handle: impl Fn(Self, Context, M),
    ) {
        let reply_to = Self {
            connection: notifications.connection,
            call: Call {
                id: None,
                message_type: notifications.message_type,
                #[cfg(feature = "tokio")]
                deadline: None,
            },
            inline: Some(notifications.inline),
        };
        let context = || Context::new(reply_to.connection, None, None, None);
        let mut payloads = notifications.payloads;
        let mut serve_rest = || {
            for payload in &mut payloads {
                match M::decode(Incoming::Borrowed(payload)) {
                    Ok(message) => handle(reply_to, context(), message),
                    Err(error) => reply_to.refuse(Status::invalid_argument(error.to_string())),
                }
            }
        };
        // One guard for all of them, and another for those behind one that panics.
        while contain(&mut serve_rest).is_none() {
            reply_to.panicked();
        }
    }

    /// Answers a request that the handler will not see.
    #[cold]
    fn refuse(&self, status: Status) {
        tracing::debug!(message_type = %self.call.message_type, %status, "undecodable payload");
        self.answer(Answer::Fail(status.not_executed()));
    }

    pub(crate) fn item_sender<T: Payload>(&self) -> Option<ItemSender<T>> {
        let key = self.connection.open_ticket(self.call.id?)?;
        Some(ItemSender::new(Arc::clone(self.connection), key, false))
    }

    /// Whoever reads the stream as a thread waits no longer than until `deadline`.
    pub(crate) fn item_stream<T: Payload>(
        &self,
        deadline: Option<Instant>,
    ) -> Option<ItemStream<T>> {
        let id = self.call.id?;
        let key = self.connection.open_ticket_to_read(id)?;
        Some(ItemStream::new(
            Arc::clone(self.connection),
            key,
            id,
            false,
            deadline,
        ))
    }

    /// What is left to do is given to a task or a thread: an I/O worker that waits for the handler has been kept for a while.
    pub(crate) fn gives_work(&self) {
        if let Some(inline) = self.inline {
            inline.give_work();
        }
    }

    pub(crate) fn answer(&self, answer: Answer<'_>) {
        if let Some(id) = self.call.id {
            let publish = self.inline.is_none();
            if publish {
                leave_place();
            }
            self.connection
                .answer(id, self.call.message_type, answer, publish);
        }
    }

    /// Answers with what a handler has returned. Encoding it, and turning its error into a status, is code of the user's as well.
    pub(crate) fn finish<T>(&self, finish: fn(&Self, T), output: T) {
        if contain(|| finish(self, output)).is_none() {
            self.panicked();
        }
    }

    #[cold]
    pub(crate) fn panicked(&self) {
        tracing::error!(message_type = %self.call.message_type, "a handler panicked");
        self.answer(Answer::Fail(Status::internal("the handler panicked")));
    }

    fn reply<R: Payload>(&self, value: &R) -> Result<(), EncodeError> {
        let Some(id) = self.call.id else {
            return Ok(());
        };
        match self.inline {
            Some(inline) if value.as_bytes().is_none() && value.as_loaned().is_none() => {
                inline.leave(id, self.call.message_type, |out| value.encode(out))
            }
            _ => scratch::encoded(value, |payload| self.answer(Answer::Reply(payload))),
        }
    }
}

/// Answers a call that has one reply.
pub(crate) fn reply<R: Payload, E: Into<Status>>(reply_to: &ReplyTo<'_>, output: Result<R, E>) {
    match output {
        Ok(value) => {
            if let Err(error) = reply_to.reply(&value) {
                reply_to.answer(Answer::Fail(Status::internal(error.to_string())));
            }
        }
        Err(error) => reply_to.answer(Answer::Fail(error.into())),
    }
}

/// Ends a call whose items have been sent.
pub(crate) fn end<E: Into<Status>>(reply_to: &ReplyTo<'_>, output: Result<(), E>) {
    match output {
        Ok(()) => reply_to.answer(Answer::End),
        Err(error) => reply_to.answer(Answer::Fail(error.into())),
    }
}
