//! Getting one [`BenchArea`] into both processes.

use std::path::Path;

use anyhow::Context as _;
use doorbell_shm::memory::{BenchArea, BenchShape};
use doorbell_shm::sys::RegionHandle;

use super::handover::{Giver, take};
use super::spin;

/// Makes an area and returns what hands it to the first process.
///
/// # Errors
///
/// If memory or the path cannot be had.
pub(super) fn give(
    path: &Path,
    shape: BenchShape,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<BenchArea> + use<>> {
    let giver = Giver::listen(path)?;
    let (area, handle) =
        BenchArea::create(shape).context("cannot make the shared memory of the reference")?;
    Ok(move || {
        giver.give(&[handle.as_handle()])?;
        Ok(area)
    })
}

/// Takes the area of the second process.
///
/// # Errors
///
/// If it does not give one of this shape.
pub(super) fn adopt(path: &Path, shape: BenchShape) -> anyhow::Result<BenchArea> {
    let handle = take(path, 1)?
        .pop()
        .context("the second process gave no memory")?;
    Ok(BenchArea::adopt(&RegionHandle::from_handle(handle), shape)?)
}

/// Waits awake until the word of `lane` is one that `is_awaited`, and returns it.
///
/// # Errors
///
/// If the other side is gone.
#[inline]
pub(super) fn wait_for(
    area: &BenchArea,
    lane: usize,
    is_awaited: impl Fn(u32) -> bool,
) -> anyhow::Result<u32> {
    let mut seen = 0;
    spin::until(|| {
        seen = area.load(lane);
        is_awaited(seen)
    })?;
    Ok(seen)
}

/// The lane that the first process writes.
pub(super) const REQUEST: usize = 0;

/// The lane that the second process writes.
pub(super) const ANSWER: usize = 1;

/// Two words and nothing else.
pub(super) const WORDS: BenchShape = BenchShape {
    lanes: 2,
    lane_bytes: 0,
};
