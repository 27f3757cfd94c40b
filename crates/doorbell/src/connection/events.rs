//! What an event of the protocol machine does to who waits for it.

use doorbell_proto::{
    CallId, Code, Status,
    connection::{Event, Payload},
};

use super::{Awaited, Dispatch, Effects, Held, Inbox, Reply, Ticket, TicketKey, state::State};
use crate::error::CallError;

impl State {
    /// Completes what an event belongs to, or returns what must be handed to a handler.
    pub(super) fn take_event<'a>(
        &mut self,
        event: Event<'a>,
        effects: &mut Effects,
    ) -> Option<Dispatch<'a>> {
        match event {
            Event::Request {
                id,
                kind,
                message_type,
                deadline,
                metadata,
                payload,
            } => {
                let loan = self.held(&payload);
                return Some(Dispatch::Request {
                    id,
                    kind,
                    message_type,
                    deadline,
                    metadata,
                    payload,
                    loan,
                });
            }
            Event::Notify {
                message_type,
                metadata,
                payload,
            } => {
                return Some(Dispatch::Notify {
                    message_type,
                    metadata,
                    payload,
                });
            }
            Event::Notifies {
                message_type,
                payloads,
            } => {
                return Some(Dispatch::Notifies {
                    message_type,
                    payloads,
                });
            }
            Event::Response { id, payload, .. } => self.take_reply(id, payload, effects),
            Event::Failed { id, status } => {
                self.forget_queued(id, effects);
                self.end_call(id, Some(failure(status)), effects);
            }
            Event::Item {
                id,
                payload,
                cost_bytes,
            } => {
                let loan = self.held(&payload);
                self.take_items(id, cost_bytes, effects, |inbox| match loan {
                    Some(loan) => inbox.push_loan(loan, cost_bytes),
                    None => inbox.push(payload, cost_bytes),
                });
            }
            Event::Items {
                id,
                payloads,
                cost_bytes,
            } => self.take_items(id, cost_bytes, effects, |inbox| {
                inbox.push_packed(payloads, cost_bytes);
            }),
            Event::ItemsEnded { id } => self.take_items_end(id, effects),
            Event::CreditAvailable { id } => {
                let waker = self.tickets.take_waker(id, Awaited::Credit);
                effects.wake(waker);
            }
            Event::Cancelled { id } => self.take_cancel(id, effects),
            Event::Pong { id } => {
                self.pongs.received = self.pongs.received.max(id.min(self.pongs.sent));
                effects.more.extend(self.pongs.wakers.take());
                self.take_parting_answer();
            }
            Event::GoAway { text, .. } => self.going_away = Some(text),
            Event::None => {}
            Event::Quiet => self.is_told_quiet = true,
            event => self.take_loan_event(&event, effects),
        }
        None
    }

    /// Returns what holds the block of a payload that is a loan.
    #[inline]
    fn held(&mut self, payload: &Payload<'_>) -> Option<Held> {
        match payload {
            Payload::Loaned(loan) => self.hold_if(*loan, |_| true),
            Payload::Borrowed(_) | Payload::Assembled(_) => None,
        }
    }

    fn take_reply(&mut self, id: CallId, payload: Payload<'_>, effects: &mut Effects) {
        let reply = match payload {
            Payload::Borrowed(bytes) => {
                return self.complete(id, effects, |ticket| ticket.copy_small_reply(bytes));
            }
            Payload::Loaned(_) => self.held(&payload).map(Reply::Loaned),
            Payload::Assembled(bytes) => Some(Reply::Large(bytes)),
        };
        self.complete(id, effects, |ticket| ticket.set_reply(reply));
    }

    /// Gives a call its reply by `set`, and wakes who waits for it.
    pub(super) fn complete(
        &mut self,
        id: CallId,
        effects: &mut Effects,
        set: impl FnOnce(&mut Ticket),
    ) {
        let Some(key) = self.tickets.find(id) else {
            return;
        };
        set(self.tickets.get(key));
        effects.wake(self.tickets.forget(key, Awaited::Arrival));
        self.wake_others(key, effects);
    }

    fn take_items(
        &mut self,
        id: CallId,
        cost_bytes: u64,
        effects: &mut Effects,
        push: impl FnOnce(&mut Inbox),
    ) {
        let reader = self.tickets.find(id);
        let Some(key) = reader.filter(|&key| !self.tickets.get(key).unread) else {
            // Its owner has given the stream up; the sender must not wait for credit that nobody will give.
            self.machine.consumed(id, cost_bytes);
            return;
        };
        push(&mut self.tickets.get(key).items);
        effects.wake(self.tickets.forget(key, Awaited::Arrival));
    }

    fn take_items_end(&mut self, id: CallId, effects: &mut Effects) {
        let over = !self.machine.is_active(id);
        let Some(key) = self.tickets.find(id) else {
            return;
        };
        let ticket = self.tickets.get(key);
        ticket.items_ended = true;
        ticket.over |= over;
        effects.wake(self.tickets.forget(key, Awaited::Arrival));
        if over {
            self.forget_queued(id, effects);
            self.wake_others(key, effects);
        }
    }

    fn take_cancel(&mut self, id: CallId, effects: &mut Effects) {
        self.cancels.note(id);
        (self.is_untidy, self.told_at) = (true, None); // the client has written a cancel word, which lies behind the ring
        self.forget_queued(id, effects);
        if let Some(ticket) = self.tickets.find_mut(id) {
            ticket.cancelled = true;
        }
        self.end_call(id, None, effects);
    }

    /// Marks a call as ended, wakes everybody who waits for something of it, and closes its ticket if that belongs to nobody.
    pub(super) fn end_call(&mut self, id: CallId, error: Option<CallError>, effects: &mut Effects) {
        let Some(key) = self.tickets.find(id) else {
            return;
        };
        let ticket = self.tickets.get(key);
        ticket.over = true;
        if let Some(error) = error {
            ticket.outcome = Some(Err(error));
        }
        effects.wake(self.tickets.forget(key, Awaited::Arrival));
        self.wake_others(key, effects);
        self.tickets.close_unowned(key);
    }

    #[inline]
    pub(super) fn wake_others(&mut self, key: TicketKey, effects: &mut Effects) {
        if self.tickets.get(key).has_others() {
            self.wake_all_others(key, effects);
        }
    }

    #[cold]
    fn wake_all_others(&mut self, key: TicketKey, effects: &mut Effects) {
        if let Some(waker) = self.tickets.forget(key, Awaited::Credit) {
            effects.wake(Some(waker));
        }
        effects.more.extend(self.tickets.get(key).take_end_wakers());
    }
}

/// What the caller gets for a status. Which side notices first that the deadline has passed must make no difference.
fn failure(status: Status) -> CallError {
    if status.code() == Code::DeadlineExceeded && status.was_executed() {
        return CallError::DeadlineExceeded;
    }
    CallError::Status(status)
}
