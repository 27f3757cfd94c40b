//! One side of the connection.

use super::sender::{Frame, Sender};
use super::{CHUNK_BYTES, MAX_CALLS, MAX_MESSAGE_BYTES, WINDOW_BYTES};
use doorbell_proto::{
    CallId, CallKind, Config, Connection, FrameHeader, FrameKind, ItemError, Prefix, Role,
};
use std::collections::{BTreeMap, BTreeSet};

/// One side: machine, sender and what the application knows.
pub(super) struct Side {
    pub(super) machine: Connection,
    pub(super) sender: Sender,
    /// Calls whose outcome is open.
    pub(super) open: BTreeMap<CallId, CallKind>,
    /// Calls whose outcome is known.
    pub(super) ended: BTreeSet<CallId>,
    /// Items not yet taken.
    pub(super) inbox: Vec<(CallId, u64)>,
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
        });
        Self {
            machine,
            sender: Sender::default(),
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            inbox: Vec::new(),
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
        let packed = packs(size);
        let cost_bytes = match packed {
            0 => Sender::cost_bytes(size),
            count => Sender::packed_cost_bytes(size, count),
        };
        match self.machine.reserve_item(id, cost_bytes) {
            Ok(()) if packed > 0 => self.sender.send_packed(header, size, packed),
            Ok(()) => self.sender.send(header, Prefix::default(), size),
            Err(ItemError::NoCredit | ItemError::Over) => {}
            Err(error) => panic!("{error}"),
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
        if let Some(frame) = self.machine.poll_transmit() {
            assert_eq!(usize::try_from(frame.header.length), Ok(frame.body.len()));
            assert!(frame.body.len() <= CHUNK_BYTES);
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
