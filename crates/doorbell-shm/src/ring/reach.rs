//! How far into a ring one of its ends has come, counted where it begins again: a record costs nothing.

use super::HEADER;

/// What has been touched since a certain position.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach {
    since: u32,
    /// Where the latest lap began, as far as what was skipped has told.
    lap: u32,
    /// End of what was touched in the laps before it.
    farthest: u32,
}

impl Reach {
    /// Forgets everything before `position`, which lies at `place`.
    pub(super) fn begin(&mut self, position: u32, place: u32) {
        *self = Self {
            since: position,
            lap: position.wrapping_sub(place),
            farthest: 0,
        };
    }

    /// The ring begins again: its last `skipped` bytes, from `position` on, which lies at `place`, are not used.
    #[inline]
    pub(super) fn begin_again(&mut self, position: u32, place: u32, skipped: u32) {
        self.lap = position.wrapping_add(skipped);
        if skipped >= HEADER {
            self.farthest = self.farthest.max(place + HEADER); // what says so
        } else if position != self.since {
            self.farthest = self.farthest.max(place);
        }
    }

    /// Returns `true` if something beyond the first `bytes` of the ring has been touched, up to `position`, which lies at `place`.
    pub(super) fn is_beyond(self, bytes: u32, position: u32, place: u32) -> bool {
        let is_far = || {
            let has_come_to_the_end = self.lap != position.wrapping_sub(place); // a record that just fits says nothing
            has_come_to_the_end || place > bytes
        };
        self.farthest > bytes || position != self.since && is_far()
    }
}
