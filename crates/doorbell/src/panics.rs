//! Code of the user's that panics: it costs what it was called for, and nothing else.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
};

/// Runs code of the user's. Returns `None` if it panicked.
#[inline]
pub(crate) fn contain<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(output) => Some(output),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// Wakes somebody. A waker is the user's.
#[inline]
pub(crate) fn wake(waker: Waker) {
    contain(|| waker.wake());
}

/// Drops what is the user's, each by itself: two that panic in one go would end the process.
#[cold]
pub(crate) fn drop_each<T>(all: impl IntoIterator<Item = T>) {
    for one in all {
        contain(|| drop(one));
    }
}

/// As [`contain`], for what a thread that serves many does for one of them. Says so if it panicked, and returns `false`.
#[inline]
pub(crate) fn contain_visit(what: &str, visit: impl FnOnce()) -> bool {
    let is_well = contain(visit).is_some();
    if !is_well {
        contain(|| tracing::error!("{what} panicked")); // whoever listens may be what panics
    }
    is_well
}

/// Drops what a panic has been raised with. That may be of the user's and panic as well; what comes of that is dropped if it is a text, as of
/// `panic!`, and left alone if it is not: it could go on like that for ever.
#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
        && !another.is::<&str>()
        && !another.is::<String>()
    {
        std::mem::forget(another);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Panics when it is dropped, with another one that does.
    struct Touchy;

    impl Drop for Touchy {
        fn drop(&mut self) {
            panic_any(Self);
        }
    }

    #[test]
    fn panic_ends_here_whatever_it_was_raised_with() {
        assert_eq!(contain(|| 1), Some(1));
        assert_eq!(contain::<()>(|| panic!("a text")), None);
        assert_eq!(contain::<()>(|| panic_any(Touchy)), None);
    }

    #[test]
    fn each_is_dropped_although_all_of_them_panic() {
        drop_each(vec![Touchy, Touchy, Touchy]);
    }
}
