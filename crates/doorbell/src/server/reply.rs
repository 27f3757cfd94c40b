//! Where a handler's output goes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use doorbell_proto::{CallId, MessageType, Status};

use super::{Context, registry::Request};
use crate::{
    connection::{Answer, Connection},
    message::Payload,
    scratch,
    stream::{ItemSender, ItemStream},
};

/// Where the answer of a call goes.
#[derive(Clone)]
pub(crate) struct ReplyTo {
    pub(super) connection: Arc<Connection>,
    pub(super) id: Option<CallId>,
    message_type: MessageType,
    #[cfg(feature = "tokio")]
    pub(super) deadline: Option<doorbell_proto::Time>,
}

impl ReplyTo {
    /// Decodes a request, or answers that it cannot be read.
    pub(crate) fn open<M: Payload>(request: Request<'_>) -> Option<(Self, Context, M)> {
        let reply_to = Self {
            connection: Arc::clone(request.connection),
            id: request.id,
            message_type: request.message_type,
            #[cfg(feature = "tokio")]
            deadline: request.deadline,
        };
        let decoded = catch_unwind(AssertUnwindSafe(|| M::decode(request.payload)));
        let status = match decoded {
            Ok(Ok(message)) => {
                let deadline = request.deadline.map(|at| reply_to.connection.instant(at));
                let context = Context::new(
                    Arc::clone(request.connection),
                    request.id,
                    deadline,
                    request.metadata,
                );
                return Some((reply_to, context, message));
            }
            Ok(Err(error)) => Status::invalid_argument(error.to_string()),
            Err(_) => Status::internal("decoding the request panicked"),
        };
        tracing::debug!(message_type = %request.message_type, %status, "undecodable payload");
        reply_to.answer(Answer::Fail(status.not_executed()), false);
        None
    }

    pub(crate) fn item_sender<T: Payload>(&self) -> Option<ItemSender<T>> {
        let key = self.connection.open_ticket(self.id?)?;
        Some(ItemSender::new(Arc::clone(&self.connection), key, false))
    }

    pub(crate) fn item_stream<T: Payload>(&self) -> Option<ItemStream<T>> {
        let id = self.id?;
        let key = self.connection.open_ticket(id)?;
        Some(ItemStream::new(
            Arc::clone(&self.connection),
            key,
            id,
            false,
            None,
        ))
    }

    pub(crate) fn answer(&self, answer: Answer<'_>, publish: bool) {
        if let Some(id) = self.id {
            self.connection
                .answer(id, self.message_type, answer, publish);
        }
    }

    /// Answers with what a handler has returned. Encoding it, and turning its error into a status, is code of the user's as well.
    pub(crate) fn finish<T>(&self, finish: fn(&Self, T, bool), output: T, publish: bool) {
        if catch_unwind(AssertUnwindSafe(|| finish(self, output, publish))).is_err() {
            self.panicked(publish);
        }
    }

    pub(crate) fn panicked(&self, publish: bool) {
        tracing::error!(message_type = %self.message_type, "a handler panicked");
        self.answer(
            Answer::Fail(Status::internal("the handler panicked")),
            publish,
        );
    }
}

/// Answers a call that has one reply.
pub(crate) fn reply<R: Payload, E: Into<Status>>(
    reply_to: &ReplyTo,
    output: Result<R, E>,
    publish: bool,
) {
    match output {
        Ok(value) => {
            let sent = scratch::encoded(&value, |payload| {
                reply_to.answer(Answer::Reply(payload), publish)
            });
            if let Err(error) = sent {
                reply_to.answer(Answer::Fail(Status::internal(error.to_string())), publish);
            }
        }
        Err(error) => reply_to.answer(Answer::Fail(error.into()), publish),
    }
}

/// Ends a call whose items have been sent.
pub(crate) fn end<E: Into<Status>>(reply_to: &ReplyTo, output: Result<(), E>, publish: bool) {
    match output {
        Ok(()) => reply_to.answer(Answer::End, publish),
        Err(error) => reply_to.answer(Answer::Fail(error.into()), publish),
    }
}
