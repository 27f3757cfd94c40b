//! Block copy for x86-64.

use std::arch::asm;

/// Copies `bytes` bytes, a multiple of 16.
///
/// # Safety
///
/// `bytes` can be read from `source` and written at `destination`, which do not overlap. One of the two
/// is private to the caller.
#[inline]
pub(super) unsafe fn copy_block(source: *const u8, destination: *mut u8, bytes: usize) {
    if bytes >= STRING_BYTES {
        // SAFETY: reads and writes exactly `bytes`, which the caller allows; the direction flag is clear in Rust code. The compiler
        // takes an asm block for an access to any memory, so nothing is moved across it or repeated.
        unsafe {
            asm!(
                "rep movsb",
                inout("rsi") source => _,
                inout("rdi") destination => _,
                inout("rcx") bytes => _,
                options(nostack, preserves_flags),
            );
        }
        return;
    }
    // SAFETY: reads and writes exactly `bytes`, 64 and then 16 at a time, which the caller allows. The
    // compiler takes an asm block for an access to any memory, so nothing is moved across it or
    // repeated. SSE2 is part of every x86-64.
    unsafe {
        asm!(
            "sub {bytes}, 64",
            "jb 3f",
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
            "jae 2b",
            "3:",
            "add {bytes}, 64",
            "jz 5f",
            "4:",
            "movups {a}, [{source}]",
            "movups [{destination}], {a}",
            "add {source}, 16",
            "add {destination}, 16",
            "sub {bytes}, 16",
            "jnz 4b",
            "5:",
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

/// Copies `bytes` bytes, a multiple of 64, past the caches: the lines of `destination` go to memory, whatever cache they are in now, and later
/// stores become visible after them.
///
/// # Safety
///
/// As for [`copy_block`], and `destination` is a multiple of 16.
#[inline]
pub(super) unsafe fn copy_block_past_caches(source: *const u8, destination: *mut u8, bytes: usize) {
    // SAFETY: reads and writes exactly `bytes`, 64 at a time, of which there is at least one turn because `bytes` is not 0 there. The
    // stores are aligned. They are weakly ordered, so the fence comes before anything that tells of them. The compiler takes an
    // asm block for an access to any memory. SSE2 is part of every x86-64.
    unsafe {
        asm!(
            "test {bytes}, {bytes}",
            "jz 3f",
            "2:",
            "movups {a}, [{source}]",
            "movups {b}, [{source} + 16]",
            "movups {c}, [{source} + 32]",
            "movups {d}, [{source} + 48]",
            "movntdq [{destination}], {a}",
            "movntdq [{destination} + 16], {b}",
            "movntdq [{destination} + 32], {c}",
            "movntdq [{destination} + 48], {d}",
            "add {source}, 64",
            "add {destination}, 64",
            "sub {bytes}, 64",
            "jnz 2b",
            "sfence",
            "3:",
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

/// From here on the processor's own copy loop.
const STRING_BYTES: usize = 2048;

/// Begins to fetch the cache line of `address`, which need not be mapped.
#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    // SAFETY: a hint that never faults, whatever the address, and changes nothing that a program can see.
    unsafe {
        asm!("prefetcht0 [{address}]", address = in(reg) address, options(nostack, readonly, preserves_flags));
    }
}

/// Begins to fetch the cache line of `address` for writing. It need not be mapped.
#[inline]
pub(super) fn prefetch_line_to_write(address: *const u8) {
    // SAFETY: a hint that never faults, whatever the address, and changes nothing that a program can see.
    unsafe {
        asm!("prefetchw [{address}]", address = in(reg) address, options(nostack, readonly, preserves_flags));
    }
}
