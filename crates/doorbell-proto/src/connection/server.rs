//! What only a server does: it is given calls and ends them.

use super::allowance::Share;
use super::calls::{Phase, Unsent};
use super::{Connection, Event, Payload, ProtocolError, Role, check_empty};
use crate::frame::{
    Body, CallId, CallKind, Descriptor, FrameHeader, FrameKind, MessageType, Packed,
};
use crate::status::Status;
use crate::time::Time;

/// Methods of a server.
impl Connection {
    /// Ends a call because its answer is about to be written: `RESPONSE`, or `END` for a streaming call.
    ///
    /// Returns `false` if the call is already over; then nothing may be written for it. Credit that waits to be granted is forgotten.
    #[inline]
    pub fn finish(&mut self, id: CallId) -> bool {
        let is_active = self.calls.is_active(id);
        if is_active {
            self.end(id.slot(), Phase::Over);
        }
        is_active
    }

    /// Ends a call as [`finish`](Self::finish) does, and keeps its slot until [`release`](Self::release).
    ///
    /// For an answer that cannot be written at once and waits in a queue of the caller: a client that opens a call in the slot before
    /// it can have seen the answer breaks the protocol, so that such a queue stays as short as the table is.
    pub fn finish_and_hold(&mut self, id: CallId) -> bool {
        let is_active = self.calls.is_active(id);
        if is_active {
            self.end(id.slot(), Phase::Held);
        }
        is_active
    }

    /// Frees a slot kept by [`finish_and_hold`](Self::finish_and_hold), when the last frame of the answer is written or dropped.
    pub fn release(&mut self, id: CallId) {
        let held = |phase, generation| phase == Phase::Held && generation == id.generation();
        if self
            .calls
            .peek(id.slot())
            .is_some_and(|slot| held(slot.phase, slot.generation))
        {
            self.calls.set_phase(id.slot(), Phase::Over);
            let extra = self
                .calls
                .slot(id.slot())
                .and_then(|slot| slot.extra.take());
            if let Some(extra) = extra {
                self.purse
                    .give_back(Share::StreamBytes, extra.charged_bytes);
            }
        }
    }

    /// Ends a call with an `ERROR`, which is queued. Returns `false` if the call is already over.
    pub fn fail(&mut self, id: CallId, status: Status) -> bool {
        let is_active = self.calls.is_active(id);
        if is_active {
            self.end_with(id.slot(), status);
        }
        is_active
    }

    /// Opens a unary call with a request of `payload_bytes` whose header [is bare](FrameHeader::bare_call). Returns `false`, and has
    /// changed nothing, if it is not that simple: [`handle_frame`](Self::handle_frame) then says what the frame is.
    #[inline]
    pub fn take_request(&mut self, id: CallId, payload_bytes: usize) -> bool {
        let takes = self.expects_request(id, payload_bytes);
        if takes {
            self.calls.open(id, Phase::Active, CallKind::Unary, None);
        }
        takes
    }

    /// As [`take_request`](Self::take_request), with a request that is lent and whose header [is bare](FrameHeader::bare_lent_call). The
    /// block is with us then.
    #[inline]
    pub fn take_lent_request(&mut self, id: CallId, loan: Descriptor) -> bool {
        let takes = self.expects_request(id, loan.length as usize)
            && self.accept_loan(FrameKind::Call, loan);
        if takes {
            self.calls.open(id, Phase::Active, CallKind::Unary, None);
        }
        takes
    }

    #[inline]
    fn expects_request(&self, id: CallId, payload_bytes: usize) -> bool {
        let next = self.calls.peek(id.slot()).is_some_and(|slot| {
            slot.generation.wrapping_add(1) == id.generation() && slot.is_free()
        });
        let may_come =
            self.config.role == Role::Server && !self.refuses && !self.is_too_large(payload_bytes);
        next && may_come && self.purse.has_room(self.open_calls())
    }

    #[inline(always)] // saves moving the event once more
    pub(super) fn handle_call<'a>(
        &mut self,
        now: Time,
        header: &FrameHeader,
        body: &'a [u8],
    ) -> Result<Event<'a>, ProtocolError> {
        let id = CallId::from_raw(header.id);
        self.check_next(header, id)?;
        let body = Body::parse(header, body)?;
        let kind = CallKind::from_flags(header.flags);
        let deadline = body
            .remaining
            .map(|remaining| now.saturating_add(remaining));
        if self.refuses {
            self.refuse(id, kind, Status::unavailable("the server is going away"));
            return Ok(Event::None);
        }
        let is_whole = body.total_bytes.is_none() && !header.is_loaned(); // of a loan the descriptor has been looked at
        if is_whole && self.is_too_large(body.payload.len()) {
            let status = self.too_large("request");
            self.refuse(id, kind, status);
            return Ok(Event::None);
        }
        if let Err(why) = self.take_share(header, kind) {
            self.refuse(id, kind, Status::resource_exhausted(why));
            return Ok(Event::None);
        }
        let phase = if body.total_bytes.is_some() {
            Phase::Receiving
        } else {
            Phase::Active
        };
        self.calls.open(id, phase, kind, deadline);
        if kind != CallKind::Unary {
            let extra = self.new_credit(kind);
            let charged_bytes = self.window_bytes(kind);
            if let Some(slot) = self.calls.slot(id.slot()) {
                slot.extra = extra;
                slot.hold_charge(charged_bytes);
            }
        }
        if body.total_bytes.is_some() {
            return self.begin_message(id.slot(), header, &body);
        }
        Ok(Event::Request {
            id,
            kind,
            message_type: MessageType::new(header.value),
            deadline,
            metadata: body.metadata.to_option(),
            payload: Payload::Borrowed(body.payload),
        })
    }

    pub(super) fn handle_cancel(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        check_empty(header, body)?;
        let Some(slot_index) = self.locate_on_server(header)? else {
            return Ok(Event::None);
        };
        let id = CallId::from_raw(header.id);
        let was_active = self.calls.is_active(id);
        self.end_with(
            slot_index,
            marked(Status::cancelled("cancelled by the client"), was_active),
        );
        Ok(if was_active {
            Event::Cancelled { id }
        } else {
            Event::None
        })
    }

    pub(super) fn handle_notify<'a>(
        &mut self,
        header: &FrameHeader,
        body: &'a [u8],
    ) -> Result<Event<'a>, ProtocolError> {
        let body = Body::parse(header, body)?;
        let packed = Packed::of(header, body.payload)?;
        let longest = packed.map_or(body.payload.len(), |packed| packed.longest_bytes());
        let metadata_bytes = u64::from(header.metadata_bytes);
        let too_much = metadata_bytes > 0 && self.purse.check_metadata(metadata_bytes).is_err();
        if self.refuses || too_much || self.is_too_large(longest) {
            return Ok(Event::None); // there is nobody to tell
        }
        let message_type = MessageType::new(header.value);
        if let Some(payloads) = packed {
            return Ok(Event::Notifies {
                message_type,
                payloads,
            });
        }
        Ok(Event::Notify {
            message_type,
            metadata: body.metadata.to_option(),
            payload: body.payload,
        })
    }

    pub(super) fn expire_on_server(&mut self, id: CallId, was_active: bool) {
        self.end_with(
            id.slot(),
            marked(Status::deadline_exceeded("deadline exceeded"), was_active),
        );
    }

    /// Returns the slot of the call that a frame from the client is about, or `None` if we have ended that call.
    #[inline]
    pub(super) fn locate_on_server(
        &self,
        header: &FrameHeader,
    ) -> Result<Option<u32>, ProtocolError> {
        let (kind, id, max_calls) = (
            header.kind,
            CallId::from_raw(header.id),
            self.config.max_calls,
        );
        if id.slot() >= max_calls {
            return Err(ProtocolError::SlotOutOfRange {
                kind,
                slot: id.slot(),
                max_calls,
            });
        }
        let Some(slot) = self
            .calls
            .peek(id.slot())
            .filter(|slot| slot.phase != Phase::Unused)
        else {
            return Err(ProtocolError::NeverOpened { kind, id });
        };
        let age = slot.generation.wrapping_sub(id.generation()); // generations wrap around
        if age == 0 && slot.is_open() {
            return Ok(Some(id.slot()));
        }
        if age > u32::MAX / 2 {
            return Err(ProtocolError::NeverOpened { kind, id });
        }
        Ok(None)
    }

    /// Ends a call and queues an `ERROR`.
    pub(super) fn end_with(&mut self, slot_index: u32, status: Status) {
        self.end(slot_index, Phase::Over);
        if let Some(slot) = self.calls.slot(slot_index) {
            slot.extra().error = Some(status);
        }
        self.set_unsent(slot_index, Unsent::Error);
    }

    /// Checks that the client may open call `id` now.
    #[inline]
    fn check_next(&mut self, header: &FrameHeader, id: CallId) -> Result<(), ProtocolError> {
        let (slot, max_calls) = (id.slot(), self.config.max_calls);
        if slot >= max_calls {
            return Err(ProtocolError::SlotOutOfRange {
                kind: header.kind,
                slot,
                max_calls,
            });
        }
        let Some(slot) = self.calls.peek(slot) else {
            return check_generation(id, FIRST_GENERATION);
        };
        check_generation(id, slot.generation.wrapping_add(1))?; // an unused slot has generation 0
        if slot.is_free() {
            Ok(())
        } else {
            Err(ProtocolError::SlotInUse { id })
        }
    }

    /// Takes what a new call takes from the allowance, unless it is a divided message, which comes later.
    #[inline]
    fn take_share(&mut self, header: &FrameHeader, kind: CallKind) -> Result<(), String> {
        self.purse.make_room(self.open_calls())?;
        if header.metadata_bytes > 0 {
            self.purse.check_metadata(header.metadata_bytes.into())?;
        }
        if kind == CallKind::Unary {
            return Ok(());
        }
        self.purse.take(Share::StreamBytes, self.window_bytes(kind))
    }

    /// Opens a call only to end it: no handler will see it.
    #[cold]
    fn refuse(&mut self, id: CallId, kind: CallKind, status: Status) {
        self.calls.open(id, Phase::Receiving, kind, None);
        self.end_with(id.slot(), status.not_executed());
    }
}

#[inline]
fn check_generation(id: CallId, expected: u32) -> Result<(), ProtocolError> {
    if id.generation() == expected {
        Ok(())
    } else {
        Err(ProtocolError::WrongGeneration { id, expected })
    }
}

/// Marks `status` as not executed unless a handler has seen the call.
fn marked(status: Status, was_active: bool) -> Status {
    if was_active {
        status
    } else {
        status.not_executed()
    }
}

const FIRST_GENERATION: u32 = 1;
