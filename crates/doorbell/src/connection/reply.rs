//! The short ways of a reply: from its handler into the ring, and from the ring to its caller.

use std::{cell::Cell, sync::atomic::Ordering};

use bytes::Bytes;
use doorbell_proto::{
    CallId, MessageType,
    frame::{FrameHeader, HeaderWords},
};

use super::{
    Answer, Awaited, Connection, Effects, Outbound, Receive, Reply, StateGuard, TicketKey,
    receive::check_crc, state::State,
};
use crate::error::{Breach, CallError};

/// What ended a wait for a reply, once it has ended. Whoever waits has a place for it, which is written once: handed from function to
/// function it would be copied each time.
pub(crate) type Outcome = Option<Result<Reply, CallError>>;

/// Moves the outcome of a call, if it has one, to `outcome`, and closes its ticket.
pub(crate) fn take_outcome(state: &mut State, key: TicketKey, outcome: &mut Outcome) -> Option<()> {
    let ticket = state.ticket(key);
    ticket.outcome.as_ref()?;
    *outcome = ticket.outcome.take();
    state.close_ticket(key, SPARE.take());
    Some(())
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
    ) -> Result<(), Breach> {
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
    /// Takes the reply to the call `id` straight to its caller's `outcome`, if it is the next frame and small. Returns the state lock if
    /// it was; the call has ended then and its ticket is closed. If not, nothing has changed, and the frame is for
    /// [`drain_and_hold`](Self::drain_and_hold).
    ///
    /// # Errors
    ///
    /// The peer broke the protocol: the caller must [end](Self::end_for) the connection.
    pub(super) fn take_own_reply(
        &self,
        receive: &mut Receive,
        (id, key): (CallId, TicketKey),
        outcome: &mut Outcome,
        effects: &mut Effects,
    ) -> Result<Option<StateGuard<'_>>, Breach> {
        let consumer = &mut receive.consumer;
        let Some(words) = consumer.peek_words()? else {
            return Ok(None);
        };
        let body_bytes = consumer.body_bytes();
        if FrameHeader::bare_response(&words) != Some(id) || body_bytes > SMALL_BYTES {
            return Ok(None);
        }
        let mut buffer = SPARE.take();
        buffer.clear();
        consumer.copy_body(&mut buffer);
        check_crc(&words, &buffer)?;
        let mut state = self.lock();
        if !state.machine.take_reply(id, body_bytes) {
            return Ok(None);
        }
        consumer.advance();
        self.read_to.store(consumer.head(), Ordering::Relaxed);
        state.counters.frames_received += 1;
        if let Err(breach) = self.finish_batch(receive, &mut state, effects) {
            // The reply counts, whatever the peer did to our ring. It waits in the ticket until the connection has been ended.
            let ticket = state.tickets.get(key);
            (ticket.outcome, ticket.over) = (Some(Ok(Reply::Small(buffer))), true);
            return Err(breach);
        }
        *outcome = Some(Ok(Reply::Small(buffer)));
        state.tickets.close(key, Vec::new());
        doorbell_shm::failpoint!("reply.taken");
        Ok(Some(state))
    }
}

impl State {
    /// Completes the call that the next frame answers, a small reply with nothing but its payload. Returns `false` if it is not that
    /// simple; nothing has changed then.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol.
    #[inline]
    pub(super) fn take_small_reply(
        &mut self,
        receive: &mut Receive,
        words: &HeaderWords,
        id: CallId,
        effects: &mut Effects,
    ) -> Result<bool, Breach> {
        receive.copy_body(words)?;
        if !self.machine.take_reply(id, receive.scratch.len()) {
            return Ok(false);
        }
        receive.consumer.advance();
        self.counters.frames_received += 1;
        doorbell_shm::failpoint!("take.small");
        if let Some(key) = self.tickets.find(id) {
            let ticket = self.tickets.get(key);
            ticket.set_small_reply(&mut receive.scratch);
            effects.wake(self.tickets.forget(key, Awaited::Arrival));
            self.wake_others(key, effects);
        }
        Ok(true)
    }

    /// Opens the call that the next frame begins, with a small request that is nothing but its payload, which is copied to the scratch
    /// buffer. Returns `false` if it is not that simple; nothing has changed then.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol.
    #[inline]
    pub(super) fn take_small_request(
        &mut self,
        receive: &mut Receive,
        words: &HeaderWords,
        id: CallId,
    ) -> Result<bool, Breach> {
        receive.copy_body(words)?;
        if !self.machine.take_request(id, receive.scratch.len()) {
            return Ok(false);
        }
        receive.consumer.advance();
        self.counters.frames_received += 1;
        doorbell_shm::failpoint!("take.small");
        self.producer.prefetch_room(); // for the answer
        Ok(true)
    }
}

/// Largest reply that is copied straight to its caller's thread, or into its ticket: one that a buffer is kept for.
pub(super) const SMALL_BYTES: usize = 512;

/// Largest buffer for encoding that is kept.
const KEPT_BYTES: usize = 64 * 1024;
