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

/// Looks whether the present runtime has timers, which the first deadline would need.
///
/// # Panics
///
/// Panics if it has none, or if there is no runtime, and says what to do.
#[cfg(feature = "tokio")]
pub(crate) fn require_timers() {
    drop(tokio::time::timeout(Duration::ZERO, std::future::ready(())));
}
