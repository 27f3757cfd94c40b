//! Loans: the segments of a connection, blocks that come and go, and waiting for room.
//!
//! A block that arrived is [`Held`] by whoever has its message. Whoever [gives it back](Held::give_back) tells the peer. Dropping it leaves its
//! id with [`Returns`], whose lock is taken by itself, so that it may be dropped anywhere, under the state lock too; the next that writes
//! control frames tells the peer. What is given back wakes the peer only if it waits for room, as room in the ring does.

mod arriving;
mod asking;
mod budget;
mod returns;
mod room;
mod segments;

use std::{sync::Arc, task::Waker};

pub(super) use arriving::{Lent, Taken};
use asking::Asked;
use budget::Paid;
pub(crate) use budget::{Purse, Spending};
use doorbell_proto::{
    connection::{Connection as Machine, Event},
    frame::{BlockId, Descriptor},
};
use doorbell_shm::{
    memory::{DroppedBlock, OwnBlock, OwnSegment, PeerBlock, PeerSegment, SharedBytes},
    sys::ControlStream,
};
pub(crate) use returns::{Held, Returns};
pub(super) use segments::SegmentEvent;

use super::{Effects, state::State, waiters::Waiters};
use crate::loan::Sending;

/// What the state knows of loans.
pub(super) struct Pool {
    own: Vec<(u32, OwnSegment)>,
    peer: Vec<Readable>,
    returns: Arc<Returns>,
    /// Carries segments; gone when the connection has ended, so that the peer sees the end.
    pub(super) control: Option<Arc<ControlStream>>,
    /// What a server may spend on this connection.
    charge: Spending,
    pub(super) wakers: Waiters,
    /// Somebody waits for room.
    is_wanted: bool,
    /// A server sleeps with a segment that it will give up when the blocks come back which are lent of it.
    is_expected: bool,
    /// The server has no room for more segments, as far as we know.
    is_refused: bool,
    /// A segment for us to write has been announced, and is being mapped.
    is_coming: bool,
    /// Segments of ours, unused, of which the server has asked for the end once.
    ignored: Vec<u32>,
    /// Segments of ours of which the server has asked for the end while we had blocks of them.
    unwanted: Vec<u32>,
    /// Somebody who waits for room would have it if the client gave its segments up.
    is_hoped_for: bool,
    /// A segment of ours has been given up since the last wish for one. If that is refused, it may be for the room which that one took.
    has_retired: bool,
}

/// A segment that the peer writes.
struct Readable {
    number: u32,
    segment: Arc<PeerSegment>,
    asked: Asked,
}

impl Readable {
    fn new(number: u32, segment: Arc<PeerSegment>) -> Self {
        Self {
            number,
            segment,
            asked: Asked::default(),
        }
    }

    fn size_bytes(&self) -> u64 {
        self.segment.size_bytes() as u64
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
            wakers: Waiters::default(),
            is_wanted: false,
            is_expected: false,
            is_refused: false,
            is_coming: false,
            is_hoped_for: false,
            ignored: Vec::new(),
            unwanted: Vec::new(),
            has_retired: false,
        }
    }

    /// Forgets all segments, because the connection has ended. Those that somebody still reads or writes stay mapped as long, and are paid for.
    pub(super) fn close(&mut self) {
        self.own = Vec::new();
        self.peer = Vec::new();
        self.control = None;
    }

    /// The peer has to wake us when it gives blocks back.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted || self.is_expected
    }

    /// Adds a segment for us to write.
    fn add_own(&mut self, number: u32, segment: OwnSegment) {
        let connection = self.returns.connection();
        segment.on_drop(Arc::new(move |block| {
            if let Some(connection) = connection.upgrade() {
                connection.loan_was_dropped(number, block);
            }
        }));
        self.own.push((number, segment));
    }

    /// Takes a block, which is not to be dropped under the state lock unlent: whoever drops it takes that, to free it.
    fn allocate(&mut self, length: usize) -> Option<OwnBlock> {
        self.own
            .iter_mut()
            .find_map(|(_, segment)| segment.allocate(length))
    }

    /// Frees a block that was dropped unlent, unless the segments have been forgotten meanwhile.
    fn free(&mut self, number: u32, block: DroppedBlock) {
        let mut own = self.own.iter_mut();
        let segment = own.find(|(own, _)| *own == number);
        let was_ours = segment.is_none_or(|(_, segment)| segment.free(block));
        debug_assert!(was_ours, "a number is given to one segment");
    }

    fn is_used(&self) -> bool {
        self.own.iter().any(|(_, segment)| segment.is_used())
    }

    fn has_own(&self, number: u32) -> bool {
        self.own.iter().any(|(own, _)| *own == number)
    }

    /// Forgets what the server has asked of a segment, and of those that have gone.
    fn forget_questions(&mut self, number: u32) {
        let Self {
            own,
            ignored,
            unwanted,
            ..
        } = self;
        for asked in [ignored, unwanted] {
            asked.retain(|asked| *asked != number && own.iter().any(|(own, _)| own == asked));
        }
    }

    /// Returns `true` if there is a segment of ours that nobody uses.
    fn has_unused(&self) -> bool {
        self.own.iter().any(|(_, segment)| !segment.is_used())
    }

    fn take_back(&mut self, block: BlockId) {
        let segment = self
            .own
            .iter_mut()
            .find(|(number, _)| *number == block.segment());
        let was_lent = segment.is_some_and(|(_, segment)| segment.take_back(block.offset()));
        debug_assert!(was_lent, "the ledger knows what is lent");
    }

    /// There may be room now: everybody who waits for some looks again.
    fn room_came(&mut self) -> impl Iterator<Item = Waker> + use<> {
        self.is_wanted = false;
        self.is_hoped_for = false;
        self.is_refused = false;
        self.wakers.take()
    }
}

impl State {
    /// Notes that the peer gets a block of ours, if it can: it lies in a segment of this connection.
    pub(super) fn lend(&mut self, loan: &Sending<'_>) -> Option<Descriptor> {
        let (claim, own) = (loan.claim(), loan.claim().block());
        let mut segments = self.pool.own.iter_mut();
        let (number, segment) = segments.find(|(_, segment)| segment.has(claim))?;
        let block = BlockId::new(*number, own.offset());
        let length = u32::try_from(own.len()).ok()?;
        if !self.machine.lend(block) {
            return None;
        }
        segment.lend(claim);
        doorbell_shm::failpoint!("loan.lent");
        Some(Descriptor { block, length })
    }

    /// Returns `true` if [`lend`](Self::lend) will do, as long as the lock is held.
    pub(super) fn may_lend(&self, loan: &Sending<'_>) -> bool {
        let mut segments = self.pool.own.iter();
        let segment = segments.find(|(_, segment)| segment.has(loan.claim()));
        segment.is_some_and(|(number, _)| self.machine.may_lend(*number))
    }

    /// Returns what holds the block of a descriptor. The machine has compared it with the segment, or will and has the last word: it is
    /// `accepts`.
    #[inline]
    pub(super) fn hold_if(
        &mut self,
        loan: Descriptor,
        accepts: impl FnOnce(&mut Machine) -> bool,
    ) -> Option<Held> {
        let Descriptor { block, length } = loan;
        let mut segments = self.pool.peer.iter_mut();
        let readable = segments.find(|readable| readable.number == block.segment())?;
        let bytes: PeerBlock = readable.segment.block(block.offset(), length)?;
        if !accepts(&mut self.machine) {
            return None;
        }
        readable.asked = Asked::of_used();
        doorbell_shm::failpoint!("loan.held");
        let bytes = SharedBytes::Peer(bytes);
        Some(Held::new(bytes, block, &self.pool.returns))
    }

    /// Acts on events about loans that need no system call.
    pub(super) fn take_loan_event(&mut self, event: &Event<'_>, effects: &mut Effects) {
        match *event {
            Event::Released { block } => return self.block_came_back(block, effects),
            Event::SegmentRefused => {
                self.retire(|_, _| true); // what nobody uses may be the room that is wanted
                effects.more.extend(self.pool.room_came());
                self.pool.is_refused = !self.pool.has_retired;
                return;
            }
            Event::Retired { number } => {
                let mut segments = self.pool.peer.iter();
                let gone = segments.position(|readable| readable.number == number);
                if let Some(place) = gone {
                    let readable = self.pool.peer.swap_remove(place);
                    self.pool.charge.give(readable.size_bytes());
                    drop(readable);
                    doorbell_shm::failpoint!("segment.unmapped");
                }
            }
            Event::RetireAsked { number } => self.retire_if_used(number),
            _ => return,
        }
        self.room_may_have_come(effects);
    }

    /// Nobody has a block of ours any more. The machine knows already.
    pub(super) fn block_came_back(&mut self, block: BlockId, effects: &mut Effects) {
        self.pool.take_back(block);
        doorbell_shm::failpoint!("loan.taken.back");
        self.room_may_have_come(effects);
    }

    pub(in crate::connection) fn room_may_have_come(&mut self, effects: &mut Effects) {
        effects.kicks |= self.sleeps_for_space(); // the driver may wait for it, and is not among those who registered
        if !self.pool.wakers.is_empty() || self.pool.is_refused || self.pool.is_wanted {
            effects.more.extend(self.pool.room_came());
        }
    }
}
