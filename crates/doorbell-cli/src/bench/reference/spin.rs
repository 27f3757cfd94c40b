//! Waiting awake, with an end.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Spins until `happened`.
///
/// # Errors
///
/// If that takes far longer than any benchmark lasts: the other side is gone.
#[inline]
pub(super) fn until(mut happened: impl FnMut() -> bool) -> anyhow::Result<()> {
    for _ in 0..SPINS_WITHOUT_CLOCK {
        if happened() {
            return Ok(());
        }
        spin_loop();
    }
    until_patience_ends(happened)
}

#[cold]
fn until_patience_ends(mut happened: impl FnMut() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        for _ in 0..SPINS_WITHOUT_CLOCK {
            if happened() {
                return Ok(());
            }
            spin_loop();
        }
    }
    bail!("the other process has not moved for {PATIENCE:?}")
}

/// A few milliseconds.
const SPINS_WITHOUT_CLOCK: u32 = 100_000;

const PATIENCE: Duration = Duration::from_secs(60);
