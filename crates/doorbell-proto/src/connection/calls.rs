//! The slot table: which calls are under way, in what phase.
//!
//! A slot is small because every call touches it; what only streams, divided messages and failures need is boxed in [`Extra`]. The
//! table grows up to the highest slot in use and never shrinks.

use super::assembly::Assembly;
use super::credit::Credit;
use crate::frame::{CallId, CallKind};
use crate::status::Status;
use crate::time::Time;

/// One slot of the table.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) kind: CallKind,
    pub(super) unsent: Unsent,
    /// The slot stands in the control queue.
    pub(super) queued: bool,
    /// [`Time::MAX`] if there is none.
    pub(super) deadline: Time,
    pub(super) extra: Option<Box<Extra>>,
}

/// How far the last call of a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There never was a call.
    Unused,
    /// The call is over. On the client the slot is free.
    Over,
    /// The call is over, but its answer waits to be written. Server only.
    Held,
    /// The request is not complete. Server only.
    Receiving,
    /// The call is under way.
    Active,
    /// The application has been told the outcome; the end of the call has yet to arrive. Client only.
    Draining,
}

/// The control frame that waits for a call; there is never a reason for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    Nothing,
    Credit,
    Cancel,
    Error,
}

/// What most calls do without.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) credit: Option<Credit>,
    pub(super) assembly: Option<Assembly>,
    pub(super) error: Option<Status>,
    /// Taken from the allowance for the call's windows.
    pub(super) charged_bytes: u64,
}

impl Slot {
    const fn unused() -> Self {
        Self {
            generation: 0,
            phase: Phase::Unused,
            kind: CallKind::Unary,
            unsent: Unsent::Nothing,
            queued: false,
            deadline: Time::MAX,
            extra: None,
        }
    }

    /// Returns `true` if no call of this slot needs it any more.
    #[inline]
    pub(super) fn is_free(&self) -> bool {
        matches!(self.phase, Phase::Unused | Phase::Over) && self.unsent == Unsent::Nothing
    }

    /// Returns `true` if frames for the call are expected.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.phase,
            Phase::Receiving | Phase::Active | Phase::Draining
        )
    }

    #[inline]
    pub(super) fn credit(&mut self) -> Option<&mut Credit> {
        self.extra.as_mut()?.credit.as_mut()
    }

    #[inline]
    pub(super) fn assembly(&mut self) -> Option<&mut Assembly> {
        self.extra.as_mut()?.assembly.as_mut()
    }

    /// Returns `true` if a message of this call is incomplete.
    #[inline]
    pub(super) fn is_assembling(&self) -> bool {
        self.extra
            .as_ref()
            .is_some_and(|extra| extra.assembly.is_some())
    }

    /// Keeps what was charged for a call whose answer waits.
    pub(super) fn hold_charge(&mut self, charged_bytes: u64) {
        if charged_bytes > 0 {
            self.extra().charged_bytes = charged_bytes;
        }
    }

    pub(super) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

/// All slots of a connection.
#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    /// Calls in phase [`Phase::Active`].
    active: usize,
    /// Calls in phase [`Phase::Receiving`].
    receiving: usize,
    /// Open calls with a deadline.
    deadlines: usize,
    /// No deadline lies before this time.
    not_before: Option<Time>,
    /// Where the search for expired calls goes on, so that many that expire at once cost one pass together.
    search_from: usize,
}

impl Calls {
    /// Returns the slot of a call, whatever its generation.
    #[inline]
    pub(super) fn slot(&mut self, slot_index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index(slot_index))
    }

    #[inline]
    pub(super) fn peek(&self, slot_index: u32) -> Option<&Slot> {
        self.slots.get(index(slot_index))
    }

    /// Returns the slot of `id` if that call is in phase [`Phase::Active`].
    #[inline]
    pub(super) fn active(&mut self, id: CallId) -> Option<&mut Slot> {
        self.slot(id.slot())
            .filter(|slot| slot.generation == id.generation() && slot.phase == Phase::Active)
    }

    #[inline]
    pub(super) fn is_active(&self, id: CallId) -> bool {
        self.peek(id.slot())
            .is_some_and(|slot| slot.generation == id.generation() && slot.phase == Phase::Active)
    }

    /// Returns the slot, after growing the table to hold it. The caller has compared it with the limit.
    #[inline]
    pub(super) fn grow_to(&mut self, slot_index: u32) -> Option<&mut Slot> {
        let index = index(slot_index);
        if index >= self.slots.len() {
            self.slots
                .resize_with(index.saturating_add(1), Slot::unused);
        }
        self.slots.get_mut(index)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn active_calls(&self) -> usize {
        self.active
    }

    #[inline]
    pub(super) fn receiving_calls(&self) -> usize {
        self.receiving
    }

    /// Moves a slot to another phase and keeps the counts. A call that leaves the open phases forgets its deadline.
    #[inline]
    pub(super) fn set_phase(&mut self, slot_index: u32, phase: Phase) {
        let Some(slot) = self.slots.get_mut(index(slot_index)) else {
            return;
        };
        match slot.phase {
            Phase::Active => self.active = self.active.saturating_sub(1),
            Phase::Receiving => self.receiving = self.receiving.saturating_sub(1),
            _ => {}
        }
        match phase {
            Phase::Active => self.active = self.active.saturating_add(1),
            Phase::Receiving => self.receiving = self.receiving.saturating_add(1),
            _ => {}
        }
        slot.phase = phase;
        if !matches!(phase, Phase::Active | Phase::Receiving) && slot.deadline != Time::MAX {
            slot.deadline = Time::MAX;
            self.deadlines = self.deadlines.saturating_sub(1);
        }
    }

    /// Opens a call in a free slot.
    #[inline]
    pub(super) fn open(
        &mut self,
        id: CallId,
        phase: Phase,
        kind: CallKind,
        deadline: Option<Time>,
    ) {
        let deadline = deadline.unwrap_or(Time::MAX);
        if deadline != Time::MAX {
            self.deadlines = self.deadlines.saturating_add(1);
            self.not_before = Some(
                self.not_before
                    .map_or(deadline, |earlier| earlier.min(deadline)),
            );
        }
        let Some(slot) = self.grow_to(id.slot()) else {
            return;
        };
        slot.generation = id.generation();
        slot.kind = kind;
        slot.deadline = deadline;
        self.set_phase(id.slot(), phase);
    }

    /// Returns the earliest deadline.
    pub(super) fn earliest_deadline(&self) -> Option<Time> {
        if self.deadlines == 0 {
            return None;
        }
        self.slots
            .iter()
            .map(|slot| slot.deadline)
            .min()
            .filter(|deadline| *deadline != Time::MAX)
    }

    /// Returns a call whose deadline has passed. The caller moves it out of the open phases.
    pub(super) fn next_expired(&mut self, now: Time) -> Option<CallId> {
        if self.not_before.is_none_or(|earliest| now < earliest) {
            return None;
        }
        let expired =
            |(_, slot): &(usize, &Slot)| slot.deadline != Time::MAX && slot.deadline <= now;
        let from = self.search_from;
        let (later, sooner) = (
            self.slots.iter().enumerate().skip(from),
            self.slots.iter().enumerate().take(from),
        );
        let Some((index, slot)) = later.chain(sooner).find(expired) else {
            self.not_before = self.earliest_deadline();
            return None;
        };
        self.search_from = index;
        Some(CallId::new(u32::try_from(index).ok()?, slot.generation))
    }

    /// Returns the ids of all calls in phase [`Phase::Active`].
    pub(super) fn active_ids(&self) -> Vec<CallId> {
        self.ids()
            .filter(|(_, slot)| slot.phase == Phase::Active)
            .map(|(id, _)| id)
            .collect()
    }

    fn ids(&self) -> impl Iterator<Item = (CallId, &Slot)> {
        (0..)
            .zip(&self.slots)
            .map(|(index, slot)| (CallId::new(index, slot.generation), slot))
    }
}

#[inline]
fn index(slot_index: u32) -> usize {
    usize::try_from(slot_index).unwrap_or(usize::MAX)
}
