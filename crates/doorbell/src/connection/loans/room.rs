//! Room for a loan: taking a block, and waiting for one.

#[cfg(feature = "tokio")]
use std::future::poll_fn;
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use doorbell_proto::{
    CallId,
    connection::Role,
    limits::{MAX_SEGMENT_PAGES, MAX_SEGMENTS, SEGMENT_PAGE_BYTES},
};
use doorbell_shm::{
    SleepOn,
    memory::{Buffer, DroppedBlock, SharedBytes},
};

use super::{Paid, segments::pages};
use crate::{
    connection::{
        Connection, Sleeper,
        drive::TimedOut,
        guard::Registrant,
        state::State,
        thread::{is_worker, park_until, thread_waker},
        waiters::{Registration, Waiting},
    },
    error::CallError,
    loan::{Loan, LoanError},
    panics::wake,
};

impl State {
    /// Takes a block, if there is room now.
    fn allocate(&mut self, length: usize) -> Result<Option<SharedBytes>, LoanError> {
        if let Some(end) = &self.end {
            return Err(LoanError::NotConnected(CallError::Disconnected(
                end.clone(),
            )));
        }
        let (bytes, limit) = (length as u64, self.terms.sent_message_bytes);
        let largest = u64::from(MAX_SEGMENT_PAGES) * u64::from(SEGMENT_PAGE_BYTES);
        if bytes > limit {
            return Err(LoanError::TooLarge { bytes, limit });
        }
        if !self.terms.loans || bytes > largest {
            return Ok(Some(SharedBytes::Buffer(Buffer::new(length))));
        }
        Ok(self.pool.allocate(length).map(SharedBytes::Own))
    }

    /// Takes a block, or pays for a segment of which one can be taken, if there is room for either now.
    fn allocate_or_pay(&mut self, length: usize) -> Result<Option<Room>, LoanError> {
        if let Some(bytes) = self.allocate(length)? {
            return Ok(Some(Room::Block(bytes)));
        }
        Ok(self.pay(pages(length)).map(Room::Paid))
    }

    /// Pays for a segment with a block of `pages`, if need be with what our segments take that nobody uses. One that has not been used yet has been made for
    /// somebody who is about to take a block of it. A client never pays.
    pub(super) fn pay(&mut self, pages: u32) -> Option<Paid> {
        let before = self.pool.own.len();
        if before < MAX_SEGMENTS
            && let Some(paid) = self.pool.charge.try_take(pages)
        {
            return Some(paid);
        }
        if self.pool.charge.is_ours() {
            self.retire(|_, segment| segment.was_used());
        }
        if self.pool.own.len() < before {
            return self.pool.charge.take(pages);
        }
        self.pool.charge.was_refused();
        None
    }

    /// As [`allocate_or_pay`](Self::allocate_or_pay), which it does in one step with the registration of who waits. There is hope while a
    /// block is lent, or if the client may give up what it does not use; whether it does is kept in `hopes` from one look to the next. Server only.
    fn look_or_pay(
        &mut self,
        length: usize,
        who: &mut Registrant<'_>,
        pays: bool,
        hopes: &mut bool,
    ) -> Poll<Result<Room, LoanError>> {
        let found = if pays {
            self.allocate_or_pay(length)
        } else {
            self.allocate(length).map(|bytes| bytes.map(Room::Block))
        };
        match found {
            Ok(Some(room)) => Poll::Ready(Ok(room)),
            Err(error) => Poll::Ready(Err(error)),
            Ok(None) => {
                *hopes = pays && self.may_hope_for(pages(length), *hopes);
                if !*hopes && !self.pool.is_used() {
                    return Poll::Ready(Err(no_room(length)));
                }
                self.hope_for(pages(length));
                self.wait_for_room(Some(who));
                Poll::Pending
            }
        }
    }

    /// Ready with a block, or when there will be none. Asks the server for room otherwise, and registers. Client only.
    fn look_for_room(
        &mut self,
        length: usize,
        who: Option<&mut Registrant<'_>>,
    ) -> Poll<Result<SharedBytes, LoanError>> {
        match self.allocate(length) {
            Ok(None) => {}
            Ok(Some(bytes)) => return Poll::Ready(Ok(bytes)),
            Err(error) => return Poll::Ready(Err(error)),
        }
        if !self.pool.is_refused {
            self.want_room(length);
        } else if !self.pool.is_used() {
            self.pool.is_refused = false; // the next may ask again
            return Poll::Ready(Err(no_room(length)));
        }
        self.wait_for_room(who);
        Poll::Pending
    }

    /// Asks the server for a segment, if none is on its way. A second one would be refused where there is room for one.
    fn want_room(&mut self, length: usize) {
        if !self.pool.is_coming && self.machine.want_segment(pages(length)) {
            self.pool.has_retired = false;
        }
    }

    fn wait_for_room(&mut self, who: Option<&mut Registrant<'_>>) {
        self.pool.is_wanted = true;
        if let Some(who) = who {
            who.join(&mut self.pool.wakers);
        }
    }
}

/// What a server has found for a loan.
enum Room {
    Block(SharedBytes),
    /// Nothing yet, but a segment can be made.
    Paid(Paid),
}

fn no_room(length: usize) -> LoanError {
    LoanError::NoRoom {
        bytes: length as u64,
    }
}

impl Connection {
    /// Takes a block if there is room now, or if a server can make some. A client reads first what says so: nobody else may.
    pub(crate) fn try_loan(self: &Arc<Self>, length: usize) -> Result<Loan, LoanError> {
        self.read_what_is_there();
        let mut room = self.lock().allocate_or_pay(length)?;
        loop {
            match room {
                Some(Room::Block(bytes)) => return Ok(Loan::new(bytes)),
                Some(Room::Paid(paid)) => {
                    if !self.make_paid(Role::Server, paid) {
                        break;
                    }
                    room = self.lock().allocate_or_pay(length)?;
                }
                None => break,
            }
        }
        if self.sleeper == Sleeper::Worker {
            self.lock().ask_for_more_room(pages(length));
        } else {
            self.lock().want_room(length); // so that there is some soon
        }
        self.send_control(); // of segments that were given up as well, and were not enough
        Err(no_room(length))
    }

    /// Takes a block if there is room that we know of. Not while there is something to read on a client, of which nobody else may think: the
    /// answers to notifications that were lent, for instance, without which there could be no more of those.
    fn take_known_room(self: &Arc<Self>, length: usize) -> Option<Result<Loan, LoanError>> {
        if self.sleeper != Sleeper::Worker && !self.looks_quiet() {
            return None;
        }
        let found = self.lock().allocate(length).transpose()?;
        Some(found.map(Loan::new))
    }

    /// Waits as a task for a block.
    #[cfg(feature = "tokio")]
    pub(crate) async fn loan(self: &Arc<Self>, length: usize) -> Result<Loan, LoanError> {
        let mut waiting = Waiting::new(self, None);
        let mut hopes = false;
        poll_fn(|cx| self.poll_loan(cx, length, &mut waiting.registration, &mut hopes)).await
    }

    #[cfg(feature = "tokio")]
    fn poll_loan(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        length: usize,
        who: &mut Registration,
        hopes: &mut bool,
    ) -> Poll<Result<Loan, LoanError>> {
        if let Some(found) = self.take_known_room(length) {
            return Poll::Ready(found);
        }
        let polled = if self.sleeper == Sleeper::Worker {
            self.try_and_look(length, cx.waker(), who, hopes)
        } else {
            let looked = self.poll_state(cx, who, |state, who| state.look_for_room(length, who));
            looked.map_ok(Loan::new)
        };
        if polled.is_pending() {
            self.watch_for_room();
        }
        polled
    }

    /// Takes a block on a server, or registers who waits for one.
    ///
    /// Room comes and goes: a block that comes back, a segment that is retired and leaves room for another one, somebody else who takes the
    /// block of the segment that was made here. So what decides is one look at all of it. See `docs/orderings.md`.
    fn try_and_look(
        self: &Arc<Self>,
        length: usize,
        waker: &Waker,
        who: &mut Registration,
        hopes: &mut bool,
    ) -> Poll<Result<Loan, LoanError>> {
        let mut pays = true;
        loop {
            let looked = self.look_with_clone(who, waker, |state, who| {
                state.look_or_pay(length, who, pays, hopes)
            });
            match looked {
                Poll::Ready(Ok(Room::Paid(paid))) => pays = self.make_paid(Role::Server, paid),
                Poll::Ready(Ok(Room::Block(bytes))) => {
                    return Poll::Ready(Ok(Loan::new(bytes)));
                }
                Poll::Ready(Err(error)) => {
                    self.send_control();
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.send_control(); // segments may have been given up, and not have been enough
                    return Poll::Pending;
                }
            }
        }
    }

    /// Waits as a thread of a client for a block.
    pub(crate) fn wait_loan(
        self: &Arc<Self>,
        length: usize,
        deadline: Option<Instant>,
    ) -> Result<Result<Loan, LoanError>, TimedOut> {
        if let Some(found) = self.take_known_room(length) {
            return Ok(found);
        }
        let waited = self.wait_state(deadline, |state, who| state.look_for_room(length, who))?;
        Ok(waited.map(Loan::new))
    }

    /// Waits as the thread of a handler for a block. An I/O worker does not wait.
    pub(crate) fn wait_loan_in_handler(
        self: &Arc<Self>,
        length: usize,
        call: Option<CallId>,
        deadline: Option<Instant>,
    ) -> Result<Result<Loan, LoanError>, TimedOut> {
        if is_worker() {
            return Ok(self.try_loan(length));
        }
        let waker = thread_waker();
        let mut waiting = Waiting::new(self, call);
        let who = &mut waiting.registration;
        let mut hopes = false;
        loop {
            let looked = self.try_and_look(length, &waker, who, &mut hopes);
            if let Poll::Ready(looked) = looked {
                return Ok(looked);
            }
            let mut cx = Context::from_waker(&waker);
            if call.is_some_and(|id| self.poll_ended(&mut cx, id, who).is_ready()) {
                return Ok(Err(LoanError::Over));
            }
            self.watch_for_room();
            park_until(deadline)?;
        }
    }

    /// A block of a segment of ours was dropped unsent: others may want its room. If nobody does, the segment may have stayed for it
    /// alone.
    pub(super) fn loan_was_dropped(&self, number: u32, block: DroppedBlock) {
        let mut state = self.lock();
        state.pool.free(number, block);
        let is_awaited = state.pool.is_wanted || !state.pool.wakers.is_empty();
        if !is_awaited {
            return self.give_up_late(state);
        }
        let has_sleeper = state.sleeps_for_space();
        if has_sleeper {
            self.kick.raise(); // the driver may wait for it, too, and is not among them
        }
        let wakers: Vec<_> = state.pool.room_came().collect();
        if wakers.is_empty() && !has_sleeper {
            return self.give_up_late(state); // who waited has given up
        }
        drop(state);
        wakers.into_iter().for_each(wake);
    }

    /// If the driver sleeps and does not expect to be told of blocks that come back, makes it.
    pub(in crate::connection) fn watch_for_room(&self) {
        let mut state = self.lock();
        match state.sleeps_without_space() {
            None => {}
            Some(SleepOn::Futex) => self.kick.raise(),
            Some(SleepOn::Doorbell) => {
                state.announce(SleepOn::Doorbell);
                drop(state);
                // What came before the announcement is visible now: it has fenced.
                if !self.looks_quiet() {
                    self.call_somebody();
                }
            }
        }
    }
}
