//! From the peer's ring to whoever waits: copy once, check, ask the machine, complete.

mod turn;

use std::sync::atomic::Ordering;

use doorbell_proto::{
    CallId, CallKind, MessageType, Metadata, Time,
    connection::{Destination, Event, Payload},
    frame::{Flags, FrameHeader, FrameKind, HeaderWords, Packed},
};
use doorbell_shm::{crc32c_record, memory::PeerMemory};
use turn::Turn;

use super::{
    Connection, Effects, Held, InlineReplies, Receive, StateGuard,
    backlog::Backlog,
    loans::{Lent, SegmentEvent, Taken},
    reply::Requests,
    reply::SMALL_BYTES,
    state::State,
};
use crate::error::{Breach, Disconnected, Violation};

/// What the server must hand to a handler.
pub(crate) enum Dispatch<'a> {
    /// A call.
    Request {
        id: CallId,
        kind: CallKind,
        message_type: MessageType,
        deadline: Option<Time>,
        metadata: Option<Metadata>,
        payload: Payload<'a>,
        /// The payload, if it is a loan.
        loan: Option<Held>,
    },
    /// A unary call with nothing but a small payload.
    Small {
        id: CallId,
        message_type: MessageType,
        payload: &'a [u8],
    },
    /// A notification.
    Notify {
        message_type: MessageType,
        metadata: Option<Metadata>,
        payload: &'a [u8],
    },
    /// Several notifications of one type.
    Notifies {
        message_type: MessageType,
        payloads: Packed<'a>,
    },
}

impl Connection {
    /// Reads up to about `max_frames` frames, completes what they belong to, and hands requests to `dispatch` without any lock but the
    /// receive half. Returns how many there were.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol; the connection has been closed with that reason.
    pub(crate) fn drain(
        &self,
        receive: &mut Receive,
        max_frames: usize,
        dispatch: &mut dyn FnMut(Dispatch<'_>, &InlineReplies),
    ) -> Result<usize, Disconnected> {
        let mut effects = Effects::default();
        let drained = self.drain_and_hold(receive, max_frames, dispatch, &mut effects);
        let count = drained.map(|(count, _)| count);
        self.apply(effects);
        count.map_err(|breach| self.end_for(breach))
    }

    /// As [`drain`](Self::drain), but keeps the state lock if there was a frame, and leaves the effects to the caller; so that a
    /// driver can take what it waits for, and leave, without locking again.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol: the caller must [end](Self::end_for) the connection.
    pub(super) fn drain_and_hold(
        &self,
        receive: &mut Receive,
        max_frames: usize,
        dispatch: &mut dyn FnMut(Dispatch<'_>, &InlineReplies),
        effects: &mut Effects,
    ) -> Result<(usize, Option<StateGuard<'_>>), Breach> {
        let mut count = 0;
        receive.credits = 0;
        let mut held: Option<StateGuard<'_>> = None;
        let mut turn = Turn::new(receive.longest);
        while count < max_frames {
            let Some(words) = receive.consumer.peek_words()? else {
                break;
            };
            if turn.is_over(count, effects) {
                break;
            }
            let is_small = receive.consumer.body_bytes() <= SMALL_BYTES;
            if let Some(id) = FrameHeader::bare_response(&words).filter(|_| is_small) {
                let state = held.get_or_insert_with(|| self.lock());
                if state.take_small_reply(receive, &words, id, effects)? {
                    count += 1;
                    continue;
                }
            }
            if let Some((id, message_type)) = FrameHeader::bare_call(&words).filter(|_| is_small) {
                let state = held.get_or_insert_with(|| self.lock());
                let most = turn.frames_before_look(count).min(max_frames - count);
                state.take_requests(receive, words, (id, message_type), most)?;
                if receive.requests.len() > 0 {
                    count += receive.requests.len();
                    state.producer.prefetch_room(); // for the answers
                    held = None;
                    receive.requests.for_each(|id, message_type, payload| {
                        let request = Dispatch::Small {
                            id,
                            message_type,
                            payload,
                        };
                        doorbell_shm::failpoint!("dispatch.before");
                        dispatch(request, &receive.inline);
                        doorbell_shm::failpoint!("dispatch.after");
                    });
                    if self.after_dispatch(receive, &mut turn, &mut held, effects)? {
                        break;
                    }
                    continue;
                }
            }
            if let Some(lent) = Lent::of(&words) {
                let wakers = effects.wakers();
                match self.take_lent(receive, &words, lent, &mut held, effects)? {
                    Taken::No => {}
                    Taken::Whole => {
                        count += 1;
                        if effects.wakers() > wakers {
                            turn.note_long_step();
                        }
                        continue;
                    }
                    Taken::Request(request) => {
                        count += 1;
                        held = None;
                        doorbell_shm::failpoint!("dispatch.before");
                        self.dispatching(|| dispatch(request, &receive.inline));
                        doorbell_shm::failpoint!("dispatch.after");
                        if self.after_dispatch(receive, &mut turn, &mut held, effects)? {
                            break;
                        }
                        continue;
                    }
                }
            }
            let header = FrameHeader::from_words(words)?;
            if receive.consumer.body_bytes() > COPY_UNDER_LOCK_BYTES {
                held = None;
            }
            let event = if header.flags.contains(Flags::CONTINUE) {
                let state = held.take().unwrap_or_else(|| self.lock());
                let has_done = state.producer.has_unpublished() || effects.wakers() > 0;
                if count > 0 && has_done {
                    held = Some(state);
                    break; // what has been done need not wait until a chunk is copied
                }
                let (event, state) = self.continuation(receive, state, &words, &header)?;
                held = Some(state);
                event
            } else {
                receive.copy_body(&words)?;
                receive.consumer.advance();
                doorbell_shm::failpoint!("take.before");
                let now = self.time_for(&header);
                let state = held.get_or_insert_with(|| self.lock());
                state.machine.handle_frame(now, &header, &receive.scratch)?
            };
            count += weight(&event);
            if let Some(event) = SegmentEvent::of(&event) {
                if let Some(mut state) = held.take() {
                    state.expect_segment(&event);
                }
                self.act_on(&event, effects)?;
            }
            receive.credits += usize::from(header.kind == FrameKind::Credit);
            let state = held.get_or_insert_with(|| self.lock());
            state.counters.frames_received += 1;
            doorbell_shm::failpoint!("take.after");
            let wakers = effects.wakers();
            if let Some(request) = state.take_event(event, effects) {
                state.producer.prefetch_room(); // for the answer
                held = None;
                doorbell_shm::failpoint!("dispatch.before");
                if matches!(request, Dispatch::Request { loan: Some(_), .. }) {
                    self.dispatching(|| dispatch(request, &receive.inline));
                } else {
                    dispatch(request, &receive.inline);
                }
                doorbell_shm::failpoint!("dispatch.after");
                if self.after_dispatch(receive, &mut turn, &mut held, effects)? {
                    break;
                }
            } else if effects.wakers() > wakers {
                turn.note_long_step();
            }
        }
        self.read_to
            .store(receive.consumer.head(), Ordering::Relaxed);
        receive.was_long = count >= max_frames;
        if count == 0 {
            return Ok((0, None));
        }
        let mut state = held.unwrap_or_else(|| self.lock());
        if std::mem::take(&mut state.is_told_quiet) {
            receive.give_back();
            state.retire_all(effects);
            state.give_back();
        }
        self.finish_batch(receive, &mut state, effects)?;
        receive.was_long |= turn.was_long(effects);
        trim(&mut receive.scratch);
        Ok((count, Some(state)))
    }

    /// Looks at what handlers have done. Returns `true` if it is to be published at once.
    #[inline]
    fn after_dispatch<'a>(
        &'a self,
        receive: &Receive,
        turn: &mut Turn,
        held: &mut Option<StateGuard<'a>>,
        effects: &mut Effects,
    ) -> Result<bool, Breach> {
        if receive.inline.take_has_given_work() {
            turn.note_long_step();
        }
        self.take_answers(receive, held, effects)
    }

    /// Writes the replies that handlers have left, if they have. Returns `true` if they are to be published at once: the client makes room
    /// for the rest of a large one while we go on.
    #[inline]
    fn take_answers<'a>(
        &'a self,
        receive: &Receive,
        held: &mut Option<StateGuard<'a>>,
        effects: &mut Effects,
    ) -> Result<bool, Breach> {
        if receive.inline.is_empty() {
            return Ok(false);
        }
        let state = held.get_or_insert_with(|| self.lock());
        doorbell_shm::failpoint!("answer.before");
        let is_large = state.answer_inline(&receive.inline, effects)?;
        doorbell_shm::failpoint!("answer.written");
        Ok(is_large)
    }

    /// Closes the connection of a peer that broke the protocol, as whoever drives has found, and hears of by this reason.
    pub(super) fn end_for(&self, breach: Breach) -> Disconnected {
        let reason = Disconnected::from(breach);
        self.close_as_driver(reason.clone());
        reason
    }

    /// Returns `true` if a glance without any lock shows nothing to do: cheap enough to be repeated while spinning.
    ///
    /// A hint and no more. Nobody sleeps because of it.
    #[inline]
    pub(crate) fn looks_quiet(&self) -> bool {
        !self.looks_unread() && !self.is_congested() && !self.is_closed()
    }

    /// A glance: returns `true` if the peer has published something that has not been read.
    fn looks_unread(&self) -> bool {
        self.peer.load_tail() != self.read_to.load(Ordering::Relaxed)
    }

    /// A glance of a worker that has put the connection to sleep: returns `true` if the client has published something since without ringing,
    /// that it has no use for a block any more for instance.
    pub(crate) fn has_quiet_news(&self) -> bool {
        self.looks_unread() && !self.is_blocked() && !self.is_closed()
    }

    /// Gives room back to the peer, writes what waits, and publishes.
    pub(super) fn finish_batch(
        &self,
        receive: &mut Receive,
        state: &mut State,
        effects: &mut Effects,
    ) -> Result<(), Breach> {
        state.collect_returns()?;
        let mut backlog = Backlog::Nothing;
        if state.has_backlog() {
            state.pump()?;
            backlog = state.backlog();
        }
        doorbell_shm::failpoint!("batch.before");
        receive.give_room_back(state);
        let released = receive.must_look_for_space_waiter(state);
        let published = state.producer.publish();
        effects.notify = state.tell(published, released);
        doorbell_shm::failpoint!("batch.after");
        if state.going_away.is_some() {
            self.leaving.store(true, Ordering::Relaxed);
        }
        self.backlog.set(backlog);
        if !state.space_wakers.is_empty() && state.is_writable() {
            effects.more.extend(state.space_wakers.take());
        }
        if !state.quiet_wakers.is_empty() {
            effects.more.extend(state.take_quiet_wakers());
        }
        Ok(())
    }

    /// Copies the body of a continuation straight to its place in the message that it continues.
    ///
    /// Returns the state lock with the event: the machine may have freed the call's slot, and a call that another thread starts there
    /// would take the ticket's place before the event has found it.
    fn continuation<'a>(
        &'a self,
        receive: &mut Receive,
        mut state: StateGuard<'a>,
        words: &HeaderWords,
        header: &FrameHeader,
    ) -> Result<(Event<'static>, StateGuard<'a>), Breach> {
        receive.is_untidy = true;
        let mut destination = state.machine.take_destination(header)?;
        drop(state);
        match &mut destination {
            Destination::Buffer(buffer) => {
                let before = buffer.len();
                receive.consumer.copy_body(buffer);
                check_crc(words, &buffer[before..])?;
            }
            Destination::Discard => receive.copy_body(words)?,
        }
        receive.consumer.advance();
        doorbell_shm::failpoint!("take.chunk");
        // A chunk is large: give its room back at once, so that the peer can write the next one while we copy.
        receive.consumer.release();
        let mut state = self.lock();
        let released = receive.must_look_for_space_waiter(&state);
        if let Some(on) = state.tell(false, released) {
            drop(state);
            self.notify_peer(on);
            state = self.lock();
        }
        let event = state
            .machine
            .handle_continuation(Time::default(), header, destination)?;
        Ok((event, state))
    }

    /// The time, looked up only if the frame has a deadline.
    fn time_for(&self, header: &FrameHeader) -> Time {
        if header.flags.contains(Flags::DEADLINE) {
            self.now()
        } else {
            Time::default()
        }
    }
}

impl Receive {
    /// Copies the body of the next frame to the scratch buffer, and checks it.
    #[inline]
    pub(super) fn copy_body(&mut self, words: &HeaderWords) -> Result<(), Breach> {
        self.scratch.clear();
        self.consumer.copy_body(&mut self.scratch);
        check_crc(words, &self.scratch)
    }

    /// Gives consumed room back to the peer, unless that can wait.
    ///
    /// Telling the peer makes it fetch the cache line of our positions, so it is told together with the next thing that we
    /// publish, or when there is a chunk to give.
    fn give_room_back(&mut self, state: &State) {
        let chunk_bytes = state.max_body_bytes();
        let unreleased_bytes = self.consumer.unreleased_bytes() as usize;
        if state.producer.has_unpublished() || unreleased_bytes >= chunk_bytes {
            self.consumer.release();
        }
    }

    /// Gives the memory back that is not needed between two frames, and the peer all its room, so that it can do the same.
    pub(super) fn give_back(&mut self) {
        self.is_untidy = false;
        self.consumer.release();
        self.consumer.begin_reach();
        self.scratch = Vec::new();
        self.requests = Requests::default();
        self.inline.give_back();
    }

    /// Returns `true` if we must look whether the peer waits for the room that has been released.
    ///
    /// That look costs a fence, which waits for our position to reach the peer, so it is made once per chunk of room and not for
    /// every frame. No wake-up is lost by that. A peer that waits for room has seen more than
    /// [`CHUNKS_AHEAD`](super::writing::CHUNKS_AHEAD) chunks that we had not released, or half the ring, which is more than two chunks.
    /// If there is nothing unread now, then less than a chunk of it is unreleased, and less than a chunk has been released since
    /// the last look: so that look came after a release that the peer had not seen, and has woken it. If there is something
    /// unread, whoever reads it looks again.
    fn must_look_for_space_waiter(&mut self, state: &State) -> bool {
        let released = self
            .consumer
            .head()
            .wrapping_sub(self.consumer.unreleased_bytes());
        if (released.wrapping_sub(self.checked_release) as usize) < state.max_body_bytes() {
            return false;
        }
        self.checked_release = released;
        true
    }
}

/// Returns what a frame counts among those that may be read in one go: one that packs many messages gives as many handlers work.
fn weight(event: &Event<'_>) -> usize {
    match event {
        Event::Notifies { payloads, .. } => 1 + payloads.total() / PACKED_PER_FRAME,
        _ => 1,
    }
}

#[inline]
pub(super) fn check_crc(words: &HeaderWords, body: &[u8]) -> Result<(), Breach> {
    let covered = if FrameHeader::covers_body_in(words) {
        body
    } else {
        &[]
    };
    let found = crc32c_record(words, covered);
    let announced = FrameHeader::crc_in(words);
    if found == announced {
        Ok(())
    } else {
        Err(Violation::Checksum { announced, found }.into())
    }
}

/// Gives back a scratch buffer that one large frame has made large.
fn trim(scratch: &mut Vec<u8>) {
    if scratch.capacity() > SCRATCH_BYTES {
        scratch.clear();
        scratch.shrink_to(SCRATCH_BYTES);
    }
}

/// Packed notifications that count as one frame. With their lengths they take more room in the ring than its header.
const PACKED_PER_FRAME: usize = 8;

/// Bodies up to this size are copied while the state lock is held over a batch; for larger ones it is released.
const COPY_UNDER_LOCK_BYTES: usize = 1024;

/// Size to which a scratch buffer shrinks after large frames.
const SCRATCH_BYTES: usize = 64 * 1024;
