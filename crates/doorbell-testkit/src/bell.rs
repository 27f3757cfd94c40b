//! Waking a peer that may be gone by now.

use std::io::ErrorKind;

use doorbell_shm::sys::Doorbell;

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
