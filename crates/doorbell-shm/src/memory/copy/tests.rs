//! The copies against `copy_from_slice`, at every length and alignment that matters.

use super::*;

const GUARD: usize = 128;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251 + 1) as u8).collect()
}

fn lengths() -> impl Iterator<Item = usize> {
    let around = |n: usize| n - 9..n + 10;
    (0..700)
        .chain(around(4096))
        .chain(around(16 * 1024))
        .chain(around(100_000))
}

/// A buffer of words, as the shared side is.
fn words(bytes: usize, fill: u8) -> Vec<u64> {
    vec![u64::from_ne_bytes([fill; 8]); bytes / 8]
}

fn as_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn copy_out_equals_a_slice_copy_and_stays_inside() {
    for length in lengths() {
        for skew in [0, 1, 5] {
            let shared: Vec<u64> = pattern(length.next_multiple_of(8))
                .chunks_exact(8)
                .map(|c| u64::from_ne_bytes(c.try_into().unwrap()))
                .collect();
            let mut private = vec![0xAA_u8; length + skew + GUARD];
            let to = private[skew..].as_mut_ptr();
            // SAFETY: `shared` has `length` rounded up, `private` has more than `length` left.
            unsafe { copy_out(shared.as_ptr().cast(), to, length) };
            assert_eq!(
                private[skew..skew + length],
                pattern(length),
                "length {length}"
            );
            let outside = private[..skew].iter().chain(&private[skew + length..]);
            assert!(
                outside.copied().all(|byte| byte == 0xAA),
                "length {length} skew {skew}"
            );
        }
    }
}

type CopyIn = unsafe fn(*const u8, *mut u8, usize);

#[test]
fn copy_in_equals_a_slice_copy_and_zeroes_the_last_word() {
    check_copy_in(copy_in);
}

#[test]
fn copy_in_past_caches_equals_a_slice_copy_and_zeroes_the_last_word() {
    check_copy_in(copy_in_past_caches);
}

fn check_copy_in(copy_in: CopyIn) {
    for length in lengths() {
        for skew in (0..8).chain([24, 40, 56, 63]) {
            let private = pattern(length);
            let mut shared = words((length + skew + GUARD).next_multiple_of(8), 0xAA);
            let to = shared.as_mut_ptr().cast::<u8>().wrapping_add(skew);
            // SAFETY: `shared` has more than `length` bytes and whole words.
            unsafe { copy_in(private.as_ptr(), to, length) };
            let shared = as_bytes(&shared);
            let end = skew + length;
            let word_end = if length <= skew.next_multiple_of(8) - skew {
                end
            } else {
                end.next_multiple_of(8)
            };
            assert_eq!(shared[skew..end], private, "length {length} skew {skew}");
            assert!(shared[..skew].iter().all(|&byte| byte == 0xAA));
            assert!(
                shared[end..word_end].iter().all(|&byte| byte == 0),
                "length {length}"
            );
            assert!(
                shared[word_end..].iter().all(|&byte| byte == 0xAA),
                "length {length}"
            );
        }
    }
}
