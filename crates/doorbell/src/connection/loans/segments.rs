//! Segments of a connection: made by a server, sent over the control socket, taken over by its client, and given up.

use std::{io, sync::Arc};

use doorbell_proto::{
    connection::{Event, Role},
    limits::{MAX_SEGMENT_PAGES, MIN_SEGMENT_BYTES, SEGMENT_PAGE_BYTES},
};
use doorbell_shm::{
    memory::{
        OwnSegment, PeerSegment, adopt_own_segment, adopt_peer_segment, create_own_segment,
        create_peer_segment,
    },
    stall::Subject,
    sys::RegionHandle,
};

use super::{Paid, Pool, Readable};
use crate::{
    connection::{Connection, Effects, Sleeper, StateGuard, state::State},
    error::{Breach, SegmentError},
};

impl State {
    /// Notes what [`Connection::act_on`] is about to do without the state lock.
    pub(in crate::connection) fn expect_segment(&mut self, event: &SegmentEvent) {
        if let SegmentEvent::Came { writer, .. } = event {
            self.pool.is_coming |= *writer == Role::Client;
        }
    }

    /// Gives up those of our segments that nobody uses and that are `unwanted`.
    pub(super) fn retire(&mut self, mut unwanted: impl FnMut(u32, &OwnSegment) -> bool) {
        let Self { pool, machine, .. } = self;
        let Pool {
            own,
            charge,
            has_retired,
            ..
        } = pool;
        own.retain_mut(|(number, segment)| {
            let bytes = segment.size_bytes();
            let goes =
                !segment.is_used() && unwanted(*number, segment) && machine.retire_segment(*number);
            if goes {
                doorbell_shm::failpoint!("segment.retired");
                charge.give(bytes as u64);
                *has_retired = true;
            }
            !goes
        });
    }

    /// The server asks for the end of a segment. One that has not been used yet has been wished for by somebody who may still come for it: he has not
    /// waited, and the server has gone to sleep meanwhile. So the first question does not count then.
    pub(super) fn retire_if_used(&mut self, number: u32) {
        let was_asked = self.pool.ignored.contains(&number);
        let mut ignores = false;
        self.retire(|own, segment| {
            let is_it = own == number;
            ignores |= is_it && !segment.was_used() && !was_asked;
            is_it && !ignores
        });
        self.pool.forget_questions(number);
        if ignores {
            self.pool.ignored.push(number);
        } else if self.pool.has_own(number) {
            self.pool.unwanted.push(number);
        }
    }

    /// Gives up what the server has asked for, now that we may have no block of it any more.
    fn retire_unwanted(&mut self) {
        let mut unwanted = std::mem::take(&mut self.pool.unwanted);
        self.retire(|number, _| unwanted.contains(&number));
        unwanted.retain(|&unwanted| self.pool.has_own(unwanted));
        self.pool.unwanted = unwanted;
    }

    /// Gives up what nobody uses any more, because the server says that there has been nothing to do for a while. What has not been used yet
    /// takes no memory, and whoever has wished for it may still come.
    pub(in crate::connection) fn retire_all(&mut self, effects: &mut Effects) {
        self.retire(|_, segment| segment.was_used());
        self.room_may_have_come(effects);
    }

    /// Gives up what nobody uses, except a small segment for each side to write, because the connection goes to sleep: there may be more to do
    /// in a moment. Returns `true` if there is something to tell the client. Server only: a client's segments go when it is asked.
    pub(in crate::connection) fn shrink(&mut self) -> bool {
        if !self.has_segments() || self.end.is_some() {
            self.pool.is_expected = false;
            return false;
        }
        let mut keeps_own = false;
        self.retire(|_, segment| {
            let is_kept = !keeps_own && is_small(segment);
            keeps_own |= is_kept;
            !is_kept
        });
        let mut own = self.pool.own.iter();
        self.pool.is_expected = own.any(|(_, segment)| !is_small(segment));
        let mut keeps_peer = false;
        self.ask_to_retire(|readable| {
            let is_small = readable.size_bytes() <= MIN_SEGMENT_BYTES;
            let is_kept = !keeps_peer && is_small;
            keeps_peer |= is_kept;
            !is_kept
        });
        self.machine.has_control()
    }

    /// Gives up everything that nobody uses, because the connection has been quiet for a while, and expects the blocks that keep the rest. Returns
    /// `true` if there is something to tell the client. Server only.
    pub(in crate::connection) fn give_up_segments(&mut self) -> bool {
        if !self.has_segments() {
            return false;
        }
        self.retire(|_, _| true);
        self.ask_to_retire(|_| true);
        self.pool.is_expected = !self.pool.own.is_empty();
        self.machine.has_control()
    }

    /// Returns `true` while the connection has segments.
    pub(in crate::connection) fn has_segments(&self) -> bool {
        !self.pool.own.is_empty() || !self.pool.peer.is_empty()
    }
}

impl Connection {
    /// A block has been freed that was not sent, and nobody waits for it: gives the segment up if it has stayed for that block alone. A worker that comes by
    /// itself does so.
    pub(super) fn give_up_late(&self, mut state: StateGuard<'_>) {
        if self.sleeper == Sleeper::Worker {
            let is_late = !state.is_visited && state.is_announced() && state.pool.has_unused();
            drop(state);
            if is_late {
                self.ask_to_resume();
            }
        } else if !state.pool.unwanted.is_empty() && state.end.is_none() {
            state.retire_unwanted();
            drop(state);
            self.send_control();
        }
    }

    /// Writes the control frames that wait, and publishes those that have been written.
    pub(in crate::connection) fn send_control(&self) {
        let mut state = self.lock();
        if state.machine.has_control() || state.producer.has_unpublished() {
            let result = state.pump();
            self.sent(state, result);
        }
    }

    /// Does what an event about segments asks for: system calls, without any lock but the receive half.
    pub(in crate::connection) fn act_on(
        &self,
        event: &SegmentEvent,
        effects: &mut Effects,
    ) -> Result<(), Breach> {
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
        let paid = self.lock().pay(pages);
        paid.is_some_and(|paid| self.make_paid(writer, paid))
    }

    /// Makes a segment that has been paid for, and sends it to the client. Returns `false` if that cannot be.
    pub(super) fn make_paid(&self, writer: Role, paid: Paid) -> bool {
        let bytes = paid.bytes();
        let made = Made::new(writer, paid, self.subject());
        doorbell_shm::failpoint!("segment.made");
        let mut state = self.lock();
        state.is_untidy = true; // so that the client hears when nothing happens
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
        self.expect_blocks();
        true
    }

    /// Has the client ring when it gives back what will be lent of a segment that a handler has made while the worker sleeps, which does not know that there
    /// is something to give up.
    fn expect_blocks(&self) {
        let mut state = self.lock();
        if state.is_announced() {
            state.pool.is_expected = true;
            drop(state);
            self.watch_for_the_rest();
        }
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
                state.pool.add_own(number, segment);
                state.pool.is_coming = false;
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
        effects.more.extend(state.pool.room_came());
        Ok(())
    }
}

/// It is kept while a connection sleeps for a moment.
fn is_small(segment: &OwnSegment) -> bool {
    segment.size_bytes() as u64 <= MIN_SEGMENT_BYTES
}

/// What must be done about segments outside of the locks.
pub(in crate::connection) enum SegmentEvent {
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
    pub(in crate::connection) fn of(event: &Event<'_>) -> Option<Self> {
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
    Own(OwnSegment),
    Peer(Arc<PeerSegment>),
}

impl Made {
    fn new(writer: Role, paid: Paid, subject: Subject) -> io::Result<(Self, RegionHandle)> {
        Ok(match writer {
            Role::Server => {
                let (segment, handle) = create_own_segment(paid.bytes())?;
                segment.keep(Box::new(paid));
                (Self::Own(segment), handle)
            }
            Role::Client => {
                let (segment, handle) = create_peer_segment(paid.bytes(), subject)?;
                segment.keep(Box::new(paid));
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
            Made::Own(segment) => self.pool.add_own(number, segment),
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
pub(super) fn pages(length: usize) -> u32 {
    let pages = length.div_ceil(SEGMENT_PAGE_BYTES as usize).max(1);
    u32::try_from(pages).unwrap_or(MAX_SEGMENT_PAGES)
}

/// Size of a segment for blocks of `pages`: room for the next while the last is still with the peer.
pub(super) fn roomy_bytes(pages: u32) -> u32 {
    let bytes = u64::from(pages) * u64::from(SEGMENT_PAGE_BYTES);
    let largest = u64::from(MAX_SEGMENT_PAGES) * u64::from(SEGMENT_PAGE_BYTES);
    let roomy = (2 * bytes).max(MIN_SEGMENT_BYTES).min(largest);
    u32::try_from(roomy).unwrap_or(u32::MAX)
}

const ANNOUNCEMENT_BYTES: usize = 8;
