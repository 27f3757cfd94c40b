//! What this process knows of a call beside the protocol: who waits for it, and what has arrived for them.
//!
//! A ticket belongs to whoever started the call (client) or runs its handler (server), until the last handle to it is closed.
//! The protocol's slot may be used again before that. On the server a call that is answered at once has no ticket.

use std::task::Waker;

use doorbell_proto::CallId;

use super::{
    Held, Inbox,
    guard::Registrant,
    waiters::{Registration, Waiters},
};
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
    /// Nobody will send items any more, although the ticket has other owners.
    pub(super) unsent: bool,
    /// Its owner has spun for the reply already, in vain.
    pub(super) spun: bool,
    waker: Option<Waker>,
    sender_waker: Option<Waker>,
    cancel_wakers: Waiters,
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

/// Where a waker was taken from.
pub(crate) struct Borrowed {
    key: TicketKey,
    id: CallId,
    awaited: Awaited,
}

/// All tickets of a connection.
#[derive(Default)]
pub(crate) struct Tickets {
    entries: Vec<Ticket>,
    free: Vec<u32>,
    by_slot: Vec<Option<TicketKey>>,
    waiting: usize,
    /// Wakers of those who wait no more, to be dropped without the lock.
    pub(super) aside: Vec<Waker>,
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
            unsent: false,
            spun: false,
            waker: None,
            sender_waker: None,
            cancel_wakers: Waiters::default(),
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
        self.unsent = false;
        self.spun = false;
        self.handles = 1;
    }

    /// Closes the ticket. Nobody waits for anything of it any more; what it holds goes, but not the memory. Wakers are put `aside`.
    fn close(&mut self, aside: &mut Vec<Waker>) {
        self.open = false;
        if self.outcome.is_some() {
            self.outcome = None;
        }
        if self.items.has_memory() {
            self.items = Inbox::default();
        }
        if !self.cancel_wakers.is_empty() {
            aside.extend(self.take_end_wakers());
        }
    }

    /// Ends the call with a small reply, which is copied.
    pub(crate) fn copy_small_reply(&mut self, payload: &[u8]) {
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.clear();
        buffer.extend_from_slice(payload);
        self.outcome = Some(Ok(Reply::Small(buffer)));
        self.over = true;
    }

    /// Gives the call a reply with memory of its own: none if the connection ends, which says why.
    pub(super) fn set_reply(&mut self, reply: Option<Reply>) {
        self.outcome = reply.map(Ok);
        self.over = true;
    }

    /// As [`copy_small_reply`](Self::copy_small_reply), but takes the buffer and leaves another one for it, unless it has become large.
    #[inline]
    pub(crate) fn set_small_reply(&mut self, payload: &mut Vec<u8>) {
        if payload.capacity() > SPARE_BYTES {
            return self.copy_small_reply(payload);
        }
        let buffer = std::mem::replace(payload, std::mem::take(&mut self.spare));
        self.outcome = Some(Ok(Reply::Small(buffer)));
        self.over = true;
    }

    /// Returns `true` if somebody waits for anything but an arrival.
    #[inline]
    pub(super) fn has_others(&self) -> bool {
        self.sender_waker.is_some() || !self.cancel_wakers.is_empty()
    }

    /// Returns `true` if whoever could wait for it has gone.
    fn is_unwanted(&self, awaited: Awaited) -> bool {
        match awaited {
            Awaited::Arrival => self.unread,
            Awaited::Credit => self.unsent,
        }
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

    /// Nobody has the ticket any more, but somebody waits for the end of the call, with which it goes.
    #[cold]
    fn leave_to_who_waits_for_the_end(&mut self) {
        self.handles = 0;
        self.unread = true;
        self.items = Inbox::default();
    }

    /// Remembers somebody who waits for the end of the call, whoever brings it about.
    pub(super) fn register_end(&mut self, who: &mut Registrant<'_>) {
        who.join(&mut self.cancel_wakers);
    }

    pub(crate) fn take_end_wakers(&mut self) -> impl Iterator<Item = Waker> + use<> {
        self.cancel_wakers.take()
    }

    /// Takes somebody back who waits for the end of the call.
    pub(super) fn forget_end(&mut self, who: &Registration) -> Option<Waker> {
        self.cancel_wakers.remove(who)
    }
}

impl Tickets {
    #[inline]
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
        if ticket.waker.is_some() || ticket.sender_waker.is_some() {
            self.put_all_aside(key);
        }
        let ticket = &mut self.entries[key.0 as usize];
        if !ticket.over && !ticket.cancel_wakers.is_empty() {
            return ticket.leave_to_who_waits_for_the_end();
        }
        ticket.close(&mut self.aside);
        if spare.capacity() > 0 && spare.capacity() <= SPARE_BYTES {
            ticket.spare = spare;
        }
        let slot = &mut self.by_slot[ticket.id.slot() as usize];
        if *slot == Some(key) {
            *slot = None;
        }
        self.free.push(key.0);
    }

    #[cold]
    fn put_all_aside(&mut self, key: TicketKey) {
        self.put_aside(key, Awaited::Arrival);
        self.put_aside(key, Awaited::Credit);
    }

    /// Closes a ticket that was [given up](Ticket::disown) to its call, which has ended.
    pub(crate) fn close_unowned(&mut self, key: TicketKey) {
        if self.get(key).handles == 0 {
            self.close(key, Vec::new());
        }
    }

    /// Gives the memory of all tickets back if none is open.
    pub(super) fn give_back(&mut self) {
        if !self.is_any_open() {
            let aside = std::mem::take(&mut self.aside);
            *self = Self {
                aside,
                ..Self::default()
            };
        }
    }

    /// Returns `true` if a ticket is open.
    pub(super) fn is_any_open(&self) -> bool {
        self.free.len() < self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn open_tickets(&self) -> usize {
        self.entries.iter().filter(|ticket| ticket.open).count()
    }

    /// Remembers who waits.
    pub(super) fn register(&mut self, key: TicketKey, awaited: Awaited, who: &mut Registrant<'_>) {
        let place = self.get(key).slot_of(awaited);
        if place.as_ref().is_some_and(|known| who.is(known)) {
            return;
        }
        let Some(waker) = who.take() else {
            return;
        };
        match place.replace(waker) {
            Some(before) => self.aside.push(before),
            None => self.waiting += 1,
        }
    }

    /// Returns `true` if somebody waits.
    #[inline]
    pub(crate) fn is_registered(&mut self, key: TicketKey, awaited: Awaited) -> bool {
        self.get(key).slot_of(awaited).is_some()
    }

    /// Forgets who waits; called when they have what they wanted or gave up.
    #[inline]
    pub(crate) fn put_aside(&mut self, key: TicketKey, awaited: Awaited) {
        if let Some(waker) = self.forget(key, awaited) {
            self.aside.push(waker);
        }
    }

    /// Takes back who waits, to be woken.
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

    /// Returns any one waker of a thread; its owner stays registered.
    pub(crate) fn any_thread(&self) -> Option<Waker> {
        self.entries
            .iter()
            .find_map(|ticket| ticket.waker.clone().or_else(|| ticket.sender_waker.clone()))
    }

    /// Takes any one waker, to be woken and [put back](Self::put_back).
    pub(crate) fn take_any_waker(&mut self) -> Option<(Borrowed, Waker)> {
        let taken = self.entries.iter_mut().enumerate().find_map(take_of)?;
        self.waiting -= 1;
        Some(taken)
    }

    /// Registers once more whose waker was taken and called, unless they have done so themselves, or wait no more.
    pub(crate) fn put_back(&mut self, place: &Borrowed, waker: Waker) {
        let ticket = &mut self.entries[place.key.0 as usize];
        let is_same = ticket.open && ticket.id == place.id;
        let waits = is_same && !ticket.over && !ticket.is_unwanted(place.awaited);
        let slot = ticket.slot_of(place.awaited);
        if waits && slot.is_none() {
            *slot = Some(waker);
            self.waiting += 1;
        } else {
            self.aside.push(waker);
        }
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
            wakers.extend(ticket.take_end_wakers());
        }
        self.waiting = 0;
        wakers
    }
}

fn take_of((index, ticket): (usize, &mut Ticket)) -> Option<(Borrowed, Waker)> {
    let (key, id) = (TicketKey(index as u32), ticket.id); // there are fewer than 2^32
    let mut take = |awaited| {
        let waker = ticket.slot_of(awaited).take()?;
        Some((Borrowed { key, id, awaited }, waker))
    };
    take(Awaited::Arrival).or_else(|| take(Awaited::Credit))
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
        tickets.get(first).copy_small_reply(b"one");
        let second = tickets.open(id(0, 2));
        tickets.close(first, Vec::new());
        assert_eq!(tickets.find(id(0, 2)), Some(second));
    }

    #[test]
    fn waiting_counts_registered_wakers() {
        let mut tickets = Tickets::default();
        let key = tickets.open(id(0, 1));
        for awaited in [Awaited::Arrival, Awaited::Arrival, Awaited::Credit] {
            let mut unused = Registration::default();
            let mut who = Registrant::with_clone(Waker::noop(), &mut unused);
            tickets.register(key, awaited, &mut who);
        }
        assert_eq!(tickets.waiting(), 2);
        tickets.close(key, Vec::new());
        assert_eq!(tickets.waiting(), 0);
    }

    #[test]
    fn memory_of_tickets_goes_back_when_none_is_open() {
        let mut tickets = Tickets::default();
        let keys = [0, 1].map(|slot| tickets.open(id(slot, 1)));
        tickets.close(keys[0], vec![0; 100]);
        tickets.give_back();
        assert_eq!(tickets.find(id(1, 1)), Some(keys[1]));
        tickets.close(keys[1], Vec::new());
        tickets.give_back();
        let capacities = [
            tickets.entries.capacity(),
            tickets.free.capacity(),
            tickets.by_slot.capacity(),
        ];
        assert_eq!(capacities, [0; 3]);
        let key = tickets.open(id(1, 2));
        assert_eq!(tickets.find(id(1, 2)), Some(key));
    }

    #[test]
    fn waker_that_was_taken_is_put_back_unless_its_place_is_used_or_gone() {
        let mut tickets = Tickets::default();
        let key = tickets.open(id(0, 1));
        let register = |tickets: &mut Tickets| {
            let mut unused = Registration::default();
            let mut who = Registrant::with_clone(Waker::noop(), &mut unused);
            tickets.register(key, Awaited::Credit, &mut who);
        };
        register(&mut tickets);
        let (place, waker) = tickets.take_any_waker().unwrap();
        assert_eq!(tickets.waiting(), 0);
        tickets.put_back(&place, waker);
        assert_eq!((tickets.waiting(), tickets.aside.len()), (1, 0));
        let (place, waker) = tickets.take_any_waker().unwrap();
        register(&mut tickets);
        tickets.put_back(&place, waker);
        assert_eq!((tickets.waiting(), tickets.aside.len()), (1, 1));
        let (place, waker) = tickets.take_any_waker().unwrap();
        tickets.get(key).unsent = true;
        tickets.put_back(&place, waker);
        assert_eq!((tickets.waiting(), tickets.aside.len()), (0, 2));
        register(&mut tickets);
        let (place, waker) = tickets.take_any_waker().unwrap();
        tickets.close(key, Vec::new());
        assert_eq!(tickets.open(id(0, 2)), key);
        tickets.put_back(&place, waker);
        assert_eq!((tickets.waiting(), tickets.aside.len()), (0, 3));
    }
}
