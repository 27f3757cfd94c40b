//! Copies between private bytes and bytes that another process can see or change.
//!
//! `memcpy` is not for shared memory: the compiler may read its source twice, or split, widen or drop
//! its writes, because the language promises it that nobody else looks. Here every shared byte is
//! accessed either volatile, in words of 8 bytes, or by a block of assembly, which the compiler can
//! not see into. No reference to a shared byte is ever formed.
//!
//! Nanoseconds for one copy, both sides in cache, least of 40 runs, in two runs of
//! `examples/copy_bench.rs` that agreed within 5 % (AMD EPYC family 25 model 17, 2 virtual CPUs under KVM):
//!
//! | bytes      |    8 |   24 |   64 |  128 |  512 | 1024 | 4096 | 65,536 | 1,048,576 |
//! |------------|------|------|------|------|------|------|------|--------|-----------|
//! | `memcpy`   |  2.7 |  3.0 |  2.4 |  3.0 |  6.2 | 11.1 | 96.6 |   1149 |    21,500 |
//! | [`copy_out`] | 1.6 | 2.2 |  2.7 |  3.5 |  8.7 | 17.3 | 69.3 |   1125 |    21,200 |
//! | [`copy_in`] | 1.9 |  2.6 |  3.0 |  3.2 |  8.7 | 17.3 | 69.3 |   1124 |    21,300 |
//! | words only |  1.9 |  2.4 |  3.5 |  5.7 | 13.8 | 26.7 |  108 |   1904 |    35,400 |
//! | `rep movsb` | 3.8 |  3.8 |  3.8 | 11.6 | 13.8 | 18.1 | 95.5 |   1147 |    24,500 |
//!
//! So: words below 32 bytes, vector registers of 16 bytes from there on. The string instruction won nowhere,
//! and registers of 32 bytes only between 1 and 16 KiB, which is not worth a question at run time.
//!
//! Both directions work in whole words of the shared side. A record occupies a multiple of 8 bytes, so
//! that the word which holds its last byte belongs to it too.

#[cfg(all(target_arch = "x86_64", not(any(miri, doorbell_portable_copy))))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", not(any(miri, doorbell_portable_copy))))]
use x86_64::{copy_block, copy_block_past_caches, prefetch_line, prefetch_line_to_write};

#[cfg(all(target_arch = "aarch64", not(any(miri, doorbell_portable_copy))))]
mod aarch64;
#[cfg(all(target_arch = "aarch64", not(any(miri, doorbell_portable_copy))))]
use aarch64::{copy_block, prefetch_line, prefetch_line_to_write};
#[cfg(all(target_arch = "aarch64", not(any(miri, doorbell_portable_copy))))]
use copy_block as copy_block_past_caches; // nobody has measured it there

#[cfg(any(
    miri,
    doorbell_portable_copy, // for the sanitizers, which do not see into assembly
    not(any(target_arch = "x86_64", target_arch = "aarch64"))
))]
mod portable;
#[cfg(any(
    miri,
    doorbell_portable_copy,
    not(any(target_arch = "x86_64", target_arch = "aarch64"))
))]
use copy_block as copy_block_past_caches;
#[cfg(any(
    miri,
    doorbell_portable_copy, // for the sanitizers, which do not see into assembly
    not(any(target_arch = "x86_64", target_arch = "aarch64"))
))]
use portable::{copy_block, prefetch_line, prefetch_line_to_write};

/// Bytes from which on a block copy in assembly beats a loop over volatile words.
const BLOCK_BYTES: usize = 32;
/// Block copies move a multiple of this.
const BLOCK_UNIT_BYTES: usize = 16;

const WORD: usize = 8;

/// Begins to fetch what [`copy_out`] will read: `bytes` bytes from `shared` on, as far as it is worth it.
#[inline]
pub(super) fn prefetch(shared: *const u8, bytes: usize) {
    if bytes > 0 {
        prefetch_line(shared);
    }
    if bytes > LINE_BYTES {
        prefetch_line(shared.wrapping_add(LINE_BYTES));
    }
}

/// Begins to fetch, for writing, as much from `shared` on as a small frame takes.
#[inline]
pub(super) fn prefetch_to_write(shared: *const u8) {
    prefetch_line_to_write(shared);
    prefetch_line_to_write(shared.wrapping_add(LINE_BYTES));
}

/// A cache line. Two hold a small frame with its body; the processor itself fetches ahead in longer ones.
const LINE_BYTES: usize = 64;

/// Copies `bytes` bytes out of shared memory.
///
/// # Safety
///
/// - `shared` is a multiple of 8, and `bytes` rounded up to a multiple of 8 can be read from it.
/// - `bytes` bytes can be written at `private`, and no other thread or process touches them.
/// - The two do not overlap.
#[inline]
pub(super) unsafe fn copy_out(shared: *const u8, private: *mut u8, bytes: usize) {
    let block = block_bytes(bytes);
    if block != 0 {
        // SAFETY: `block` is at most `bytes` and a multiple of the unit; the caller answers for the
        // memory. Rule "payload is copied by the copy helper".
        unsafe { copy_block(shared, private, block) };
    }
    let mut done = block;
    while done + WORD <= bytes {
        // SAFETY: `done + 8 <= bytes`, so the word is inside both sides.
        let word = unsafe { load_shared(shared.wrapping_add(done)) };
        // SAFETY: as above; `private` is ours alone.
        unsafe { store_private(private.wrapping_add(done), word) };
        done += WORD;
    }
    if done < bytes {
        // SAFETY: the last word starts before `bytes`, so it ends by `bytes` rounded up.
        let word = unsafe { load_shared(shared.wrapping_add(done)) };
        // SAFETY: `bytes - done` is below 8 and that many bytes of `private` are left.
        unsafe { store_low_bytes(private.wrapping_add(done), word, bytes - done) };
    }
}

/// Copies `bytes` bytes into shared memory and zeroes the rest of the last 8-byte word.
///
/// # Safety
///
/// - `bytes` bytes can be read at `private`, and nobody writes them meanwhile.
/// - Everything from `shared` to the end of the 8-byte word that holds the last byte can be written,
///   and no other thread of this process touches it.
/// - The two do not overlap.
#[inline]
pub(super) unsafe fn copy_in(private: *const u8, shared: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise covers any part of the range.
    let head = unsafe { copy_in_to_word(private, shared, bytes) };
    let (private, shared) = (private.wrapping_add(head), shared.wrapping_add(head));
    let bytes = bytes - head;
    let block = block_bytes(bytes);
    if block != 0 {
        // SAFETY: `block` is at most `bytes` and a multiple of the unit; the caller answers for the
        // memory.
        unsafe { copy_block(private, shared, block) };
    }
    let mut done = block;
    while done + WORD <= bytes {
        // SAFETY: `done + 8 <= bytes`, so the word is inside both sides.
        let word = unsafe { load_private(private.wrapping_add(done)) };
        // SAFETY: as above, and `copy_in_to_word` has made `shared` a multiple of 8.
        unsafe { store_shared(shared.wrapping_add(done), word) };
        done += WORD;
    }
    if done < bytes {
        // SAFETY: `bytes - done` is below 8 and that many bytes of `private` are left.
        let word = unsafe { load_low_bytes(private.wrapping_add(done), bytes - done) };
        // SAFETY: the word holds the last byte, so the caller lets us write all of it.
        unsafe { store_shared(shared.wrapping_add(done), word) };
    }
}

/// As [`copy_in`], for much that another processor reads soon and nobody else does: the bytes go past the caches, where there are instructions
/// for that.
///
/// A line that the reader has in its cache, or the writer when the reader wants it, moves when it is asked for, one after the other; from
/// memory lines come ahead of their time.
///
/// # Safety
///
/// As for [`copy_in`].
pub(super) unsafe fn copy_in_past_caches(private: *const u8, shared: *mut u8, bytes: usize) {
    let head = (shared.addr().wrapping_neg() % LINE_BYTES).min(bytes);
    let lines = (bytes - head) / LINE_BYTES * LINE_BYTES;
    // SAFETY: the caller's promise covers any part of the range. Words are zeroed at the end only: the head ends at one if more follows.
    unsafe { copy_in(private, shared, head) };
    // SAFETY: `lines` is what is left after the head, less what is no whole line, and starts at one.
    unsafe { copy_block_past_caches(private.wrapping_add(head), shared.wrapping_add(head), lines) };
    let done = head + lines;
    // SAFETY: as for the head.
    unsafe {
        copy_in(
            private.wrapping_add(done),
            shared.wrapping_add(done),
            bytes - done,
        )
    };
}

/// Copies up to the first word boundary of `shared`, byte by byte; returns how many bytes that took.
///
/// Only a record written in odd pieces gets here.
///
/// # Safety
///
/// As for [`copy_in`].
#[inline]
unsafe fn copy_in_to_word(private: *const u8, shared: *mut u8, bytes: usize) -> usize {
    let head = (shared.addr().wrapping_neg() % WORD).min(bytes);
    for index in 0..head {
        // SAFETY: `index < bytes`.
        let byte = unsafe { private.wrapping_add(index).read() };
        // SAFETY: `index < bytes`; a byte needs no alignment.
        unsafe { shared.wrapping_add(index).write_volatile(byte) };
    }
    head
}

/// Returns how many of `bytes` a block copy takes: all whole units, or none of a small copy.
#[inline]
fn block_bytes(bytes: usize) -> usize {
    if bytes < BLOCK_BYTES {
        0
    } else {
        bytes - bytes % BLOCK_UNIT_BYTES
    }
}

/// Loads one word of shared memory.
///
/// # Safety
///
/// `shared` is a multiple of 8 and 8 bytes can be read from it.
#[inline(always)]
pub(super) unsafe fn load_shared(shared: *const u8) -> u64 {
    // SAFETY: aligned and readable by the caller's promise. A peer may write it meanwhile, which is
    // why it is volatile: read once, as one word, whatever the value.
    u64::from_le(unsafe { shared.cast::<u64>().read_volatile() })
}

/// # Safety
///
/// `shared` is a multiple of 8 and 8 bytes can be written at it.
#[inline(always)]
pub(super) unsafe fn store_shared(shared: *mut u8, word: u64) {
    // SAFETY: aligned and writable by the caller's promise; volatile because a peer looks at it.
    unsafe { shared.cast::<u64>().write_volatile(word.to_le()) }
}

/// # Safety
///
/// 8 bytes can be read from `private`.
#[inline(always)]
unsafe fn load_private(private: *const u8) -> u64 {
    // SAFETY: the caller's promise; no alignment needed.
    u64::from_le(unsafe { private.cast::<u64>().read_unaligned() })
}

/// # Safety
///
/// 8 bytes can be written at `private`.
#[inline(always)]
unsafe fn store_private(private: *mut u8, word: u64) {
    // SAFETY: the caller's promise; no alignment needed.
    unsafe { private.cast::<u64>().write_unaligned(word.to_le()) }
}

/// Returns `count` bytes, fewer than 8, as the low bytes of a word; the others are zero.
///
/// # Safety
///
/// `count` bytes can be read from `private`.
#[inline]
unsafe fn load_low_bytes(private: *const u8, count: usize) -> u64 {
    let (mut word, mut done) = (0, 0);
    if count & 4 != 0 {
        // SAFETY: bit 2 of `count` stands for these four bytes.
        let part = unsafe { private.cast::<u32>().read_unaligned() };
        word = u64::from(u32::from_le(part));
        done = 4;
    }
    if count & 2 != 0 {
        // SAFETY: bit 1 of `count` stands for these two bytes.
        let part = unsafe { private.wrapping_add(done).cast::<u16>().read_unaligned() };
        word |= u64::from(u16::from_le(part)) << (8 * done);
        done += 2;
    }
    if count & 1 != 0 {
        // SAFETY: bit 0 of `count` stands for this byte.
        let part = unsafe { private.wrapping_add(done).read() };
        word |= u64::from(part) << (8 * done);
    }
    word
}

/// Stores the `count` low bytes of `word`, fewer than 8.
///
/// # Safety
///
/// `count` bytes can be written at `private`.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "each cast takes the low bytes it wants"
)]
unsafe fn store_low_bytes(private: *mut u8, mut word: u64, count: usize) {
    let mut done = 0;
    if count & 4 != 0 {
        // SAFETY: bit 2 of `count` stands for these four bytes.
        unsafe { private.cast::<u32>().write_unaligned((word as u32).to_le()) };
        word >>= 32;
        done = 4;
    }
    if count & 2 != 0 {
        let part = (word as u16).to_le();
        // SAFETY: bit 1 of `count` stands for these two bytes.
        unsafe {
            private
                .wrapping_add(done)
                .cast::<u16>()
                .write_unaligned(part)
        };
        word >>= 16;
        done += 2;
    }
    if count & 1 != 0 {
        // SAFETY: bit 0 of `count` stands for this byte.
        unsafe { private.wrapping_add(done).write(word as u8) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
