//! Whether the task that drives a large message is alone on the connection.
//!
//! Whoever drives completes the others' calls, but cannot run them: on the same thread they wait until it returns. A large message keeps its
//! driver busy for as long as it takes, without anything in between to wait for. So as long as others use the connection it returns after each
//! batch, of a few chunks at most, and is called again when they have gone ahead.

/// Who else uses a connection, as far as a driver can see.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Messages that had been sent at the last look.
    sent: u64,
    /// Number of the call to which the latest message belonged.
    latest: u64,
    turns: u32,
}

impl Company {
    /// A message of a call is sent, or one of none, whose number is 0.
    #[inline]
    pub(super) fn note(&mut self, call: u64) {
        self.latest = call;
    }

    /// Called after each batch by who waits for `call`, with the messages sent so far, and whether the batch `wakes` somebody. Returns `true` if others use the
    /// connection, or did a few turns ago: one that has spent its budget has sent nothing since the last turn.
    pub(super) fn look(&mut self, call: u64, sent: u64, wakes: bool) -> bool {
        let more = sent.wrapping_sub(std::mem::replace(&mut self.sent, sent));
        let ours = u64::from(self.latest == call);
        if more > ours || wakes {
            self.turns = REMEMBERED_TURNS;
        }
        let is_shared = self.turns > 0;
        self.turns = self.turns.saturating_sub(1);
        is_shared
    }
}

/// Turns for which others are remembered.
const REMEMBERED_TURNS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_seen_by_what_they_send_or_wait_for() {
        let mut company = Company::default();
        assert!(!company.look(7, 0, false));
        company.note(7);
        assert!(!company.look(7, 1, false), "it was our own");
        company.note(8);
        assert!(company.look(7, 2, false));
        let mut company = Company::default();
        company.note(7);
        assert!(company.look(7, 2, false), "others came before");
        let mut company = Company::default();
        assert!(company.look(7, 0, true));
    }

    #[test]
    fn others_are_forgotten_after_some_turns() {
        let mut company = Company::default();
        company.note(8);
        let turns = (0..1000).take_while(|_| company.look(7, 1, false)).count();
        assert_eq!(turns, REMEMBERED_TURNS as usize);
        assert!(company.look(7, 2, false));
    }
}
