//! Block copy where no assembly is at hand, and under Miri: words, one side aligned or not.

/// Copies `bytes` bytes, a multiple of 16.
///
/// # Safety
///
/// `bytes` can be read from `source` and written at `destination`, which do not overlap. One of the two
/// is private to the caller; the other is a multiple of 8.
pub(super) unsafe fn copy_block(source: *const u8, destination: *mut u8, bytes: usize) {
    for done in (0..bytes).step_by(8) {
        // SAFETY: inside the caller's `bytes`. Bytes of an array need no alignment, and reading them
        // volatile is right whichever side is shared.
        let word = unsafe { source.wrapping_add(done).cast::<[u8; 8]>().read_volatile() };
        // SAFETY: as above.
        unsafe {
            destination
                .wrapping_add(done)
                .cast::<[u8; 8]>()
                .write_volatile(word)
        };
    }
}

/// Begins to fetch the cache line of `address`, which need not be mapped.
#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    let _ = address;
}

/// Begins to fetch the cache line of `address` for writing. It need not be mapped.
#[inline]
pub(super) fn prefetch_line_to_write(address: *const u8) {
    let _ = address;
}
