//! What the state lock protects: the protocol machine, our ring, what waits to be written, our sleep word, and the tickets.

use std::{sync::Arc, task::Waker};

use doorbell_proto::{
    CallId,
    connection::{Connection as Machine, ControlFrame, GoAwayReason},
};
use doorbell_shm::{Announcer, Notifier, Producer, SleepOn, Spin, sys};

use super::{
    Effects,
    cancels::Cancels,
    company::Company,
    loans::Pool,
    outgoing::Outgoing,
    overlap::Overlap,
    past_caches::PastCaches,
    ticket::{Ticket, TicketKey, Tickets},
    waiters::Waiters,
};
use crate::{
    error::{Disconnected, Violation},
    link::Terms,
    stats::Counters,
};

pub(crate) struct State {
    pub(super) machine: Machine,
    pub(super) producer: Producer,
    announcer: Announcer,
    /// What the announcement says, and whether the peer may have used it up by ringing.
    announced_on: SleepOn,
    bell_used: bool,
    pub(super) notifier: Notifier,
    /// The peer may sleep over what has been published: it was nothing to wake anybody for.
    is_untold: bool,
    pub(super) spin: Spin,
    pub(super) pool: Pool,
    pub(super) outgoing: Outgoing,
    pub(super) stalled: Option<ControlFrame>,
    pub(super) overlap: Overlap,
    /// How large messages go if it does.
    pub(super) past_caches: PastCaches,
    /// Chunks that will be sent in the belief that small messages use the connection too.
    pub(super) not_alone: u32,
    /// The same, for what small messages suffer from even if they are rare.
    pub(super) mixed: u32,
    pub(super) company: Company,
    pub(super) tickets: Tickets,
    pub(super) space_wakers: Waiters,
    pub(super) pongs: Pongs,
    pub(super) quiet_wakers: Waiters,
    pub(super) parting: Parting,
    /// A task has been woken to drive, and will, unless it is dropped first. Whoever watches the doorbell lets it go ahead, once.
    pub(super) is_driver_coming: bool,
    /// Chunks of a large message have come since a task began to sleep.
    pub(super) has_progressed: bool,
    /// The peer is gone; what it has left is still to be read.
    pub(super) gone: bool,
    pub(super) end: Option<Disconnected>,
    pub(super) going_away: Option<String>,
    pub(super) counters: Counters,
    pub(super) terms: Terms,
    pub(super) cancels: Arc<Cancels>,
    /// Something has used more memory than a light user does, since it was last given back.
    pub(super) is_untidy: bool,
    /// Where the frame ends by which the client has been told to give back what that was.
    pub(super) told_at: Option<u32>,
    /// How often the worker has come for it since.
    pub(super) visits: u8,
    /// The worker is awake, or comes again by itself. On a client, where nobody does, always.
    pub(super) is_visited: bool,
    /// The server has said so, and it is not done.
    pub(super) is_told_quiet: bool,
    pub(super) body: Vec<u8>,
}

/// Answers to our pings.
#[derive(Default)]
pub(super) struct Pongs {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) wakers: Waiters,
}

/// How far a server has come with taking leave of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    NotYet,
    /// The client has been told, and asked for a pong behind everything that it had sent before it read that.
    Told,
    /// That has come.
    Answered,
    /// It is waited for no more.
    Unanswered,
}

impl State {
    pub(super) fn new(
        machine: Machine,
        producer: Producer,
        (announcer, notifier): (Announcer, Notifier),
        spin: Spin,
        pool: Pool,
        terms: Terms,
        cancels: Arc<Cancels>,
    ) -> Self {
        Self {
            machine,
            producer,
            announcer,
            announced_on: SleepOn::Doorbell,
            bell_used: false,
            notifier,
            is_untold: false,
            spin,
            pool,
            outgoing: Outgoing::default(),
            stalled: None,
            overlap: Overlap::new(sys::cpu_count()),
            past_caches: PastCaches::new(),
            not_alone: 0,
            mixed: 0,
            company: Company::default(),
            tickets: Tickets::default(),
            space_wakers: Waiters::default(),
            pongs: Pongs::default(),
            quiet_wakers: Waiters::default(),
            parting: Parting::NotYet,
            is_driver_coming: false,
            has_progressed: false,
            gone: false,
            end: None,
            going_away: None,
            counters: Counters::default(),
            terms,
            cancels,
            is_untidy: false,
            told_at: None,
            visits: 0,
            is_visited: true,
            is_told_quiet: false,
            body: Vec::new(),
        }
    }

    /// Tells a peer that broke the protocol in which way, if there is room for it. Nothing is waited for: the end of the socket wakes it.
    pub(super) fn say_what_was_wrong(&mut self, violation: &Violation) {
        let text = violation.to_string();
        self.machine.go_away(GoAwayReason::ProtocolError, &text);
        // What it has done to its own positions may keep us from writing. It is being thrown out all the same.
        let _ = self.pump_control();
        self.producer.publish();
    }

    /// Returns `true` if a large message is under way in either direction.
    pub(super) fn has_large(&self) -> bool {
        self.outgoing.has_large() || self.machine.is_assembling()
    }

    /// Returns `true` if something waits to be written.
    #[inline]
    pub(super) fn has_backlog(&self) -> bool {
        self.has_queue() || self.machine.has_control()
    }

    /// Returns `true` if a notification need not wait for others. Large messages that are none do not count: small ones go before their chunks,
    /// and one may follow the other without end.
    pub(super) fn is_writable(&self) -> bool {
        self.stalled.is_none() && !self.machine.has_control() && self.outgoing.may_notify()
    }

    /// Returns `true` if frames have found no room.
    #[inline]
    pub(super) fn has_queue(&self) -> bool {
        self.stalled.is_some() || !self.outgoing.is_empty()
    }

    /// Returns `true` if somebody must be woken when the peer does something.
    pub(super) fn needs_driver(&self) -> bool {
        self.tickets.waiting() > 0
            || self.has_backlog()
            || !self.space_wakers.is_empty()
            || !self.pool.wakers.is_empty()
            || !self.pongs.wakers.is_empty()
    }

    /// Nothing waits, and there is room for a control frame.
    pub(super) fn can_say_more(&mut self) -> bool {
        let most = self.max_body_bytes();
        !self.has_backlog()
            && self
                .producer
                .unread_bytes()
                .is_ok_and(|unread| unread <= most)
    }

    /// Gives back what more than light use has left, if nothing of it is needed now. Returns `false` if something is, or if the peer has not
    /// read everything.
    ///
    /// The ring stays where that was not agreed on: even the attempt takes a lock of the kernel that the peer can hold.
    pub(super) fn give_back(&mut self) -> bool {
        if self.has_large() {
            return false;
        }
        if !self.terms.gives_back {
            self.producer.begin_reach();
        } else if !matches!(self.producer.give_back(), Ok(true)) {
            return false; // a peer that broke the rules is found when the ring is used
        }
        self.is_untidy = false;
        self.told_at = None;
        self.body = Vec::new();
        self.outgoing.give_back();
        self.tickets.give_back();
        self.machine.give_back_memory();
        true
    }

    /// Tells the peer that we are about to sleep, and whether it is room that we wait for as well. Look once more afterwards.
    /// Returns the number of the sleep.
    pub(super) fn announce(&mut self, on: SleepOn) -> u32 {
        self.announced_on = on;
        self.bell_used = false;
        let waits_for_room = self.has_backlog() || self.pool.is_wanted();
        self.announcer.announce(on, waits_for_room)
    }

    /// Tells the peer that we are awake.
    pub(super) fn withdraw(&mut self) {
        self.announcer.withdraw();
    }

    /// The bell has rung while somebody else drives: the announcement behind it wakes nobody any more. A sleep on the futex is
    /// none of the bell's business: the ring was meant for an earlier sleep and comes late.
    pub(super) fn bell_was_used(&mut self) {
        self.bell_used = self.announced_on == SleepOn::Doorbell;
    }

    /// Somebody must be woken later and the peer does not know it, or is gone.
    pub(super) fn is_adrift(&self) -> bool {
        self.end.is_none() && (self.gone || self.needs_driver() && !self.is_announced())
    }

    /// The peer is gone and whoever has the receive half must end the connection.
    pub(super) fn must_end(&self) -> bool {
        self.gone && self.end.is_none()
    }

    pub(super) fn is_announced(&self) -> bool {
        self.announcer.is_announced() && !self.bell_used
    }

    /// Returns what a sleeper sleeps on that does not watch for room.
    pub(super) fn sleeps_without_space(&self) -> Option<SleepOn> {
        (self.is_announced() && !self.announcer.wants_space()).then_some(self.announced_on)
    }

    /// Returns `true` if a thread drives, and sleeps.
    #[inline]
    pub(super) fn is_driver_asleep(&self) -> bool {
        self.announced_on == SleepOn::Futex && self.announcer.is_announced()
    }

    /// Returns `true` if a thread drives, and sleeps, and waits for room.
    #[inline]
    pub(super) fn sleeps_for_space(&self) -> bool {
        self.announcer.wants_space() && self.is_driver_asleep()
    }

    /// Makes what was written visible. Returns how the peer must be woken, if it sleeps.
    pub(super) fn publish(&mut self) -> Option<SleepOn> {
        let published = self.producer.publish();
        self.tell(published, false)
    }

    /// As [`publish`](Self::publish), of what is nothing to wake the peer for, unless it waits for room.
    pub(super) fn publish_quietly(&mut self) -> Option<SleepOn> {
        let published = self.producer.publish();
        self.is_untold |= published;
        self.tell(false, published)
    }

    /// Returns how the peer must be woken for what has been published or released, if it sleeps.
    ///
    /// Whoever waits for room waits for it to read everything, also what it was not to be woken for.
    pub(super) fn tell(&mut self, mut published: bool, released: bool) -> Option<SleepOn> {
        if self.is_untold {
            published |= self.has_backlog();
            self.is_untold = !published;
        }
        let due = self.notifier.after_publish_and_release(published, released);
        self.counters.notifies += u64::from(due.is_some());
        due
    }

    /// Calls `end` on every open ticket and returns everybody who waits for anything.
    pub(super) fn take_wakers(&mut self, end: impl FnMut(&mut Ticket)) -> Vec<Waker> {
        let mut wakers = self.tickets.end_all(end);
        wakers.extend(self.space_wakers.take());
        wakers.extend(self.pongs.wakers.take());
        wakers.extend(self.quiet_wakers.take());
        wakers.extend(self.pool.wakers.take());
        wakers
    }

    /// Returns the ticket of a caller.
    pub(crate) fn ticket(&mut self, key: TicketKey) -> &mut Ticket {
        self.tickets.get(key)
    }

    /// Closes a handle of a ticket; its owner has what they wanted.
    pub(crate) fn close_ticket(&mut self, key: TicketKey, spare: Vec<u8>) {
        self.tickets.close(key, spare);
    }

    /// Ready when an item may be sent, or never will be.
    pub(crate) fn may_send(&mut self, key: TicketKey) -> Option<()> {
        let ticket = self.tickets.get(key);
        let (id, over) = (ticket.id, ticket.over);
        (over || self.end.is_some() || self.machine.may_begin_item(id)).then_some(())
    }

    /// Takes back what waits to be sent of a call, with the blocks that it would have lent. Returns `true` if nothing of its request has been
    /// sent.
    pub(super) fn forget_queued(&mut self, id: CallId, effects: &mut Effects) -> bool {
        let was_unsent = self.outgoing.remove(id);
        for block in self.outgoing.take_dropped_loans() {
            if self.machine.take_back(block) {
                self.block_came_back(block, effects);
            }
        }
        was_unsent
    }

    /// Takes back everything of a call that its owner gives up. Returns `true` if the peer has to be told. Otherwise it has never heard of
    /// the call, and the next one will have the same id.
    pub(super) fn cancel(&mut self, id: CallId, effects: &mut Effects) -> bool {
        if self.forget_queued(id, effects) {
            self.machine.abort_start(id);
            return false;
        }
        self.machine.cancel(id)
    }
}
