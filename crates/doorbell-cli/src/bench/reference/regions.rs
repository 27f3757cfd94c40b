//! Getting the two regions of a connection into both processes, without the connection.

use std::path::Path;

use anyhow::Context as _;
use doorbell_shm::memory::{self, Layout, OwnRegion, PeerRegion};
use doorbell_shm::sys::RegionHandle;

use super::handover::{Giver, take};

/// Makes both regions and returns what hands them to the first process.
///
/// # Errors
///
/// If memory or the path cannot be had.
pub(super) fn give(
    path: &Path,
    ring_bytes: usize,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<(OwnRegion, PeerRegion)> + use<>> {
    let giver = Giver::listen(path)?;
    let layout = layout(ring_bytes)?;
    let made =
        memory::create(layout, layout).context("cannot make the shared memory of the reference")?;
    Ok(move || {
        giver.give(&[
            made.server_handle.as_handle(),
            made.client_handle.as_handle(),
        ])?;
        Ok((made.own, made.peer))
    })
}

/// Takes the regions of the second process.
///
/// # Errors
///
/// If it does not give them, or gives others than these.
pub(super) fn adopt(path: &Path, ring_bytes: usize) -> anyhow::Result<(OwnRegion, PeerRegion)> {
    let mut handles = take(path, 2)?.into_iter().map(RegionHandle::from_handle);
    let mut next = || handles.next().context("a region is missing");
    let layout = layout(ring_bytes)?;
    Ok(memory::adopt(next()?, next()?, layout, layout)?)
}

/// Returns a layout with a ring of at least so many bytes.
fn layout(ring_bytes: usize) -> anyhow::Result<Layout> {
    let capacity = u32::try_from(ring_bytes.next_power_of_two())?;
    Ok(Layout::new(capacity.max(Layout::MIN_RING_BYTES), 0)?)
}
