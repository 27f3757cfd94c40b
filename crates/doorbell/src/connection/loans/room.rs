//! Room for a loan: taking a block, and waiting for one.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use doorbell_proto::{
    CallId,
    connection::Role,
    limits::{MAX_SEGMENT_PAGES, SEGMENT_PAGE_BYTES},
};
use doorbell_shm::{
    SleepOn,
    memory::{Buffer, SharedBytes},
};

use super::segments::pages;
use crate::{
    connection::{
        Connection, Sleeper,
        drive::TimedOut,
        guard::Registrant,
        state::State,
        thread::{park_until, thread_waker},
    },
    error::CallError,
    loan::{Loan, LoanError},
};

impl State {
    /// Takes a block, if there is room now.
    fn allocate(&self, length: usize) -> Result<Option<SharedBytes>, LoanError> {
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

    /// Ready with a block, or when there will be none. Asks the server for room otherwise, and registers.
    fn look_for_room(
        &mut self,
        length: usize,
        who: Option<&mut Registrant<'_>>,
        asks: bool,
    ) -> Poll<Result<SharedBytes, LoanError>> {
        match self.allocate(length) {
            Ok(None) => {}
            Ok(Some(bytes)) => return Poll::Ready(Ok(bytes)),
            Err(error) => return Poll::Ready(Err(error)),
        }
        let is_hopeless = !asks || self.pool.is_refused;
        if is_hopeless && !self.pool.is_used() {
            self.pool.is_refused = false; // the next may ask again
            return Poll::Ready(Err(LoanError::NoRoom {
                bytes: length as u64,
            }));
        }
        if !is_hopeless {
            self.machine.want_segment(pages(length));
        }
        self.pool.is_wanted = true;
        if let Some(who) = who {
            who.join(&mut self.pool.wakers);
        }
        Poll::Pending
    }
}

impl Connection {
    /// Takes a block if there is room now, or if a server can make some.
    pub(crate) fn try_loan(self: &Arc<Self>, length: usize) -> Result<Loan, LoanError> {
        let no_room = LoanError::NoRoom {
            bytes: length as u64,
        };
        if let Some(bytes) = self.lock().allocate(length)? {
            return Ok(Loan::new(bytes, self));
        }
        if self.sleeper == Sleeper::Worker {
            if !self.make_segment(Role::Server, pages(length)) {
                return Err(no_room);
            }
            let made = self.lock().allocate(length)?;
            return made.map(|bytes| Loan::new(bytes, self)).ok_or(no_room);
        }
        self.lock().machine.want_segment(pages(length)); // so that there is room soon
        self.send_control();
        Err(no_room)
    }

    /// Waits as a task for a block.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_loan(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        length: usize,
    ) -> Poll<Result<Loan, LoanError>> {
        let polled = if self.sleeper == Sleeper::Worker {
            match self.try_and_look(length, cx.waker()) {
                Ok(loan) => return Poll::Ready(Ok(loan)),
                Err(looked) => looked,
            }
        } else {
            self.poll_state(cx, |state, who| state.look_for_room(length, who, true))
        };
        if polled.is_pending() {
            self.watch_for_room();
        }
        polled.map_ok(|bytes| Loan::new(bytes, self))
    }

    /// Takes a block on a server, or registers who waits for one.
    ///
    /// There is hope while a block is lent. Between the try and the look the last one may have come back and its segment may have been
    /// retired, so that a new one could be made: then both are done once more.
    fn try_and_look(
        self: &Arc<Self>,
        length: usize,
        waker: &Waker,
    ) -> Result<Loan, Poll<Result<SharedBytes, LoanError>>> {
        let mut is_first = true;
        loop {
            match self.try_loan(length) {
                Ok(loan) => return Ok(loan),
                Err(LoanError::NoRoom { .. }) => {}
                Err(error) => return Err(Poll::Ready(Err(error))),
            }
            let looked = self.look_or_register(waker, |state, who| {
                state.look_for_room(length, Some(who), false)
            });
            let is_hopeless = matches!(looked, Poll::Ready(Err(LoanError::NoRoom { .. })));
            if !is_hopeless || !std::mem::replace(&mut is_first, false) {
                return Err(looked);
            }
        }
    }

    /// Waits as a thread of a client for a block.
    pub(crate) fn wait_loan(
        self: &Arc<Self>,
        length: usize,
        deadline: Option<Instant>,
    ) -> Result<Result<Loan, LoanError>, TimedOut> {
        let waited = self.wait_state(deadline, |state, who| {
            state.look_for_room(length, who, true)
        })?;
        Ok(waited.map(|bytes| Loan::new(bytes, self)))
    }

    /// Waits as the thread of a handler, which is no I/O worker, for a block.
    pub(crate) fn wait_loan_in_handler(
        self: &Arc<Self>,
        length: usize,
        call: Option<CallId>,
        deadline: Option<Instant>,
    ) -> Result<Result<Loan, LoanError>, TimedOut> {
        let waker = thread_waker();
        loop {
            match self.try_and_look(length, &waker) {
                Ok(loan) => return Ok(Ok(loan)),
                Err(Poll::Ready(looked)) => {
                    return Ok(looked.map(|bytes| Loan::new(bytes, self)));
                }
                Err(Poll::Pending) => {}
            }
            let mut cx = Context::from_waker(&waker);
            if call.is_some_and(|id| self.poll_ended(&mut cx, id).is_ready()) {
                return Ok(Err(LoanError::Over));
            }
            self.watch_for_room();
            park_until(deadline)?;
        }
    }

    /// A loan was dropped unsent: others may want its room.
    pub(crate) fn loan_was_dropped(&self) {
        let mut state = self.lock();
        if state.pool.is_wanted || !state.pool.wakers.is_empty() {
            let wakers = state.pool.room_came();
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
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
