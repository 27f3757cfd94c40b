//! Copies in private memory of one process: how fast bytes move at all.

use std::hint::black_box;

use crate::bench::case::Setting;
use crate::bench::clock::closed_loop;
use crate::bench::sample::Sample;

/// Times copies from one buffer to another, both in the caches as far as they fit.
///
/// # Errors
///
/// If the CPU asked for cannot be had.
pub(crate) fn copies(setting: &Setting) -> anyhow::Result<Sample> {
    setting.pin_client()?;
    let source = vec![0x5A_u8; setting.size_bytes];
    let mut target = vec![0_u8; setting.size_bytes];
    closed_loop(setting.limit, setting.size_bytes, || {
        black_box(&mut target).copy_from_slice(black_box(&source));
        Ok(())
    })
}
