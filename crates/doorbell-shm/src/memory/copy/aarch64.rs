//! Block copy for AArch64.

use std::arch::asm;

/// Copies `bytes` bytes, a multiple of 16.
///
/// # Safety
///
/// `bytes` can be read from `source` and written at `destination`, which do not overlap. One of the two
/// is private to the caller.
#[inline]
pub(super) unsafe fn copy_block(source: *const u8, destination: *mut u8, bytes: usize) {
    // SAFETY: reads and writes exactly `bytes`, 64 and then 16 at a time, which the caller allows. The
    // compiler takes an asm block for an access to any memory, so nothing is moved across it or
    // repeated.
    unsafe {
        asm!(
            "subs {bytes}, {bytes}, #64",
            "b.lo 3f",
            "2:",
            "ldp {a:q}, {b:q}, [{source}]",
            "ldp {c:q}, {d:q}, [{source}, #32]",
            "add {source}, {source}, #64",
            "stp {a:q}, {b:q}, [{destination}]",
            "stp {c:q}, {d:q}, [{destination}, #32]",
            "add {destination}, {destination}, #64",
            "subs {bytes}, {bytes}, #64",
            "b.hs 2b",
            "3:",
            "adds {bytes}, {bytes}, #64",
            "b.eq 5f",
            "4:",
            "ldr {a:q}, [{source}], #16",
            "str {a:q}, [{destination}], #16",
            "subs {bytes}, {bytes}, #16",
            "b.ne 4b",
            "5:",
            source = inout(reg) source => _,
            destination = inout(reg) destination => _,
            bytes = inout(reg) bytes => _,
            a = out(vreg) _,
            b = out(vreg) _,
            c = out(vreg) _,
            d = out(vreg) _,
            options(nostack),
        );
    }
}

/// Begins to fetch the cache line of `address`, which need not be mapped.
#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    // SAFETY: a hint that never faults, whatever the address, and changes nothing that a program can see.
    unsafe {
        asm!("prfm pldl1keep, [{address}]", address = in(reg) address, options(nostack, readonly, preserves_flags));
    }
}

/// Begins to fetch the cache line of `address` for writing. It need not be mapped.
#[inline]
pub(super) fn prefetch_line_to_write(address: *const u8) {
    // SAFETY: a hint that never faults, whatever the address, and changes nothing that a program can see.
    unsafe {
        asm!("prfm pstl1keep, [{address}]", address = in(reg) address, options(nostack, readonly, preserves_flags));
    }
}
