//! A message copied in, taken out, copied back and taken out again, with both sides awake: the least that a safe round trip
//! of bytes can cost.
//!
//! Each side waits on one word, and the message lies on the cache line after it. The second process copies through a small private buffer, as whoever must not trust shared
//! memory has to; the buffer stays in the nearest cache, so a large message costs three passes over memory and not four.

use std::path::Path;

use anyhow::ensure;
use doorbell_shm::memory::BenchShape;

use super::Role;
use super::area::{self, ANSWER, REQUEST, wait_for};
use crate::bench::case::Setting;
use crate::bench::clock::closed_loop;
use crate::bench::peer;
use crate::bench::sample::Sample;

/// Times round trips of a message.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn round_trips(setting: &Setting) -> anyhow::Result<Sample> {
    let size_bytes = setting.size_bytes;
    let peer = setting.start_peer(peer::Role::Reference(Role::Copy { size_bytes }))?;
    setting.pin_client()?;
    let mut area = area::adopt(peer.path(), shape(size_bytes))?;
    let mut request = vec![0x5A; size_bytes];
    let mut answer = Vec::with_capacity(size_bytes);
    let mut number = 0_u32;
    closed_loop(setting.limit, size_bytes, || {
        number = number.wrapping_add(1);
        stamp(&mut request, number);
        area.copy_in(REQUEST, 0, &request);
        area.store(REQUEST, number);
        wait_for(&area, ANSWER, |seen| seen == number)?;
        answer.clear();
        area.append_to(&mut answer, ANSWER, 0, size_bytes);
        ensure!(is_stamped(&answer, number), "the echo is not what was sent");
        Ok(())
    })
}

/// Sends each message back.
pub(super) fn serve(
    path: &Path,
    size_bytes: usize,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    let give = area::give(path, shape(size_bytes))?;
    Ok(move || {
        let mut area = give()?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut number = 0_u32;
        loop {
            number = number.wrapping_add(1);
            wait_for(&area, REQUEST, |seen| seen == number)?;
            for place in (0..size_bytes).step_by(BUFFER_BYTES) {
                buffer.clear();
                area.append_to(
                    &mut buffer,
                    REQUEST,
                    place,
                    BUFFER_BYTES.min(size_bytes - place),
                );
                area.copy_in(ANSWER, place, &buffer);
            }
            area.store(ANSWER, number);
        }
    })
}

fn shape(size_bytes: usize) -> BenchShape {
    BenchShape {
        lanes: 2,
        lane_bytes: size_bytes,
    }
}

/// Writes `number` at both ends of the message.
fn stamp(message: &mut [u8], number: u32) {
    let bytes = number.to_le_bytes();
    let end = message.len() - bytes.len();
    message[..bytes.len()].copy_from_slice(&bytes);
    message[end..].copy_from_slice(&bytes);
}

fn is_stamped(message: &[u8], number: u32) -> bool {
    let bytes = number.to_le_bytes();
    message.starts_with(&bytes) && message.ends_with(&bytes)
}

/// Half of the nearest cache of common CPUs.
const BUFFER_BYTES: usize = 16 << 10;
