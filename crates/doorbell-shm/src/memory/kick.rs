//! A private word that ends a futex sleep of this process.

use crate::sync::{AtomicU32, Ordering, ordering};

/// Lets another thread of this process end [`PeerRegion::wait`](super::PeerRegion::wait).
///
/// The peer's words only move when the peer does something. A kick is for everything else: the peer
/// died, a deadline changed, a thread wants room in the ring. It is remembered until it is lowered, and
/// the wait covers its word, so that a kick between the last look and the sleep is not lost:
///
/// ```text
/// waiter                         kicker
/// lower(); look at everything    change something
/// wait(.., &kick, ..)            raise()
/// ```
///
/// Whatever the kicker changed before [`raise`](Self::raise) is visible after a
/// [`lower`](Self::lower) that returned `true` (edge `kicked`). Lives in private memory, so
/// read-modify-write is fine here.
#[derive(Debug)]
pub struct Kick {
    word: AtomicU32,
}

impl Kick {
    /// Value of the word while nobody has kicked: what a sleeper expects to find.
    pub(crate) const LOWERED: u32 = 0;
    const RAISED: u32 = 1;

    /// Returns a kick that is not raised.
    pub fn new() -> Self {
        Self {
            word: AtomicU32::new(Self::LOWERED),
        }
    }

    /// Ends the current wait, or the next one if nobody waits.
    ///
    /// A second kick before the first has been taken costs no system call.
    #[cfg(not(loom))]
    pub fn raise(&self) {
        if self.raise_word() {
            // The kernel does not refuse this on a word of our own, and nobody here could do better.
            let _ = crate::sys::futex_wake(&self.word, u32::MAX);
        }
    }

    /// Takes the kick back; returns `true` if it was raised.
    ///
    /// Do this before looking at what the kick may be about, never between looking and waiting.
    pub fn lower(&self) -> bool {
        let order = ordering("kicked-acquire", Ordering::Acquire); // edge `kicked`
        self.word.swap(Self::LOWERED, order) == Self::RAISED
    }

    /// Raises the word without waking anybody; returns `true` if a waiter must be woken.
    ///
    /// A word that was up already needs no second wake: the waiter has been woken for it and has not
    /// lowered it yet.
    pub(crate) fn raise_word(&self) -> bool {
        let order = ordering("kicked-release", Ordering::Release); // edge `kicked`
        self.word.swap(Self::RAISED, order) == Self::LOWERED
    }

    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }
}

impl Default for Kick {
    fn default() -> Self {
        Self::new()
    }
}
