//! CRC-32C with the instructions of SSE4.2 and PCLMULQDQ, and for more than a few cache lines with VPCLMULQDQ of AVX-512 where there is that.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{
    __m512i, _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64, _mm_cvtsi32_si128,
    _mm_cvtsi128_si64, _mm512_clmulepi64_epi128, _mm512_loadu_si512, _mm512_set_epi64,
    _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512, _mm512_zextsi128_si512,
};

use super::{HeaderWords, POLYNOMIAL};

/// Continues the register `crc` over `bytes`, or returns `None` if the processor cannot.
#[inline]
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> Option<u32> {
    // The answers are cached by the standard library: a load and a branch.
    if bytes.len() < 3 * SHORT {
        is_x86_feature_detected!("sse4.2").then(|| {
            // SAFETY: the processor has SSE4.2, as just seen.
            unsafe { serial(crc, bytes) }
        })
    } else if bytes.len() >= FOLDED && may_fold() {
        // SAFETY: the processor has SSE4.2, AVX-512F and VPCLMULQDQ, as just seen.
        Some(unsafe { folded(crc, bytes) })
    } else {
        let detected = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq");
        detected.then(|| {
            // SAFETY: the processor has both, as just seen.
            unsafe { interleaved(crc, bytes) }
        })
    }
}

#[inline]
fn may_fold() -> bool {
    is_x86_feature_detected!("sse4.2")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("vpclmulqdq")
}

/// Continues the register `crc` over `words` and the lower half of `last`, or returns `None` if the processor cannot.
#[inline]
pub(super) fn crc32c_words(crc: u32, words: [u64; 2], last: u64) -> Option<u32> {
    is_x86_feature_detected!("sse4.2").then(|| {
        // SAFETY: the processor has SSE4.2, as just seen.
        unsafe { words_and_half(crc, words, last) }
    })
}

/// Begins a register over a header and continues it over `body`, or returns `None` if the processor cannot, or the body is longer than one
/// lane is good for.
#[inline]
pub(super) fn crc32c_record(&[first, second, last]: &HeaderWords, body: &[u8]) -> Option<u32> {
    let is_detected = body.len() < 3 * SHORT && is_x86_feature_detected!("sse4.2");
    is_detected.then(|| {
        // SAFETY: the processor has SSE4.2, as just seen.
        unsafe { record([first, second], last, body) }
    })
}

#[target_feature(enable = "sse4.2")]
fn record(words: [u64; 2], last: u64, body: &[u8]) -> u32 {
    serial(words_and_half(!0, words, last), body)
}

#[target_feature(enable = "sse4.2")]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn words_and_half(crc: u32, words: [u64; 2], last: u64) -> u32 {
    let crc = words
        .iter()
        .fold(crc, |crc, word| step(crc, word.to_le_bytes()));
    _mm_crc32_u32(crc, last as u32)
}

/// One word after the other: each waits for the one before, three cycles.
#[target_feature(enable = "sse4.2")]
#[inline]
fn serial(mut crc: u32, bytes: &[u8]) -> u32 {
    let (lines, rest) = bytes.as_chunks::<32>();
    for line in lines {
        let (words, _) = line.as_chunks::<8>();
        crc = words.iter().fold(crc, |crc, word| step(crc, *word));
    }
    let (words, rest) = rest.as_chunks::<8>();
    let crc = words.iter().fold(crc, |crc, word| step(crc, *word));
    let (half, rest) = rest.as_chunks::<4>();
    let crc = half.iter().fold(crc, |crc, half| {
        _mm_crc32_u32(crc, u32::from_le_bytes(*half))
    });
    rest.iter().fold(crc, |crc, &byte| _mm_crc32_u8(crc, byte))
}

/// Three lanes at once, which fill those three cycles, then joined.
#[target_feature(enable = "sse4.2,pclmulqdq")]
fn interleaved(crc: u32, bytes: &[u8]) -> u32 {
    let (crc, bytes) = blocks::<LONG>(crc, bytes);
    let (crc, bytes) = blocks::<SHORT>(crc, bytes);
    serial(crc, bytes)
}

/// Consumes all whole blocks of three lanes of `LANE` bytes; returns the rest.
#[target_feature(enable = "sse4.2,pclmulqdq")]
#[inline]
fn blocks<const LANE: usize>(mut crc: u32, mut bytes: &[u8]) -> (u32, &[u8]) {
    while let Some((block, rest)) = bytes.split_at_checked(3 * LANE) {
        crc = three_lanes::<LANE>(crc, block);
        bytes = rest;
    }
    (crc, bytes)
}

/// The last word of the third lane is left to the end: what the first two lanes come to, moved on past
/// everything that follows them, is added to it.
#[target_feature(enable = "sse4.2,pclmulqdq")]
#[inline]
fn three_lanes<const LANE: usize>(crc: u32, block: &[u8]) -> u32 {
    let (words, _) = block.as_chunks::<8>();
    let (first, rest) = words.split_at(LANE / 8);
    let (second, third) = rest.split_at(LANE / 8);
    let [third @ .., last] = third else {
        return crc;
    };
    let (mut a, mut b, mut c) = (crc, 0, 0);
    for ((x, y), z) in first.iter().zip(second).zip(third) {
        a = step(a, *x);
        b = step(b, *y);
        c = step(c, *z);
    }
    if let ([.., x], [.., y]) = (first, second) {
        a = step(a, *x);
        b = step(b, *y);
    }
    let moved = shift(a, const { power(2 * LANE) }) ^ shift(b, const { power(LANE) });
    step(c, (u64::from_le_bytes(*last) ^ moved).to_le_bytes())
}

/// Folds four cache lines into the next four, again and again, then those into one, which has the same remainder as all of them. (After Gopal
/// and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009, with four products at a time.)
#[target_feature(enable = "sse4.2,avx512f,vpclmulqdq")]
fn folded(crc: u32, bytes: &[u8]) -> u32 {
    let (lines, rest) = bytes.as_chunks::<LINE>();
    let Some((first, mut lines)) = lines.split_first_chunk::<LINES>() else {
        return serial(crc, bytes);
    };
    let mut sums = first.each_ref().map(|line| load(line));
    let crc = _mm512_zextsi128_si512(_mm_cvtsi32_si128(crc.cast_signed()));
    sums[0] = _mm512_xor_si512(sums[0], crc);
    while let Some((next, after)) = lines.split_first_chunk::<LINES>() {
        for (sum, line) in sums.iter_mut().zip(next) {
            *sum = fold::<{ LINES * LINE }>(*sum, load(line));
        }
        lines = after;
    }
    let [first, others @ ..] = sums;
    let sum = others.into_iter().fold(first, |a, b| fold::<LINE>(a, b));
    let sum = lines
        .iter()
        .fold(sum, |sum, line| fold::<LINE>(sum, load(line)));
    let mut words = [0_u64; LINE / 8];
    // SAFETY: as many bytes as a register has, which are ours; no alignment is asked for.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), sum) };
    let crc = words
        .iter()
        .fold(0, |crc, word| step(crc, word.to_ne_bytes()));
    serial(crc, rest)
}

/// Adds `next` to what `sum` comes to `BYTES` later. Each half of 16 bytes is multiplied by a power of its own: the first one is 8 bytes further away.
#[target_feature(enable = "avx512f,vpclmulqdq")]
#[inline]
fn fold<const BYTES: usize>(sum: __m512i, next: __m512i) -> __m512i {
    let (first, second) = const { (power(BYTES + 8) as i64, power(BYTES) as i64) };
    let powers = _mm512_set_epi64(second, first, second, first, second, first, second, first);
    let first = _mm512_clmulepi64_epi128::<0x00>(sum, powers);
    let second = _mm512_clmulepi64_epi128::<0x11>(sum, powers);
    _mm512_ternarylogic_epi64::<XOR_OF_THREE>(first, second, next)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(line: &[u8; LINE]) -> __m512i {
    // SAFETY: as many bytes as a register has; no alignment is asked for.
    unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
}

#[target_feature(enable = "sse4.2")]
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the instruction leaves the upper half zero"
)]
fn step(crc: u32, word: [u8; 8]) -> u32 {
    _mm_crc32_u64(u64::from(crc), u64::from_le_bytes(word)) as u32
}

/// Returns the carry-less product of a register and a power: still to be reduced, by one more step.
#[target_feature(enable = "pclmulqdq")]
#[inline]
fn shift(crc: u32, power: u32) -> u64 {
    let [crc, power] = [crc, power].map(|bits| _mm_cvtsi32_si128(bits.cast_signed()));
    _mm_cvtsi128_si64(_mm_clmulepi64_si128::<0>(crc, power)).cast_unsigned()
}

/// Returns x^(8 · `bytes` − 33) modulo the polynomial, in reverse bit order.
///
/// The product of two reversed numbers comes out shifted by one place, and the step that reduces it
/// multiplies by x^32: with those 33 it is x^(8 · `bytes`), the effect of that many zero bytes.
const fn power(bytes: usize) -> u32 {
    let mut crc = 1 << 31; // x^0
    let mut left = 8 * bytes - 33;
    while left > 0 {
        crc = (crc >> 1) ^ (if crc & 1 == 1 { POLYNOMIAL } else { 0 });
        left -= 1;
    }
    crc
}

/// Bytes of a register of AVX-512.
const LINE: usize = 64;
/// Registers that are folded at once: as many as the products keep busy.
const LINES: usize = 4;
/// Bytes from which on it is worth it.
const FOLDED: usize = LINES * LINE;
/// Table of what the instruction is to compute.
const XOR_OF_THREE: i32 = 0x96;

/// Bytes of a lane in the blocks of a large body.
const LONG: usize = 1024;
/// Bytes of a lane in the blocks of a small one; anything shorter than three of them is not worth it.
const SHORT: usize = 64;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{super::table, *};

    /// Each way, where the processor has it, at lengths that it would not be taken for as well.
    #[test]
    fn all_ways_agree_with_the_table() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i * i / 7) as u8).collect();
        let has_lanes = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq");
        for length in (0..1100).chain([3071, 3072, 3073, 4096, 6144, 6500, 9900]) {
            for start in [0, 1, 8, 63] {
                let part = &bytes[start..start + length];
                let crc = 0x1234_5678 ^ length as u32;
                let expected = table::crc32c(crc, part);
                if has_lanes {
                    // SAFETY: the processor has both, as just seen.
                    let found = unsafe { interleaved(crc, part) };
                    assert_eq!(found, expected, "{start} {length}");
                    // SAFETY: the same.
                    let found = unsafe { serial(crc, part) };
                    assert_eq!(found, expected, "{start} {length}");
                }
                if may_fold() {
                    // SAFETY: the processor has all of it, as just seen.
                    let found = unsafe { folded(crc, part) };
                    assert_eq!(found, expected, "{start} {length}");
                }
            }
        }
    }
}
