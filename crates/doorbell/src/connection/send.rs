//! Starting, answering and cancelling calls, and sending items and notifications: everything that takes the state lock and
//! writes into our ring.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use doorbell_proto::{
    CallId, CallKind, MessageType, Metadata, Status,
    connection::StartError,
    frame::{Flags, FrameKind},
};
use doorbell_shm::{SpinTurn, stall};

use super::{
    Connection, Effects, Outbound, Preamble, Receive, Registration, Sleeper, StateGuard, TicketKey,
    state::State, waiters::Waiting, writing::header,
};
use crate::{
    error::{Breach, CallError, Disconnected, NotifyError},
    pack::{Collected, PACK_BYTES, PackLimits},
};

/// A call that is to be started.
#[derive(Clone, Copy)]
pub(crate) struct NewCall<'a> {
    pub(crate) kind: CallKind,
    pub(crate) message_type: MessageType,
    pub(crate) deadline: Option<Instant>,
    pub(crate) metadata: Option<&'a Metadata>,
    pub(crate) payload: Outbound<'a>,
}

/// What a handler answers.
pub(crate) enum Answer<'a> {
    /// The reply to a unary call or a client stream.
    Reply(Outbound<'a>),
    /// The end of the items that the server sent.
    End,
    /// A failure.
    Fail(Status),
}

impl Connection {
    /// Starts a call and writes its request. If no slot is free, reads first what may free one.
    ///
    /// # Errors
    ///
    /// Nothing has been sent.
    pub(crate) fn start(&self, call: NewCall<'_>) -> Result<TicketKey, CallError> {
        let started = self.start_now(call);
        if matches!(started, Err(CallError::TooManyCalls { .. })) && self.read_what_is_there() {
            return self.start_now(call);
        }
        started
    }

    fn start_now(&self, call: NewCall<'_>) -> Result<TicketKey, CallError> {
        doorbell_shm::failpoint!("call.before");
        let remaining = remaining(&call)?;
        let mut guard = self.lock();
        let (_, key, result) = self.write_request(&mut guard, call, remaining)?;
        doorbell_shm::failpoint!("call.written");
        self.sent(guard, result);
        doorbell_shm::failpoint!("call.sent");
        Ok(key)
    }

    /// As [`start`](Self::start), for a caller who drives and will wait: tells the peer in the same go what room it has. Returns the
    /// spin that the wait may begin with.
    ///
    /// # Errors
    ///
    /// Nothing has been sent.
    pub(super) fn start_driving(
        &self,
        call: NewCall<'_>,
        receive: &mut Receive,
    ) -> Result<((CallId, TicketKey), SpinTurn), CallError> {
        doorbell_shm::failpoint!("call.before");
        let remaining = remaining(&call)?;
        let mut guard = self.lock();
        guard.withdraw();
        let (id, key, result) = self.write_request(&mut guard, call, remaining)?;
        doorbell_shm::failpoint!("call.written");
        let turn = guard.spin.start();
        // Just before the request is published: both words lie in one cache line, which the peer fetches again after each change.
        receive.consumer.release();
        self.sent(guard, result);
        doorbell_shm::failpoint!("call.sent");
        Ok(((id, key), turn))
    }

    #[inline(always)] // saves moving what it returns
    pub(super) fn write_request(
        &self,
        state: &mut State,
        call: NewCall<'_>,
        remaining: Option<Duration>,
    ) -> Result<(CallId, TicketKey, Result<(), Breach>), CallError> {
        state.producer.prefetch_room();
        state.check_open()?;
        state.check_size(call.payload.len(), call.metadata)?;
        let id = self.take_slot(state, call.kind, call.deadline)?;
        let key = state.tickets.open(id);
        let header = header(
            FrameKind::Call,
            kind_flags(call.kind),
            id.raw(),
            call.message_type.get(),
        );
        let preamble = Preamble {
            remaining,
            metadata: call.metadata,
        };
        Ok((id, key, state.send(header, preamble, call.payload)))
    }

    /// Takes a slot for a new call.
    #[inline(always)] // one more comparison, of what has just been counted
    fn take_slot(
        &self,
        state: &mut State,
        kind: CallKind,
        deadline: Option<Instant>,
    ) -> Result<CallId, CallError> {
        let deadline = deadline.map(|at| self.time(at));
        let id = state.machine.start_call(kind, deadline).map_err(refused)?;
        if id.generation() == 0 {
            self.withdraw_cancel_word(id.slot());
        }
        Ok(id)
    }

    /// The generations of a slot begin again: a call that was given up long ago must not be taken for one that is to come.
    #[cold]
    #[inline(never)]
    fn withdraw_cancel_word(&self, slot: u32) {
        self.own.set_cancel(slot, 0);
    }

    /// Ends a call with its answer. Does nothing if it is over already.
    pub(crate) fn answer(
        &self,
        id: CallId,
        message_type: MessageType,
        answer: Answer<'_>,
        publish: bool,
    ) {
        doorbell_shm::failpoint!("answer.before");
        let mut guard = self.lock();
        let mut effects = Effects::default();
        let result = stall::count(self.subject(), || {
            guard.answer(id, message_type, answer, &mut effects)
        });
        doorbell_shm::failpoint!("answer.written");
        if publish || result.is_err() || guard.has_backlog() {
            self.sent(guard, result);
        } else {
            drop(guard);
        }
        doorbell_shm::failpoint!("answer.sent");
        self.apply(effects);
    }

    /// Opens a ticket for a call that a handler has been given, or adds a handle to the one it has. `None` if the call is over.
    pub(crate) fn open_ticket(&self, id: CallId) -> Option<TicketKey> {
        self.lock().open_or_share(id)
    }

    /// As [`open_ticket`](Self::open_ticket), for who will read the items of the call.
    pub(crate) fn open_ticket_to_read(&self, id: CallId) -> Option<TicketKey> {
        let mut state = self.lock();
        let key = state.open_or_share(id)?;
        state.tickets.get(key).unread = false;
        Some(key)
    }

    /// Closes a handle of a ticket without touching the call.
    #[cfg(feature = "tokio")]
    pub(crate) fn close_ticket(&self, key: TicketKey, spare: Vec<u8>) {
        let mut guard = self.lock();
        guard.tickets.close(key, spare);
        self.give_back_dropped(guard);
    }

    /// Tells the peer of blocks that were dropped with what held them.
    pub(super) fn give_back_dropped(&self, guard: StateGuard<'_>) {
        if guard.has_returns() && guard.end.is_none() {
            self.send_returns(guard, None);
        }
    }

    /// See [`set_generation`](doorbell_proto::connection::Connection::set_generation).
    #[cfg(test)]
    pub(crate) fn set_generation(&self, slot: u32, generation: u32) -> bool {
        self.lock().machine.set_generation(slot, generation)
    }

    #[cfg(test)]
    pub(crate) fn open_tickets(&self) -> usize {
        self.lock().tickets.open_tickets()
    }

    /// Waits as a task until the call has ended, whoever brought it about.
    pub(crate) async fn ended(&self, id: CallId) {
        let mut waiting = Waiting::new(self, Some(id));
        poll_fn(|cx| self.poll_ended(cx, id, &mut waiting.registration)).await;
    }

    /// Ready when the call has ended. Whoever is registered is forgotten then; who gives up before takes themselves back, as [`ended`](Self::ended)
    /// does.
    pub(crate) fn poll_ended(
        &self,
        cx: &mut Context<'_>,
        id: CallId,
        who: &mut Registration,
    ) -> Poll<()> {
        self.look_or_join(who, cx.waker(), |state, who| {
            if state.end.is_some() || !state.machine.is_active(id) {
                return Poll::Ready(());
            }
            let key = match state.tickets.find(id) {
                Some(key) => key,
                None => state.open_unowned(id),
            };
            state.tickets.get(key).register_end(who);
            Poll::Pending
        })
    }

    /// Gives a ticket back; a call that is still under way is cancelled, first in shared memory, then by a frame.
    pub(crate) fn abandon(&self, key: TicketKey, spare: Vec<u8>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let ticket = state.tickets.get(key);
        let (id, over) = (ticket.id, ticket.over);
        state.tickets.close(key, spare);
        if over || state.end.is_some() || self.sleeper == Sleeper::Worker {
            return self.give_back_dropped(guard);
        }
        state.counters.cancelled += 1;
        doorbell_shm::failpoint!("abandon.before");
        let mut effects = Effects::default();
        if state.cancel(id, &mut effects) {
            self.own.set_cancel(id.slot(), id.generation());
            doorbell_shm::failpoint!("cancel.word.after");
        }
        state.end_call(id, None, &mut effects); // for the other half of a stream, which may be in use still
        // A thread that waits there may drive, and is not among those who registered.
        effects.kicks |= state.is_driver_asleep() && state.tickets.find(id).is_some();
        let result = state.pump();
        self.sent(guard, result);
        doorbell_shm::failpoint!("abandon.after");
        self.apply(effects);
    }

    /// Ends calls whose deadline has passed, on both sides.
    pub(crate) fn expire(&self) {
        doorbell_shm::failpoint!("expire.before");
        let now = self.now();
        let mut effects = Effects::default();
        let mut guard = self.lock();
        let state = &mut *guard;
        while let Some(expired) = state.machine.handle_timeout(now) {
            let id = expired.id;
            if state.forget_queued(id, &mut effects) {
                state.machine.abort_start(id);
            } else if self.sleeper != Sleeper::Worker {
                self.own.set_cancel(id.slot(), id.generation());
            }
            if let Some(ticket) = state.tickets.find_mut(id) {
                ticket.cancelled = true;
            }
            state.end_call(id, Some(CallError::DeadlineExceeded), &mut effects);
        }
        let result = state.pump();
        self.sent(guard, result);
        doorbell_shm::failpoint!("expire.after");
        self.apply(effects);
    }

    /// Sends a notification, or refuses if too much already waits. If it is a large one, and no slot is free for it, reads first what may free
    /// one.
    pub(crate) fn notify(
        &self,
        message_type: MessageType,
        metadata: Option<&Metadata>,
        payload: Outbound<'_>,
    ) -> Result<(), NotifyError> {
        let sent = self.notify_now(message_type, metadata, payload);
        if matches!(sent, Err(NotifyError::Call(CallError::TooManyCalls { .. })))
            && self.read_what_is_there()
        {
            return self.notify_now(message_type, metadata, payload);
        }
        sent
    }

    fn notify_now(
        &self,
        message_type: MessageType,
        metadata: Option<&Metadata>,
        payload: Outbound<'_>,
    ) -> Result<(), NotifyError> {
        doorbell_shm::failpoint!("notify.before");
        let mut guard = self.lock();
        let state = &mut *guard;
        state.check_open()?;
        let bytes = payload.len();
        state.check_size(bytes, metadata)?;
        let is_small =
            bytes + metadata.map_or(0, Metadata::encoded_bytes) <= state.max_body_bytes();
        let fits = is_small && !matches!(payload, Outbound::Lend(_));
        let queued_bytes = if fits {
            state.outgoing.notify_bytes()
        } else {
            state.outgoing.large_notify_bytes()
        };
        check_notify_queue(queued_bytes, bytes)?;
        let preamble = Preamble {
            remaining: None,
            metadata,
        };
        let header = if fits {
            header(FrameKind::Notify, Flags::default(), 0, message_type.get())
        } else {
            // Too large for a frame, or a loan: a call whose reply nobody waits for.
            let id = self.take_slot(state, CallKind::Unary, None)?;
            header(
                FrameKind::Call,
                Flags::default(),
                id.raw(),
                message_type.get(),
            )
        };
        let result = state.send(header, preamble, payload);
        if !fits {
            state.outgoing.mark_notification(header.id);
        }
        doorbell_shm::failpoint!("notify.written");
        self.sent(guard, result);
        Ok(())
    }

    /// Returns how many small notifications fit into one frame.
    pub(crate) fn pack_limits(&self) -> PackLimits {
        self.lock().pack_limits()
    }

    /// Sends notifications that were collected, or refuses all of them if others wait already: who collects waits then, and for room in
    /// the ring rather than for its turn in a queue, which somebody else would have to be woken for. Who has waited already has its place in the
    /// queue, as long as that is not full: others may never let it run empty.
    ///
    /// Returns `true` if there was no room: wait until the connection [is writable](Self::wait_writable) before anything else, because nobody
    /// has been found who would write it. Whoever waits does so better than a sleeper who has to be woken for it.
    pub(crate) fn notify_packed(
        &self,
        message_type: MessageType,
        collected: Collected<'_>,
        has_waited: bool,
    ) -> Result<bool, NotifyError> {
        let body = collected.body();
        if let Collected::One(_) = collected {
            self.notify(message_type, None, Outbound::Copy(body))?;
            return Ok(false);
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        state.check_open()?;
        let queued_bytes = state.outgoing.notify_bytes();
        if has_waited {
            check_notify_queue(queued_bytes, body.len())?;
        } else if queued_bytes > 0 {
            return Err(NotifyError::Full { queued_bytes });
        }
        let header = header(FrameKind::Notify, Flags::PACKED, 0, message_type.get());
        state.counters.messages_sent += collected.count() as u64 - 1;
        let result = state.send(header, Preamble::default(), Outbound::Copy(body));
        let must_wait = state.has_backlog();
        if must_wait {
            self.sent_in_part(guard, result);
        } else {
            self.sent(guard, result);
        }
        Ok(must_wait)
    }

    /// Sends a ping and returns its number.
    pub(crate) fn send_ping(&self) -> Result<u64, CallError> {
        let mut guard = self.lock();
        guard.check_open()?;
        guard.pongs.sent += 1;
        let number = guard.pongs.sent;
        guard.machine.ping(number);
        let result = guard.pump();
        self.sent(guard, result);
        Ok(number)
    }
}

impl State {
    #[inline]
    pub(super) fn check_open(&self) -> Result<(), CallError> {
        if self.end.is_none() && self.going_away.is_none() {
            return Ok(());
        }
        Err(self.why_not_open())
    }

    #[cold]
    fn why_not_open(&self) -> CallError {
        let end = self.end.as_ref().map(Disconnected::to_string);
        let text = end.or_else(|| self.going_away.clone()).unwrap_or_default();
        CallError::GoingAway { text }
    }

    #[inline]
    fn check_size(&self, bytes: usize, metadata: Option<&Metadata>) -> Result<(), CallError> {
        let limit = self.terms.sent_message_bytes;
        if bytes as u64 > limit {
            return Err(CallError::TooLarge {
                bytes: bytes as u64,
                limit,
            });
        }
        metadata.map_or(Ok(()), |metadata| self.check_metadata(metadata))
    }

    fn check_metadata(&self, metadata: &Metadata) -> Result<(), CallError> {
        let metadata_bytes = metadata.encoded_bytes();
        let metadata_limit = self.max_body_bytes() / 2;
        if metadata_bytes > metadata_limit {
            return Err(CallError::TooLarge {
                bytes: metadata_bytes as u64,
                limit: metadata_limit as u64,
            });
        }
        Ok(())
    }

    /// Returns how many small messages fit into one frame.
    pub(super) fn pack_limits(&self) -> PackLimits {
        let message_bytes = usize::try_from(self.terms.sent_message_bytes);
        PackLimits {
            body_bytes: self.max_body_bytes().min(PACK_BYTES),
            message_bytes: message_bytes.unwrap_or(usize::MAX),
        }
    }

    fn open_or_share(&mut self, id: CallId) -> Option<TicketKey> {
        if let Some(key) = self.tickets.find(id) {
            self.tickets.share(key);
            return Some(key);
        }
        self.machine
            .is_active(id)
            .then(|| self.open_without_reader(id))
    }

    /// Opens a ticket of a call whose items nobody reads: its handler has given them up, or there are none.
    fn open_without_reader(&mut self, id: CallId) -> TicketKey {
        let key = self.tickets.open(id);
        self.tickets.get(key).unread = true;
        key
    }

    /// Opens a ticket without a handle: it goes when the call [ends](Self::end_call).
    fn open_unowned(&mut self, id: CallId) -> TicketKey {
        let key = self.open_without_reader(id);
        self.tickets.get(key).disown();
        key
    }

    /// Ends a call with its answer. Does nothing if it is over already.
    pub(super) fn answer(
        &mut self,
        id: CallId,
        message_type: MessageType,
        answer: Answer<'_>,
        effects: &mut Effects,
    ) -> Result<(), Breach> {
        if self.end.is_some() {
            return Ok(());
        }
        let result = match answer {
            Answer::Reply(payload) if let Err(error) = self.check_size(payload.len(), None) => self
                .fail(
                    id,
                    Status::resource_exhausted(format!("the reply cannot be sent: {error}")),
                    effects,
                ),
            Answer::Reply(payload) => {
                if !self.machine.finish_and_hold(id) {
                    return Ok(());
                }
                let header = header(
                    FrameKind::Response,
                    Flags::default(),
                    id.raw(),
                    message_type.get(),
                );
                self.send(header, Preamble::default(), payload)
            }
            Answer::End => {
                if !self.machine.finish_and_hold(id) {
                    return Ok(());
                }
                let header = header(FrameKind::End, Flags::default(), id.raw(), 0);
                self.send(header, Preamble::default(), Outbound::Copy(&[]))
            }
            Answer::Fail(status) => self.fail(id, status, effects),
        };
        self.end_call(id, None, effects);
        result
    }

    /// Does nothing if the call has been answered: what waits to be written of that answer stays.
    fn fail(&mut self, id: CallId, status: Status, effects: &mut Effects) -> Result<(), Breach> {
        if !self.machine.is_active(id) {
            return Ok(());
        }
        self.forget_queued(id, effects);
        self.machine.fail(id, status);
        self.pump()
    }
}

/// Returns how much time a call has.
#[inline]
fn remaining(call: &NewCall<'_>) -> Result<Option<Duration>, CallError> {
    call.deadline.map(time_left).transpose()
}

pub(super) fn time_left(deadline: Instant) -> Result<Duration, CallError> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(CallError::DeadlineBeforeSend),
    }
}

fn check_notify_queue(queued_bytes: usize, bytes: usize) -> Result<(), NotifyError> {
    if queued_bytes > 0 && queued_bytes + bytes > NOTIFY_QUEUE_BYTES {
        return Err(NotifyError::Full { queued_bytes });
    }
    Ok(())
}

fn kind_flags(kind: CallKind) -> Flags {
    let mut flags = Flags::default();
    if kind.has_upload() {
        flags.insert(Flags::UPLOAD);
    }
    if kind.is_streaming() {
        flags.insert(Flags::STREAMING);
    }
    flags
}

fn refused(error: StartError) -> CallError {
    match error {
        StartError::TooManyCalls { limit } => CallError::TooManyCalls { limit },
        other => CallError::GoingAway {
            text: other.to_string(),
        },
    }
}

/// Bytes of notifications that may wait for room before more are refused: sixteen chunks. One that is larger waits alone.
const NOTIFY_QUEUE_BYTES: usize = 256 * 1024;
