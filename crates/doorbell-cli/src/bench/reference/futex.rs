//! A futex only: each side sleeps on its own word and wakes the other.
//!
//! Nothing is carried, so this is the least that waking a thread can cost.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use doorbell_shm::memory::BenchArea;

use super::Role;
use super::area::{self, ANSWER, REQUEST, WORDS};
use crate::bench::case::Setting;
use crate::bench::clock::closed_loop;
use crate::bench::peer;
use crate::bench::sample::Sample;

/// Times round trips of a wake-up.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn round_trips(setting: &Setting) -> anyhow::Result<Sample> {
    let peer = setting.start_peer(peer::Role::Reference(Role::Futex))?;
    setting.pin_client()?;
    let area = area::adopt(peer.path(), WORDS)?;
    let mut number = 0_u32;
    closed_loop(setting.limit, setting.size_bytes, || {
        number = number.wrapping_add(1);
        area.store(REQUEST, number);
        area.wake(REQUEST)?;
        wait_for(&area, ANSWER, number, Some(Instant::now() + PATIENCE))
    })
}

/// Answers each number with itself.
pub(super) fn serve(path: &Path) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    let give = area::give(path, WORDS)?;
    Ok(move || {
        let area = give()?;
        let mut number = 0_u32;
        loop {
            number = number.wrapping_add(1);
            wait_for(&area, REQUEST, number, None)?;
            area.store(ANSWER, number);
            area.wake(ANSWER)?;
        }
    })
}

/// Sleeps until the word is `number`, which comes after the number that it is now.
fn wait_for(
    area: &BenchArea,
    word: usize,
    number: u32,
    deadline: Option<Instant>,
) -> anyhow::Result<()> {
    while area.load(word) != number {
        area.wait(word, number.wrapping_sub(1), deadline)?;
        let is_late = deadline.is_some_and(|deadline| Instant::now() > deadline);
        ensure!(!is_late, "the second process does not answer");
    }
    Ok(())
}

/// Longer than any wake-up takes.
const PATIENCE: Duration = Duration::from_secs(10);
