//! Whether a peer sleeps, and waking one that may be gone by now.

use std::io::ErrorKind;

use doorbell_shm::{SleepOn, sys::Doorbell};

/// Returns what a side sleeps on that has stored `word` as its sleep word.
pub(crate) fn sleeps_on(word: u32) -> Option<SleepOn> {
    match word & 3 {
        1 => Some(SleepOn::Futex),
        2 => Some(SleepOn::Doorbell),
        _ => None,
    }
}

/// Rings, unless nobody listens any more: a peer that reads nonsense leaves at once, often before the bell.
///
/// # Panics
///
/// If the bell cannot be rung for any other reason.
pub(crate) fn ring(bell: &Doorbell) {
    match bell.notify() {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ) => {}
        Err(error) => panic!("the peer's bell: {error}"),
    }
}
