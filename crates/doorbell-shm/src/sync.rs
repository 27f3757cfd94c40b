//! Atomics and fences: the standard library's, or loom's under `--cfg loom`.
//!
//! Every ordering that a model in `loom_tests` depends on is taken through [`ordering`] or
//! [`fence_at`] under a name. In an ordinary build the name disappears. Under loom the environment
//! variable `DOORBELL_WEAKEN` names one place that is to be weakened, so that `ci/loom.sh` can watch
//! each model fail. `docs/orderings.md` lists the names.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Returns `strong`, or `Relaxed` if the place `name` is being weakened.
#[inline(always)]
pub(crate) fn ordering(name: &str, strong: Ordering) -> Ordering {
    if kept(name) {
        strong
    } else {
        Ordering::Relaxed
    }
}

/// Issues a fence, unless the place `name` is being weakened.
#[inline(always)]
pub(crate) fn fence_at(name: &str, strong: Ordering) {
    if kept(name) {
        fence(strong);
    }
}

/// Returns `false` if the place `name` is being weakened; always `true` outside loom.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn kept(_name: &str) -> bool {
    true
}

/// Returns `false` if the place `name` is being weakened; always `true` outside loom.
#[cfg(loom)]
pub(crate) fn kept(name: &str) -> bool {
    use std::sync::OnceLock;

    static WEAKENED: OnceLock<Option<String>> = OnceLock::new();
    let weakened = WEAKENED.get_or_init(|| std::env::var("DOORBELL_WEAKEN").ok());
    weakened.as_deref() != Some(name)
}
