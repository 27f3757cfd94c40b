//! Frames that the library itself found to be broken. A peer that is killed leaves whole ones, so there must be none.

use std::sync::{
    Once,
    atomic::{AtomicU64, Ordering},
};

use crate::log;

/// Counts, from now on, what this process closes connections for.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::listen(|said| {
            let is_broken =
                said == "closed the connection" || said == "a dead client left nonsense";
            BROKEN.fetch_add(u64::from(is_broken), Ordering::AcqRel);
        });
    });
}

/// Returns how many broken frames there were since the last time.
pub(crate) fn take() -> u64 {
    BROKEN.swap(0, Ordering::AcqRel)
}

static BROKEN: AtomicU64 = AtomicU64::new(0);
