//! From a frame to its handler, and what is answered when there is none.

use std::sync::Arc;

use doorbell_proto::{CallId, CallKind, MessageType, Metadata, Status, connection::Payload};

use super::registry::{Handler, Notifications, Request, SmallRequest, Snapshot};
use crate::{
    connection::{Answer, Connection, Dispatch, InlineReplies, Outbound},
    message::Incoming,
};

/// Hands one message to its handler.
pub(super) fn dispatch(
    connection: &Arc<Connection>,
    handlers: &mut Snapshot,
    message: Dispatch<'_>,
    inline: &InlineReplies,
) {
    match message {
        Dispatch::Request {
            id,
            kind,
            message_type,
            deadline,
            metadata,
            payload,
            loan,
        } => {
            let request = Request {
                connection,
                id: Some(id),
                message_type,
                deadline,
                metadata,
                payload: incoming(payload),
                loan,
                inline,
            };
            call(handlers, id, kind, request);
        }
        Dispatch::Small {
            id,
            message_type,
            payload,
        } => {
            let request = SmallRequest {
                connection,
                id,
                message_type,
                payload,
                inline,
            };
            call_small(handlers, &request);
        }
        Dispatch::Notify {
            message_type,
            metadata,
            payload,
        } => {
            if let Some(handler) = find_for_notify(handlers, message_type) {
                handler.handle(notification(
                    connection,
                    message_type,
                    metadata,
                    payload,
                    inline,
                ));
            }
        }
        Dispatch::Notifies {
            message_type,
            payloads,
        } => {
            if let Some(handler) = find_for_notify(handlers, message_type) {
                handler.handle_all(Notifications {
                    connection,
                    message_type,
                    payloads,
                    inline,
                });
            }
        }
    }
}

/// Returns `true` if nobody waits for an answer to it. Large notifications and lent ones come as calls, and what their handlers are tells.
pub(super) fn is_notification(handlers: &mut Snapshot, message: &Dispatch<'_>) -> bool {
    match *message {
        Dispatch::Notify { .. } | Dispatch::Notifies { .. } => true,
        Dispatch::Request {
            kind, message_type, ..
        } => {
            matches!(
                find(handlers, message_type, kind),
                Ok((_, Answers::Nothing))
            )
        }
        Dispatch::Small { message_type, .. } => {
            let found = find(handlers, message_type, CallKind::Unary);
            matches!(found, Ok((_, Answers::Nothing)))
        }
    }
}

/// Hands a call to its handler.
fn call(handlers: &mut Snapshot, id: CallId, kind: CallKind, request: Request<'_>) {
    match find(handlers, request.message_type, kind) {
        Ok((handler, Answers::Calls)) => handler.handle(request),
        Ok((handler, Answers::Nothing)) => handle_as_notification(handler, id, request),
        Err(status) => refuse(request.connection, id, request.message_type, status),
    }
}

/// As [`call`], of which nothing has arrived but a small payload.
fn call_small(handlers: &mut Snapshot, request: &SmallRequest<'_>) {
    match find(handlers, request.message_type, CallKind::Unary) {
        Ok((handler, Answers::Calls)) => handler.handle_small(request),
        Ok((handler, Answers::Nothing)) => {
            handle_as_notification(handler, request.id, request.into());
        }
        Err(status) => refuse(request.connection, request.id, request.message_type, status),
    }
}

/// A notification too large for one frame travels as a call; nobody waits for the answer.
fn handle_as_notification(handler: &Arc<dyn Handler>, id: CallId, mut request: Request<'_>) {
    let (connection, message_type) = (request.connection, request.message_type);
    request.id = None;
    handler.handle(request);
    let nothing = Answer::Reply(Outbound::Copy(&[]));
    connection.answer(id, message_type, nothing, false);
}

/// What a handler that a call has found is there for.
enum Answers {
    Calls,
    /// Notifications.
    Nothing,
}

fn find(
    handlers: &mut Snapshot,
    message_type: MessageType,
    kind: CallKind,
) -> Result<(&Arc<dyn Handler>, Answers), Status> {
    let handler = handlers.get(message_type).ok_or_else(|| {
        Status::unimplemented(format!(
            "no handler for message type {message_type} is registered on this server"
        ))
    })?;
    match handler.kind() {
        Some(registered) if registered == kind => Ok((handler, Answers::Calls)),
        Some(registered) => Err(Status::unimplemented(format!(
            "message type {message_type} is registered as {registered:?} and was called as {kind:?}"
        ))),
        None if kind == CallKind::Unary => Ok((handler, Answers::Nothing)),
        None => Err(Status::unimplemented(format!(
            "message type {message_type} is a notification"
        ))),
    }
}

fn find_for_notify(
    handlers: &mut Snapshot,
    message_type: MessageType,
) -> Option<&Arc<dyn Handler>> {
    let handler = handlers
        .get(message_type)
        .filter(|handler| handler.kind().is_none());
    if handler.is_none() {
        tracing::debug!(%message_type, "no handler for a notification");
    }
    handler
}

fn notification<'a>(
    connection: &'a Arc<Connection>,
    message_type: MessageType,
    metadata: Option<Metadata>,
    payload: &'a [u8],
    inline: &'a InlineReplies,
) -> Request<'a> {
    Request {
        connection,
        id: None,
        message_type,
        deadline: None,
        metadata,
        payload: Incoming::Borrowed(payload),
        loan: None,
        inline,
    }
}

/// Answers a call that no handler has seen.
pub(super) fn refuse(
    connection: &Connection,
    id: CallId,
    message_type: MessageType,
    status: Status,
) {
    connection.answer(id, message_type, Answer::Fail(status.not_executed()), false);
}

fn incoming(payload: Payload<'_>) -> Incoming<'_> {
    match payload {
        Payload::Borrowed(bytes) => Incoming::Borrowed(bytes),
        Payload::Assembled(bytes) => Incoming::Owned(bytes),
        Payload::Loaned(_) => Incoming::Borrowed(&[]), // it comes as a loan
    }
}
