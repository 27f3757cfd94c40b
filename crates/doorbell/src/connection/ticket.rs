//! What this process knows of a call beside the protocol: who waits for it, and what has arrived for them.
//!
//! A ticket belongs to whoever started the call (client) or runs its handler (server), until the last handle to it is closed.
//! The protocol's slot may be used again before that. On the server a call that is answered at once has no ticket.

use std::task::Waker;

use doorbell_proto::CallId;

use super::{Held, Inbox};
use crate::error::CallError;

/// Names an open ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TicketKey(u32);

/// What has arrived for a call.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A small payload, in a buffer that will be used again.
    Small(Vec<u8>),
    /// A payload with a buffer of its own.
    Large(Vec<u8>),
    /// A payload that lies where the server wrote it.
    Loaned(Held),
}

/// One call, as its owner sees it.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// The ticket belongs to somebody; a closed one waits, empty, for its next call.
    open: bool,
    pub(crate) id: CallId,
    /// Reply or error that ended the call.
    pub(crate) outcome: Option<Result<Reply, CallError>>,
    /// The call has ended; nothing more will arrive and nothing more may be sent.
    pub(crate) over: bool,
    /// The client cancelled, or went away.
    pub(crate) cancelled: bool,
    pub(crate) items: Inbox,
    pub(crate) items_ended: bool,
    /// Nobody will take the items, although the ticket has other owners.
    pub(super) unread: bool,
    /// Its owner has spun for the reply already, in vain.
    pub(super) spun: bool,
    waker: Option<Waker>,
    sender_waker: Option<Waker>,
    cancel_wakers: Vec<Waker>,
    handles: u32,
    spare: Vec<u8>,
}

/// What about a call somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// A reply, an item, or the end.
    Arrival,
    /// Credit for the next item.
    Credit,
}

/// All tickets of a connection.
#[derive(Default)]
pub(crate) struct Tickets {
    entries: Vec<Ticket>,
    free: Vec<u32>,
    by_slot: Vec<Option<TicketKey>>,
    waiting: usize,
}

impl Ticket {
    fn closed() -> Self {
        Self {
            open: false,
            id: CallId::from_raw(0),
            outcome: None,
            over: false,
            cancelled: false,
            items: Inbox::default(),
            items_ended: false,
            unread: false,
            spun: false,
            waker: None,
            sender_waker: None,
            cancel_wakers: Vec::new(),
            handles: 0,
            spare: Vec::new(),
        }
    }

    /// Opens a ticket that is empty.
    fn open(&mut self, id: CallId) {
        self.open = true;
        self.id = id;
        self.over = false;
        self.cancelled = false;
        self.items_ended = false;
        self.unread = false;
        self.spun = false;
        self.handles = 1;
    }

    /// Closes the ticket. Nobody waits for anything of it any more; what it holds goes, but not the memory.
    fn close(&mut self) {
        self.open = false;
        if self.outcome.is_some() {
            self.outcome = None;
        }
        if self.items.has_memory() {
            self.items = Inbox::default();
        }
        if self.cancel_wakers.capacity() > 0 {
            self.cancel_wakers = Vec::new();
        }
    }

    /// Ends the call with a small reply, which is copied.
    pub(crate) fn set_small_reply(&mut self, payload: &[u8]) {
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.clear();
        buffer.extend_from_slice(payload);
        self.outcome = Some(Ok(Reply::Small(buffer)));
        self.over = true;
    }

    fn slot_of(&mut self, awaited: Awaited) -> &mut Option<Waker> {
        match awaited {
            Awaited::Arrival => &mut self.waker,
            Awaited::Credit => &mut self.sender_waker,
        }
    }

    /// Gives the ticket up to the call: it is closed when that ends.
    pub(crate) fn disown(&mut self) {
        self.handles = 0;
    }

    /// Remembers somebody who waits for the end of the call, whoever brings it about.
    pub(crate) fn register_end(&mut self, waker: &Waker) {
        if !self
            .cancel_wakers
            .iter()
            .any(|known| known.will_wake(waker))
        {
            self.cancel_wakers.push(waker.clone());
        }
    }

    pub(crate) fn take_end_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.cancel_wakers)
    }
}

impl Tickets {
    pub(crate) fn open(&mut self, id: CallId) -> TicketKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Ticket::closed());
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 calls")
        });
        self.entries[index as usize].open(id);
        let key = TicketKey(index);
        let slot = id.slot() as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        self.by_slot[slot] = Some(key);
        key
    }

    /// Returns the open ticket.
    ///
    /// # Panics
    ///
    /// Panics if the ticket has been closed, which only the holder of its last handle does.
    pub(crate) fn get(&mut self, key: TicketKey) -> &mut Ticket {
        let ticket = &mut self.entries[key.0 as usize];
        assert!(ticket.open, "the owner has not closed the ticket");
        ticket
    }

    pub(crate) fn find(&mut self, id: CallId) -> Option<TicketKey> {
        let key = (*self.by_slot.get(id.slot() as usize)?)?;
        let ticket = self.entries.get(key.0 as usize)?;
        (ticket.open && ticket.id == id).then_some(key)
    }

    pub(crate) fn find_mut(&mut self, id: CallId) -> Option<&mut Ticket> {
        let key = self.find(id)?;
        Some(self.get(key))
    }

    /// Adds a handle to a ticket: it stays until that one is closed too.
    pub(crate) fn share(&mut self, key: TicketKey) {
        self.get(key).handles += 1;
    }

    /// Closes one handle of a ticket, and the ticket with its last one. Keeps `spare` for the small reply of a later call.
    pub(crate) fn close(&mut self, key: TicketKey, spare: Vec<u8>) {
        let ticket = self.get(key);
        ticket.handles = ticket.handles.saturating_sub(1);
        if ticket.handles > 0 {
            return;
        }
        self.forget(key, Awaited::Arrival);
        self.forget(key, Awaited::Credit);
        let ticket = &mut self.entries[key.0 as usize];
        ticket.close();
        if spare.capacity() > 0 && spare.capacity() <= SPARE_BYTES {
            ticket.spare = spare;
        }
        let slot = &mut self.by_slot[ticket.id.slot() as usize];
        if *slot == Some(key) {
            *slot = None;
        }
        self.free.push(key.0);
    }

    /// Closes a ticket that was [given up](Ticket::disown) to its call, which has ended.
    pub(crate) fn close_unowned(&mut self, key: TicketKey) {
        if self.get(key).handles == 0 {
            self.close(key, Vec::new());
        }
    }

    #[cfg(test)]
    pub(crate) fn open_tickets(&self) -> usize {
        self.entries.iter().filter(|ticket| ticket.open).count()
    }

    /// Remembers who waits.
    pub(crate) fn register(&mut self, key: TicketKey, awaited: Awaited, waker: &Waker) {
        let place = self.get(key).slot_of(awaited);
        match place {
            Some(before) => before.clone_from(waker),
            None => {
                *place = Some(waker.clone());
                self.waiting += 1;
            }
        }
    }

    /// Takes back who waits; called when they have what they wanted or gave up.
    pub(crate) fn forget(&mut self, key: TicketKey, awaited: Awaited) -> Option<Waker> {
        let waker = self.entries[key.0 as usize].slot_of(awaited).take();
        self.waiting -= usize::from(waker.is_some());
        waker
    }

    pub(crate) fn take_waker(&mut self, id: CallId, awaited: Awaited) -> Option<Waker> {
        let key = self.find(id)?;
        self.forget(key, awaited)
    }

    /// Number of wakers that are registered.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns any one waker; its owner stays registered.
    pub(crate) fn any_waker(&self) -> Option<Waker> {
        self.entries
            .iter()
            .find_map(|ticket| ticket.waker.clone().or_else(|| ticket.sender_waker.clone()))
    }

    /// Calls `end` on every open ticket and returns all wakers.
    pub(crate) fn end_all(&mut self, mut end: impl FnMut(&mut Ticket)) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for ticket in self.entries.iter_mut().filter(|ticket| ticket.open) {
            end(ticket);
            wakers.extend(
                [ticket.waker.take(), ticket.sender_waker.take()]
                    .into_iter()
                    .flatten(),
            );
            wakers.append(&mut ticket.cancel_wakers);
        }
        self.waiting = 0;
        wakers
    }
}

/// Largest buffer that a closed ticket keeps for a small reply.
const SPARE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32, generation: u32) -> CallId {
        CallId::from_raw(u64::from(generation) << 32 | u64::from(slot))
    }

    #[test]
    fn ticket_of_an_earlier_generation_is_not_found() {
        let mut tickets = Tickets::default();
        let key = tickets.open(id(0, 2));
        assert_eq!(tickets.find(id(0, 2)), Some(key));
        assert_eq!(tickets.find(id(0, 1)), None);
    }

    #[test]
    fn slot_used_again_before_the_ticket_is_closed_keeps_both() {
        let mut tickets = Tickets::default();
        let first = tickets.open(id(0, 1));
        tickets.get(first).set_small_reply(b"one");
        let second = tickets.open(id(0, 2));
        tickets.close(first, Vec::new());
        assert_eq!(tickets.find(id(0, 2)), Some(second));
    }

    #[test]
    fn waiting_counts_registered_wakers() {
        let mut tickets = Tickets::default();
        let key = tickets.open(id(0, 1));
        tickets.register(key, Awaited::Arrival, Waker::noop());
        tickets.register(key, Awaited::Arrival, Waker::noop());
        tickets.register(key, Awaited::Credit, Waker::noop());
        assert_eq!(tickets.waiting(), 2);
        tickets.close(key, Vec::new());
        assert_eq!(tickets.waiting(), 0);
    }
}
