//! From a limit that the application sets to the instant at which it has passed.

use std::time::{Duration, Instant};

use doorbell_proto::limits;

/// Returns the instant at which `limit` will have passed. One that nobody will live to see is as good as none.
pub(crate) fn after(limit: Duration) -> Instant {
    after_since(Instant::now(), limit)
}

/// As [`after`], with a `limit` that has run since `start`.
pub(crate) fn after_since(start: Instant, limit: Duration) -> Instant {
    start + limit.min(limits::MAX_DEADLINE) // any clock can add so much
}
