//! The short ways of a reply: from its handler into the ring, and from the ring to its caller.

use std::{
    cell::{Cell, RefCell, RefMut},
    sync::atomic::Ordering,
};

use bytes::Bytes;
use doorbell_proto::{
    CallId, MessageType,
    frame::{FrameHeader, HeaderWords},
};

use super::{
    Answer, Connection, Effects, Outbound, Receive, Reply, StateGuard, TicketKey,
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

/// The replies that handlers give while the I/O worker waits for them. The worker writes them under a lock that it takes anyway, and
/// publishes them together.
#[derive(Default)]
pub(crate) struct InlineReplies {
    calls: RefCell<Vec<InBuffer>>,
    /// Their payloads, one behind the other.
    body: RefCell<Vec<u8>>,
    /// A task or a thread has been given what the handler has left to do.
    has_given_work: Cell<bool>,
}

/// A call, and which part of a buffer is its request or its reply.
struct InBuffer {
    id: CallId,
    message_type: MessageType,
    /// Where that ends, and the next one begins.
    end: usize,
}

/// The buffer of the replies while one is encoded. It is left with nothing but whole ones, even if that panics.
struct Encoding<'a> {
    body: RefMut<'a, Vec<u8>>,
    whole_bytes: usize,
}

impl InlineReplies {
    /// Leaves a reply.
    ///
    /// # Errors
    ///
    /// Those of `encode`; nothing is left then.
    #[inline]
    pub(crate) fn leave<E>(
        &self,
        id: CallId,
        message_type: MessageType,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let body = self.body.borrow_mut(); // by nobody else: `encode` has no way to come here
        let mut encoding = Encoding {
            whole_bytes: body.len(),
            body,
        };
        encode(&mut encoding.body)?;
        let end = encoding.body.len();
        encoding.whole_bytes = end;
        self.calls.borrow_mut().push(InBuffer {
            id,
            message_type,
            end,
        });
        Ok(())
    }

    /// Gives back the memory that waits for the next replies, if there are none now.
    pub(super) fn give_back(&self) {
        if self.is_empty() {
            self.calls.take();
            self.body.take();
        }
    }

    /// Returns `true` if there is none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.calls.borrow().is_empty()
    }

    /// A task or a thread is given work, which takes the worker as long as ten small calls.
    pub(crate) fn give_work(&self) {
        self.has_given_work.set(true);
    }

    /// Returns `true` if work has been given away since the last look.
    #[inline]
    pub(super) fn take_has_given_work(&self) -> bool {
        self.has_given_work.take()
    }
}

impl Drop for Encoding<'_> {
    #[inline]
    fn drop(&mut self) {
        self.body.truncate(self.whole_bytes);
    }
}

impl State {
    /// Writes the replies that handlers have left. Small ones leave their buffer for the next; large ones give it away, so that they are
    /// not copied while they wait for room. Returns `true` if they were large.
    #[inline]
    pub(super) fn answer_inline(
        &mut self,
        inline: &InlineReplies,
        effects: &mut Effects,
    ) -> Result<bool, Breach> {
        let mut calls = inline.calls.borrow_mut();
        let mut body = inline.body.borrow_mut();
        let is_large = body.capacity() > KEPT_BYTES;
        let answered = if is_large {
            self.answer_shared(&calls, std::mem::take(&mut *body).into(), effects)
        } else {
            let mut start = 0;
            calls.iter().try_for_each(|call| {
                let payload = Outbound::Copy(&body[start..call.end]);
                start = call.end;
                self.answer(call.id, call.message_type, Answer::Reply(payload), effects)
            })
        };
        calls.clear();
        body.clear();
        answered.map(|()| is_large)
    }

    #[cold]
    fn answer_shared(
        &mut self,
        calls: &[InBuffer],
        body: Bytes,
        effects: &mut Effects,
    ) -> Result<(), Breach> {
        let mut start = 0;
        calls.iter().try_for_each(|call| {
            let payload = body.slice(start..call.end);
            start = call.end;
            let answer = Answer::Reply(Outbound::Share(&payload));
            self.answer(call.id, call.message_type, answer, effects)
        })
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
        let is_lent = FrameHeader::bare_response(&words) != Some(id);
        if is_lent && FrameHeader::bare_lent_response(&words) != Some(id)
            || body_bytes > SMALL_BYTES
        {
            return Ok(None);
        }
        let mut buffer = SPARE.take();
        buffer.clear();
        consumer.copy_body(&mut buffer);
        check_crc(&words, &buffer)?;
        let mut state = self.lock();
        let reply = if is_lent {
            let reply = state.take_lent_reply(id, &buffer);
            SPARE.set(buffer);
            reply
        } else {
            let takes = state.machine.take_reply(id, body_bytes);
            takes.then_some(Reply::Small(buffer))
        };
        let Some(reply) = reply else {
            return Ok(None);
        };
        consumer.advance();
        state.counters.frames_received += 1;
        let finished = Self::take_releases(receive, &mut state, effects)
            .and_then(|()| self.finish_batch(receive, &mut state, effects));
        self.read_to
            .store(receive.consumer.head(), Ordering::Relaxed);
        if let Err(breach) = finished {
            // The reply counts, whatever the peer did to our ring. It waits in the ticket until the connection has been ended.
            state.tickets.get(key).set_reply(Some(reply));
            return Err(breach);
        }
        *outcome = Some(Ok(reply));
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
        self.complete(id, effects, |ticket| {
            ticket.set_small_reply(&mut receive.scratch);
        });
        Ok(true)
    }

    /// Opens the calls that the next frames begin, each with a small request that is nothing but its payload: `first`, whose header is `words`,
    /// and those behind it that have been published already, `most` together. Their payloads are copied to where the requests of the
    /// receive half are, so that their handlers can run one after the other without a lock in between. Takes none if the first is not that
    /// simple; nothing has changed then.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol with the first. What is wrong with a later one is found when it is the first.
    pub(super) fn take_requests(
        &mut self,
        receive: &mut Receive,
        mut words: HeaderWords,
        first: (CallId, MessageType),
        most: usize,
    ) -> Result<(), Breach> {
        let requests = &mut receive.requests;
        let consumer = &mut receive.consumer;
        requests.clear();
        let (mut id, mut message_type) = first;
        loop {
            let start = requests.bodies.len();
            consumer.copy_body(&mut requests.bodies);
            let payload = &requests.bodies[start..];
            if let Err(breach) = check_crc(&words, payload) {
                return requests.end_at(start, breach);
            }
            if !self.machine.take_request(id, payload.len()) {
                requests.bodies.truncate(start);
                return Ok(());
            }
            consumer.advance();
            self.counters.frames_received += 1;
            doorbell_shm::failpoint!("take.small");
            requests.push(id, message_type);
            if requests.len() == most.min(REQUESTS_PER_RUN) || !consumer.knows_of_more() {
                return Ok(());
            }
            words = match consumer.peek_words() {
                Ok(Some(words)) => words,
                Ok(None) => return Ok(()),
                Err(corrupt) => return requests.end_at(requests.bodies.len(), corrupt.into()),
            };
            let is_small = consumer.body_bytes() <= SMALL_BYTES;
            match FrameHeader::bare_call(&words).filter(|_| is_small) {
                Some(next) => (id, message_type) = next,
                None => return Ok(()),
            }
        }
    }
}

/// Small requests that have been taken out of the ring and have not been handed to their handlers.
#[derive(Default)]
pub(super) struct Requests {
    calls: Vec<InBuffer>,
    /// Their payloads, one behind the other.
    bodies: Vec<u8>,
}

impl Requests {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Calls `f` with each of them.
    #[inline]
    pub(super) fn for_each(&self, mut f: impl FnMut(CallId, MessageType, &[u8])) {
        let mut start = 0;
        for call in &self.calls {
            f(call.id, call.message_type, &self.bodies[start..call.end]);
            start = call.end;
        }
    }

    #[inline]
    fn clear(&mut self) {
        self.calls.clear();
        self.bodies.clear();
    }

    #[inline]
    fn push(&mut self, id: CallId, message_type: MessageType) {
        let end = self.bodies.len();
        self.calls.push(InBuffer {
            id,
            message_type,
            end,
        });
    }

    /// Forgets what lies behind `start`. What was wrong with it matters now only if it is the first.
    #[cold]
    fn end_at(&mut self, start: usize, breach: Breach) -> Result<(), Breach> {
        self.bodies.truncate(start);
        if self.calls.is_empty() {
            Err(breach)
        } else {
            Ok(())
        }
    }
}

/// Most requests that are taken out of the ring together: enough to share the locks, few enough that what is told of the room and
/// of the answers is not late.
const REQUESTS_PER_RUN: usize = 16;

/// Largest reply that is copied straight to its caller's thread, or into its ticket: one that a buffer is kept for.
pub(super) const SMALL_BYTES: usize = 512;

/// Largest buffer for encoding that is kept.
const KEPT_BYTES: usize = 64 * 1024;
