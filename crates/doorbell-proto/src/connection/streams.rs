//! Stream items, their ends and their credit, in both directions.

use super::allowance::Share;
use super::calls::{Phase, Unsent};
use super::{Connection, Event, ItemError, Payload, ProtocolError, Role, check_empty};
use crate::frame::{Body, CallId, FrameHeader, Packed};
use crate::status::Status;

/// Methods for streams, of both roles.
impl Connection {
    /// Takes credit for one item, which the caller then writes.
    ///
    /// `frame_costs_bytes` is the cost of all frames of the item, [`FrameHeader::cost_bytes`] each. The last item within the credit may be
    /// larger than what is left.
    ///
    /// # Errors
    ///
    /// [`ItemError::NoCredit`] for now, or [`ItemError::Over`] for good.
    pub fn reserve_item(&mut self, id: CallId, frame_costs_bytes: u64) -> Result<(), ItemError> {
        let slot = self.calls.active(id).ok_or(ItemError::Over)?;
        let credit = slot
            .credit()
            .filter(|credit| credit.sending)
            .ok_or(ItemError::Over)?;
        credit
            .spend(frame_costs_bytes)
            .map_err(|_| ItemError::NoCredit)
    }

    /// Gives back credit that was taken for items which the caller has packed into fewer frames than it had thought.
    pub fn refund_item(&mut self, id: CallId, saved_bytes: u64) {
        if let Some(credit) = self.calls.active(id).and_then(|slot| slot.credit()) {
            credit.refund(saved_bytes);
        }
    }

    /// Returns `true` if an item may be begun, or never will be: then [`reserve_item`](Self::reserve_item) does not say
    /// [`ItemError::NoCredit`].
    pub fn may_begin_item(&mut self, id: CallId) -> bool {
        let credit = self.calls.active(id).and_then(|slot| slot.credit());
        credit.is_none_or(|credit| !credit.sending || credit.may_spend())
    }

    /// Ends the items of a client; the caller then writes `END`. Returns `false` if there is nothing to end.
    ///
    /// A server ends its items with [`finish`](Self::finish).
    pub fn end_items(&mut self, id: CallId) -> bool {
        if self.config.role != Role::Client {
            return false;
        }
        let credit = self.calls.active(id).and_then(|slot| slot.credit());
        credit.is_some_and(|credit| std::mem::replace(&mut credit.sending, false))
    }

    /// Notes that the application has taken items of `cost_bytes` together; see [`Event::Item`].
    ///
    /// Queues one `CREDIT` when half a window is owed. Does nothing if the call is over.
    pub fn consumed(&mut self, id: CallId, cost_bytes: u64) {
        let credit = self.calls.active(id).and_then(|slot| slot.credit());
        if credit.is_some_and(|credit| credit.consumed(cost_bytes)) {
            self.set_unsent(id.slot(), Unsent::Credit);
        }
    }

    pub(super) fn handle_data<'a>(
        &mut self,
        header: &FrameHeader,
        body: &'a [u8],
    ) -> Result<Event<'a>, ProtocolError> {
        let Some(slot_index) = self.locate(header)? else {
            return Ok(Event::None);
        };
        let (kind, id) = (header.kind, CallId::from_raw(header.id));
        let max_message_bytes = self.config.max_message_bytes;
        let Some(slot) = self.calls.slot(slot_index) else {
            return Ok(Event::None);
        };
        if slot.is_assembling() {
            return Err(ProtocolError::Interrupted { kind, id });
        }
        let is_active = slot.phase == Phase::Active;
        let credit = slot
            .credit()
            .filter(|credit| credit.receiving)
            .ok_or(ProtocolError::NotAllowed { kind, id })?;
        let body = Body::parse(header, body)?;
        let cost_bytes = header.cost_bytes();
        credit
            .begin_item(cost_bytes)
            .map_err(|left| ProtocolError::ItemWithoutCredit {
                id,
                credit_bytes: left.0,
            })?;
        if body.total_bytes.is_some() {
            return self.begin_message(slot_index, header, &body);
        }
        let packed = Packed::of(header, body.payload)?;
        if !is_active {
            return Ok(Event::None);
        }
        let longest = packed.map_or(body.payload.len(), |packed| packed.longest_bytes());
        if !u64::try_from(longest).is_ok_and(|bytes| bytes <= max_message_bytes) {
            let status = self.too_large("item");
            return Ok(self.fail_exhausted(slot_index, status));
        }
        credit.item_complete(cost_bytes);
        Ok(match packed {
            Some(payloads) => Event::Items {
                id,
                payloads,
                cost_bytes,
            },
            None => Event::Item {
                id,
                payload: Payload::Borrowed(body.payload),
                cost_bytes,
            },
        })
    }

    pub(super) fn handle_credit(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        check_empty(header, body)?;
        let Some(slot_index) = self.locate(header)? else {
            return Ok(Event::None);
        };
        let (kind, id, granted_bytes) = (header.kind, CallId::from_raw(header.id), header.value);
        let role = self.config.role;
        let Some(slot) = self.calls.slot(slot_index) else {
            return Ok(Event::None);
        };
        let is_active = slot.phase == Phase::Active;
        let has_items = match role {
            Role::Client => slot.kind.has_upload(),
            Role::Server => slot.kind.is_streaming(),
        };
        let credit = slot
            .credit()
            .filter(|_| has_items)
            .ok_or(ProtocolError::NotAllowed { kind, id })?;
        let overflow = |left: super::credit::Refused| ProtocolError::CreditOverflow {
            id,
            credit_bytes: left.0,
            granted_bytes,
        };
        let ended_shortage = credit.granted(granted_bytes).map_err(overflow)?;
        let wanted = ended_shortage && credit.sending && is_active;
        let rise_bytes = credit.take_rise();
        if rise_bytes > 0
            && let Err(why) = self.charge_rise(slot_index, rise_bytes)
        {
            return Ok(self.fail_exhausted(slot_index, Status::resource_exhausted(why)));
        }
        Ok(if wanted {
            Event::CreditAvailable { id }
        } else {
            Event::None
        })
    }

    /// A larger window is more that can wait for the peer.
    #[cold]
    fn charge_rise(&mut self, slot_index: u32, rise_bytes: u64) -> Result<(), String> {
        self.purse.take(Share::StreamBytes, rise_bytes)?;
        if let Some(slot) = self.calls.slot(slot_index) {
            let extra = slot.extra();
            extra.charged_bytes = extra.charged_bytes.saturating_add(rise_bytes);
        }
        Ok(())
    }

    pub(super) fn handle_end_of_upload(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        check_empty(header, body)?;
        let Some(slot_index) = self.locate(header)? else {
            return Ok(Event::None);
        };
        let (kind, id) = (header.kind, CallId::from_raw(header.id));
        let Some(slot) = self.calls.slot(slot_index) else {
            return Ok(Event::None);
        };
        if slot.is_assembling() {
            return Err(ProtocolError::Interrupted { kind, id });
        }
        let credit = slot
            .credit()
            .filter(|credit| credit.receiving)
            .ok_or(ProtocolError::NotAllowed { kind, id })?;
        credit.receiving = false;
        self.set_unsent(slot_index, Unsent::Nothing); // only credit can have waited
        Ok(Event::ItemsEnded { id })
    }
}
