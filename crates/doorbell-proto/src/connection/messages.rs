//! Divided messages: their beginning, their continuations, and messages that are too large.

use super::assembly::{Assembly, Storage};
use super::calls::Phase;
use super::{Connection, Destination, Event, Payload, ProtocolError, Role};
use crate::frame::{Body, CallId, FrameError, FrameHeader, FrameKind, MessageType};
use crate::status::Status;
use crate::time::Time;

/// Methods for divided messages.
impl Connection {
    /// Returns where the body of a `CONTINUE` frame is to be appended, after checking that the frame may come now.
    ///
    /// The buffer has room for the rest of the message. Hand it to [`handle_continuation`](Self::handle_continuation) with the whole body
    /// appended; other methods may be called in between.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the peer may not send this frame now; close the connection.
    pub fn take_destination(&mut self, header: &FrameHeader) -> Result<Destination, ProtocolError> {
        self.check_open(header)?;
        let Some(slot_index) = self.locate_continuation(header)? else {
            return Ok(Destination::Discard);
        };
        self.check_continuation(slot_index, header)?;
        let assembly = self.calls.slot(slot_index).and_then(|slot| slot.assembly());
        Ok(assembly.map_or(Destination::Discard, Assembly::take_destination))
    }

    /// Takes in a `CONTINUE` frame whose body has been appended to its destination, and returns what it means.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the peer may not send this frame now; close the connection.
    ///
    /// # Panics
    ///
    /// If the body was not appended to the buffer that [`take_destination`](Self::take_destination) gave for this frame.
    pub fn handle_continuation(
        &mut self,
        _now: Time,
        header: &FrameHeader,
        destination: Destination,
    ) -> Result<Event<'static>, ProtocolError> {
        self.check_open(header)?;
        let Some(slot_index) = self.locate_continuation(header)? else {
            return Ok(Event::None);
        };
        let received_bytes = self.check_continuation(slot_index, header)?;
        let Some(slot) = self.calls.slot(slot_index) else {
            return Ok(Event::None);
        };
        if let Some(credit) = slot.credit().filter(|_| header.kind == FrameKind::Data) {
            credit.continue_item(header.cost_bytes());
        }
        let Some(assembly) = slot.assembly() else {
            return Ok(Event::None);
        };
        assembly.put_back(destination, received_bytes);
        assembly.cost_bytes = assembly.cost_bytes.saturating_add(header.cost_bytes());
        if header.has_more() {
            return Ok(Event::None);
        }
        let Some(assembly) = slot.extra.as_mut().and_then(|extra| extra.assembly.take()) else {
            return Ok(Event::None);
        };
        self.budget.release(&assembly, &mut self.purse);
        Ok(self.complete(slot_index, assembly))
    }

    /// Takes in a `CONTINUE` frame by copying its body.
    pub(super) fn copy_continuation(
        &mut self,
        now: Time,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        crate::frame::check_length(header, body)?;
        let mut destination = self.take_destination(header)?;
        if let Destination::Buffer(buffer) = &mut destination {
            buffer.extend_from_slice(body);
        }
        self.handle_continuation(now, header, destination)
    }

    /// Takes in the first frame of a divided message. The slot has no other message under assembly.
    pub(super) fn begin_message(
        &mut self,
        slot_index: u32,
        header: &FrameHeader,
        body: &Body<'_>,
    ) -> Result<Event<'static>, ProtocolError> {
        let total_bytes = body.total_bytes.unwrap_or(0);
        let received_bytes = u64::try_from(body.payload.len()).unwrap_or(u64::MAX);
        if received_bytes >= total_bytes {
            return Err(ProtocolError::TotalMismatch {
                id: CallId::from_raw(header.id),
                total_bytes,
                received_bytes,
            });
        }
        let (storage, event) = self.storage_for(slot_index, header.kind, total_bytes, body.payload);
        let Some(slot) = self.calls.slot(slot_index).filter(|slot| slot.is_open()) else {
            return Ok(event);
        };
        let keep = matches!(storage, Storage::Buffer(_));
        slot.extra().assembly = Some(Assembly {
            kind: header.kind,
            value: header.value,
            metadata: if keep {
                body.metadata.to_option()
            } else {
                None
            },
            total_bytes,
            received_bytes,
            cost_bytes: header.cost_bytes(),
            storage,
        });
        Ok(event)
    }

    /// Ends a call because a message of it is too large, or takes more than there is.
    pub(super) fn fail_exhausted(&mut self, slot_index: u32, mut status: Status) -> Event<'static> {
        let Some(slot) = self.calls.slot(slot_index) else {
            return Event::None;
        };
        let id = CallId::new(slot_index, slot.generation);
        let was_active = slot.phase == Phase::Active;
        match self.config.role {
            Role::Client => self.drain(slot_index),
            Role::Server => {
                if !was_active {
                    status = status.not_executed();
                }
                self.end_with(slot_index, status.clone());
            }
        }
        if was_active {
            Event::Failed { id, status }
        } else {
            Event::None
        }
    }

    pub(super) fn too_large(&self, what: &str) -> Status {
        Status::resource_exhausted(format!(
            "{what} is larger than {} bytes",
            self.config.max_message_bytes
        ))
    }

    #[inline]
    pub(super) fn is_too_large(&self, payload_bytes: usize) -> bool {
        u64::try_from(payload_bytes).is_ok_and(|bytes| bytes > self.config.max_message_bytes)
    }

    /// Returns where the message is to be kept, beginning with `payload`; ends the call if there is no room.
    fn storage_for(
        &mut self,
        slot_index: u32,
        kind: FrameKind,
        total_bytes: u64,
        payload: &[u8],
    ) -> (Storage, Event<'static>) {
        if self
            .calls
            .peek(slot_index)
            .is_some_and(|slot| slot.phase == Phase::Draining)
        {
            return (Storage::Discarded, Event::None);
        }
        let what = message_name(kind);
        let buffer = if total_bytes <= self.config.max_message_bytes {
            let reserved = self.budget.reserve(total_bytes, &mut self.purse);
            reserved.map_err(|why| Status::resource_exhausted(format!("no room for {what}: {why}")))
        } else {
            Err(self.too_large(what))
        };
        let mut buffer = match buffer {
            Ok(buffer) => buffer,
            Err(status) => {
                let event = self.fail_exhausted(slot_index, status);
                return (Storage::Discarded, event);
            }
        };
        buffer.extend_from_slice(payload);
        (Storage::Buffer(buffer), Event::None)
    }

    /// Returns the slot of a continuation's call, or `None` if the frame is to be ignored.
    fn locate_continuation(&self, header: &FrameHeader) -> Result<Option<u32>, ProtocolError> {
        let (kind, role) = (header.kind, self.config.role);
        match (role, kind) {
            (Role::Server, FrameKind::Call)
            | (Role::Client, FrameKind::Response)
            | (_, FrameKind::Data) => self.locate(header),
            _ => Err(ProtocolError::WrongDirection { kind, role }),
        }
    }

    fn check_continuation(
        &self,
        slot_index: u32,
        header: &FrameHeader,
    ) -> Result<u64, ProtocolError> {
        let (kind, id) = (header.kind, CallId::from_raw(header.id));
        let extra = self
            .calls
            .peek(slot_index)
            .and_then(|slot| slot.extra.as_ref());
        let assembly = extra
            .and_then(|extra| extra.assembly.as_ref())
            .filter(|_| header.is_continuation());
        let assembly = assembly.ok_or(ProtocolError::NothingToContinue { kind, id })?;
        if header.length == 0 {
            return Err(FrameError::Length { kind, length: 0 }.into());
        }
        assembly.check(id, header)
    }

    /// Hands out a message whose last frame has arrived.
    fn complete(&mut self, slot_index: u32, assembly: Assembly) -> Event<'static> {
        let Assembly {
            kind,
            value,
            metadata,
            cost_bytes,
            storage,
            ..
        } = assembly;
        let Some(slot) = self.calls.slot(slot_index) else {
            return Event::None;
        };
        let id = CallId::new(slot_index, slot.generation);
        let is_draining = slot.phase == Phase::Draining;
        if kind == FrameKind::Data
            && !is_draining
            && let Some(credit) = slot.credit()
        {
            credit.item_complete(cost_bytes);
        }
        let call_kind = slot.kind;
        let deadline = Some(slot.deadline).filter(|deadline| *deadline != Time::MAX);
        if kind == FrameKind::Response {
            self.end_and_free(slot_index);
        }
        let (false, Storage::Buffer(buffer)) = (is_draining, storage) else {
            return Event::None;
        };
        let payload = Payload::Assembled(buffer);
        match kind {
            FrameKind::Response => Event::Response {
                id,
                metadata,
                payload,
            },
            FrameKind::Data => Event::Item {
                id,
                payload,
                cost_bytes,
            },
            _ => {
                self.calls.set_phase(slot_index, Phase::Active);
                Event::Request {
                    id,
                    kind: call_kind,
                    message_type: MessageType::new(value),
                    deadline,
                    metadata,
                    payload,
                }
            }
        }
    }
}

fn message_name(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Call => "request",
        FrameKind::Response => "response",
        _ => "item",
    }
}
