//! Items of streams, as far as our own side goes: sending them, ending them, and giving credit for those that were taken.

use doorbell_proto::{
    CallId,
    connection::ItemError,
    frame::{DESCRIPTOR_BYTES, Flags, FrameHeader, FrameKind, HEADER_BYTES},
};
use doorbell_shm::stall;

use super::{Awaited, Connection, Outbound, Preamble, State, TicketKey, writing::header};
use crate::{
    error::{Breach, CallError},
    pack::{Collected, PackLimits},
};

/// Why an item was not sent.
pub(crate) enum ItemRefused {
    /// The receiver has not kept up; wait for credit.
    NoCredit,
    /// The call is over.
    Over,
    /// The peer accepts no message of this size.
    TooLarge {
        /// Size of the item.
        bytes: u64,
        /// Largest size.
        limit: u64,
    },
}

impl Connection {
    /// Sends one stream item.
    pub(crate) fn send_item(
        &self,
        key: TicketKey,
        payload: Outbound<'_>,
    ) -> Result<(), ItemRefused> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let ticket = state.tickets.get(key);
        let id = ticket.id;
        if ticket.over || state.end.is_some() {
            return Err(ItemRefused::Over);
        }
        let bytes = payload.len();
        let limit = state.terms.sent_message_bytes;
        if bytes as u64 > limit {
            return Err(ItemRefused::TooLarge {
                bytes: bytes as u64,
                limit,
            });
        }
        let cost = match payload {
            Outbound::Lend(loan) if state.may_lend(loan) => {
                cost_bytes(DESCRIPTOR_BYTES, state.max_body_bytes())
            }
            _ => cost_bytes(bytes, state.max_body_bytes()),
        };
        state
            .machine
            .reserve_item(id, cost)
            .map_err(|error| match error {
                ItemError::NoCredit => ItemRefused::NoCredit,
                _ => ItemRefused::Over,
            })?;
        let header = header(FrameKind::Data, Flags::default(), id.raw(), 0);
        let result = match stall::may_be_watched() {
            false => state.send(header, Preamble::default(), payload),
            true => self.send_counted(state, header, payload),
        };
        self.sent(guard, result);
        Ok(())
    }

    /// Sends, and counts if the calling thread stalls in it. The ordinary way has no more than the question whether that is wanted.
    #[cold]
    #[inline(never)]
    fn send_counted(
        &self,
        state: &mut State,
        header: FrameHeader,
        payload: Outbound<'_>,
    ) -> Result<(), Breach> {
        stall::count(self.subject(), || {
            state.send(header, Preamble::default(), payload)
        })
    }

    /// Returns how many small items fit into one frame, if an item may be sent now. As long as nobody else sends items of this call, a
    /// frame of that size may then be sent at any time.
    pub(crate) fn begin_pack(&self, key: TicketKey) -> Result<PackLimits, ItemRefused> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let ticket = state.tickets.get(key);
        let id = ticket.id;
        if ticket.over || state.end.is_some() {
            return Err(ItemRefused::Over);
        }
        if !state.machine.may_begin_item(id) {
            return Err(ItemRefused::NoCredit);
        }
        Ok(state.pack_limits())
    }

    /// Sends items that were collected.
    pub(crate) fn send_pack(
        &self,
        key: TicketKey,
        collected: Collected<'_>,
    ) -> Result<(), ItemRefused> {
        let body = collected.body();
        if let Collected::One(_) = collected {
            return self.send_item(key, Outbound::Copy(body));
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        let ticket = state.tickets.get(key);
        let id = ticket.id;
        let cost_bytes = (HEADER_BYTES + body.len()) as u64;
        if ticket.over || state.end.is_some() || state.machine.reserve_item(id, cost_bytes).is_err()
        {
            return Err(ItemRefused::Over); // there was credit when the pack was begun
        }
        let header = header(FrameKind::Data, Flags::PACKED, id.raw(), 0);
        state.counters.messages_sent += collected.count() as u64 - 1;
        let payload = Outbound::Copy(body);
        let result = match stall::may_be_watched() {
            false => state.send(header, Preamble::default(), payload),
            true => self.send_counted(state, header, payload),
        };
        self.sent(guard, result);
        Ok(())
    }

    /// Returns why no item of a call can be sent any more. `None` if the peer ended it in order, or somebody has been told already.
    pub(crate) fn why_over(&self, key: TicketKey) -> Option<CallError> {
        let mut state = self.lock();
        let end = state.end.clone();
        match &state.tickets.get(key).outcome {
            Some(Err(CallError::Status(status))) => Some(CallError::Status(status.clone())),
            Some(Err(CallError::DeadlineExceeded)) => Some(CallError::DeadlineExceeded),
            _ => end.map(CallError::Disconnected),
        }
    }

    /// Says that no more items follow from this client.
    pub(crate) fn end_items(&self, key: TicketKey) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let ticket = state.tickets.get(key);
        let (id, over) = (ticket.id, ticket.over);
        if over || state.end.is_some() || !state.machine.end_items(id) {
            return;
        }
        let header = header(FrameKind::End, Flags::default(), id.raw(), 0);
        let result = state.send(header, Preamble::default(), Outbound::Copy(&[]));
        self.sent(guard, result);
    }

    /// Closes the handle of a ticket with which items were sent. Whoever has waited for credit with it waits no more.
    pub(crate) fn stop_sending(&self, key: TicketKey) {
        let mut guard = self.lock();
        guard.tickets.get(key).unsent = true;
        guard.tickets.put_aside(key, Awaited::Credit);
        guard.tickets.close(key, Vec::new());
        self.give_back_dropped(guard);
    }

    /// Closes the handle of a ticket whose items nobody reads any more. Those that are there, and those that still come, are thrown
    /// away with their credit given, beside the `owed_bytes` of those that the reader had taken already; so that the sender does not
    /// wait for a reader that is gone.
    pub(crate) fn stop_reading(&self, key: TicketKey, owed_bytes: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let ticket = state.tickets.get(key);
        ticket.unread = true;
        let id = ticket.id;
        let unread_bytes = ticket.items.clear();
        state.tickets.put_aside(key, Awaited::Arrival);
        state.machine.consumed(id, owed_bytes + unread_bytes);
        state.tickets.close(key, Vec::new());
        if state.end.is_none() && (state.has_returns() || state.machine.has_control()) {
            self.send_returns(guard, None); // credit that goes with them wakes as ever
        }
    }

    /// Gives credit for an item that the application has taken.
    pub(crate) fn item_was_taken(&self, id: CallId, cost_bytes: u64) {
        let mut guard = self.lock();
        guard.machine.consumed(id, cost_bytes);
        if guard.machine.has_control() {
            let result = guard.pump();
            self.sent(guard, result);
        }
    }
}

/// What an item costs its sender in credit: all bytes of its frames.
fn cost_bytes(payload_bytes: usize, chunk_bytes: usize) -> u64 {
    const HEADER: u64 = HEADER_BYTES as u64;
    const TOTAL: usize = 8;
    if payload_bytes <= chunk_bytes {
        return HEADER + payload_bytes as u64;
    }
    let later = payload_bytes - (chunk_bytes - TOTAL);
    let frames = 1 + later.div_ceil(chunk_bytes);
    frames as u64 * HEADER + (payload_bytes + TOTAL) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_counts_header_and_total_of_every_frame() {
        assert_eq!(cost_bytes(0, 100), 24);
        assert_eq!(cost_bytes(100, 100), 124);
        assert_eq!(cost_bytes(101, 100), 2 * 24 + 101 + 8);
        assert_eq!(cost_bytes(192, 100), 2 * 24 + 192 + 8);
        assert_eq!(cost_bytes(193, 100), 3 * 24 + 193 + 8);
    }
}
