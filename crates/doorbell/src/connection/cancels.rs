//! Which calls the client has given up, as its frames have said.
//!
//! A handler that computes looks at the client's cancel word first, because that says so at once. The client may overwrite the word with the
//! next call of the slot, and gives its memory back when the connection is quiet; by then the frame has come, and what it said is kept here.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use doorbell_proto::CallId;

/// Returns `true` if a client's cancel word says that the call has been given up. One that was never written, or has gone back to the system, is 0 and says
/// nothing: not of the call either that has this generation when those of its slot begin again, of which the frame will tell.
#[inline]
pub(super) fn says_given_up(word: u32, id: CallId) -> bool {
    word != 0 && word == id.generation()
}

/// The generation of the latest call of each slot that was given up; 0 if none was. Takes memory from the first one on.
pub(super) struct Cancels {
    slots: u32,
    latest: OnceLock<Box<[AtomicU32]>>,
}

impl Cancels {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            slots,
            latest: OnceLock::new(),
        }
    }

    /// Notes a call that is given up, before the client hears that it has ended: not until then does it use the slot again.
    pub(super) fn note(&self, id: CallId) {
        let latest = self.latest.get_or_init(|| {
            let slots = 0..self.slots;
            slots.map(|_| AtomicU32::new(0)).collect()
        });
        if let Some(generation) = latest.get(id.slot() as usize) {
            generation.store(id.generation().max(1), Ordering::Release); // 0 stands for none; of the next one the machine knows better
        }
    }

    /// Returns `false` if the call has not been given up. Otherwise it has been, or is far ahead of the latest of its slot that was: ask the
    /// machine.
    #[inline]
    pub(super) fn may_have(&self, id: CallId) -> bool {
        let latest = self
            .latest
            .get()
            .and_then(|all| all.get(id.slot() as usize));
        let latest = latest.map_or(0, |generation| generation.load(Ordering::Acquire));
        latest != 0 && latest.wrapping_sub(id.generation()) < u32::MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_that_nobody_has_written_says_of_no_call_that_it_was_given_up() {
        let call = |generation| CallId::new(0, generation);
        assert!(says_given_up(7, call(7)));
        assert!(!says_given_up(7, call(8)));
        assert!(!says_given_up(0, call(1)));
        assert!(
            !says_given_up(0, call(0)),
            "the generations have begun again"
        );
    }

    #[test]
    fn calls_up_to_the_latest_that_was_given_up_may_have_been() {
        let cancels = Cancels::new(2);
        let call = |slot, generation| CallId::new(slot, generation);
        assert!(!cancels.may_have(call(0, 1)));
        cancels.note(call(0, 7));
        for (slot, generation, may_have) in [
            (0, 6, true),
            (0, 7, true),
            (0, 8, false),
            (1, 7, false),
            (2, 7, false),
        ] {
            assert_eq!(cancels.may_have(call(slot, generation)), may_have);
        }
        cancels.note(call(1, 0)); // the generations began again
        assert!(cancels.may_have(call(1, 0)) && !cancels.may_have(call(1, 2)));
        cancels.note(call(2, 7)); // a slot that there is not
        cancels.note(call(0, 3)); // the generations began again
        assert!(!cancels.may_have(call(0, 4)));
        assert!(cancels.may_have(call(0, u32::MAX)));
    }
}
