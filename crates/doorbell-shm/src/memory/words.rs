//! The orderings of the control words, written once for mapped and for heap memory.

use crate::sync::{AtomicU32, Ordering, fence_at, ordering};

/// Which of the two position words; they are ordered alike and weakened apart.
#[derive(Clone, Copy)]
pub(super) enum Position {
    Tail,
    Head,
}

/// Publishes a position of ours: everything we did before is visible to whoever observes it.
#[inline(always)]
pub(super) fn publish(which: Position, word: &AtomicU32, value: u32) {
    let order = match which {
        Position::Tail => ordering("filled-release", Ordering::Release), // edge `filled`
        Position::Head => ordering("consumed-release", Ordering::Release), // edge `consumed`
    };
    word.store(value, order);
}

/// Returns a position of the peer and sees everything the peer did before it published it.
#[inline(always)]
pub(super) fn observe(which: Position, word: &AtomicU32) -> u32 {
    let value = word.load(Ordering::Relaxed); // the fence below makes it an acquire load
    match which {
        // Closes the race of our copy with the producer's writing of the record (edge `filled`).
        Position::Tail => fence_at("filled-acquire", Ordering::Acquire),
        // Closes the race of our next write with the consumer's copying (edge `consumed`).
        Position::Head => fence_at("consumed-acquire", Ordering::Acquire),
    }
    value
}
