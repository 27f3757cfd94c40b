//! The short ways of a reply: from its handler into the ring, and from the ring to its caller.

use std::{cell::Cell, sync::atomic::Ordering};

use bytes::Bytes;
use doorbell_proto::{CallId, MessageType, frame::FrameHeader};

use super::{
    Answer, Connection, Effects, Outbound, Receive, Reply, StateGuard, TicketKey,
    receive::check_crc, state::State,
};
use crate::error::{CallError, Violation};

/// What ended a wait for a reply.
pub(crate) type Waited = Result<Reply, CallError>;

/// Takes the outcome of a call and closes its ticket, if it has one.
pub(crate) fn take_outcome(state: &mut State, key: TicketKey) -> Option<Waited> {
    let outcome = state.ticket(key).outcome.take()?;
    state.close_ticket(key, SPARE.take());
    Some(outcome)
}

/// Lends the buffer of a small reply to the next one, so that small replies need no allocation.
pub(crate) fn recycle(buffer: Vec<u8>) {
    SPARE.set(buffer);
}

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The reply that a handler gives while the I/O worker waits for it. The worker writes it under a lock that it takes anyway, and
/// publishes it together with others.
#[derive(Default)]
pub(crate) struct InlineReply {
    call: Cell<Option<(CallId, MessageType)>>,
    body: Cell<Vec<u8>>,
}

impl InlineReply {
    /// Leaves a reply.
    ///
    /// # Errors
    ///
    /// Those of `encode`; nothing is left then.
    pub(crate) fn leave<E>(
        &self,
        id: CallId,
        message_type: MessageType,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut body = self.body.take();
        body.clear();
        encode(&mut body)?;
        self.body.set(body);
        self.call.set(Some((id, message_type)));
        Ok(())
    }

    /// Takes the reply, if there is one.
    #[inline]
    pub(super) fn take(&self) -> Option<LeftReply> {
        let (id, message_type) = self.call.take()?;
        let body = self.body.take();
        Some(LeftReply {
            id,
            message_type,
            body,
        })
    }
}

/// A reply that a handler has left.
pub(super) struct LeftReply {
    id: CallId,
    message_type: MessageType,
    body: Vec<u8>,
}

impl LeftReply {
    /// Returns `true` if its buffer is not worth keeping.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.body.capacity() > KEPT_BYTES
    }
}

impl State {
    /// Writes a reply that a handler has left. A small one gives its buffer back for the next; a large one gives it away, so that it
    /// is not copied while it waits for room.
    pub(super) fn answer_inline(
        &mut self,
        reply: LeftReply,
        inline: &InlineReply,
        effects: &mut Effects,
    ) -> Result<(), Violation> {
        let is_large = reply.is_large();
        let LeftReply {
            id,
            message_type,
            body,
        } = reply;
        if is_large {
            let body = Bytes::from(body);
            let answer = Answer::Reply(Outbound::Share(&body));
            return self.answer(id, message_type, answer, effects);
        }
        let answer = Answer::Reply(Outbound::Copy(&body));
        let answered = self.answer(id, message_type, answer, effects);
        inline.body.set(body);
        answered
    }
}

impl Connection {
    /// Takes the reply to the call `id` straight to its caller, if it is the next frame and small. Returns the state lock if it was;
    /// the call has ended then and its ticket is closed. If not, nothing has changed, and the frame is for
    /// [`drain_and_hold`](Self::drain_and_hold).
    ///
    /// # Errors
    ///
    /// The peer broke the protocol: the caller must [end](Self::end_for) the connection.
    pub(super) fn take_own_reply(
        &self,
        receive: &mut Receive,
        (id, key): (CallId, TicketKey),
        effects: &mut Effects,
    ) -> Result<Option<(Reply, StateGuard<'_>)>, Violation> {
        let consumer = &mut receive.consumer;
        let Some(words) = consumer.peek_words()? else {
            return Ok(None);
        };
        let body_bytes = consumer.body_bytes();
        if !FrameHeader::is_bare_response(&words, id) || body_bytes > SMALL_BYTES {
            return Ok(None);
        }
        let mut buffer = SPARE.take();
        buffer.clear();
        consumer.copy_body(&mut buffer);
        check_crc(&words, &FrameHeader::from_words(words)?, &buffer)?;
        let mut state = self.lock();
        if !state.machine.take_reply(id, body_bytes) {
            return Ok(None);
        }
        consumer.advance();
        self.read_to.store(consumer.head(), Ordering::Relaxed);
        state.counters.frames_received += 1;
        let reply = Reply::Small(buffer);
        if let Err(violation) = self.finish_batch(receive, &mut state, effects) {
            // The reply counts, whatever the peer did to our ring. It waits in the ticket until the connection has been ended.
            let ticket = state.tickets.get(key);
            (ticket.outcome, ticket.over) = (Some(Ok(reply)), true);
            return Err(violation);
        }
        state.tickets.close(key, Vec::new());
        doorbell_shm::failpoint!("reply.taken");
        Ok(Some((reply, state)))
    }
}

/// Largest reply that is copied straight to its caller's thread: one that a buffer is kept for.
const SMALL_BYTES: usize = 512;

/// Largest buffer for encoding that is kept.
const KEPT_BYTES: usize = 64 * 1024;
