//! Frames that the machine itself wants to send.
//!
//! A call never has more than one of them waiting, and the connection one of each kind, so the queue is as large as the slot table at
//! most. A slot whose frame has become pointless stays in the queue and is skipped.

use super::calls::{Calls, Extra, Slot, Unsent};
use super::event::ControlFrame;
use crate::frame::{CallId, FrameHeader, FrameKind, GoAwayReason};
use std::collections::VecDeque;

/// What waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Control {
    slots: VecDeque<u32>,
    /// Slots with something to send.
    waiting: usize,
    pub(super) ping: Option<u64>,
    pub(super) pong: Option<u64>,
    pub(super) go_away: Option<(GoAwayReason, String)>,
}

impl Control {
    /// Returns `true` if [`Control::poll`] has a frame.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0 || self.ping.is_some() || self.pong.is_some() || self.go_away.is_some()
    }

    /// Replaces what waits for the call in `slot`.
    #[inline]
    pub(super) fn set(&mut self, slot_index: u32, slot: &mut Slot, unsent: Unsent) {
        if slot.unsent != Unsent::Nothing {
            self.waiting = self.waiting.saturating_sub(1);
        }
        slot.unsent = unsent;
        if unsent == Unsent::Nothing {
            return;
        }
        self.waiting = self.waiting.saturating_add(1);
        if !slot.queued {
            slot.queued = true;
            self.slots.push_back(slot_index);
        }
    }

    /// Takes the next frame; an `ERROR` has a body of at most `max_body_bytes`.
    pub(super) fn poll(
        &mut self,
        calls: &mut Calls,
        max_body_bytes: usize,
    ) -> Option<ControlFrame> {
        if let Some(id) = self.pong.take() {
            return Some(empty(FrameKind::Pong, id, 0));
        }
        if let Some((reason, text)) = self.go_away.take() {
            return Some(go_away(reason, text, max_body_bytes));
        }
        if let Some(id) = self.ping.take() {
            return Some(empty(FrameKind::Ping, id, 0)); // its answer shows that the peer has read what went before
        }
        while let Some(slot_index) = self.slots.pop_front() {
            let Some(slot) = calls.slot(slot_index) else {
                continue;
            };
            slot.queued = false;
            let frame = self.poll_slot(slot_index, slot, max_body_bytes);
            if frame.is_some() {
                return frame;
            }
        }
        None
    }

    /// Gives the memory back that the queue does not need now.
    pub(super) fn give_back_memory(&mut self) {
        self.slots.shrink_to_fit();
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns how many slots stand in the queue.
    pub(super) fn queued_slots(&self) -> usize {
        self.slots.len()
    }

    fn poll_slot(
        &mut self,
        slot_index: u32,
        slot: &mut Slot,
        max_body_bytes: usize,
    ) -> Option<ControlFrame> {
        let id = CallId::new(slot_index, slot.generation).raw();
        let unsent = slot.unsent;
        self.set(slot_index, slot, Unsent::Nothing);
        match unsent {
            Unsent::Nothing => None,
            Unsent::Cancel => Some(empty(FrameKind::Cancel, id, 0)),
            Unsent::Credit => {
                let credit = slot.credit()?;
                let granted_bytes = credit.take_grant()?;
                if credit.is_due() {
                    self.set(slot_index, slot, Unsent::Credit); // more than one frame can grant
                }
                Some(empty(FrameKind::Credit, id, granted_bytes))
            }
            Unsent::Error => {
                let Extra { error, .. } = *slot.extra.take()?;
                let (header, body) = error?.to_frame(id, max_body_bytes);
                Some(ControlFrame { header, body })
            }
        }
    }
}

fn empty(kind: FrameKind, id: u64, value: u32) -> ControlFrame {
    ControlFrame {
        header: FrameHeader::new(kind, id, value),
        body: Vec::new(),
    }
}

fn go_away(reason: GoAwayReason, mut text: String, max_body_bytes: usize) -> ControlFrame {
    text.truncate(crate::status::cut(&text, max_body_bytes).len());
    let mut header = FrameHeader::new(FrameKind::GoAway, 0, reason.as_u32());
    header.length = u32::try_from(text.len()).unwrap_or(0); // at most MAX_GOAWAY_TEXT_BYTES
    ControlFrame {
        header,
        body: text.into_bytes(),
    }
}
