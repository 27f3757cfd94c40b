//! CRC-32C with the instructions of SSE4.2 and PCLMULQDQ.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{
    _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64, _mm_cvtsi32_si128,
    _mm_cvtsi128_si64,
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
    } else {
        let detected = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq");
        detected.then(|| {
            // SAFETY: the processor has both, as just seen.
            unsafe { interleaved(crc, bytes) }
        })
    }
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

/// Bytes of a lane in the blocks of a large body.
const LONG: usize = 1024;
/// Bytes of a lane in the blocks of a small one; anything shorter than three of them is not worth it.
const SHORT: usize = 64;
