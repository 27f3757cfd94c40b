//! What only a client does: it starts calls, cancels them and is told how they end.

use super::calls::{Phase, Unsent};
use super::{Connection, Event, Payload, ProtocolError, Role, StartError, check_empty};
use crate::frame::{Body, CallId, CallKind, Descriptor, FrameHeader, FrameKind};
use crate::status::Status;
use crate::time::Time;

/// Methods of a client.
impl Connection {
    /// Takes a slot for a new call and returns its id; the caller then writes the `CALL`.
    ///
    /// # Errors
    ///
    /// [`StartError`] if no slot is free, a side is leaving, or the connection has ended.
    #[inline(always)] // one caller's whole work
    pub fn start_call(
        &mut self,
        kind: CallKind,
        deadline: Option<Time>,
    ) -> Result<CallId, StartError> {
        debug_assert_eq!(self.config.role, Role::Client, "only a client starts calls");
        if self.closed {
            return Err(StartError::Closed);
        }
        if self.is_going_away() {
            return Err(StartError::GoingAway);
        }
        let slot_index = self.take_free_slot()?;
        let generation = self
            .calls
            .peek(slot_index)
            .map_or(0, |slot| slot.generation);
        let id = CallId::new(slot_index, generation.wrapping_add(1));
        self.calls.open(id, Phase::Active, kind, deadline);
        if kind != CallKind::Unary {
            let extra = self.new_credit(kind);
            if let Some(slot) = self.calls.slot(slot_index) {
                slot.extra = extra;
            }
        }
        Ok(id)
    }

    /// Takes a call back of which no frame has been written.
    ///
    /// Slot and id are free again at once, and a `CANCEL` that waits is withdrawn, so this also serves a call that was cancelled or
    /// expired before its `CALL` was written. Does nothing if the call is over.
    pub fn abort_start(&mut self, id: CallId) {
        let Some(slot) = self.calls.slot(id.slot()) else {
            return;
        };
        if slot.generation != id.generation() || !slot.is_open() {
            return;
        }
        slot.generation = id.generation().wrapping_sub(1); // the server expects generations without gaps
        self.end_and_free(id.slot());
    }

    /// Makes as if a slot had been used so often that its latest call had this generation, for tests of what comes after the last one: on both
    /// sides, or the server finds the next call out of order. Returns `false`, and has changed nothing, if the slot is not free or was
    /// never used.
    #[doc(hidden)]
    pub fn set_generation(&mut self, slot_index: u32, generation: u32) -> bool {
        let free = self.calls.slot(slot_index).filter(|slot| slot.is_free());
        free.map(|slot| slot.generation = generation).is_some()
    }

    /// Gives a call up: queues a `CANCEL` and swallows what still arrives for it.
    ///
    /// Returns `false` if the call was already over for the application. The slot is free again when the server has ended the call.
    pub fn cancel(&mut self, id: CallId) -> bool {
        let is_active = self.calls.is_active(id);
        if is_active {
            self.drain(id.slot());
        }
        is_active
    }

    /// Ends a call with a reply of `payload_bytes` whose header [is bare](FrameHeader::bare_response). Returns `false`, and has
    /// changed nothing, if it is not that simple: [`handle_frame`](Self::handle_frame) then says what the frame is.
    #[inline]
    pub fn take_reply(&mut self, id: CallId, payload_bytes: usize) -> bool {
        let takes = self.expects_reply(id, payload_bytes);
        if takes {
            self.end_and_free(id.slot());
        }
        takes
    }

    /// As [`take_reply`](Self::take_reply), with a reply that is lent and whose header [is bare](FrameHeader::bare_lent_response). The
    /// block is with us then.
    #[inline]
    pub fn take_lent_reply(&mut self, id: CallId, loan: Descriptor) -> bool {
        let takes = self.expects_reply(id, loan.length as usize)
            && self.accept_loan(FrameKind::Response, loan);
        if takes {
            self.end_and_free(id.slot());
        }
        takes
    }

    #[inline]
    fn expects_reply(&self, id: CallId, payload_bytes: usize) -> bool {
        let expected = self.calls.peek(id.slot()).is_some_and(|slot| {
            slot.generation == id.generation()
                && slot.phase == Phase::Active
                && !slot.kind.is_streaming()
                && !slot.is_assembling()
        });
        expected && self.config.role == Role::Client && !self.is_too_large(payload_bytes)
    }

    #[inline(always)] // saves moving the event once more
    pub(super) fn handle_response<'a>(
        &mut self,
        header: &FrameHeader,
        body: &'a [u8],
    ) -> Result<Event<'a>, ProtocolError> {
        let slot_index = self.locate_on_client(header)?;
        let id = CallId::from_raw(header.id);
        let Some(slot) = self.calls.peek(slot_index) else {
            return Ok(Event::None);
        };
        if slot.kind.is_streaming() {
            return Err(ProtocolError::NotAllowed {
                kind: header.kind,
                id,
            });
        }
        if slot.is_assembling() {
            return Err(ProtocolError::Interrupted {
                kind: header.kind,
                id,
            });
        }
        let is_active = slot.phase == Phase::Active;
        let body = Body::parse(header, body)?;
        if body.total_bytes.is_some() {
            return self.begin_message(slot_index, header, &body);
        }
        self.end_and_free(slot_index);
        if !is_active {
            return Ok(Event::None);
        }
        if !header.is_loaned() && self.is_too_large(body.payload.len()) {
            return Ok(Event::Failed {
                id,
                status: self.too_large("response"),
            });
        }
        Ok(Event::Response {
            id,
            metadata: body.metadata.to_option(),
            payload: Payload::Borrowed(body.payload),
        })
    }

    pub(super) fn handle_error(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        let slot_index = self.locate_on_client(header)?;
        let id = CallId::from_raw(header.id);
        let status = Status::from_frame(header, body)?;
        let is_active = self.calls.is_active(id);
        self.end_and_free(slot_index);
        Ok(if is_active {
            Event::Failed { id, status }
        } else {
            Event::None
        })
    }

    pub(super) fn handle_end_of_answer(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        check_empty(header, body)?;
        let slot_index = self.locate_on_client(header)?;
        let id = CallId::from_raw(header.id);
        let Some(slot) = self.calls.peek(slot_index) else {
            return Ok(Event::None);
        };
        if !slot.kind.is_streaming() {
            return Err(ProtocolError::NotAllowed {
                kind: header.kind,
                id,
            });
        }
        if slot.is_assembling() {
            return Err(ProtocolError::Interrupted {
                kind: header.kind,
                id,
            });
        }
        let is_active = slot.phase == Phase::Active;
        self.end_and_free(slot_index);
        Ok(if is_active {
            Event::ItemsEnded { id }
        } else {
            Event::None
        })
    }

    /// Returns the slot of the call that a frame from the server is about.
    #[inline]
    pub(super) fn locate_on_client(&self, header: &FrameHeader) -> Result<u32, ProtocolError> {
        let id = CallId::from_raw(header.id);
        let slot = self
            .calls
            .peek(id.slot())
            .filter(|slot| slot.generation == id.generation() && slot.is_open());
        if slot.is_none() {
            return Err(ProtocolError::NotUnderWay {
                kind: header.kind,
                id,
            });
        }
        Ok(id.slot())
    }

    /// Lets what still arrives for a call be swallowed, and tells the server.
    pub(super) fn drain(&mut self, slot_index: u32) {
        let Some(slot) = self.calls.slot(slot_index) else {
            return;
        };
        if let Some(assembly) = slot.assembly() {
            self.budget.discard(assembly, &mut self.purse);
        }
        self.control.set(slot_index, slot, Unsent::Cancel);
        self.calls.set_phase(slot_index, Phase::Draining);
    }

    /// Ends a call for good.
    #[inline]
    pub(super) fn end_and_free(&mut self, slot_index: u32) {
        self.end(slot_index, Phase::Over);
        self.free.push(slot_index);
    }

    #[inline]
    fn take_free_slot(&mut self) -> Result<u32, StartError> {
        if let Some(slot_index) = self.free.pop() {
            return Ok(slot_index);
        }
        let limit = self.config.max_calls;
        u32::try_from(self.calls.len())
            .ok()
            .filter(|next| *next < limit)
            .ok_or(StartError::TooManyCalls { limit })
    }
}
