//! CRC-32C (Castagnoli), portable.
//!
//! One table lookup per byte: correct everywhere, fast nowhere. Programs that check every frame use a hardware version with the
//! same signature and compare it with this one in their tests.

/// Returns the CRC-32C of everything that went into `seed_or_previous`, followed by `bytes`.
///
/// Start with 0: `crc32c(crc32c(0, a), b)` is the checksum of `a` followed by `b`.
///
/// # Examples
///
/// ```
/// assert_eq!(doorbell_proto::crc::crc32c(0, b"123456789"), 0xE306_9283);
/// ```
#[inline]
pub fn crc32c(seed_or_previous: u32, bytes: &[u8]) -> u32 {
    let mut state = !seed_or_previous;
    for byte in bytes {
        let [low, ..] = state.to_le_bytes();
        state = TABLE[usize::from(low ^ byte)] ^ (state >> 8); // a u8 cannot leave 256 entries
    }
    !state
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut entry = index as u32;
        let mut bit = 0;
        while bit < 8 {
            entry = if entry & 1 == 1 {
                (entry >> 1) ^ REFLECTED_POLYNOMIAL
            } else {
                entry >> 1
            };
            bit += 1;
        }
        table[index] = entry;
        index += 1;
    }
    table
}

static TABLE: [u32; 256] = table();

/// 0x1EDC6F41 with its bits in reverse order.
const REFLECTED_POLYNOMIAL: u32 = 0x82F6_3B78;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_known_vectors_matches_rfc_3720() {
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(0, &[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(0, &[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(0, b""), 0);
    }

    #[test]
    fn crc32c_continued_equals_crc32c_of_the_whole() {
        let whole = b"frames of one direction arrive in order";
        for split in 0..=whole.len() {
            let (first, second) = whole.split_at(split);
            assert_eq!(crc32c(crc32c(0, first), second), crc32c(0, whole));
        }
    }
}
