//! How long a shutdown waits, and for whom.

use std::time::Duration;

use super::Engine;

/// The time that a shutdown has, in pieces. After each it is looked which clients say nothing; when that is known of all, the rest is one piece.
pub(crate) struct Rounds<'a> {
    engine: &'a Engine,
    left: Duration,
    has_begun: bool,
}

impl Engine {
    /// Returns how long to wait in one go each time, which is `limit` together.
    pub(crate) fn rounds(&self, limit: Duration) -> Rounds<'_> {
        Rounds {
            engine: self,
            left: limit,
            has_begun: false,
        }
    }
}

impl Iterator for Rounds<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if !is_first && self.left.is_zero() {
            return None;
        }
        let may_answer = is_first || self.engine.forgo_answers();
        let most = if may_answer {
            TIME_TO_ANSWER
        } else {
            Duration::MAX
        };
        let round = self.left.min(most);
        self.left -= round;
        Some(round)
    }
}

/// How long a shutdown waits for a client to say that it knows. One that runs says so in microseconds, on a busy machine in some milliseconds; one
/// that has been stopped must not cost the whole limit.
const TIME_TO_ANSWER: Duration = Duration::from_secs(1);
