//! Compares ways of copying that are allowed on shared memory with `memcpy`, which is not.
//!
//! ```sh
//! cargo run --release -p doorbell-shm --example copy_bench
//! ```
//!
//! The thresholds in `src/memory/copy` follow from its table. Source and destination are warm; each
//! figure is the least of many runs, in nanoseconds for one copy.

use std::hint::black_box;
use std::time::Instant;

#[path = "../src/memory/copy/mod.rs"]
#[allow(dead_code)] // only copying is compared
mod copy;

const SIZES: [usize; 20] = [
    8, 24, 32, 40, 61, 64, 100, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192, 16_384, 65_536,
    262_144, 1_048_576,
];

type Copy = unsafe fn(*const u8, *mut u8, usize);

const CANDIDATES: &[(&str, Copy)] = &[
    ("memcpy", memcpy),
    ("copy_out", copy::copy_out),
    ("copy_in", copy::copy_in),
    ("past", copy::copy_in_past_caches),
    ("words", words),
    #[cfg(target_arch = "x86_64")]
    ("string", string),
];

fn main() {
    print!("{:>8}", "bytes");
    CANDIDATES.iter().for_each(|(name, _)| print!("{name:>10}"));
    println!();
    for bytes in SIZES {
        print!("{bytes:>8}");
        for (_, copy) in CANDIDATES {
            print!("{:>10.1}", nanoseconds(bytes, *copy));
        }
        println!();
    }
}

fn nanoseconds(bytes: usize, copy: Copy) -> f64 {
    let source = vec![1_u64; bytes.div_ceil(8)];
    let mut destination = vec![0_u64; bytes.div_ceil(8)];
    let rounds = (200_000 / (bytes / 32 + 1)).max(20);
    let run = |_| {
        let start = Instant::now();
        for _ in 0..rounds {
            let from = black_box(source.as_ptr().cast());
            let to = black_box(destination.as_mut_ptr().cast());
            // SAFETY: both have `bytes` rounded up to 8, are aligned to 8, and are ours.
            unsafe { black_box(copy)(from, to, black_box(bytes)) };
        }
        start.elapsed().as_secs_f64() * 1e9 / rounds as f64
    };
    (0..40).map(run).fold(f64::INFINITY, f64::min)
}

unsafe fn memcpy(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { from.copy_to_nonoverlapping(to, bytes) };
}

unsafe fn words(from: *const u8, to: *mut u8, bytes: usize) {
    for offset in (0..bytes).step_by(8) {
        // SAFETY: the caller's promise.
        let word = unsafe { from.wrapping_add(offset).cast::<u64>().read_volatile() };
        // SAFETY: the caller's promise.
        unsafe { to.wrapping_add(offset).cast::<u64>().write_unaligned(word) };
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn string(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") bytes => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}
