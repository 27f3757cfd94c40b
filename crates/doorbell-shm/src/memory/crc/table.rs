//! CRC-32C for processors without an instruction for it, and the oracle of those with one.

use super::POLYNOMIAL;

/// Continues the register `crc` over `bytes`, eight at a time.
pub(super) fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        crc = step_word(crc, u64::from_le_bytes(*word));
    }
    for &byte in rest {
        crc = (crc >> 8) ^ TABLES[0][usize::from(byte ^ low_byte(crc))];
    }
    crc
}

fn step_word(crc: u32, word: u64) -> u32 {
    let bytes = (word ^ u64::from(crc)).to_le_bytes();
    let part = |(index, &byte): (usize, &u8)| TABLES[7 - index][usize::from(byte)];
    bytes
        .iter()
        .enumerate()
        .map(part)
        .fold(0, |crc, part| crc ^ part)
}

const fn low_byte(crc: u32) -> u8 {
    crc.to_le_bytes()[0]
}

/// `TABLES[k][b]`: the register after byte `b` and `k` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut zeros = 0;
        while zeros < 8 {
            crc = step_byte(crc);
            tables[zeros][byte] = crc;
            zeros += 1;
        }
        byte += 1;
    }
    tables
}

/// Shifts eight bits out of the register.
const fn step_byte(mut crc: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        crc = (crc >> 1) ^ (if crc & 1 == 1 { POLYNOMIAL } else { 0 });
        bit += 1;
    }
    crc
}
