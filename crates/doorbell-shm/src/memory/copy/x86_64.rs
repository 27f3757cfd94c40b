//! Block copy for x86-64.

use std::arch::asm;

/// Bytes from which on the processor's own string copy beats a loop over vector registers.
const STRING_BYTES: usize = 16 * 1024;

/// Copies `bytes` bytes, a multiple of 64 above zero.
///
/// # Safety
///
/// `bytes` can be read from `source` and written at `destination`, which do not overlap. One of the two
/// is private to the caller.
#[inline]
pub(super) unsafe fn copy_block(source: *const u8, destination: *mut u8, bytes: usize) {
    if bytes < STRING_BYTES {
        // SAFETY: the caller's promise, handed on.
        unsafe { copy_vectors(source, destination, bytes) }
    } else {
        // SAFETY: the caller's promise, handed on.
        unsafe { copy_string(source, destination, bytes) }
    }
}

/// # Safety
///
/// As for [`copy_block`].
#[inline]
unsafe fn copy_vectors(source: *const u8, destination: *mut u8, bytes: usize) {
    // SAFETY: reads and writes exactly `bytes`, 64 at a time, which the caller allows. The compiler
    // takes an asm block for an access to any memory, so nothing is moved across it or repeated.
    // SSE2 is part of every x86-64.
    unsafe {
        asm!(
            "2:",
            "movups {a}, [{source}]",
            "movups {b}, [{source} + 16]",
            "movups {c}, [{source} + 32]",
            "movups {d}, [{source} + 48]",
            "movups [{destination}], {a}",
            "movups [{destination} + 16], {b}",
            "movups [{destination} + 32], {c}",
            "movups [{destination} + 48], {d}",
            "add {source}, 64",
            "add {destination}, 64",
            "sub {bytes}, 64",
            "jnz 2b",
            source = inout(reg) source => _,
            destination = inout(reg) destination => _,
            bytes = inout(reg) bytes => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// # Safety
///
/// As for [`copy_block`].
#[inline]
unsafe fn copy_string(source: *const u8, destination: *mut u8, bytes: usize) {
    // SAFETY: reads and writes exactly `bytes`, which the caller allows. The direction flag is clear
    // on entry to any asm block, and `rep movsb` leaves the flags alone.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") bytes => _,
            inout("rsi") source => _,
            inout("rdi") destination => _,
            options(nostack, preserves_flags),
        );
    }
}
