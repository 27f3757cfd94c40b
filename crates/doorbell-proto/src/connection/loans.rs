//! Loans: the segments of a connection, and which blocks of them are with whom.
//!
//! Each side keeps two ledgers, of the segments that it writes and of those that it reads. Which parts of a segment are free, and
//! the bytes themselves, are the caller's. Segments that the server writes have even numbers, those of the client odd ones, and no
//! number is used twice.
//!
//! # Trust
//!
//! A descriptor is believed after it has been compared with the ledger: it lies in a segment that the peer writes, and the block is
//! not one that we hold already. A block that we have given back counts as held until the frame that says so is taken out, or has been
//! written, so that a peer cannot lengthen the queue.

use super::check_empty;
use super::{Connection, ControlFrame, Event, LoanViolation, Payload, ProtocolError, Role};
use crate::frame::{BlockId, Body, Descriptor, FrameError, FrameHeader, FrameKind};
use crate::limits::{
    LOAN_ALIGNMENT, MAX_LOANS, MAX_SEGMENT_PAGES, MAX_SEGMENTS, SEGMENT_PAGE_BYTES,
};
use crate::time::Time;
use std::collections::VecDeque;

/// Both ledgers, and the frames about memory that wait.
#[derive(Debug)]
pub(super) struct Loans {
    role: Role,
    agreed: bool,
    own: Ledger,
    peer: Ledger,
    waiting: VecDeque<FrameHeader>,
    /// The client has asked for a segment and the answer has not been taken out.
    wanted: bool,
}

/// The segments that one side writes, and the blocks of them that are with the other.
#[derive(Debug, Default)]
struct Ledger {
    segments: Vec<Segment>,
    /// Sorted.
    lent: Vec<BlockId>,
    /// Last number that was used.
    last: Option<u32>,
}

#[derive(Debug)]
struct Segment {
    number: u32,
    pages: u32,
}

impl Ledger {
    fn segment(&self, number: u32) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| segment.number == number)
    }

    fn add(&mut self, number: u32, pages: u32) {
        self.last = Some(number);
        self.segments.push(Segment { number, pages });
    }

    fn remove(&mut self, number: u32) {
        self.segments.retain(|segment| segment.number != number);
    }

    /// Returns `true` if a block of the segment is lent.
    fn is_used(&self, number: u32) -> bool {
        let from = self
            .lent
            .partition_point(|block| *block < BlockId::new(number, 0));
        self.lent
            .get(from)
            .is_some_and(|block| block.segment() == number)
    }

    /// Notes that a block is lent. Returns `false` if it is already.
    fn lend(&mut self, block: BlockId) -> bool {
        let place = self.lent.binary_search(&block);
        if let Err(place) = place {
            self.lent.insert(place, block);
        }
        place.is_err()
    }

    /// Notes that a block is back. Returns `false` if it was not lent.
    fn take_back(&mut self, block: BlockId) -> bool {
        let place = self.lent.binary_search(&block);
        if let Ok(place) = place {
            self.lent.remove(place);
        }
        place.is_ok()
    }
}

impl Loans {
    pub(super) fn new(role: Role, agreed: bool) -> Self {
        Self {
            role,
            agreed,
            own: Ledger::default(),
            peer: Ledger::default(),
            waiting: VecDeque::new(),
            wanted: false,
        }
    }

    /// Returns `true` if [`Loans::poll`] has a frame.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the next frame.
    pub(super) fn poll(&mut self) -> Option<ControlFrame> {
        let header = self.waiting.pop_front()?;
        match header.kind {
            FrameKind::Release => {
                self.peer.take_back(BlockId::from_raw(header.id));
            }
            FrameKind::Segment if header.value == 0 || header.id % 2 == 1 => self.wanted = false,
            _ => {}
        }
        Some(ControlFrame {
            header,
            body: Vec::new(),
        })
    }

    /// Gives the memory back that the queue does not need now.
    fn give_back_memory(&mut self) {
        self.waiting.shrink_to_fit();
    }

    fn say(&mut self, kind: FrameKind, id: u64, value: u32) {
        self.waiting.push_back(FrameHeader::new(kind, id, value));
    }

    fn ledger(&mut self, writer: Role) -> &mut Ledger {
        if writer == self.role {
            &mut self.own
        } else {
            &mut self.peer
        }
    }

    fn check_agreed(&self, kind: FrameKind) -> Result<(), LoanViolation> {
        if self.agreed {
            Ok(())
        } else {
            Err(LoanViolation::NotAgreed { kind })
        }
    }

    /// Checks a descriptor and notes that its block is with us.
    fn accept(&mut self, kind: FrameKind, loan: Descriptor) -> Result<(), LoanViolation> {
        self.check_agreed(kind)?;
        let Descriptor { block, length } = loan;
        let number = block.segment();
        let segment = self
            .peer
            .segment(number)
            .ok_or(LoanViolation::UnknownSegment { kind, number })?;
        let segment_bytes = u64::from(segment.pages) * u64::from(SEGMENT_PAGE_BYTES); // at most 2^30
        let end = u64::from(block.offset()) + u64::from(length); // at most 2^33
        let fits = block.offset().is_multiple_of(LOAN_ALIGNMENT)
            && u64::from(block.offset()) < segment_bytes
            && end <= segment_bytes;
        if !fits {
            return Err(LoanViolation::Outside { block, length });
        }
        if self.peer.lent.len() >= MAX_LOANS {
            return Err(LoanViolation::TooManyLoans { block });
        }
        if !self.peer.lend(block) {
            return Err(LoanViolation::LentTwice { block });
        }
        Ok(())
    }
}

/// Methods for loans, of both roles.
impl Connection {
    /// Returns the number of the next segment that `writer` will write, or `None` if there can be no more. Server only.
    ///
    /// Send the segment, then [announce](Self::announce_segment) it; of two segments, the first announced has to be sent first.
    pub fn next_segment(&mut self, writer: Role) -> Option<u32> {
        debug_assert_eq!(self.config.role, Role::Server, "the server makes segments");
        if !self.loans.agreed || self.loans.waiting.len() > MAX_LOANS {
            return None;
        }
        let ledger = self.loans.ledger(writer);
        if ledger.segments.len() >= MAX_SEGMENTS {
            return None;
        }
        match ledger.last {
            Some(last) => last.checked_add(2),
            None => Some(u32::from(writer == Role::Client)),
        }
    }

    /// Tells the client of a segment that has been sent to it: one with the number of [`next_segment`](Self::next_segment).
    pub fn announce_segment(&mut self, number: u32, pages: u32) {
        self.loans.ledger(writer_of(number)).add(number, pages);
        self.loans.say(FrameKind::Segment, u64::from(number), pages);
    }

    /// Tells the client that the segment which it wants cannot be had.
    pub fn refuse_segment(&mut self) {
        if self.loans.wanted {
            self.loans.say(FrameKind::Segment, 0, 0);
        }
    }

    /// Asks for a segment in which a block of `pages` fits. Returns `false` if an answer is still to come, or there are no loans. Client
    /// only.
    pub fn want_segment(&mut self, pages: u32) -> bool {
        debug_assert_eq!(self.config.role, Role::Client, "a server makes its own");
        let asks = self.loans.agreed && !self.loans.wanted;
        if asks {
            self.loans.wanted = true;
            self.loans
                .say(FrameKind::WantSegment, 0, pages.clamp(1, MAX_SEGMENT_PAGES));
        }
        asks
    }

    /// Returns `true` if the client waits for the answer to its wish.
    pub fn wants_segment(&self) -> bool {
        self.loans.wanted
    }

    /// Gives up a segment that we write, and tells the peer. Returns `false`, and has changed nothing, while blocks of it are with the
    /// peer.
    pub fn retire_segment(&mut self, number: u32) -> bool {
        let is_idle = self.loans.own.segment(number).is_some() && !self.loans.own.is_used(number);
        if is_idle {
            self.loans.own.remove(number);
            self.loans.say(FrameKind::Retire, u64::from(number), 0);
        }
        is_idle
    }

    /// Returns `true` if [`ask_to_retire`](Self::ask_to_retire) would ask.
    pub fn may_ask_to_retire(&self, number: u32) -> bool {
        let peer = &self.loans.peer;
        peer.segment(number).is_some() && !peer.is_used(number)
    }

    /// Asks the peer to give up a segment that it writes. Returns `false` while we hold blocks of it.
    pub fn ask_to_retire(&mut self, number: u32) -> bool {
        let is_idle = self.may_ask_to_retire(number);
        if is_idle {
            self.loans.say(FrameKind::Retire, u64::from(number), 0);
        }
        is_idle
    }

    /// Tells the client that there has been nothing to do for a while. Server only, and only if giving memory back was agreed on.
    pub fn say_quiet(&mut self) {
        debug_assert_eq!(self.config.role, Role::Server, "the server says it");
        let is_said = |frame: &FrameHeader| frame.kind == FrameKind::Quiet;
        if !self.closed && !self.loans.waiting.iter().any(is_said) {
            self.loans.say(FrameKind::Quiet, 0, 0);
        }
    }

    /// Gives the memory back that no frame waits in. What is known of calls and of loans stays.
    pub fn give_back_memory(&mut self) {
        self.control.give_back_memory();
        self.loans.give_back_memory();
    }

    /// Notes that a block is lent to the peer by a frame that is about to be written. Returns `false` if as many are with it as may be:
    /// copy the payload then.
    pub fn lend(&mut self, block: BlockId) -> bool {
        let may_lend = self.may_lend(block.segment());
        may_lend && self.loans.own.lend(block)
    }

    /// Returns `true` if a block of a segment that we write, and that is not lent, can be lent now: what a message costs depends on it.
    pub fn may_lend(&self, segment: u32) -> bool {
        let own = &self.loans.own;
        own.segment(segment).is_some() && own.lent.len() < MAX_LOANS
    }

    /// Takes a block back: its frame has not been written and never will be, or it comes back by a `RELEASE` that
    /// [is bare](FrameHeader::bare_release). Returns `false`, and has changed nothing, if it is not lent; of a `RELEASE`
    /// [`handle_frame`](Self::handle_frame) then says what is wrong.
    #[inline]
    pub fn take_back(&mut self, block: BlockId) -> bool {
        self.loans.own.take_back(block)
    }

    /// Gives a block back to the peer, which the application does not need any more. Once for each [`Payload::Loaned`].
    pub fn give_back(&mut self, block: BlockId) {
        if self.loans.peer.lent.binary_search(&block).is_ok() {
            self.loans.say(FrameKind::Release, block.raw(), 0);
        }
    }

    /// Returns `true` if nothing waits to be told before that a block of the peer's is given back, and we have it: write the `RELEASE`, and say so
    /// by [`gave_back`](Self::gave_back).
    #[inline]
    pub fn may_give_back(&self, block: BlockId) -> bool {
        !self.has_control() && self.loans.peer.lent.binary_search(&block).is_ok()
    }

    /// Notes that the `RELEASE` of a block has been written, without the detour of [`give_back`](Self::give_back).
    #[inline]
    pub fn gave_back(&mut self, block: BlockId) {
        self.loans.peer.take_back(block);
    }

    #[inline]
    pub(super) fn accept_loan(&mut self, kind: FrameKind, loan: Descriptor) -> bool {
        self.loans.accept(kind, loan).is_ok()
    }

    /// Returns how many blocks of ours the peer has, and how many of the peer's we have.
    pub fn loans(&self) -> (usize, usize) {
        (self.loans.own.lent.len(), self.loans.peer.lent.len())
    }

    /// Returns how many segments we write, and how many the peer does.
    pub fn segments(&self) -> (usize, usize) {
        let (own, peer) = (&self.loans.own, &self.loans.peer);
        (own.segments.len(), peer.segments.len())
    }

    /// Takes in a message whose payload is a descriptor.
    pub(super) fn handle_loaned<'a>(
        &mut self,
        now: Time,
        header: &FrameHeader,
        body: &'a [u8],
    ) -> Result<Event<'a>, ProtocolError> {
        let kind = header.kind;
        let parsed = Body::parse(header, body)?;
        let loan = Descriptor::decode(parsed.payload).ok_or(FrameError::Length {
            kind,
            length: header.length,
        })?;
        let limit_bytes = self.config.max_message_bytes;
        if u64::from(loan.length) > limit_bytes {
            let length = loan.length;
            return Err(LoanViolation::TooLarge {
                length,
                limit_bytes,
            }
            .into());
        }
        self.loans.accept(kind, loan)?;
        let mut event = self.handle_whole(now, header, body)?;
        match &mut event {
            Event::Request { payload, .. }
            | Event::Response { payload, .. }
            | Event::Item { payload, .. } => *payload = Payload::Loaned(loan),
            _ => self.give_back(loan.block), // nobody is told of the message
        }
        Ok(event)
    }

    /// Takes in a frame that says something of a segment or a block.
    pub(super) fn handle_about_loans(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        check_empty(header, body)?;
        self.loans.check_agreed(header.kind)?;
        match header.kind {
            FrameKind::Segment => self.handle_segment(header),
            FrameKind::WantSegment => self.handle_want_segment(header),
            FrameKind::Retire => self.handle_retire(header),
            _ => self.handle_release(header),
        }
    }

    fn handle_segment(&mut self, header: &FrameHeader) -> Result<Event<'static>, ProtocolError> {
        let (number, pages) = (segment_number(header)?, header.value);
        let writer = writer_of(number);
        let is_answer = pages == 0 || writer == Role::Client;
        if is_answer && !std::mem::take(&mut self.loans.wanted) {
            return Err(LoanViolation::NotWanted { number, pages }.into());
        }
        if pages == 0 {
            return Ok(Event::SegmentRefused);
        }
        let ledger = self.loans.ledger(writer);
        if let Some(last) = ledger.last.filter(|last| number <= *last) {
            return Err(LoanViolation::NumberUsed { number, last }.into());
        }
        if pages > MAX_SEGMENT_PAGES {
            return Err(LoanViolation::SegmentSize { number, pages }.into());
        }
        if ledger.segments.len() >= MAX_SEGMENTS {
            return Err(LoanViolation::TooManySegments { number }.into());
        }
        ledger.add(number, pages);
        Ok(Event::Segment {
            number,
            pages,
            writer,
        })
    }

    fn handle_want_segment(
        &mut self,
        header: &FrameHeader,
    ) -> Result<Event<'static>, ProtocolError> {
        if std::mem::replace(&mut self.loans.wanted, true) {
            return Err(LoanViolation::WantedTwice.into());
        }
        Ok(Event::SegmentWanted {
            pages: header.value,
        })
    }

    fn handle_retire(&mut self, header: &FrameHeader) -> Result<Event<'static>, ProtocolError> {
        let (kind, number) = (header.kind, segment_number(header)?);
        if writer_of(number) == self.config.role {
            return self.handle_ask_to_retire(kind, number);
        }
        let peer = &mut self.loans.peer;
        if peer.segment(number).is_none() {
            return Err(LoanViolation::UnknownSegment { kind, number }.into());
        }
        if peer.is_used(number) {
            return Err(LoanViolation::SegmentInUse { number }.into());
        }
        peer.remove(number);
        Ok(Event::Retired { number })
    }

    /// The peer asks; one that we have given up already crossed the question.
    fn handle_ask_to_retire(
        &self,
        kind: FrameKind,
        number: u32,
    ) -> Result<Event<'static>, ProtocolError> {
        let own = &self.loans.own;
        if own.segment(number).is_some() {
            return Ok(Event::RetireAsked { number });
        }
        match own.last {
            Some(last) if number <= last => Ok(Event::None),
            _ => Err(LoanViolation::UnknownSegment { kind, number }.into()),
        }
    }

    fn handle_release(&mut self, header: &FrameHeader) -> Result<Event<'static>, ProtocolError> {
        let block = BlockId::from_raw(header.id);
        if !self.loans.own.take_back(block) {
            return Err(LoanViolation::NotLent { block }.into());
        }
        Ok(Event::Released { block })
    }
}

/// Returns who writes the segment with this number.
fn writer_of(number: u32) -> Role {
    if number.is_multiple_of(2) {
        Role::Server
    } else {
        Role::Client
    }
}

fn segment_number(header: &FrameHeader) -> Result<u32, FrameError> {
    u32::try_from(header.id).map_err(|_| FrameError::IdNotASegment {
        kind: header.kind,
        id: header.id,
    })
}
