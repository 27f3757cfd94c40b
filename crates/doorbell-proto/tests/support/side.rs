//! One side of the connection.

use super::lending::Lending;
use super::sender::{Frame, Sender};
use super::{CHUNK_BYTES, MAX_CALLS, MAX_MESSAGE_BYTES, WINDOW_BYTES};
use doorbell_proto::{
    BlockId, CallId, CallKind, Config, Connection, Descriptor, FrameHeader, FrameKind, ItemError,
    Prefix, Role, frame::DESCRIPTOR_BYTES,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One side: machine, sender and what the application knows.
pub(super) struct Side {
    pub(super) role: Role,
    pub(super) machine: Connection,
    pub(super) sender: Sender,
    /// Calls whose outcome is open.
    pub(super) open: BTreeMap<CallId, CallKind>,
    /// Calls whose outcome is known.
    pub(super) ended: BTreeSet<CallId>,
    /// Items not yet taken.
    pub(super) inbox: Vec<(CallId, u64)>,
    pub(super) lending: Lending,
    /// Frames that were written without the machine's queue.
    pub(super) written: VecDeque<FrameHeader>,
}

impl Side {
    pub(super) fn new(role: Role) -> Self {
        let machine = Connection::new(Config {
            role,
            max_calls: MAX_CALLS,
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_assembly_bytes: 2 * MAX_MESSAGE_BYTES,
            max_chunk_bytes: u32::try_from(CHUNK_BYTES).unwrap(),
            receive_window_bytes: WINDOW_BYTES,
            send_window_bytes: WINDOW_BYTES,
            loans: true,
            gives_back: true,
        });
        Self {
            role,
            machine,
            sender: Sender::default(),
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            inbox: Vec::new(),
            lending: Lending::default(),
            written: VecDeque::new(),
        }
    }

    /// Notes the outcome of a call; there must be exactly one.
    pub(super) fn end(&mut self, id: CallId) {
        assert!(
            self.open.remove(&id).is_some(),
            "{id} ends, but is not open"
        );
        assert!(self.ended.insert(id), "{id} ends twice");
    }

    pub(super) fn send_item(&mut self, pick: u16, size: usize) {
        let Some(id) = picked(self.open.keys(), pick).copied() else {
            return;
        };
        let header = FrameHeader::new(FrameKind::Data, id.raw(), 0);
        let (packed, room) = (packs(size), self.room(size));
        let cost_bytes = match (packed, room) {
            (_, Some(_)) => Sender::cost_bytes(DESCRIPTOR_BYTES),
            (0, None) => Sender::cost_bytes(size),
            (count, None) => Sender::packed_cost_bytes(size, count),
        };
        match self.machine.reserve_item(id, cost_bytes) {
            Ok(()) if packed > 0 => self.sender.send_packed(header, size, packed),
            Ok(()) => self.send_in(room, header, Prefix::default(), size),
            Err(ItemError::NoCredit | ItemError::Over) => {
                room.into_iter()
                    .for_each(|loan| self.lending.free(loan.block));
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Queues a message, which is lent if it is one of those and there is room.
    pub(super) fn send(&mut self, header: FrameHeader, prefix: Prefix<'_>, size: usize) {
        let room = self.room(size);
        self.send_in(room, header, prefix, size);
    }

    fn send_in(
        &mut self,
        room: Option<Descriptor>,
        header: FrameHeader,
        prefix: Prefix<'_>,
        size: usize,
    ) {
        match room {
            Some(loan) => {
                assert!(self.machine.lend(loan.block) && !self.machine.lend(loan.block));
                self.sender.send_loaned(header, prefix, loan);
            }
            None => self.sender.send(header, prefix, size),
        }
    }

    /// Forgets what waits for a call. What it would have lent is free again.
    pub(super) fn drop_call(&mut self, id: CallId) {
        for block in self.sender.drop_call(id) {
            assert!(self.machine.take_back(block) && !self.machine.take_back(block));
            self.lending.free(block);
        }
    }

    pub(super) fn consume(&mut self, mut bytes: u64) {
        while let Some((id, cost_bytes)) = self.inbox.pop() {
            self.machine.consumed(id, cost_bytes);
            bytes = bytes.saturating_sub(cost_bytes);
            if bytes == 0 {
                return;
            }
        }
    }

    /// Control frames first, then one chunk of each message in turn.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        if let Some(header) = self.written.pop_front() {
            self.lending.told(BlockId::from_raw(header.id));
            return Some((header, Vec::new()));
        }
        if let Some(frame) = self.machine.poll_transmit() {
            assert_eq!(usize::try_from(frame.header.length), Ok(frame.body.len()));
            assert!(frame.body.len() <= CHUNK_BYTES);
            if frame.header.kind == FrameKind::Release {
                self.lending.told(BlockId::from_raw(frame.header.id));
            }
            return Some((frame.header, frame.body));
        }
        let (frame, done) = self.sender.next()?;
        let is_answer = matches!(frame.0.kind, FrameKind::Response | FrameKind::End);
        if done && is_answer {
            self.machine.release(CallId::from_raw(frame.0.id));
        }
        Some(frame)
    }
}

/// Returns how many messages of a size the applications of this test pack together; 0 if they go alone.
pub(super) fn packs(size: usize) -> usize {
    if size < 100 { size % 4 } else { 0 }
}

pub(super) fn picked<T>(mut items: impl ExactSizeIterator<Item = T>, pick: u16) -> Option<T> {
    let count = items.len();
    if count == 0 {
        None
    } else {
        items.nth(usize::from(pick) % count)
    }
}
