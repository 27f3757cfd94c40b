//! What an application knows of loans: which blocks of its segments are lent, and which of the peer's it holds.

use super::side::{Side, picked};
use doorbell_proto::{BlockId, Descriptor, Event, FrameHeader, FrameKind, Role, limits};
use std::collections::{BTreeMap, BTreeSet};

/// The memory of one side, without its bytes.
#[derive(Default)]
pub(super) struct Lending {
    own: BTreeMap<u32, Segment>,
    /// Segments that the peer writes.
    peer: BTreeSet<u32>,
    /// Blocks of the peer that the application has.
    held: BTreeSet<BlockId>,
    /// Blocks of the peer that the application has given back, and of which the peer has not been told.
    returning: BTreeSet<BlockId>,
    /// Segments that the client has wished for; some wishes are refused.
    wish_count: u32,
}

struct Segment {
    bytes: u32,
    /// Lengths by offset.
    taken: BTreeMap<u32, u32>,
}

impl Segment {
    fn new(pages: u32) -> Self {
        Self {
            bytes: pages * limits::SEGMENT_PAGE_BYTES,
            taken: BTreeMap::new(),
        }
    }

    fn take(&mut self, length: u32) -> Option<u32> {
        let mut start: u32 = 0;
        for (offset, taken) in &self.taken {
            if start + length.max(1) <= *offset {
                break;
            }
            start = (offset + taken.max(&1)).next_multiple_of(limits::LOAN_ALIGNMENT);
        }
        (start + length.max(1) <= self.bytes).then(|| {
            self.taken.insert(start, length);
            start
        })
    }
}

impl Lending {
    /// Takes room for a block.
    fn take(&mut self, length: u32) -> Option<Descriptor> {
        self.own.iter_mut().find_map(|(number, segment)| {
            let offset = segment.take(length)?;
            let block = BlockId::new(*number, offset);
            Some(Descriptor { block, length })
        })
    }

    /// Frees a block.
    pub(super) fn free(&mut self, block: BlockId) {
        let segment = self.own.get_mut(&block.segment());
        let freed = segment.and_then(|segment| segment.taken.remove(&block.offset()));
        assert!(freed.is_some(), "{block} comes back, but is not lent");
    }

    fn has_lent(&self, block: BlockId) -> Option<u32> {
        let segment = self.own.get(&block.segment())?;
        segment.taken.get(&block.offset()).copied()
    }

    /// Notes that a block has arrived, which `peer` must have lent, and nobody here may have.
    pub(super) fn hold(&mut self, loan: Descriptor, peer: &Self) {
        let Descriptor { block, length } = loan;
        assert_eq!(peer.has_lent(block), Some(length), "{block} is not lent");
        assert!(
            !self.returning.contains(&block) && self.held.insert(block),
            "{block} is held twice"
        );
    }

    /// Notes that a block has arrived with a message that nobody wants.
    pub(super) fn refuse(&mut self, loan: Descriptor, peer: &Self) {
        self.hold(loan, peer);
        self.held.remove(&loan.block);
        self.returning.insert(loan.block);
    }

    /// Notes that the peer is told of a block which was given back.
    pub(super) fn told(&mut self, block: BlockId) {
        assert!(self.returning.remove(&block), "{block} is given back twice");
    }

    fn of_peer(&self) -> impl Iterator<Item = BlockId> {
        self.held.union(&self.returning).copied()
    }
}

impl Side {
    /// Takes room for a message that shall be lent, and sees to it that there will be some if there is none now.
    pub(super) fn room(&mut self, size: usize) -> Option<Descriptor> {
        let length = u32::try_from(size).ok().filter(|_| lends(size))?;
        let found = self.lending.take(length);
        if found.is_some() {
            return found;
        }
        let pages = length.div_ceil(limits::SEGMENT_PAGE_BYTES).max(1);
        if self.role == Role::Client {
            self.machine.want_segment(pages);
            return None;
        }
        self.make_segment(Role::Server, pages);
        self.lending.take(length)
    }

    fn make_segment(&mut self, writer: Role, pages: u32) -> bool {
        let Some(number) = self.machine.next_segment(writer) else {
            return false;
        };
        self.machine.announce_segment(number, pages);
        self.add_segment(number, pages, writer);
        true
    }

    fn add_segment(&mut self, number: u32, pages: u32, writer: Role) {
        if writer == self.role {
            let before = self.lending.own.insert(number, Segment::new(pages));
            assert!(before.is_none(), "segment {number} is there twice");
        } else {
            assert!(
                self.lending.peer.insert(number),
                "segment {number} is there twice"
            );
        }
    }

    /// Gives back one of the blocks that are held.
    pub(super) fn give_back(&mut self, pick: u16) {
        if let Some(block) = picked(self.lending.held.iter(), pick).copied() {
            if pick.is_multiple_of(2) && self.machine.may_give_back(block) {
                let header = FrameHeader::new(FrameKind::Release, block.raw(), 0);
                self.written.push_back(header);
                self.machine.gave_back(block);
            } else {
                self.machine.give_back(block);
            }
            self.lending.held.remove(&block);
            self.lending.returning.insert(block);
        }
    }

    pub(super) fn give_everything_back(&mut self) {
        while !self.lending.held.is_empty() {
            self.give_back(0);
        }
    }

    /// Gives up one of our segments, if the machine lets us, which must be when nothing of it is lent.
    pub(super) fn retire(&mut self, pick: u16) {
        if let Some(number) = picked(self.lending.own.keys(), pick).copied() {
            self.retire_number(number);
        }
    }

    fn retire_number(&mut self, number: u32) {
        let is_idle = self.lending.own[&number].taken.is_empty();
        assert_eq!(self.machine.retire_segment(number), is_idle);
        if is_idle {
            self.lending.own.remove(&number);
        }
    }

    pub(super) fn ask_to_retire(&mut self, pick: u16) {
        if let Some(number) = picked(self.lending.peer.iter(), pick).copied() {
            let is_written = |block: BlockId| {
                let mut written = self.written.iter();
                written.any(|header| header.id == block.raw())
            };
            let mut of_segment = self
                .lending
                .of_peer()
                .filter(|block| block.segment() == number);
            let is_idle = of_segment.all(is_written);
            assert_eq!(self.machine.ask_to_retire(number), is_idle);
        }
    }

    /// Gives up every segment: nothing may be lent any more.
    pub(super) fn retire_everything(&mut self) {
        let numbers: Vec<_> = self.lending.own.keys().copied().collect();
        numbers
            .into_iter()
            .for_each(|number| self.retire_number(number));
        assert!(self.lending.own.is_empty(), "a block is still lent");
    }

    /// Acts on an event about loans. Returns `false` if it is about something else.
    pub(super) fn take_loan_event(&mut self, event: &Event<'_>) -> bool {
        match *event {
            Event::Released { block } => self.lending.free(block),
            Event::Retired { number } => {
                assert!(self.lending.peer.remove(&number));
                assert!(
                    self.lending
                        .of_peer()
                        .all(|block| block.segment() != number)
                );
            }
            Event::RetireAsked { number } => self.retire_number(number),
            Event::Segment {
                number,
                pages,
                writer,
            } => self.add_segment(number, pages, writer),
            Event::SegmentRefused => {}
            Event::SegmentWanted { pages } => {
                self.lending.wish_count += 1;
                let is_granted = !self.lending.wish_count.is_multiple_of(3);
                if !is_granted || !self.make_segment(Role::Client, pages) {
                    self.machine.refuse_segment();
                }
            }
            _ => return false,
        }
        true
    }

    /// The machine's ledgers are those of the application, within their limits, and what is held here is lent there.
    pub(super) fn check_loans(&self, peer: &Side) {
        let Lending {
            own, peer: read, ..
        } = &self.lending;
        let lent: usize = own.values().map(|segment| segment.taken.len()).sum();
        let of_peer = self.lending.of_peer().count();
        let told = self.written.len(); // as good as with the peer
        assert_eq!(self.machine.loans(), (lent, of_peer - told));
        assert!(lent <= limits::MAX_LOANS);
        assert_eq!(self.machine.segments(), (own.len(), read.len()));
        assert!(own.len() <= limits::MAX_SEGMENTS);
        for block in self.lending.of_peer() {
            assert!(
                peer.lending.has_lent(block).is_some(),
                "{block} is written while it is read"
            );
        }
    }
}

/// Returns `true` if the applications of this test lend messages of a size when there is room.
fn lends(size: usize) -> bool {
    (100..super::MAX_MESSAGE_BYTES as usize).contains(&size) && size.is_multiple_of(2)
}
