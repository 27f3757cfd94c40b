//! Code of the user's that panics: it costs what it was called for, and nothing else.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
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

/// Drops what a panic has been raised with. That may be of the user's and panic as well; what comes of that is left alone.
#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
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
}
