//! CRC-32C with the instructions of `ARMv8`.

use std::arch::aarch64::{__crc32cb, __crc32cd};
use std::arch::is_aarch64_feature_detected;

/// Continues the register `crc` over `bytes`, or returns `None` if the processor cannot.
#[inline]
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> Option<u32> {
    // The answer is cached by the standard library: a load and a branch.
    is_aarch64_feature_detected!("crc").then(|| {
        // SAFETY: the processor has the instructions, as just seen.
        unsafe { serial(crc, bytes) }
    })
}

#[target_feature(enable = "crc")]
fn serial(crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let crc = words
        .iter()
        .fold(crc, |crc, word| __crc32cd(crc, u64::from_le_bytes(*word)));
    rest.iter().fold(crc, |crc, &byte| __crc32cb(crc, byte))
}
