//! Loans: the segments of a connection, blocks that come and go, and waiting for room.
//!
//! A block that arrived is [`Held`] by whoever has its message. Dropping it leaves its id with [`Returns`], whose lock is taken by
//! itself, so that it may be dropped anywhere, under the state lock too; the next that writes control frames tells the peer. What is
//! given back wakes the peer only if it waits for room, as room in the ring does.

mod budget;

use std::{
    cell::Cell,
    io,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

pub(crate) use budget::{Budget, Spending};
use doorbell_proto::{
    CallId,
    connection::{Event, Role},
    frame::{BlockId, Descriptor},
    limits::{MAX_SEGMENT_PAGES, MIN_SEGMENT_BYTES, SEGMENT_PAGE_BYTES},
};
use doorbell_shm::{
    SleepOn,
    memory::{
        OwnBlock, OwnSegment, PeerBlock, PeerSegment, SharedBytes, adopt_own_segment,
        adopt_peer_segment, create_own_segment, create_peer_segment,
    },
    sys::{ControlStream, RegionHandle},
};

use super::{
    Connection, Effects, Sleeper,
    drive::TimedOut,
    lock,
    state::State,
    thread::{park_until, thread_waker},
};
use crate::{
    error::{CallError, SegmentError, Violation},
    loan::{Loan, LoanError, Loaned},
};

/// What the state knows of loans.
pub(super) struct Pool {
    own: Vec<(u32, Arc<OwnSegment>)>,
    peer: Vec<Readable>,
    returns: Arc<Returns>,
    /// Carries segments; gone when the connection has ended, so that the peer sees the end.
    pub(super) control: Option<Arc<ControlStream>>,
    /// What a server may spend on this connection.
    charge: Spending,
    pub(super) wakers: Vec<Waker>,
    /// Somebody waits for room.
    is_wanted: bool,
    /// A server goes to sleep with a segment that it will give up when the blocks come back which are lent of it.
    is_expected: bool,
    /// The server has no room for more segments, as far as we know.
    is_refused: bool,
}

/// A segment that the peer writes.
struct Readable {
    number: u32,
    segment: Arc<PeerSegment>,
    /// It has been asked to give it up, and has lent nothing of it since.
    is_asked: bool,
}

/// Blocks of the peer that nobody has any more, and of which it has not been told.
pub(crate) struct Returns {
    blocks: Mutex<Vec<BlockId>>,
    is_any: AtomicBool,
    connection: Weak<Connection>,
}

/// A block that arrived. Dropped, it goes back to the peer with the next control frames.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: SharedBytes,
    block: BlockId,
    returns: Arc<Returns>,
}

impl Held {
    pub(crate) fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    pub(crate) fn returns(&self) -> &Arc<Returns> {
        &self.returns
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.returns.blocks).push(self.block);
        self.returns.is_any.store(true, Ordering::Relaxed); // the lock of the list orders it: see docs/orderings.md
    }
}

impl Returns {
    pub(super) fn new(connection: Weak<Connection>) -> Arc<Self> {
        Arc::new(Self {
            blocks: Mutex::default(),
            is_any: AtomicBool::new(false),
            connection,
        })
    }

    /// Tells the peer, unless that happens soon anyway. Not under the state lock.
    pub(crate) fn flush(&self) {
        if let Some(connection) = self.connection.upgrade() {
            connection.flush_returns();
        }
    }
}

impl std::fmt::Debug for Returns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Returns").finish_non_exhaustive()
    }
}

impl Readable {
    fn new(number: u32, segment: Arc<PeerSegment>) -> Self {
        Self {
            number,
            segment,
            is_asked: false,
        }
    }
}

impl Pool {
    pub(super) fn new(
        returns: Arc<Returns>,
        control: Arc<ControlStream>,
        charge: Spending,
    ) -> Self {
        Self {
            own: Vec::new(),
            peer: Vec::new(),
            returns,
            control: Some(control),
            charge,
            wakers: Vec::new(),
            is_wanted: false,
            is_expected: false,
            is_refused: false,
        }
    }

    /// Forgets all segments, because the connection has ended. Those that somebody still reads or writes stay mapped as long.
    pub(super) fn close(&mut self) {
        self.own = Vec::new();
        self.peer = Vec::new();
        self.control = None;
        self.charge.give_all();
    }

    /// The peer has to wake us when it gives blocks back.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted || self.is_expected
    }

    fn allocate(&self, length: usize) -> Option<OwnBlock> {
        self.own
            .iter()
            .find_map(|(_, segment)| segment.allocate(length))
    }

    fn is_used(&self) -> bool {
        self.own.iter().any(|(_, segment)| segment.is_used())
    }

    fn take_back(&mut self, block: BlockId) {
        let segment = self
            .own
            .iter()
            .find(|(number, _)| *number == block.segment());
        let was_lent = segment.is_some_and(|(_, segment)| segment.take_back(block.offset()));
        debug_assert!(was_lent, "the ledger knows what is lent");
    }

    /// There may be room now: everybody who waits for some looks again.
    fn room_came(&mut self) -> Vec<Waker> {
        self.is_wanted = false;
        self.is_refused = false;
        std::mem::take(&mut self.wakers)
    }
}

impl State {
    /// Notes that the peer gets a block of ours, if it can: it lies in a segment of this connection.
    pub(super) fn lend(&mut self, loan: &Loaned) -> Option<Descriptor> {
        let own = loan.unsent_block()?;
        let (number, _) = self
            .pool
            .own
            .iter()
            .find(|(_, segment)| Arc::ptr_eq(segment, own.segment()))?;
        let block = BlockId::new(*number, own.offset());
        let length = u32::try_from(own.len()).ok()?;
        if !self.machine.lend(block) {
            return None;
        }
        own.lend();
        doorbell_shm::failpoint!("loan.lent");
        Some(Descriptor { block, length })
    }

    /// Returns `true` if [`lend`](Self::lend) will most likely do.
    pub(super) fn may_lend(&self, loan: &Loaned) -> bool {
        let of_this = |own: &OwnBlock| {
            let mut segments = self.pool.own.iter();
            segments.any(|(_, segment)| Arc::ptr_eq(segment, own.segment()))
        };
        loan.unsent_block().is_some_and(of_this)
    }

    /// Returns the block that a descriptor names. The machine has compared it with the segment.
    pub(super) fn hold(&mut self, loan: Descriptor) -> Option<Held> {
        let Descriptor { block, length } = loan;
        let mut segments = self.pool.peer.iter_mut();
        let readable = segments.find(|readable| readable.number == block.segment())?;
        readable.is_asked = false;
        let bytes: PeerBlock = readable.segment.block(block.offset(), length)?;
        doorbell_shm::failpoint!("loan.held");
        Some(Held {
            bytes: SharedBytes::Peer(bytes),
            block,
            returns: Arc::clone(&self.pool.returns),
        })
    }

    /// Returns `true` if blocks have been dropped, in either direction.
    #[inline]
    pub(super) fn has_returns(&self) -> bool {
        self.pool.returns.is_any.load(Ordering::Relaxed) || self.outgoing.has_dropped_loans()
    }

    /// Hands the machine the blocks that have been dropped, in either direction.
    #[inline]
    pub(super) fn collect_returns(&mut self) {
        if self.has_returns() {
            self.collect_some();
        }
    }

    #[cold]
    fn collect_some(&mut self) {
        self.pool.returns.is_any.store(false, Ordering::Relaxed); // before the look: what comes later sets it again (`returns-clear-first`)
        let mut blocks = lock(&self.pool.returns.blocks);
        for block in blocks.drain(..) {
            self.machine.give_back(block);
            doorbell_shm::failpoint!("loan.returned");
        }
        drop(blocks);
        for block in self.outgoing.take_dropped_loans() {
            if self.machine.take_back(block) {
                self.pool.take_back(block);
            }
        }
    }

    /// Acts on events about loans that need no system call.
    pub(super) fn take_loan_event(&mut self, event: &Event<'_>, effects: &mut Effects) {
        match *event {
            Event::Released { block } => {
                self.pool.take_back(block);
                doorbell_shm::failpoint!("loan.taken.back");
            }
            Event::SegmentRefused => {
                effects.more.append(&mut self.pool.room_came());
                self.pool.is_refused = true;
                return;
            }
            Event::Retired { number } => {
                let mut segments = self.pool.peer.iter();
                let gone = segments.position(|readable| readable.number == number);
                if let Some(place) = gone {
                    let readable = self.pool.peer.swap_remove(place);
                    self.pool.charge.give(readable.segment.size_bytes() as u64);
                    drop(readable);
                    doorbell_shm::failpoint!("segment.unmapped");
                }
            }
            Event::RetireAsked { number } => self.retire(|own, _| own == number),
            _ => return,
        }
        if !self.pool.wakers.is_empty() || self.pool.is_refused || self.pool.is_wanted {
            effects.more.append(&mut self.pool.room_came());
        }
    }

    /// Gives up those of our segments that nobody uses and that are `unwanted`, by number and size.
    fn retire(&mut self, mut unwanted: impl FnMut(u32, usize) -> bool) {
        let Self { pool, machine, .. } = self;
        let Pool { own, charge, .. } = pool;
        own.retain(|(number, segment)| {
            let bytes = segment.size_bytes();
            let goes =
                !segment.is_used() && unwanted(*number, bytes) && machine.retire_segment(*number);
            if goes {
                doorbell_shm::failpoint!("segment.retired");
                charge.give(bytes as u64);
            }
            !goes
        });
    }

    /// Gives up what nobody uses, except a small segment for each side to write, because the connection goes to sleep. Returns `true` if there
    /// is something to tell the client. Server only: a client's segments go when it is asked.
    pub(super) fn shrink(&mut self) -> bool {
        if self.pool.own.is_empty() && self.pool.peer.is_empty() || self.end.is_some() {
            self.pool.is_expected = false;
            return false;
        }
        let mut keeps_own = false;
        self.retire(|_, bytes| {
            let is_kept = !keeps_own && bytes as u64 <= MIN_SEGMENT_BYTES;
            keeps_own |= is_kept;
            !is_kept
        });
        let mut own = self.pool.own.iter();
        self.pool.is_expected =
            own.any(|(_, segment)| segment.size_bytes() as u64 > MIN_SEGMENT_BYTES);
        let mut keeps_peer = false;
        for readable in &mut self.pool.peer {
            let is_small = readable.segment.size_bytes() as u64 <= MIN_SEGMENT_BYTES;
            if is_small && !std::mem::replace(&mut keeps_peer, true) {
                continue;
            }
            if !readable.is_asked && self.machine.ask_to_retire(readable.number) {
                readable.is_asked = true;
            }
        }
        self.machine.has_control()
    }

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
            return Ok(Some(SharedBytes::Buffer(
                doorbell_shm::memory::Buffer::new(length),
            )));
        }
        Ok(self.pool.allocate(length).map(SharedBytes::Own))
    }

    /// Ready with a block, or when there will be none. Asks the server for room otherwise, and registers.
    fn look_for_room(
        &mut self,
        length: usize,
        waker: Option<&Waker>,
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
        if let Some(waker) = waker
            && !self.pool.wakers.iter().any(|known| known.will_wake(waker))
        {
            self.pool.wakers.push(waker.clone());
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
            self.poll_state(cx, |state, waker| state.look_for_room(length, waker, true))
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
            let looked = self.lock().look_for_room(length, Some(waker), false);
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
        let waited = self.wait_state(deadline, |state, waker| {
            state.look_for_room(length, waker, true)
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

    /// Tells the peer which of its blocks nobody has any more. The worker that is about to publish does it itself.
    fn flush_returns(&self) {
        doorbell_shm::failpoint!("loan.dropped");
        if DISPATCHING.get() == std::ptr::from_ref(self).addr() {
            return;
        }
        let state = self.lock();
        if state.end.is_none() {
            self.send_returns(state);
        }
    }

    /// Runs `dispatch`, which may drop blocks of this connection; the caller tells the peer with what it publishes.
    pub(super) fn dispatching<T>(&self, dispatch: impl FnOnce() -> T) -> T {
        struct Over(usize);
        impl Drop for Over {
            fn drop(&mut self) {
                DISPATCHING.set(self.0);
            }
        }
        let _over = Over(DISPATCHING.replace(std::ptr::from_ref(self).addr()));
        dispatch()
    }

    /// Writes the control frames that wait.
    pub(super) fn send_control(&self) {
        let mut state = self.lock();
        if state.machine.has_control() {
            let result = state.pump();
            self.sent(state, result);
        }
    }

    /// If the driver sleeps and does not expect to be told of blocks that come back, makes it.
    pub(super) fn watch_for_room(&self) {
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

    /// Does what an event about segments asks for: system calls, without any lock but the receive half.
    pub(super) fn act_on(
        &self,
        event: &SegmentEvent,
        effects: &mut Effects,
    ) -> Result<(), Violation> {
        match *event {
            SegmentEvent::Wanted { pages } => {
                if !self.make_segment(Role::Client, pages) {
                    self.lock().machine.refuse_segment();
                }
            }
            SegmentEvent::Came {
                number,
                pages,
                writer,
            } => self.adopt_segment(number, pages, writer, effects)?,
        }
        Ok(())
    }

    /// Makes a segment in which a block of `pages` fits, and sends it to the client. Returns `false` if that cannot be. Server only.
    fn make_segment(&self, writer: Role, pages: u32) -> bool {
        let Some(bytes) = self.lock().pool.charge.take(pages) else {
            return false;
        };
        let made = Made::new(writer, bytes);
        doorbell_shm::failpoint!("segment.made");
        let mut state = self.lock();
        let sent = made.and_then(|(made, handle)| state.add_segment(made, &handle, bytes));
        if let Err(error) = &sent {
            state.pool.charge.refuse(u64::from(bytes));
            drop(state);
            tracing::debug!(%error, bytes, "no segment for loans can be made");
            return false;
        }
        let result = state.pump();
        self.sent(state, result);
        doorbell_shm::failpoint!("segment.announced");
        true
    }

    /// Takes over the segment that the control socket holds.
    fn adopt_segment(
        &self,
        number: u32,
        pages: u32,
        writer: Role,
        effects: &mut Effects,
    ) -> Result<(), SegmentError> {
        let Some(control) = self.lock().pool.control.clone() else {
            return Ok(()); // the connection has ended
        };
        doorbell_shm::failpoint!("segment.come");
        let mut announced = [0; ANNOUNCEMENT_BYTES];
        let (count, handles) = control.receive_with_handles(&mut announced, 1)?;
        let Ok([handle]) = <[_; 1]>::try_from(handles) else {
            return Err(SegmentError::Missing { number });
        };
        if count != announced.len() || announced != announcement(number, pages) {
            return Err(SegmentError::Another { number });
        }
        doorbell_shm::failpoint!("segment.received");
        let handle = RegionHandle::from_handle(handle);
        let bytes = pages * SEGMENT_PAGE_BYTES; // the machine has compared it with the largest
        let wrap = |source| SegmentError::Region { number, source };
        let mut state = match writer {
            Role::Client => {
                let segment = adopt_own_segment(&handle, bytes).map_err(wrap)?;
                let mut state = self.lock();
                state.pool.own.push((number, segment));
                state
            }
            Role::Server => {
                let segment = adopt_peer_segment(&handle, bytes).map_err(wrap)?;
                let mut state = self.lock();
                state.pool.peer.push(Readable::new(number, segment));
                state
            }
        };
        doorbell_shm::failpoint!("segment.mapped");
        if state.end.is_some() {
            state.pool.close();
        }
        effects.more.append(&mut state.pool.room_came());
        Ok(())
    }
}

/// What must be done about segments outside of the locks.
pub(super) enum SegmentEvent {
    Wanted {
        pages: u32,
    },
    Came {
        number: u32,
        pages: u32,
        writer: Role,
    },
}

impl SegmentEvent {
    #[inline]
    pub(super) fn of(event: &Event<'_>) -> Option<Self> {
        match *event {
            Event::SegmentWanted { pages } => Some(Self::Wanted { pages }),
            Event::Segment {
                number,
                pages,
                writer,
            } => Some(Self::Came {
                number,
                pages,
                writer,
            }),
            _ => None,
        }
    }
}

/// A segment that a server has made.
enum Made {
    Own(Arc<OwnSegment>),
    Peer(Arc<PeerSegment>),
}

impl Made {
    fn new(writer: Role, bytes: u32) -> io::Result<(Self, RegionHandle)> {
        Ok(match writer {
            Role::Server => {
                let (segment, handle) = create_own_segment(bytes)?;
                (Self::Own(segment), handle)
            }
            Role::Client => {
                let (segment, handle) = create_peer_segment(bytes)?;
                (Self::Peer(segment), handle)
            }
        })
    }
}

impl State {
    /// Sends a segment, then announces it. Under the state lock, so that segments are announced in the order in which they were sent;
    /// nothing here waits for the peer.
    fn add_segment(&mut self, made: Made, handle: &RegionHandle, bytes: u32) -> io::Result<()> {
        let writer = match made {
            Made::Own(_) => Role::Server,
            Made::Peer(_) => Role::Client,
        };
        let control = self
            .pool
            .control
            .as_ref()
            .ok_or(io::ErrorKind::NotConnected)?;
        let number = self.machine.next_segment(writer);
        let number = number.ok_or_else(|| io::Error::other("there are as many as may be"))?;
        let pages = bytes / SEGMENT_PAGE_BYTES;
        let message = announcement(number, pages);
        if control.send_with_handles(&message, &[handle.as_handle()])? != message.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        doorbell_shm::failpoint!("segment.sent");
        self.machine.announce_segment(number, pages);
        match made {
            Made::Own(segment) => self.pool.own.push((number, segment)),
            Made::Peer(segment) => self.pool.peer.push(Readable::new(number, segment)),
        }
        Ok(())
    }
}

/// What the message on the control socket says of the segment that rides with it.
fn announcement(number: u32, pages: u32) -> [u8; ANNOUNCEMENT_BYTES] {
    (u64::from(number) | u64::from(pages) << 32).to_le_bytes()
}

/// Pages of a block of `length` bytes, which is no larger than a segment can be.
fn pages(length: usize) -> u32 {
    let pages = length.div_ceil(SEGMENT_PAGE_BYTES as usize).max(1);
    u32::try_from(pages).unwrap_or(MAX_SEGMENT_PAGES)
}

/// Size of a segment for blocks of `pages`: room for the next while the last is still with the peer.
fn roomy_bytes(pages: u32) -> u32 {
    let bytes = u64::from(pages) * u64::from(SEGMENT_PAGE_BYTES);
    let largest = u64::from(MAX_SEGMENT_PAGES) * u64::from(SEGMENT_PAGE_BYTES);
    let roomy = (2 * bytes).max(MIN_SEGMENT_BYTES).min(largest);
    u32::try_from(roomy).unwrap_or(u32::MAX)
}

const ANNOUNCEMENT_BYTES: usize = 8;

thread_local! {
    /// Address of the connection whose request this thread is handing to a handler.
    static DISPATCHING: Cell<usize> = const { Cell::new(0) };
}
