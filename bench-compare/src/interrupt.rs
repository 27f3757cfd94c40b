//! Ctrl-C as a flag that the first process looks at.
//!
//! The other processes of a measurement are in process groups of their own, so the terminal does not reach them: the first
//! process ends them.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Returns `true` once the user has pressed Ctrl-C or the process has been asked to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Makes Ctrl-C and the polite signals raise the flag.
///
/// # Errors
///
/// If there is a handler already.
pub(crate) fn raise_flag_on_ctrl_c() -> anyhow::Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))
        .context("cannot wait for Ctrl-C")
}
