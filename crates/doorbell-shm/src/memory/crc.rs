//! CRC-32C (Castagnoli), as in iSCSI: finds accidents, not attackers.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod table;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use super::HeaderWords;

/// Returns the CRC-32C of `bytes` appended to data whose CRC-32C is `previous` (0 if there is none).
///
/// Uses the processor's instruction where there is one; which is found out once.
///
/// # Examples
///
/// ```
/// use doorbell_shm::memory::crc32c;
///
/// assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
/// assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), 0xE306_9283);
/// ```
#[inline]
pub fn crc32c(previous: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(crc) = x86_64::crc32c(!previous, bytes) {
        return !crc;
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(crc) = aarch64::crc32c(!previous, bytes) {
        return !crc;
    }
    !table::crc32c(!previous, bytes)
}

/// Returns the CRC-32C of the bytes of a header before its own checksum, the first 20, without storing them anywhere.
#[inline]
pub fn crc32c_header(&[first, second, last]: &HeaderWords) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(crc) = x86_64::crc32c_words(!0, [first, second], last) {
        return !crc;
    }
    let mut bytes = [0; 24];
    for (bytes, word) in bytes
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip([first, second, last])
    {
        *bytes = word.to_le_bytes();
    }
    crc32c(0, &bytes[..20])
}

/// Returns the CRC-32C of the same bytes of a header followed by `body`.
#[inline]
pub fn crc32c_record(header: &HeaderWords, body: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(crc) = x86_64::crc32c_record(header, body) {
        return !crc;
    }
    crc32c(crc32c_header(header), body)
}

/// The polynomial 0x1EDC6F41 with its bits in reverse order.
const POLYNOMIAL: u32 = 0x82F6_3B78;

#[cfg(all(test, not(loom)))]
mod tests;
